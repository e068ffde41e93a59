"""What was committed, for those who watch: a bounded ring of recent events, and a signal.

A watcher has a position and no queue. As long as its position lies within the ring it reads memory, otherwise the store, a bounded
piece at a time; a slow reader costs the server that piece and its own stream. Text that models are writing is no event: a watcher that
wants it has a bounded :class:`Deltas`, in which what it has not taken yet grows together.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice

from fermata.server.live.deltas import Deltas
from fermata.server.store.publication import PublishedEvent
from fermata.v1 import run_pb2

RING_EVENTS = 20_000

RING_BYTES = 64 * 1024 * 1024
"""What the events in the ring may have together, as messages."""

LOOK_EVENTS = 500
"""Events that one look brings at the most."""

LOOK_BYTES = 1024 * 1024
"""A look brings no further event once it has this much: with LOOK_EVENTS, what a reader that has stopped reading holds."""


class Hub:
    """Recent events in the order of commits, and signals for all watchers."""

    def __init__(self, start: int) -> None:
        """:param start: number of the last event that was committed before."""
        self._ring: list[PublishedEvent] = []
        self._sizes: list[int] = []
        self._gone = 0
        """How many at the beginning of the lists have left the ring."""
        self._ring_bytes = 0
        self._before_ring = start
        self._last = start
        self._commit: asyncio.Future[None] | None = None
        self._commit_or_delta: asyncio.Future[None] | None = None
        self._listeners: set[Deltas] = set()

    @property
    def last(self) -> int:
        """Number of the newest event."""
        return self._last

    def publish(self, events: list[PublishedEvent]) -> None:
        """Add what a commit has published, and wake all who wait."""
        for event in events:
            size = event.event.ByteSize()
            self._ring.append(event)
            self._sizes.append(size)
            self._ring_bytes += size
            self._last = event.number
        while len(self._ring) - self._gone > RING_EVENTS or self._ring_bytes > RING_BYTES:
            self._before_ring = self._ring[self._gone].number
            self._ring_bytes -= self._sizes[self._gone]
            self._gone += 1
        if self._gone > RING_EVENTS // 10:
            del self._ring[: self._gone], self._sizes[: self._gone]
            self._gone = 0
        self.wake()

    def wake(self) -> None:
        """Wake all who wait, for something that is not an event has changed."""
        _resolve(self._commit)
        self._commit = None
        self._wake_listeners()

    def after(self, number: int) -> Sequence[PublishedEvent] | None:
        """The next events with a greater number, in order, as many as one look brings; None where the ring does not reach back so
        far.
        """
        if number < self._before_ring:
            return None
        start = bisect_right(self._ring, number, lo=self._gone, key=lambda event: event.number)
        stop, size = start, 0
        for bytes_ in islice(self._sizes, start, start + LOOK_EVENTS):
            if size >= LOOK_BYTES:
                break
            stop, size = stop + 1, size + bytes_
        return self._ring[start:stop]

    def next_commit(self) -> asyncio.Future[None]:
        """Done when the next commit is. Take it before a look that awaits, and give it to :meth:`wait` after that."""
        if self._commit is None:
            self._commit = asyncio.get_running_loop().create_future()
        return self._commit

    def next_commit_or_delta(self) -> asyncio.Future[None]:
        """Done when the next commit is, or when a model has written something for anybody who listens."""
        if self._commit_or_delta is None:
            self._commit_or_delta = asyncio.get_running_loop().create_future()
        return self._commit_or_delta

    async def wait(self, seconds: float, commit: asyncio.Future[None] | None = None) -> bool:
        """Wait for a commit; False where none came within ``seconds``.

        :param commit: of :meth:`next_commit`; where None, call this without an await since the last look.
        """
        try:
            await asyncio.wait_for(asyncio.shield(commit or self.next_commit()), seconds)
        except TimeoutError:
            return False
        return True

    def delta(self, delta: run_pb2.TokenDelta) -> None:
        """Pass on text that a model is writing, to those who listen for its run; nobody else is woken."""
        # All of them, whoever takes it first.
        if sum(listener.put(delta) for listener in self._listeners):
            self._wake_listeners()

    def listen(self, deltas: Deltas) -> None:
        """Fill ``deltas`` until it is given to :meth:`forget`."""
        self._listeners.add(deltas)

    def forget(self, deltas: Deltas) -> None:
        """Stop filling it."""
        self._listeners.discard(deltas)

    def _wake_listeners(self) -> None:
        _resolve(self._commit_or_delta)
        self._commit_or_delta = None


def _resolve(signal: asyncio.Future[None] | None) -> None:
    if signal is not None and not signal.done():
        signal.set_result(None)
