"""Messages as JSON, for events and outputs: {type, id, content, tool_calls, tool_call_id, name, status, citations},
unset ones left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    RemoveMessage,
    ToolMessage,
    convert_to_messages,
)

from fermata.agents.runtime.canonical import Json, jsonable

CANCELLED_TEXT = "This call was cancelled before it was done."
"""Content of the message that closes a call which an earlier run left open."""


def message_json(message: BaseMessage) -> dict[str, Json]:
    """One message as JSON; content is its text."""
    data: dict[str, Json] = {"type": message.type, "content": message.text}
    if message.id:
        data["id"] = message.id
    if message.name:
        data["name"] = message.name
    if isinstance(message, AIMessage) and message.tool_calls:
        data["tool_calls"] = [
            {"id": call["id"], "name": call["name"], "args": jsonable(call["args"])}
            for call in message.tool_calls
        ]
    if isinstance(message, ToolMessage):
        data["tool_call_id"] = message.tool_call_id
        data["status"] = message.status
    if citations := message.additional_kwargs.get("citations"):
        data["citations"] = jsonable(citations)
    return data


def output_json(value: Any, path: str = "") -> Json:
    """A graph's output as JSON: messages as ``message_json`` has them, everything else as it is.

    :raises NotJsonError: names the place of what has no JSON form.
    """
    if isinstance(value, BaseMessage):
        return message_json(value)
    if isinstance(value, Mapping):
        return {str(key): output_json(item, f"{path}\x00{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [output_json(item, f"{path}\x00{index}") for index, item in enumerate(value)]
    return jsonable(value, strict=True, path=path)


def new_messages(update: Any) -> list[BaseMessage]:
    """The messages in what a node wrote to a messages channel, in any form that LangGraph's reducer takes."""
    if update is None:
        return []
    items = update if isinstance(update, list) else [update]
    try:
        messages: list[AnyMessage] = convert_to_messages(items)  # type: ignore[assignment]
    except (ValueError, NotImplementedError, TypeError):
        return []
    return [message for message in messages if not isinstance(message, RemoveMessage)]


def last_answer(values: Any) -> str:
    """The text of the last message that a model wrote; empty where there is none."""
    messages = values.get("messages") if isinstance(values, Mapping) else None
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            return message.text
    return ""


def closing_messages(messages: Any, pending: Iterable[Any] = ()) -> list[ToolMessage]:
    """Answers to tool calls that nothing has answered, so that a thread whose run was stopped can be talked to again.

    :param pending: what tasks of the stopped super-step had written to the channel when it was stopped: the answers of those that
        were done. LangGraph leaves them out when the thread goes on with a new input.
    """
    if not isinstance(messages, list):
        return []
    done = {
        message.tool_call_id: message
        for update in pending
        for message in new_messages(update)
        if isinstance(message, ToolMessage)
    }
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    return [
        done.get(call["id"])
        or ToolMessage(content=CANCELLED_TEXT, tool_call_id=call["id"], name=call["name"], status="error")
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
        if call["id"] and call["id"] not in answered
    ]
