"""Holds and halts inside a host, and a lease that is lost."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from fermata.agents.runtime import execution
from fermata.agents.runtime.errors import ToolTimeout
from fermata.agents.runtime.host import Host
from fermata.agents.runtime.run import ActiveRun
from fermata.v1 import agent_pb2, run_pb2, worker_pb2

CALLS: list[Any] = []
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
HOLD, HALT = worker_pb2.STOP_MODE_HOLD, worker_pb2.STOP_MODE_HALT


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@tool
async def move(axis: str) -> str:
    """Move an axis."""
    CALLS.append(axis)
    return f"moved {axis}"


def chain(*nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(MessagesState)
    before = START
    for number, node in enumerate(nodes):
        graph.add_node(f"n{number}", node)
        graph.add_edge(before, f"n{number}")
        before = f"n{number}"
    return graph


async def calls_move(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(await move.ainvoke({"axis": "x"}))]}


async def test_a_hold_at_the_gate_parks_and_a_resume_goes_on(host_of: Any, ledger: Any) -> None:
    ledger.policy = {"move": "hold"}
    worker = await host_of(chain(calls_move))
    await worker.assign(HELLO)
    park = await worker.parked()
    assert park.latch == "tenants/t/latches/hold"
    assert not park.asking_steps
    assert not park.interrupts
    ledger.policy = {}
    worker.resume()
    assert (await worker.finished()).answer == "moved x"
    assert CALLS == ["x"]


async def test_a_stop_without_a_latch_parks_with_nothing_to_ask(host_of: Any, ledger: Any) -> None:
    ledger.on_gate = lambda gate: worker_pb2.GateAnswer(verdict=worker_pb2.GATE_VERDICT_STOP)
    worker = await host_of(chain(calls_move))
    await worker.assign(HELLO)
    park = await worker.parked()
    assert not park.latch
    assert not park.interrupts


async def test_a_hold_between_super_steps_parks_and_goes_on_from_there(host_of: Any, ledger: Any) -> None:
    in_first, go_on = asyncio.Event(), asyncio.Event()

    async def first(state: MessagesState) -> dict[str, Any]:
        CALLS.append("first")
        in_first.set()
        await go_on.wait()
        return {"messages": [AIMessage("one")]}

    async def second(state: MessagesState) -> dict[str, Any]:
        CALLS.append("second")
        return {"messages": [AIMessage("two")]}

    worker = await host_of(chain(first, second))
    await worker.assign(HELLO)
    await in_first.wait()
    worker.stop(HOLD, "tenants/t/latches/h")
    await asyncio.sleep(0.02)
    go_on.set()
    park = await worker.parked()
    assert park.latch == "tenants/t/latches/h"
    assert not park.interrupts
    assert CALLS == ["first"]
    worker.resume()
    assert (await worker.finished()).answer == "two"
    assert CALLS == ["first", "second"]


async def test_a_hold_that_is_lifted_before_the_boundary_changes_nothing(host_of: Any, ledger: Any) -> None:
    in_first, go_on = asyncio.Event(), asyncio.Event()

    async def first(state: MessagesState) -> dict[str, Any]:
        in_first.set()
        await go_on.wait()
        return {"messages": [AIMessage("one")]}

    worker = await host_of(chain(first, calls_move))
    await worker.assign(HELLO)
    await in_first.wait()
    worker.stop(HOLD)
    worker.stop(worker_pb2.STOP_MODE_CONTINUE)
    await asyncio.sleep(0.02)
    go_on.set()
    assert (await worker.finished()).answer == "moved x"
    assert not ledger.parks


async def test_a_hold_that_comes_with_the_assignment_is_not_lost(host_of: Any, ledger: Any) -> None:
    worker = await host_of(chain(calls_move))
    await worker.assign(HELLO)
    worker.stop(HOLD, "tenants/t/latches/h")
    park = await worker.parked()
    assert park.latch == "tenants/t/latches/h"
    assert ledger.gates == []
    worker.resume()
    assert (await worker.finished()).answer == "moved x"


async def test_a_hold_right_after_a_resume_holds(host_of: Any, ledger: Any) -> None:
    async def second(state: MessagesState) -> dict[str, Any]:
        CALLS.append("second")
        return {"messages": [AIMessage("two")]}

    ledger.policy = {"move": "hold"}
    worker = await host_of(chain(calls_move, second))
    await worker.assign(HELLO)
    await worker.parked()
    ledger.policy = {}
    worker.resume()
    worker.stop(HOLD, "tenants/t/latches/h2")
    park = await worker.parked(2)
    assert park.latch == "tenants/t/latches/h2"
    assert "second" not in CALLS
    worker.resume()
    assert (await worker.finished()).answer == "two"


async def test_a_run_whose_thread_never_ends_is_over_and_its_host_ends_too(
    host_of: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "STUCK_SECONDS", 0.05)
    release = threading.Event()

    @tool
    def slow() -> str:
        """Slow."""
        release.wait(20)
        return "late"

    async def act(state: MessagesState) -> dict[str, Any]:
        try:
            await slow.ainvoke({})
        except ToolTimeout:
            return {"messages": [AIMessage("gave up")]}
        return {}

    spec = agent_pb2.AgentSpec()
    spec.limits.tool_time.FromMilliseconds(20)
    worker = await host_of(chain(act))
    await worker.assign(HELLO, spec=spec)
    assert (await worker.finished()).answer == "gave up"
    await worker.until(lambda: worker.closed)
    release.set()


async def test_a_graphs_own_breakpoint_waits_for_a_person(host_of: Any, ledger: Any) -> None:
    async def first(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("one")]}

    worker = await host_of(chain(first, calls_move).compile(interrupt_before=["n1"]))
    await worker.assign(HELLO)
    park = await worker.parked()
    assert [question.interrupt_id for question in park.interrupts] == ["breakpoint"]
    worker.resume({"breakpoint": "go on"})
    assert (await worker.finished()).answer == "moved x"


async def test_a_halt_cancels_an_async_tool_and_is_answered_when_nothing_moves(
    host_of: Any, ledger: Any
) -> None:
    started = asyncio.Event()

    @tool
    async def long() -> str:
        """Long."""
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            CALLS.append("cancelled")
        return "never"

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(await long.ainvoke({}))]}

    worker = await host_of(chain(act, calls_move))
    await worker.assign(HELLO)
    await started.wait()
    worker.stop(HALT)
    await worker.until(lambda: ledger.stopped)
    assert CALLS == ["cancelled"]
    assert [closed.outcome for closed in ledger.closed] == [run_pb2.STEP_OUTCOME_FAILED]
    assert not ledger.stopped[0].not_started
    assert ledger.finish is None
    assert ledger.starts("move") == 0


@pytest.mark.parametrize("ends_in_time", [True, False])
async def test_a_call_may_end_by_itself_while_a_halted_run_drains_and_nothing_starts(
    host_of: Any, ledger: Any, ends_in_time: bool
) -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    @tool
    async def long() -> str:
        """Long."""
        started.set()
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            CALLS.append("cancelled")
            raise
        return "ended"

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(await long.ainvoke({}))]}

    limits = agent_pb2.RunLimits()
    limits.drain_time.FromMilliseconds(60_000 if ends_in_time else 1)
    worker = await host_of(chain(act, calls_move))
    await worker.assign(HELLO, spec=agent_pb2.AgentSpec(limits=limits))
    await started.wait()
    worker.stop(HALT)
    if ends_in_time:
        may_end.set()
    await worker.until(lambda: ledger.stopped)
    assert ([] if ends_in_time else ["cancelled"]) == CALLS
    expected = run_pb2.STEP_OUTCOME_FINISHED if ends_in_time else run_pb2.STEP_OUTCOME_FAILED
    assert [closed.outcome for closed in ledger.closed] == [expected]
    assert ledger.starts("move") == 0


async def test_a_halt_is_answered_right_behind_the_end_of_what_it_cut_off(host_of: Any, ledger: Any) -> None:
    started = asyncio.Event()

    @tool
    async def long() -> str:
        """Long."""
        started.set()
        await asyncio.sleep(60)
        return "never"

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(await long.ainvoke({}))]}

    ledger.unanswered = {"step_closed"}
    worker = await host_of(chain(act))
    await worker.assign(HELLO)
    await started.wait()
    worker.stop(HALT)
    await worker.until(lambda: ledger.stopped)
    assert len(ledger.closed) == 1, "told before the answer, although nobody said that it is on record"


async def test_a_permit_that_a_halt_overtakes_is_given_back(host_of: Any, ledger: Any) -> None:
    worker = await host_of(chain(calls_move))

    def halt_first(gate: worker_pb2.Gate) -> None:
        # On the wire the halt comes before the permit.
        worker.stop(HALT)

    ledger.on_gate = halt_first
    await worker.assign(HELLO)
    await worker.until(lambda: ledger.stopped)
    assert CALLS == []
    assert list(ledger.stopped[0].not_started) == [ledger.gates[0].step]
    assert [closed.outcome for closed in ledger.closed] == [run_pb2.STEP_OUTCOME_NOT_STARTED]


async def test_a_halt_is_not_answered_while_a_thread_of_the_run_moves(host_of: Any, ledger: Any) -> None:
    started, release = threading.Event(), threading.Event()

    @tool
    def grind() -> str:
        """Grinds."""
        started.set()
        release.wait(20)
        CALLS.append("ground")
        return "ground"

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(await grind.ainvoke({}))]}

    worker = await host_of(chain(act, calls_move))
    await worker.assign(HELLO)
    await asyncio.to_thread(started.wait, 5)
    worker.stop(HALT)
    await asyncio.sleep(0.1)
    assert not ledger.stopped
    assert not ledger.closed
    release.set()
    await worker.until(lambda: ledger.stopped)
    assert [closed.outcome for closed in ledger.closed] == [run_pb2.STEP_OUTCOME_FINISHED]
    assert ledger.starts("move") == 0


async def test_a_halt_reaches_the_latch_while_user_code_blocks_the_loop(host_of: Any, ledger: Any) -> None:
    started, release = threading.Event(), threading.Event()

    async def act(state: MessagesState) -> dict[str, Any]:
        started.set()
        release.wait(20)
        return {"messages": [AIMessage(await move.ainvoke({"axis": "x"}))]}

    worker = await host_of(chain(act), own_thread=True)
    await worker.assign(HELLO)
    await asyncio.to_thread(started.wait, 5)
    worker.stop(HALT)
    await asyncio.sleep(0.05)
    release.set()
    await worker.until(lambda: ledger.stopped)
    assert ledger.gates == []
    assert CALLS == []


async def test_a_halt_of_a_parked_run_is_answered(host_of: Any, ledger: Any) -> None:
    ledger.policy = {"move": "ask"}
    worker = await host_of(chain(calls_move))
    await worker.assign(HELLO)
    await worker.parked()
    worker.stop(HALT)
    await worker.until(lambda: ledger.stopped)
    worker.resume()
    await asyncio.sleep(0.05)
    assert CALLS == []


async def test_an_agent_that_swallows_errors_does_not_swallow_a_halt(host_of: Any, ledger: Any) -> None:
    async def act(state: MessagesState) -> dict[str, Any]:
        try:
            await move.ainvoke({"axis": "x"})
        except Exception:
            CALLS.append("swallowed")
        return {"messages": []}

    ledger.policy = {"move": "halt"}
    worker = await host_of(chain(act, calls_move))
    await worker.assign(HELLO)
    await worker.until(lambda: ledger.gates)
    worker.stop(HALT)
    await worker.until(lambda: ledger.stopped)
    assert CALLS == []
    assert len(ledger.gates) == 1
    assert ledger.finish is None


async def test_generation_stops_between_two_tokens(host_of: Any, ledger: Any) -> None:
    halted = threading.Event()

    class Endless(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "endless"

        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            raise NotImplementedError

        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            for number in range(1_000_000):
                CALLS.append(number)
                halted.wait(0.002)
                yield ChatGenerationChunk(message=AIMessageChunk(content=f"{number} "))

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await Endless().ainvoke("count")]}

    worker = await host_of(chain(act))
    await worker.assign(HELLO)
    await worker.until(lambda: ledger.deltas)
    assert ledger.deltas[0].text.startswith("0 1")
    assert ledger.deltas[0].run == "tenants/t/runs/r1"
    worker.stop(HALT)
    await worker.until(lambda: ledger.stopped)
    count = len(CALLS)
    await asyncio.sleep(0.05)
    assert len(CALLS) == count


async def test_a_refused_commit_stops_the_run_without_another_word(host_of: Any, ledger: Any) -> None:
    go_on = asyncio.Event()

    async def first(state: MessagesState) -> dict[str, Any]:
        await go_on.wait()
        return {"messages": [AIMessage("one")]}

    worker = await host_of(chain(first, calls_move))
    await worker.assign(HELLO)
    await worker.until(lambda: ledger.checkpoints)
    ledger.refuse_commits = run_pb2.RunError(reason="STALE_EPOCH", message="another host has the run")
    go_on.set()
    await asyncio.sleep(0.2)
    assert CALLS == []
    assert ledger.finish is None
    assert ledger.starts("move") == 0


@pytest.mark.parametrize("lost", ["told by its worker", "found by itself"])
async def test_a_call_that_a_lost_lease_cancels_is_in_doubt_and_not_a_failure(
    host_of: Any, ledger: Any, lost: str
) -> None:
    started = asyncio.Event()

    @tool
    async def long() -> str:
        """Long."""
        started.set()
        await asyncio.sleep(60)
        return "never"

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(await long.ainvoke({}))]}

    async def refused(state: MessagesState) -> dict[str, Any]:
        await started.wait()
        ledger.refuse_commits = run_pb2.RunError(reason="STALE_EPOCH", message="Another worker has the run.")
        await move.ainvoke({"axis": "x"})
        return {}

    def beside(state: MessagesState) -> list[str]:
        return ["act", "refused"] if lost == "found by itself" else ["act"]

    graph = StateGraph(MessagesState).add_node("act", act).add_node("refused", refused)
    graph.add_conditional_edges(START, beside, ["act", "refused"])
    worker = await host_of(graph)
    await worker.assign(HELLO)
    await started.wait()
    if lost == "found by itself":
        await worker.until(lambda: ledger.refuse_commits)
    worker.stop(worker_pb2.STOP_MODE_DROP)
    await worker.until(lambda: ledger.stopped)
    assert ledger.closed == [], "who has the run now would take it for the call's own failure"
    assert "long" not in CALLS


async def test_a_lost_lease_is_answered_when_the_thread_of_its_call_is_done(
    host_of: Any, ledger: Any
) -> None:
    started, go_on = threading.Event(), threading.Event()

    def work() -> str:
        started.set()
        assert go_on.wait(10)
        return "done after all"

    @tool
    async def long() -> str:
        """Long."""
        return await asyncio.to_thread(work)

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(await long.ainvoke({}))]}

    worker = await host_of(chain(act))
    await worker.assign(HELLO)
    await asyncio.to_thread(started.wait)
    worker.stop(worker_pb2.STOP_MODE_DROP)
    await worker.assign(HELLO, lease=worker_pb2.Lease(run="tenants/t/runs/r2", epoch=1), thread="th2")
    await worker.until(lambda: ledger.starts("long") == 2)
    assert not ledger.stopped, "something of it moves"
    go_on.set()
    await worker.until(lambda: ledger.stopped)
    assert [closed.outcome for closed in ledger.closed][:1] == [run_pb2.STEP_OUTCOME_FINISHED]


async def test_a_stop_is_answered_though_its_run_is_over_before_the_loop_hears_of_it(
    host_of: Any, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = asyncio.Event()

    async def act(state: MessagesState) -> dict[str, Any]:
        started.set()
        await asyncio.sleep(60)
        return {}

    is_over = threading.Event()
    stop, forget = ActiveRun.stop, Host._forget

    def stopping(run: ActiveRun, cause: str, *, silent: bool = False) -> None:
        stop(run, cause, silent=silent)
        assert is_over.wait(10)

    def forgetting(host: Host, run: ActiveRun) -> None:
        forget(host, run)
        is_over.set()

    monkeypatch.setattr(ActiveRun, "stop", stopping)
    monkeypatch.setattr(Host, "_forget", forgetting)
    worker = await host_of(chain(act))
    await worker.assign(HELLO)
    await started.wait()
    worker.stop(worker_pb2.STOP_MODE_DROP)
    await worker.until(lambda: ledger.stopped)


@pytest.mark.parametrize("never_answered", ["gate", "step_closed"])
async def test_a_lost_lease_is_answered_though_nobody_answers_what_was_asked_under_it(
    host_of: Any, ledger: Any, never_answered: str
) -> None:
    started = asyncio.Event()

    @tool
    async def long() -> str:
        """Long, and can't be stopped."""
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "done after all"

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(await long.ainvoke({}))]}

    ledger.unanswered = {never_answered}
    worker = await host_of(chain(act))
    await worker.assign(HELLO)
    await (worker.until(lambda: ledger.gates) if never_answered == "gate" else started.wait())
    worker.stop(worker_pb2.STOP_MODE_DROP)
    await worker.until(lambda: ledger.stopped)
    assert started.is_set() == bool(ledger.closed) == (never_answered == "step_closed")


async def test_a_lost_lease_still_tells_how_its_call_ended(host_of: Any, ledger: Any) -> None:
    started = asyncio.Event()

    @tool
    async def long() -> str:
        """Long, and can't be stopped."""
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            CALLS.append("long")
        return "done after all"

    async def act(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(await long.ainvoke({}))]}

    worker = await host_of(chain(act))
    await worker.assign(HELLO)
    await started.wait()
    await worker.until(lambda: ledger.order[-1:] == ["start long"])
    worker.stop(worker_pb2.STOP_MODE_DROP)
    await worker.until(lambda: ledger.closed)
    assert ledger.closed[0].outcome == run_pb2.STEP_OUTCOME_FINISHED
    await asyncio.sleep(0.05)
    assert ledger.finish is None
    assert not ledger.parks
