"""The end of a run: what it still asks is withdrawn, what it leaves in doubt is asked about, its thread goes to the next in line, and
latches learn that nothing of it can start."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, bindparam, delete, func, select, update

from fermata.server.approvals import records as approvals
from fermata.server.latches import records as latch_records
from fermata.server.lifecycle.doubts import ask_about_doubts
from fermata.server.runs.record import RunRecord, open_run
from fermata.server.runs.transitions import Move
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.threads.rollback import put_back
from fermata.v1 import run_pb2

_NEXT_IN_LINE = (
    select(schema.runs.c.id)
    .where(
        and_(
            schema.runs.c.tenant == bindparam("of_tenant"),
            schema.runs.c.thread == bindparam("of_thread"),
            schema.runs.c.in_line == True,  # noqa: E712 - as the partial index has it
        )
    )
    .order_by(schema.runs.c.n)
    .limit(1)
    .scalar_subquery()
)
_HAND_ON_THREAD = (
    update(schema.threads)
    .where(
        and_(
            schema.threads.c.tenant == bindparam("of_tenant"),
            schema.threads.c.id == bindparam("of_thread"),
            schema.threads.c.active_run == bindparam("of_run"),
        )
    )
    .values(active_run=func.coalesce(_NEXT_IN_LINE, ""))
    .returning(schema.threads.c.active_run)
)
_FORGET_GATES = delete(schema.gates).where(
    and_(schema.gates.c.tenant == bindparam("of_tenant"), schema.gates.c.run == bindparam("of_run"))
)


def end(
    transaction: Transaction, run: RunRecord, move: Move, event: run_pb2.EventType.ValueType, /, **data: Any
) -> None:
    """Bring a run to its end by ``move`` and say so in its history; the last event is ``event``. The next run in line becomes its
    thread's active one.

    A person is asked about every effect of it that is still in doubt: nothing of the run will come back to it.

    :raises DomainError: RUN_STATE, where the run can't end so.
    """
    approvals.cancel_pending(transaction, run)
    ask_about_doubts(transaction, run)
    run.move(move)
    if run.rolls_back and run.base >= 0:
        put_back(transaction, run.tenant, run.thread, run.id, run.base)
        data["rolled_back"] = True
    run.emit(event, **data)
    mine = {"of_tenant": run.tenant, "of_run": run.id}
    following = transaction.execute(_HAND_ON_THREAD, {**mine, "of_thread": run.thread}).scalar()
    if following:
        with open_run(transaction, run.tenant, following) as next_run:
            next_run.in_line = False
    transaction.execute(_FORGET_GATES, mine)
    latch_records.run_stopped(transaction, run.tenant, run.id)
    transaction.publication.work_available = True
