"""What counts as a request: purposes, arrangements, paraphrased verbs, things said twice, endings that nobody asked for."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from fermata.agents.planner import PlannerChatModel


def _tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    required = [key for key, schema in properties.items() if not schema.pop("optional", False)]
    schema = {"type": "object", "properties": properties, "required": required}
    return {"title": name, "name": name, "description": description, "parameters": schema}


def _oven() -> dict[str, Any]:
    return {"type": "string", "description": "Oven, e.g. K-2.", "pattern": r"^K-\d$"}


TOOLS = [
    _tool(
        "stop_oven",
        "Stops an oven.",
        oven=_oven(),
        reason={"type": "string", "description": "Why.", "optional": True},
    ),
    _tool("resume_oven", "Lets an oven go on with its programme.", oven=_oven()),
    _tool(
        "set_oven",
        "Sets the temperature of an oven.",
        oven=_oven(),
        celsius={"type": "number", "description": "In °C."},
    ),
]


@pytest.fixture(scope="module")
def model() -> PlannerChatModel:
    return PlannerChatModel()


def _reply(model: PlannerChatModel, text: str) -> AIMessage:
    reply: AIMessage = model.bind_tools(TOOLS).invoke([HumanMessage(text)])
    return reply


def test_a_purpose_is_the_reason_and_not_a_second_request(model: PlannerChatModel) -> None:
    reply = _reply(model, "stop K-2, I want to clean it")
    assert [c["name"] for c in reply.tool_calls] == ["stop_oven"]
    assert "clean" in reply.tool_calls[0]["args"]["reason"]


@pytest.mark.parametrize(
    ("text", "name", "args"),
    [
        ("K-2 should run at 200 degrees", "set_oven", {"oven": "K-2", "celsius": 200}),
        ("K-3 can carry on with its programme", "resume_oven", {"oven": "K-3"}),
        ("set K-1, no, K-2 to 180 °C", "set_oven", {"oven": "K-2", "celsius": 180}),
    ],
)
def test_how_something_is_to_be_is_a_request(
    model: PlannerChatModel, text: str, name: str, args: dict[str, Any]
) -> None:
    calls = _reply(model, text).tool_calls
    assert [(c["name"], c["args"]) for c in calls] == [(name, args)]


@pytest.mark.parametrize(
    "text", ["give K-1 some flour", "we should never stop K-1", "somebody stopped K-1 yesterday"]
)
def test_nothing_is_ended_that_nobody_asked_to_end(model: PlannerChatModel, text: str) -> None:
    assert _reply(model, text).tool_calls == []
