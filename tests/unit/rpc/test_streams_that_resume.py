"""Watches of a real server through the real client: whatever breaks, exactly what was committed, once and in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.unit.rpc.conftest import FakeChroma

from fermata.client import Client, Connection, RetryPolicy, StreamOptions
from fermata.client.transport import Transport
from fermata.server import serving
from fermata.server.agents import operations as agents
from fermata.server.lifecycle.ending import end
from fermata.server.lifecycle.start import NewRun, create_run
from fermata.server.live import hub as hub_module
from fermata.server.rpc import watching
from fermata.server.runs.record import open_run
from fermata.server.runs.transitions import Move
from fermata.server.settings import ServerSettings
from fermata.server.store.database import Transaction
from fermata.server.store.publication import PublishedEvent
from fermata.v1 import agent_pb2, run_pb2

TENANT = "default"
PARENT = f"tenants/{TENANT}"
CUSTOM = run_pb2.EVENT_TYPE_CUSTOM


class Wire:
    """The network between clients and the server: a port that stays, and connections that can be torn."""

    def __init__(self) -> None:
        self.address = ""
        self.target = 0
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.close()
        self.tear()

    def tear(self) -> None:
        """Reset every connection."""
        for end_ in self._ends:
            end_.transport.abort()
        self._ends.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, out = await asyncio.open_connection("127.0.0.1", self.target)
            self._ends |= {writer, out}
            await asyncio.gather(self._pump(reader, out), self._pump(there, writer))
        writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class Plane:
    """A server that can be ended and started again on the same data, behind a wire."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.wire = Wire()
        self.server: serving.Server

    async def start(self) -> None:
        self.server = await serving.Server.start(self.settings)
        self.wire.target = int(self.server.address.rpartition(":")[2])

    async def restart(self) -> None:
        await self.server.stop()
        await self.start()

    async def create(self) -> str:
        plane = self.server.plane
        return await plane.write(
            lambda tx: create_run(tx, plane.leases, NewRun(TENANT, "operator", "", "{}", "ann", ""))
        )

    async def emit(self, run: str, count: int, size: int = 0) -> None:
        def operation(transaction: Transaction) -> None:
            with open_run(transaction, TENANT, run) as record:
                for _ in range(count):
                    record.emit(CUSTOM, text="x" * size)

        await self.server.plane.write(operation)

    async def finish(self, run: str) -> None:
        def operation(transaction: Transaction) -> None:
            with open_run(transaction, TENANT, run) as record:
                end(transaction, record, Move.CANCEL, run_pb2.EVENT_TYPE_CANCELLED)

        await self.server.plane.write(operation)

    def client(self) -> Client:
        token = (self.settings.data / "token").read_text().strip()
        connection = Connection(self.wire.address, token=token)
        retry = RetryPolicy(attempts=100, initial_seconds=0.001, max_seconds=0.05)
        return Client(transport=Transport(connection, retry=retry))


@pytest.fixture
async def plane(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plane]:
    monkeypatch.setattr(serving, "ChromaStore", FakeChroma)
    monkeypatch.setattr(serving, "DRAIN_SECONDS", 0.0)
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(empty_store, data / "fermata.db")
    started = Plane(
        ServerSettings(
            data=data,
            host="127.0.0.1",
            port=0,
            chroma_address="http://127.0.0.1:1",
            worker_token_file=None,
            tls_cert=None,
            tls_key=None,
            tls_client_ca=None,
            ready_fd=None,
        )
    )
    await started.wire.open()
    await started.start()
    spec = agent_pb2.AgentSpec(graph="graphs:operator")
    await started.server.plane.write(
        lambda tx: agents.apply(tx, TENANT, "operator", spec, agent_pb2.GraphReport(), "ann")
    )
    yield started
    await started.server.stop()
    await started.wire.close()


class Reader:
    """Watches, leaves its watch when told to, and comes back with the cursor that it had."""

    def __init__(self, client: Client, runs: int, **what: Any) -> None:
        self._client = client
        self._what = what
        self._left = runs
        self.seen: dict[str, list[int]] = defaultdict(list)
        self.watches = 0
        self._leave = asyncio.Event()

    def leave(self) -> None:
        self._leave.set()

    async def read(self, cursor: str = "0") -> None:
        while self._left:
            self._leave.clear()
            self.watches += 1
            options = StreamOptions(patience_seconds=30)
            async with aclosing(
                self._client.runs.watch(cursor=cursor, options=options, **self._what)
            ) as items:
                async for item in items:
                    cursor = item.cursor
                    self.seen[item.event.run].append(item.event.sequence)
                    self._left -= item.event.type == run_pb2.EVENT_TYPE_CANCELLED
                    if self._leave.is_set() or not self._left:
                        break


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_breaks_a_watch_it_gives_each_event_once_and_in_order(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)
    # Small enough that readers fall out of memory, and that a look is over before all has been seen.
    for module in (hub_module, watching):
        monkeypatch.setattr(module, "LOOK_EVENTS", dice.choice([1, 3, 500]))
    monkeypatch.setattr(hub_module, "RING_EVENTS", dice.choice([4, 40, 20_000]))
    async with plane.client() as client:
        runs = [await plane.create() for _ in range(3)]
        names = [f"{PARENT}/runs/{run}" for run in runs]
        threads = [(await client.runs.get(name)).thread for name in names]
        readers = [
            Reader(client, len(runs)),
            *(Reader(client, 1, run=name) for name in names),
            *(Reader(client, 1, thread=thread) for thread in threads),
        ]
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for reader in readers:
                tasks.create_task(reader.read())
            for _ in range(80):
                match dice.choices(["emit", "leave", "tear", "restart", "breathe"], [8, 3, 3, 1, 4])[0]:
                    case "emit":
                        await plane.emit(dice.choice(runs), dice.randrange(1, 12))
                    case "leave":
                        dice.choice(readers).leave()
                    case "tear":
                        plane.wire.tear()
                    case "restart":
                        await plane.restart()
                    case _:
                        for _ in range(dice.randrange(20)):
                            await asyncio.sleep(0)
            for run in runs:
                await plane.finish(run)
        events = {name: [event.sequence for event in await client.runs.events(name)] for name in names}
    assert all(sequences == list(range(1, len(sequences) + 1)) for sequences in events.values())
    everything, *of_one = readers
    assert dict(everything.seen) == events
    for name, of_run, of_thread in zip(names, of_one[:3], of_one[3:], strict=True):
        assert dict(of_run.seen) == {name: events[name]}
        assert dict(of_thread.seen) == {name: events[name]}


async def test_a_watch_goes_on_from_any_position_that_it_has_ever_had(plane: Plane) -> None:
    run = await plane.create()
    name = f"{PARENT}/runs/{run}"
    await plane.emit(run, 20)
    await plane.finish(run)
    async with plane.client() as client:
        cursors: list[str] = [item.cursor async for item in client.runs.watch(name)]
        await plane.restart()
        for position, cursor in enumerate(cursors, 1):
            rest = [item.event.sequence async for item in client.runs.watch(name, cursor=cursor)]
            assert rest == list(range(position + 1, len(cursors) + 1))


def _held() -> int:
    gc.collect()
    return sum(isinstance(item, PublishedEvent) for item in gc.get_objects())


async def test_a_reader_that_has_stopped_reading_costs_a_bounded_piece_and_misses_nothing(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "RING_EVENTS", 1_000)
    size, many = 8_000, 3_000
    piece = hub_module.LOOK_BYTES // size + 1
    others = _held()  # of tests that this process has played before
    run = await plane.create()
    name = f"{PARENT}/runs/{run}"
    for _ in range(hub_module.RING_EVENTS // 20):
        await plane.emit(run, 20, size)
    async with plane.client() as client:
        stub, metadata = client.runs._stub, client.runs._transport.call_metadata
        readers = [
            stub.WatchRuns(run_pb2.WatchRunsRequest(parent=PARENT, run=name, deltas=True), metadata=metadata)
            for _ in range(5)
        ]
        # A tenth of the ring may have left it and not been swept.
        bound = others + hub_module.RING_EVENTS * 11 // 10 + len(readers) * piece
        first: list[Any] = [await reader.read() for reader in readers]
        for number in range((many - hub_module.RING_EVENTS) // 20):
            await plane.emit(run, 20, size)
            for _ in range(100):
                plane.server.plane.hub.delta(
                    run_pb2.TokenDelta(run=name, message_id=str(number), text="y" * 100)
                )
            if number % 20 == 0:
                assert _held() <= bound
        listeners = plane.server.plane.hub._listeners
        assert len(listeners) == len(readers)
        assert all(0 < listener._characters <= 64 * 1024 for listener in listeners)
        assert _held() <= bound
        await plane.finish(run)
        for reader, item in zip(readers, first, strict=True):
            got = [item.event.sequence]
            while isinstance(response := await reader.read(), run_pb2.WatchRunsResponse):
                if response.HasField("event"):
                    got.append(response.event.sequence)
            assert got == list(range(1, many + 3))
