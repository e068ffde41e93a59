"""The connected workers: who has room, and where messages to them go."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.runs.transitions import HALTING, RUNNING
from fermata.server.store.publication import PublishedEvent
from fermata.v1 import agent_pb2, worker_pb2

INSPECT_SECONDS = 60.0
"""How long loading a graph may take."""

EMBED_SECONDS = 60.0

FIRST_WORKER_SECONDS = 5.0
"""How long an embedding waits for a worker to come."""

UNASKED = 0
"""The id of an Inspect that is there to warm a worker up."""

FRAME_BYTES = 1024 * 1024
"""A frame takes no further message once it is this long: together they would be more than gRPC sends."""

MAX_OUTBOX = 50_000
"""Messages that may wait for one worker; a worker that is so far behind is taken for gone."""


@dataclass(eq=False)
class ConnectedWorker:
    """One connection of a worker."""

    id: str
    node: str
    pid: int
    capacity: int
    heard: float
    """When it last said anything, by the monotonic clock."""
    outbox: deque[worker_pb2.ServerMessage] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    runs: set[str] = field(default_factory=set)
    warm: set[str] = field(default_factory=set)
    """Revisions that it has run."""
    closed: bool = False
    file_latch: str = ""
    """Why a file halts everything on its machine; empty where none does."""

    def send(self, message: worker_pb2.ServerMessage) -> None:
        """Queue a message; what is queued while a write is in flight goes as one frame. Dropped where the connection is ending."""
        if self.closed:
            return
        self.outbox.append(message)
        if len(self.outbox) > MAX_OUTBOX:
            self.closed = True
        self.wake.set()

    def close(self) -> None:
        """Have the connection end, whatever it waits for."""
        self.closed = True
        self.wake.set()

    def take_frame(self) -> list[worker_pb2.ServerMessage]:
        """The next messages in order, as many as fit in a frame and at least one, where there is any."""
        frame: list[worker_pb2.ServerMessage] = []
        size = 0
        while self.outbox and size < FRAME_BYTES:
            message = self.outbox.popleft()
            frame.append(message)
            size += message.ByteSize()
        return frame


class Workers:
    """All connected workers.

    ``choose`` and ``taken`` are called by the store's writer inside transactions, all else on the event loop. They read and add to
    sets whose single operations are atomic; a stale view costs a less even spread, never a second lease.
    """

    def __init__(self) -> None:
        self._connected: dict[str, ConnectedWorker] = {}
        self._numbers = itertools.count(1)
        self._inspections: dict[int, tuple[ConnectedWorker, asyncio.Future[worker_pb2.InspectResult]]] = {}
        self._embeddings: dict[int, tuple[ConnectedWorker, asyncio.Future[worker_pb2.EmbedResult]]] = {}
        self._arrival = asyncio.Event()

    def all(self) -> list[ConnectedWorker]:
        """The connected workers."""
        return list(self._connected.values())

    def get(self, worker: str) -> ConnectedWorker | None:
        """The connection of a worker, if it has one."""
        return self._connected.get(worker)

    def add(self, worker: ConnectedWorker) -> ConnectedWorker | None:
        """Register a connection; returns the one whose place it takes."""
        earlier = self._connected.get(worker.id)
        if earlier is not None:
            worker.runs, worker.warm = earlier.runs, earlier.warm
        self._connected[worker.id] = worker
        self._arrival.set()
        return earlier

    def remove(self, worker: ConnectedWorker) -> None:
        """Forget a connection, unless another has taken its place."""
        if self._connected.get(worker.id) is worker:
            del self._connected[worker.id]
        if not self._connected:
            self._arrival.clear()
        for waiting in (self._inspections, self._embeddings):
            _give_up(waiting, worker)

    def disconnect(self, worker: str) -> None:
        """End a worker's connection, and hand nothing to it from now on: its process is dead, or nothing is heard of it."""
        if (connected := self._connected.get(worker)) is not None:
            connected.close()
            self.remove(connected)

    def choose(self, revision: str) -> str | None:
        """A worker with room: one that has the revision warm before one that has not, the less busy before the busier."""
        free = [
            worker
            for worker in tuple(self._connected.values())
            if len(worker.runs) < worker.capacity and not worker.closed and not worker.file_latch
        ]
        if not free:
            return None
        return min(free, key=lambda worker: (len(worker.runs), revision not in worker.warm)).id

    def taken(self, worker: str, run: str) -> None:
        """Count a run for a worker."""
        if connected := self._connected.get(worker):
            connected.runs.add(run)

    def given_back(self, worker: str, run: str) -> None:
        """Count it no more: what would have leased it was not written."""
        if connected := self._connected.get(worker):
            connected.runs.discard(run)

    def follow(self, event: PublishedEvent) -> None:
        """Keep the count of runs at work: a parked or an ended run leaves room."""
        if event.event.state in (RUNNING, HALTING):
            return
        for worker in self._connected.values():
            worker.runs.discard(event.event.run)

    def send(self, worker: str, message: worker_pb2.ServerMessage) -> None:
        """Send to a worker; without a connection the message is dropped, and the lease's end will tell."""
        connected = self._connected.get(worker)
        if connected is None:
            return
        if message.HasField("assign"):
            connected.warm.add(message.assign.revision.rsplit("/", 1)[-1])
        elif message.HasField("resume"):
            connected.runs.add(message.resume.lease.run)
        connected.send(message)

    async def inspect(self, spec: agent_pb2.AgentSpec, wait_seconds: float) -> worker_pb2.InspectResult:
        """Have a worker load a graph and say what is in it.

        :param wait_seconds: how long to wait for the first worker.
        :raises DomainError: NO_WORKER, WORKER_TIMEOUT, WORKER_LOST.
        """
        worker = await self._any(wait_seconds)
        number = next(self._numbers)
        future: asyncio.Future[worker_pb2.InspectResult] = asyncio.get_running_loop().create_future()
        try:
            self._inspections[number] = worker, future
            worker.send(worker_pb2.ServerMessage(inspect=worker_pb2.Inspect(id=number, spec=spec)))
            return await asyncio.wait_for(future, INSPECT_SECONDS)
        except TimeoutError:
            raise DomainError(
                f"The graph did not load within {INSPECT_SECONDS:.0f} s. Does it do work at import?",
                reason="WORKER_TIMEOUT",
                kind=ErrorKind.UNAVAILABLE,
            ) from None
        finally:
            del self._inspections[number]

    def warm(self, spec: agent_pb2.AgentSpec, *workers: ConnectedWorker) -> None:
        """Have workers load a graph before its first run comes; all of them where none is named. Nobody waits for the answer."""
        for worker in workers or self._connected.values():
            worker.send(worker_pb2.ServerMessage(inspect=worker_pb2.Inspect(id=UNASKED, spec=spec)))

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of unit length for texts: float32, one row for each text.

        :raises DomainError: NO_WORKER, MODEL_UNAVAILABLE, WORKER_LOST.
        """
        worker = await self._any(FIRST_WORKER_SECONDS)
        number = next(self._numbers)
        future: asyncio.Future[worker_pb2.EmbedResult] = asyncio.get_running_loop().create_future()
        try:
            self._embeddings[number] = worker, future
            worker.send(worker_pb2.ServerMessage(embed=worker_pb2.Embed(id=number, texts=texts)))
            result = await asyncio.wait_for(future, EMBED_SECONDS)
        except TimeoutError:
            raise DomainError(
                f"The embedding model did not answer within {EMBED_SECONDS:.0f} s.",
                reason="MODEL_UNAVAILABLE",
                kind=ErrorKind.UNAVAILABLE,
            ) from None
        finally:
            del self._embeddings[number]
        if result.HasField("error"):
            raise DomainError(
                f"The embedding model failed: {result.error.message}",
                reason=result.error.reason or "MODEL_UNAVAILABLE",
                kind=ErrorKind.UNAVAILABLE,
            )
        return np.frombuffer(result.vectors, dtype="<f4").reshape(result.count, -1)

    def inspected(self, result: worker_pb2.InspectResult) -> None:
        """Take the answer to an Inspect; one that nobody waits for any more is dropped."""
        _, future = self._inspections.get(result.id, (None, None))
        if future is not None and not future.done():
            future.set_result(result)

    def embedded(self, result: worker_pb2.EmbedResult) -> None:
        """Take the answer to an Embed."""
        _, future = self._embeddings.get(result.id, (None, None))
        if future is not None and not future.done():
            future.set_result(result)

    async def _any(self, wait_seconds: float) -> ConnectedWorker:
        try:
            await asyncio.wait_for(self._arrival.wait(), wait_seconds)
        except TimeoutError:
            raise DomainError(
                "No worker is connected. Is Ray up? See `fermata workers` and the logs in the data folder.",
                reason="NO_WORKER",
                kind=ErrorKind.UNAVAILABLE,
            ) from None
        return min(self._connected.values(), key=lambda worker: (bool(worker.file_latch), len(worker.runs)))


def _give_up(
    waiting: Mapping[int, tuple[ConnectedWorker, asyncio.Future[Any]]], worker: ConnectedWorker
) -> None:
    for asked, future in waiting.values():
        if asked is worker and not future.done():
            future.set_exception(_lost(worker))


def _lost(worker: ConnectedWorker) -> DomainError:
    return DomainError(
        f"The worker {worker.id} went away before it had answered; try again.",
        reason="WORKER_LOST",
        kind=ErrorKind.UNAVAILABLE,
        worker=worker.id,
    )
