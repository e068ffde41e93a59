"""One channel, and the rules for every call on it: token, deadline, retries, decoded errors.

Chosen: a small loop of our own around each call. Refused: gRPC interceptors (they hide the request that a
retry must keep) and HTTP/2 keepalive pings (servers count them as abuse; the streams carry heartbeats of
their own).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from .config import Connection
from .errors import FermataError, LocalError, error, from_rpc
from .retry import RetryPolicy, prepare

DEADLINE_SECONDS = 30.0
LONG_DEADLINE_SECONDS = 180.0
"""For what takes long on the server: loading a graph, embedding a large document."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
RECONNECT_MILLISECONDS = (100, 1000)
PAGE_SIZE = 200
_NO_CONTACT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)
_Item = TypeVar("_Item", bound=Message)


class _Page(Protocol):
    """What the transport reads of a list response."""

    @property
    def next_page_token(self) -> str: ...


class Transport:
    """A channel that opens itself at the first call, inside the event loop that makes it.

    :param connection: the server.
    :param deadline_seconds: longest time of a unary call, all attempts and waits included.
    :param retry: how often and how slowly calls are repeated.
    :param random: returns 0 to 1; tests give their own, as they do for ``sleep`` (seconds) and ``clock``
        (monotonic seconds).
    """

    def __init__(
        self,
        connection: Connection,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        retry: RetryPolicy | None = None,
        random: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection = connection
        self.deadline_seconds = deadline_seconds
        self.retry = retry or RetryPolicy()
        self.random = random
        self.sleep = sleep
        self.clock = clock
        self._channel: aio.Channel | None = None
        self._closed = False
        self._has_answered = False

    @property
    def tenant(self) -> str:
        """The tenant that short names belong to."""
        return self.connection.tenant

    @property
    def channel(self) -> aio.Channel:
        """The channel, opened now if it was not.

        :raises LocalError: CLIENT_CLOSED after ``close``, CA_FILE_UNREADABLE for a certificate file that
            can't be read.
        """
        if self._closed:
            raise LocalError("The client is closed.", reason="CLIENT_CLOSED")
        if self._channel is None:
            self._channel = _open(self.connection)
        return self._channel

    @property
    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call: the bearer token, if there is one."""
        token = self.connection.token
        return (("authorization", f"Bearer {token}"),) if token else ()

    async def close(self) -> None:
        """Close the channel. Calls that are going on end as CANCELLED."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def unary(
        self,
        call: aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        *,
        deadline_seconds: float | None = None,
    ) -> _Response:
        """Send ``request`` and return the answer, repeating where that is safe and may help.

        :raises FermataError: what the server answered at last, decoded.
        """
        repeatable = prepare(request.DESCRIPTOR.name.removesuffix("Request"), request)
        end = self.clock() + (deadline_seconds or self.deadline_seconds)
        failures = 0
        while True:
            try:
                answer = await self._once(call, request, max(end - self.clock(), 0.001))
            except FermataError as failure:
                failures += 1
                self._has_answered |= failure.code not in _NO_CONTACT
                attempts = self.retry.attempts
                if not self._has_answered:
                    attempts = min(attempts, self.retry.attempts_before_contact)
                wait = self.retry.wait_after(failure, failures, self.random)
                exhausted = failures >= attempts or self.clock() + wait >= end
                if not repeatable or not failure.retryable or exhausted:
                    raise
            else:
                self._has_answered = True
                return answer
            await self.sleep(wait)

    async def collect(
        self,
        call: aio.UnaryUnaryMultiCallable[_Request, Any],
        request: _Request,
        field: str,
        kind: type[_Item],
        limit: int | None,
    ) -> list[_Item]:
        """Follow page tokens until ``limit`` items are there (None: all of them). ``field`` holds a page's
        items, of type ``kind``."""
        items: list[_Item] = []
        size_name = "page_size"
        while limit is None or len(items) < limit:
            wanted = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - len(items))
            setattr(request, size_name, wanted)
            page: _Page = await self.unary(call, request)
            items.extend(getattr(page, field))
            if not page.next_page_token:
                break
            token_name = "page_token"  # noqa: S105 - a cursor of a list, not a secret
            setattr(request, token_name, page.next_page_token)
        return items

    async def _once(
        self, call: aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, timeout: float
    ) -> _Response:
        try:
            return await call(request, timeout=timeout, metadata=self.call_metadata)
        except aio.AioRpcError as rpc:
            # The original holds the call's metadata in its traceback's frames, but never in its text.
            raise from_rpc(rpc) from None
        except asyncio.CancelledError:
            if cancelled_by_us():
                raise
            raise error(grpc.StatusCode.CANCELLED, "The peer ended the call.") from None


def cancelled_by_us() -> bool:
    """True where somebody has asked the running task to stop; False where a peer's reset merely looks like
    it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _open(connection: Connection) -> aio.Channel:
    initial, largest = RECONNECT_MILLISECONDS
    options: list[tuple[str, int]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", initial),
        ("grpc.min_reconnect_backoff_ms", initial),
        ("grpc.max_reconnect_backoff_ms", largest),
        # Two clients of one process must not share a connection: closing one would end the other's streams.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if connection.is_loopback:
        options.append(("grpc.enable_http_proxy", 0))
    if not connection.tls:
        return aio.insecure_channel(connection.target, options=options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(connection.ca_file),
        private_key=_read(connection.client_key_file),
        certificate_chain=_read(connection.client_cert_file),
    )
    return aio.secure_channel(connection.target, credentials, options=options)


def _read(path: Any) -> bytes | None:
    if path is None:
        return None
    try:
        return bytes(path.read_bytes())
    except OSError as failure:
        raise LocalError(
            f"The certificate file {path} can't be read: {failure.strerror}.",
            reason="CA_FILE_UNREADABLE",
            metadata={"file": str(path)},
        ) from failure
