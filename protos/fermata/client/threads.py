"""Threads: conversations that runs go on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import thread_pb2, thread_pb2_grpc

from .names import full_name, tenant_name
from .transport import Transport
from .values import to_struct

if TYPE_CHECKING:
    from fermata.v1.thread_pb2_grpc import ThreadServiceAsyncStub


class Threads:
    """``ThreadService``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> ThreadServiceAsyncStub:
        return thread_pb2_grpc.ThreadServiceStub(self._transport.channel)

    async def create(
        self, *, labels: Mapping[str, object] | None = None, request_id: str = ""
    ) -> thread_pb2.Thread:
        """Make an empty thread; ``labels`` are the surface's own, such as a channel."""
        request = thread_pb2.CreateThreadRequest(
            parent=tenant_name(self._transport.tenant),
            thread=thread_pb2.Thread(labels=to_struct(labels or {})),
            request_id=request_id,
        )
        return await self._transport.unary(self._stub.CreateThread, request)

    async def get(self, thread: str) -> thread_pb2.Thread:
        """One thread. :raises NotFoundError: THREAD_NOT_FOUND."""
        name = full_name(self._transport.tenant, "threads", thread)
        return await self._transport.unary(self._stub.GetThread, thread_pb2.GetThreadRequest(name=name))

    async def list(self, *, limit: int | None = 50) -> Sequence[thread_pb2.Thread]:
        """Threads, newest first."""
        request = thread_pb2.ListThreadsRequest(parent=tenant_name(self._transport.tenant))
        return await self._transport.collect(
            self._stub.ListThreads, request, "threads", thread_pb2.Thread, limit
        )
