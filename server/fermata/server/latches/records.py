"""Latches inside a transaction: rows, the report that fills in, and when one has settled."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, bindparam, func, select, update

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


def active(connection: Any, tenant: str) -> list[ActiveLatch]:
    """Every latch of the tenant that has not been lifted, oldest first."""
    return [ActiveLatch(*row) for row in connection.execute(_ACTIVE, {"of_tenant": tenant})]


def find(connection: Any, tenant: str, latch: str) -> Any:
    """The row of a latch.

    :raises DomainError: LATCH_NOT_FOUND.
    """
    table = schema.latches.c
    row = connection.execute(
        select(schema.latches).where(and_(table.tenant == tenant, table.id == latch))
    ).first()
    if row is None:
        raise not_found("latch", str(Name(tenant, "latches", latch)), "List them with ListLatches.")
    return row


def step_ended(
    transaction: Transaction, tenant: str, run: str, key: str, outcome: run_pb2.StepOutcome.ValueType
) -> None:
    """Fill a step's end into the reports of the latches that found it open, and settle those that it was the last for."""
    table = schema.latch_steps.c
    waiting = transaction.execute(
        _WAITING_FOR_STEP, {"of_tenant": tenant, "of_run": run, "of_step": key}
    ).fetchall()
    for latch, created in waiting:
        transaction.execute(
            update(schema.latch_steps)
            .where(and_(table.tenant == tenant, table.latch == latch, table.run == run, table.key == key))
            .values(
                status=_STATUS.get(outcome, latch_pb2.LATCH_STEP_STATUS_FINISHED),
                milliseconds=(transaction.now - created) * 1e3,
            )
        )
        settle(transaction, tenant, latch)


def run_stopped(transaction: Transaction, tenant: str, run: str) -> None:
    """Tell the latches that wait for this run that nothing of it can start any more."""
    waiting = transaction.execute(_WAITING_FOR_RUN, {"of_tenant": tenant, "of_run": run}).scalars().all()
    if waiting:
        table = schema.latch_runs.c
        mine = and_(table.tenant == tenant, table.run == run, table.stopped.is_(False))
        transaction.execute(update(schema.latch_runs).where(mine).values(stopped=True))
    for latch in waiting:
        settle(transaction, tenant, latch)


def settle(transaction: Transaction, tenant: str, latch: str) -> None:
    """Mark a latch SETTLED if every run has stopped and every effect that was open has ended. Never undone, and never twice."""
    transaction.publication.latches.append(latch)
    runs, steps, latches = schema.latch_runs.c, schema.latch_steps.c, schema.latches.c
    going = transaction.execute(
        select(func.count()).where(and_(runs.tenant == tenant, runs.latch == latch, runs.stopped.is_(False)))
    ).scalar_one()
    open_effects = transaction.execute(
        select(func.count()).where(
            and_(
                steps.tenant == tenant,
                steps.latch == latch,
                steps.status.in_((latch_pb2.LATCH_STEP_STATUS_OPEN, latch_pb2.LATCH_STEP_STATUS_UNREACHABLE)),
            )
        )
    ).scalar_one()
    if going == 0 and open_effects == 0:
        transaction.execute(
            update(schema.latches)
            .where(and_(latches.tenant == tenant, latches.id == latch, latches.state == LATCHED))
            .values(state=SETTLED, settled=transaction.now)
        )


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
    steps, runs = schema.latch_steps.c, schema.latch_runs.c
    for step in connection.execute(
        select(schema.latch_steps).where(and_(steps.tenant == row.tenant, steps.latch == row.id))
    ):
        message.steps.add(
            step=str(Name(step.tenant, "runs", step.run, "steps", step.step)),
            tool=step.tool,
            status=step.status,
            milliseconds=step.milliseconds,
        )
    for run in connection.execute(
        select(runs.run).where(and_(runs.tenant == row.tenant, runs.latch == row.id))
    ).scalars():
        message.runs.append(str(Name(row.tenant, "runs", run)))
    return message
