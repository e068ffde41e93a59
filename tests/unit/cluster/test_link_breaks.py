"""A worker's stream against a real server that ends it in every way a peer can: the worker connects again, and says again
what is unanswered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from fermata.server.cluster import link as link_module
from fermata.server.cluster.link import ServerLink
from fermata.server.cluster.target import ServerTarget
from fermata.server.cluster.testing import TOKEN
from fermata.v1.worker_pb2 import (
    ConnectRequest,
    ConnectResponse,
    HostMessage,
    ServerMessage,
    Welcome,
    WorkerHello,
    WorkerMessage,
)
from fermata.v1.worker_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server

RUN = "tenants/default/runs/r1"

End = Callable[[Any], Awaitable[None]]


def abort(code: grpc.StatusCode) -> End:
    async def end(context: Any) -> None:
        await context.abort(code, "broken by the test")

    return end


async def clean(context: Any) -> None:
    """End the call without an error."""


ENDS = {
    "CANCELLED": abort(grpc.StatusCode.CANCELLED),
    "UNAVAILABLE": abort(grpc.StatusCode.UNAVAILABLE),
    "INTERNAL": abort(grpc.StatusCode.INTERNAL),
    "UNAUTHENTICATED": abort(grpc.StatusCode.UNAUTHENTICATED),
    "clean end": clean,
}


class Servicer(WorkerServiceServicer):
    """WorkerService without what no test here calls."""

    def GetPack(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def ReportWorkerDeath(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def ListWorkers(self, request: Any, context: Any) -> Any:
        raise NotImplementedError


class Peer(Servicer):
    """Ends its first connections as ``ends`` says: (when, how); then it answers every host's message."""

    def __init__(self, *ends: tuple[str, End]) -> None:
        self.ends = list(ends)
        self.connections = 0
        self.ids: list[list[int]] = []
        """Of each connection, the ids of the hosts' messages that came."""
        self.answered = asyncio.Event()

    async def Connect(
        self, requests: AsyncIterator[ConnectRequest], context: Any
    ) -> AsyncIterator[ConnectResponse]:
        self.connections += 1
        when, how = self.ends.pop(0) if self.ends else ("never", clean)
        seen: list[int] = []
        self.ids.append(seen)
        if when == "at once":
            await how(context)
            return
        await anext(aiter(requests))
        if when == "after the hello":
            await how(context)
            return
        yield ConnectResponse(messages=[ServerMessage(welcome=Welcome(heartbeat_seconds=0.01))])
        if when == "after the welcome":
            await how(context)
            return
        async for frame in requests:
            for message in frame.messages:
                if not message.HasField("host"):
                    continue
                seen.append(message.host.id)
                if when == "after a message":
                    await how(context)
                    return
                answer = ServerMessage()
                answer.host_reply.lease.CopyFrom(message.host.lease)
                answer.host_reply.id = message.host.id
                yield ConnectResponse(messages=[answer])


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[ServerTarget]]]:
    servers: list[grpc.aio.Server] = []
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)

    async def start(peer: WorkerServiceServicer) -> ServerTarget:
        server = grpc.aio.server()
        add_WorkerServiceServicer_to_server(peer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return ServerTarget(f"127.0.0.1:{port}", token_file)

    yield start
    for server in servers:
        await server.stop(None)


class Replies:
    """A link under test, with two messages that want an answer."""

    def __init__(self, target: Any) -> None:
        self.got: asyncio.Queue[int] = asyncio.Queue()
        self.link = ServerLink(
            target,
            hello=lambda: WorkerHello(worker="w1"),
            on_welcome=lambda _: None,
            on_message=self._take,
            on_restored=self._restored,
        )
        for number in (1, 2):
            host = HostMessage(id=number)
            host.lease.run, host.lease.epoch = RUN, 1
            self.link.send(WorkerMessage(host=host), key=(RUN, 1, number))

    async def _restored(self) -> None:
        raise AssertionError("nothing was restored")

    def _take(self, message: ServerMessage) -> None:
        reply = message.host_reply
        if self.link.answered((reply.lease.run, reply.lease.epoch, reply.id)):
            self.got.put_nowait(reply.id)

    async def both(self) -> list[int]:
        """Run the link until both answers are there; it must not have ended by then."""
        task = asyncio.create_task(self.link.run())
        try:
            async with asyncio.timeout(10):
                answers = [await self.got.get(), await self.got.get()]
            assert not task.done(), "the link has ended by itself"
            return answers
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "FIRST_BACKOFF_SECONDS", 0.001)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("when", ["at once", "after the hello", "after the welcome", "after a message"])
async def test_however_a_stream_ends_the_worker_connects_again_and_repeats_what_is_unanswered(
    serve: Any, when: str, how: str
) -> None:
    peer = Peer(*[(when, ENDS[how])] * 3)
    assert await Replies(await serve(peer)).both() == [1, 2]
    assert peer.connections == 4
    assert peer.ids[-1] == [1, 2]


class Resetting(Servicer):
    """Resets its first streams with the HTTP/2 error CANCEL, without a status, each a little later than the one before it."""

    def __init__(self, resets: int) -> None:
        self.resets = resets
        self.connections = 0

    def Connect(self, requests: Iterator[ConnectRequest], context: Any) -> Iterator[ConnectResponse]:
        number, self.connections = self.connections, self.connections + 1
        if number == 0:
            context.cancel()
            return
        next(requests)
        yield ConnectResponse(messages=[ServerMessage(welcome=Welcome(heartbeat_seconds=0.001))])
        if number < self.resets:
            context.cancel()
            return
        for frame in requests:
            for message in frame.messages:
                if message.HasField("host"):
                    answer = ServerMessage()
                    answer.host_reply.lease.CopyFrom(message.host.lease)
                    answer.host_reply.id = message.host.id
                    yield ConnectResponse(messages=[answer])


async def test_a_peer_that_resets_streams_with_cancelled_is_connected_to_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    peer = Resetting(5)
    server = grpc.server(ThreadPoolExecutor(8))
    add_WorkerServiceServicer_to_server(peer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert await Replies(ServerTarget(f"127.0.0.1:{port}", tmp_path / "token")).both() == [1, 2]
    finally:
        await asyncio.to_thread(server.stop(None).wait)
    assert peer.connections == 6


class CancellingCall:
    """A call of which gRPC says that it was cancelled, at its first write or at a later one, although nobody here did so."""

    def __init__(self, writes: int) -> None:
        self.writes = writes
        self.welcomed = False

    async def write(self, request: ConnectRequest) -> None:
        if self.writes == 0:
            raise asyncio.CancelledError
        self.writes -= 1

    async def read(self) -> ConnectResponse:
        if self.welcomed:
            await asyncio.Event().wait()
        self.welcomed = True
        return ConnectResponse(messages=[ServerMessage(welcome=Welcome(heartbeat_seconds=0.001))])

    def cancel(self) -> None:
        """Nothing is behind it."""


@pytest.mark.parametrize("writes", [0, 1, 3])
async def test_a_write_that_looks_cancelled_is_a_break_and_no_end(serve: Any, writes: int) -> None:
    target = await serve(Peer())
    channels = iter([CancellingCall(writes), CancellingCall(writes)])

    class Target:
        address = target.address
        metadata = target.metadata

        @asynccontextmanager
        async def open_channel(self) -> AsyncIterator[Any]:
            async with target.open_channel() as channel:
                real = channel.stream_stream

                def stream_stream(*args: Any, **options: Any) -> Any:
                    return lambda **given: next(channels, None) or real(*args, **options)(**given)

                channel.stream_stream = stream_stream
                yield channel

    assert await Replies(Target()).both() == [1, 2]
    assert next(channels, None) is None


async def test_a_link_that_is_cancelled_ends(serve: Any) -> None:
    link = Replies(await serve(Peer())).link
    task = asyncio.create_task(link.run())
    await link.wait_connected()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
