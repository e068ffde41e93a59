"""What a round halts, when, and what is frozen at that instant: a seed makes it, and it can be read before it is played."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.integration.plane.harness import Call

AT_ONCE = 20
"""Rounds that are played at once; the last of them halts everything."""

LONG_SECONDS = 60.0
"""A call that nobody stops lasts so long."""

KINDS = {
    "async": "moving-together",
    "insisting": "moving-together",
    "parallel": "moving-together",
    "parked": "moving-together",
    "nested": "moving-nested",
    "sync": "moving-alone",
    "parallel sync": "moving-alone",
    "C loop": "moving-alone",
    "children": "moving-alone",
}
"""Kind of work to agent."""

_LAST = {"insisting": "insist", "parked": "ask", "C loop": "grind", "children": "breed"}

SCOPES = ("run", "run with descendants", "thread")
WIDE = ("agent", "everything", "all tenants")


@dataclass(frozen=True)
class Job:
    """A run that will be halted. Its calls are named by round, job, turn and place."""

    kind: str
    turns: tuple[tuple[tuple[str, str, float], ...], ...]
    """Turn by turn: tool, call, seconds."""

    @property
    def agent(self) -> str:
        """The agent that does it."""
        return KINDS[self.kind]

    @property
    def calls(self) -> set[str]:
        """The names of its calls."""
        return {call for turn in self.turns for _, call, _ in turn}

    def script(self, port: int) -> list[list[Call]]:
        """What the scripted model is told."""
        return [
            [(tool, {"port": port, "call": call, "seconds": seconds}) for tool, call, seconds in turn]
            for turn in self.turns
        ]


@dataclass(frozen=True)
class Plan:
    """One round: its first job is what the scope names; with descendants the others are made for it, on its thread they wait."""

    seed: int
    scope: str
    jobs: tuple[Job, ...]
    delay_seconds: float
    """From the start of its runs to the halt."""
    freeze: str
    """What is stopped at the instant of the halt: nothing, a host or a worker."""
    wake_seconds: float
    """When that is woken, after the halt."""

    def __str__(self) -> str:
        frozen = f", {self.freeze} frozen for {self.wake_seconds:.1f} s" if self.freeze != "nothing" else ""
        kinds = ", ".join(job.kind for job in self.jobs)
        return f"seed {self.seed}: {self.scope} ({kinds}) after {self.delay_seconds * 1000:.0f} ms{frozen}"


def plan(seed: int) -> Plan:
    """The round of a seed."""
    rng = random.Random(seed)
    wide = seed % AT_ONCE == AT_ONCE - 1
    scope = rng.choice(WIDE if wide else SCOPES)
    count = 5 if wide else 1 if scope == "run" else 2
    first = _job(rng, f"{seed}.0", list(KINDS))
    # What waits on a thread, or belongs to an agent, is that agent's.
    alike = [kind for kind, agent in KINDS.items() if agent == first.agent]
    kinds = alike if scope in ("thread", "agent") else list(KINDS)
    jobs = (first, *(_job(rng, f"{seed}.{number}", kinds) for number in range(1, count)))
    # Frozen workers take the others' runs along: one in a batch.
    freeze = "worker" if seed % AT_ONCE == 7 else "host" if rng.random() < 0.2 else "nothing"
    return Plan(seed, scope, jobs, rng.uniform(0.0, 0.8), freeze, rng.uniform(0.3, 5.0))


def _job(rng: random.Random, name: str, kinds: Sequence[str]) -> Job:
    kind = rng.choice(kinds)
    width = 3 if kind.startswith("parallel") else 1
    short = [
        tuple(("move", f"{name}.{turn}.{place}", rng.expovariate(1 / 0.03)) for place in range(width))
        for turn in range(rng.randint(0, 8))
    ]
    tool = _LAST.get(kind, "move")
    last = tuple((tool, f"{name}.{len(short)}.{place}", LONG_SECONDS) for place in range(width))
    return Job(kind, (*short, last))
