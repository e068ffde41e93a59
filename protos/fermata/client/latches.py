"""Latches: hold, halt, and let go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import latch_pb2, latch_pb2_grpc

from .errors import LocalError
from .names import full_name, tenant_name
from .streams import StreamOptions, follow
from .transport import Transport

if TYPE_CHECKING:
    from fermata.v1.latch_pb2_grpc import LatchServiceAsyncStub

CLOSED_STATES = frozenset({latch_pb2.LATCH_STATE_SETTLED, latch_pb2.LATCH_STATE_RELEASED})


class Latches:
    """``LatchService``. A latch covers exactly one of run, thread, agent, tool, or everything of the
    tenant."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> LatchServiceAsyncStub:
        return latch_pb2_grpc.LatchServiceStub(self._transport.channel)

    async def hold(
        self,
        *,
        run: str = "",
        thread: str = "",
        agent: str = "",
        tool: str = "",
        everything: bool = False,
        reason: str = "",
        on_behalf_of: str = "",
    ) -> latch_pb2.Latch:
        """Let started effects finish, and stop at the next gate until released."""
        scope = self._scope(run, thread, agent, tool, everything)
        return await self._create(latch_pb2.LATCH_KIND_HOLD, scope, reason, on_behalf_of)

    async def halt(
        self,
        *,
        run: str = "",
        thread: str = "",
        agent: str = "",
        tool: str = "",
        everything: bool = False,
        reason: str = "",
        on_behalf_of: str = "",
    ) -> latch_pb2.Latch:
        """Stop for good. When this returns, no covered gate lets an effect through; ``settle`` waits for
        those that were open.

        :raises LocalError: SCOPE_AMBIGUOUS unless exactly one thing to halt is named.
        """
        scope = self._scope(run, thread, agent, tool, everything)
        return await self._create(latch_pb2.LATCH_KIND_HALT, scope, reason, on_behalf_of)

    async def release(self, latch: str, *, on_behalf_of: str = "") -> latch_pb2.Latch:
        """Lift a latch: held runs go on, halted runs stay halted and new ones are let in."""
        request = latch_pb2.ReleaseLatchRequest(name=self._name(latch), on_behalf_of=on_behalf_of)
        return await self._transport.unary(self._stub.ReleaseLatch, request)

    async def get(self, latch: str) -> latch_pb2.Latch:
        """One latch with its report as it is now. :raises NotFoundError: LATCH_NOT_FOUND."""
        return await self._transport.unary(
            self._stub.GetLatch, latch_pb2.GetLatchRequest(name=self._name(latch))
        )

    async def list(self, *, show_released: bool = False, limit: int | None = 50) -> Sequence[latch_pb2.Latch]:
        """Latches, newest first."""
        request = latch_pb2.ListLatchesRequest(
            parent=tenant_name(self._transport.tenant), show_released=show_released
        )
        return await self._transport.collect(
            self._stub.ListLatches, request, "latches", latch_pb2.Latch, limit
        )

    async def watch(
        self, latch: str, *, options: StreamOptions | None = None
    ) -> AsyncGenerator[latch_pb2.Latch, None]:
        """The latch each time that its report changes, until it has settled or was released."""
        name = self._name(latch)
        seen: latch_pb2.Latch | None = None

        def accept(item: latch_pb2.WatchLatchResponse) -> bool:
            nonlocal seen
            if not item.HasField("latch") or item.latch == seen:
                return False
            seen = item.latch
            return True

        async def is_over() -> bool:
            return seen is not None and seen.state in CLOSED_STATES

        stream = follow(
            self._transport,
            self._stub.WatchLatch,
            lambda _: latch_pb2.WatchLatchRequest(name=name),
            accept,
            lambda _: "",
            is_over,
            options=options,
        )
        async with aclosing(stream):
            async for item in stream:
                yield item.latch
                if item.latch.state in CLOSED_STATES:
                    return

    async def settle(self, latch: str, *, options: StreamOptions | None = None) -> latch_pb2.Latch:
        """Wait until the latch has settled or was released, and return its report."""
        async with aclosing(self.watch(latch, options=options)) as reports:
            async for report in reports:
                if report.state in CLOSED_STATES:
                    return report
        return await self.get(latch)

    async def _create(
        self, kind: latch_pb2.LatchKind.ValueType, scope: latch_pb2.LatchScope, reason: str, on_behalf_of: str
    ) -> latch_pb2.Latch:
        request = latch_pb2.CreateLatchRequest(
            parent=tenant_name(self._transport.tenant),
            latch=latch_pb2.Latch(kind=kind, scope=scope, reason=reason),
            on_behalf_of=on_behalf_of,
        )
        return await self._transport.unary(self._stub.CreateLatch, request)

    def _scope(self, run: str, thread: str, agent: str, tool: str, everything: bool) -> latch_pb2.LatchScope:
        if sum(map(bool, (run, thread, agent, tool, everything))) != 1:
            raise LocalError(
                "Name exactly one thing to stop: a run, a thread, an agent, a tool, or everything.",
                reason="SCOPE_AMBIGUOUS",
            )
        tenant = self._transport.tenant
        if run:
            return latch_pb2.LatchScope(run=full_name(tenant, "runs", run))
        if thread:
            return latch_pb2.LatchScope(thread=full_name(tenant, "threads", thread))
        if agent:
            return latch_pb2.LatchScope(agent=full_name(tenant, "agents", agent))
        if tool:
            return latch_pb2.LatchScope(tool=tool)
        return latch_pb2.LatchScope(tenant=True)

    def _name(self, latch: str) -> str:
        return full_name(self._transport.tenant, "latches", latch)
