"""The controller over actors and a server that are objects, with a clock that the test owns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fermata.server.cluster.controller import ActorGoneError, Controller, Sighting


class Clock:
    """Time stands still until ``advance``."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, future))
        await future

    async def advance(self, seconds: float) -> None:
        self.now += seconds
        for due, future in self._sleepers:
            if due <= self.now and not future.done():
                future.set_result(None)
        await settle()


class FakeActor:
    def __init__(self, name: str, worker: str) -> None:
        self.name = name
        self.worker = worker
        self.connected = asyncio.Event()
        self.killed = False
        self._dead: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def die(self, reason: str = "killed -9") -> None:
        if not self._dead.done():
            self._dead.set_result(reason)

    async def worker_id(self) -> str:
        if self._dead.done():
            raise ActorGoneError(self._dead.result())
        return self.worker

    async def wait_connected(self) -> None:
        await self.connected.wait()

    async def wait_dead(self) -> str:
        return await asyncio.shield(self._dead)

    async def kill(self) -> None:
        self.killed = True
        self.die()


class FakeCluster:
    def __init__(self) -> None:
        self.living: dict[str, FakeActor] = {}
        self.started: list[FakeActor] = []
        self.refusals = 0

    async def find(self, name: str) -> FakeActor | None:
        return self.living.get(name)

    async def start(self, name: str, worker_id: str) -> FakeActor:
        if self.refusals:
            self.refusals -= 1
            raise ActorGoneError("no room")
        actor = FakeActor(name, worker_id)
        self.started.append(actor)
        self.living[name] = actor
        return actor


class FakeServer:
    def __init__(self) -> None:
        self.reachable = True
        self.deaths: list[tuple[str, str]] = []
        self.workers: list[Sighting] = []

    async def report_death(self, worker: str, reason: str) -> None:
        if not self.reachable:
            raise ConnectionError("not now")
        self.deaths.append((worker, reason))
        self.workers = [seen for seen in self.workers if seen.worker != worker]

    async def living_workers(self) -> list[Sighting]:
        if not self.reachable:
            raise ConnectionError("not now")
        return self.workers


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


class Stage:
    """A controller with all that is around it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster()
        self.server = FakeServer()
        self.connected = 0
        self.processes: set[int] = set()
        self.nothing_left = asyncio.Event()
        self.nothing_left.set()
        self.controller: Controller
        self.task: asyncio.Task[None]

    async def begin(self, workers: int = 2) -> None:
        self.controller = Controller(
            self.cluster,
            self.server,
            workers=workers,
            on_connected=self._on_connected,
            clock=self.clock,
            sleep=self.clock.sleep,
            process_exists=lambda pid: pid in self.processes,
            all_ended=self._all_ended,
            node="here",
        )
        self.task = asyncio.create_task(self.controller.run())
        await settle()

    async def _all_ended(self, worker: str) -> None:
        await self.nothing_left.wait()

    def _on_connected(self) -> None:
        self.connected += 1

    def by_name(self, name: str) -> FakeActor:
        return self.cluster.living[name]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    stage.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stage.task


async def test_it_starts_the_embedder_and_the_workers_each_with_an_id_of_its_own(stage: Stage) -> None:
    await stage.begin()
    assert sorted(actor.name for actor in stage.cluster.started) == ["embedder", "worker-0", "worker-1"]
    ids = {actor.worker for actor in stage.cluster.started}
    assert len(ids) == 3
    assert stage.by_name("embedder").worker == ""


async def test_a_dead_worker_is_reported_and_replaced_at_once(stage: Stage) -> None:
    await stage.begin()
    dead = stage.by_name("worker-0")
    dead.die("the process was killed")
    await settle()
    assert stage.server.deaths == [(dead.worker, "the process was killed")]
    assert stage.by_name("worker-0").worker not in ("", dead.worker)


async def test_a_death_is_not_told_before_all_that_the_worker_had_started_is_dead(stage: Stage) -> None:
    await stage.begin()
    first = stage.by_name("worker-0")
    stage.nothing_left.clear()
    first.die()
    await settle()
    assert stage.server.deaths == []
    assert stage.by_name("worker-0") is not first, "the next one does not wait for that"
    stage.nothing_left.set()
    await settle()
    assert stage.server.deaths == [(first.worker, "killed -9")]


async def test_a_dead_embedder_is_replaced_and_reported_to_nobody(stage: Stage) -> None:
    await stage.begin()
    dead = stage.by_name("embedder")
    dead.die()
    await settle()
    assert stage.by_name("embedder") is not dead
    assert not stage.server.deaths


async def test_a_worker_that_keeps_dying_is_started_less_and_less_often(stage: Stage) -> None:
    await stage.begin(workers=1)
    for _ in range(2):
        stage.by_name("worker-0").die()
        await settle()
    count = len(stage.cluster.started)
    await stage.clock.advance(0.05)
    assert len(stage.cluster.started) == count
    await stage.clock.advance(0.06)
    assert len(stage.cluster.started) == count + 1


async def test_an_actor_that_cannot_be_started_is_tried_again(stage: Stage) -> None:
    stage.cluster.refusals = 3
    await stage.begin(workers=2)
    assert not stage.cluster.started
    await stage.clock.advance(0.2)
    assert len(stage.cluster.started) == 3


async def test_a_death_is_told_when_the_server_is_back(stage: Stage) -> None:
    await stage.begin()
    stage.server.reachable = False
    dead = stage.by_name("worker-1")
    dead.die()
    await settle()
    assert not stage.server.deaths
    stage.server.reachable = True
    await stage.clock.advance(1.0)
    assert [worker for worker, _ in stage.server.deaths] == [dead.worker]


async def test_actors_that_are_there_already_are_adopted_and_watched(stage: Stage) -> None:
    for name, worker in (("embedder", ""), ("worker-0", "worker-of-before")):
        stage.cluster.living[name] = FakeActor(name, worker)
    await stage.begin(workers=1)
    assert not stage.cluster.started
    stage.by_name("worker-0").die("gone")
    await settle()
    assert stage.server.deaths == [("worker-of-before", "gone")]
    assert [actor.name for actor in stage.cluster.started] == ["worker-0"]


async def test_it_tells_once_that_a_worker_is_connected(stage: Stage) -> None:
    await stage.begin()
    assert stage.connected == 0
    for name in ("worker-0", "worker-1"):
        stage.by_name(name).connected.set()
    await settle()
    assert stage.connected == 1


async def test_workers_of_an_earlier_time_are_reported_when_their_process_is_gone(stage: Stage) -> None:
    stage.server.workers = [
        Sighting("dead", "here", 11),
        Sighting("dying", "here", 12),
        Sighting("elsewhere", "there", 13),
    ]
    stage.processes = {12}
    await stage.begin()
    assert [worker for worker, _ in stage.server.deaths] == ["dead"]
    stage.processes = set()
    await stage.clock.advance(1.0)
    assert [worker for worker, _ in stage.server.deaths] == ["dead", "dying"]


async def test_our_own_workers_are_never_doubted(stage: Stage) -> None:
    stage.cluster.living["worker-0"] = FakeActor("worker-0", "mine")
    stage.server.workers = [Sighting("mine", "here", 14)]
    await stage.begin(workers=1)
    await stage.clock.advance(1.0)
    assert not stage.server.deaths


async def test_actors_outlive_the_controller_unless_they_are_killed(stage: Stage) -> None:
    await stage.begin()
    await stage.controller.kill_all()
    assert all(actor.killed for actor in stage.cluster.started)
