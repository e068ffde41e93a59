"""What a run may use: how much it has used, what bounds it, and whether it would go beyond.

Bounds stand in the agent's file, in its policy and in the tenant's; of each the smallest counts, and HALT wins over ASK. What has been
used is counted on the run's row, in the transactions that write there anyway, so that a run that goes on elsewhere, or after a
restart, begins with what it had used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from fermata.server.policy.rules import Policy
from fermata.server.runs.record import RunRecord
from fermata.v1 import agent_pb2

DEFAULT_SUPER_STEPS = 100
"""As in ``fermata.agents.runtime.execution``, which stops there where this server does not hear of the steps."""

DEFAULT_REPEATED_CALLS = 20

WALL_SECONDS = "wall_seconds"
SUPER_STEPS = "super_steps"
TOOL_CALLS = "tool_calls"
TOKENS = "tokens"
REPEATED_CALLS = "repeated_calls"

_WORDS = {
    WALL_SECONDS: "has been at work for {used:g} s of {allowed:g}",
    SUPER_STEPS: "has taken {used:g} of {allowed:g} super-steps",
    TOOL_CALLS: "has made {used:g} of {allowed:g} tool calls",
    TOKENS: "has used {used:g} of {allowed:g} tokens",
    REPEATED_CALLS: "has made the same call with the same arguments {used:g} times in a row",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that a run may use; what is not named has no bound."""

    most: dict[str, float]
    halts: bool
    """True where it is halted at a bound, and nobody is asked."""


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A bound that a run would go beyond. ``more`` is what a person's yes grants."""

    limit: str
    used: float
    allowed: float
    more: float
    halts: bool

    @property
    def sentence(self) -> str:
        """What has happened, without its subject."""
        return _WORDS[self.limit].format(used=self.used, allowed=self.allowed)


def bounds_of(limits: agent_pb2.RunLimits, policies: Iterable[Policy | None]) -> Bounds:
    """The bounds of a run, the smallest of each."""
    most: dict[str, float] = {
        SUPER_STEPS: limits.super_steps or DEFAULT_SUPER_STEPS,
        REPEATED_CALLS: limits.repeated_calls or DEFAULT_REPEATED_CALLS,
    }
    halts = limits.on_exceeded == agent_pb2.ON_EXCEEDED_HALT
    if limits.HasField("wall_time"):
        most[WALL_SECONDS] = limits.wall_time.ToNanoseconds() / 1e9
    if limits.tool_calls:
        most[TOOL_CALLS] = limits.tool_calls
    if limits.tokens:
        most[TOKENS] = limits.tokens
    for policy in policies:
        if policy is not None and policy.limits is not None:
            for limit, number in policy.limits.most:
                most[limit] = min(number, most.get(limit, number))
            halts = halts or policy.limits.halts
    return Bounds(most, halts)


def exceeded_by_call(bounds: Bounds, run: RunRecord, call_digest: str) -> Exceeded | None:
    """The bound that a run would go beyond with one more call; None where it may make it."""
    repeats = run.repeats if run.repeated_call == call_digest else 0
    return (
        _beyond(bounds, run, TOOL_CALLS, run.tool_calls, 1)
        or _beyond(bounds, run, REPEATED_CALLS, repeats, 1)
        or exceeded_by_step(bounds, run)
    )


def exceeded_by_step(bounds: Bounds, run: RunRecord) -> Exceeded | None:
    """The bound that a run would go beyond with one more super-step; None where it may take it."""
    return _beyond(bounds, run, SUPER_STEPS, run.super_steps, 1) or _beyond(
        bounds, run, TOKENS, run.tokens, 1
    )


def exceeded_by_time(bounds: Bounds, run: RunRecord, now: float) -> Exceeded | None:
    """The bound that a run at work has reached by its time; None where it has none, or some left."""
    return _beyond(bounds, run, WALL_SECONDS, run.worked_by(now), 0)


def wall_seconds(bounds: Bounds, run: RunRecord) -> float:
    """How long the run may be at work, with what people have granted; 0 for as long as it likes."""
    most = bounds.most.get(WALL_SECONDS, 0.0)
    return most and most + granted(run).get(WALL_SECONDS, 0.0)


def count_call(run: RunRecord, call_digest: str) -> None:
    """Count a call that starts now for the first time."""
    run.tool_calls += 1
    if run.repeated_call == call_digest:
        run.repeats += 1
        return
    run.repeated_call, run.repeats = call_digest, 1
    if REPEATED_CALLS in (given := granted(run)):
        # What was granted was for that call.
        del given[REPEATED_CALLS]
        run.granted = json.dumps(given)


def granted(run: RunRecord) -> dict[str, float]:
    """What people have granted on top of the bounds, by limit."""
    given: dict[str, float] = json.loads(run.granted)
    return given


def grant(run: RunRecord, limit: str, more: float) -> None:
    """Let a run use more."""
    given = granted(run)
    given[limit] = given.get(limit, 0.0) + more
    run.granted = json.dumps(given)


def _beyond(bounds: Bounds, run: RunRecord, limit: str, used: float, next_one: float) -> Exceeded | None:
    most = bounds.most.get(limit)
    if most is None or used + next_one <= most or (not next_one and used < most):
        return None
    allowed = most + granted(run).get(limit, 0.0)
    if used + next_one <= allowed and (next_one or used < allowed):
        return None
    # As much again, and at least as much as it has gone beyond by now: the yes is to lead somewhere.
    return Exceeded(limit, used, allowed, max(most, used - allowed + most), bounds.halts)
