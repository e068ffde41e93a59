"""Watches over connections that break: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from fermata.client import (
    Client,
    Connection,
    FermataError,
    NotFoundError,
    StreamOptions,
    SyncClient,
    UnavailableError,
)
from fermata.client.runs import EventOrder
from fermata.client.streams import BrokenStreamError
from fermata.client.transport import Transport
from fermata.v1 import approval_pb2, latch_pb2, run_pb2

RUN = "tenants/default/runs/r1"
LAST = 30


def event(sequence: int, run: str = RUN) -> run_pb2.WatchRunsResponse:
    state = run_pb2.RUN_STATE_SUCCEEDED if sequence == LAST else run_pb2.RUN_STATE_RUNNING
    return run_pb2.WatchRunsResponse(
        event=run_pb2.Event(run=run, sequence=sequence, state=state), cursor=f"c{sequence}"
    )


def position(cursor: str) -> int:
    return int(cursor.removeprefix("c") or 0)


class Breaking:
    """A stream of 30 events that breaks as ``breaks`` says: (after so many events, how)."""

    def __init__(self, *breaks: tuple[int, object], repeat: int = 0) -> None:
        self.breaks = list(breaks)
        self.repeat = repeat
        self.cursors: list[str] = []

    async def GetRun(self, request: Any, context: Any) -> Any:
        return run_pb2.Run(name=request.name, state=run_pb2.RUN_STATE_SUCCEEDED, last_sequence=LAST)

    async def WatchRuns(self, request: Any, context: Any) -> Any:
        self.cursors.append(request.cursor)
        start = max(0, position(request.cursor) - self.repeat)
        until, how = self.breaks.pop(0) if self.breaks else (LAST, None)
        for sequence in range(start + 1, min(start + until, LAST) + 1):
            yield event(sequence)
            yield run_pb2.WatchRunsResponse(heartbeat=run_pb2.Heartbeat(), cursor=f"c{sequence}")
        if isinstance(how, grpc.StatusCode):
            await context.abort(how, "broken")
        if how == "silent":
            await asyncio.Event().wait()


async def sequences(client: Any, **options: Any) -> Any:
    async with aclosing(client.runs.watch("r1", **options)) as items:
        return [item.event.sequence async for item in items]


@pytest.mark.parametrize(
    "how",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "ended early",
    ],
)
async def test_a_broken_watch_goes_on_from_its_cursor(serve: Any, how: Any) -> None:
    server = Breaking((3, how), (4, how))
    client = await serve(server)
    assert await sequences(client) == list(range(1, LAST + 1))
    assert server.cursors == ["", "c3", "c7"]


class Resetting:
    """Resets its first streams with the HTTP/2 error CANCEL, after 0, 1, 2 … events and without a status."""

    def __init__(self, resets: int) -> None:
        self.resets = resets
        self.cursors: list[str] = []

    def WatchRuns(self, request: Any, context: Any) -> Any:
        after = len(self.cursors)
        self.cursors.append(request.cursor)
        start = position(request.cursor)
        for sequence in range(start + 1, LAST + 1):
            if after < self.resets and sequence > start + after:
                context.cancel()
                return
            yield event(sequence)


async def test_a_peer_that_resets_streams_with_cancelled_is_connected_to_again(clock: Any) -> None:
    peer = Resetting(5)
    server = grpc.server(ThreadPoolExecutor(4))
    handler = grpc.unary_stream_rpc_method_handler(
        peer.WatchRuns,
        request_deserializer=run_pb2.WatchRunsRequest.FromString,
        response_serializer=run_pb2.WatchRunsResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler("fermata.v1.RunService", {"WatchRuns": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    transport = Transport(Connection(f"127.0.0.1:{port}"), sleep=clock.sleep, clock=clock)
    try:
        async with Client(transport=transport) as client:
            assert await sequences(client) == list(range(1, LAST + 1))
    finally:
        await asyncio.to_thread(server.stop(None).wait)
    assert len(peer.cursors) == 6


async def test_a_silent_connection_counts_as_broken(serve: Any) -> None:
    server = Breaking((3, "silent"))
    client = await serve(server)
    options = StreamOptions(heartbeat_timeout_seconds=0.05)
    assert await sequences(client, options=options) == list(range(1, LAST + 1))
    assert server.cursors == ["", "c3"]


async def test_a_server_that_repeats_itself_is_not_believed_twice(serve: Any) -> None:
    server = Breaking((5, grpc.StatusCode.UNAVAILABLE), (5, grpc.StatusCode.UNAVAILABLE), repeat=3)
    client = await serve(server)
    assert await sequences(client) == list(range(1, LAST + 1))


async def test_any_pattern_of_breaks_gives_each_event_once_and_in_order(serve: Any) -> None:
    dice = random.Random(7)
    for _ in range(10):
        breaks = [
            (
                dice.randrange(1, 8),
                dice.choice([grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, "early"]),
            )
            for _ in range(dice.randrange(0, 12))
        ]
        client = await serve(Breaking(*breaks, repeat=dice.randrange(0, 3)))
        assert await sequences(client) == list(range(1, LAST + 1))


async def test_a_watch_goes_on_where_another_left_off(serve: Any) -> None:
    client = await serve(Breaking())
    assert await sequences(client, cursor="c28") == [29, 30]
    assert await sequences(client, cursor="c30") == []


async def test_a_gap_is_asked_for_again(serve: Any) -> None:
    class Skipping(Breaking):
        async def WatchRuns(self, request: Any, context: Any) -> Any:
            self.cursors.append(request.cursor)
            for sequence in range(position(request.cursor) + 1, LAST + 1):
                if sequence == 5 and len(self.cursors) == 1:
                    continue
                yield event(sequence)

    server = Skipping()
    client = await serve(server)
    assert await sequences(client) == list(range(1, LAST + 1))
    assert server.cursors == ["", "c4"]


async def test_a_gap_that_stays_ends_the_watch(serve: Any) -> None:
    class Skipping(Breaking):
        async def WatchRuns(self, request: Any, context: Any) -> Any:
            for sequence in range(position(request.cursor) + 1, LAST + 1):
                if sequence != 5:
                    yield event(sequence)

    client = await serve(Skipping())
    with pytest.raises(BrokenStreamError) as caught:
        await sequences(client)
    assert caught.value.reason == "STREAM_GAP"


async def test_what_another_call_would_only_repeat_ends_the_watch(serve: Any) -> None:
    server = Breaking((0, grpc.StatusCode.NOT_FOUND), (0, grpc.StatusCode.NOT_FOUND))
    client = await serve(server)
    with pytest.raises(NotFoundError):
        await sequences(client)
    assert len(server.cursors) == 1


async def test_patience_ends(serve: Any, clock: Any) -> None:
    server = Breaking(*[(0, grpc.StatusCode.UNAVAILABLE)] * 1000)
    client = await serve(server)
    broken: list[FermataError] = []
    with pytest.raises(UnavailableError):
        await sequences(client, options=StreamOptions(patience_seconds=20, on_break=broken.append))
    assert 20 < clock.now < 40
    assert len(broken) == len(server.cursors) - 1


async def test_a_cancelled_watch_stays_cancelled(serve: Any) -> None:
    client = await serve(Breaking((3, "silent")))
    reached = asyncio.Event()

    async def watching() -> None:
        async with aclosing(client.runs.watch("r1")) as items:
            async for item in items:
                if item.event.sequence == 3:
                    reached.set()

    task = asyncio.create_task(watching())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_leaving_a_watch_ends_its_call(serve: Any) -> None:
    ended = asyncio.Event()

    class Endless:
        async def WatchRuns(self, request: Any, context: Any) -> Any:
            try:
                for sequence in range(1, 10_000):
                    yield event(sequence)
                    await asyncio.sleep(0)
                await asyncio.Event().wait()
            finally:
                ended.set()

    client = await serve(Endless())
    async with aclosing(client.runs.watch("r1")) as items:
        async for _ in items:
            break
    await asyncio.wait_for(ended.wait(), 5)


async def test_approvals_go_on_from_their_cursor(serve: Any) -> None:
    cursors: list[str] = []

    class Approvals:
        async def WatchApprovals(self, request: Any, context: Any) -> Any:
            cursors.append(request.cursor)
            start = position(request.cursor)
            for number in range(start + 1, start + 3):
                approval = approval_pb2.Approval(name=f"a{number}")
                yield approval_pb2.WatchApprovalsResponse(approval=approval, cursor=f"c{number}")
            await context.abort(grpc.StatusCode.CANCELLED, "reset")

    client = await serve(Approvals())
    seen = []
    async with aclosing(client.approvals.watch()) as items:
        async for item in items:
            seen.append(item.approval.name)
            if len(seen) == 6:
                break
    assert seen == [f"a{number}" for number in range(1, 7)]
    assert cursors == ["", "c2", "c4"]


async def test_a_latch_is_watched_until_it_has_settled(serve: Any) -> None:
    latched = latch_pb2.Latch(name="l1", state=latch_pb2.LATCH_STATE_LATCHED)
    settled = latch_pb2.Latch(name="l1", state=latch_pb2.LATCH_STATE_SETTLED, settle_milliseconds=3)

    class Latches:
        calls = 0

        async def WatchLatch(self, request: Any, context: Any) -> Any:
            self.calls += 1
            yield latch_pb2.WatchLatchResponse(latch=latched)
            if self.calls == 1:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "restart")
            yield latch_pb2.WatchLatchResponse(latch=settled)

    client = await serve(Latches())
    assert [report async for report in client.latches.watch("l1")] == [latched, settled]
    assert (await client.latches.settle("l1")).settle_milliseconds == 3


async def test_waiting_for_a_run_returns_it_ended(serve: Any) -> None:
    class Ending(Breaking):
        gets = 0

        async def GetRun(self, request: Any, context: Any) -> Any:
            self.gets += 1
            ended = self.gets > 1
            state = run_pb2.RUN_STATE_SUCCEEDED if ended else run_pb2.RUN_STATE_RUNNING
            return run_pb2.Run(name=request.name, state=state, last_sequence=LAST)

    client = await serve(Ending())
    assert (await client.runs.wait("r1")).state == run_pb2.RUN_STATE_SUCCEEDED


def test_events_of_many_runs_are_kept_in_order_each() -> None:
    order = EventOrder()
    assert order.take(run_pb2.Event(run="a", sequence=5))
    assert order.take(run_pb2.Event(run="b", sequence=1))
    assert order.take(run_pb2.Event(run="a", sequence=6))
    assert not order.take(run_pb2.Event(run="a", sequence=6))
    with pytest.raises(BrokenStreamError):
        order.take(run_pb2.Event(run="b", sequence=3))


def test_order_of_a_long_watch_does_not_grow_without_bound() -> None:
    order = EventOrder()
    for number in range(EventOrder.REMEMBERED_RUNS + 10):
        order.take(run_pb2.Event(run=f"r{number}", sequence=1))
    assert order.last("r0") == 0
    assert order.last(f"r{EventOrder.REMEMBERED_RUNS}") == 1


async def test_an_interrupt_at_an_awkward_moment_leaves_nothing_waiting(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await serve(Breaking((3, "silent")))
    schedule = asyncio.run_coroutine_threadsafe
    calls = 0

    def interrupted(work: Any, loop: Any) -> Any:
        nonlocal calls
        calls += 1
        scheduled = schedule(work, loop)
        if calls == 4:
            raise KeyboardInterrupt
        return scheduled

    seen: list[int] = []

    def watch(sync: SyncClient) -> None:
        for item in sync.runs.watch("r1"):
            seen.append(item.event.sequence)

    def watching() -> None:
        with SyncClient(client.connection) as sync:
            monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
            with pytest.raises(KeyboardInterrupt):
                watch(sync)

    await asyncio.wait_for(asyncio.to_thread(watching), 20)
    assert seen == [1, 2, 3]
