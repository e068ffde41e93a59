"""What was committed, for those who watch: none is slept over, none is lost, and nobody's slowness costs more than a piece."""

from __future__ import annotations

import pytest

from fermata.server.live import hub as hub_module
from fermata.server.live.deltas import WAITING_CHARACTERS, WAITING_MESSAGES, Deltas
from fermata.server.live.hub import LOOK_BYTES, LOOK_EVENTS, Hub
from fermata.server.store.publication import PublishedEvent
from fermata.v1 import run_pb2

RUN = "tenants/t/runs/r"


def _event(number: int, size: int = 0) -> PublishedEvent:
    event = run_pb2.Event(run=RUN, sequence=number)
    event.data.update({"text": "x" * size})
    return PublishedEvent(number, "t", "r", "th", event)


def _numbers(hub: Hub, position: int) -> list[int] | None:
    found = hub.after(position)
    return None if found is None else [event.number for event in found]


async def test_a_commit_during_a_look_is_not_slept_over() -> None:
    hub = Hub(start=0)
    commit = hub.next_commit()
    hub.wake()
    assert await hub.wait(0.0, commit)


async def test_without_a_commit_a_wait_ends_with_its_time() -> None:
    assert not await Hub(start=0).wait(0.0)


async def test_a_wait_is_for_the_next_commit_and_not_for_the_last() -> None:
    hub = Hub(start=0)
    hub.wake()
    assert not await hub.wait(0.0, hub.next_commit())


async def test_every_position_within_the_ring_gives_what_comes_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "RING_EVENTS", 10)
    hub = Hub(start=100)
    # A refused operation leaves numbers out.
    numbers = [number for number in range(101, 200) if number % 7]
    for count, number in enumerate(numbers, 1):
        hub.publish([_event(number)])
        kept = numbers[:count][-10:]
        oldest = 100 if count <= 10 else numbers[count - 11]
        for position in range(95, number + 1):
            expected = [n for n in kept if n > position] if position >= oldest else None
            assert _numbers(hub, position) == expected
    assert hub.last == numbers[-1]


async def test_the_ring_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RING_BYTES", 10_000)
    hub = Hub(start=0)
    for number in range(1, 101):
        hub.publish([_event(number, 1_000)])
    assert _numbers(hub, 0) is None
    assert len(_numbers(hub, 95) or ()) == 5


async def test_one_look_brings_a_bounded_number_of_events_and_of_bytes() -> None:
    hub = Hub(start=0)
    hub.publish([_event(number) for number in range(1, 2 * LOOK_EVENTS)])
    assert _numbers(hub, 0) == list(range(1, LOOK_EVENTS + 1))
    assert _numbers(hub, LOOK_EVENTS) == list(range(LOOK_EVENTS + 1, 2 * LOOK_EVENTS))
    large = Hub(start=0)
    large.publish([_event(number, LOOK_BYTES // 3) for number in range(1, 20)])
    assert _numbers(large, 0) == [1, 2, 3]


async def test_deltas_wake_only_those_who_listen_for_their_run() -> None:
    hub = Hub(start=0)
    mine, other = Deltas("t", RUN), Deltas("t", "tenants/t/runs/other")
    hub.listen(other)
    commit, either = hub.next_commit(), hub.next_commit_or_delta()
    hub.delta(run_pb2.TokenDelta(run=RUN, message_id="m", text="a"))
    assert not either.done()
    hub.listen(mine)
    hub.delta(run_pb2.TokenDelta(run=RUN, message_id="m", text="b"))
    assert (commit.done(), either.done()) == (False, True)
    either = hub.next_commit_or_delta()
    hub.publish([_event(1)])
    assert (commit.done(), either.done()) == (True, True)
    hub.forget(mine)
    hub.delta(run_pb2.TokenDelta(run=RUN, message_id="m", text="c"))
    assert mine.take() == run_pb2.TokenDelta(run=RUN, message_id="m", text="b")
    assert mine.take() is None
    assert not other


def _delta(text: str, message: str = "m", run: str = RUN) -> run_pb2.TokenDelta:
    return run_pb2.TokenDelta(run=run, message_id=message, text=text)


def _taken(deltas: Deltas) -> list[tuple[str, str, int]]:
    found = []
    while (delta := deltas.take()) is not None:
        found.append((delta.message_id, delta.text, delta.skipped))
    return found


def test_what_a_reader_has_not_taken_yet_comes_as_one_piece_of_each_message() -> None:
    deltas = Deltas("t")
    for text in "abc":
        deltas.put(_delta(text, "m1"))
        deltas.put(_delta(text.upper(), "m2"))
    assert deltas
    assert _taken(deltas) == [("m1", "abc", 0), ("m2", "ABC", 0)]
    assert not deltas


def test_a_reader_that_keeps_up_gets_each_delta_as_it_comes() -> None:
    deltas = Deltas("t")
    for text in "abc":
        deltas.put(_delta(text))
        assert _taken(deltas) == [("m", text, 0)]


def test_deltas_of_other_tenants_and_runs_are_not_taken() -> None:
    assert not Deltas("t").put(_delta("a", run="tenants/u/runs/r"))
    assert not Deltas("t", RUN).put(_delta("a", run="tenants/t/runs/r2"))
    assert Deltas("t", RUN).put(_delta("a"))


@pytest.mark.parametrize("messages", [1, 3, 50])
def test_what_is_left_out_for_a_slow_reader_is_told_and_the_rest_is_whole(messages: int) -> None:
    deltas = Deltas("t")
    piece = "0123456789"
    count = 5 * WAITING_CHARACTERS // len(piece) // messages
    for _ in range(count):
        for number in range(messages):
            deltas.put(_delta(piece, f"m{number}"))
            assert deltas._characters <= WAITING_CHARACTERS
    taken = _taken(deltas)
    assert len(taken) == messages
    for _, text, skipped in taken:
        assert skipped + len(text) == count * len(piece)
    assert sum(len(text) for _, text, _ in taken) <= WAITING_CHARACTERS
    assert any(skipped for _, _, skipped in taken)
    deltas.put(_delta("on"))
    assert _taken(deltas) == [("m", "on", 0)]


def test_messages_that_wait_are_bounded_in_number() -> None:
    deltas = Deltas("t")
    for number in range(3 * WAITING_MESSAGES):
        deltas.put(_delta("x", f"m{number}"))
    taken = _taken(deltas)
    assert len(taken) == WAITING_MESSAGES
    assert taken[-1][0] == f"m{3 * WAITING_MESSAGES - 1}"
    assert deltas._characters == 0
