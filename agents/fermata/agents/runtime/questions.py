"""Interrupts of a graph's own as questions to people; those of LangChain's human-in-the-loop middleware as questions about calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format, struct_pb2
from langgraph.types import Interrupt

from fermata.agents.runtime.canonical import jsonable
from fermata.agents.runtime.gated import call_digest
from fermata.v1 import approval_pb2, worker_pb2

BREAKPOINT_ID = "breakpoint"
"""Id of the question that stands for a breakpoint with which the graph was compiled: LangGraph gives those none."""

_DECISIONS = {
    "approve": approval_pb2.DECISION_APPROVE,
    "edit": approval_pb2.DECISION_EDIT,
    "reject": approval_pb2.DECISION_REJECT,
    "respond": approval_pb2.DECISION_ANSWER,
}


def question_of(interrupt: Interrupt) -> worker_pb2.GraphInterrupt:
    """An interrupt as it is put to people."""
    question = worker_pb2.GraphInterrupt(interrupt_id=interrupt.id, value=_value(jsonable(interrupt.value)))
    if not isinstance(interrupt.value, Mapping):
        return question
    requests = interrupt.value.get("action_requests")
    if isinstance(requests, Sequence):
        allowed = {
            config["action_name"]: config["allowed_decisions"]
            for config in interrupt.value.get("review_configs", [])
        }
        for request in requests:
            question.actions.append(_action(request, allowed.get(request["name"], _DECISIONS)))
    elif asks_for_one_call(interrupt):
        question.actions.append(_action(interrupt.value, _DECISIONS))
    return question


def asks_for_one_call(interrupt: Interrupt) -> bool:
    """True for a middleware that asks for each call: its answer is one decision, not a list of them."""
    return isinstance(interrupt.value, Mapping) and interrupt.value.get("type") == "tool_approval"


def breakpoint_question() -> worker_pb2.GraphInterrupt:
    """The question for a breakpoint."""
    text = "The graph stops here, and goes on when it is told to."
    return worker_pb2.GraphInterrupt(interrupt_id=BREAKPOINT_ID, value=_value({"breakpoint": text}))


def _action(request: Mapping[str, Any], allowed: Any) -> worker_pb2.MiddlewareAction:
    args = dict(request.get("args") or {})
    action = worker_pb2.MiddlewareAction(
        tool=request["name"],
        call_digest=call_digest(request["name"], args),
        description=str(request.get("description") or ""),
        allowed_decisions=[_DECISIONS[name] for name in allowed if name in _DECISIONS],
    )
    action.args.update(jsonable(args))  # type: ignore[arg-type]
    return action


def _value(value: Any) -> struct_pb2.Value:
    return json_format.ParseDict(value, struct_pb2.Value())
