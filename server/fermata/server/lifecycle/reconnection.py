"""A worker has come back: whatever it may have missed is said again.

What the server says to a worker is sent after the commit that decides it, and lost where the connection breaks in between, or where
the server ends. Chosen: on every hello each of the worker's leases is held against what it believes, and what is not sure to have
arrived goes out again; all of these messages say nothing new to a worker that had them. Refused: an outbox in the store, which would
write every message twice for the sake of the few that are lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select

from fermata.server.latches import records as latch_records
from fermata.server.lifecycle.leases import Leases, lose_lease
from fermata.server.lifecycle.resumption import repeated_resume
from fermata.server.lifecycle.stopping import tell
from fermata.server.names import Name
from fermata.server.runs.record import RunRecord, last_event, open_run
from fermata.server.runs.transitions import HALTING, RUNNING
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import run_pb2, worker_pb2


def catch_up(
    transaction: Transaction, leases: Leases, worker: str, believed: Iterable[worker_pb2.Lease]
) -> None:
    """Say again, after the commit, what a worker that is connected now may not have heard.

    :param believed: the leases that it says it holds.
    """
    here = {(lease.run, lease.epoch) for lease in believed}
    runs = schema.runs.c
    held = transaction.execute(select(runs.tenant, runs.id).where(runs.worker == worker)).fetchall()
    for row in held:
        with open_run(transaction, row.tenant, row.id) as run:
            has_it = (run.name, run.epoch) in here
            if run.state == HALTING:
                facts = last_event(transaction, run, run_pb2.EVENT_TYPE_HALTING)
                tell(transaction, run, worker_pb2.STOP_MODE_HALT, facts.get("latch") or facts.get("run", ""))
            elif run.state == RUNNING:
                _go_on(transaction, leases, run, has_it=has_it)
            parked = run.state not in (HALTING, RUNNING)
        if parked and not has_it:
            # Nothing of it runs anywhere: whoever has room goes on with it once it is decided.
            lose_lease(transaction, row.tenant, row.id, "its worker does not have it", dead=False)


def _go_on(transaction: Transaction, leases: Leases, run: RunRecord, *, has_it: bool) -> None:
    if not has_it:
        leases.assign(transaction, run, restarted=True)
    elif (resume := repeated_resume(transaction, run)) is not None:
        transaction.publication.to_workers.append((run.worker, worker_pb2.ServerMessage(resume=resume)))
    latch = latch_records.on(transaction, run.subject())
    if latch is not None:
        tell(transaction, run, worker_pb2.STOP_MODE_HOLD, str(Name(latch.tenant, "latches", latch.id)))
