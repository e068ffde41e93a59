"""What counts as verified, decided from messages alone."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool

from fermata.agents.graphs.verification import checks, deeds_since_last_request, read_back


def _tool(name: str, effect: str, arguments: dict[str, type]) -> BaseTool:
    def call(**_: Any) -> str:
        return ""

    schema = {
        "type": "object",
        "properties": {
            key: {"type": "string" if kind is str else "number"} for key, kind in arguments.items()
        },
        "required": list(arguments),
    }
    return StructuredTool(
        name=name, description=name, func=call, args_schema=schema, metadata={"fermata.effect": effect}
    )


OPEN_VALVE = _tool("open_valve", "IDEMPOTENT", {"valve": str, "percent": float})
READ_VALVE = _tool("read_valve", "READ", {"valve": str})
LIST_VALVES = _tool("list_valves", "READ", {})
READ_HISTORY = _tool("read_history", "READ", {"valve": str, "minutes": float})
TOOLS = [OPEN_VALVE, LIST_VALVES, READ_HISTORY, READ_VALVE]


def _call(number: int, name: str, args: dict[str, Any]) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": str(number)}])


def _result(number: int, value: Any, *, error: bool = False) -> ToolMessage:
    return ToolMessage(json.dumps(value), tool_call_id=str(number), status="error" if error else "success")


def _opened(result: dict[str, Any] | None = None, *, error: bool = False) -> list[AnyMessage]:
    return [
        HumanMessage("open v-1 by 40 %"),
        _call(1, "open_valve", {"valve": "v-1", "percent": 40}),
        _result(1, result or {"valve": "v-1", "position_percent": 40}, error=error),
    ]


def test_a_changing_call_is_read_back_by_the_reader_that_its_arguments_suffice_for() -> None:
    assert read_back(_opened(), TOOLS) == (READ_VALVE, {"valve": "v-1"})


def test_what_the_model_has_read_back_itself_is_not_read_twice() -> None:
    messages = [*_opened(), _call(2, "read_valve", {"valve": "v-1"}), _result(2, {"position_percent": 40})]
    assert read_back(messages, TOOLS) is None


def test_a_reading_of_something_else_does_not_count() -> None:
    messages = [*_opened(), _call(2, "read_valve", {"valve": "v-2"}), _result(2, {"position_percent": 40})]
    assert read_back(messages, TOOLS) is not None
    assert checks(messages, TOOLS) == []


def test_nothing_is_read_back_where_nothing_was_changed() -> None:
    assert read_back([HumanMessage("how is v-1?")], TOOLS) is None
    assert read_back(_opened(error=True), TOOLS) is None
    assert read_back(_opened(), [OPEN_VALVE, LIST_VALVES]) is None


def test_deeds_of_earlier_requests_are_over() -> None:
    assert deeds_since_last_request([*_opened(), HumanMessage("thanks")], TOOLS) == []


def test_a_value_that_reads_as_it_was_set_is_confirmed() -> None:
    messages = [
        *_opened({"valve": "v-1", "position_percent": 40, "accepted": True}),
        _call(2, "read_valve", {"valve": "v-1"}),
        _result(2, {"valve": "v-1", "position_percent": 40.2, "flow_l_s": 3}),
    ]
    (check,) = checks(messages, TOOLS)
    assert check.confirmed == {"position_percent": 40.2}
    assert check.differing == {}


def test_a_value_that_reads_otherwise_is_told() -> None:
    messages = [*_opened(), _call(2, "read_valve", {"valve": "v-1"}), _result(2, {"position_percent": 10})]
    (check,) = checks(messages, TOOLS)
    assert check.confirmed == {}
    assert check.differing == {"position_percent": (40, 10)}
