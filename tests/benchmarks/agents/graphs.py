"""The graphs that the benchmark runs, here and in a host alike: ordinary LangGraph, all async, nothing of Fermata's.

``plain`` is two nodes. ``calling`` makes one tool call: the message ``write`` calls the tool that asks, any other text the
tool that reads for so many seconds.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

ASKS = "write"
"""The message on which ``calling`` proposes its UNSAFE tool."""


class Text(TypedDict, total=False):
    """A text and its length in words."""

    text: str
    words: int


async def _count(state: Text) -> Text:
    return {"words": len(state["text"].split())}


async def _shout(state: Text) -> Text:
    return {"text": state["text"].upper()}


@tool
async def read_value(seconds: float) -> str:
    """Read a value, which takes so many seconds."""
    await asyncio.sleep(seconds)
    return "42"


@tool
async def write_value(value: int) -> str:
    """Write a value."""
    return f"wrote {value}"


read_value.metadata = {"fermata.effect": "READ"}
write_value.metadata = {"fermata.effect": "UNSAFE"}


async def _propose(state: MessagesState) -> dict[str, Any]:
    said = str(state["messages"][-1].content)
    if said == ASKS:
        call = {"name": "write_value", "args": {"value": 7}, "id": "call-1"}
    else:
        call = {"name": "read_value", "args": {"seconds": float(said)}, "id": "call-1"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


async def _answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"The tool says: {state['messages'][-1].content}")]}


plain_builder = StateGraph(Text)
plain_builder.add_node("count", _count)
plain_builder.add_node("shout", _shout)
plain_builder.add_edge(START, "count")
plain_builder.add_edge("count", "shout")
plain_builder.add_edge("shout", END)

calling_builder = StateGraph(MessagesState)
calling_builder.add_node("propose", _propose)
calling_builder.add_node("tools", ToolNode([read_value, write_value]))
calling_builder.add_node("answer", _answer)
calling_builder.add_edge(START, "propose")
calling_builder.add_edge("propose", "tools")
calling_builder.add_edge("tools", "answer")
calling_builder.add_edge("answer", END)

plain = plain_builder.compile()
calling = calling_builder.compile()
