"""What goes into a tool call: the model's arguments, the graph's state, and where the words came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt.tool_node import ToolRuntime
from langgraph.store.base import BaseStore
from pydantic import BaseModel

from fermata.agents.runtime.canonical import Json, jsonable

_PASSAGE = re.compile(r'<passage id="[^"]*" source="([^"]*)"')


def parsed_input(tool: BaseTool, given: str | dict[str, Any], tool_call_id: str | None) -> dict[str, Any]:
    """The input as the tool's method will get it."""
    schema = tool.args_schema
    if isinstance(schema, type) and issubclass(schema, BaseModel) and not schema.model_fields:
        return {}
    parsed = tool._parse_input(given, tool_call_id)
    if isinstance(parsed, dict):
        return parsed
    return {next(iter(tool.args), "input"): parsed}


def as_written(tool: BaseTool, given: str | dict[str, Any]) -> dict[str, Any]:
    """The arguments that the model wrote."""
    if isinstance(given, str):
        return {next(iter(tool.args), "input"): given}
    return tool._filter_injected_args(given)


def injected_state(
    parsed: Mapping[str, Any], visible: Mapping[str, Json], tool_call_id: str | None
) -> dict[str, Json]:
    """What the graph puts into the call: state counts, the machinery around it does not."""
    injected: dict[str, Json] = {}
    for name, value in parsed.items():
        if name in visible or name in {"run_manager", "callbacks", "config"} or isinstance(value, BaseStore):
            continue
        if isinstance(value, str) and value == tool_call_id:
            continue
        injected[name] = jsonable(
            value.state if isinstance(value, ToolRuntime) else value, path=f"\x00{name}"
        )
    return injected


def has_aliases(tool: BaseTool) -> bool:
    """True where an argument has another name outside than inside."""
    schema = tool.args_schema
    return (
        isinstance(schema, type)
        and issubclass(schema, BaseModel)
        and any(
            field.alias is not None or field.validation_alias is not None
            for field in schema.model_fields.values()
        )
    )


def raising(tool: BaseTool, error: Exception) -> BaseTool:
    """A copy of the tool that raises this error where it would read its input."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise error

    copy = tool.model_copy()
    # Instance attributes of these names come before the class's methods; pydantic's own __setattr__ would refuse them.
    for method in ("_parse_input", "_to_args_and_kwargs"):
        object.__setattr__(copy, method, refuse)
    return copy


def rationale(messages: list[BaseMessage], tool_call_id: str | None) -> str:
    """The text of the message that asked for the call; empty where it is not there."""
    message = _asking(messages, tool_call_id)
    return "" if message is None else message.text


def asked_for(messages: list[BaseMessage], tool_call_id: str | None) -> bool:
    """True where one of the messages asks for the call."""
    return _asking(messages, tool_call_id) is not None


def _asking(messages: list[BaseMessage], tool_call_id: str | None) -> AIMessage | None:
    for message in reversed(messages):
        if isinstance(message, AIMessage) and any(call["id"] == tool_call_id for call in message.tool_calls):
            return message
    return None


def provenance(messages: list[BaseMessage]) -> list[str]:
    """Who has put words into the conversation that the call came from."""
    found: dict[str, None] = {}
    for message in messages:
        if isinstance(message, HumanMessage):
            found["person"] = None
        elif isinstance(message, ToolMessage):
            found[f"tool:{message.name or 'unknown'}"] = None
        if isinstance(message, SystemMessage | ToolMessage):
            found.update(dict.fromkeys(f"document:{source}" for source in _PASSAGE.findall(message.text)))
    return list(found)
