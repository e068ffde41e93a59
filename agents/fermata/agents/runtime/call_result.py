"""What comes out of a tool call: as a record, as text for people, and in answer to another call."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command

from fermata.agents.runtime.canonical import NotJsonError, jsonable
from fermata.v1 import worker_pb2

RESULT_TEXT_BYTES = 4096
"""Where the text of a result is cut."""

_serde = JsonPlusSerializer()


def value_of(blob: worker_pb2.Blob) -> Any:
    """What ``blob_of`` has stored; None for an empty blob."""
    return _serde.loads_typed((blob.type, blob.data)) if blob.type else None


def readdressed(value: Any, old_id: str | None, new_id: str | None) -> Any:
    """A recorded result in answer to the present call: a re-executed model may have numbered it anew."""
    if isinstance(value, ToolMessage):
        if value.tool_call_id != old_id or new_id is None:
            return value
        return value.model_copy(update={"tool_call_id": new_id})
    if isinstance(value, list):
        return [readdressed(item, old_id, new_id) for item in value]
    if isinstance(value, Command) and isinstance(value.update, dict):
        update = {key: readdressed(item, old_id, new_id) for key, item in value.update.items()}
        return Command(graph=value.graph, update=update, resume=value.resume, goto=value.goto)
    return value


def blob_of(value: Any) -> worker_pb2.Blob:
    """The value in LangGraph's serialisation.

    :raises TypeError: where it can't be serialised; also ValueError and RecursionError.
    """
    kind, data = _serde.dumps_typed(value)
    return worker_pb2.Blob(type=kind, data=data)


def text_of(result: Any) -> str:
    """A result as text for people."""
    if isinstance(result, BaseMessage):
        return result.text
    if isinstance(result, str):
        return result
    try:
        return json.dumps(jsonable(result), ensure_ascii=False)
    except NotJsonError:
        return str(type(result))


def cut(text: str) -> str:
    """The text, cut at ``RESULT_TEXT_BYTES``."""
    data = text.encode("utf-8", "replace")
    return (
        text
        if len(data) <= RESULT_TEXT_BYTES
        else data[: RESULT_TEXT_BYTES - 4].decode("utf-8", "ignore") + "…"
    )
