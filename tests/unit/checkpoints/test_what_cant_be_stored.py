"""State that is too large or can't be written down: the error names the channel, and nothing of it is stored."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from fermata.agents.runtime.checkpointer import MAX_STATE_BYTES
from fermata.agents.runtime.errors import StateNotSerializableError, StateTooLargeError
from fermata.server.store import schema

MIB = 1024 * 1024


class Stubborn:
    """Its own code fails when it is written down."""

    def model_dump(self) -> Any:
        raise RuntimeError("not today")

    def __reduce__(self) -> Any:
        raise RuntimeError("not today")


def put(saver: Any, values: dict[str, Any], config: Any = None) -> Any:
    version = saver.get_next_version(None, None)
    checkpoint = {
        **empty_checkpoint(),
        "id": str(uuid6(clock_seq=-2)),
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, version),
    }
    config = config or {"configurable": {"thread_id": saver._run.thread, "checkpoint_ns": ""}}
    metadata = {"source": "loop", "step": 0, "parents": {}}
    return saver.put(config, checkpoint, metadata, dict.fromkeys(values, version))


async def nothing_is_stored(place: Any, saver: Any) -> None:
    assert saver._run.failure is not None, "the run ends with it"
    await place.commit(saver._run)
    for table in (schema.checkpoints, schema.channel_blobs, schema.checkpoint_writes, schema.chunks):
        assert await place.count(table) == 0
    assert await saver.aget_tuple({"configurable": {"thread_id": saver._run.thread}}) is None


@pytest.mark.parametrize("value", [threading.Lock(), Stubborn(), [*range(100), threading.Lock()]])
async def test_a_value_that_cant_be_written_down_is_named_and_nothing_of_its_checkpoint_is_stored(
    place: Any, value: Any
) -> None:
    saver = await place.saver()
    with pytest.raises(StateNotSerializableError, match="'broken'") as refused:
        put(saver, {"fine": "text", "long": list(range(200)), "broken": value})
    assert refused.value.channel == "broken"
    assert refused.value.reason == "STATE_NOT_SERIALIZABLE"
    await nothing_is_stored(place, saver)


async def test_a_state_that_is_too_large_names_its_largest_channel_and_nothing_of_it_is_stored(
    place: Any,
) -> None:
    saver = await place.saver()
    with pytest.raises(StateTooLargeError, match="'pictures'") as refused:
        put(saver, {"fine": os.urandom(MIB), "pictures": os.urandom(MAX_STATE_BYTES)})
    assert refused.value.channel == "pictures"
    assert refused.value.reason == "STATE_TOO_LARGE"
    assert refused.value.channel_bytes == MAX_STATE_BYTES
    assert refused.value.size_bytes == MAX_STATE_BYTES + MIB
    assert refused.value.limit_bytes == MAX_STATE_BYTES
    await nothing_is_stored(place, saver)


async def test_writes_that_are_too_large_are_refused_whole(place: Any) -> None:
    saver = await place.saver()
    config = {"configurable": {"thread_id": saver._run.thread, "checkpoint_ns": "", "checkpoint_id": "1"}}
    with pytest.raises(StateTooLargeError) as refused:
        saver.put_writes(config, [("fine", "text"), ("pictures", os.urandom(MAX_STATE_BYTES))], "task")
    assert refused.value.channel == "pictures"
    await nothing_is_stored(place, saver)


async def test_writes_of_which_one_cant_be_written_down_are_refused_whole(place: Any) -> None:
    saver = await place.saver()
    config = {"configurable": {"thread_id": saver._run.thread, "checkpoint_ns": "", "checkpoint_id": "1"}}
    with pytest.raises(StateNotSerializableError) as refused:
        saver.put_writes(config, [("fine", "text"), ("broken", threading.Lock())], "task")
    assert refused.value.channel == "broken"
    await nothing_is_stored(place, saver)


async def test_a_state_as_large_as_it_may_be_is_stored_and_read_by_another_host(place: Any) -> None:
    saver = await place.saver()
    values = {"one": os.urandom(MAX_STATE_BYTES // 2), "two": os.urandom(MAX_STATE_BYTES // 2 - MIB)}
    config = put(saver, values)
    # It does not fit into one message with what follows.
    values = {"one": os.urandom(MAX_STATE_BYTES // 2), "two": os.urandom(MAX_STATE_BYTES // 2 - MIB)}
    put(saver, values, config)
    await place.commit(saver._run)
    assert saver._run.failure is None
    found = await place.another_host(saver._run).aget_tuple(
        {"configurable": {"thread_id": saver._run.thread}}
    )
    assert found.checkpoint["channel_values"]["two"] == values["two"]
    assert await place.count(schema.checkpoints) == 2
