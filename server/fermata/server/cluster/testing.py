"""Twins for tests, shipped: a server that only speaks WorkerService, and zygotes whose hosts are objects."""

# ruff: noqa: N802, A002 - names of the API

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from fermata.server.cluster.hosts import HostExit, ZygoteGoneError
from fermata.server.cluster.target import ServerTarget
from fermata.v1.agent_pb2 import AgentSpec, GraphReport
from fermata.v1.worker_pb2 import (
    ConnectRequest,
    ConnectResponse,
    GetPackRequest,
    GetPackResponse,
    HostMessage,
    Lease,
    ListWorkersRequest,
    ListWorkersResponse,
    ReportWorkerDeathRequest,
    ReportWorkerDeathResponse,
    ServerMessage,
    Welcome,
    WorkerHello,
    WorkerMessage,
)
from fermata.v1.worker_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server

TOKEN = "worker-token-of-a-test"  # noqa: S105 - opens nothing


class Connection:
    """One worker's stream, seen from the server."""

    def __init__(self, hello: WorkerHello) -> None:
        self.hello = hello
        self.received: asyncio.Queue[WorkerMessage] = asyncio.Queue()
        self.outgoing: asyncio.Queue[ServerMessage | None] = asyncio.Queue()
        self.frames = 0
        self.closed = asyncio.Event()

    def send(self, **body: Any) -> None:
        self.outgoing.put_nowait(ServerMessage(**body))

    async def next(self, kind: str) -> Any:
        """The next message of this kind; others on the way are left out."""
        async with asyncio.timeout(10):
            while True:
                message = await self.received.get()
                if message.WhichOneof("body") == kind:
                    return getattr(message, kind)

    def break_off(self) -> None:
        self.outgoing.put_nowait(None)


class FakeServer(WorkerServiceServicer):
    """WorkerService on a loopback port; ``await start()`` and ``await stop()`` as often as a test likes, on
    the same port.
    """

    def __init__(self, token_folder: Path) -> None:
        self.token_file = token_folder / "worker-token"
        self.token_file.write_text(TOKEN)
        self.port = 0
        self.connections: asyncio.Queue[Connection] = asyncio.Queue()
        self.deaths: asyncio.Queue[str] = asyncio.Queue()
        self.lost: list[Lease] = []
        self.packs: dict[str, bytes] = {}
        self.pack_requests = 0
        self.heartbeat_seconds = 0.05
        self._server: grpc.aio.Server | None = None

    @property
    def target(self) -> ServerTarget:
        return ServerTarget(f"127.0.0.1:{self.port}", self.token_file)

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_WorkerServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(None)

    async def connection(self) -> Connection:
        return await asyncio.wait_for(self.connections.get(), 10)

    async def Connect(
        self, request_iterator: AsyncIterator[ConnectRequest], context: Any
    ) -> AsyncIterator[ConnectResponse]:
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        first = await anext(aiter(request_iterator))
        connection = Connection(first.messages[0].hello)
        welcome = Welcome(heartbeat_seconds=self.heartbeat_seconds, lease_seconds=10, lost=self.lost)
        yield ConnectResponse(messages=[ServerMessage(welcome=welcome)])
        self.connections.put_nowait(connection)

        async def read() -> None:
            async for frame in request_iterator:
                connection.frames += 1
                for message in frame.messages:
                    connection.received.put_nowait(message)

        reader = asyncio.create_task(read())
        try:
            while (message := await connection.outgoing.get()) is not None:
                yield ConnectResponse(messages=[message])
        finally:
            connection.closed.set()
            reader.cancel()

    async def GetPack(self, request: GetPackRequest, context: Any) -> GetPackResponse:
        self.pack_requests += 1
        if request.digest not in self.packs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such pack")
        return GetPackResponse(pack=self.packs[request.digest])

    async def ReportWorkerDeath(
        self, request: ReportWorkerDeathRequest, context: Any
    ) -> ReportWorkerDeathResponse:
        self.deaths.put_nowait(request.worker)
        return ReportWorkerDeathResponse()

    async def ListWorkers(self, request: ListWorkersRequest, context: Any) -> ListWorkersResponse:
        return ListWorkersResponse()


class FakeHost:
    """A host that a test plays by hand, or with ``answer``: called with every message that it is sent."""

    def __init__(self, pid: int, answer: Callable[[FakeHost, ServerMessage], None] | None) -> None:
        self.pid = pid
        self.sent: list[ServerMessage] = []
        self.killed = False
        self._answer = answer
        self._messages: asyncio.Queue[HostMessage | None] = asyncio.Queue()
        self._end: asyncio.Future[HostExit] = asyncio.get_running_loop().create_future()
        self._got = asyncio.Event()

    def say(self, lease: Lease, id: int = 0, **body: Any) -> None:
        self._messages.put_nowait(HostMessage(lease=lease, id=id, **body))

    def die(self, exit_code: int, stderr: str = "") -> None:
        if not self._end.done():
            self._end.set_result(HostExit(exit_code, stderr))
            self._messages.put_nowait(None)

    async def got(self, kind: str) -> Any:
        async with asyncio.timeout(10):
            while True:
                for message in self.sent:
                    if message.WhichOneof("body") == kind:
                        self.sent.remove(message)
                        return getattr(message, kind)
                self._got.clear()
                await self._got.wait()

    def send(self, message: ServerMessage) -> None:
        self.sent.append(message)
        self._got.set()
        if self._answer is not None:
            self._answer(self, message)

    async def receive(self) -> HostMessage | None:
        return await self._messages.get()

    async def kill(self) -> HostExit:
        self.killed = True
        self.die(-9)
        return await self.ended()

    async def ended(self) -> HostExit:
        return await asyncio.shield(self._end)


class FakeZygotes:
    """Starts zygotes that make ``FakeHost``s. ``error`` is raised by the next starts; ``hosts`` has all that
    were forked.
    """

    def __init__(self, answer: Callable[[FakeHost, ServerMessage], None] | None = None) -> None:
        self.hosts: list[FakeHost] = []
        self.started: list[tuple[AgentSpec, Path | None]] = []
        self.closed = 0
        self.error: Exception | None = None
        self.gone_once = False
        """The next fork finds that its zygote has ended."""
        self.answer = answer
        self.forked = asyncio.Event()

    async def __call__(self, spec: AgentSpec, folder: Path | None) -> FakeZygote:
        self.started.append((spec, folder))
        if self.error is not None:
            raise self.error
        return FakeZygote(self)

    async def host(self, number: int) -> FakeHost:
        async with asyncio.timeout(10):
            while len(self.hosts) <= number:
                self.forked.clear()
                await self.forked.wait()
        return self.hosts[number]


class FakeZygote:
    def __init__(self, nest: FakeZygotes) -> None:
        self.nest = nest
        self.gone = False

    async def fork(self) -> FakeHost:
        if self.nest.gone_once:
            self.nest.gone_once, self.gone = False, True
        if self.gone:
            raise ZygoteGoneError("gone")
        host = FakeHost(1000 + len(self.nest.hosts), self.nest.answer)
        self.nest.hosts.append(host)
        self.nest.forked.set()
        return host

    async def inspect(self) -> GraphReport:
        return GraphReport(nodes=["think", "act"])

    async def close(self) -> None:
        self.gone = True
        self.nest.closed += 1
