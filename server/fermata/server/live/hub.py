"""What was committed, for those who watch: a bounded ring of recent events, and a signal.

A watcher has a position and no queue. As long as its position lies within the ring it reads memory, otherwise the store; a slow
reader costs the server nothing but its own stream.
"""

from __future__ import annotations

import asyncio
from collections import deque

from fermata.server.store.publication import PublishedEvent
from fermata.v1 import run_pb2

RING_EVENTS = 20_000

RING_BYTES = 64 * 1024 * 1024
"""What the events in the ring may have together, as messages."""


class Hub:
    """Recent events in the order of commits, and one signal for all watchers."""

    def __init__(self, start: int) -> None:
        """:param start: number of the last event that was committed before."""
        self._ring: deque[PublishedEvent] = deque()
        self._ring_bytes = 0
        self._before_ring = start
        self._last = start
        self._signal: asyncio.Future[None] | None = None
        self._deltas: set[asyncio.Queue[run_pb2.TokenDelta]] = set()

    @property
    def last(self) -> int:
        """Number of the newest event."""
        return self._last

    def publish(self, events: list[PublishedEvent]) -> None:
        """Add what a commit has published, and wake all who wait."""
        for event in events:
            self._ring.append(event)
            self._ring_bytes += event.event.ByteSize()
            self._last = event.number
        while len(self._ring) > RING_EVENTS or self._ring_bytes > RING_BYTES:
            oldest = self._ring.popleft()
            self._ring_bytes -= oldest.event.ByteSize()
            self._before_ring = oldest.number
        self.wake()

    def wake(self) -> None:
        """Wake all who wait, for something that is not an event has changed."""
        if self._signal is not None and not self._signal.done():
            self._signal.set_result(None)
        self._signal = None

    def after(self, number: int) -> list[PublishedEvent] | None:
        """Events with a greater number, in order; None where the ring does not reach back so far."""
        if number < self._before_ring:
            return None
        found: list[PublishedEvent] = []
        for event in reversed(self._ring):
            if event.number <= number:
                break
            found.append(event)
        found.reverse()
        return found

    def next_commit(self) -> asyncio.Future[None]:
        """Done when the next commit is. Take it before a look that awaits, and give it to :meth:`wait` after that."""
        if self._signal is None:
            self._signal = asyncio.get_running_loop().create_future()
        return self._signal

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
        """Pass on text that a model is writing; whoever is too slow for it misses it."""
        for queue in self._deltas:
            if not queue.full():
                queue.put_nowait(delta)
        if self._deltas:
            self.wake()

    def listen_to_deltas(self) -> asyncio.Queue[run_pb2.TokenDelta]:
        """A queue that gets deltas until it is given to :meth:`forget_deltas`."""
        queue: asyncio.Queue[run_pb2.TokenDelta] = asyncio.Queue(maxsize=256)
        self._deltas.add(queue)
        return queue

    def forget_deltas(self, queue: asyncio.Queue[run_pb2.TokenDelta]) -> None:
        """Stop filling a queue."""
        self._deltas.discard(queue)
