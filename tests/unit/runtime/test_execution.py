"""Runs from end to end in one host: inputs, events, outputs, errors, middleware, and a second host after the first."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from fermata.agents.runtime import frames
from fermata.v1 import agent_pb2, approval_pb2, worker_pb2

CALLS: list[Any] = []
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@tool
async def move(axis: str, by: int = 1) -> str:
    """Move an axis."""
    CALLS.append(f"{axis}{by}")
    return f"moved {axis} by {by}"


class Scripted(BaseChatModel):
    """Calls tools once each, then says done."""

    calls: list[dict[str, Any]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[each.name for each in tools])

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        CALLS.append("model")
        done = any(isinstance(message, ToolMessage) for message in messages)
        message = AIMessage("done") if done else AIMessage("because", tool_calls=self.calls)
        return ChatResult(generations=[ChatGeneration(message=message)])


def call(name: str, number: int = 1, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args, "id": f"c{number}", "type": "tool_call"}


def chain(*nodes: Any, state: Any = MessagesState) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(state)
    before = START
    for number, node in enumerate(nodes):
        graph.add_node(f"n{number}", node)
        graph.add_edge(before, f"n{number}")
        before = f"n{number}"
    return graph


async def calls_move(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(await move.ainvoke({"axis": "x"}))]}


async def test_events_tell_the_messages_and_nodes_in_order(host_of: Any, ledger: Any) -> None:
    async def first(state: MessagesState) -> dict[str, Any]:
        get_stream_writer()({"progress": 1})
        return {"messages": [AIMessage("one", additional_kwargs={"citations": [{"id": "1"}]})]}

    worker = await host_of(chain(first, calls_move))
    await worker.assign(HELLO)
    finish = await worker.finished()
    kinds = [kind for kind, _ in ledger.events]
    assert kinds == ["CUSTOM", "MESSAGE", "NODE_FINISHED", "MESSAGE", "NODE_FINISHED"]
    assert ledger.events[0][1] == {"value": {"progress": 1}}
    assert ledger.events[1][1]["content"] == "one"
    assert ledger.events[1][1]["citations"] == [{"id": "1"}]
    assert ledger.events[2][1] == {"node": "n0"}
    assert finish.answer == "moved x by 1"
    assert [m["type"] for m in finish.output["messages"]] == ["human", "ai", "ai"]


async def test_an_agent_of_create_agent_runs_unchanged(host_of: Any, ledger: Any) -> None:
    agent = create_agent(Scripted(calls=[call("move", axis="x"), call("move", 2, axis="y")]), [move])
    ledger.policy = {"move": "ask"}
    worker = await host_of(agent)
    await worker.assign(HELLO)
    park = await worker.parked()
    assert len(park.asking_steps) == 2
    assert {gate.rationale for gate in ledger.gates} == {"because"}
    for step in park.asking_steps:
        ledger.approved[f"tenants/t/approvals/{step[:12]}"] = "approve"
    worker.resume()
    assert (await worker.finished()).answer == "done"
    assert sorted(CALLS) == ["model", "model", "x1", "y1"]


async def test_the_middleware_for_people_in_the_loop_works_unchanged(host_of: Any, ledger: Any) -> None:
    middleware = HumanInTheLoopMiddleware(interrupt_on={"move": True})
    agent = create_agent(Scripted(calls=[call("move", axis="x")]), [move], middleware=[middleware])
    worker = await host_of(agent)
    await worker.assign(HELLO)
    park = await worker.parked()
    assert len(park.interrupts) == 1
    action = park.interrupts[0].actions[0]
    assert action.tool == "move"
    assert dict(action.args) == {"axis": "x"}
    assert approval_pb2.DECISION_EDIT in action.allowed_decisions
    worker.resume({park.interrupts[0].interrupt_id: {"decisions": [{"type": "approve"}]}})
    assert (await worker.finished()).answer == "done"
    assert ledger.gates[0].call_digest == action.call_digest
    assert CALLS.count("x1") == 1


async def test_the_middleware_that_asks_for_each_call_takes_one_decision(host_of: Any, ledger: Any) -> None:
    middleware = HumanInTheLoopMiddleware(interrupt_on={"move": True}, interrupt_mode="per_call")
    agent = create_agent(Scripted(calls=[call("move", axis="x")]), [move], middleware=[middleware])
    worker = await host_of(agent)
    await worker.assign(HELLO)
    park = await worker.parked()
    assert park.interrupts[0].actions[0].tool == "move"
    # The first host dies; the next one knows the question from the checkpoint alone.
    second = await host_of(agent)
    answer = worker_pb2.Resume(lease=worker_pb2.Lease(run=worker.lease.run, epoch=2))
    answer.answers.add(interrupt_id=park.interrupts[0].interrupt_id).value.struct_value.update(
        {"decisions": [{"type": "reject", "message": "not today"}]}
    )
    await second.assign(lease=answer.lease, restarted=True, resume=answer)
    finish = await second.finished()
    assert finish.answer == "done", finish
    assert "not today" in str(finish.output["messages"][2]["content"])
    assert "x1" not in CALLS


async def test_a_graph_that_raises_says_where(host_of: Any, ledger: Any) -> None:
    async def bad(state: MessagesState) -> dict[str, Any]:
        raise RuntimeError("no plan")

    worker = await host_of(chain(bad))
    await worker.assign(HELLO)
    error = (await worker.finished()).error
    assert error.reason == "GRAPH_RAISED"
    assert error.message.startswith("RuntimeError: no plan")
    assert 'raise RuntimeError("no plan")' in error.detail
    assert "langgraph/pregel" not in error.detail


@pytest.mark.parametrize("durability", [agent_pb2.DURABILITY_SYNC, agent_pb2.DURABILITY_EXIT])
async def test_a_graph_that_never_ends_parks_at_its_limit_or_ends_where_nothing_is_written(
    host_of: Any, ledger: Any, durability: Any
) -> None:
    async def again(state: MessagesState) -> dict[str, Any]:
        return {"messages": []}

    graph = chain(again)
    graph.add_edge("n0", "n0")
    spec = agent_pb2.AgentSpec()
    spec.limits.super_steps = 5
    spec.durability = durability
    worker = await host_of(graph)
    await worker.assign(HELLO, spec=spec)
    if durability == agent_pb2.DURABILITY_EXIT:
        assert (await worker.finished()).error.reason == "RECURSION_LIMIT"
        return
    assert await worker.parked() == worker_pb2.Park()
    worker.resume()
    assert await worker.parked() == worker_pb2.Park()


class Loose(TypedDict):
    anything: Any


async def test_an_output_that_is_no_json_is_an_error_that_names_the_place(host_of: Any, ledger: Any) -> None:
    async def give(state: Loose) -> dict[str, Any]:
        return {"anything": {"deep": [1, float("nan")]}}

    worker = await host_of(chain(give, state=Loose))
    await worker.assign({"anything": 1})
    error = (await worker.finished()).error
    assert error.reason == "OUTPUT_NOT_SERIALIZABLE"
    assert "anything.deep.1" in error.message


async def test_a_state_that_cant_be_stored_names_its_channel(host_of: Any, ledger: Any) -> None:
    async def give(state: Loose) -> dict[str, Any]:
        return {"anything": threading.Lock()}

    worker = await host_of(chain(give, state=Loose))
    await worker.assign({"anything": 1})
    error = (await worker.finished()).error
    assert error.reason == "STATE_NOT_SERIALIZABLE"
    assert "'anything'" in error.message


async def test_an_output_that_no_frame_holds_is_an_error(
    host_of: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 50_000)

    async def give(state: Loose) -> dict[str, Any]:
        return {"anything": "x" * 100_000}

    worker = await host_of(chain(give, state=Loose))
    await worker.assign({"anything": 1})
    error = (await worker.finished()).error
    assert error.reason == "FRAME_TOO_LARGE"
    assert "50000 bytes" in error.message


async def test_whole_numbers_of_an_input_stay_whole(host_of: Any, ledger: Any) -> None:
    async def give(state: Loose) -> dict[str, Any]:
        return {"anything": type(state["anything"]).__name__}

    worker = await host_of(chain(give, state=Loose))
    await worker.assign({"anything": 3})
    assert (await worker.finished()).output["anything"] == "int"


async def test_a_question_of_the_graph_is_asked_and_answered(host_of: Any, ledger: Any) -> None:
    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(interrupt({"question": "which?"})["pick"])]}

    worker = await host_of(chain(ask))
    await worker.assign(HELLO)
    park = await worker.parked()
    assert park.interrupts[0].value.struct_value["question"] == "which?"
    worker.resume({park.interrupts[0].interrupt_id: {"pick": "left"}})
    assert (await worker.finished()).answer == "left"


async def test_an_answer_that_comes_twice_does_not_answer_the_next_question(
    host_of: Any, ledger: Any
) -> None:
    async def ask(state: MessagesState) -> dict[str, Any]:
        first, second = interrupt("first?"), interrupt("second?")
        return {"messages": [AIMessage(f"{first} and {second}")]}

    worker = await host_of(chain(ask))
    await worker.assign(HELLO)
    park = await worker.parked()
    worker.resume({park.interrupts[0].interrupt_id: "left"}, number=4)
    worker.resume({park.interrupts[0].interrupt_id: "left"}, number=4)
    again = await worker.parked(2)
    assert again.interrupts[0].value.string_value == "second?"
    worker.resume({again.interrupts[0].interrupt_id: "right"}, number=7)
    assert (await worker.finished()).answer == "left and right"


async def test_an_answer_to_the_park_lets_it_go_on_at_once(host_of: Any, ledger: Any) -> None:
    ledger.policy = {"move": "ask"}
    worker = await host_of(chain(calls_move))

    def decide_before_the_park(gate: worker_pb2.Gate) -> None:
        ledger.resume_on_park = True
        ledger.on_gate = lambda _: ledger.approved.update(
            {f"tenants/t/approvals/{gate.step[:12]}": "approve"}
        )

    ledger.on_gate = decide_before_the_park
    await worker.assign(HELLO)
    assert (await worker.finished()).answer == "moved x by 1"


async def test_a_second_host_goes_on_where_the_first_one_died(host_of: Any, ledger: Any) -> None:
    async def thinks(state: MessagesState) -> dict[str, Any]:
        answer = await Scripted(calls=[]).ainvoke("think")
        await move.ainvoke({"axis": "a"})
        await move.ainvoke({"axis": "b", "by": 2})
        return {"messages": [AIMessage(f"{answer.text}!")]}

    async def first(state: MessagesState) -> dict[str, Any]:
        CALLS.append("first")
        return {"messages": [AIMessage("one")]}

    graph = chain(first, thinks)
    halfway = asyncio.Event()

    def stop_at_b(gate: worker_pb2.Gate) -> worker_pb2.GateAnswer | None:
        if '"axis":"b"' in gate.args and not halfway.is_set():
            halfway.set()
            return worker_pb2.GateAnswer(verdict=worker_pb2.GATE_VERDICT_STOP, latch="tenants/t/latches/x")
        return None

    ledger.on_gate = stop_at_b
    worker = await host_of(graph)
    await worker.assign(HELLO)
    await halfway.wait()
    await worker.parked()
    worker.stream.close()
    assert CALLS == ["first", "model", "a1"]
    second = await host_of(graph)
    await second.assign(lease=worker_pb2.Lease(run=worker.lease.run, epoch=2), restarted=True)
    finish = await second.finished()
    assert finish.answer == "because!"
    assert CALLS == ["first", "model", "a1", "b2"]
    assert ledger.gates[0].step == ledger.gates[2].step


async def test_a_run_that_never_committed_begins_anew_with_its_input(host_of: Any, ledger: Any) -> None:
    worker = await host_of(chain(calls_move))
    await worker.assign(HELLO, restarted=True)
    assert (await worker.finished()).answer == "moved x by 1"


async def test_a_run_without_state_and_input_says_so(host_of: Any, ledger: Any) -> None:
    worker = await host_of(chain(calls_move))
    await worker.assign(restarted=True)
    assert (await worker.finished()).error.reason == "RUN_INPUT_MISSING"


async def test_a_second_run_closes_calls_that_the_first_one_left(host_of: Any, ledger: Any) -> None:
    agent = create_agent(Scripted(calls=[call("move", axis="x")]), [move])
    ledger.policy = {"move": "ask"}
    worker = await host_of(agent)
    await worker.assign(HELLO)
    await worker.parked()
    worker.stop(worker_pb2.STOP_MODE_HALT)
    await worker.until(lambda: ledger.stopped)
    await worker.assign(
        {"messages": [{"role": "user", "content": "again"}]},
        lease=worker_pb2.Lease(run="tenants/t/runs/r2", epoch=1),
    )
    finish = await worker.finished()
    kinds = [(m["type"], m["content"]) for m in finish.output["messages"]]
    assert kinds[2][0] == "tool"
    assert "cancelled" in kinds[2][1]
    assert kinds[3] == ("human", "again")
    assert finish.answer == "done"


async def test_a_second_run_hears_of_the_calls_that_were_done_when_the_first_was_stopped(
    host_of: Any, ledger: Any
) -> None:
    agent = create_agent(Scripted(calls=[call("move", axis="x"), call("move", 2, axis="y")]), [move])

    def ask_about_y(gate: worker_pb2.Gate) -> worker_pb2.GateAnswer | None:
        asks = worker_pb2.GateAnswer(verdict=worker_pb2.GATE_VERDICT_ASK, approval="tenants/t/approvals/y")
        return asks if '"axis":"y"' in gate.args else None

    ledger.on_gate = ask_about_y
    worker = await host_of(agent)
    await worker.assign(HELLO)
    await worker.parked()
    worker.stop(worker_pb2.STOP_MODE_HALT)
    await worker.until(lambda: ledger.stopped)
    await worker.assign(
        {"messages": [{"role": "user", "content": "again"}]},
        lease=worker_pb2.Lease(run="tenants/t/runs/r2", epoch=1),
    )
    told = [m for m in (await worker.finished()).output["messages"] if m["type"] == "tool"]
    assert [(m["tool_call_id"], m["status"]) for m in told] == [("c1", "success"), ("c2", "error")]
    assert told[0]["content"] == "moved x by 1"
    assert "cancelled" in told[1]["content"]


async def test_runs_beside_each_other_in_one_host_do_not_mix(host_of: Any, ledger: Any) -> None:
    barrier = asyncio.Barrier(2)

    async def act(state: MessagesState) -> dict[str, Any]:
        await barrier.wait()
        said = state["messages"][0].text
        return {"messages": [AIMessage(await move.ainvoke({"axis": said}))]}

    worker = await host_of(chain(act))
    for name in ("a", "b"):
        await worker.assign(
            {"messages": [{"role": "user", "content": name}]},
            lease=worker_pb2.Lease(run=f"tenants/t/runs/{name}", epoch=1),
            thread=f"tenants/t/threads/{name}",
        )
    await worker.until(lambda: len(ledger.finishes) == 2)
    finishes = {run: finish.answer for run, finish in ledger.finishes.items()}
    assert finishes == {"tenants/t/runs/a": "moved a by 1", "tenants/t/runs/b": "moved b by 1"}


class Summed(TypedDict):
    total: Annotated[int, lambda old, new: (old or 0) + new]


async def test_parallel_nodes_of_which_one_asks(host_of: Any, ledger: Any) -> None:
    async def left(state: Summed) -> dict[str, Any]:
        await move.ainvoke({"axis": "left"})
        return {"total": 1}

    async def right(state: Summed) -> dict[str, Any]:
        CALLS.append("right")
        return {"total": 10}

    graph = StateGraph(Summed)
    graph.add_node("left", left)
    graph.add_node("right", right)
    graph.add_edge(START, "left")
    graph.add_edge(START, "right")
    ledger.policy = {"move": "ask"}
    worker = await host_of(graph)
    await worker.assign({"total": 0})
    park = await worker.parked()
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    assert (await worker.finished()).output["total"] == 11
    assert CALLS == ["right", "left1"]
    assert [data["node"] for kind, data in ledger.events if kind == "NODE_FINISHED"] == ["right", "left"]
