"""Approvals: what agents ask people, and what people say.

A decision is bound to the digest that the person saw. The convenience methods therefore take an
``Approval`` as it was shown, not a name: nothing is approved that was not read first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import approval_pb2, approval_pb2_grpc

from .names import full_name, tenant_name
from .streams import StreamOptions, follow
from .transport import Transport
from .values import to_struct, to_value

if TYPE_CHECKING:
    from fermata.v1.approval_pb2_grpc import ApprovalServiceAsyncStub


class Approvals:
    """``ApprovalService``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> ApprovalServiceAsyncStub:
        return approval_pb2_grpc.ApprovalServiceStub(self._transport.channel)

    async def get(self, approval: str) -> approval_pb2.Approval:
        """One approval. :raises NotFoundError: APPROVAL_NOT_FOUND."""
        name = full_name(self._transport.tenant, "approvals", approval)
        return await self._transport.unary(self._stub.GetApproval, approval_pb2.GetApprovalRequest(name=name))

    async def list(
        self,
        *,
        run: str = "",
        states: Iterable[approval_pb2.ApprovalState.ValueType] = (),
        limit: int | None = 50,
    ) -> Sequence[approval_pb2.Approval]:
        """Approvals, oldest first; only pending ones where ``states`` is empty."""
        tenant = self._transport.tenant
        request = approval_pb2.ListApprovalsRequest(
            parent=tenant_name(tenant), run=full_name(tenant, "runs", run) if run else "", states=states
        )
        return await self._transport.collect(
            self._stub.ListApprovals, request, "approvals", approval_pb2.Approval, limit
        )

    async def decide(
        self,
        approval: str,
        decision: approval_pb2.Decision.ValueType,
        *,
        digest: str,
        edited_args: Mapping[str, object] | None = None,
        value: object = None,
        comment: str = "",
        on_behalf_of: str = "",
        request_id: str = "",
    ) -> approval_pb2.Approval:
        """Decide an approval once.

        :param digest: the digest of the approval as the person saw it.
        :param edited_args: for an EDIT, all arguments as they shall be.
        :param value: for an ANSWER or IT_HAPPENED.
        :raises FailedPreconditionError: APPROVAL_DECIDED, APPROVAL_EXPIRED, APPROVAL_DIGEST_MISMATCH and
            the like.
        """
        request = approval_pb2.DecideApprovalRequest(
            name=full_name(self._transport.tenant, "approvals", approval),
            decision=decision,
            digest=digest,
            comment=comment,
            on_behalf_of=on_behalf_of,
            request_id=request_id,
        )
        if edited_args is not None:
            request.edited_args.CopyFrom(to_struct(edited_args))
        if value is not None:
            request.value.CopyFrom(to_value(value))
        return await self._transport.unary(self._stub.DecideApproval, request)

    async def approve(self, shown: approval_pb2.Approval, *, comment: str = "") -> approval_pb2.Approval:
        """Say yes to ``shown``, exactly as it was shown."""
        return await self.decide(
            shown.name, approval_pb2.DECISION_APPROVE, digest=shown.digest, comment=comment
        )

    async def edit(
        self, shown: approval_pb2.Approval, args: Mapping[str, object], *, comment: str = ""
    ) -> approval_pb2.Approval:
        """Say yes with other arguments; policy looks at them again."""
        return await self.decide(
            shown.name,
            approval_pb2.DECISION_EDIT,
            digest=shown.digest,
            edited_args=args,
            comment=comment,
        )

    async def reject(self, shown: approval_pb2.Approval, *, comment: str = "") -> approval_pb2.Approval:
        """Say no; the comment reaches the agent."""
        return await self.decide(
            shown.name, approval_pb2.DECISION_REJECT, digest=shown.digest, comment=comment
        )

    async def answer(
        self, shown: approval_pb2.Approval, value: object, *, comment: str = ""
    ) -> approval_pb2.Approval:
        """Answer an INPUT with any JSON value."""
        return await self.decide(
            shown.name, approval_pb2.DECISION_ANSWER, digest=shown.digest, value=value, comment=comment
        )

    async def watch(
        self, *, run: str = "", cursor: str = "", options: StreamOptions | None = None
    ) -> AsyncGenerator[approval_pb2.WatchApprovalsResponse, None]:
        """Stream approvals as they are requested and decided; without a cursor, first all that are pending.
        Does not end."""
        tenant = self._transport.tenant
        run_name = full_name(tenant, "runs", run) if run else ""

        def request_from(position: str) -> approval_pb2.WatchApprovalsRequest:
            return approval_pb2.WatchApprovalsRequest(
                parent=tenant_name(tenant), run=run_name, cursor=position
            )

        async def is_over() -> bool:
            return False

        stream = follow(
            self._transport,
            self._stub.WatchApprovals,
            request_from,
            lambda item: item.HasField("approval"),
            lambda item: item.cursor,
            is_over,
            cursor=cursor,
            options=options,
        )
        async with aclosing(stream):
            async for item in stream:
                yield item
