"""Latches inside a transaction: rows, the report that fills in, and when one has settled."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, bindparam, exists, not_, select, update

from fermata.server.errors import not_found
from fermata.server.latches.coverage import ActiveLatch, to_scope
from fermata.server.names import Name
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import latch_pb2, run_pb2

LATCHED = latch_pb2.LATCH_STATE_LATCHED
SETTLED = latch_pb2.LATCH_STATE_SETTLED
RELEASED = latch_pb2.LATCH_STATE_RELEASED
HOLD = latch_pb2.LATCH_KIND_HOLD
HALT = latch_pb2.LATCH_KIND_HALT

_STATUS = {
    run_pb2.STEP_OUTCOME_NOT_STARTED: latch_pb2.LATCH_STEP_STATUS_NOT_STARTED,
    run_pb2.STEP_OUTCOME_KILLED: latch_pb2.LATCH_STEP_STATUS_KILLED,
}


_ACTIVE = (
    select(
        schema.latches.c.id,
        schema.latches.c.kind,
        schema.latches.c.scope,
        schema.latches.c.target,
        schema.latches.c.reason,
        schema.latches.c.created_by,
    )
    .where(
        and_(
            schema.latches.c.tenant == bindparam("of_tenant"), schema.latches.c.state.in_((LATCHED, SETTLED))
        )
    )
    .order_by(schema.latches.c.n)
)
_WAITING_FOR_RUN = select(schema.latch_runs.c.latch).where(
    and_(
        schema.latch_runs.c.tenant == bindparam("of_tenant"),
        schema.latch_runs.c.run == bindparam("of_run"),
        schema.latch_runs.c.stopped.is_(False),
    )
)
_WAITING_FOR_STEP = (
    select(schema.latch_steps.c.latch, schema.latches.c.created)
    .join(
        schema.latches,
        and_(
            schema.latches.c.tenant == schema.latch_steps.c.tenant,
            schema.latches.c.id == schema.latch_steps.c.latch,
        ),
    )
    .where(
        and_(
            schema.latch_steps.c.tenant == bindparam("of_tenant"),
            schema.latch_steps.c.run == bindparam("of_run"),
            schema.latch_steps.c.key == bindparam("of_step"),
            schema.latch_steps.c.status.in_(
                (latch_pb2.LATCH_STEP_STATUS_OPEN, latch_pb2.LATCH_STEP_STATUS_UNREACHABLE)
            ),
        )
    )
)
_ONE = select(schema.latches).where(
    and_(schema.latches.c.tenant == bindparam("of_tenant"), schema.latches.c.id == bindparam("of_latch"))
)
_STEPS = select(schema.latch_steps).where(
    and_(
        schema.latch_steps.c.tenant == bindparam("of_tenant"),
        schema.latch_steps.c.latch == bindparam("of_latch"),
    )
)
_RUNS = select(schema.latch_runs.c.run).where(
    and_(
        schema.latch_runs.c.tenant == bindparam("of_tenant"),
        schema.latch_runs.c.latch == bindparam("of_latch"),
    )
)
_STOP_RUN = (
    update(schema.latch_runs)
    .where(
        and_(
            schema.latch_runs.c.tenant == bindparam("of_tenant"),
            schema.latch_runs.c.run == bindparam("of_run"),
            schema.latch_runs.c.stopped.is_(False),
        )
    )
    .values(stopped=True)
)
_END_STEP = update(schema.latch_steps).where(
    and_(
        schema.latch_steps.c.tenant == bindparam("of_tenant"),
        schema.latch_steps.c.latch == bindparam("of_latch"),
        schema.latch_steps.c.run == bindparam("of_run"),
        schema.latch_steps.c.key == bindparam("of_step"),
    )
)
_SETTLE = (
    update(schema.latches)
    .where(
        and_(
            schema.latches.c.tenant == bindparam("of_tenant"),
            schema.latches.c.id == bindparam("of_latch"),
            schema.latches.c.state == LATCHED,
            not_(exists(_RUNS.where(schema.latch_runs.c.stopped.is_(False)))),
            not_(
                exists(
                    _STEPS.where(
                        schema.latch_steps.c.status.in_(
                            (latch_pb2.LATCH_STEP_STATUS_OPEN, latch_pb2.LATCH_STEP_STATUS_UNREACHABLE)
                        )
                    )
                )
            ),
        )
    )
    .values(state=SETTLED, settled=bindparam("now"))
)


def active(connection: Any, tenant: str) -> list[ActiveLatch]:
    """Every latch of the tenant that has not been lifted, oldest first."""
    return [ActiveLatch(*row) for row in connection.execute(_ACTIVE, {"of_tenant": tenant})]


def find(connection: Any, tenant: str, latch: str) -> Any:
    """The row of a latch.

    :raises DomainError: LATCH_NOT_FOUND.
    """
    row = connection.execute(_ONE, {"of_tenant": tenant, "of_latch": latch}).first()
    if row is None:
        raise not_found("latch", str(Name(tenant, "latches", latch)), "List them with ListLatches.")
    return row


def step_ended(
    transaction: Transaction, tenant: str, run: str, key: str, outcome: run_pb2.StepOutcome.ValueType
) -> None:
    """Fill a step's end into the reports of the latches that found it open, and settle those that it was the last for."""
    mine = {"of_tenant": tenant, "of_run": run, "of_step": key}
    for latch, created in transaction.execute(_WAITING_FOR_STEP, mine).fetchall():
        transaction.execute(
            _END_STEP,
            {
                **mine,
                "of_latch": latch,
                "status": _STATUS.get(outcome, latch_pb2.LATCH_STEP_STATUS_FINISHED),
                "milliseconds": (transaction.now - created) * 1e3,
            },
        )
        settle(transaction, tenant, latch)


def waiting_for_run(connection: Any, tenant: str, run: str) -> list[str]:
    """Latches that have found the run at work and wait for its end."""
    return list(connection.execute(_WAITING_FOR_RUN, {"of_tenant": tenant, "of_run": run}).scalars())


def run_stopped(transaction: Transaction, tenant: str, run: str) -> None:
    """Tell the latches that wait for this run that nothing of it can start any more."""
    mine = {"of_tenant": tenant, "of_run": run}
    waiting = waiting_for_run(transaction, tenant, run)
    if waiting:
        transaction.execute(_STOP_RUN, mine)
    for latch in waiting:
        settle(transaction, tenant, latch)


def settle(transaction: Transaction, tenant: str, latch: str) -> None:
    """Mark a latch SETTLED if every run has stopped and every effect that was open has ended. Never undone, and never twice."""
    transaction.publication.latches.append(latch)
    transaction.execute(_SETTLE, {"of_tenant": tenant, "of_latch": latch, "now": transaction.now})


def to_message(connection: Any, row: Any) -> latch_pb2.Latch:
    """A latch of the API, with its report, from its row."""
    message = latch_pb2.Latch(
        name=str(Name(row.tenant, "latches", row.id)),
        kind=row.kind,
        scope=to_scope(row.tenant, row.scope, row.target),
        reason=row.reason,
        state=row.state,
        created_by=row.created_by,
        on_behalf_of=row.on_behalf_of,
        released_by=row.released_by,
        settle_milliseconds=(row.settled - row.created) * 1e3 if row.settled else 0.0,
    )
    for field, value in (
        (message.create_time, row.created),
        (message.settle_time, row.settled),
        (message.release_time, row.released),
    ):
        if value:
            field.FromNanoseconds(int(value * 1e9))
    mine = {"of_tenant": row.tenant, "of_latch": row.id}
    for step in connection.execute(_STEPS, mine):
        message.steps.add(
            step=str(Name(step.tenant, "runs", step.run, "steps", step.step)),
            tool=step.tool,
            status=step.status,
            milliseconds=step.milliseconds,
        )
    for run in connection.execute(_RUNS, mine).scalars():
        message.runs.append(str(Name(row.tenant, "runs", run)))
    return message
