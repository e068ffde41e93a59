"""A whole Fermata in one loop: server, controller, workers and hosts, each a process that can be killed, frozen or cut off.

All of it is the product's own code; what is replaced is said in the modules of this folder: time, threads, network, disk, and how
processes begin and end.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.simulation.disk import Disk, SimulatedDatabase
from tests.simulation.hosts import Hosts
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import Network, SimulatedChannel, SimulatedServer

from fermata.agents.inference.readings import Pair
from fermata.client import Client, Connection
from fermata.client.retry import RetryPolicy
from fermata.client.transport import Transport
from fermata.server.clock import Clock
from fermata.server.cluster.controller import EMBEDDER, Controller
from fermata.server.cluster.notices import GrpcNotices
from fermata.server.cluster.target import ServerTarget
from fermata.server.cluster.worker import Worker
from fermata.server.plane import ControlPlane
from fermata.server.principals.callers import Callers
from fermata.server.serving import add_services, start_sweeps

WORKERS = 2
CAPACITY = 4
PERSON_TOKEN = "a-person"
WORKER_TOKEN = "the-workers"
NOTICE_SECONDS = (0.005, 0.1)
"""How long Ray takes to notice a death."""


class WallClock(Clock):
    """The machine's clock: what it says can be set, time can't."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.offset_seconds = 0.0

    def now(self) -> float:
        return self._loop.time() + self.offset_seconds

    def monotonic(self) -> float:
        return self._loop.time()


class _Target(ServerTarget):
    """The server at the other end of the simulated network."""

    network: Network

    def __init__(self, network: Network) -> None:
        super().__init__("server", Path())
        object.__setattr__(self, "network", network)

    def open_channel(self) -> Any:
        return SimulatedChannel(self.network)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {WORKER_TOKEN}"),)


class _Transport(Transport):
    """A client's transport over the simulated network."""

    network: Network

    @property
    def channel(self) -> Any:
        return SimulatedChannel(self.network)


class Plant:
    """See the module.

    :param folder: for the store; ``template`` is the store as it is at the beginning.
    """

    def __init__(self, loop: SimulatedLoop, rng: random.Random, folder: Path, template: Path) -> None:
        self.loop = loop
        self.rng = rng
        self.network = Network(loop, rng)
        self.disk = Disk(loop, rng)
        self.clock = WallClock(loop)
        self.hosts = Hosts(loop)
        self.path = folder / "fermata.db"
        shutil.copy(template, self.path)
        self._folder = folder
        self._numbers = itertools.count(1)
        self.server: Process | None = None
        self.plane: ControlPlane | None = None
        self.workers: dict[str, _Actor] = {}
        self.controller = loop.process("controller")
        self.people = loop.process("people")

    def start(self) -> None:
        """Start everything."""
        self.start_server()
        self.loop.spawn(self.controller, self._control())

    def start_server(self) -> None:
        """Start a server over the store, as the supervisor does when the one before has ended."""
        process = self.loop.process(f"server {next(self._numbers)}")
        self.server = process
        self.loop.spawn(process, self._serve(process))

    def kill_server(self) -> None:
        """kill -9; the supervisor starts the next one after a while."""
        process, self.server = self.server, None
        if process is None:
            return
        plane, self.plane = self.plane, None
        if self.network.server is not None and self.network.server.process is process:
            self.network.server = None
        self.loop.kill(process)
        _leave(plane, power_lost=True)
        self.loop.call_later(
            0.2 + self.rng.random(), self.start_server, context=self.loop.world.context.copy()
        )

    def close(self) -> None:
        """Let go of the store."""
        _leave(self.plane)

    def client(self) -> Client:
        """A client of a person's, to be used in the process that asks for it."""
        transport = _Transport(
            Connection("127.0.0.1:1", PERSON_TOKEN),
            deadline_seconds=300.0,
            retry=RetryPolicy(attempts=1000, max_seconds=1.0, attempts_before_contact=1000),
            random=self.rng.random,
            sleep=asyncio.sleep,
            clock=self.loop.time,
        )
        transport.network = self.network
        return Client(transport=transport)

    async def _serve(self, process: Process) -> None:
        await asyncio.sleep(0.01)
        plane = await ControlPlane.over(self.path, self.clock, self.disk.open)
        callers = Callers()
        await plane.read(callers.load)
        server = SimulatedServer(process)
        add_services(server, plane, callers, None)  # type: ignore[arg-type]
        start_sweeps(plane)
        self.plane, self.network.server = plane, server

    async def _control(self) -> None:
        target = _Target(self.network)
        notices = GrpcNotices(target.open_channel(), target)
        controller = Controller(
            _Ray(self),
            notices,
            workers=WORKERS,
            clock=self.loop.time,
            process_exists=lambda _: True,
            node="here",
        )
        await controller.run()


class _Ray:
    """Implements ``controller.ActorCluster``."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    async def find(self, name: str) -> _Actor | None:
        """No actor is left from before."""
        return None

    async def start(self, name: str, worker_id: str) -> _Actor:
        """Start a worker's process, or one that stands for the embedding model, which nobody here asks for anything."""
        actor = _Actor(self._plant, self._plant.loop.process(worker_id or name), worker_id)
        if name != EMBEDDER:
            self._plant.workers[worker_id] = actor
            actor.begin()
        return actor


class _Actor:
    """Implements ``controller.Actor``: a worker's process."""

    def __init__(self, plant: Plant, process: Process, worker_id: str) -> None:
        self._plant = plant
        self.process = process
        self.id = worker_id
        self._dead: asyncio.Future[str] = plant.loop.create_future()
        self._connected = asyncio.Event()
        process.on_death.append(self._died)

    def begin(self) -> None:
        """Start to work."""
        self._plant.loop.spawn(self.process, self._main())

    async def _main(self) -> None:
        worker = Worker(
            _Target(self._plant.network),
            cache=self._plant._folder / "packs",
            start_zygote=self._plant.hosts.start_zygote,
            embed=_no_vectors,
            read=_no_readings,
            capacity=CAPACITY,
            node="here",
            worker_id=self.id,
        )
        await worker.run()

    def _died(self) -> None:
        self._plant.workers.pop(self.id, None)
        least, most = NOTICE_SECONDS
        seconds = least + self._plant.rng.random() * (most - least)
        context = self._plant.controller.context.copy()
        self._plant.loop.call_later(seconds, self._dead.set_result, "killed", context=context)

    async def worker_id(self) -> str:
        """See ``controller.Actor``."""
        return self.id

    async def wait_connected(self) -> None:
        """See ``controller.Actor``; nobody here waits for it."""

    async def wait_dead(self) -> str:
        """See ``controller.Actor``."""
        return await asyncio.shield(self._dead)

    async def kill(self) -> None:
        """See ``controller.Actor``."""
        self._plant.loop.kill(self.process)


def _leave(plane: ControlPlane | None, *, power_lost: bool = False) -> None:
    if plane is not None:
        assert isinstance(plane.database, SimulatedDatabase)
        plane.database.leave(power_lost=power_lost)


async def _no_vectors(texts: Sequence[str]) -> Any:
    return np.zeros((len(texts), 1), dtype=np.float32)


async def _no_readings(pairs: Sequence[Pair]) -> Any:
    raise AssertionError(f"no graph here has a planner: {pairs}")
