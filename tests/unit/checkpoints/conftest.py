"""A host's checkpointer at one end of a worker's channel, a control plane with its store on disk at the other."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, select

from fermata.agents.runtime.checkpointer import ChannelCheckpointSaver
from fermata.agents.runtime.frames import MAX_FRAME_BYTES
from fermata.agents.runtime.run import ActiveRun
from fermata.server.agents import operations as agents
from fermata.server.dispatch.channel import Channel
from fermata.server.lifecycle import latching
from fermata.server.lifecycle.start import NewRun, create_run
from fermata.server.plane import ControlPlane
from fermata.server.store import schema
from fermata.server.threads import conversations
from fermata.v1 import agent_pb2, thread_pb2, worker_pb2

V = worker_pb2
TENANT = "default"
ROLLBACK = thread_pb2.MULTITASK_STRATEGY_ROLLBACK


class Wire:
    """A worker with one host: what the host says goes through the server's own channel."""

    def __init__(self, plane: ControlPlane) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames: asyncio.Queue[V.ConnectRequest] = asyncio.Queue()
        self._numbers = itertools.count(1)
        self._open: dict[int, Future[V.HostReply]] = {}
        self._lock = threading.Lock()
        self._assigned: asyncio.Queue[V.Assign] = asyncio.Queue()
        self.kinds: list[str | None] = []
        self.sent_bytes = 0
        hello = V.WorkerHello(worker="w1", node="here", pid=1, capacity=64)
        self._frames.put_nowait(V.ConnectRequest(messages=[V.WorkerMessage(hello=hello)]))
        self._task = asyncio.create_task(self._serve(Channel(plane, _no_search)))

    def request(self, message: V.HostMessage) -> Future[V.HostReply]:
        assert message.ByteSize() < MAX_FRAME_BYTES, "no socket would take it"
        answer: Future[V.HostReply] = Future()
        with self._lock:
            message.id = next(self._numbers)
            self._open[message.id] = answer
            self.kinds.append(message.WhichOneof("body"))
            self.sent_bytes += message.ByteSize()
            frame = V.ConnectRequest(messages=[V.WorkerMessage(host=message)])
            self._loop.call_soon_threadsafe(self._frames.put_nowait, frame)
        return answer

    async def assigned(self, run: str) -> V.Assign:
        """What the worker is told about a run; a repeat about another is passed over."""
        while True:
            assign = await asyncio.wait_for(self._assigned.get(), 10)
            if assign.lease.run.endswith(f"/{run}"):
                return assign

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self, channel: Channel) -> None:
        async for response in channel.serve(self._incoming()):
            for message in response.messages:
                if message.HasField("assign"):
                    self._assigned.put_nowait(message.assign)
                elif message.HasField("host_reply"):
                    self._open.pop(message.host_reply.id).set_result(message.host_reply)

    async def _incoming(self) -> AsyncIterator[V.ConnectRequest]:
        while True:
            yield await self._frames.get()


async def _no_search(*_: Any) -> Any:
    raise AssertionError("nobody searches here")


class Place:
    """A plane, a worker, and the savers of its runs."""

    def __init__(self, plane: ControlPlane, wire: Wire) -> None:
        self.plane = plane
        self.wire = wire
        self.statements = 0

        @event.listens_for(plane.database._writer_engine, "before_cursor_execute")
        def count(*_: Any) -> None:
            self.statements += 1

    async def thread(self) -> str:
        made = await self.plane.write(lambda tx: conversations.create(tx, TENANT, "{}", "ann"))
        return made.name.rsplit("/", 1)[1]

    async def run(self, thread: str = "") -> ActiveRun:
        """A run that the worker has."""
        wanted = NewRun(TENANT, "operator", thread, "{}", "ann", "")
        run = await self.plane.write(lambda tx: create_run(tx, self.plane.leases, wanted))
        return await self._leased(run)

    async def saver(self, thread: str = "") -> ChannelCheckpointSaver:
        """The checkpointer of a new run."""
        run = await self.run(thread)
        return ChannelCheckpointSaver(run, fresh=not run.may_be_recorded)

    def another_host(self, run: ActiveRun) -> ChannelCheckpointSaver:
        """The checkpointer of a host that knows nothing yet."""
        assign = V.Assign(lease=run.lease, thread=run.thread, restarted=True)
        return ChannelCheckpointSaver(ActiveRun(self.wire, assign), fresh=False)  # type: ignore[arg-type]

    async def finish(self, run: ActiveRun) -> None:
        await asyncio.wrap_future(run.send(finish=V.Finish()))

    async def roll_back(self, run: ActiveRun) -> ActiveRun:
        """Another run in the place of this one, as double text has it."""
        thread = run.thread.rsplit("/", 1)[1]
        wanted = NewRun(TENANT, "operator", thread, "{}", "ann", "", ROLLBACK)
        successor = await self.plane.write(lambda tx: create_run(tx, self.plane.leases, wanted))
        report = V.StopReport(lease=run.lease)
        await self.plane.write(lambda tx: latching.stop_report(tx, "w1", report))
        return await self._leased(successor)

    async def _leased(self, run: str) -> ActiveRun:
        await self.plane.write(self.plane.leases.claim)
        return ActiveRun(self.wire, await self.wire.assigned(run))  # type: ignore[arg-type]

    async def commit(self, run: ActiveRun) -> V.HostReply:
        return await asyncio.wrap_future(run.send())

    async def count(self, table: Any) -> int:
        query = select(func.count()).select_from(table)
        return int(await self.plane.read(lambda connection: connection.execute(query).scalar_one()))

    async def stored_bytes(self) -> int:
        def total(connection: Connection) -> int:
            sizes = 0
            for table in (
                schema.checkpoints,
                schema.channel_blobs,
                schema.checkpoint_writes,
                schema.chunks,
            ):
                columns = [func.coalesce(func.sum(func.length(column)), 0) for column in table.c]
                sizes += sum(connection.execute(select(*columns)).one())
            return sizes

        return await self.plane.read(total)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    plane = await ControlPlane.open(tmp_path)
    report = agent_pb2.GraphReport()
    spec = agent_pb2.AgentSpec(graph="graphs:operator")
    await plane.write(lambda tx: agents.apply(tx, TENANT, "operator", spec, report, "somebody"))
    wire = Wire(plane)
    yield Place(plane, wire)
    await wire.close()
    await plane.close()
