"""What a planner decides: steps to take, or something to say; and how a plan is replayed over what has happened.

A plan is a generator: it yields the steps that it wants next and is sent their results. It keeps no state of its own:
at every call it runs again from the start of the turn, and recorded results are fed to it until it asks for something
that has not happened yet. So a restart, an edited argument or a rejected call needs no special case.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fermata.agents.planner.conversation import Result, Turn

Kind = Literal["call", "ask", "refuse", "ack", "answer", "done"]
_MAX_STEPS: Final = 60


@dataclass(frozen=True, slots=True)
class Step:
    """A tool call that a plan wants, and why (said to the person who approves it)."""

    name: str
    args: Mapping[str, Any]
    why: str = ""
    acts: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """What a question to the person is about: the request so far, the tools that may do it, what is missing."""

    text: str
    tools: tuple[str, ...]
    missing: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    runbook: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`steps` with their call ids, or a `text` that ends the turn."""

    kind: Kind
    text: str
    steps: tuple[tuple[str, Step], ...] = ()
    pending: Pending | None = None


Plan = Generator[list[Step], list[Result], Decision]


@dataclass(slots=True)
class _Replay:
    turn: Turn
    number: int
    count: int = 0
    taken: set[int] = field(default_factory=set)

    def result(self, step: Step) -> tuple[str, Result | None]:
        """(call id of `step`, its recorded result or None)."""
        call_id = f"call_{self.number}_{self.count}_{step.name}"[:64]
        self.count += 1
        tail = call_id.split("_", 2)[2]
        by_id = [
            i
            for i, c in enumerate(self.turn.calls)
            if c.id.startswith("call_") and c.id.split("_", 2)[-1] == tail
        ]
        by_name = [
            i for i, c in enumerate(self.turn.calls) if c.name == step.name and not c.id.startswith("call_")
        ]
        for i in (*by_id, *by_name):
            if i not in self.taken:
                self.taken.add(i)
                call = self.turn.calls[i]
                return call_id, self.turn.result_of(call) or Result(
                    call, "no result", "no result", failed=True
                )
        return call_id, None


def replay(plan: Plan, turn: Turn, number: int) -> Decision:
    """Run `plan` over the recorded calls of `turn` (the `number`-th of the conversation) up to its next decision."""
    past = _Replay(turn, number)
    try:
        wanted = next(plan)
        while past.count < _MAX_STEPS:
            results: list[Result] = []
            fresh: list[tuple[str, Step]] = []
            for step in wanted:
                call_id, result = past.result(step)
                if result is None:
                    fresh.append((call_id, step))
                else:
                    results.append(result)
            if fresh:
                said = dict.fromkeys(s.why for _, s in fresh if s.why)
                return Decision("call", "\n".join(said), tuple(fresh))
            wanted = plan.send(results)
    except StopIteration as stop:
        decision: Decision = stop.value
        return decision
    return Decision(
        "refuse", f"I stop here: this needed more than {_MAX_STEPS} steps, which looks like a loop."
    )
