"""Streams that resume: a position in the order of commits, read from memory where it is recent and from the store where not."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, select

from fermata.server.approvals import records as approvals
from fermata.server.errors import invalid, precondition
from fermata.server.latches import records as latch_records
from fermata.server.live.deltas import Deltas
from fermata.server.live.hub import LOOK_BYTES, LOOK_EVENTS
from fermata.server.names import parse
from fermata.server.plane import ControlPlane
from fermata.server.runs import queries
from fermata.server.runs.record import to_event
from fermata.server.runs.transitions import ENDED
from fermata.server.store import schema
from fermata.server.store.publication import PublishedEvent
from fermata.v1 import approval_pb2, latch_pb2, run_pb2

HEARTBEAT_SECONDS = 10.0
"""How long a stream is silent before it says that it is alive."""

CURSOR_CHARACTERS = 36
"""Of the largest cursor: a row number of the store, and one of its lives."""

LONG_REPORT_RUNS = 50
LONG_REPORT_SECONDS = 0.05
"""Between two reports of a latch with more runs than that; the last one, that it has settled, comes as much later at the most."""

_APPROVAL_EVENTS = (run_pb2.EVENT_TYPE_APPROVAL_REQUESTED, run_pb2.EVENT_TYPE_APPROVAL_DECIDED)


async def watch_runs(
    plane: ControlPlane, tenant: str, request: run_pb2.WatchRunsRequest
) -> AsyncIterator[run_pb2.WatchRunsResponse]:
    """Events of a run, a thread or a tenant, in the order of commits, without gap or duplicate; see RunService.WatchRuns.

    :raises DomainError: RUN_NOT_FOUND, INVALID_NAME, CURSOR_INVALID, STORE_RESTORED.
    """
    run = parse(request.run, "runs").id if request.run else ""
    thread = parse(request.thread, "threads").id if request.thread else ""
    if run:
        await plane.read(lambda connection: queries.get(connection, tenant, run))
    position = _position(plane, request.cursor, default=0 if run or thread else plane.hub.last)
    threads: dict[str, str] = {}
    deltas = Deltas(tenant, request.run) if request.deltas else None
    first_look = True
    if deltas is not None:
        plane.hub.listen(deltas)
    try:
        while True:
            events = await _events(plane, tenant, run, thread, position)
            for item in events:
                position = item.number
                if item.tenant == tenant and run in ("", item.run) and thread in ("", item.thread):
                    yield run_pb2.WatchRunsResponse(event=item.event, cursor=plane.lives.cursor(position))
                    if run and item.event.state in ENDED and _is_last(item.event.type):
                        return
            while deltas is not None and (delta := deltas.take()) is not None:
                if not thread or await _thread_of(plane, delta.run, threads) == thread:
                    yield run_pb2.WatchRunsResponse(delta=delta, cursor=plane.lives.cursor(position))
            if plane.hub.last == position or not events:
                if run and first_look and await _has_ended(plane, tenant, run, position):
                    return
                first_look = False
                if not await _wait(plane, position, deltas):
                    heartbeat = run_pb2.WatchRunsResponse(cursor=plane.lives.cursor(position))
                    heartbeat.heartbeat.time.FromNanoseconds(int(plane.clock.now() * 1e9))
                    yield heartbeat
    finally:
        if deltas is not None:
            plane.hub.forget(deltas)


async def watch_approvals(
    plane: ControlPlane, tenant: str, request: approval_pb2.WatchApprovalsRequest
) -> AsyncIterator[approval_pb2.WatchApprovalsResponse]:
    """Approvals as they change, each as it is now; see ApprovalService.WatchApprovals."""
    run = parse(request.run, "runs").id if request.run else ""
    position = _position(plane, request.cursor, default=plane.hub.last)
    if not request.cursor:
        for row in await plane.read(lambda connection: _pending(connection, tenant, run)):
            yield approval_pb2.WatchApprovalsResponse(
                approval=approvals.to_message(row), cursor=plane.lives.cursor(position)
            )
    while True:
        events = await _events(plane, tenant, run, "", position)
        for item in events:
            position = item.number
            if item.tenant != tenant or run not in ("", item.run) or item.event.type not in _APPROVAL_EVENTS:
                continue
            approval = parse(str(item.event.data["approval"]), "approvals").id
            row = await plane.read(functools.partial(approvals.find, tenant=tenant, approval=approval))
            yield approval_pb2.WatchApprovalsResponse(
                approval=approvals.to_message(row), cursor=plane.lives.cursor(position)
            )
        if (plane.hub.last == position or not events) and not await _wait(plane, position, None):
            heartbeat = approval_pb2.WatchApprovalsResponse(cursor=plane.lives.cursor(position))
            heartbeat.heartbeat.time.FromNanoseconds(int(plane.clock.now() * 1e9))
            yield heartbeat


async def watch_latch(
    plane: ControlPlane, tenant: str, latch: str
) -> AsyncIterator[latch_pb2.WatchLatchResponse]:
    """A latch each time that it changes, until it has settled or was released; see LatchService.WatchLatch.

    :raises DomainError: LATCH_NOT_FOUND.
    """
    seen: tuple[int, ...] = ()
    quiet_since = plane.clock.monotonic()
    while True:
        # Before the look: what is committed while it reads must not be slept over.
        commit = plane.hub.next_commit()
        found = await plane.read(functools.partial(_report, tenant=tenant, latch=latch, seen=seen))
        if found is not None:
            seen, message = found
            quiet_since = plane.clock.monotonic()
            yield latch_pb2.WatchLatchResponse(latch=message)
            if message.state != latch_pb2.LATCH_STATE_LATCHED:
                return
            if len(message.runs) > LONG_REPORT_RUNS:
                # Else what stops a thousand runs would send a thousand lines a thousand times.
                await asyncio.sleep(LONG_REPORT_SECONDS)
        if (
            not await plane.hub.wait(1.0, commit)
            and plane.clock.monotonic() - quiet_since > HEARTBEAT_SECONDS
        ):
            quiet_since = plane.clock.monotonic()
            heartbeat = latch_pb2.WatchLatchResponse()
            heartbeat.heartbeat.time.FromNanoseconds(int(plane.clock.now() * 1e9))
            yield heartbeat


async def _thread_of(plane: ControlPlane, run: str, threads: dict[str, str]) -> str:
    """A run's thread. ``threads`` remembers that of each run that was looked up."""
    if run not in threads:
        name, table = parse(run, "runs"), schema.runs.c
        query = select(table.thread).where(and_(table.tenant == name.tenant, table.id == name.id))
        threads[run] = await plane.read(lambda connection: str(connection.execute(query).scalar() or ""))
    return threads[run]


def _position(plane: ControlPlane, cursor: str, default: int) -> int:
    if not cursor:
        return default
    try:
        position = plane.lives.position(cursor) if len(cursor) <= CURSOR_CHARACTERS else -1
    except ValueError:
        position = -1
    if position is None:
        raise precondition(
            "The store was restored from a backup, and what your cursor comes after is not in it. Start again without it.",
            reason="STORE_RESTORED",
            field="cursor",
        )
    if not 0 <= position <= plane.hub.last:
        raise invalid(
            "cursor is not one that this server gave. Start again without it.",
            reason="CURSOR_INVALID",
            field="cursor",
        )
    return position


def _is_last(kind: run_pb2.EventType.ValueType) -> bool:
    return kind in (
        run_pb2.EVENT_TYPE_HALTED,
        run_pb2.EVENT_TYPE_SUCCEEDED,
        run_pb2.EVENT_TYPE_FAILED,
        run_pb2.EVENT_TYPE_CANCELLED,
        run_pb2.EVENT_TYPE_EXPIRED,
    )


async def _wait(plane: ControlPlane, position: int, deltas: Deltas | None) -> bool:
    """Wait for something new; False where it is time for a heartbeat."""
    if deltas or (plane.hub.last != position and plane.hub.after(position)):
        return True
    signal = plane.hub.next_commit() if deltas is None else plane.hub.next_commit_or_delta()
    return await plane.hub.wait(HEARTBEAT_SECONDS, signal)


async def _has_ended(plane: ControlPlane, tenant: str, run: str, position: int) -> bool:
    """True where the run's last event is not after ``position``: a stream that resumes behind the end ends as well."""
    table = schema.events.c

    def operation(connection: Connection) -> bool:
        row = connection.execute(
            select(table.n, table.state)
            .where(and_(table.tenant == tenant, table.run == run))
            .order_by(table.sequence.desc())
            .limit(1)
        ).first()
        return row is not None and row.n <= position and row.state in ENDED

    return await plane.read(operation)


async def _events(
    plane: ControlPlane, tenant: str, run: str, thread: str, position: int
) -> Sequence[PublishedEvent]:
    """What was committed after ``position``, from memory where that reaches back so far."""
    recent = plane.hub.after(position)
    return recent if recent is not None else await _from_store(plane, tenant, run, thread, position)


async def _from_store(
    plane: ControlPlane, tenant: str, run: str, thread: str, position: int
) -> Sequence[PublishedEvent]:
    table = schema.events.c
    where = [table.n > position, table.tenant == tenant]
    if run:
        where.append(table.run == run)
    if thread:
        where.append(table.thread == thread)
    query = select(schema.events).where(and_(*where)).order_by(table.n).limit(LOOK_EVENTS)
    committed = plane.hub.last
    rows = await plane.read(lambda connection: _look(connection, query))
    if not rows:
        # Nothing of ours among all that was committed when we asked: go on after that.
        return [PublishedEvent(committed, "", "", "", run_pb2.Event())]
    return [PublishedEvent(row["n"], row["tenant"], row["run"], row["thread"], to_event(row)) for row in rows]


def _look(connection: Connection, query: Select[Any]) -> list[RowMapping]:
    """The rows of a query, as many as one look brings."""
    rows: list[RowMapping] = []
    size = 0
    for row in connection.execute(query).mappings():
        rows.append(row)
        size += len(row["data"])
        if size >= LOOK_BYTES:
            break
    return rows


def _pending(connection: Connection, tenant: str, run: str) -> Sequence[object]:
    table = schema.approvals.c
    where = [table.tenant == tenant, table.state == approvals.PENDING]
    if run:
        where.append(table.run == run)
    return connection.execute(select(schema.approvals).where(and_(*where)).order_by(table.n)).fetchall()


def _report(
    connection: Connection, tenant: str, latch: str, seen: tuple[int, ...]
) -> tuple[tuple[int, ...], latch_pb2.Latch] | None:
    """A latch and what tells its report from the one before; None where that is as it was. Most commits are about other things."""
    row = latch_records.find(connection, tenant, latch)
    progress = latch_records.progress(connection, row)
    return None if progress == seen else (progress, latch_records.to_message(connection, row))
