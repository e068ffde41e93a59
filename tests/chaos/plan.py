"""What a round does and what goes wrong in it: a seed makes it, and it can be read before it is played."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.integration.plane.harness import Call

RUNS = 24
AGENTS = {"together": 4, "alone": 3, "nested": 3}
"""Agent to weight."""

EFFECTS = {"look": "READ", "put": "IDEMPOTENT", "fire": "UNSAFE", "ask": "UNSAFE"}

KILLS = {"host": 4, "zygote": 2, "worker": 3, "server": 2, "controller": 1, "chroma": 1}
FREEZES = {"host": 3, "zygote": 1, "worker": 3, "server": 2, "ray": 1, "chroma": 1}
"""Kind of process to weight."""

LONGEST_FREEZE_SECONDS = 2.5
"""A quarter of a lease."""
BEYOND_LEASE_SECONDS = 12.5
"""What is frozen for so long comes back to a world that has gone on."""

EVERY = 10
RAY_DIES, LEASE_EXPIRES = 3, 6
"""Which of each ten seeds have what takes longest."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    after: int
    """How many lines have arrived at the recorder in this round by then."""
    delay_seconds: float
    """How long after that."""
    verb: str
    """``kill`` or ``freeze``."""
    target: str
    pick: float
    """Which one of several, from 0 to 1."""
    for_seconds: float = 0.0

    def __str__(self) -> str:
        length = f" for {self.for_seconds:.1f} s" if self.for_seconds else ""
        return f"after {self.after} lines and {self.delay_seconds * 1000:.0f} ms {self.verb} a {self.target}{length}"


@dataclass(frozen=True)
class Job:
    """A run that is wanted. Calls are named by round, run, turn and place, so that each is the only one of its name."""

    agent: str
    turns: tuple[tuple[tuple[str, str], ...], ...]
    """Turn by turn, (tool, call)."""

    @property
    def calls(self) -> list[tuple[str, str]]:
        """(tool, call) of the whole job."""
        return [call for turn in self.turns for call in turn]

    def script(self, port: int) -> list[list[Call]]:
        """What the scripted model is told."""
        return [
            [
                (tool, {"port": port, "call": call, **({"amount": 7} if tool == "ask" else {})})
                for tool, call in turn
            ]
            for turn in self.turns
        ]


def again(job: Job) -> Job:
    """The further message that each thread gets at the end of a round."""
    _, first = job.calls[0]
    return Job(job.agent, ((("put", f"{first}.again"),),))


@dataclass(frozen=True)
class Plan:
    """One round."""

    seed: int
    jobs: tuple[Job, ...]
    faults: tuple[Fault, ...]


def plan(seed: int) -> Plan:
    """The round of a seed."""
    rng = random.Random(seed)
    jobs = tuple(_job(rng, seed, number) for number in range(RUNS))
    # As many lines arrive whatever people decide.
    lines = 2 * sum(tool != "ask" for job in jobs for tool, _ in job.calls)
    return Plan(seed, jobs, tuple(sorted(_faults(rng, seed, lines), key=lambda fault: fault.after)))


def _job(rng: random.Random, seed: int, number: int) -> Job:
    # Every sixth run only reads.
    tools = {"look": 1} if number % 6 == 5 else {"look": 2, "put": 3, "fire": 4, "ask": 3}
    turns = tuple(
        tuple(
            (tool, f"{seed}.{number}.{turn}.{place}")
            for place, tool in enumerate(
                rng.choices(list(tools), list(tools.values()), k=rng.choice((1, 1, 2, 3)))
            )
        )
        for turn in range(rng.randint(1, 3))
    )
    return Job(rng.choices(list(AGENTS), list(AGENTS.values()))[0], turns)


def _faults(rng: random.Random, seed: int, lines: int) -> list[Fault]:
    def fault(verb: str, target: str, seconds: float = 0.0) -> Fault:
        return Fault(
            rng.randint(1, int(0.7 * lines)), rng.random() * 0.1, verb, target, rng.random(), seconds
        )

    faults = []
    for _ in range(rng.choice((1, 2, 2, 3, 3))):
        verb, weights = rng.choice((("kill", KILLS), ("kill", KILLS), ("freeze", FREEZES)))
        seconds = rng.uniform(0.2, LONGEST_FREEZE_SECONDS) if verb == "freeze" else 0.0
        faults.append(fault(verb, rng.choices(list(weights), list(weights.values()))[0], seconds))
    if seed % EVERY == RAY_DIES:
        faults.append(fault("kill", "ray"))
    elif seed % EVERY == LEASE_EXPIRES:
        whom = ("worker with its hosts", "worker")[seed // EVERY % 2]
        faults.append(fault("freeze", whom, BEYOND_LEASE_SECONDS))
    return faults
