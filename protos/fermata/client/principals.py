"""Principals: who may do what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import principal_pb2, principal_pb2_grpc

from .names import full_name, tenant_name
from .transport import Transport

if TYPE_CHECKING:
    from fermata.v1.principal_pb2_grpc import PrincipalServiceAsyncStub


class Principals:
    """``PrincipalService``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> PrincipalServiceAsyncStub:
        return principal_pb2_grpc.PrincipalServiceStub(self._transport.channel)

    async def caller(self) -> principal_pb2.Principal:
        """The principal whose token this client carries."""
        return await self._transport.unary(self._stub.GetCaller, principal_pb2.GetCallerRequest())

    async def create(
        self,
        principal: str,
        *,
        kind: principal_pb2.PrincipalKind.ValueType,
        roles: Iterable[principal_pb2.Role.ValueType],
        display_name: str = "",
        request_id: str = "",
    ) -> principal_pb2.CreatePrincipalResponse:
        """Make a principal. The answer holds its token, once: a repeat after a lost answer has none (rotate
        it then)."""
        request = principal_pb2.CreatePrincipalRequest(
            parent=tenant_name(self._transport.tenant),
            principal_id=principal,
            principal=principal_pb2.Principal(kind=kind, roles=roles, display_name=display_name),
            request_id=request_id,
        )
        return await self._transport.unary(self._stub.CreatePrincipal, request)

    async def get(self, principal: str) -> principal_pb2.Principal:
        """One principal. :raises NotFoundError: PRINCIPAL_NOT_FOUND."""
        request = principal_pb2.GetPrincipalRequest(name=self._name(principal))
        return await self._transport.unary(self._stub.GetPrincipal, request)

    async def list(self, *, limit: int | None = None) -> Sequence[principal_pb2.Principal]:
        """Principals by name."""
        request = principal_pb2.ListPrincipalsRequest(parent=tenant_name(self._transport.tenant))
        return await self._transport.collect(
            self._stub.ListPrincipals, request, "principals", principal_pb2.Principal, limit
        )

    async def update(self, changed: principal_pb2.Principal) -> principal_pb2.Principal:
        """Replace roles, display name and the disabled flag. :raises AbortedError: ETAG_MISMATCH."""
        request = principal_pb2.UpdatePrincipalRequest(principal=changed)
        return await self._transport.unary(self._stub.UpdatePrincipal, request)

    async def rotate_token(self, principal: str) -> str:
        """A new token; the old one ends at once. Sent once, never repeated."""
        request = principal_pb2.RotateTokenRequest(name=self._name(principal))
        return (await self._transport.unary(self._stub.RotateToken, request)).token

    async def delete(self, principal: str) -> None:
        """Remove a principal; its token ends at once. Sent once, never repeated."""
        request = principal_pb2.DeletePrincipalRequest(name=self._name(principal))
        await self._transport.unary(self._stub.DeletePrincipal, request)

    def _name(self, principal: str) -> str:
        return full_name(self._transport.tenant, "principals", principal)
