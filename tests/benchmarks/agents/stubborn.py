"""Work that no cancellation ends, for the halts that have to kill: the message names the tool that is called."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

SECONDS = 60


@tool
def block() -> str:
    """Wait in a thread."""
    time.sleep(SECONDS)
    return "done"


@tool
def loop_in_c() -> str:
    """Hold the interpreter's lock, and never come back."""
    return str(sum(range(10**13)))


@tool
def children() -> str:
    """Wait for a child that has a daemon beside it."""
    command = f"setsid sleep {SECONDS} & exec sleep {SECONDS}"
    return str(subprocess.run(["/bin/sh", "-c", command], check=False).returncode)


@tool
async def swallow() -> str:
    """Go on whoever cancels."""
    end = time.monotonic() + SECONDS
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left)
    return "done"


_TOOLS = [block, loop_in_c, children, swallow]
for _tool in _TOOLS:
    _tool.metadata = {"fermata.effect": "READ"}


async def _propose(state: MessagesState) -> dict[str, Any]:
    call = {"name": str(state["messages"][-1].content), "args": {}, "id": "call-1"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


stubborn_builder = StateGraph(MessagesState)
stubborn_builder.add_node("propose", _propose)
stubborn_builder.add_node("tools", ToolNode(_TOOLS))
stubborn_builder.add_edge(START, "propose")
stubborn_builder.add_edge("propose", "tools")
stubborn_builder.add_edge("tools", END)
stubborn = stubborn_builder.compile()
