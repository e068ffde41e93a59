"""What time brings: leases of silent workers end, approvals that nobody answers, and runs whose deadline has passed; of the threads'
history what is old goes.

Safety never depends on this: epochs and digests do that. Time only decides when we stop waiting.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Callable

from sqlalchemy import Connection, and_, select, update

from fermata.server.dispatch.channel import LEASE_SECONDS
from fermata.server.errors import DomainError
from fermata.server.latches import records as latch_records
from fermata.server.ledger.gate import GateKeeper
from fermata.server.lifecycle import budgets, deadlines, decisions, expiry, leases
from fermata.server.lifecycle.stopping import lease_expired
from fermata.server.plane import ControlPlane
from fermata.server.runs.record import open_run
from fermata.server.runs.transitions import HALTING
from fermata.server.store import schema
from fermata.server.store.database import MAX_BATCH_BYTES, Transaction
from fermata.server.threads import retention
from fermata.v1 import worker_pb2

log = logging.getLogger(__name__)

LONGEST_SLEEP_SECONDS = 60.0
"""How long nobody looks at what is due: the wall clock may be set in between."""

PRUNE_SECONDS = 60.0
"""How often threads are pruned to which something was added."""

LEAST_SECONDS = 0.02
"""Between two looks."""

LOOK_SECONDS = 1.0
"""How often workers are looked at, where no lease ends before."""

STOOD_STILL_SECONDS = 3 * LOOK_SECONDS
"""With more than this between two looks it was this server that did not listen."""


async def sweep_workers(plane: ControlPlane) -> None:
    """End the leases of workers that have said nothing for a lease's length. Runs until cancelled."""
    await _adopt(plane)
    looked = plane.clock.monotonic()
    while True:
        await asyncio.sleep(min(LOOK_SECONDS, seconds_to_next_end(plane)))
        now = plane.clock.monotonic()
        if now - looked > STOOD_STILL_SECONDS:
            log.warning("this server stood still for %.0f s; workers get that on top", now - looked)
            lengthen(plane, now - looked)
        looked = now
        try:
            await look_at_workers(plane)
        except DomainError as error:
            log.warning("the leases of silent workers can't be ended: %s", error)


def seconds_to_next_end(plane: ControlPlane) -> float:
    """How long until the next lease ends if its worker goes on saying nothing; infinite where there is none."""
    heard = [worker.heard for worker in plane.workers.all() if not worker.closed]
    heard += plane.silent_since.values()
    if not heard:
        return math.inf
    return max(0.0, min(heard) + LEASE_SECONDS - plane.clock.monotonic()) + LEAST_SECONDS


def lengthen(plane: ControlPlane, seconds: float) -> None:
    """Count a time in which this server stood still for nobody: what workers have said meanwhile is still to be read."""
    for worker in plane.workers.all():
        worker.heard += seconds
    for worker_id in plane.silent_since:
        plane.silent_since[worker_id] += seconds


async def look_at_workers(plane: ControlPlane) -> None:
    """End the leases of workers that have by now been silent for a lease's length.

    :raises DomainError: STORE_UNAVAILABLE; what was not done is done at the next look.
    """
    now = plane.clock.monotonic()
    for worker in plane.workers.all():
        if now - worker.heard > LEASE_SECONDS:
            log.warning("worker %s has been silent for %.0f s", worker.id, now - worker.heard)
            # It may come again, and is then told what it has lost.
            plane.workers.disconnect(worker.id)
            plane.silent_since[worker.id] = worker.heard
    for worker_id, heard in list(plane.silent_since.items()):
        if plane.workers.get(worker_id) is not None:
            del plane.silent_since[worker_id]
        elif now - heard > LEASE_SECONDS:
            await plane.write(functools.partial(_silence, worker=worker_id), urgent=True)
            # It may have come and gone again in between.
            if plane.silent_since.get(worker_id) == heard:
                del plane.silent_since[worker_id]


async def sweep_approvals(plane: ControlPlane) -> None:
    """End approvals whose time is over. Runs until cancelled; sleeps until the next one is due."""
    await _sweep(plane, plane.approvals_changed, decisions.next_expiry, decisions.expire_due)


async def _sweep(
    plane: ControlPlane,
    changed: asyncio.Event,
    next_due: Callable[[Connection], float | None],
    end_due: Callable[[Transaction], int],
) -> None:
    """End what is due, and sleep until the next is or ``changed`` says that another one may be sooner."""
    while True:
        changed.clear()
        try:
            due = await plane.read(next_due)
            wait = None if due is None else max(0.0, due - plane.clock.now())
            if wait == 0.0:
                await plane.write(end_due)
                continue
        except DomainError as error:
            log.warning("what is due can't be ended: %s", error)
            await asyncio.sleep(LOOK_SECONDS)
            continue
        try:
            # Not for ever: the wall clock may be set.
            await asyncio.wait_for(
                changed.wait(), LONGEST_SLEEP_SECONDS if wait is None else min(wait, LONGEST_SLEEP_SECONDS)
            )
        except TimeoutError:
            continue


async def sweep_deadlines(plane: ControlPlane) -> None:
    """End runs whose deadline has passed, and stop those that have worked for as long as they may. Runs until cancelled."""
    await _sweep(plane, plane.deadlines_changed, _next_deadline, functools.partial(_end_due, plane.keeper))


def _next_deadline(connection: Connection) -> float | None:
    due = [deadlines.next_due(connection), budgets.next_overdue(connection)]
    return min((value for value in due if value is not None), default=None)


def _end_due(keeper: GateKeeper, transaction: Transaction) -> int:
    return deadlines.expire_due(transaction) + budgets.stop_overdue(transaction, keeper)


async def sweep_latches(plane: ControlPlane) -> None:
    """Lift holds whose time is over, or remind of them. Runs until cancelled; sleeps until the next one is due."""
    # What an earlier server has not come to.
    plane.stop_covered()
    await _sweep(plane, plane.latches_changed, expiry.next_due, expiry.expire_due)


async def sweep_checkpoints(plane: ControlPlane) -> None:
    """Prune the threads to which something was added. Runs until cancelled; the first time it looks at all."""
    done = 0
    while True:
        await asyncio.sleep(PRUNE_SECONDS)
        try:
            done = await prune_since(plane, done)
        except DomainError as error:
            log.warning("threads can't be pruned: %s", error)


async def prune_since(plane: ControlPlane, after: int) -> int:
    """Prune the threads of which a checkpoint was stored after this number; return the number of the last that there is.

    :raises DomainError: STORE_UNAVAILABLE, STORE_OVERLOADED; what was not done is done at the next look.
    """
    while plane.retention.checkpoints:
        threads, last = await plane.read(functools.partial(retention.threads_since, after=after))
        if last == after:
            break
        for tenant, thread in sorted(threads):
            prune = functools.partial(
                retention.prune, tenant=tenant, thread=thread, retention=plane.retention
            )
            # Large, so that gates go before it and nothing shares its flush.
            while await plane.write(prune, size_bytes=MAX_BATCH_BYTES) >= retention.REMOVED_AT_ONCE:
                pass
        after = last
    return after


async def _adopt(plane: ControlPlane) -> None:
    """Give workers that held leases before this server started a full term to come back."""
    runs = schema.runs.c
    holders = await plane.read(
        lambda connection: (
            connection.execute(select(runs.worker).where(runs.worker != "").distinct()).scalars().all()
        )
    )
    now = plane.clock.monotonic()
    for worker in holders:
        plane.silent_since.setdefault(worker, now)
    plane.claim_work()


def _may_end(transaction: Transaction, tenant: str, run: str) -> bool:
    with open_run(transaction, tenant, run) as record:
        return lease_expired(transaction, record)


def _silence(transaction: Transaction, worker: str) -> None:
    """A worker's leases have expired. Runs that were halting wait for its processes' confirmed end, unless nothing of them can start
    any more; the others are leased again."""
    runs = schema.runs.c
    for row in transaction.execute(
        select(runs.tenant, runs.id, runs.state).where(runs.worker == worker)
    ).fetchall():
        if row.state == HALTING and not _may_end(transaction, row.tenant, row.id):
            latch_records.mark_unreachable(transaction, row.tenant, row.id, worker)
        else:
            leases.lose_lease(transaction, row.tenant, row.id, "its worker is silent", dead=False)
    table = schema.workers.c
    transaction.execute(
        update(schema.workers)
        .where(and_(table.id == worker, table.state == worker_pb2.WORKER_STATE_CONNECTED))
        .values(state=worker_pb2.WORKER_STATE_SILENT)
    )
