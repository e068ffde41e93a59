"""PrincipalService."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from fermata.server.errors import not_found
from fermata.server.names import parse
from fermata.server.plane import ControlPlane
from fermata.server.principals import operations
from fermata.server.principals.callers import Caller, Callers
from fermata.server.principals.records import by_name, to_message
from fermata.server.rpc import pages
from fermata.server.rpc.method import Service, unary
from fermata.server.rpc.once import once
from fermata.server.store.database import Transaction
from fermata.v1 import principal_pb2, principal_pb2_grpc

T = TypeVar("T")


class PrincipalService(Service, principal_pb2_grpc.PrincipalServiceServicer):
    """See protos/fermata/v1/principal.proto."""

    NAME = "PrincipalService"

    def __init__(self, plane: ControlPlane, callers: Callers) -> None:
        super().__init__(plane, callers)
        self._loading = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    @unary
    async def CreatePrincipal(
        self, request: principal_pb2.CreatePrincipalRequest, caller: Caller
    ) -> principal_pb2.CreatePrincipalResponse:
        tenant = self.tenant_of(caller, request.parent)
        tokens: list[str] = []

        def operation(transaction: Transaction) -> principal_pb2.CreatePrincipalResponse:
            def produce() -> principal_pb2.CreatePrincipalResponse:
                principal, token = operations.create(
                    transaction, tenant, request.principal_id, request.principal
                )
                tokens.append(token)
                return principal_pb2.CreatePrincipalResponse(principal=principal)

            return once(
                transaction,
                caller,
                "CreatePrincipal",
                request,
                produce,
                principal_pb2.CreatePrincipalResponse,
            )

        response = await self._change(operation)
        # Added to what is remembered for a repeat: that has no token, for nothing but its hash is ever stored.
        if tokens:
            response.token = tokens[0]
        return response

    @unary
    async def GetPrincipal(
        self, request: principal_pb2.GetPrincipalRequest, caller: Caller
    ) -> principal_pb2.Principal:
        name = parse(request.name, "principals")
        tenant = self.require_tenant(caller, name.tenant)
        return await self.plane.read(lambda connection: operations.get(connection, tenant, name.id))

    @unary
    async def ListPrincipals(
        self, request: principal_pb2.ListPrincipalsRequest, caller: Caller
    ) -> principal_pb2.ListPrincipalsResponse:
        tenant = self.tenant_of(caller, request.parent)
        limit = pages.size(request.page_size)
        after = pages.position(request.page_token, str)
        rows = await self.plane.read(
            lambda connection: operations.by_id(connection, tenant, after, limit + 1)
        )
        page, token = pages.cut(rows, limit, "id")
        return principal_pb2.ListPrincipalsResponse(
            principals=[to_message(row) for row in page], next_page_token=token
        )

    @unary
    async def UpdatePrincipal(
        self, request: principal_pb2.UpdatePrincipalRequest, caller: Caller
    ) -> principal_pb2.Principal:
        name = parse(request.principal.name, "principals")
        tenant = self.require_tenant(caller, name.tenant)

        def operation(transaction: Transaction) -> principal_pb2.Principal:
            def produce() -> principal_pb2.Principal:
                return operations.replace(transaction, tenant, name.id, request.principal)

            return once(transaction, caller, "UpdatePrincipal", request, produce, principal_pb2.Principal)

        return await self._change(operation)

    @unary
    async def RotateToken(
        self, request: principal_pb2.RotateTokenRequest, caller: Caller
    ) -> principal_pb2.RotateTokenResponse:
        name = parse(request.name, "principals")
        tenant = self.require_tenant(caller, name.tenant)
        token = await self._change(lambda transaction: operations.rotate(transaction, tenant, name.id))
        return principal_pb2.RotateTokenResponse(token=token)

    @unary
    async def DeletePrincipal(
        self, request: principal_pb2.DeletePrincipalRequest, caller: Caller
    ) -> principal_pb2.DeletePrincipalResponse:
        name = parse(request.name, "principals")
        tenant = self.require_tenant(caller, name.tenant)
        await self._change(lambda transaction: operations.remove(transaction, tenant, name.id))
        return principal_pb2.DeletePrincipalResponse()

    @unary
    async def GetCaller(
        self, request: principal_pb2.GetCallerRequest, caller: Caller
    ) -> principal_pb2.Principal:
        row = await self.plane.read(lambda connection: by_name(connection, caller.name))
        if row is None:
            raise not_found("principal", caller.name)
        return to_message(row)

    async def _change(self, operation: Callable[[Transaction], T]) -> T:
        """Run ``operation``, and answer only when calls are judged by what it has left behind.

        A caller who hangs up in between does not keep a revoked token alive: the work goes on without it.
        """
        task = asyncio.create_task(self._change_and_load(operation), name="change a principal")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def _change_and_load(self, operation: Callable[[Transaction], T]) -> T:
        result = await self.plane.write(operation, urgent=True)
        # One load at a time, or one that read before a change could end after the one that read behind it.
        async with self._loading:
            await self.plane.read(self.callers.load)
        self.callers.look_again()
        return result
