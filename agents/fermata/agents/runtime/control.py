"""The control sockets of a worker, to its warden and to each zygote: JSON objects behind a length of 4 bytes, with file
descriptors beside them."""

from __future__ import annotations

import array
import asyncio
import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct(">I")
_MAX_DESCRIPTORS = 4


def send(sock: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send an object and descriptors; blocks until the kernel has it.

    :raises OSError: where the other end is closed.
    """
    body = json.dumps(message).encode()
    data = _LENGTH.pack(len(body)) + body
    if descriptors:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        sent = sock.sendmsg([data], rights)
        data = data[sent:]
    sock.sendall(data)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next object and its descriptors, which are the caller's to close; None where the other end is closed."""
    descriptors: list[int] = []
    head = _exactly(sock, _LENGTH.size, descriptors)
    if head is None:
        return None
    (size,) = _LENGTH.unpack(head)
    body = _exactly(sock, size, descriptors)
    return None if body is None else (json.loads(body), descriptors)


def _exactly(sock: socket.socket, size: int, descriptors: list[int]) -> bytes | None:
    data = b""
    while len(data) < size:
        chunk, ancillary, _flags, _address = sock.recvmsg(
            size - len(data), socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS)
        )
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                descriptors.extend(received)
        if not chunk:
            return None
        data += chunk
    return data


async def read(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> dict[str, Any] | None:
    """The next object, read from a socket that does not block; None where the other end is closed."""
    head = await _read_exactly(loop, sock, _LENGTH.size)
    if head is None:
        return None
    body = await _read_exactly(loop, sock, _LENGTH.unpack(head)[0])
    return None if body is None else json.loads(body)


async def _read_exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            chunk = await loop.sock_recv(sock, size - len(data))
        except ConnectionError:
            return None
        if not chunk:
            return None
        data += chunk
    return data
