"""The checkpointer: what it commits, and that what it commits is what is read back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from fermata.agents.runtime.checkpointer import ChannelCheckpointSaver, UnsupportedError
from fermata.agents.runtime.errors import StateNotSerializableError
from fermata.agents.runtime.run import ActiveRun
from fermata.v1 import worker_pb2

V = worker_pb2
THREAD = "tenants/t/threads/own"


class LedgerWire:
    """Answers at once, from a ledger."""

    def __init__(self, ledger: Any) -> None:
        self.ledger = ledger
        self.kinds: list[str | None] = []

    def request(self, message: V.HostMessage) -> Future[V.HostReply]:
        self.kinds.append(message.WhichOneof("body"))
        self.ledger.commit(THREAD, message.commit)
        reply = V.HostReply()
        if message.WhichOneof("body") == "checkpoint_query":
            assert not message.HasField("commit"), "what only reads commits nothing"
            reply.checkpoints.CopyFrom(self.ledger.read(THREAD, message.checkpoint_query))
        answer: Future[V.HostReply] = Future()
        answer.set_result(reply)
        return answer


def saver(ledger: Any, *, fresh: bool = False) -> tuple[ChannelCheckpointSaver, ActiveRun]:
    run = ActiveRun(LedgerWire(ledger), V.Assign(thread=THREAD))  # type: ignore[arg-type]
    return ChannelCheckpointSaver(run, fresh=fresh), run


class State(TypedDict):
    numbers: Annotated[list[int], lambda old, new: old + new]
    note: str


def graph(checkpointer: ChannelCheckpointSaver) -> Any:
    async def first(state: State) -> dict[str, Any]:
        return {"numbers": [1], "note": "first"}

    async def second(state: State) -> dict[str, Any]:
        return {"numbers": [interrupt("which?")]}

    built = StateGraph(State)
    built.add_node("first", first)
    built.add_node("second", second)
    built.add_edge(START, "first")
    built.add_edge("first", "second")
    return built.compile(checkpointer=checkpointer)


CONFIG: Any = {"configurable": {"thread_id": THREAD}}


async def test_another_host_reads_what_the_first_one_committed(ledger: Any) -> None:
    writer, run = saver(ledger, fresh=True)
    await graph(writer).ainvoke({"numbers": [0], "note": ""}, CONFIG, durability="sync")
    assert run.has_uncommitted
    run.send().result()
    mine = await writer.aget_tuple(CONFIG)
    reader, _ = saver(ledger)
    theirs = await reader.aget_tuple(CONFIG)
    assert mine is not None
    assert theirs is not None
    assert theirs == mine
    assert theirs.checkpoint["channel_values"]["numbers"] == [0, 1]
    assert [channel for _, channel, _ in theirs.pending_writes or []] == ["__interrupt__"]
    result = await graph(reader).ainvoke(Command(resume=7), CONFIG, durability="sync")
    assert result["numbers"] == [0, 1, 7]


async def test_only_channels_that_changed_are_committed(ledger: Any) -> None:
    writer, run = saver(ledger, fresh=True)
    puts: list[V.CheckpointPut] = []
    commit = ledger.commit

    def note(thread: str, what: V.Commit) -> None:
        puts.extend(what.checkpoints)
        commit(thread, what)

    ledger.commit = note
    await graph(writer).ainvoke({"numbers": [0], "note": "long " * 1000}, CONFIG, durability="sync")
    run.send().result()
    changed = [{blob.channel for blob in put.channels} for put in puts]
    assert "note" in changed[1]
    assert puts[-1].channel_versions["note"]
    assert all(blob.channel != "note" or blob.value.data for put in puts for blob in put.channels)
    assert sum("note" in channels for channels in changed) == 2


async def test_the_history_is_listed_newest_first(ledger: Any) -> None:
    writer, run = saver(ledger, fresh=True)
    app = graph(writer)
    await app.ainvoke({"numbers": [0], "note": ""}, CONFIG, durability="sync")
    run.send().result()
    history = [snapshot async for snapshot in app.aget_state_history(CONFIG)]
    assert [snapshot.metadata["step"] for snapshot in history] == [1, 0, -1]
    older = [row async for row in writer.alist(CONFIG, before=history[0].config, limit=1)]
    assert [row.metadata["step"] for row in older] == [0]
    assert [row.metadata["step"] for row in writer.list(CONFIG, filter={"step": 0})] == [0]


async def test_memory_gives_what_was_stored_and_not_what_became_of_it(ledger: Any) -> None:
    writer, _ = saver(ledger, fresh=True)
    message = HumanMessage("as stored", id="1")

    async def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("b")]}

    built = StateGraph(MessagesState)
    built.add_node("n", node)
    built.add_edge(START, "n")
    await built.compile(checkpointer=writer).ainvoke({"messages": [message]}, CONFIG, durability="sync")
    message.content = "scribbled over"
    found = await writer.aget_tuple(CONFIG)
    assert found is not None
    assert found.checkpoint["channel_values"]["messages"][0].content == "as stored"


def test_a_value_that_cant_be_stored_names_its_channel_and_fails_the_run(ledger: Any) -> None:
    writer, run = saver(ledger)
    with pytest.raises(StateNotSerializableError, match="'lock'") as refused:
        writer.put_writes(
            {"configurable": {"thread_id": THREAD, "checkpoint_ns": "", "checkpoint_id": "1"}},
            [("lock", threading.Lock())],
            "task",
        )
    assert refused.value.channel == "lock"
    assert run.failure is refused.value


def test_a_run_cant_change_what_is_stored_of_its_own_thread(ledger: Any) -> None:
    writer, run = saver(ledger)
    attempts: tuple[Callable[[], None], ...] = (
        lambda: writer.delete_thread(THREAD),
        lambda: writer.prune([THREAD]),
        lambda: writer.prune([THREAD], strategy="delete"),
        lambda: writer.copy_thread("other", THREAD),
        lambda: writer.delete_thread(""),
    )
    for attempt in attempts:
        with pytest.raises(UnsupportedError):
            attempt()
    assert run.wire.kinds == []  # type: ignore[attr-defined]


async def test_namespaces_of_new_tasks_of_a_fresh_run_are_not_asked_for(ledger: Any) -> None:
    writer, run = saver(ledger, fresh=True)
    inner: Any = {"configurable": {"thread_id": THREAD, "checkpoint_ns": "node:123"}}
    assert await writer.aget_tuple(inner) is None
    assert writer.get_tuple(inner) is None
    assert run.wire.kinds == []  # type: ignore[attr-defined]
    other, run = saver(ledger)
    assert await asyncio.to_thread(other.get_tuple, inner) is None
    assert run.wire.kinds == ["checkpoint_query"]  # type: ignore[attr-defined]


def test_versions_grow_and_never_repeat(ledger: Any) -> None:
    writer, _ = saver(ledger)
    versions = [writer.get_next_version(None, None)]
    for _ in range(20):
        versions.append(writer.get_next_version(versions[-1], None))
    assert versions == sorted(versions)
    assert writer.get_next_version(versions[0], None) != versions[1]
