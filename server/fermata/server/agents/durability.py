"""Which agents may write their state late.

An effect that can't be repeated must not begin before the checkpoint that holds its task is committed, or nothing would know after a
crash to which task it belongs. LangGraph's ``async`` and ``exit`` write late, so they are for agents that only read.
"""

from __future__ import annotations

from fermata.server.errors import invalid
from fermata.v1 import agent_pb2, run_pb2

REASON = "DURABILITY_NOT_ALLOWED"

_LATE = (agent_pb2.DURABILITY_ASYNC, agent_pb2.DURABILITY_EXIT)


def require_allowed(spec: agent_pb2.AgentSpec, report: agent_pb2.GraphReport) -> None:
    """Refuse an agent that would write its state late and has a tool that does more than read.

    :raises DomainError: DURABILITY_NOT_ALLOWED.
    """
    effects = {tool: declared.effect for tool, declared in spec.tool_declarations.items() if declared.effect}
    effects = {**{tool.name: tool.effect for tool in report.tools}, **effects}
    others = sorted(tool for tool, effect in effects.items() if not allows(spec, effect))
    if others:
        raise invalid(
            f"With durability {_word(spec)} every tool must be READ, and {', '.join(others)} {'is' if len(others) == 1 else 'are'} "
            "not. Leave durability out, or declare under effects what only reads.",
            reason=REASON,
            field="durability",
            tools=", ".join(others),
        )


def allows(spec: agent_pb2.AgentSpec, effect: run_pb2.EffectClass.ValueType) -> bool:
    """True where a tool of this effect class may run in such an agent."""
    return spec.durability not in _LATE or effect == run_pb2.EFFECT_CLASS_READ


def why_not(spec: agent_pb2.AgentSpec, tool: str) -> str:
    """What the agent is told at the gate."""
    return f"{tool} is not READ, and the agent has durability {_word(spec)}: such an agent may only read. Nothing has happened."


def _word(spec: agent_pb2.AgentSpec) -> str:
    return agent_pb2.Durability.Name(spec.durability).removeprefix("DURABILITY_").lower()
