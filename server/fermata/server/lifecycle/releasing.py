"""Latches are lifted: what a hold has kept goes on from where it stopped."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, func, select, update

from fermata.server.latches import records as latch_records
from fermata.server.latches.coverage import ActiveLatch, covers
from fermata.server.lifecycle.latching import NewLatch, covered
from fermata.server.lifecycle.resumption import go_on, is_covered, resume_if_possible
from fermata.server.lifecycle.stopping import tell
from fermata.server.names import Name
from fermata.server.runs.record import RunRecord, last_event, open_run
from fermata.server.runs.transitions import AWAITING, HELD, RUNNING, Move
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import run_pb2, worker_pb2


def release(transaction: Transaction, tenant: str, latch: str, released_by: str) -> None:
    """Lift a latch: held runs that nothing else covers go on from where they stopped. A second release changes nothing.

    :raises DomainError: LATCH_NOT_FOUND.
    """
    row = latch_records.find(transaction, tenant, latch)
    if row.state == latch_records.RELEASED:
        return
    table = schema.latches.c
    transaction.execute(
        update(schema.latches)
        .where(and_(table.tenant == tenant, table.id == latch))
        .values(state=latch_records.RELEASED, released=transaction.now, released_by=released_by)
    )
    transaction.publication.latches.append(latch)
    transaction.publication.work_available = True
    for run_tenant, run_id in _held_by(transaction, tenant, row):
        with open_run(transaction, run_tenant, run_id) as run:
            _let_go(transaction, run, row)


def _let_go(transaction: Transaction, run: RunRecord, row: Any) -> None:
    """Let a run go on that a hold has kept, unless something else keeps it."""
    name = str(Name(row.tenant, "latches", row.id))
    if is_covered(transaction, run) or (run.state == HELD and _is_held_still(transaction, run)):
        return
    if run.state == HELD:
        run.move(Move.RELEASE)
        run.emit(run_pb2.EVENT_TYPE_RELEASED, latch=name)
        if run.state == AWAITING:
            resume_if_possible(transaction, run, "released")
        else:
            go_on(transaction, run)
    elif run.worker:
        lifted = ActiveLatch(row.tenant, row.id, row.kind, row.scope, row.target, row.reason, row.created_by)
        if covers(lifted, run.subject()):
            tell(transaction, run, worker_pb2.STOP_MODE_CONTINUE, name)


def _is_held_still(transaction: Transaction, run: RunRecord) -> bool:
    """True where the latch that the run was held by has not been lifted: a tool's hold covers a call, not its run."""
    held_by = last_event(transaction, run, run_pb2.EVENT_TYPE_HELD).get("latch", "")
    active = latch_records.active(transaction, run.tenant)
    return any(str(Name(latch.tenant, "latches", latch.id)) == held_by for latch in active)


def _held_by(transaction: Transaction, tenant: str, row: Any) -> list[tuple[str, str]]:
    """Runs that may go on when this hold is lifted, those that others were made for first."""
    runs = schema.runs.c
    wanted = NewLatch(row.kind, row.scope, row.target, "", "")
    # A tool's hold keeps the runs that have come to its gate, and a halt those that came to one before they were stopped.
    keeps_running = row.scope != "tool" and row.kind == latch_records.HOLD
    states = (HELD, RUNNING) if keeps_running else (HELD,)
    found = transaction.execute(
        select(runs.tenant, runs.id)
        .where(and_(runs.state.in_(states), covered(tenant, wanted)))
        .order_by(func.length(runs.ancestors), runs.n)
    )
    return [(found_tenant, run) for found_tenant, run in found.fetchall()]
