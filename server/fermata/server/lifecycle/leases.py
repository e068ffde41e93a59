"""Leases: one owner for a run, granted in a transaction, with an epoch that only grows."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from typing import Any, Protocol

from google.protobuf import json_format
from sqlalchemy import and_, select, update

from fermata.server.agents.revisions import Revisions
from fermata.server.latches import permits
from fermata.server.latches import records as latch_records
from fermata.server.ledger import steps
from fermata.server.ledger.gate import GateKeeper
from fermata.server.ledger.limits import bounds_of, wall_seconds
from fermata.server.ledger.recovery import offer_again
from fermata.server.lifecycle.ending import end
from fermata.server.lifecycle.restoration import wait_for_person
from fermata.server.lifecycle.resumption import build_resume
from fermata.server.lifecycle.schedule import Schedule
from fermata.server.lifecycle.stopping import lease_expired, settle, step_ended
from fermata.server.names import Name, parse
from fermata.server.policy.book import PolicyBook
from fermata.server.runs.record import RunRecord, open_run
from fermata.server.runs.transitions import HALTING, RUNNING, Move
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.threads import checkpoints
from fermata.v1 import run_pb2, worker_pb2

CLAIMED_AT_ONCE = 64
"""Runs that one claim hands out at the most."""


class Capacity(Protocol):
    """The live view of who has room. Only a hint: what counts is the lease in the store."""

    def choose(self, revision: str) -> str | None:
        """A connected worker with room, or None."""

    def taken(self, worker: str, run: str) -> None:
        """Count a run for a worker."""

    def given_back(self, worker: str, run: str) -> None:
        """Count it no more: what would have leased it was not written."""


class Leases:
    """Grants leases inside transactions.

    :param policies: what bounds a run's time at work.
    :param capacity: the live view of the workers.
    :param schedule: what is leased next.
    """

    def __init__(
        self, revisions: Revisions, policies: PolicyBook, capacity: Capacity, schedule: Schedule
    ) -> None:
        self._revisions = revisions
        self._policies = policies
        self._capacity = capacity
        self._schedule = schedule

    def grant_at_once(self, transaction: Transaction, run: RunRecord) -> bool:
        """Lease a run in the transaction that makes it, if a worker has room and nobody waits for it."""
        return self._schedule.may_start_at_once(transaction, run) and self._grant(transaction, run)

    def admit(self, transaction: Transaction, tenant: str) -> None:
        """Let a run that was not leased wait. :raises DomainError: QUEUE_FULL."""
        self._schedule.admit(transaction, tenant)

    def _grant(self, transaction: Transaction, run: RunRecord) -> bool:
        """Lease a run that nobody holds, if a worker has room; the assignment goes out after the commit."""
        revision = self._revisions.get(transaction, run.tenant, run.agent, run.revision)
        worker = self._capacity.choose(revision.id)
        if worker is None:
            return False
        in_force = (self._policies.in_force(transaction, run.tenant), revision.policy)
        run.wall_limit = wall_seconds(bounds_of(revision.spec.limits, in_force), run)
        restarted = run.epoch > 0
        run.move(Move.LEASE)
        run.epoch += 1
        run.worker = worker
        run.emit(run_pb2.EVENT_TYPE_LEASED, worker=worker, epoch=run.epoch)
        self._capacity.taken(worker, run.name)
        transaction.publication.undo.append(functools.partial(self._capacity.given_back, worker, run.name))
        self.assign(transaction, run, restarted=restarted)
        return True

    def assign(self, transaction: Transaction, run: RunRecord, *, restarted: bool) -> None:
        """Tell the worker that holds the lease to run it, after the commit. To a worker that runs it already this says nothing new.

        :param restarted: recorded steps may exist.
        """
        # The host that begins with it numbers its messages from 1.
        run.told = 0
        thread_is_new = False
        if not run.input_committed:
            run.base, thread_is_new = checkpoints.base(transaction, run.tenant, run.thread)
        revision = self._revisions.get(transaction, run.tenant, run.agent, run.revision)
        assign = worker_pb2.Assign(
            lease=worker_pb2.Lease(run=run.name, epoch=run.epoch),
            thread=str(Name(run.tenant, "threads", run.thread)),
            agent=str(Name(run.tenant, "agents", run.agent)),
            revision=revision.name,
            spec=revision.spec,
            shared_host=not revision.report.has_sync_code,
            restarted=restarted,
            thread_is_new=thread_is_new,
        )
        if run.input_committed:
            assign.resume.CopyFrom(build_resume(transaction, run))
        else:
            json_format.Parse(run.input, assign.input)
        transaction.publication.to_workers.append((run.worker, worker_pb2.ServerMessage(assign=assign)))

    def claim(self, transaction: Transaction) -> int:
        """Lease what waits for as long as workers have room; return how many were leased."""
        leased = 0
        for row in self._schedule.waiting(transaction):
            with open_run(transaction, row.tenant, row.id) as run:
                if run.unsure:
                    # A person says first what it did before the store was restored.
                    wait_for_person(transaction, run)
                    continue
                if not self._grant(transaction, run):
                    break
            self._schedule.served(row.tenant)
            leased += 1
            if leased == CLAIMED_AT_ONCE:
                break
        return leased


def lose_worker(transaction: Transaction, worker: str, reason: str, *, dead: bool) -> list[str]:
    """End all leases of a worker; return the names of the runs that it held.

    :param dead: its processes are confirmed dead, so effects that were open are KILLED; a worker that is merely silent may still
        be at work, and what it has open stays in doubt.
    """
    runs = schema.runs.c
    held = transaction.execute(select(runs.tenant, runs.id).where(runs.worker == worker)).fetchall()
    if dead:
        _mark_dead(transaction, worker)
        _close_what_it_had(transaction, worker, reason)
    lost = [lose_lease(transaction, row.tenant, row.id, reason, dead=dead) for row in held]
    if dead:
        offer_again(transaction, worker)
    return lost


def _close_what_it_had(transaction: Transaction, worker: str, reason: str) -> None:
    """Close what a dead worker had open, also in runs whose lease it had lost before, by silence or by a halt."""
    for row in steps.open_of_worker(transaction, worker):
        with open_run(transaction, row.tenant, row.run) as run:
            steps.close(transaction, run, row, steps.KILLED, error=f"its process ended: {reason}")
            step_ended(transaction, run)
    permits.host_is_dead(transaction, worker)


def lose_lease(transaction: Transaction, tenant: str, run: str, reason: str, *, dead: bool) -> str:
    """End one run's lease; it is leased again, or, where it was being stopped and nothing of it can start any more, ended.

    :param dead: the process that had the run under this lease is confirmed dead.
    """
    with open_run(transaction, tenant, run) as record:
        if dead:
            for row in steps.open_under_lease(transaction, record):
                steps.close(transaction, record, row, steps.KILLED, error=f"its process ended: {reason}")
            permits.host_is_dead(transaction, record.worker, run, record.epoch)
        else:
            latch_records.mark_unreachable(transaction, tenant, run, record.worker)
        record.emit(run_pb2.EVENT_TYPE_LEASE_LOST, worker=record.worker, epoch=record.epoch, reason=reason)
        if record.state == HALTING:
            if dead or lease_expired(transaction, record):
                settle(transaction, record, killed=dead)
        else:
            record.worker = ""
            # A hold waits no longer: without a lease no gate lets anything through, and what it covers is not leased.
            latch_records.run_stopped(transaction, tenant, run)
            transaction.publication.work_available = True
        return record.name


MAX_HOST_DEATHS = 3
"""After this many hosts in a row have died under a run, the run fails: it kills them."""


def lose_host(
    transaction: Transaction, keeper: GateKeeper, tenant: str, run: str, reason: str, stderr: str
) -> None:
    """A run's host has ended, confirmed by its parent: lease the run again, or fail it where its hosts keep dying."""
    name = lose_lease(transaction, tenant, run, reason, dead=True)
    with open_run(transaction, tenant, run) as record:
        if (
            record.has_ended
            or record.epoch < MAX_HOST_DEATHS
            or _deaths(transaction, record) < MAX_HOST_DEATHS
        ):
            return
        record.error = json.dumps(
            {
                "reason": "HOST_DIED",
                "message": f"The process of {name} died {MAX_HOST_DEATHS} times in a row: {reason}.",
                "detail": stderr,
            }
        )
        keeper.ask_about_doubts(transaction, record)
        end(
            transaction,
            record,
            Move.FAIL,
            run_pb2.EVENT_TYPE_FAILED,
            reason="HOST_DIED",
            message=f"Its process died {MAX_HOST_DEATHS} times in a row: {reason}.",
        )


def bury_host(transaction: Transaction, worker: str, lease: worker_pb2.Lease) -> None:
    """Nothing moves any more under a lease that the worker has lost: what was open under it can't go on. Facts are not thrown away."""
    name = parse(lease.run, "runs")
    with open_run(transaction, name.tenant, name.id) as run:
        for row in steps.open_steps(transaction, run.tenant, run.id):
            if (row.worker, row.epoch) == (worker, lease.epoch):
                steps.close(transaction, run, row, steps.KILLED, error="its lease was lost while it ran")
                step_ended(transaction, run)
    permits.host_is_dead(transaction, worker, name.id, lease.epoch)
    offer_again(transaction, worker, name.id, lease.epoch)


def _deaths(transaction: Transaction, run: RunRecord) -> int:
    """How many of the run's latest leases ended one after the other with nothing but a lost lease."""
    table = schema.events.c
    types = transaction.execute(
        select(table.type)
        .where(and_(table.tenant == run.tenant, table.run == run.id))
        .order_by(table.sequence.desc())
        .limit(4 * MAX_HOST_DEATHS)
    ).scalars()
    deaths = 0
    for kind in types:
        if kind == run_pb2.EVENT_TYPE_LEASE_LOST:
            deaths += 1
        elif kind not in (
            run_pb2.EVENT_TYPE_LEASED,
            run_pb2.EVENT_TYPE_STEP_STARTED,
            run_pb2.EVENT_TYPE_STEP_CLOSED,
        ):
            break
    return deaths


def _mark_dead(transaction: Transaction, worker: str) -> None:
    transaction.execute(
        update(schema.workers).where(schema.workers.c.id == worker).values(state=worker_pb2.WORKER_STATE_DEAD)
    )


def leases_of(transaction: Transaction, worker: str) -> set[tuple[str, int]]:
    """(run name, epoch) of every lease that a worker holds."""
    runs = schema.runs.c
    rows = transaction.execute(select(runs.tenant, runs.id, runs.epoch).where(runs.worker == worker))
    return {(str(Name(row.tenant, "runs", row.id)), row.epoch) for row in rows}


def at_work(connection: Any, worker: str) -> set[str]:
    """Names of the runs with which a worker has something to do: a parked run takes no room."""
    runs = schema.runs.c
    rows = connection.execute(
        select(runs.tenant, runs.id).where(and_(runs.worker == worker, runs.state.in_((RUNNING, HALTING))))
    )
    return {str(Name(row.tenant, "runs", row.id)) for row in rows}


def lost(held: Iterable[worker_pb2.Lease], granted: set[tuple[str, int]]) -> list[worker_pb2.Lease]:
    """Those of the leases that a worker believes it holds which it does not hold any more."""
    return [lease for lease in held if (lease.run, lease.epoch) not in granted]
