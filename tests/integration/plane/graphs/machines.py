"""Agents whose tools act on machines outside: a recorder on loopback that the tests keep, which is never killed and counts.

A call is a conversation with the recorder: the tool says what it is about to do, waits until the machine is ready for it, does
it, and waits until the machine is done. Each of the waits is an instant at which a process may die. Nothing is done by a tool
that the recorder has not heard of before.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from scripted import Scripted  # type: ignore[import-not-found]  # packed beside it

from fermata.agents.runtime.context import attempt, idempotency_key, run_name


def _about(name: str, call: str, amount: int) -> bytes:
    facts = {
        "tool": name,
        "call": call,
        "amount": amount,
        "key": idempotency_key(),
        "run": run_name(),
        "attempt": attempt(),
        "pid": os.getpid(),
    }
    return json.dumps(facts).encode() + b"\n"


async def _act(name: str, port: int, call: str, amount: int = 0) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_about(name, call, amount))
        if await reader.readline() != b"ready\n":
            raise ConnectionError("the machine is gone")
        writer.write(b"do\n")
        if await reader.readline() != b"done\n":
            raise ConnectionError("the machine is gone")
    finally:
        writer.close()
    return f"{call} is done"


def _act_sync(name: str, port: int, call: str, amount: int = 0) -> str:
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rwb") as stream:
        for said, heard in ((_about(name, call, amount), b"ready\n"), (b"do\n", b"done\n")):
            stream.write(said)
            stream.flush()
            if stream.readline() != heard:
                raise ConnectionError("the machine is gone")
    return f"{call} is done"


@tool
async def look(port: int, call: str) -> str:
    """Read a machine."""
    return await _act("look", port, call)


@tool
async def put(port: int, call: str) -> str:
    """Set a machine; twice with one key is as once."""
    return await _act("put", port, call)


@tool
async def fire(port: int, call: str) -> str:
    """Make a machine do what can't be undone."""
    return await _act("fire", port, call)


@tool
async def ask(port: int, call: str, amount: int) -> str:
    """Make a machine do what a person has to allow."""
    return await _act("ask", port, call, amount)


@tool("look")
def look_sync(port: int, call: str) -> str:
    """Read a machine."""
    return _act_sync("look", port, call)


@tool("put")
def put_sync(port: int, call: str) -> str:
    """Set a machine; twice with one key is as once."""
    return _act_sync("put", port, call)


@tool("fire")
def fire_sync(port: int, call: str) -> str:
    """Make a machine do what can't be undone."""
    return _act_sync("fire", port, call)


@tool("ask")
def ask_sync(port: int, call: str, amount: int) -> str:
    """Make a machine do what a person has to allow."""
    return _act_sync("ask", port, call, amount)


_ASYNC: list[BaseTool] = [look, put, fire, ask]
_SYNC: list[BaseTool] = [look_sync, put_sync, fire_sync, ask_sync]
_EFFECTS = {"look": "READ", "put": "IDEMPOTENT"}
for _tool in (*_ASYNC, *_SYNC):
    _tool.metadata = {"fermata.effect": _EFFECTS.get(_tool.name, "UNSAFE")}
_model = Scripted()


async def _think(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await _model.ainvoke(state["messages"])]}


def _loop(act: Any) -> Any:
    return (
        StateGraph(MessagesState)
        .add_node("think", _think)
        .add_node("tools", act)
        .add_edge(START, "think")
        .add_conditional_edges("think", tools_condition, ["tools", END])
        .add_edge("tools", "think")
        .compile()
    )


def _hands(tools: Sequence[BaseTool]) -> Any:
    return (
        StateGraph(MessagesState)
        .add_node("hands", ToolNode(tools))
        .add_edge(START, "hands")
        .add_edge("hands", END)
        .compile()
    )


_nested_hands = _hands(_ASYNC)


async def _delegate(state: MessagesState) -> dict[str, Any]:
    """A graph of its own makes the calls, invoked in a node."""
    told = await _nested_hands.ainvoke({"messages": state["messages"]})
    return {"messages": told["messages"][len(state["messages"]) :]}


together = _loop(ToolNode(_ASYNC))
"""All async: many runs share a process."""
alone = _loop(ToolNode(_SYNC))
"""Sync tools: a process for each run, and threads in it for calls that are made at once."""
nested = _loop(_delegate)
"""Calls are made by a graph within a node."""
