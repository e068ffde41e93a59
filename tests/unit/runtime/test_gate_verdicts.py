"""What becomes of a call: refused, edited, failed, too large, too slow, stopped; and of the same call in a second
execution."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, ToolException, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from langgraph.types import Command, RetryPolicy, Send
from pydantic import BaseModel, field_validator

from fermata.agents.runtime import context
from fermata.agents.runtime.calls import Activity
from fermata.agents.runtime.errors import CallRefused
from fermata.v1 import agent_pb2, run_pb2, worker_pb2

CALLS: list[Any] = []
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@tool
async def move(axis: str, by: int = 1) -> str:
    """Move an axis."""
    CALLS.append((axis, by))
    return f"moved {axis} by {by}"


@tool
def smove(axis: str) -> str:
    """Move an axis, synchronously."""
    CALLS.append(axis)
    return f"moved {axis}"


def call(name: str, number: int = 1, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args, "id": f"c{number}", "type": "tool_call"}


def node_graph(act: Any, **options: Any) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(MessagesState)
    graph.add_node("act", act, **options)
    graph.add_edge(START, "act")
    return graph


def tool_graph(*calls: dict[str, Any], tools: list[Any], **options: Any) -> StateGraph[Any, Any, Any, Any]:
    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("because", tool_calls=list(calls))]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode(tools, **options))
    graph.add_edge(START, "think")
    graph.add_edge("think", "tools")
    return graph


def last(finish: worker_pb2.Finish) -> Any:
    messages: Any = finish.output["messages"]
    return messages[len(messages) - 1]


async def test_a_refused_call_is_answered_to_the_model(host_of: Any, ledger: Any) -> None:
    ledger.policy = {"move": "refuse"}
    worker = await host_of(tool_graph(call("move", axis="x"), tools=[move]))
    await worker.assign(HELLO)
    finish = await worker.finished()
    assert last(finish)["content"] == "move is forbidden."
    assert last(finish)["status"] == "error"
    assert CALLS == []


async def test_a_refused_call_inside_a_node_raises_with_its_reason(host_of: Any, ledger: Any) -> None:
    async def act(state: MessagesState) -> dict[str, Any]:
        with pytest.raises(CallRefused) as refused:
            await move.ainvoke({"axis": "x"})
        return {"messages": [AIMessage(refused.value.reason)]}

    ledger.policy = {"move": "refuse"}
    worker = await host_of(node_graph(act))
    await worker.assign(HELLO)
    assert (await worker.finished()).answer == "POLICY_DENIED"


async def test_edited_arguments_replace_the_models(host_of: Any, ledger: Any) -> None:
    ledger.edits = {"move": {"axis": "y", "by": 7}}
    worker = await host_of(tool_graph(call("move", axis="x"), tools=[move]))
    await worker.assign(HELLO)
    assert last(await worker.finished())["content"] == "moved y by 7"


async def test_edited_arguments_that_the_tool_does_not_take_are_refused(host_of: Any, ledger: Any) -> None:
    ledger.edits = {"move": {"axis": "y", "by": "far"}}
    worker = await host_of(tool_graph(call("move", axis="x"), tools=[move], handle_tool_errors=True))
    await worker.assign(HELLO)
    assert "does not take the edited arguments" in last(await worker.finished())["content"]
    assert CALLS == []
    assert [closed.outcome for closed in ledger.closed] == [run_pb2.STEP_OUTCOME_NOT_STARTED]


async def test_invalid_arguments_are_the_tools_own_error_and_reach_no_gate(host_of: Any, ledger: Any) -> None:
    worker = await host_of(tool_graph(call("move", axis="x", by="far"), tools=[move]))
    await worker.assign(HELLO)
    finish = await worker.finished()
    assert "by" in last(finish)["content"]
    assert last(finish)["status"] == "error"
    assert CALLS == []
    assert ledger.gates == []


async def test_a_tool_that_raises_fails_the_run_as_it_would_without_us(host_of: Any, ledger: Any) -> None:
    @tool
    async def broken() -> str:
        """Breaks."""
        raise ValueError("the gear is stuck")

    worker = await host_of(tool_graph(call("broken"), tools=[broken]))
    await worker.assign(HELLO)
    finish = await worker.finished()
    assert finish.error.reason == "GRAPH_RAISED"
    assert "the gear is stuck" in finish.error.message
    assert "raise ValueError" in finish.error.detail
    assert "agents/runtime" not in finish.error.detail
    assert [closed.outcome for closed in ledger.closed] == [run_pb2.STEP_OUTCOME_FAILED]
    assert "the gear is stuck" in ledger.closed[0].error


async def test_a_failure_on_record_fails_again_without_a_call(host_of: Any, ledger: Any) -> None:
    @tool
    async def broken() -> str:
        """Breaks."""
        CALLS.append("broken")
        raise ToolException("the gear is stuck")

    async def act(state: MessagesState) -> dict[str, Any]:
        try:
            await broken.ainvoke({})
        except ToolException as error:
            said = str(error)
        await move.ainvoke({"axis": "x"})
        return {"messages": [AIMessage(said)]}

    ledger.policy = {"move": "ask"}
    worker = await host_of(node_graph(act))
    await worker.assign(HELLO)
    park = await worker.parked()
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    assert (await worker.finished()).answer == "the gear is stuck"
    assert CALLS == ["broken", ("x", 1)]


async def test_ten_megabytes_are_on_record_as_done_and_told_as_too_large(host_of: Any, ledger: Any) -> None:
    @tool
    async def dump() -> str:
        """Too much."""
        return "x" * 10_000_000

    worker = await host_of(tool_graph(call("dump"), tools=[dump]))
    await worker.assign(HELLO)
    finish = await worker.finished()
    assert "TOOL_RESULT_TOO_LARGE" in last(finish)["content"]
    assert "10000" in last(finish)["content"]
    assert ledger.closed[0].outcome == run_pb2.STEP_OUTCOME_FINISHED
    assert ledger.closed[0].ByteSize() < 10_000


async def test_a_result_that_cant_be_kept_is_told(host_of: Any, ledger: Any) -> None:
    @tool(response_format="content_and_artifact")
    async def lock() -> tuple[str, Any]:
        """Returns a lock."""
        return "locked", threading.Lock()

    worker = await host_of(tool_graph(call("lock"), tools=[lock]))
    await worker.assign(HELLO)
    assert "can't be kept" in last(await worker.finished())["content"]


async def test_a_slow_async_tool_is_cancelled_at_its_limit(host_of: Any, ledger: Any) -> None:
    cancelled = asyncio.Event()

    @tool
    async def slow() -> str:
        """Slow."""
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "never"

    spec = agent_pb2.AgentSpec()
    spec.limits.tool_time.FromMilliseconds(50)
    worker = await host_of(tool_graph(call("slow"), tools=[slow], handle_tool_errors=True))
    await worker.assign(HELLO, spec=spec)
    assert "TOOL_TIMEOUT" in last(await worker.finished())["content"]
    assert cancelled.is_set()
    assert ledger.closed[0].outcome == run_pb2.STEP_OUTCOME_FAILED


async def test_a_slow_sync_tool_lets_its_agent_go_on(host_of: Any, ledger: Any) -> None:
    release = threading.Event()

    @tool
    def slow() -> str:
        """Slow."""
        release.wait(20)
        return "late"

    spec = agent_pb2.AgentSpec()
    spec.limits.tool_time.FromMilliseconds(50)
    worker = await host_of(tool_graph(call("slow"), tools=[slow], handle_tool_errors=True))
    await worker.assign(HELLO, spec=spec)
    await worker.until(lambda: ledger.closed)
    assert ledger.closed[0].outcome == run_pb2.STEP_OUTCOME_FAILED
    assert "TOOL_TIMEOUT" in ledger.closed[0].error
    release.set()
    assert "TOOL_TIMEOUT" in last(await worker.finished())["content"]


async def test_injected_state_is_part_of_the_digest_and_no_argument(host_of: Any, ledger: Any) -> None:
    @tool
    async def report(
        topic: str,
        state: Annotated[dict[str, Any], InjectedState],
        number: Annotated[str, InjectedToolCallId],
        runtime: ToolRuntime,
    ) -> str:
        """Reports."""
        CALLS.append(len(state["messages"]))
        return f"{topic} {number} {len(runtime.state['messages'])}"

    ledger.policy = {"report": "ask"}
    worker = await host_of(tool_graph(call("report", topic="heat"), tools=[report]))
    await worker.assign(HELLO)
    park = await worker.parked()
    first = ledger.gates[0]
    assert json.loads(first.args) == {"topic": "heat"}
    assert set(json.loads(first.args_schema)["properties"]) == {"topic"}
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    assert last(await worker.finished())["content"] == "heat c1 2"
    assert ledger.gates[1].digest == first.digest

    other = {"messages": [{"role": "user", "content": "something else"}]}
    ledger.finish = None
    await worker.assign(
        other,
        thread="tenants/t/threads/th2",
        lease=worker_pb2.Lease(run="tenants/t/runs/r2", epoch=1),
    )
    await worker.until(lambda: len(ledger.gates) == 3)
    assert ledger.gates[2].args == first.args
    assert ledger.gates[2].call_digest == first.call_digest
    assert ledger.gates[2].digest != first.digest


async def test_a_command_on_record_is_addressed_anew(host_of: Any, ledger: Any) -> None:
    @tool
    async def note(text: str, number: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Notes."""
        CALLS.append(text)
        return Command(update={"messages": [ToolMessage(f"noted {text}", tool_call_id=number)]})

    worker = await host_of(
        tool_graph(call("note", 1, text="a"), call("move", 2, axis="x"), tools=[note, move])
    )
    ledger.policy = {"move": "ask"}
    await worker.assign(HELLO)
    park = await worker.parked()
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    finish = await worker.finished()
    assert [m["content"] for m in finish.output["messages"]][2:] == ["noted a", "moved x by 1"]
    assert CALLS == ["a", ("x", 1)]


async def test_each_send_of_a_tool_call_passes_the_gate(host_of: Any, ledger: Any) -> None:
    async def think(state: MessagesState) -> dict[str, Any]:
        return {
            "messages": [AIMessage("", tool_calls=[call("move", 1, axis="x"), call("move", 2, axis="y")])]
        }

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode([move]))
    graph.add_edge(START, "think")
    graph.add_conditional_edges(
        "think", lambda state: [Send("tools", [c]) for c in state["messages"][-1].tool_calls], ["tools"]
    )
    ledger.policy = {"move": "ask"}
    worker = await host_of(graph)
    await worker.assign(HELLO)
    park = await worker.parked()
    assert len(park.asking_steps) == 2
    for step in park.asking_steps:
        ledger.approved[f"tenants/t/approvals/{step[:12]}"] = "approve"
    worker.resume()
    await worker.finished()
    assert sorted(CALLS) == [("x", 1), ("y", 1)]


async def test_equal_calls_of_one_task_are_told_apart(host_of: Any, ledger: Any) -> None:
    async def act(state: MessagesState) -> dict[str, Any]:
        await move.ainvoke({"axis": "x"})
        await move.ainvoke({"axis": "x"})
        await smove.ainvoke({"axis": "stop"})
        return {"messages": [AIMessage("done")]}

    ledger.policy = {"smove": "ask"}
    worker = await host_of(node_graph(act))
    await worker.assign(HELLO)
    park = await worker.parked()
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    await worker.finished()
    assert CALLS == [("x", 1), ("x", 1), "stop"]
    assert [gate.ordinal for gate in ledger.gates if gate.tool == "move"] == [0, 1, 0, 1]


async def test_a_retried_node_finds_its_calls_on_record(host_of: Any, ledger: Any) -> None:
    tries = []

    async def act(state: MessagesState) -> dict[str, Any]:
        said = await move.ainvoke({"axis": "x"})
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("flaky")
        return {"messages": [AIMessage(said)]}

    policy = RetryPolicy(initial_interval=0.001, jitter=False)
    worker = await host_of(node_graph(act, retry_policy=policy))
    await worker.assign(HELLO)
    assert (await worker.finished()).answer == "moved x by 1"
    assert len(tries) == 2
    assert CALLS == [("x", 1)]


async def test_a_state_changed_in_place_does_not_change_the_second_execution(
    host_of: Any, ledger: Any
) -> None:
    @tool
    async def count(state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Counts."""
        return str(len(state["messages"]))

    async def act(state: MessagesState) -> dict[str, Any]:
        state["messages"].append(AIMessage("scribbled"))
        said = await count.ainvoke({"state": {"messages": state["messages"]}})
        return {"messages": [AIMessage(said)]}

    ledger.policy = {"count": "ask"}
    worker = await host_of(node_graph(act))
    await worker.assign(HELLO)
    park = await worker.parked()
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    assert (await worker.finished()).answer == "2"


async def test_a_tool_with_a_run_of_its_own_passes_the_gate_once(host_of: Any, ledger: Any) -> None:
    class Loud(BaseTool):
        name: str = "loud"
        description: str = "Loud."

        def _run(self, text: str) -> str:
            CALLS.append(text)
            return text.upper()

        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            CALLS.append("run")
            return super().run(tool_input, *args, **kwargs)

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(Loud().invoke({"text": "a"}))]}

    worker = await host_of(node_graph(act), own_thread=True)
    await worker.assign(HELLO)
    assert (await worker.finished()).answer == "A"
    assert CALLS == ["run", "a"]
    assert len(ledger.gates) == 1


async def test_invalid_input_does_not_slip_past_the_gate_through_an_override(
    host_of: Any, ledger: Any
) -> None:
    class Careless(BaseTool):
        name: str = "careless"
        description: str = "Acts before it looks."

        def _run(self, number: int) -> str:
            return str(number)

        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            CALLS.append("acted")
            return "acted"

    class Number(BaseModel):
        number: int

    def act(state: MessagesState) -> dict[str, Any]:
        with pytest.raises(ValueError, match="number"):
            Careless(args_schema=Number).invoke({"number": "many"})
        return {"messages": [AIMessage("refused")]}

    worker = await host_of(node_graph(act))
    await worker.assign(HELLO)
    assert (await worker.finished()).answer == "refused"
    assert CALLS == []
    assert ledger.gates == []


async def test_a_sync_call_in_an_async_node_is_gated_though_it_blocks_the_loop(
    host_of: Any, ledger: Any
) -> None:
    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(smove.invoke({"axis": "x"}))]}

    ledger.policy = {"smove": "ask"}
    # A host of its own loop and thread, as in a process: the fake worker needs the test's.
    worker = await host_of(node_graph(act), own_thread=True)
    await worker.assign(HELLO)
    park = await worker.parked()
    assert CALLS == []
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    assert (await worker.finished()).answer == "moved x"


async def test_a_call_from_a_bare_thread_belongs_to_the_only_run(host_of: Any, ledger: Any) -> None:
    async def act(state: MessagesState) -> dict[str, Any]:
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append(smove.invoke({"axis": "x"})))
        thread.start()
        await asyncio.to_thread(thread.join)
        return {"messages": [AIMessage(said[0])]}

    worker = await host_of(node_graph(act))
    await worker.assign(HELLO)
    assert (await worker.finished()).answer == "moved x"
    assert len(ledger.gates) == 1


async def test_the_idempotency_key_is_there_inside_the_call_and_nowhere_else(
    host_of: Any, ledger: Any
) -> None:
    @tool
    async def pay() -> str:
        """Pays."""
        return context.idempotency_key()

    async def act(state: MessagesState) -> dict[str, Any]:
        inside = await pay.ainvoke({})
        return {"messages": [AIMessage(f"{inside}|{context.idempotency_key()}")]}

    worker = await host_of(node_graph(act))
    await worker.assign(HELLO)
    assert (await worker.finished()).answer == f"key-{ledger.gates[0].step[:8]}|"


async def test_a_tool_inside_a_tool_asks_without_waiting_for_itself(host_of: Any, ledger: Any) -> None:
    @tool
    async def outer() -> str:
        """Calls another."""
        return str(await move.ainvoke({"axis": "z"}))

    ledger.policy = {"move": "ask"}
    worker = await host_of(tool_graph(call("outer", 1), call("smove", 2, axis="s"), tools=[outer, smove]))
    await worker.assign(HELLO)
    park = await worker.parked()
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    finish = await worker.finished()
    assert "moved z by 1" in [m["content"] for m in finish.output["messages"]]
    assert CALLS == ["s", ("z", 1)]


async def _asks_and_is_executed_again(worker: Any, ledger: Any) -> None:
    park = await worker.parked()
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    await worker.finished()


@pytest.mark.parametrize("when", ["while it is parked", "in the next execution, ahead of that one's own"])
async def test_a_call_that_a_parked_execution_has_left_behind_is_made_once(
    host_of: Any, ledger: Any, when: str
) -> None:
    late, came = asyncio.Event(), asyncio.Event()
    entered = 0

    async def left_behind() -> str:
        await late.wait()
        try:
            return str(await move.ainvoke({"axis": "x"}))
        finally:
            came.set()

    async def act(state: MessagesState) -> dict[str, Any]:
        nonlocal entered
        entered += 1
        if entered == 2:
            late.set()
            await came.wait()
        said = await asyncio.gather(smove.ainvoke({"axis": "y"}), left_behind())
        return {"messages": [AIMessage(" and ".join(said))]}

    ledger.policy = {"smove": "ask"}
    worker = await host_of(node_graph(act))
    await worker.assign(HELLO)
    await worker.parked()
    if when == "while it is parked":
        late.set()
        await came.wait()
        assert CALLS == []
    await _asks_and_is_executed_again(worker, ledger)
    assert ledger.finish.answer == "moved y and moved x by 1"
    assert sorted(CALLS, key=str) == [("x", 1), "y"]
    assert [gate.ordinal for gate in ledger.gates if gate.tool == "move"] == [0]


async def test_a_call_that_is_slow_on_its_way_to_its_gate_is_asked_about_beside_its_sibling(
    host_of: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sibling_waits = threading.Event()
    pause = Activity.pause

    def pausing(activity: Activity, moving: Any) -> Any:
        paused = pause(activity, moving)
        if not paused.done():
            sibling_waits.set()
        return paused

    class Axis(BaseModel):
        axis: str

        @field_validator("axis")
        @classmethod
        def slowly(cls, axis: str) -> str:
            assert axis != "slow" or sibling_waits.wait(10)
            return axis

    @tool(args_schema=Axis)
    def turn(axis: str) -> str:
        """Turn an axis."""
        CALLS.append(axis)
        return f"turned {axis}"

    monkeypatch.setattr(Activity, "pause", pausing)
    ledger.policy = {"turn": "ask"}
    calls = [call("turn", 1, axis="quick"), call("turn", 2, axis="slow")]
    worker = await host_of(tool_graph(*calls, tools=[turn]))
    await worker.assign(HELLO)
    park = await worker.parked()
    assert len(park.asking_steps) == 2
    for step in park.asking_steps:
        ledger.approved[f"tenants/t/approvals/{step[:12]}"] = "approve"
    worker.resume()
    await worker.finished()
    assert sorted(CALLS) == ["quick", "slow"]


async def test_a_call_that_differs_in_a_second_execution_is_in_the_place_of_the_first(
    host_of: Any, ledger: Any
) -> None:
    stamps = iter(range(100))

    async def act(state: MessagesState) -> dict[str, Any]:
        for _ in range(2):
            await move.ainvoke({"axis": f"x{next(stamps)}"})
        await smove.ainvoke({"axis": "y"})
        return {"messages": [AIMessage("done")]}

    ledger.policy = {"smove": "ask"}
    worker = await host_of(node_graph(act))
    await worker.assign(HELLO)
    await _asks_and_is_executed_again(worker, ledger)
    moves = [gate for gate in ledger.gates if gate.tool == "move"]
    assert [gate.place for gate in moves[:2]] == [gate.place for gate in moves[2:]]
    assert moves[0].place != moves[1].place
    assert len({gate.digest for gate in moves}) == len({gate.step for gate in moves}) == 4


async def test_the_place_of_a_call_that_the_state_asks_for_is_its_id_whatever_the_order(
    host_of: Any, ledger: Any
) -> None:
    order = [0, 1, 1, 0]

    async def act(state: MessagesState) -> dict[str, Any]:
        asked = next(m for m in state["messages"] if isinstance(m, AIMessage)).tool_calls
        for _ in range(2):
            await move.ainvoke(asked[order.pop(0)])
        await smove.ainvoke({"axis": "y"})
        return {"messages": [AIMessage("done")]}

    async def think(state: MessagesState) -> dict[str, Any]:
        calls = [call("move", 1, axis="a"), call("move", 2, axis="b")]
        return {"messages": [AIMessage("because", tool_calls=calls)]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("act", act)
    graph.add_edge(START, "think")
    graph.add_edge("think", "act")
    ledger.policy = {"smove": "ask"}
    worker = await host_of(graph)
    await worker.assign(HELLO)
    await _asks_and_is_executed_again(worker, ledger)
    places = [(gate.tool_call_id, gate.place) for gate in ledger.gates if gate.tool == "move"]
    assert [id_ for id_, _ in places] == ["c1", "c2", "c2", "c1"]
    assert len(set(places)) == 2


async def test_ids_that_no_message_of_the_state_has_make_no_place(host_of: Any, ledger: Any) -> None:
    numbers = iter(range(1, 100))

    async def act(state: MessagesState) -> dict[str, Any]:
        await move.ainvoke(call("move", next(numbers), axis="a"))
        await smove.ainvoke({"axis": "y"})
        return {"messages": [AIMessage("done")]}

    ledger.policy = {"smove": "ask"}
    worker = await host_of(node_graph(act))
    await worker.assign(HELLO)
    await _asks_and_is_executed_again(worker, ledger)
    moves = [gate for gate in ledger.gates if gate.tool == "move"]
    assert len({gate.tool_call_id for gate in moves}) == 2
    assert len({gate.place for gate in moves}) == 1


async def test_calls_inside_of_calls_have_places_of_their_own(host_of: Any, ledger: Any) -> None:
    @tool
    async def outer(axis: str) -> str:
        """Calls another."""
        return str(await move.ainvoke({"axis": axis}))

    worker = await host_of(tool_graph(call("outer", 1, axis="a"), call("outer", 2, axis="b"), tools=[outer]))
    await worker.assign(HELLO)
    await worker.finished()
    assert len({gate.place for gate in ledger.gates}) == len(ledger.gates) == 4
