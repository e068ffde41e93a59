"""A worker's one stream to the server: coalesced both ways, opened again after any break, with what is
unanswered sent again.

Messages whose answer is awaited are kept until it comes; after a break those that were already written go out
first, in their old order. *Facts* (a host is dead, a run has stopped) have no answer: those of the last while
go out again, for the server can't have two opinions on them. What is neither (text deltas, heartbeats) is
lost with the frame that it was in.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fermata.server.cluster.target import ServerTarget
from fermata.v1.worker_pb2 import (
    ConnectRequest,
    ConnectResponse,
    ServerMessage,
    Welcome,
    WorkerHello,
    WorkerMessage,
)
from fermata.v1.worker_pb2_grpc import WorkerServiceStub

log = logging.getLogger(__name__)

FRAME_BYTES = 1024 * 1024
"""A frame takes no further message once it is this long: a gate then never waits for more than one such
frame.
"""
ROOM_BYTES = 8 * 1024 * 1024
"""With more than this unwritten, ``room`` makes hosts wait."""
KEPT_FACTS = 256
WELCOME_SECONDS = 10.0
FIRST_BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 2.0

_Call: TypeAlias = "grpc.aio.StreamStreamCall[ConnectRequest, ConnectResponse]"

STORE_RESTORED = "STORE_RESTORED"
"""The reason with which the server refuses who has dealt with another life of its store."""

Key = tuple[str, int, int]
"""Run, epoch and message id: by which an answer finds its question."""


class _BrokenError(Exception):
    """The stream has ended."""


@dataclass(eq=False)
class Entry:
    message: WorkerMessage
    size: int
    key: Key | None = None
    written: bool = False


@dataclass(eq=False)
class Outbox:
    """What waits to be written, and what was written and waits for an answer."""

    queue: deque[Entry] = field(default_factory=deque)
    queued_bytes: int = 0
    unanswered: dict[Key, Entry] = field(default_factory=dict)
    facts: deque[Entry] = field(default_factory=lambda: deque(maxlen=KEPT_FACTS))

    def put(self, message: WorkerMessage, key: Key | None, fact: bool) -> None:
        entry = Entry(message, message.ByteSize(), key)
        if key is not None:
            self.unanswered[key] = entry
        if fact:
            self.facts.append(entry)
        self.queue.append(entry)
        self.queued_bytes += entry.size

    def take_frame(self) -> list[WorkerMessage]:
        """The next messages in order, as many as fit in a frame and at least one, where there is any."""
        frame: list[WorkerMessage] = []
        size = 0
        while self.queue and size < FRAME_BYTES:
            entry = self.queue.popleft()
            self.queued_bytes -= entry.size
            entry.written = True
            frame.append(entry.message)
            size += entry.size
        return frame

    def forget(self) -> None:
        """Drop all that is to be said, but for how started steps ended: a step's nonce says which start is meant, and nothing else
        does any more.
        """
        ended = [
            entry
            for entry in {id(entry): entry for entry in (*self.unanswered.values(), *self.queue)}.values()
            if entry.message.host.WhichOneof("body") == "step_closed"
        ]
        self.queue.clear()
        self.unanswered.clear()
        self.facts.clear()
        self.queued_bytes = 0
        for entry in ended:
            entry.message.host.ClearField("commit")
            self.put(entry.message, entry.key, fact=False)

    def rewind(self) -> None:
        """After a break: what was written and may not have arrived goes first again."""
        again = [entry for entry in self.unanswered.values() if entry.written]
        again += [entry for entry in self.facts if entry.written]
        for entry in again:
            entry.written = False
            self.queued_bytes += entry.size
        self.queue.extendleft(reversed(again))


class ServerLink:
    """Keeps a worker connected.

    :param hello: makes the first message of each connection.
    :param on_welcome: told of each accepted connection, before anything else is written.
    :param on_restored: told that the server's store is a backup of the one that this worker has dealt with; nothing is said to
        the server before it returns.
    :param on_message: takes every other message, in order, on the loop; must not block.
    """

    def __init__(
        self,
        target: ServerTarget,
        *,
        hello: Callable[[], WorkerHello],
        on_welcome: Callable[[Welcome], None],
        on_message: Callable[[ServerMessage], None],
        on_restored: Callable[[], Awaitable[None]],
    ) -> None:
        self._target = target
        self._hello = hello
        self._on_welcome = on_welcome
        self._on_message = on_message
        self._on_restored = on_restored
        self._outbox = Outbox()
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._welcomed = asyncio.Event()
        self._ever_welcomed = asyncio.Event()

    @property
    def connected(self) -> bool:
        """True from a welcome until the break."""
        return self._welcomed.is_set()

    async def wait_connected(self) -> None:
        """Returns once the server has welcomed this worker for the first time."""
        await self._ever_welcomed.wait()

    def send(self, message: WorkerMessage, *, key: Key | None = None, fact: bool = False) -> None:
        """Queues a message.

        :param key: kept and sent again after a break until ``answered`` names it.
        :param fact: sent again after a break although no answer comes.
        """
        self._outbox.put(message, key, fact)
        if self._outbox.queued_bytes > ROOM_BYTES:
            self._room.clear()
        self._something.set()

    def answered(self, key: Key) -> bool:
        """Notes an answer. False where none was awaited: a repeat."""
        return self._outbox.unanswered.pop(key, None) is not None

    async def room(self) -> None:
        """Waits while too much is queued: who reads from a host waits here, so that memory is bounded by the
        hosts' sockets.
        """
        await self._room.wait()

    async def run(self) -> None:
        """Connects, and connects again after each break, until cancelled."""
        failures = 0
        async with self._target.open_channel() as channel:
            while True:
                try:
                    await self._one_connection(channel)
                except* (grpc.aio.AioRpcError, _BrokenError, asyncio.InvalidStateError, OSError) as group:
                    error = group.exceptions[0]
                    was_welcome = self._welcomed.is_set()
                    failures = 1 if was_welcome else failures + 1
                    code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else ""
                    details = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
                    level = logging.WARNING if was_welcome or failures == 1 else logging.DEBUG
                    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
                        level = logging.ERROR
                    if code == "FAILED_PRECONDITION" and _reason(error) == STORE_RESTORED:
                        await self._on_restored()
                        self._outbox.forget()
                        self._room.set()
                    log.log(level, "connection to %s ended: %s %s", self._target.address, code, details)
                self._welcomed.clear()
                self._outbox.rewind()
                await asyncio.sleep(backoff_seconds(failures, random.random()))  # noqa: S311 - jitter

    async def _one_connection(self, channel: grpc.aio.Channel) -> None:
        call = WorkerServiceStub(channel).Connect(metadata=self._target.metadata())
        try:
            await _write(call, WorkerMessage(hello=self._hello()))
            try:
                first = await asyncio.wait_for(_read(call), WELCOME_SECONDS)
            except TimeoutError as error:
                raise _BrokenError(f"no welcome within {WELCOME_SECONDS:.0f} s") from error
            if not first.messages or first.messages[0].WhichOneof("body") != "welcome":
                raise _BrokenError("the server's first message was not a welcome")
            welcome = first.messages[0].welcome
            self._on_welcome(welcome)
            self._welcomed.set()
            self._ever_welcomed.set()
            self._something.set()
            for message in first.messages[1:]:
                self._on_message(message)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_all(call))
                tasks.create_task(self._write_all(call))
                if welcome.heartbeat_seconds > 0:
                    tasks.create_task(self._beat(welcome.heartbeat_seconds))
        finally:
            call.cancel()

    async def _read_all(self, call: _Call) -> None:
        while True:
            for message in (await _read(call)).messages:
                self._on_message(message)

    async def _write_all(self, call: _Call) -> None:
        while True:
            await self._something.wait()
            frame = self._outbox.take_frame()
            if not self._outbox.queue:
                self._something.clear()
            if self._outbox.queued_bytes <= ROOM_BYTES:
                self._room.set()
            if frame:
                await _write(call, *frame)

    async def _beat(self, every_seconds: float) -> None:
        while True:
            message = WorkerMessage()
            message.heartbeat.time.GetCurrentTime()
            self.send(message)
            await asyncio.sleep(every_seconds)


def backoff_seconds(failures: int, jitter: float) -> float:
    """How long to wait before the next attempt: doubling, bounded, and spread by ``jitter`` in [0, 1)."""
    longest: float = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 16), MAX_BACKOFF_SECONDS)
    return longest * (0.5 + jitter / 2)


def _reason(error: BaseException) -> str:
    """The reason code of a refusal; empty where it has none."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return str(info.reason)
    return ""


async def _read(call: _Call) -> ConnectResponse:
    with _peers_cancel_is_a_break():
        frame = await call.read()
    if not isinstance(frame, ConnectResponse):
        raise _BrokenError("the server closed the stream")
    return frame


async def _write(call: _Call, *messages: WorkerMessage) -> None:
    with _peers_cancel_is_a_break():
        await call.write(ConnectRequest(messages=messages))


@contextmanager
def _peers_cancel_is_a_break() -> Iterator[None]:
    """grpc.aio says CancelledError also where the call was cancelled and we were not; let through, it would end the link for
    good and without a word.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise _BrokenError("the stream was cancelled") from None
