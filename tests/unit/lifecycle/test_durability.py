"""Who may write a state late: agents of which every tool is READ, and of them only what reads."""

from __future__ import annotations

from typing import Any

import pytest

from fermata.server.agents import durability
from fermata.server.agents import operations as agents
from fermata.server.errors import DomainError
from fermata.v1 import agent_pb2, run_pb2, worker_pb2

READ, UNSAFE = run_pb2.EFFECT_CLASS_READ, run_pb2.EFFECT_CLASS_UNSAFE
LATE = [agent_pb2.DURABILITY_ASYNC, agent_pb2.DURABILITY_EXIT]


def _report(**tools: run_pb2.EffectClass.ValueType) -> agent_pb2.GraphReport:
    return agent_pb2.GraphReport(
        tools=[agent_pb2.ToolInfo(name=name, effect=effect) for name, effect in tools.items()]
    )


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("effect", [UNSAFE, run_pb2.EFFECT_CLASS_IDEMPOTENT, 0])
def test_a_late_state_is_refused_where_a_tool_does_more_than_read(late: Any, effect: Any) -> None:
    spec = agent_pb2.AgentSpec(durability=late)
    with pytest.raises(DomainError, match="turn") as refused:
        durability.require_allowed(spec, _report(look=READ, turn=effect))
    assert refused.value.reason == "DURABILITY_NOT_ALLOWED"
    assert refused.value.metadata["tools"] == "turn"


@pytest.mark.parametrize("late", LATE)
def test_what_the_agents_file_declares_counts_also_of_a_tool_that_was_not_found(late: Any) -> None:
    spec = agent_pb2.AgentSpec(durability=late)
    spec.tool_declarations["turn"].effect = READ
    durability.require_allowed(spec, _report(turn=UNSAFE))
    spec.tool_declarations["hidden"].effect = UNSAFE
    with pytest.raises(DomainError, match="hidden"):
        durability.require_allowed(spec, _report())


@pytest.mark.parametrize("durable", [agent_pb2.DURABILITY_UNSPECIFIED, agent_pb2.DURABILITY_SYNC])
def test_sync_is_for_every_agent_and_the_default(durable: Any) -> None:
    durability.require_allowed(agent_pb2.AgentSpec(durability=durable), _report(turn=UNSAFE))


@pytest.mark.parametrize("late", LATE)
def test_a_tool_that_nobody_knew_of_is_refused_at_its_gate(world: Any, late: Any) -> None:
    spec = agent_pb2.AgentSpec(graph="graphs:operator", durability=late)
    world.tx(lambda tx: agents.apply(tx, "default", "operator", spec, _report(look=READ), "somebody"))
    world.policy("version: 1\nrules:\n  - {id: all, decide: ALLOW}\n")
    run = world.started()
    assert world.gate(run, "look", effect="READ", step="s1").verdict == worker_pb2.GATE_VERDICT_PROCEED
    answer = world.gate(run, "turn", effect="UNSAFE", step="s2")
    assert (answer.verdict, answer.reason) == (worker_pb2.GATE_VERDICT_REFUSE, "DURABILITY_NOT_ALLOWED")
    assert "turn" in answer.message
