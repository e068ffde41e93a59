"""The gate: what it asks, what it lets through, and that nothing passes beside it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt

from fermata.agents.runtime.calls import MAX_THREADS, Activity, Call
from fermata.agents.runtime.errors import CallRefused
from fermata.agents.runtime.gate import only_in_runs, run_of_context
from fermata.v1 import run_pb2

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@tool
async def aopen(valve: str, turns: int = 3) -> str:
    """Open a valve."""
    CALLS.append(f"aopen {valve} {turns}")
    return f"opened {valve} by {turns}"


@tool
async def ashut(valve: str) -> str:
    """Shut a valve."""
    CALLS.append(f"ashut {valve}")
    return f"shut {valve}"


@tool
def sopen(valve: str) -> str:
    """Open a valve, synchronously."""
    CALLS.append(f"sopen {valve}")
    return f"opened {valve}"


@tool
async def ask_first(topic: str) -> str:
    """Asks a person by itself."""
    answer = interrupt({"question": topic})
    CALLS.append(f"ask_first {topic} {answer}")
    return f"{topic}: {answer}"


def call(name: str, number: int = 1, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args, "id": f"c{number}", "type": "tool_call"}


def talks(*calls: dict[str, Any], tools: list[Any], text: str = "because") -> StateGraph[Any, Any, Any, Any]:
    """A graph that makes these calls in one ToolNode, then says done."""

    async def think(state: MessagesState) -> dict[str, Any]:
        if isinstance(state["messages"][-1], ToolMessage):
            return {"messages": [AIMessage("done")]}
        return {"messages": [AIMessage(text, tool_calls=list(calls))]}

    def route(state: MessagesState) -> str:
        last = state["messages"][-1]
        return "tools" if isinstance(last, AIMessage) and last.tool_calls else END

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", route, ["tools", END])
    graph.add_edge("tools", "think")
    return graph


HELLO = {"messages": [{"role": "user", "content": "hello"}]}


async def test_an_allowed_call_runs_once_and_its_task_is_committed_before(host_of: Any, ledger: Any) -> None:
    worker = await host_of(talks(call("aopen", valve="v1"), tools=[aopen]))
    await worker.assign(HELLO)
    finish = await worker.finished()
    assert finish.answer == "done", finish
    assert CALLS == ["aopen v1 3"]
    assert ledger.order.index("start aopen") > ledger.order.index("checkpoint ")
    gate = ledger.gates[0]
    assert json.loads(gate.args) == {"turns": 3, "valve": "v1"}
    assert gate.rationale == "because"
    assert gate.tool_call_id == "c1"
    assert gate.provenance == ["person"]
    assert [outcome.outcome for outcome in ledger.closed] == [run_pb2.STEP_OUTCOME_FINISHED]
    assert ledger.closed[0].text == "opened v1 by 3"


async def test_two_asking_calls_of_one_node_decided_in_reverse_order(host_of: Any, ledger: Any) -> None:
    ledger.policy = {"aopen": "ask", "ashut": "ask"}
    worker = await host_of(
        talks(call("aopen", 1, valve="v1"), call("ashut", 2, valve="v2"), tools=[aopen, ashut])
    )
    await worker.assign(HELLO)
    park = await worker.parked()
    assert len(park.asking_steps) == 2
    assert not park.interrupts
    second = next(gate.step for gate in ledger.gates if gate.tool == "ashut")
    ledger.approved[f"tenants/t/approvals/{second[:12]}"] = "approve"
    worker.resume()
    park = await worker.parked(2)
    assert CALLS == ["ashut v2"]
    assert len(park.asking_steps) == 1
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    finish = await worker.finished()
    assert finish.answer == "done"
    assert CALLS == ["ashut v2", "aopen v1 3"]


async def test_a_tool_that_interrupts_by_itself_beside_an_asking_call(host_of: Any, ledger: Any) -> None:
    ledger.policy = {"aopen": "ask"}
    worker = await host_of(
        talks(call("aopen", 1, valve="v1"), call("ask_first", 2, topic="why"), tools=[aopen, ask_first])
    )
    await worker.assign(HELLO)
    park = await worker.parked()
    assert len(park.asking_steps) == 1
    assert [question.value.struct_value["question"] for question in park.interrupts] == ["why"]
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume({park.interrupts[0].interrupt_id: "so"})
    finish = await worker.finished()
    assert finish.answer == "done", finish
    assert sorted(CALLS) == ["aopen v1 3", "ask_first why so"]


async def test_its_answer_alone_leaves_the_asking_call_waiting(host_of: Any, ledger: Any) -> None:
    ledger.policy = {"aopen": "ask"}
    worker = await host_of(
        talks(call("ask_first", 1, topic="why"), call("aopen", 2, valve="v1"), tools=[aopen, ask_first])
    )
    await worker.assign(HELLO)
    park = await worker.parked()
    worker.resume({park.interrupts[0].interrupt_id: "so"})
    park = await worker.parked(2)
    assert CALLS == ["ask_first why so"]
    assert not park.interrupts
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    assert (await worker.finished()).answer == "done"
    assert CALLS == ["ask_first why so", "aopen v1 3"]


async def test_a_slow_sibling_of_an_asking_call_finishes_and_is_not_run_again(
    host_of: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()
    pause = Activity.pause
    pauses: asyncio.Queue[Any] = asyncio.Queue()

    def paused(self: Activity, asking: Any) -> Any:
        task_may_be_left = pause(self, asking)
        pauses.put_nowait(task_may_be_left)
        return task_may_be_left

    monkeypatch.setattr(Activity, "pause", paused)

    @tool
    async def slow() -> str:
        """Slow."""
        await go_on.wait()
        CALLS.append("slow")
        return "slow is done"

    ledger.policy = {"aopen": "ask"}
    worker = await host_of(talks(call("aopen", 1, valve="v"), call("slow", 2), tools=[aopen, slow]))
    await worker.assign(HELLO)
    await worker.until(lambda: len(ledger.gates) == 2)
    task_may_be_left = await asyncio.wait_for(pauses.get(), 10)
    assert not task_may_be_left.done()
    go_on.set()
    park = await worker.parked()
    assert task_may_be_left.done()
    assert CALLS == ["slow"]
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    finish = await worker.finished()
    assert CALLS == ["slow", "aopen v 3"]
    contents = [m["content"] for m in finish.output["messages"]]
    assert "slow is done" in contents


async def test_a_tool_called_inside_a_node(host_of: Any, ledger: Any) -> None:
    async def act(state: MessagesState) -> dict[str, Any]:
        first = await aopen.ainvoke({"valve": "a"})
        second = await aopen.ainvoke({"valve": "b"})
        return {"messages": [AIMessage(f"{first}, {second}")]}

    graph = StateGraph(MessagesState)
    graph.add_node("act", act)
    graph.add_edge(START, "act")
    ledger.policy = {"aopen": "ask"}
    worker = await host_of(graph)
    await worker.assign(HELLO)
    for count in (1, 2):
        park = await worker.parked(count)
        ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
        worker.resume()
    assert (await worker.finished()).answer == "opened a by 3, opened b by 3"
    assert CALLS == ["aopen a 3", "aopen b 3"]


async def test_a_tool_node_built_in_a_node(host_of: Any, ledger: Any) -> None:
    async def act(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        message = AIMessage("", tool_calls=[call("aopen", valve="x")])
        result = await ToolNode([aopen]).ainvoke({"messages": [message]}, config)
        return {"messages": [AIMessage(result["messages"][0].content)]}

    graph = StateGraph(MessagesState)
    graph.add_node("act", act)
    graph.add_edge(START, "act")
    ledger.policy = {"aopen": "ask"}
    worker = await host_of(graph)
    await worker.assign(HELLO)
    park = await worker.parked()
    assert CALLS == []
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    assert (await worker.finished()).answer == "opened x by 3"
    assert CALLS == ["aopen x 3"]


@pytest.mark.parametrize("keeps", [None, False])
async def test_a_graph_invoked_in_a_node(host_of: Any, ledger: Any, keeps: bool | None) -> None:
    inner = talks(call("aopen", valve="deep"), tools=[aopen]).compile(checkpointer=keeps)

    async def act(state: MessagesState) -> dict[str, Any]:
        await ashut.ainvoke({"valve": "before"})
        result = await inner.ainvoke({"messages": [HumanMessage("inner")]})
        return {"messages": [AIMessage(result["messages"][-1].content)]}

    graph = StateGraph(MessagesState)
    graph.add_node("act", act)
    graph.add_edge(START, "act")
    ledger.policy = {"aopen": "ask"}
    worker = await host_of(graph)
    await worker.assign(HELLO)
    park = await worker.parked()
    assert CALLS == ["ashut before"]
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    assert (await worker.finished()).answer == "done"
    assert CALLS == ["ashut before", "aopen deep 3"]


async def test_sync_tools_of_an_async_graph(host_of: Any, ledger: Any) -> None:
    ledger.policy = {"sopen": "ask"}
    worker = await host_of(
        talks(call("sopen", 1, valve="a"), call("aopen", 2, valve="b"), tools=[sopen, aopen])
    )
    await worker.assign(HELLO)
    park = await worker.parked()
    assert CALLS == ["aopen b 3"]
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    assert (await worker.finished()).answer == "done"
    assert CALLS == ["aopen b 3", "sopen a"]


def test_calls_that_have_no_thread_to_come_in_are_not_waited_for() -> None:
    activity = Activity()
    asking = Call(step="s1", scope="task")
    assert activity.begin(asking, activity.expect("task"))
    activity.expect("task")
    paused = activity.pause(asking)
    for _ in range(MAX_THREADS):
        activity.thread_begins()
    assert not paused.done()
    activity.thread_begins()
    assert paused.done()


async def test_a_sync_graph_with_sync_tools(host_of: Any, ledger: Any) -> None:
    def think(state: MessagesState) -> dict[str, Any]:
        if isinstance(state["messages"][-1], ToolMessage):
            return {"messages": [AIMessage("done " + sopen.invoke({"valve": "in-node"}))]}
        calls = [call("sopen", 1, valve="a"), call("sopen", 2, valve="b")]
        return {"messages": [AIMessage("", tool_calls=calls)]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode([sopen]))
    graph.add_edge(START, "think")
    graph.add_conditional_edges(
        "think", lambda s: "tools" if s["messages"][-1].tool_calls else END, ["tools", END]
    )
    graph.add_edge("tools", "think")
    ledger.policy = {"sopen": "ask"}
    worker = await host_of(graph)
    await worker.assign(HELLO)
    park = await worker.parked()
    assert len(park.asking_steps) == 2
    for step in park.asking_steps:
        ledger.approved[f"tenants/t/approvals/{step[:12]}"] = "approve"
    worker.resume()
    park = await worker.parked(2)
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    assert (await worker.finished()).answer == "done opened in-node"
    assert sorted(CALLS) == ["sopen a", "sopen b", "sopen in-node"]


async def test_a_thread_that_outlives_its_run_reaches_no_tool_in_a_host(host_of: Any, ledger: Any) -> None:
    run_is_over, tried = threading.Event(), threading.Event()
    refused: list[str] = []

    def late() -> None:
        run_is_over.wait(10)
        try:
            sopen.invoke({"valve": "v1"})
        except CallRefused as error:
            refused.append(error.reason)
        finally:
            tried.set()

    async def act(state: MessagesState) -> dict[str, Any]:
        threading.Thread(target=late, daemon=True).start()
        return {"messages": [AIMessage("done")]}

    graph = StateGraph(MessagesState)
    graph.add_node("act", act)
    graph.add_edge(START, "act")
    worker = await host_of(graph)
    await worker.assign({"messages": [{"role": "user", "content": "go"}]})
    await worker.finished()
    async with asyncio.timeout(10):
        while run_of_context("sopen") is not None:  # noqa: ASYNC110 - nothing tells that a host has forgotten a run
            await asyncio.sleep(0)
    with only_in_runs():
        run_is_over.set()
        assert await asyncio.to_thread(tried.wait, 10)
    assert (refused, CALLS) == (["RUN_UNKNOWN"], [])
