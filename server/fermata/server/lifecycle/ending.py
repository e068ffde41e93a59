"""The end of a run: what it still asks is withdrawn, what it leaves in doubt is asked about, its thread is free, and latches learn that nothing of it can start."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, bindparam, delete, update

from fermata.server.approvals import records as approvals
from fermata.server.latches import records as latch_records
from fermata.server.ledger.recovery import ask_about_doubts
from fermata.server.runs.record import RunRecord
from fermata.server.runs.transitions import Move
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import run_pb2

_FREE_THREAD = (
    update(schema.threads)
    .where(
        and_(
            schema.threads.c.tenant == bindparam("of_tenant"),
            schema.threads.c.id == bindparam("of_thread"),
            schema.threads.c.active_run == bindparam("of_run"),
        )
    )
    .values(active_run="")
)
_FORGET_GATES = delete(schema.gates).where(
    and_(schema.gates.c.tenant == bindparam("of_tenant"), schema.gates.c.run == bindparam("of_run"))
)


def end(
    transaction: Transaction, run: RunRecord, move: Move, event: run_pb2.EventType.ValueType, **data: Any
) -> None:
    """Bring a run to its end by ``move`` and say so in its history; the last event is ``event``.

    A person is asked about every effect of it that is still in doubt: nothing of the run will come back to it.

    :raises DomainError: RUN_STATE, where the run can't end so.
    """
    approvals.cancel_pending(transaction, run)
    ask_about_doubts(transaction, run)
    run.move(move)
    run.emit(event, **data)
    mine = {"of_tenant": run.tenant, "of_run": run.id}
    transaction.execute(_FREE_THREAD, {**mine, "of_thread": run.thread})
    transaction.execute(_FORGET_GATES, mine)
    latch_records.run_stopped(transaction, run.tenant, run.id)
    transaction.publication.work_available = True
