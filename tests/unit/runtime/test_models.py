"""Calls of chat models: on record, and told as they are written."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from fermata.v1 import worker_pb2

CALLS: list[str] = []
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@tool
async def move(axis: str) -> str:
    """Move an axis."""
    CALLS.append(axis)
    return f"moved {axis}"


class Writer(BaseChatModel):
    """Writes word by word, and a tool call at the end."""

    @property
    def _llm_type(self) -> str:
        return "writer"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        CALLS.append("model")
        for word in ("to ", "be ", "sure"):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        chunk = tool_call_chunk(name="move", args='{"axis": "m"}', id="c1", index=0)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))


def graph_of(act: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("act", act)
    graph.add_edge(START, "act")
    return graph


async def asks_and_then_moves(host_of: Any, ledger: Any, act: Any) -> Any:
    """Run a node that asks a model and then a person, so that it is executed twice."""
    ledger.policy = {"move": "ask"}
    worker = await host_of(graph_of(act))
    await worker.assign(HELLO)
    park = await worker.parked()
    ledger.approved[f"tenants/t/approvals/{park.asking_steps[0][:12]}"] = "approve"
    worker.resume()
    finish = await worker.finished()
    assert not finish.HasField("error"), finish.error
    return finish


async def test_an_answer_is_asked_for_once_and_recorded_whole(host_of: Any, ledger: Any) -> None:
    seen = []

    async def act(state: MessagesState) -> dict[str, Any]:
        answer = await Writer().ainvoke("what?")
        seen.append((answer.text, answer.tool_calls, answer.id))
        await move.ainvoke({"axis": "x"})
        return {"messages": [AIMessage(answer.text)]}

    finish = await asks_and_then_moves(host_of, ledger, act)
    assert finish.answer == "to be sure"
    assert CALLS == ["model", "x"]
    assert seen[0] == seen[1]
    assert seen[0][1][0]["name"] == "move"
    assert "".join(delta.text for delta in ledger.deltas) == "to be sure"


async def test_a_stream_that_a_node_reads_by_itself_is_recorded_too(host_of: Any, ledger: Any) -> None:
    seen = []

    async def act(state: MessagesState) -> dict[str, Any]:
        whole: Any = None
        async for chunk in Writer().astream("what?"):
            whole = chunk if whole is None else whole + chunk
        seen.append((whole.text, whole.tool_calls))
        await move.ainvoke({"axis": "x"})
        return {"messages": [AIMessage(whole.text)]}

    finish = await asks_and_then_moves(host_of, ledger, act)
    assert finish.answer == "to be sure"
    assert CALLS == ["model", "x"]
    assert seen[0] == seen[1]
    assert "".join(delta.text for delta in ledger.deltas) == "to be sure"


async def test_a_sync_node_streams_and_is_recorded(host_of: Any, ledger: Any) -> None:
    def act(state: MessagesState) -> dict[str, Any]:
        text = "".join(chunk.text for chunk in Writer().stream("what?"))
        move_sync.invoke({"axis": "x"})
        return {"messages": [AIMessage(text)]}

    @tool("move")
    def move_sync(axis: str) -> str:
        """Move an axis."""
        CALLS.append(axis)
        return axis

    finish = await asks_and_then_moves(host_of, ledger, act)
    assert finish.answer == "to be sure"
    assert CALLS == ["model", "x"]


async def test_another_question_is_another_call(host_of: Any, ledger: Any) -> None:
    executions = []

    async def act(state: MessagesState) -> dict[str, Any]:
        executions.append(1)
        answer = await Writer().ainvoke([HumanMessage(f"question {len(executions)}")])
        await move.ainvoke({"axis": "x"})
        return {"messages": [AIMessage(answer.text)]}

    await asks_and_then_moves(host_of, ledger, act)
    assert CALLS == ["model", "model", "x"]


async def test_two_equal_questions_of_one_task_are_two_calls(host_of: Any, ledger: Any) -> None:
    async def act(state: MessagesState) -> dict[str, Any]:
        for _ in range(2):
            await Writer().ainvoke("what?")
        return {"messages": []}

    worker = await host_of(graph_of(act))
    await worker.assign(HELLO)
    await worker.finished()
    assert CALLS == ["model", "model"]
    assert len(ledger.models) == 2


async def test_langchains_own_fakes_keep_their_tool_calls(host_of: Any, ledger: Any) -> None:
    async def act(state: MessagesState) -> dict[str, Any]:
        call = {"name": "move", "args": {"axis": "x"}, "id": "c1", "type": "tool_call"}
        fake = GenericFakeChatModel(messages=iter([AIMessage("said", tool_calls=[call])]))
        return {"messages": [await fake.ainvoke("what?")]}

    worker = await host_of(graph_of(act))
    await worker.assign(HELLO)
    finish = await worker.finished()
    assert finish.output["messages"][1]["tool_calls"][0]["name"] == "move"
    assert isinstance(next(iter(ledger.models.values())), worker_pb2.ModelRecord)


async def test_the_tokens_that_a_model_says_it_used_are_told_with_its_record(
    host_of: Any, ledger: Any
) -> None:
    used = AIMessage("hello", usage_metadata={"input_tokens": 7, "output_tokens": 5, "total_tokens": 12})

    async def act(state: MessagesState) -> dict[str, Any]:
        answers = [
            await GenericFakeChatModel(messages=iter([message])).ainvoke("hi")
            for message in (used, AIMessage("silent"))
        ]
        return {"messages": answers}

    worker = await host_of(graph_of(act))
    await worker.assign(HELLO)
    await worker.finished()
    assert [record.tokens for record in ledger.models.values()] == [12, 0]
