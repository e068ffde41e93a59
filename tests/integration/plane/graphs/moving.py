"""Agents whose tools keep acting on a recorder outside, a line every few milliseconds, until somebody stops them.

Each line says which call it belongs to, from which process it comes, and when it left (CLOCK_MONOTONIC, which is the same in
all processes of a machine). A tool comes back only when the recorder has read all of its lines.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from scripted import Scripted  # type: ignore[import-not-found]  # packed beside it

EVERY_SECONDS = 0.02

_CHILD = """
import json, os, socket, sys, time
port, call = int(sys.argv[1]), sys.argv[2]
if os.fork() == 0:
    # One that has left its session and its parent.
    os.setsid()
    if os.fork():
        os._exit(0)
stream = socket.create_connection(("127.0.0.1", port)).makefile("wb", buffering=0)
while True:
    stream.write(json.dumps([call, os.getpid(), time.monotonic()]).encode() + b"\\n")
    time.sleep(0.02)
"""


def _line(call: str) -> bytes:
    return json.dumps([call, os.getpid(), time.monotonic()]).encode() + b"\n"


async def _move(port: int, call: str, seconds: float) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        end = time.monotonic() + seconds
        while True:
            writer.write(_line(call))
            if time.monotonic() >= end:
                break
            await asyncio.sleep(EVERY_SECONDS)
        writer.write_eof()
        await reader.read()
    finally:
        writer.close()
    return f"{call} is done"


def _move_sync(port: int, call: str, seconds: float) -> str:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        end = time.monotonic() + seconds
        while True:
            connection.sendall(_line(call))
            if time.monotonic() >= end:
                break
            time.sleep(EVERY_SECONDS)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    return f"{call} is done"


@tool
async def move(port: int, call: str, seconds: float) -> str:
    """Act for so long."""
    return await _move(port, call, seconds)


@tool
async def insist(port: int, call: str, seconds: float) -> str:
    """Act for so long, cancelled or not."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            return await _move(port, call, left)
        except asyncio.CancelledError:
            continue
    return f"{call} is done"


@tool
async def ask(port: int, call: str, seconds: float) -> str:
    """Act for so long, once a person has allowed it."""
    return await _move(port, call, seconds)


@tool("move")
def move_sync(port: int, call: str, seconds: float) -> str:
    """Act for so long."""
    return _move_sync(port, call, seconds)


@tool
def grind(port: int, call: str, seconds: float) -> str:
    """Act once, and never come back from C."""
    _move_sync(port, call, 0)
    return str(sum(range(10**13)))


@tool
def breed(port: int, call: str, seconds: float) -> str:
    """Let a child and a daemon act, for ever."""
    command = [sys.executable, "-S", "-c", _CHILD, str(port), call]
    return str(subprocess.run(command, check=False).returncode)


_ASYNC: list[BaseTool] = [move, insist, ask]
_SYNC: list[BaseTool] = [move_sync, grind, breed]
for _tool in (*_ASYNC, *_SYNC):
    _tool.metadata = {"fermata.effect": "UNSAFE"}
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
