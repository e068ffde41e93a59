"""LangGraph's durability modes: each parks, goes on in another host, and ends as ``sync`` does."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from fermata.v1 import agent_pb2, worker_pb2

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
DURABILITIES = [agent_pb2.DURABILITY_SYNC, agent_pb2.DURABILITY_ASYNC, agent_pb2.DURABILITY_EXIT]
LOOKED: list[str] = []


@tool(extras={"fermata": {"effect": "READ"}})
async def look(at: str) -> str:
    """Look at something."""
    LOOKED.append(at)
    return f"saw {at}"


def graph() -> Any:
    async def first(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("first")]}

    async def second(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(await look.ainvoke({"at": "the line"}))]}

    async def third(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"answered {interrupt('well?')}")]}

    built = StateGraph(MessagesState)
    built.add_sequence([("first", first), ("second", second), ("third", third)])
    built.add_edge(START, "first")
    return built


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_run_parks_and_goes_on_in_another_host(host_of: Any, ledger: Any, durability: Any) -> None:
    spec = agent_pb2.AgentSpec(durability=durability)
    ledger.policy = {"look": "ask"}
    first = await host_of(graph())
    await first.assign(HELLO, spec=spec)
    park = await first.parked()
    (step,) = park.asking_steps
    ledger.approved[f"tenants/t/approvals/{step[:12]}"] = "approve"
    second = await host_of(graph())
    lease = worker_pb2.Lease(run=first.lease.run, epoch=2)
    await second.assign(lease=lease, restarted=True, spec=spec, resume=worker_pb2.Resume(lease=lease))
    asked = await second.parked(2)
    assert ledger.gates[-1].step == step, "the task is the one that was asked about"
    second.resume({asked.interrupts[0].interrupt_id: "yes"})
    finish = await second.finished()
    assert finish.answer == "answered yes", finish
    assert [message["content"] for message in finish.output["messages"]] == [
        "hello",
        "first",
        "saw the line",
        "answered yes",
    ]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_only_exit_leaves_the_super_steps_unwritten(host_of: Any, ledger: Any, durability: Any) -> None:
    worker = await host_of(graph())
    await worker.assign(HELLO, spec=agent_pb2.AgentSpec(durability=durability))
    await worker.parked()
    stored = sum(len(rows) for rows in ledger.checkpoints.values())
    assert stored == (1 if durability == agent_pb2.DURABILITY_EXIT else 4)
