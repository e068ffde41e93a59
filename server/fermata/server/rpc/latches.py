"""LatchService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import and_, select

from fermata.server.errors import DomainError, ErrorKind, invalid
from fermata.server.latches import records
from fermata.server.latches.coverage import target_of
from fermata.server.lifecycle import budgets
from fermata.server.lifecycle.latching import ON_EXPIRY, NewLatch, set_latch
from fermata.server.lifecycle.releasing import release
from fermata.server.names import parse
from fermata.server.principals.callers import Caller
from fermata.server.rpc import pages
from fermata.server.rpc.method import Service, stream, unary
from fermata.server.rpc.once import once
from fermata.server.rpc.watching import watch_latch
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import latch_pb2, latch_pb2_grpc


class LatchService(Service, latch_pb2_grpc.LatchServiceServicer):
    """See protos/fermata/v1/latch.proto."""

    NAME = "LatchService"

    @unary
    async def CreateLatch(self, request: latch_pb2.CreateLatchRequest, caller: Caller) -> latch_pb2.Latch:
        tenant = self.tenant_of(caller, request.parent)
        actor = await self.act_for(caller, request.on_behalf_of, "LatchService.CreateLatch")
        if request.latch.kind not in (records.HOLD, records.HALT):
            raise invalid("Say HOLD or HALT.", reason="LATCH_KIND", field="latch.kind")
        scope, target = target_of(tenant, request.latch.scope)
        if scope == "everything" and "admin" not in actor.acting_roles:
            raise DomainError(
                "Only an admin holds or halts all tenants of the server. Name your own tenant instead.",
                reason="PERMISSION_DENIED",
                kind=ErrorKind.PERMISSION_DENIED,
            )
        if request.latch.on_expiry not in ON_EXPIRY:
            raise invalid("Say REMIND or RELEASE.", reason="LATCH_EXPIRY", field="latch.on_expiry")
        expires = request.latch.expire_time
        wanted = NewLatch(
            request.latch.kind,
            scope,
            target,
            request.latch.reason,
            caller.name,
            actor.on_behalf_of,
            expires.ToNanoseconds() / 1e9 if request.latch.HasField("expire_time") else 0.0,
            request.latch.on_expiry,
        )

        def operation(transaction: Transaction) -> latch_pb2.Latch:
            def produce() -> latch_pb2.Latch:
                latch = set_latch(transaction, tenant, wanted)
                return records.to_message(transaction, records.find(transaction, tenant, latch))

            return once(transaction, caller, "CreateLatch", request, produce, latch_pb2.Latch)

        return await self.plane.write(operation, at_once=True)

    @unary
    async def GetLatch(self, request: latch_pb2.GetLatchRequest, caller: Caller) -> latch_pb2.Latch:
        name = parse(request.name, "latches")
        tenant = self.require_tenant(caller, name.tenant)
        return await self.plane.read(
            lambda connection: records.to_message(connection, records.find(connection, tenant, name.id))
        )

    @unary
    async def ListLatches(
        self, request: latch_pb2.ListLatchesRequest, caller: Caller
    ) -> latch_pb2.ListLatchesResponse:
        tenant = self.tenant_of(caller, request.parent)
        limit = pages.size(request.page_size)
        table = schema.latches.c
        where = [table.tenant == tenant]
        if not request.show_released:
            where.append(table.state != records.RELEASED)
        if (after := pages.position(request.page_token, int)) is not None:
            where.append(table.n < after)
        query = select(schema.latches).where(and_(*where)).order_by(table.n.desc()).limit(limit + 1)
        response = latch_pb2.ListLatchesResponse()

        def operation(connection: object) -> None:
            rows, response.next_page_token = pages.cut(
                connection.execute(query).fetchall(),  # type: ignore[attr-defined]
                limit,
                "n",
            )
            response.latches.extend(records.to_message(connection, row) for row in rows)

        await self.plane.read(operation)
        return response

    @stream
    async def WatchLatch(
        self, request: latch_pb2.WatchLatchRequest, caller: Caller
    ) -> AsyncIterator[latch_pb2.WatchLatchResponse]:
        name = parse(request.name, "latches")
        tenant = self.require_tenant(caller, name.tenant)
        async for response in watch_latch(self.plane, tenant, name.id):
            yield response

    @unary
    async def ReleaseLatch(self, request: latch_pb2.ReleaseLatchRequest, caller: Caller) -> latch_pb2.Latch:
        name = parse(request.name, "latches")
        tenant = self.require_tenant(caller, name.tenant)
        actor = await self.act_for(caller, request.on_behalf_of, "LatchService.ReleaseLatch")

        def operation(transaction: Transaction) -> latch_pb2.Latch:
            def produce() -> latch_pb2.Latch:
                budgets.withdraw(transaction, tenant, name.id)
                release(transaction, tenant, name.id, actor.person)
                return records.to_message(transaction, records.find(transaction, tenant, name.id))

            return once(transaction, caller, "ReleaseLatch", request, produce, latch_pb2.Latch)

        return await self.plane.write(operation, urgent=True)
