"""ApprovalService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import and_, select

from fermata.server.approvals import records
from fermata.server.errors import invalid
from fermata.server.lifecycle.decisions import Decided, decide
from fermata.server.names import parse
from fermata.server.principals.callers import Caller
from fermata.server.rpc import pages
from fermata.server.rpc.method import Service, stream, unary
from fermata.server.rpc.once import once
from fermata.server.rpc.watching import watch_approvals
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.values import canonical
from fermata.v1 import approval_pb2, approval_pb2_grpc


class ApprovalService(Service, approval_pb2_grpc.ApprovalServiceServicer):
    """See protos/fermata/v1/approval.proto."""

    NAME = "ApprovalService"

    @unary
    async def GetApproval(
        self, request: approval_pb2.GetApprovalRequest, caller: Caller
    ) -> approval_pb2.Approval:
        name = parse(request.name, "approvals")
        tenant = self.require_tenant(caller, name.tenant)
        row = await self.plane.read(lambda connection: records.find(connection, tenant, name.id))
        return records.to_message(row)

    @unary
    async def ListApprovals(
        self, request: approval_pb2.ListApprovalsRequest, caller: Caller
    ) -> approval_pb2.ListApprovalsResponse:
        tenant = self.tenant_of(caller, request.parent)
        limit = pages.size(request.page_size)
        table = schema.approvals.c
        where = [table.tenant == tenant, table.state.in_(list(request.states) or [records.PENDING])]
        if (after := pages.position(request.page_token, int)) is not None:
            where.append(table.n > after)
        if run := self.id_of(caller, request.run, "runs"):
            where.append(table.run == run)
        query = select(schema.approvals).where(and_(*where)).order_by(table.n).limit(limit + 1)
        rows = await self.plane.read(lambda connection: connection.execute(query).fetchall())
        page, token = pages.cut(rows, limit, "n")
        return approval_pb2.ListApprovalsResponse(
            approvals=[records.to_message(row) for row in page], next_page_token=token
        )

    @unary
    async def DecideApproval(
        self, request: approval_pb2.DecideApprovalRequest, caller: Caller
    ) -> approval_pb2.Approval:
        name = parse(request.name, "approvals")
        tenant = self.require_tenant(caller, name.tenant)
        actor = await self.act_for(caller, request.on_behalf_of, "ApprovalService.DecideApproval")
        decided = _decided(request, name.id, actor)

        def operation(transaction: Transaction) -> approval_pb2.Approval:
            def produce() -> approval_pb2.Approval:
                decide(transaction, self.plane.keeper, tenant, decided)
                return records.to_message(records.find(transaction, tenant, name.id))

            return once(transaction, caller, "DecideApproval", request, produce, approval_pb2.Approval)

        return await self.plane.write(operation, urgent=True)

    @stream
    async def WatchApprovals(
        self, request: approval_pb2.WatchApprovalsRequest, caller: Caller
    ) -> AsyncIterator[approval_pb2.WatchApprovalsResponse]:
        tenant = self.tenant_of(caller, request.parent)
        self.id_of(caller, request.run, "runs")
        async for response in watch_approvals(self.plane, tenant, request):
            yield response


def _decided(request: approval_pb2.DecideApprovalRequest, approval: str, actor: Caller) -> Decided:
    if request.decision == approval_pb2.DECISION_UNSPECIFIED:
        raise invalid("Say which decision it is.", reason="DECISION_MISSING", field="decision")
    edited = canonical(request.edited_args, "edited_args") if request.HasField("edited_args") else ""
    value = canonical(request.value, "value") if request.HasField("value") else ""
    return Decided(
        approval=approval,
        decision=request.decision,
        digest=request.digest,
        by=actor.name,
        on_behalf_of=actor.on_behalf_of,
        roles=actor.acting_roles,
        comment=request.comment,
        edited_args=edited,
        value=value,
    )
