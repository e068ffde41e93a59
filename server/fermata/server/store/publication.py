"""What a transaction tells the live part of the server once it is durable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fermata.v1 import run_pb2, worker_pb2


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """A durable event with its place in the order of commits."""

    number: int
    tenant: str
    run: str
    thread: str
    event: run_pb2.Event


@dataclass(slots=True)
class Publication:
    """Facts for watchers, messages for workers, and whether there is work to hand out.

    Messages to workers are decided inside the transaction and sent after it, so that no worker ever hears of something that a
    crash could undo. A message whose worker is gone is dropped: leases, not messages, are what a run's future rests on.

    ``undo`` is called instead where nothing of it was written: it takes back what the live part was told ahead of the commit.
    """

    events: list[PublishedEvent] = field(default_factory=list)
    latches: list[str] = field(default_factory=list)
    to_workers: list[tuple[str, worker_pb2.ServerMessage]] = field(default_factory=list)
    work_available: bool = False
    deadline_set: bool = False
    latch_expiry_set: bool = False
    runs_to_stop: bool = False
    undo: list[Callable[[], None]] = field(default_factory=list)
