"""Did an action have its effect? Decided from what the tools returned, by the names of their fields.

A changing call and a reading call speak about the same thing where they share an argument (``line``), and about the same value where
their results share a field (``speed_setpoint_rpm``). That is all this module knows about any tool.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

TOLERANCE = 0.02
"""Relative difference up to which a value that was read back counts as the one that was set."""

EFFECT = "fermata.effect"
READ = "READ"


@dataclass(frozen=True, slots=True)
class Deed:
    """A changing call that went through: its tool, the arguments that it was proposed with, and what it returned."""

    call_id: str
    tool: str
    args: dict[str, Any]
    result: Any


@dataclass(frozen=True, slots=True)
class Check:
    """What reading back has shown about a deed: fields that came out as set, and those that did not."""

    deed: Deed
    confirmed: dict[str, Any]
    differing: dict[str, tuple[Any, Any]]


def is_read(tool: BaseTool) -> bool:
    """True where a tool declares that it changes nothing."""
    return (tool.metadata or {}).get(EFFECT) == READ


def deeds_since_last_request(messages: Sequence[AnyMessage], tools: Sequence[BaseTool]) -> list[Deed]:
    """Changing calls that went through since the person last spoke, in order."""
    readers = {tool.name for tool in tools if is_read(tool)}
    start = max((i for i, message in enumerate(messages) if message.type == "human"), default=-1)
    calls: dict[str, Any] = {}
    deeds = []
    for message in messages[start + 1 :]:
        if isinstance(message, AIMessage):
            calls |= {str(call["id"]): call for call in message.tool_calls}
        elif isinstance(message, ToolMessage) and message.status != "error":
            call = calls.get(message.tool_call_id)
            if call is not None and call["name"] not in readers:
                deeds.append(Deed(message.tool_call_id, call["name"], call["args"], parsed(message.content)))
    return deeds


def read_back(
    messages: Sequence[AnyMessage], tools: Sequence[BaseTool]
) -> tuple[BaseTool, dict[str, Any]] | None:
    """A reading call that would show whether the last deed had its effect; None where it was read already, or nothing can show it."""
    deeds = deeds_since_last_request(messages, tools)
    for deed in reversed(deeds):
        reader = _reader_for(deed, tools)
        if reader is None:
            continue
        args = {name: deed.args[name] for name in reader.args if name in deed.args}
        return None if _was_read(messages, deed, reader.name, args) else (reader, args)
    return None


def checks(messages: Sequence[AnyMessage], tools: Sequence[BaseTool]) -> list[Check]:
    """What later readings say about each deed, by the fields that both results have."""
    found = []
    for deed in deeds_since_last_request(messages, tools):
        reading = _later_reading(messages, deed, tools)
        if reading is None or not isinstance(deed.result, dict):
            continue
        confirmed: dict[str, Any] = {}
        differing: dict[str, tuple[Any, Any]] = {}
        for field, value in deed.result.items():
            if field in deed.args or field not in reading or isinstance(value, dict | list):
                continue
            if _same(value, reading[field]):
                confirmed[field] = reading[field]
            else:
                differing[field] = (value, reading[field])
        found.append(Check(deed, confirmed, differing))
    return found


def parsed(content: Any) -> Any:
    """A tool's result as data where it is JSON, else as it is."""
    if not isinstance(content, str):
        return content
    try:
        return json.loads(content)
    except ValueError:
        return content


def _reader_for(deed: Deed, tools: Sequence[BaseTool]) -> BaseTool | None:
    """The reading tool all of whose required arguments the deed's own arguments give, the one with fewest others."""
    fitting = []
    for tool in tools:
        schema = _schema(tool)
        required = set(schema.get("required", ()))
        if is_read(tool) and required and required <= deed.args.keys():
            fitting.append((len(schema.get("properties", ())) - len(required), tool.name, tool))
    return min(fitting, key=lambda entry: entry[:2])[2] if fitting else None


def _schema(tool: BaseTool) -> dict[str, Any]:
    """The JSON schema of the arguments that a model gives."""
    schema: dict[str, Any] = convert_to_openai_tool(tool)["function"]["parameters"]
    return schema


def _was_read(messages: Sequence[AnyMessage], deed: Deed, reader: str, args: dict[str, Any]) -> bool:
    return any(
        call["name"] == reader and args.items() <= call["args"].items()
        for message in _after(messages, deed)
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    )


def _later_reading(
    messages: Sequence[AnyMessage], deed: Deed, tools: Sequence[BaseTool]
) -> dict[str, Any] | None:
    readers = {tool.name for tool in tools if is_read(tool)}
    shared = {name: value for name, value in deed.args.items() if isinstance(value, str)}
    calls: dict[str, Any] = {}
    for message in _after(messages, deed):
        if isinstance(message, AIMessage):
            calls |= {str(call["id"]): call for call in message.tool_calls if call["name"] in readers}
        elif isinstance(message, ToolMessage) and message.tool_call_id in calls:
            args = calls[message.tool_call_id]["args"]
            about_the_same = any(args.get(name) == value for name, value in shared.items())
            result = parsed(message.content)
            if about_the_same and isinstance(result, dict) and message.status != "error":
                return result
    return None


def _after(messages: Sequence[AnyMessage], deed: Deed) -> Sequence[AnyMessage]:
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage) and message.tool_call_id == deed.call_id:
            return messages[index + 1 :]
    return ()


def _same(one: Any, other: Any) -> bool:
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers) and not isinstance(one, bool):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-9)
    return bool(one == other)
