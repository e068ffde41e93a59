"""Threads that a graph keeps beside its run's: stored, each conversation's own, and put back with the run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from fermata.agents.runtime.errors import ServerRefusedError
from fermata.agents.runtime.run import answer_of
from fermata.server.store import schema
from fermata.v1 import worker_pb2

V = worker_pb2


def at(thread: str, **more: Any) -> Any:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", **more}}


def put(saver: Any, config: Any, value: Any) -> Any:
    version = saver.get_next_version(None, None)
    checkpoint = {
        **empty_checkpoint(),
        "id": str(uuid6(clock_seq=-2)),
        "channel_values": {"value": value},
        "channel_versions": {"value": version},
    }
    return saver.put(config, checkpoint, {"source": "loop", "step": 0, "parents": {}}, {"value": version})


async def value(saver: Any, thread: str) -> Any:
    found = await saver.aget_tuple(at(thread))
    return None if found is None else found.checkpoint["channel_values"]["value"]


async def test_another_host_finds_the_state_of_a_thread_beside_the_runs(place: Any) -> None:
    first = await place.saver()
    put(first, at("notes"), "kept")
    await place.commit(first._run)
    assert await value(place.another_host(first._run), "notes") == "kept"


async def test_a_conversation_sees_no_threads_of_another(place: Any) -> None:
    first, second = await place.saver(), await place.saver()
    put(first, at("notes"), "the first one's")
    await place.commit(first._run)
    assert await value(second, "notes") is None
    for name in (first._run.thread, first._run.thread.rsplit("/", 1)[1], "../" + first._run.thread):
        assert await value(second, name) is None
        await second.adelete_thread(name)
    assert await value(place.another_host(first._run), "notes") == "the first one's"


async def test_what_another_host_of_the_run_copies_and_deletes_is_gone_for_all(place: Any) -> None:
    saver = await place.saver()
    put(saver, at(saver._run.thread), list(range(100)))
    put(saver, at("notes"), "old")
    await saver.acopy_thread(saver._run.thread, "copy")
    assert await value(saver, "copy") == list(range(100)), "with the chunks of its list"
    await saver.adelete_thread("notes")
    assert await value(saver, "notes") is None
    assert await value(saver, saver._run.thread) == list(range(100))


async def test_a_server_refuses_to_change_what_is_stored_of_the_runs_own_thread(place: Any) -> None:
    run = await place.run()
    for edit in (
        V.CheckpointEdit(delete_thread=""),
        V.CheckpointEdit(keep_latest=V.ThreadIds(ids=[""])),
        V.CheckpointEdit(copy=V.CopyThread(source="other", target="")),
    ):
        other = place.another_host(run)._run
        with pytest.raises(ServerRefusedError) as refused:
            answer_of(await asyncio.wrap_future(other.send(checkpoint_edit=edit)))
        assert refused.value.reason == "THREAD_IS_THE_RUNS"


async def test_a_rollback_puts_threads_beside_the_runs_back_as_well(place: Any) -> None:
    thread = await place.thread()
    first = await place.saver(thread)
    own = first._run.thread
    put(first, at(own), list(range(200)))
    put(first, at("notes"), list(range(150)))
    await place.commit(first._run)
    await place.finish(first._run)
    chunks = await place.count(schema.chunks)
    second = await place.saver(thread)
    before = await second.aget_tuple(at(own))
    put(second, before.config, list(range(1_000)))
    put(second, (await second.aget_tuple(at("notes"))).config, ["x"] * 500)
    put(second, at("new"), ["y"] * 500)
    await place.commit(second._run)
    assert await place.count(schema.chunks) > chunks
    third = place.another_host(await place.roll_back(second._run))
    assert await value(third, own) == list(range(200))
    assert await value(third, "notes") == list(range(150))
    assert await value(third, "new") is None
    assert await place.count(schema.chunks) == chunks
