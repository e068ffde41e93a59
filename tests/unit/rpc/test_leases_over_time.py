"""Leases against a clock that tests set: what renews them, what ends them, and who gets the run then."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fermata.server.agents import operations as agents
from fermata.server.dispatch import sweeper
from fermata.server.dispatch.channel import HEARTBEAT_SECONDS, LEASE_SECONDS, Channel
from fermata.server.lifecycle.start import NewRun, create_run
from fermata.server.plane import ControlPlane
from fermata.server.runs import queries
from fermata.server.store.database import Database
from fermata.v1 import agent_pb2, run_pb2, worker_pb2

TENANT = "default"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now(self) -> float:
        return 1_000_000.0 + self.seconds

    def monotonic(self) -> float:
        return self.seconds


class Line:
    """A worker's stream without a network: frames in, frames out."""

    def __init__(self, plane: ControlPlane, worker: str, *leases: worker_pb2.Lease) -> None:
        self.id = worker
        self._frames: asyncio.Queue[worker_pb2.ConnectRequest | None] = asyncio.Queue()
        self.say(hello=worker_pb2.WorkerHello(worker=worker, capacity=8, leases=leases))
        self.told: asyncio.Queue[worker_pb2.ServerMessage] = asyncio.Queue()
        self.task = asyncio.create_task(self._serve(plane))

    def say(self, **body: Any) -> None:
        self._frames.put_nowait(worker_pb2.ConnectRequest(messages=[worker_pb2.WorkerMessage(**body)]))

    def hang_up(self) -> None:
        self._frames.put_nowait(None)

    async def hear(self, body: str) -> Any:
        async with asyncio.timeout(5):
            while (message := await self.told.get()).WhichOneof("body") != body:
                pass
            return getattr(message, body)

    def __aiter__(self) -> AsyncIterator[worker_pb2.ConnectRequest]:
        return self._incoming()

    async def _incoming(self) -> AsyncIterator[worker_pb2.ConnectRequest]:
        while (frame := await self._frames.get()) is not None:
            yield frame

    async def _serve(self, plane: ControlPlane) -> None:
        async def search(*_: Any) -> Any:
            raise AssertionError("nobody searches here")

        async for frame in Channel(plane, search).serve(self):
            for message in frame.messages:
                self.told.put_nowait(message)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def plane(tmp_path: Path, empty_store: Path, clock: Clock) -> AsyncIterator[ControlPlane]:
    shutil.copy(empty_store, tmp_path / "fermata.db")
    opened = await ControlPlane.over(tmp_path / "fermata.db", clock, Database)
    spec = agent_pb2.AgentSpec(graph="graphs:operator")
    await opened.write(lambda tx: agents.apply(tx, TENANT, "operator", spec, agent_pb2.GraphReport(), "ann"))
    yield opened
    await opened.close()


async def create(plane: ControlPlane) -> str:
    return await plane.write(
        lambda tx: create_run(tx, plane.leases, NewRun(TENANT, "operator", "", "{}", "ann", ""))
    )


async def holder(plane: ControlPlane, run: str) -> tuple[str, int]:
    message = await plane.read(lambda connection: queries.get(connection, TENANT, run))
    return message.worker, message.epoch


async def heard(plane: ControlPlane, line: Line) -> None:
    """Say something, and return when it has been heard."""
    line.say(heartbeat=worker_pb2.WorkerHeartbeat())
    there = plane.workers.get(line.id)
    assert there is not None
    while there.heard != plane.clock.monotonic():  # noqa: ASYNC110 - a heartbeat has no answer
        await asyncio.sleep(0)


async def test_heartbeats_renew_a_lease_for_as_long_as_they_come(plane: ControlPlane, clock: Clock) -> None:
    line = Line(plane, "w1")
    await line.hear("welcome")
    run = await create(plane)
    for _ in range(20):
        clock.seconds += HEARTBEAT_SECONDS
        await heard(plane, line)
        await sweeper.look_at_workers(plane)
    assert await holder(plane, run) == ("w1", 1)


async def test_a_silent_workers_leases_end_with_their_term_and_it_is_told_when_it_comes_back(
    plane: ControlPlane, clock: Clock
) -> None:
    line = Line(plane, "w1")
    await line.hear("welcome")
    run = await create(plane)
    lease = (await line.hear("assign")).lease
    clock.seconds += LEASE_SECONDS - 0.01
    await sweeper.look_at_workers(plane)
    assert await holder(plane, run) == ("w1", 1)
    assert sweeper.seconds_to_next_end(plane) == pytest.approx(0.01 + sweeper.LEAST_SECONDS)
    clock.seconds += sweeper.seconds_to_next_end(plane)
    await sweeper.look_at_workers(plane)
    assert await holder(plane, run) == ("", 1)
    await asyncio.wait_for(line.task, 5)
    other = Line(plane, "w2")
    assert (await other.hear("assign")).lease.epoch == 2
    back = Line(plane, "w1", lease)
    assert list((await back.hear("welcome")).lost) == [lease]


async def test_a_worker_whose_stream_has_broken_keeps_its_leases_for_a_term(
    plane: ControlPlane, clock: Clock
) -> None:
    line = Line(plane, "w1")
    await line.hear("welcome")
    run = await create(plane)
    lease = (await line.hear("assign")).lease
    line.hang_up()
    await asyncio.wait_for(line.task, 5)
    clock.seconds += LEASE_SECONDS - 1
    await sweeper.look_at_workers(plane)
    back = Line(plane, "w1", lease)
    assert not (await back.hear("welcome")).lost
    clock.seconds += LEASE_SECONDS - 1
    await sweeper.look_at_workers(plane)
    assert await holder(plane, run) == ("w1", 1)
    back.hang_up()
    await asyncio.wait_for(back.task, 5)
    clock.seconds += LEASE_SECONDS + 1
    await sweeper.look_at_workers(plane)
    assert await holder(plane, run) == ("", 1)


async def test_a_server_that_stood_still_itself_takes_no_lease_for_it(
    plane: ControlPlane, clock: Clock
) -> None:
    line = Line(plane, "w1")
    await line.hear("welcome")
    gone = Line(plane, "w2")
    await gone.hear("welcome")
    runs = [await create(plane), await create(plane)]
    gone.hang_up()
    await asyncio.wait_for(gone.task, 5)
    holders = [await holder(plane, run) for run in runs]
    clock.seconds += 3600
    sweeper.lengthen(plane, 3600)
    await sweeper.look_at_workers(plane)
    assert [await holder(plane, run) for run in runs] == holders


async def test_a_lease_is_one_workers_at_a_time_and_every_epoch_has_one_owner(
    plane: ControlPlane, clock: Clock
) -> None:
    lines = [Line(plane, f"w{number}") for number in range(4)]
    for line in lines:
        await line.hear("welcome")
    runs = await asyncio.gather(*(create(plane) for _ in range(16)))
    for _ in range(3):
        clock.seconds += LEASE_SECONDS + 1
        for line in lines[1:]:
            await heard(plane, line)
        await sweeper.look_at_workers(plane)
        await asyncio.wait_for(lines[0].task, 5)
        lines = [*lines[1:], Line(plane, lines[0].id)]
        await lines[-1].hear("welcome")
        await plane.write(plane.leases.claim)
        assert all([(await holder(plane, run))[0] for run in runs])
    granted: dict[str, list[int]] = {run: [] for run in runs}
    for event in plane.hub.after(0) or ():
        if event.event.type == run_pb2.EVENT_TYPE_LEASED:
            granted[event.run].append(int(str(event.event.data["epoch"]).removesuffix(".0")))
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in granted.values())
    assert sum(len(epochs) for epochs in granted.values()) > len(runs)


async def test_a_death_ends_leases_at_once_although_the_connection_still_stands(
    server: Any, admin: Any, worker: Any, agent: str, worker_caller: Any
) -> None:
    run = await admin.call(
        "RunService.CreateRun", run_pb2.CreateRunRequest(parent="tenants/default", agent=agent, text="go")
    )
    assert (await worker.next("assign")).lease.epoch == 1
    report = worker_pb2.ReportWorkerDeathRequest(worker="w1", reason="exit 9")
    await worker_caller.call("WorkerService.ReportWorkerDeath", report)
    assert server.plane.workers.get("w1") is None
    got = await admin.call("RunService.GetRun", run_pb2.GetRunRequest(name=run.name))
    assert (got.worker, got.epoch) == ("", 1), "it is not leased again to the dead"
    other = type(worker)("w2")
    await other.connect(worker_caller)
    assert (await other.next("assign")).lease.epoch == 2
    await other.disconnect()
