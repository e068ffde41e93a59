"""The tenant's policy: read it, replace it, ask it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import policy_pb2, policy_pb2_grpc, run_pb2

from .names import full_name, tenant_name
from .transport import Transport
from .values import to_struct

if TYPE_CHECKING:
    from fermata.v1.policy_pb2_grpc import PolicyServiceAsyncStub


class Policies:
    """``PolicyService``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> PolicyServiceAsyncStub:
        return policy_pb2_grpc.PolicyServiceStub(self._transport.channel)

    @property
    def _name(self) -> str:
        return f"{tenant_name(self._transport.tenant)}/policy"

    async def get(self) -> policy_pb2.Policy:
        """The tenant's policy."""
        return await self._transport.unary(self._stub.GetPolicy, policy_pb2.GetPolicyRequest(name=self._name))

    async def update(self, text: str, *, etag: str = "", request_id: str = "") -> policy_pb2.Policy:
        """Replace it, from the next gate on.

        :param etag: refuse if it was changed in between.
        :raises InvalidArgumentError: POLICY_MALFORMED, naming line and rule. :raises AbortedError:
            ETAG_MISMATCH.
        """
        request = policy_pb2.UpdatePolicyRequest(
            policy=policy_pb2.Policy(name=self._name, text=text, etag=etag), request_id=request_id
        )
        return await self._transport.unary(self._stub.UpdatePolicy, request)

    async def test(
        self,
        tool: str,
        args: Mapping[str, object] | None = None,
        *,
        agent: str = "",
        text: str = "",
        effect: run_pb2.EffectClass.ValueType = run_pb2.EFFECT_CLASS_UNSPECIFIED,
        risk: str = "",
    ) -> policy_pb2.TestPolicyResponse:
        """Which rule would decide a call, and why; nothing changes. ``text`` is tested instead of what is
        in force."""
        tenant = self._transport.tenant
        request = policy_pb2.TestPolicyRequest(
            parent=tenant_name(tenant),
            text=text,
            agent=full_name(tenant, "agents", agent) if agent else "",
            tool=tool,
            args=to_struct(args or {}),
            effect=effect,
            risk=risk,
        )
        return await self._transport.unary(self._stub.TestPolicy, request)
