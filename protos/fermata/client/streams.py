"""Streams that outlive their connections.

A watch is one logical stream over any number of calls. After a break it opens the next call from the last
cursor that it saw. Breaks are what a network and a restarting server do: UNAVAILABLE, a reset with
CANCELLED that we did not ask for, silence for longer than heartbeats allow, or an orderly end before the
stream's own last item. What another call would only repeat (NOT_FOUND, no rights) ends the watch at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc import aio

from .errors import FermataError, error, from_rpc
from .transport import Transport, cancelled_by_us

HEARTBEAT_TIMEOUT_SECONDS = 30.0
PATIENCE_SECONDS = 60.0
MAX_FAULTS = 5

_BREAKS = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_FAULTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
"""A broken transport is reported like a fault of the server: worth a few more calls, not endless ones."""

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)
OnBreak = Callable[[FermataError], None]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How patient a watch is.

    :param heartbeat_timeout_seconds: silence after which a connection counts as broken.
    :param patience_seconds: how long to try for without receiving anything; None tries for ever.
    :param on_break: told of each break, before the watch waits and opens the next call.
    """

    heartbeat_timeout_seconds: float = HEARTBEAT_TIMEOUT_SECONDS
    patience_seconds: float | None = PATIENCE_SECONDS
    on_break: OnBreak | None = None


class BrokenStreamError(FermataError):
    """Raised by ``accept`` at a gap; the watch opens another call from the last good cursor, a few times."""

    code = grpc.StatusCode.DATA_LOSS


async def follow(
    transport: Transport,
    stub: aio.UnaryStreamMultiCallable[_Request, _Response],
    request_from: Callable[[str], _Request],
    accept: Callable[[_Response], bool],
    cursor_of: Callable[[_Response], str],
    is_over: Callable[[], Awaitable[bool]],
    *,
    cursor: str = "",
    options: StreamOptions | None = None,
) -> AsyncGenerator[_Response, None]:
    """Yield what the server streams, over as many calls as it takes.

    :param request_from: the request that goes on after a cursor.
    :param accept: says whether an item shall be yielded (a heartbeat or a repeat shall not); it raises
        ``BrokenStreamError`` at a gap, and the item's cursor is then not taken.
    :param cursor_of: an item's cursor; empty leaves the last one in place.
    :param is_over: asked when a call ends without an error: True if the stream has ended by itself.
    :raises FermataError: for what another call would not mend, or when patience is at its end.
    """
    options = options or StreamOptions()
    failures = 0
    alive = transport.clock()
    while True:
        call: aio.UnaryStreamCall[_Request, _Response] | None = None
        try:
            call = stub(request_from(cursor), metadata=transport.call_metadata)
            while True:
                response = await _read(call, options.heartbeat_timeout_seconds)
                if response is None:
                    break
                wanted = accept(response)
                failures = 0
                alive = transport.clock()
                cursor = cursor_of(response) or cursor
                if wanted:
                    yield response
            if await is_over():
                return
            broken: FermataError = error(grpc.StatusCode.UNAVAILABLE, "The server ended the stream early.")
        except FermataError as failure:
            broken = failure
        finally:
            if call is not None:
                call.cancel()
        failures += 1
        silent_seconds = transport.clock() - alive
        if not _worth_another(broken, failures) or (
            options.patience_seconds is not None and silent_seconds > options.patience_seconds
        ):
            raise broken
        if options.on_break is not None:
            options.on_break(broken)
        await transport.sleep(transport.retry.wait_after(broken, failures, transport.random))


def _worth_another(broken: FermataError, failures: int) -> bool:
    return broken.code in _BREAKS or (broken.code in _FAULTS and failures < MAX_FAULTS)


async def _read(call: aio.UnaryStreamCall[_Request, _Response], timeout_seconds: float) -> _Response | None:
    """The next item, or None at the end of a call that succeeded."""
    try:
        async with asyncio.timeout(timeout_seconds):
            response = await call.read()
            if response is aio.EOF:
                code = await call.code()
                if code is not grpc.StatusCode.OK:
                    raise error(code, await call.details() or "The stream broke.")
                return None
            return cast("_Response", response)
    except aio.AioRpcError as rpc:
        raise from_rpc(rpc) from None
    except TimeoutError:
        raise error(
            grpc.StatusCode.UNAVAILABLE,
            f"The server was silent for {timeout_seconds:g} s.",
            reason="HEARTBEAT_MISSED",
        ) from None
    except asyncio.CancelledError:
        if cancelled_by_us():
            raise
        raise error(grpc.StatusCode.CANCELLED, "The peer ended the stream.") from None
