"""Latches: hold, halt, and let go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
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
    """``LatchService``. A latch covers exactly one of run (with its descendants, if wanted), thread, agent,
    revision, tool, everything of the tenant, or all tenants."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> LatchServiceAsyncStub:
        return latch_pb2_grpc.LatchServiceStub(self._transport.channel)

    async def hold(
        self,
        *,
        run: str = "",
        descendants: bool = False,
        thread: str = "",
        agent: str = "",
        revision: str = "",
        tool: str = "",
        everything: bool = False,
        all_tenants: bool = False,
        reason: str = "",
        expires: datetime | None = None,
        release_at_expiry: bool = False,
        on_behalf_of: str = "",
    ) -> latch_pb2.Latch:
        """Let started effects finish, and stop at the next gate until released. What is covered is named as with :meth:`halt`.

        :param expires: when its time is over, with a time zone. It stays then, and the runs' histories say so.
        :param release_at_expiry: lift it then instead.
        :raises InvalidArgumentError: LATCH_EXPIRY.
        """
        latch = latch_pb2.Latch(
            kind=latch_pb2.LATCH_KIND_HOLD,
            scope=scope_of(
                self._transport.tenant,
                run=run,
                descendants=descendants,
                thread=thread,
                agent=agent,
                revision=revision,
                tool=tool,
                everything=everything,
                all_tenants=all_tenants,
            ),
            reason=reason,
        )
        if expires is not None:
            latch.expire_time.FromDatetime(expires.astimezone(UTC))
        if release_at_expiry:
            latch.on_expiry = latch_pb2.ON_EXPIRY_RELEASE
        return await self._create(latch, on_behalf_of)

    async def halt(
        self,
        *,
        run: str = "",
        descendants: bool = False,
        thread: str = "",
        agent: str = "",
        revision: str = "",
        tool: str = "",
        everything: bool = False,
        all_tenants: bool = False,
        reason: str = "",
        on_behalf_of: str = "",
    ) -> latch_pb2.Latch:
        """Stop for good. When this returns, no covered gate lets an effect through; ``settle`` waits for
        those that were open.

        :param run: one run.
        :param descendants: with all runs that were made for it.
        :param revision: ``AGENT@REVISION``, or the whole name.
        :param everything: the whole tenant.
        :param all_tenants: every tenant of the server; for admins.
        :raises LocalError: SCOPE_AMBIGUOUS unless exactly one thing to halt is named.
        """
        scope = scope_of(
            self._transport.tenant,
            run=run,
            descendants=descendants,
            thread=thread,
            agent=agent,
            revision=revision,
            tool=tool,
            everything=everything,
            all_tenants=all_tenants,
        )
        return await self._create(
            latch_pb2.Latch(kind=latch_pb2.LATCH_KIND_HALT, scope=scope, reason=reason), on_behalf_of
        )

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

    async def _create(self, latch: latch_pb2.Latch, on_behalf_of: str) -> latch_pb2.Latch:
        request = latch_pb2.CreateLatchRequest(
            parent=tenant_name(self._transport.tenant), latch=latch, on_behalf_of=on_behalf_of
        )
        return await self._transport.unary(self._stub.CreateLatch, request)

    def _name(self, latch: str) -> str:
        return full_name(self._transport.tenant, "latches", latch)


def scope_of(
    tenant: str,
    *,
    run: str = "",
    descendants: bool = False,
    thread: str = "",
    agent: str = "",
    revision: str = "",
    tool: str = "",
    everything: bool = False,
    all_tenants: bool = False,
) -> latch_pb2.LatchScope:
    """The scope that exactly one of these names; see :meth:`Latches.halt`.

    :raises LocalError: SCOPE_AMBIGUOUS, NAME_MALFORMED.
    """
    if sum(map(bool, (run, thread, agent, revision, tool, everything, all_tenants))) != 1:
        raise LocalError(
            "Name exactly one thing: a run, a thread, an agent, a revision, a tool, everything, or all tenants.",
            reason="SCOPE_AMBIGUOUS",
        )
    if descendants and not run:
        raise LocalError("Only a run has descendants: name one.", reason="SCOPE_AMBIGUOUS")
    if run:
        name = full_name(tenant, "runs", run)
        return latch_pb2.LatchScope(run_tree=name) if descendants else latch_pb2.LatchScope(run=name)
    if thread:
        return latch_pb2.LatchScope(thread=full_name(tenant, "threads", thread))
    if agent:
        return latch_pb2.LatchScope(agent=full_name(tenant, "agents", agent))
    if revision:
        return latch_pb2.LatchScope(revision=_revision_name(tenant, revision))
    if tool:
        return latch_pb2.LatchScope(tool=tool)
    return latch_pb2.LatchScope(everything=True) if all_tenants else latch_pb2.LatchScope(tenant=True)


def _revision_name(tenant: str, revision: str) -> str:
    if "/" in revision:
        return revision
    agent, _, digest = revision.partition("@")
    if not agent or not digest:
        raise LocalError(
            f"{revision!r} names no revision: write AGENT@REVISION; `fermata agents show AGENT --revisions` lists them.",
            reason="NAME_MALFORMED",
            metadata={"name": revision, "collection": "revisions"},
        )
    return f"{full_name(tenant, 'agents', agent)}/revisions/{digest}"
