"""What goes wrong, when, and for how long: a list that a seed makes, and that can be read before it is played."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.simulation.loop import Process
from tests.simulation.outside import Outside
from tests.simulation.plant import Plant

KINDS = {
    "kill a host": 4,
    "kill a worker": 3,
    "kill the server": 3,
    "freeze a host": 3,
    "freeze a worker": 5,
    "freeze the server": 1,
    "freeze a machine": 3,
    "freeze a machine in a call": 3,
    "cut off a worker": 4,
    "break connections": 3,
    "lose an answer to a worker": 4,
    "lose an answer to a person": 2,
    "slow network": 1,
    "full disk": 1,
    "wall clock jumps": 1,
}
"""Kind to weight."""

LONGEST_SECONDS = 25.0
"""Two and a half leases: what was frozen for so long comes back to a world that has gone on."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    at_seconds: float
    kind: str
    for_seconds: float
    pick: float
    """Which one of several, from 0 to 1."""


def faults(rng: random.Random, within_seconds: float) -> list[Fault]:
    """A seed's faults, in order."""
    kinds, weights = list(KINDS), list(KINDS.values())
    return sorted(
        (
            Fault(
                rng.random() * within_seconds,
                rng.choices(kinds, weights)[0],
                # Over at once, or long enough for a lease to end.
                rng.expovariate(1.0) if rng.random() < 0.4 else rng.uniform(6.0, LONGEST_SECONDS),
                rng.random(),
            )
            for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4, 6)))
        ),
        key=lambda fault: fault.at_seconds,
    )


def play(plant: Plant, outside: Outside, fault: Fault, happened: list[str]) -> None:
    """Let it go wrong. ``happened`` gets a line where there was something for it to happen to."""
    loop, network = plant.loop, plant.network
    hosts = [host.process for host in plant.hosts.living]
    workers = [actor.process for actor in plant.workers.values()]
    target = _target(fault, hosts, workers, plant)
    if (
        target is None
        and "the" not in fault.kind.split()
        and fault.kind.split()[0] in ("kill", "freeze", "cut")
    ):
        return

    def later(callback: object, *args: object) -> None:
        loop.call_later(fault.for_seconds, callback, *args, context=loop.world.context.copy())  # type: ignore[arg-type]

    match fault.kind:
        case "kill a host" | "kill a worker":
            assert target is not None
            loop.kill(target)
        case "kill the server":
            plant.kill_server()
        case "freeze a host" | "freeze a worker" | "freeze the server":
            if target is None:
                return
            loop.freeze(target)
            later(loop.wake, target)
        case "freeze a machine":
            assert target is not None
            _freeze_machine(plant, target.name, fault.for_seconds)
        case "freeze a machine in a call":

            def stands_still(host: Process, run: str) -> None:
                _freeze_machine(plant, host.name.partition(" of ")[2], fault.for_seconds)
                outside.on_standstill(run)

            outside.on_begin = stands_still
        case "cut off a worker":
            assert target is not None
            network.partition(target)
            later(network.heal, target)
        case "break connections":
            if target is None:
                return
            network.break_calls(target)
        case "lose an answer to a worker" | "lose an answer to a person":
            if target is None:
                return
            network.snap(target)
        case "slow network":
            network.slowness = 50.0
            later(setattr, network, "slowness", 1.0)
        case "full disk":
            plant.disk.full = True
            later(setattr, plant.disk, "full", False)
        case "wall clock jumps":
            plant.clock.offset_seconds = (fault.pick - 0.5) * 4 * 3600
    name = target.name if target is not None else ""
    happened.append(f"{loop.time():.3f} {fault.kind} {name} ({fault.for_seconds:.2f} s)")


def _freeze_machine(plant: Plant, worker: str, seconds: float) -> None:
    """Let a worker and all of its hosts stand still."""
    loop = plant.loop
    hosts = [host.process for host in plant.hosts.living if host.process.name.endswith(f" of {worker}")]
    for process in (*hosts, *(actor.process for actor in plant.workers.values() if actor.id == worker)):
        loop.freeze(process)
        loop.call_later(seconds, loop.wake, process, context=loop.world.context.copy())


def _target(fault: Fault, hosts: list[Process], workers: list[Process], plant: Plant) -> Process | None:
    if fault.kind.endswith("the server"):
        return plant.server
    if fault.kind.endswith("a person"):
        return plant.people
    of = hosts if fault.kind.endswith("a host") else workers
    if fault.kind == "break connections" and plant.server is not None:
        of = [*workers, plant.server]
    return of[int(fault.pick * len(of))] if of else None
