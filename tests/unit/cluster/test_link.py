"""What is sent, and sent again, in which order."""

from __future__ import annotations

from fermata.server.cluster.link import FRAME_BYTES, KEPT_FACTS, MAX_BACKOFF_SECONDS, Outbox, backoff_seconds
from fermata.v1.worker_pb2 import HostMessage, StopReport, WorkerMessage


def message(number: int, size: int = 0) -> WorkerMessage:
    text = "x" * size
    host = HostMessage(id=number)
    host.gate.args = text
    return WorkerMessage(host=host)


def ids(frame: list[WorkerMessage]) -> list[int]:
    return [entry.host.id for entry in frame]


def test_what_is_queued_goes_as_one_frame_in_order() -> None:
    outbox = Outbox()
    for number in range(5):
        outbox.put(message(number), key=None, fact=False)
    assert ids(outbox.take_frame()) == [0, 1, 2, 3, 4]
    assert outbox.take_frame() == []
    assert outbox.queued_bytes == 0


def test_a_frame_is_bounded_and_a_larger_message_goes_alone() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.put(message(number, FRAME_BYTES + 1), key=None, fact=False)
    assert [ids(outbox.take_frame()) for _ in range(3)] == [[0], [1], [2]]


def test_after_a_break_the_unanswered_come_first_in_their_old_order() -> None:
    outbox = Outbox()
    for number in (1, 2, 3):
        outbox.put(message(number), key=("r", 1, number), fact=False)
    outbox.take_frame()
    outbox.put(message(4), key=("r", 1, 4), fact=False)
    del outbox.unanswered["r", 1, 2]
    outbox.rewind()
    assert ids(outbox.take_frame()) == [1, 3, 4]


def test_what_wants_no_answer_is_not_repeated_but_facts_are() -> None:
    outbox = Outbox()
    outbox.put(message(0), key=None, fact=False)
    outbox.put(WorkerMessage(stop_report=StopReport(latch="l")), key=None, fact=True)
    outbox.take_frame()
    outbox.rewind()
    assert [entry.WhichOneof("body") for entry in outbox.take_frame()] == ["stop_report"]


def test_what_was_not_written_when_the_break_came_is_neither_lost_nor_doubled() -> None:
    outbox = Outbox()
    outbox.put(message(1), key=("r", 1, 1), fact=False)
    outbox.rewind()
    outbox.rewind()
    assert ids(outbox.take_frame()) == [1]


def test_only_the_latest_facts_are_kept() -> None:
    outbox = Outbox()
    for number in range(KEPT_FACTS + 10):
        outbox.put(message(number), key=None, fact=True)
    outbox.take_frame()
    outbox.rewind()
    assert ids(outbox.take_frame())[0] == 10


def test_backoff_doubles_within_its_bounds() -> None:
    assert backoff_seconds(0, 0.0) == 0.025
    assert backoff_seconds(1, 1.0) == 0.1
    assert MAX_BACKOFF_SECONDS / 2 <= backoff_seconds(100, 0.5) <= MAX_BACKOFF_SECONDS
