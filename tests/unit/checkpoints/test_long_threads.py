"""A thread of 10,000 messages: what a step writes and what reading it costs, in bytes and statements."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.graph import START, MessagesState, StateGraph

from fermata.server.store import schema

LONG = 10_000


def messages(count: int, start: int = 0) -> list[Any]:
    return [
        HumanMessage(
            f"{number}: what does machine {number % 7} report, and why {uuid.uuid4()}?", id=f"m{number}"
        )
        for number in range(start, start + count)
    ]


class Conversation:
    """A thread of one channel, put step by step as LangGraph does it."""

    def __init__(self, saver: Any, thread: str) -> None:
        self.saver = saver
        self.config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        self.version = saver.get_next_version(None, None)
        self.held: list[Any] = []

    def step(self, held: list[Any]) -> None:
        self.held = held
        self.version = self.saver.get_next_version(self.version, None)
        checkpoint = {
            **empty_checkpoint(),
            "id": str(uuid6(clock_seq=-2)),
            "channel_values": {"messages": held},
            "channel_versions": {"messages": self.version},
        }
        self.config = self.saver.put(
            self.config, checkpoint, {"source": "loop", "step": 1, "parents": {}}, {"messages": self.version}
        )


async def test_an_appended_message_costs_what_it_holds_however_long_the_thread(place: Any) -> None:
    run = await place.run()
    conversation = Conversation(place.another_host(run), run.thread)
    own = conversation.saver._run
    costs: dict[int, list[tuple[int, int]]] = {}
    for length in (100, 1_000, LONG):
        conversation.step(messages(length))
        await place.commit(own)
        for _ in range(30):  # of the three together no more than the limit of super-steps
            stored, statements = await place.stored_bytes(), place.statements
            conversation.step([*conversation.held, *messages(1, len(conversation.held))])
            await place.commit(own)
            costs.setdefault(length, []).append(
                (await place.stored_bytes() - stored, place.statements - statements)
            )
    worst = {length: max(written for written, _ in steps) for length, steps in costs.items()}
    mean = {length: sum(written for written, _ in steps) / len(steps) for length, steps in costs.items()}
    whole = sum(len(message.content) for message in conversation.held)
    assert worst[LONG] < whole / 50, (worst, whole)
    assert worst[LONG] < 2 * worst[100], worst
    assert mean[LONG] < 2 * mean[100], mean
    # One of them looks up what the run may use.
    assert max(most for steps in costs.values() for _, most in steps) <= 6, costs


async def test_a_long_thread_is_read_back_whole_in_a_few_statements(place: Any) -> None:
    run = await place.run()
    writer = Conversation(place.another_host(run), run.thread)
    for length in (LONG - 1, LONG):
        writer.step([*writer.held, *messages(length - len(writer.held), len(writer.held))])
    await place.commit(writer.saver._run)
    reader = place.another_host(run)
    before = place.statements
    found = await reader.aget_tuple({"configurable": {"thread_id": run.thread}})
    assert found.checkpoint["channel_values"]["messages"] == writer.held
    assert place.statements - before < 12
    before = place.statements
    assert await reader.aget_tuple({"configurable": {"thread_id": run.thread}}) == found
    assert place.statements == before, "the host has it"


@pytest.mark.parametrize("length", [0, 63, 64, 65, 255, 256, 257, 4_095, 4_096, 4_097])
async def test_lists_of_every_length_come_back_as_they_were(place: Any, length: int) -> None:
    run = await place.run()
    writer = Conversation(place.another_host(run), run.thread)
    writer.step(list(range(length)))
    writer.step([*range(length), "one more"])
    await place.commit(writer.saver._run)
    rows = [
        row
        async for row in place.another_host(run).alist(
            writer.config | {"configurable": {"thread_id": run.thread}}
        )
    ]
    assert [row.checkpoint["channel_values"]["messages"] for row in rows] == [
        [*range(length), "one more"],
        list(range(length)),
    ]


async def test_a_message_changed_in_place_is_stored_as_it_is(place: Any) -> None:
    run = await place.run()
    writer = Conversation(place.another_host(run), run.thread)
    writer.step(messages(200))
    writer.held[3].content = "changed in place"
    writer.step([*writer.held, AIMessage("more", id="more")])
    await place.commit(writer.saver._run)
    found = await place.another_host(run).aget_tuple({"configurable": {"thread_id": run.thread}})
    assert found.checkpoint["channel_values"]["messages"] == writer.held
    assert found.checkpoint["channel_values"]["messages"][3].content == "changed in place"


async def test_what_is_taken_out_at_the_front_comes_back_right(place: Any) -> None:
    run = await place.run()
    writer = Conversation(place.another_host(run), run.thread)
    writer.step(messages(300))
    writer.step(writer.held[5:])
    writer.step([*writer.held, *messages(1, 300)])
    await place.commit(writer.saver._run)
    found = await place.another_host(run).aget_tuple({"configurable": {"thread_id": run.thread}})
    assert found.checkpoint["channel_values"]["messages"] == writer.held


async def test_a_graph_goes_on_with_a_long_thread_in_another_host(place: Any) -> None:
    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"{len(state['messages'])} so far")]}

    def graph(saver: Any) -> Any:
        built = StateGraph(MessagesState)
        built.add_node("answer", answer)
        built.add_edge(START, "answer")
        return built.compile(checkpointer=saver)

    thread = await place.thread()
    first = await place.saver(thread)
    config: Any = {"configurable": {"thread_id": first._run.thread}}
    await graph(first).ainvoke({"messages": messages(1_000)}, config, durability="sync")
    await place.commit(first._run)
    sent = place.wire.sent_bytes
    await place.finish(first._run)
    second = await place.saver(thread)
    result = await graph(second).ainvoke({"messages": messages(1, 5_000)}, config, durability="sync")
    await place.commit(second._run)
    assert [message.content for message in result["messages"][-1:]] == ["1002 so far"]
    assert place.wire.sent_bytes - sent < 20_000, "the second run sends what is new"


async def test_large_values_are_compressed_and_stored_once_for_each_version(place: Any) -> None:
    run = await place.run()
    writer = Conversation(place.another_host(run), run.thread)
    writer.step("a long text. " * 10_000)  # type: ignore[arg-type]
    before = await place.stored_bytes()
    await place.commit(writer.saver._run)
    assert await place.stored_bytes() - before < 10_000
    found = await place.another_host(run).aget_tuple({"configurable": {"thread_id": run.thread}})
    assert found.checkpoint["channel_values"]["messages"] == writer.held
    assert await place.count(schema.channel_blobs) == 1
