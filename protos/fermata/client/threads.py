"""Threads: conversations that runs go on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

from fermata.v1 import thread_pb2, thread_pb2_grpc

from .errors import LocalError
from .names import full_name, tenant_name
from .transport import Transport
from .values import to_struct

if TYPE_CHECKING:
    from fermata.v1.thread_pb2_grpc import ThreadServiceAsyncStub


MultitaskStrategy = Literal["reject", "enqueue", "interrupt", "rollback"]
"""What becomes of a run that is asked for while another of its thread is going on, as the LangGraph server names it."""


def strategy_of(name: MultitaskStrategy | None) -> thread_pb2.MultitaskStrategy.ValueType:
    """The API's value; unspecified for None. :raises LocalError: STRATEGY_UNKNOWN."""
    if name is None:
        return thread_pb2.MULTITASK_STRATEGY_UNSPECIFIED
    known = get_args(MultitaskStrategy)
    if name not in known:
        raise LocalError(
            f"There is no strategy {name!r}. Known: {', '.join(known)}.", reason="STRATEGY_UNKNOWN"
        )
    return thread_pb2.MultitaskStrategy.Value(f"MULTITASK_STRATEGY_{name.upper()}")


class Threads:
    """``ThreadService``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> ThreadServiceAsyncStub:
        return thread_pb2_grpc.ThreadServiceStub(self._transport.channel)

    async def create(
        self,
        *,
        labels: Mapping[str, object] | None = None,
        multitask_strategy: MultitaskStrategy | None = None,
        request_id: str = "",
    ) -> thread_pb2.Thread:
        """Make an empty thread.

        :param labels: the surface's own, such as a channel.
        :param multitask_strategy: what a second message does while a run is going on, where it does not say
            so itself; it is rejected where left out.
        """
        request = thread_pb2.CreateThreadRequest(
            parent=tenant_name(self._transport.tenant),
            thread=thread_pb2.Thread(
                labels=to_struct(labels or {}), multitask_strategy=strategy_of(multitask_strategy)
            ),
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
