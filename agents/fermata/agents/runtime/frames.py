"""Frames between a worker and its run hosts: a length of 4 bytes, big endian, and a protobuf message of that size.

To a host go ``ServerMessage`` frames (assign, resume, stop, host_reply), from it come ``WorkerMessage`` frames (host).
The worker's end is asyncio (``FrameStream``), the host's end blocks (``FrameSocket``): a host must be able to send and
to wait in any thread, also while user code blocks its event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterable
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from fermata.agents.runtime.errors import ChannelClosedError, FrameInvalidError, FrameTooLargeError

MAX_FRAME_BYTES = 48 * 1024 * 1024
"""Largest frame that either end sends or takes: with room to spare below the 64 MiB that a gRPC message may have."""

SOCKET_BUFFER_BYTES = 1024 * 1024
"""Kernel buffer asked for at both ends, so that most frames need one system call."""

_LENGTH = struct.Struct(">I")

Incoming = TypeVar("Incoming", bound=Message)


def encode(message: Message) -> bytes:
    """The message as one frame.

    :raises FrameTooLargeError: where it is over ``MAX_FRAME_BYTES``.
    """
    body = message.SerializeToString()
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLargeError(len(body), MAX_FRAME_BYTES)
    return _LENGTH.pack(len(body)) + body


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair of AF_UNIX stream sockets: the worker's end and the host's."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    return ends


class FrameStream(Generic[Incoming]):
    """The asyncio end. What is queued while one write is in flight goes as one write."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, incoming: type[Incoming]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming = incoming
        self._queue: list[bytes] = []
        self._flushing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, sock: socket.socket, incoming: type[Incoming]) -> FrameStream[Incoming]:
        """Take over a connected socket; messages that arrive are of the type ``incoming``."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(reader, writer, incoming)

    def send(self, message: Message) -> None:
        """Queue a message; it leaves with all others that are queued by then.

        :raises FrameTooLargeError: where the message is too large; nothing is queued.
        """
        self._queue.append(encode(message))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())

    async def receive(self) -> Incoming | None:
        """The next message, or None where the other end is closed.

        :raises FrameTooLargeError: where the other end announces too large a frame: the stream can't be used further.
        :raises FrameInvalidError: where a frame holds no message: neither can it.
        """
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if size > MAX_FRAME_BYTES:
                raise FrameTooLargeError(size, MAX_FRAME_BYTES)
            return self._incoming.FromString(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        except DecodeError as error:
            raise FrameInvalidError(str(error)) from error

    async def drain(self) -> None:
        """Wait until all that was queued has been handed to the kernel."""
        if self._flushing is not None:
            await self._flushing

    def close(self) -> None:
        """Close the socket; what is queued is lost."""
        self._writer.close()

    async def _flush(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self._queue:
                batch, self._queue = self._queue, []
                self._writer.writelines(batch)
                await self._writer.drain()


class FrameSocket(Generic[Incoming]):
    """The blocking end. ``send`` may be called from any thread; one thread calls ``receive``."""

    def __init__(self, sock: socket.socket, incoming: type[Incoming]) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._incoming = incoming
        self._lock = threading.Lock()
        self._reader = sock.makefile("rb", buffering=SOCKET_BUFFER_BYTES)

    def send(self, messages: Iterable[Message]) -> None:
        """Send messages in order; returns when the kernel has them.

        :raises FrameTooLargeError: where one is too large; none is sent.
        :raises ChannelClosedError: where the other end is closed.
        """
        data = b"".join(encode(message) for message in messages)
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError as error:
            raise ChannelClosedError from error

    def receive(self) -> Incoming | None:
        """Block for the next message; None where the other end is closed."""
        try:
            head = self._reader.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                return None
            (size,) = _LENGTH.unpack(head)
            if size > MAX_FRAME_BYTES:
                raise FrameTooLargeError(size, MAX_FRAME_BYTES)
            body = self._reader.read(size)
        except OSError:
            return None
        return self._incoming.FromString(body) if len(body) == size else None

    def close(self) -> None:
        """Close the socket; a thread that waits in ``receive`` gets None."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
