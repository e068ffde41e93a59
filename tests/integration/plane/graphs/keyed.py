"""An agent whose tools pass their idempotency key on, as one does to a service that books a payment once per key."""

from __future__ import annotations

import os
import time

from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from scripted import Scripted, let_go, note  # type: ignore[import-not-found]  # packed beside it

from fermata.agents.runtime.context import attempt, idempotency_key


@tool
async def transfer(mark: str, amount: int) -> str:
    """Transfer an amount, slowly."""
    note(mark, f"start {os.getpid()} {idempotency_key()} {attempt()}")
    await let_go(mark)
    note(mark, f"book {idempotency_key()} {amount}")
    return f"booked {amount}"


@tool
def transfer_sync(mark: str, amount: int) -> str:
    """Transfer an amount, slowly, in a thread."""
    note(mark, f"start {os.getpid()} {idempotency_key()} {attempt()}")
    while not os.access(f"{mark}.go", os.F_OK):
        time.sleep(0.01)
    note(mark, f"book {idempotency_key()} {amount}")
    return f"booked {amount}"


for _tool in (transfer, transfer_sync):
    _tool.metadata = {"fermata.effect": "IDEMPOTENT"}

_model = Scripted()


async def _think(state: MessagesState) -> dict[str, object]:
    return {"messages": [await _model.ainvoke(state["messages"])]}


graph = (
    StateGraph(MessagesState)
    .add_node("think", _think)
    .add_node("tools", ToolNode([transfer, transfer_sync]))
    .add_edge(START, "think")
    .add_conditional_edges("think", tools_condition, ["tools", END])
    .add_edge("tools", "think")
    .compile()
)
