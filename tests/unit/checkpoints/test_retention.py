"""What is pruned of a thread, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from sqlalchemy import select

from fermata.server.dispatch.sweeper import prune_since
from fermata.server.lifecycle.start import NewRun, create_run
from fermata.server.store import schema
from fermata.server.threads import retention
from fermata.server.threads.retention import Retention


class State:
    """One namespace of a thread: a list that each step makes longer, with a write beside every checkpoint."""

    def __init__(self, saver: Any, thread: str, namespace: str = "", start: int = 0) -> None:
        self.saver = saver
        self.config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
        self.version: str | None = None
        self.value: list[Any] = list(range(start))

    async def go_on(self) -> State:
        """From the latest checkpoint."""
        found = await self.saver.aget_tuple(self.config)
        self.config = found.config
        self.version = found.checkpoint["channel_versions"]["value"]
        self.value = found.checkpoint["channel_values"]["value"]
        return self

    def step(self, times: int = 1) -> str:
        for _ in range(times):
            self.version = self.saver.get_next_version(self.version, None)
            self.value = [*self.value, f"element {len(self.value)}"]
            checkpoint = {
                **empty_checkpoint(),
                "id": str(uuid6(clock_seq=-2)),
                "channel_values": {"value": self.value},
                "channel_versions": {"value": self.version},
            }
            self.config = self.saver.put(
                self.config,
                checkpoint,
                {"source": "loop", "step": 0, "parents": {}},
                {"value": self.version},
            )
            self.saver.put_writes(self.config, [("value", "more")], "task")
        return str(self.config["configurable"]["checkpoint_id"])


async def prune(place: Any, thread: str, keep: int) -> int:
    name = thread.rsplit("/", 1)[1]
    return int(await place.plane.write(lambda tx: retention.prune(tx, "default", name, Retention(keep))))


async def kept(place: Any, namespace: str = "") -> list[str]:
    table = schema.checkpoints.c
    query = select(table.id).where(table.namespace == namespace).order_by(table.n)
    return list(await place.plane.read(lambda connection: connection.execute(query).scalars().all()))


async def ended_thread(place: Any, steps: int, start: int = 0) -> tuple[str, State]:
    """A thread of which a run has stored so many checkpoints."""
    thread = await place.thread()
    saver = await place.saver(thread)
    state = State(saver, saver._run.thread, start=start)
    state.step(steps)
    await place.commit(saver._run)
    await place.finish(saver._run)
    return thread, state


async def test_the_newest_checkpoints_stay_and_with_the_others_goes_all_that_was_theirs(place: Any) -> None:
    _, state = await ended_thread(place, 30, start=300)
    before = await kept(place)
    assert await prune(place, state.saver._run.thread, 5) == 25
    assert await kept(place) == before[-5:]
    assert await place.count(schema.channel_blobs) == 5
    assert await place.count(schema.checkpoint_writes) == 5
    again = await place.saver(state.saver._run.thread.rsplit("/", 1)[1])
    listed = [row async for row in again.alist({"configurable": {"thread_id": again._run.thread}})]
    assert [len(row.checkpoint["channel_values"]["value"]) for row in listed] == [330, 329, 328, 327, 326]
    assert await prune(place, state.saver._run.thread, 5) == 0


async def test_nothing_is_left_of_a_list_that_nobody_refers_to(place: Any) -> None:
    _, state = await ended_thread(place, 1, start=500)
    assert await place.count(schema.chunks) > 30
    again = await place.saver(state.saver._run.thread.rsplit("/", 1)[1])
    follower = await State(again, again._run.thread).go_on()
    follower.value = []
    follower.step(3)
    await place.commit(again._run)
    await place.finish(again._run)
    await prune(place, again._run.thread, 2)
    assert await place.count(schema.chunks) == 0


@pytest.mark.parametrize("keep", [1, 2])
async def test_the_checkpoint_that_an_active_run_goes_on_from_stays_with_its_parent(
    place: Any, keep: int
) -> None:
    saver = await place.saver()
    state = State(saver, saver._run.thread, start=200)
    state.step(10)
    await place.commit(saver._run)
    before = await kept(place)
    await prune(place, saver._run.thread, keep)
    assert await kept(place) == before[-2:]
    state.step(5)
    await place.commit(saver._run)
    found = await place.another_host(saver._run).aget_tuple(
        {"configurable": {"thread_id": saver._run.thread}}
    )
    assert found.checkpoint["channel_values"]["value"] == state.value, "with the chunks that it shares"


async def test_a_rollback_finds_what_it_puts_back_after_a_pruning(place: Any) -> None:
    thread, state = await ended_thread(place, 10, start=200)
    was = state.value
    second = await place.saver(thread)
    follower = await State(second, second._run.thread).go_on()
    follower.step(20)
    await place.commit(second._run)
    before = await kept(place)
    await prune(place, second._run.thread, 3)
    assert await kept(place) == [before[9], *before[-3:]]
    third = place.another_host(await place.roll_back(second._run))
    found = await third.aget_tuple({"configurable": {"thread_id": third._run.thread}})
    assert found.checkpoint["channel_values"]["value"] == was


async def test_a_thread_whose_run_has_not_begun_is_left_alone(place: Any) -> None:
    thread, state = await ended_thread(place, 10)
    wanted = NewRun("default", "operator", thread, "{}", "ann", "")
    place.plane.workers.disconnect("w1")
    await place.plane.write(lambda tx: create_run(tx, place.plane.leases, wanted))
    assert await prune(place, state.saver._run.thread, 2) == 0
    assert len(await kept(place)) == 10


async def test_a_tasks_namespace_goes_with_the_checkpoint_that_its_task_belongs_to(place: Any) -> None:
    saver = await place.saver()
    root = State(saver, saver._run.thread)
    for task in range(6):
        root.step()
        State(saver, saver._run.thread, f"node:{task}").step(4)
        State(saver, saver._run.thread, "stays").step()
    await place.commit(saver._run)
    await prune(place, saver._run.thread, 3)
    assert [len(await kept(place, f"node:{task}")) for task in range(6)] == [0, 0, 0, 3, 3, 3]
    assert len(await kept(place, "stays")) == 3, "a namespace without a task is a graph's own"


async def test_threads_beside_the_runs_are_pruned_with_it(place: Any) -> None:
    saver = await place.saver()
    State(saver, "notes").step(10)
    await place.commit(saver._run)
    await prune(place, saver._run.thread, 4)
    assert len(await kept(place)) == 4


async def test_a_sweep_prunes_every_thread_once_and_then_only_what_is_new(place: Any) -> None:
    place.plane.retention = Retention(2)
    for _ in range(3):
        await ended_thread(place, 5)
    last = await prune_since(place.plane, 0)
    assert last == 15
    assert len(await kept(place)) == 6
    statements = place.statements
    assert await prune_since(place.plane, last) == last
    assert place.statements == statements
    await ended_thread(place, 5)
    assert await prune_since(place.plane, last) == 20
    assert len(await kept(place)) == 8


async def test_a_long_history_is_removed_in_several_transactions(place: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(retention, "REMOVED_AT_ONCE", 7)
    place.plane.retention = Retention(3)
    await ended_thread(place, 30)
    await prune_since(place.plane, 0)
    assert len(await kept(place)) == 3


async def test_zero_keeps_all(place: Any) -> None:
    place.plane.retention = Retention(0)
    await ended_thread(place, 10)
    assert await prune_since(place.plane, 0) == 0
    assert len(await kept(place)) == 10
