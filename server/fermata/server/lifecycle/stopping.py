"""Stopping a run for good: one mechanism for a halt, for a later message that takes the run's place, and for a deadline.

From the commit that makes a run HALTING no gate answers proceed any more, for gates ask the run's state in the same writer that sets
it. Its worker is told to cancel, to kill what does not answer, and to report. With that report, or with the worker's confirmed
death, nothing of the run can start any more, and it ends: HALTED where a person
stopped it, CANCELLED where a later message did, EXPIRED where its deadline passed.

A successor waits for more than the run's end. A worker that had the run under an earlier lease, and has been silent since, may hold
a permit that it has not used yet: the step of it is open. So a run with a successor ends only when none of its steps is open, however
each of them was closed: by its host, however late; by the confirmed death of the host's worker; by a person who decides the RECOVERY
that is asked for. Until then it is HALTING without a lease, its thread is its own, and the successor waits.

The other way round, a worker that falls silent while it holds a run with a successor does not make it wait for ever. Once the lease
has expired, and where no step is open, the run ends at once: every permit that was ever given for it is used up and has its end on
record, no new one is given, and what the silent host still commits is refused, since the run has ended. When the worker comes back
it is told that the lease is lost, and drops the run. Time alone decides nothing here: with a step open, an expired lease changes
nothing. What a halt covers as well waits as a halt does, for the worker's word or its death.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, bindparam, select, text

from fermata.server.approvals import records as approvals
from fermata.server.latches import records as latch_records
from fermata.server.ledger import steps
from fermata.server.lifecycle.doubts import ask_about_doubts
from fermata.server.lifecycle.ending import end
from fermata.server.names import Name
from fermata.server.runs.record import RunRecord, last_event, open_run
from fermata.server.runs.transitions import HALTING, RUNNING, Move
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import run_pb2, worker_pb2

DEADLINE = "its deadline has passed"

_CHILD_BEING_STOPPED = (
    select(schema.runs.c.id)
    .where(
        and_(
            schema.runs.c.tenant == bindparam("of_tenant"),
            schema.runs.c.parent == bindparam("of_run"),
            schema.runs.c.state == HALTING,
            # As the partial index has it.
            text("parent != ''"),
        )
    )
    .limit(1)
)

GRACE_SECONDS = 2.0
"""How long cancellation may take before a host is killed."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a run is stopped: by a latch or by another run, whose full name is given, or by neither; and for whom."""

    reason: str
    by: str
    latch: str = ""
    run: str = ""

    @property
    def name(self) -> str:
        """The name of what it is done for."""
        return self.latch or self.run


def stop(transaction: Transaction, run: RunRecord, cause: Cause) -> bool:
    """Stop a run or begin to; True where nothing of it can start any more. A run that is being stopped already is left to that."""
    if run.state == HALTING:
        return False
    at_work = run.state == RUNNING and bool(run.worker)
    run.move(Move.HALT)
    facts = {key: name for key, name in (("latch", cause.latch), ("run", cause.run)) if name}
    run.emit(run_pb2.EVENT_TYPE_HALTING, reason=cause.reason, by=cause.by, **facts)
    if at_work:
        tell(transaction, run, worker_pb2.STOP_MODE_HALT, cause.name)
        return False
    if run.worker:
        # Parked: its host waits with nothing open, and is let go.
        tell(transaction, run, worker_pb2.STOP_MODE_DROP, cause.name)
    return settle(transaction, run, killed=False)


def expire(transaction: Transaction, run: RunRecord) -> bool:
    """Stop a run whose deadline has passed, or begin to. One that is being stopped already ends as that says."""
    if run.state != HALTING:
        run.expires = True
    return stop(transaction, run, Cause(DEADLINE, by=""))


def settle(transaction: Transaction, run: RunRecord, *, killed: bool) -> bool:
    """End a run that is being stopped, now that whoever held its lease starts nothing of it any more; True where it has ended.

    One with a successor or an expired one that has steps open elsewhere waits for their end, without a lease; and so does one that
    other runs were made for, while these are being stopped.

    :param killed: its host was killed.
    """
    if not _settle(transaction, run, killed=killed):
        return False
    if run.parent:
        run.save()
        with open_run(transaction, run.tenant, run.parent) as parent:
            child_ended(transaction, parent)
    return True


def _settle(transaction: Transaction, run: RunRecord, *, killed: bool) -> bool:
    if transaction.execute(_CHILD_BEING_STOPPED, {"of_tenant": run.tenant, "of_run": run.id}).first():
        # Children first: it ends with the last of them.
        run.worker = ""
        approvals.cancel_pending(transaction, run)
        return False
    if not run.successor and not run.expires:
        end(transaction, run, Move.SETTLE, run_pb2.EVENT_TYPE_HALTED, killed=killed)
        return True
    # Nothing of it comes back to its calls: what is in doubt is a person's to say.
    ask_about_doubts(transaction, run)
    if steps.open_steps(transaction, run.tenant, run.id):
        run.worker = ""
        approvals.cancel_pending(transaction, run)
        return False
    if last_event(transaction, run, run_pb2.EVENT_TYPE_HALTING).get("latch"):
        # A person had stopped it before the message came.
        end(transaction, run, Move.SETTLE, run_pb2.EVENT_TYPE_HALTED, killed=killed)
        return True
    if run.expires:
        end(transaction, run, Move.EXPIRE, run_pb2.EVENT_TYPE_EXPIRED, reason=DEADLINE, killed=killed)
        return True
    verb = "rolled back" if run.rolls_back else "interrupted"
    successor = str(Name(run.tenant, "runs", run.successor))
    end(
        transaction,
        run,
        Move.CANCEL,
        run_pb2.EVENT_TYPE_CANCELLED,
        reason=f"{verb} by {successor}",
        run=successor,
        killed=killed,
    )
    return True


def child_ended(transaction: Transaction, run: RunRecord) -> None:
    """End a run that has been waiting, stopped and without a lease, for the end of a run that was made for it."""
    if run.state == HALTING and not run.worker:
        settle(transaction, run, killed=False)


def step_ended(transaction: Transaction, run: RunRecord) -> None:
    """End a run that has been waiting, stopped and without a lease, for the end of the step that was closed just now."""
    if run.state == HALTING and not run.worker:
        settle(transaction, run, killed=False)


def lease_expired(transaction: Transaction, run: RunRecord) -> bool:
    """True where a silent worker's lease of a run that is being stopped may end; the module says why that is safe."""
    return (
        bool(run.successor or run.expires)
        and not latch_records.waiting_for_run(transaction, run.tenant, run.id)
        and not steps.open_steps(transaction, run.tenant, run.id)
    )


def tell(transaction: Transaction, run: RunRecord, mode: worker_pb2.StopMode.ValueType, cause: str) -> None:
    """Tell the worker that holds the run's lease how to stop, after the commit.

    :param cause: the name of the latch for which it is done, or of the run that takes this one's place.
    """
    stop = worker_pb2.Stop(
        lease=worker_pb2.Lease(run=run.name, epoch=run.epoch),
        mode=mode,
        latch=cause,
        grace_seconds=GRACE_SECONDS,
    )
    transaction.publication.to_workers.append((run.worker, worker_pb2.ServerMessage(stop=stop)))
