"""The outside: the machines that tools act on. It is never killed, and counts what has happened to it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.loop import Process, SimulatedLoop, current_process

LONGEST_SECONDS = 12.0


@dataclass(frozen=True)
class Effect:
    """Something that has happened. ``call`` is the same for every repeat of one call of a plan."""

    call: str
    tool: str
    key: str
    run: str
    process: str
    time: float


class Outside:
    """Where effects arrive."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random) -> None:
        self._loop = loop
        self.rng = rng
        self.effects: list[Effect] = []
        self.on_begin: Callable[[Process, str], None] | None = None
        """Called once, with the process that is in such a call, and the run that makes it."""
        self.on_standstill: Callable[[str], None] = lambda run: None
        """Called when a run stands still in the middle of such a call: somebody may see it."""
        self.by_call: dict[str, list[Effect]] = defaultdict(list)

    def begin(self, tool: str, run: str) -> None:
        """A call that can't be repeated has passed its gate, and its effect has not happened."""
        if tool == "fire" and self.on_begin is not None:
            tell, self.on_begin = self.on_begin, None
            tell(current_process(), run)

    def happen(self, call: str, tool: str, key: str, run: str) -> None:
        """Let an effect happen, here and now."""
        effect = Effect(call, tool, key, run, current_process().name, self._loop.time())
        self.effects.append(effect)
        self.by_call[call].append(effect)

    def has_happened(self, call: str) -> bool:
        """True where the effect of a call has arrived."""
        return bool(self.by_call.get(call))

    def pause_seconds(self) -> float:
        """How long a tool works before its effect, and again after it."""
        if self.rng.random() < 0.12:
            # Longer than a lease, now and then: somebody else may have come in the meantime.
            return self.rng.random() * LONGEST_SECONDS
        return self.rng.expovariate(1 / 0.01)
