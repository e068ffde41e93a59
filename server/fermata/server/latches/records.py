"""Latches inside a transaction: rows, the report that fills in, and when one has settled."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, bindparam, exists, func, not_, or_, select, text, update

from fermata.server.errors import not_found
from fermata.server.latches.coverage import ActiveLatch, Subject, strictest, to_scope
from fermata.server.names import Name
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import latch_pb2, run_pb2

LATCHED = latch_pb2.LATCH_STATE_LATCHED
SETTLED = latch_pb2.LATCH_STATE_SETTLED
RELEASED = latch_pb2.LATCH_STATE_RELEASED
HOLD = latch_pb2.LATCH_KIND_HOLD
HALT = latch_pb2.LATCH_KIND_HALT

WORD_OF_PERSON = (run_pb2.STEP_OUTCOME_CONFIRMED, run_pb2.STEP_OUTCOME_ABANDONED)
"""Outcomes that no host has told."""

_OPEN_IN_REPORT = (latch_pb2.LATCH_STEP_STATUS_OPEN, latch_pb2.LATCH_STEP_STATUS_UNREACHABLE)

_STATUS = {
    run_pb2.STEP_OUTCOME_NOT_STARTED: latch_pb2.LATCH_STEP_STATUS_NOT_STARTED,
    run_pb2.STEP_OUTCOME_KILLED: latch_pb2.LATCH_STEP_STATUS_KILLED,
}


_COLUMNS = (
    schema.latches.c.tenant,
    schema.latches.c.id,
    schema.latches.c.kind,
    schema.latches.c.scope,
    schema.latches.c.target,
    schema.latches.c.reason,
    schema.latches.c.created_by,
)
_IN_FORCE = text("released = 0")
"""Written out, as the partial index has it."""

_OF_TENANT = or_(schema.latches.c.tenant == bindparam("of_tenant"), schema.latches.c.scope == "everything")
_ACTIVE = select(*_COLUMNS).where(_IN_FORCE, _OF_TENANT).order_by(schema.latches.c.n)
_PLAIN_TARGETS = 7
"""Of a subject without ancestors. Their number is written into the statement: to write it anew for each gate costs more than the
rest of it."""

_ON_PLAIN = _ACTIVE.where(
    schema.latches.c.target.in_([bindparam(f"target_{number}") for number in range(_PLAIN_TARGETS)])
)
_ON_MEMBER = _ACTIVE.where(schema.latches.c.target.in_(bindparam("targets", expanding=True)))
_WAITING_FOR_RUN = select(schema.latch_runs.c.latch).where(
    and_(
        schema.latch_runs.c.tenant == bindparam("of_tenant"),
        schema.latch_runs.c.run == bindparam("of_run"),
        schema.latch_runs.c.stopped.is_(False),
    )
)
_WAITING_FOR_STEP = (
    select(schema.latch_steps.c.latch, schema.latches.c.created)
    .join(schema.latches, schema.latches.c.id == schema.latch_steps.c.latch)
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
# Steps and runs may be another tenant's than their latch, where that is on everything; ids of latches are never given twice.
_STEPS = select(schema.latch_steps).where(schema.latch_steps.c.latch == bindparam("of_latch"))
_STEPS_WITH_OUTCOME = (
    select(schema.latch_steps, schema.steps.c.outcome)
    .join(
        schema.steps,
        and_(
            schema.steps.c.tenant == schema.latch_steps.c.tenant,
            schema.steps.c.run == schema.latch_steps.c.run,
            # What stands under a nonce is an earlier start of a step, or one of which a person has spoken.
            schema.steps.c.id == schema.latch_steps.c.step,
        ),
    )
    .where(schema.latch_steps.c.latch == bindparam("of_latch"))
    .order_by(schema.steps.c.n)
)
_RUNS = select(schema.latch_runs.c.tenant, schema.latch_runs.c.run, schema.latch_runs.c.stopped).where(
    schema.latch_runs.c.latch == bindparam("of_latch")
)
_STATUSES = latch_pb2.LatchStepStatus.values()
_COUNT_STOPPED = select(func.count()).where(
    and_(schema.latch_runs.c.latch == bindparam("of_latch"), schema.latch_runs.c.stopped.is_(True))
)
_COUNT_STEPS = (
    select(schema.latch_steps.c.status, func.count())
    .where(schema.latch_steps.c.latch == bindparam("of_latch"))
    .group_by(schema.latch_steps.c.status)
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
_SAME_STEP = and_(
    schema.steps.c.tenant == schema.latch_steps.c.tenant,
    schema.steps.c.run == schema.latch_steps.c.run,
    schema.steps.c.key == schema.latch_steps.c.key,
)
_OUT_OF_REACH = (
    update(schema.latch_steps)
    .where(
        and_(
            schema.latch_steps.c.tenant == bindparam("of_tenant"),
            schema.latch_steps.c.run == bindparam("of_run"),
            schema.latch_steps.c.status == latch_pb2.LATCH_STEP_STATUS_OPEN,
            exists(
                select(schema.steps.c.key)
                .where(_SAME_STEP, schema.steps.c.worker == bindparam("of_worker"))
                .correlate(schema.latch_steps)
            ),
        )
    )
    .values(status=latch_pb2.LATCH_STEP_STATUS_UNREACHABLE)
    .returning(schema.latch_steps.c.latch)
)
_SETTLE = (
    update(schema.latches)
    .where(
        and_(
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
    """Every latch that has not been lifted and can cover something of the tenant, oldest first."""
    return [ActiveLatch(*row) for row in connection.execute(_ACTIVE, {"of_tenant": tenant})]


def on(connection: Any, subject: Subject) -> ActiveLatch | None:
    """The latch that decides about ``subject``; None where none covers it."""
    targets = subject.targets
    if len(targets) == _PLAIN_TARGETS:
        wanted: dict[str, Any] = {f"target_{number}": target for number, target in enumerate(targets)}
        rows = connection.execute(_ON_PLAIN, {"of_tenant": subject.tenant, **wanted})
    else:
        rows = connection.execute(_ON_MEMBER, {"of_tenant": subject.tenant, "targets": targets})
    return strictest([ActiveLatch(*row) for row in rows], subject)


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
    """Fill a step's end into the reports of the latches that found it open, and settle those that it was the last for.

    What a person says of it ends nothing here: the host that was let through may still stand before its effect.
    """
    if outcome in WORD_OF_PERSON:
        return
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
        settle(transaction, latch)


def mark_unreachable(transaction: Transaction, tenant: str, run: str, worker: str) -> None:
    """Say in the reports of the latches that wait for what ``worker`` has open of this run that it is out of reach."""
    touched = transaction.execute(
        _OUT_OF_REACH, {"of_tenant": tenant, "of_run": run, "of_worker": worker}
    ).fetchall()
    transaction.publication.latches.extend(row.latch for row in touched)


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
        settle(transaction, latch)


def settle(transaction: Transaction, latch: str) -> None:
    """Mark a latch SETTLED if every run has stopped and every effect that was open has ended. Never undone, and never twice."""
    transaction.publication.latches.append(latch)
    transaction.execute(_SETTLE, {"of_latch": latch, "now": transaction.now})


def progress(connection: Any, row: Any) -> tuple[int, ...]:
    """Numbers that change with the report of a latch: its state, how many of its runs have stopped, and its steps by status."""
    mine = {"of_latch": row.id}
    stopped = connection.execute(_COUNT_STOPPED, mine).scalar_one()
    by_status = dict(connection.execute(_COUNT_STEPS, mine).fetchall())
    reminded = int(row.reminded > 0.0)
    return (row.state, reminded, stopped, *(by_status.get(status, 0) for status in _STATUSES))


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
        on_expiry=row.on_expiry,
        settle_milliseconds=(row.settled - row.created) * 1e3 if row.settled else 0.0,
    )
    for field, value in (
        (message.create_time, row.created),
        (message.settle_time, row.settled),
        (message.release_time, row.released),
        (message.expire_time, row.expires),
    ):
        if value:
            field.FromNanoseconds(int(value * 1e9))
    mine = {"of_latch": row.id}
    for step in connection.execute(_STEPS_WITH_OUTCOME, mine):
        message.steps.add(
            step=str(Name(step.tenant, "runs", step.run, "steps", step.step)),
            tool=step.tool,
            status=step.status,
            milliseconds=step.milliseconds,
            outcome=step.outcome,
        )
    for run in connection.execute(_RUNS, mine):
        message.runs.append(str(Name(run.tenant, "runs", run.run)))
        message.stopped_runs += run.stopped
    return message
