"""Limits of runs in a policy: read, bounded by the smallest, and part of its digest."""

from __future__ import annotations

import pytest

from fermata.server.ledger.limits import bounds_of
from fermata.server.policy.fields import PolicyError
from fermata.server.policy.parse import parse_policy
from fermata.v1 import agent_pb2

BARE = "version: 1\nrules: []\n"


def test_limits_stand_beside_the_rules() -> None:
    policy = parse_policy(BARE + "limits: {tool_calls: 5, wall_time: 10m, on_exceeded: HALT}\n")
    assert policy.limits is not None
    assert policy.limits.most == (("tool_calls", 5), ("wall_seconds", 600))
    assert policy.limits.halts


def test_limits_are_part_of_a_policys_meaning_and_their_absence_changes_nothing() -> None:
    digests = {
        parse_policy(BARE + more).digest
        for more in ("", "limits: {tool_calls: 5}\n", "limits: {tool_calls: 6}\n")
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("limits", "where"),
    [
        ("{tool_calls: 0}", "limits.tool_calls"),
        ("{tool_calls: many}", "limits.tool_calls"),
        ("{wall_time: 3}", "limits.wall_time"),
        ("{on_exceeded: FAIL}", "limits.on_exceeded"),
        ("{calls: 3}", "limits"),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(limits: str, where: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_policy(f"{BARE}limits: {limits}\n")
    assert where in str(refused.value)


def test_of_each_limit_the_smallest_counts_and_halt_wins() -> None:
    spec = agent_pb2.RunLimits(tool_calls=10, tokens=100)
    strict = parse_policy(BARE + "limits: {tool_calls: 5, tokens: 500, on_exceeded: HALT}\n")
    bounds = bounds_of(spec, (strict, None, parse_policy(BARE + "limits: {super_steps: 7}\n")))
    assert bounds.most == {"super_steps": 7, "repeated_calls": 20, "tool_calls": 5, "tokens": 100}
    assert bounds.halts
    assert not bounds_of(spec, ()).halts
