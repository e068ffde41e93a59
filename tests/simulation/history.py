"""One history: a seed, everything that it decides, and what became of the promises."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from tests.simulation import graphs
from tests.simulation.disk import Disk, SimulatedDatabase
from tests.simulation.faults import faults, play
from tests.simulation.loop import START, SimulatedLoop, StandstillError
from tests.simulation.outside import Outside
from tests.simulation.people import People
from tests.simulation.plant import PERSON_TOKEN, WORKER_TOKEN, Plant, WallClock
from tests.simulation.promises import broken
from tests.simulation.seeded import owned_by

from fermata.agents.runtime import gate, models
from fermata.agents.runtime.inspection import inspect_graph
from fermata.client import FermataError
from fermata.server.agents import operations as agents
from fermata.server.plane import ControlPlane
from fermata.server.policy import records as policies
from fermata.server.principals.operations import ensure
from fermata.server.serving import TENANT
from fermata.server.store.database import Transaction
from fermata.server.store.migrate import migrate
from fermata.v1 import agent_pb2, principal_pb2

BEGIN_SECONDS = 0.5
BUSY_SECONDS = 4.0
"""Within this time all is asked for, and all that goes wrong begins to."""

PATIENCE_SECONDS = 400.0
"""A run that has not ended by then, on the history's clock, is stuck: every fault is over after 30 s."""


@dataclass(frozen=True)
class History:
    """What became of a seed. ``store`` is the store's file as it was left."""

    seed: int
    broken: list[str]
    happened: list[str]
    fingerprint: str
    turns: int
    seconds: float
    store: Path


class Player:
    """Plays histories in this process, one after the other. The process is good for nothing else afterwards.

    :param folder: for their stores.
    """

    def __init__(self, folder: Path) -> None:
        gate.install()
        models.install()
        # What was going on in processes that were killed, and at the end, is thrown away: it has nobody to tell how it felt.
        sys.unraisablehook = lambda _: None
        warnings.simplefilter("ignore", RuntimeWarning)
        self._folder = folder
        self._template = folder / "template.db"
        migrate(self._template)
        with owned_by(0) as (loop, rng):
            loop.run_until_complete(_furnish(loop, rng, self._template))
        # Collections between histories only, and only of what they have left: when one runs is no part of a history.
        gc.collect()
        gc.freeze()
        gc.disable()

    def play(self, seed: int) -> History:
        """Play one history from its beginning to its end."""
        folder = self._folder / "history"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with owned_by(seed) as (loop, rng):
            history = self._play(seed, loop, rng, folder)
        gc.collect()
        # What is left is what was imported or compiled meanwhile: not to be looked at again.
        gc.freeze()
        return history

    def _play(self, seed: int, loop: SimulatedLoop, rng: random.Random, folder: Path) -> History:
        outside = Outside(loop, rng)
        graphs.act_on(outside)
        loop.follow = gate.follow_threads
        plant = Plant(loop, rng, folder, self._template)
        people = People(plant, outside, rng)
        happened: list[str] = []
        found: list[str] = []
        try:
            loop.run_until_complete(_unfold(plant, outside, people, happened))
        except (StandstillError, TimeoutError, FermataError) as error:
            found.append(f"not all has ended ({type(error).__name__}: {error})")
        found += broken(plant, outside, people.notes)
        told = [
            f"{effect.time:.6f} {effect.tool} {effect.call} in {effect.process}" for effect in outside.effects
        ]
        told += [f"{run} {seen}" for run, seen in people.notes.seen.items()]
        plant.close()
        return History(
            seed,
            found,
            happened,
            hashlib.sha256("\n".join([*happened, *told]).encode()).hexdigest()[:16],
            loop.turns,
            loop.time() - START,
            plant.path,
        )


async def _unfold(plant: Plant, outside: Outside, people: People, happened: list[str]) -> None:
    loop, rng = plant.loop, plant.rng
    plant.start()
    await asyncio.sleep(BEGIN_SECONDS)
    asked = people.begin(rng.randint(2, 6), BUSY_SECONDS)
    begun = loop.time()
    for fault in faults(rng, BUSY_SECONDS):
        await asyncio.sleep(max(0.0, begun + fault.at_seconds - loop.time()))
        play(plant, outside, fault, happened)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*asked)
        await people.waiting()


async def _furnish(loop: SimulatedLoop, rng: random.Random, path: Path) -> None:
    """The store with which every history begins: its agents, its policy, and those who may call."""
    plane = await ControlPlane.over(path, WallClock(loop), Disk(loop, rng).open)

    def operation(transaction: Transaction) -> None:
        roles = (principal_pb2.ROLE_ADMIN, principal_pb2.ROLE_OPERATOR, principal_pb2.ROLE_APPROVER)
        ensure(transaction, TENANT, "ann", principal_pb2.PRINCIPAL_KIND_USER, roles, PERSON_TOKEN)
        ensure(transaction, TENANT, "worker", principal_pb2.PRINCIPAL_KIND_WORKER, (), WORKER_TOKEN)
        policies.replace(transaction, TENANT, graphs.POLICY, "", "ann")
        for name, graph in graphs.GRAPHS.items():
            spec = agent_pb2.AgentSpec(graph=name)
            agents.apply(transaction, TENANT, name, spec, inspect_graph(graph, spec), "ann")

    await plane.write(operation)
    assert isinstance(plane.database, SimulatedDatabase)
    plane.database.leave()
