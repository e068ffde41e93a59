"""What a graph says is bounded where the server keeps it: hostile or careless, it costs the server no memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from sqlalchemy import select

from fermata.server.errors import DomainError
from fermata.server.live import hub as live
from fermata.server.live.workers import FRAME_BYTES, ConnectedWorker
from fermata.server.runs.record import CUT_CHARACTERS, MAX_EVENT_CHARACTERS
from fermata.server.store import schema
from fermata.server.store.publication import PublishedEvent
from fermata.server.threads import checkpoints
from fermata.v1 import run_pb2, worker_pb2


def _say(world: Any, run: str, value: Any) -> dict[str, Any]:
    """What the history keeps of a custom event."""
    event = worker_pb2.HostEvent(type=run_pb2.EVENT_TYPE_CUSTOM)
    json_format.ParseDict(value, event.data)
    world.host(run, commit=worker_pb2.Commit(events=[event]))
    query = select(schema.events.c.data).order_by(schema.events.c.n.desc()).limit(1)
    kept: dict[str, Any] = json.loads(world.tx(lambda tx: tx.execute(query).scalar_one()))
    return kept


def test_an_event_is_kept_as_it_is_up_to_its_bound_and_cut_beyond(world: Any) -> None:
    world.agent()
    run = world.started()
    assert _say(world, run, {"value": "x" * CUT_CHARACTERS * 2}) == {"value": "x" * CUT_CHARACTERS * 2}
    long = "x" * MAX_EVENT_CHARACTERS
    kept = _say(world, run, {"text": long, "list": [long], "short": 1})
    assert kept["text"] == "x" * CUT_CHARACTERS + "…"
    assert list(kept["list"]) == ["cut"]
    assert kept["short"] == 1


def _event(number: int, characters: int) -> PublishedEvent:
    event = run_pb2.Event(sequence=number)
    event.data["text"] = "x" * characters
    return PublishedEvent(number, "t", "r", "th", event)


async def test_the_ring_of_recent_events_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RING_BYTES", 10_000)
    hub = live.Hub(0)
    hub.publish([_event(number, 1_000) for number in range(1, 21)])
    assert hub.after(0) is None
    recent = hub.after(15)
    assert recent is not None
    assert [event.number for event in recent] == [16, 17, 18, 19, 20]
    assert hub.last == 20


async def test_many_messages_for_a_worker_make_several_frames() -> None:
    worker = ConnectedWorker("w1", "here", 1, 8, 0.0)
    half = worker_pb2.ServerMessage(embed=worker_pb2.Embed(texts=["x" * (FRAME_BYTES // 2 + 1)]))
    for _ in range(5):
        worker.send(half)
    frames = []
    while frame := worker.take_frame():
        frames.append(len(frame))
    assert frames == [2, 2, 1]


def test_a_list_of_checkpoints_ends_where_its_message_is_full(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.agent()
    run = world.started()
    put = [
        worker_pb2.CheckpointPut(checkpoint_id=f"c{number}", checkpoint=worker_pb2.Blob(data=b"x" * 1000))
        for number in range(5)
    ]
    world.host(run, commit=worker_pb2.Commit(checkpoints=put))
    thread = world.run(run).thread.rsplit("/", 1)[-1]

    def read(limit: int) -> list[str]:
        monkeypatch.setattr(checkpoints, "MAX_READ_BYTES", limit)
        query = worker_pb2.CheckpointQuery(list=True)
        reply = world.tx(lambda tx: checkpoints.query(tx, "default", thread, query))
        return [stored.put.checkpoint_id for stored in reply.checkpoints]

    assert read(100_000) == ["c4", "c3", "c2", "c1", "c0"]
    assert read(2_500) == ["c4", "c3"]
    with pytest.raises(DomainError) as refused:
        read(500)
    assert refused.value.reason == "STATE_TOO_LARGE"


@pytest.mark.parametrize(
    ("args", "schema"),
    [("[1]", "{}"), ("{}", "[]"), ("{}", "not JSON"), ("{}", '{"a":' * 200 + "1" + "}" * 200)],
)
def test_a_question_that_cant_be_shown_is_not_asked(world: Any, args: str, schema: str) -> None:
    world.agent()
    run = world.started()
    gate = worker_pb2.Gate(step="s", nonce="n", tool="turn", args=args, args_schema=schema)
    with pytest.raises(DomainError) as refused:
        world.host(run, gate=gate)
    assert refused.value.reason == "QUESTION_INVALID"
    assert world.pending(run) == []
