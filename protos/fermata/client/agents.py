"""Agents and their revisions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import agent_pb2, agent_pb2_grpc

from .names import full_name, tenant_name
from .transport import LONG_DEADLINE_SECONDS, Transport

if TYPE_CHECKING:
    from fermata.v1.agent_pb2_grpc import AgentServiceAsyncStub


class Agents:
    """``AgentService``. ``fermata.client.bundle`` reads agent files into what ``apply`` takes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> AgentServiceAsyncStub:
        return agent_pb2_grpc.AgentServiceStub(self._transport.channel)

    async def apply(
        self,
        agent: str,
        spec: agent_pb2.AgentSpec,
        *,
        pack: bytes = b"",
        etag: str = "",
        validate_only: bool = False,
        request_id: str = "",
    ) -> agent_pb2.Agent:
        """Make an agent, or a new revision of it; what is current already stays as it is.

        :param pack: the folder as ``bundle`` packs it; its digest stands in the spec.
        :param etag: refuse if somebody else changed the agent in between.
        :param validate_only: check everything, change nothing.
        :raises FermataError: GRAPH_INVALID, POLICY_MALFORMED and the like.
        """
        request = agent_pb2.ApplyAgentRequest(
            name=self._name(agent),
            spec=spec,
            pack=pack,
            etag=etag,
            validate_only=validate_only,
            request_id=request_id,
        )
        return await self._transport.unary(
            self._stub.ApplyAgent, request, deadline_seconds=LONG_DEADLINE_SECONDS
        )

    async def get(self, agent: str) -> agent_pb2.Agent:
        """One agent. :raises NotFoundError: AGENT_NOT_FOUND."""
        return await self._transport.unary(
            self._stub.GetAgent, agent_pb2.GetAgentRequest(name=self._name(agent))
        )

    async def list(self, *, limit: int | None = None) -> Sequence[agent_pb2.Agent]:
        """Agents by name."""
        request = agent_pb2.ListAgentsRequest(parent=tenant_name(self._transport.tenant))
        return await self._transport.collect(self._stub.ListAgents, request, "agents", agent_pb2.Agent, limit)

    async def revisions(self, agent: str, *, limit: int | None = 50) -> Sequence[agent_pb2.Revision]:
        """An agent's revisions, newest first."""
        request = agent_pb2.ListRevisionsRequest(parent=self._name(agent))
        return await self._transport.collect(
            self._stub.ListRevisions, request, "revisions", agent_pb2.Revision, limit
        )

    async def delete(self, agent: str, *, etag: str = "") -> None:
        """Remove an agent that has no run going on; sent once, never repeated. :raises
        FailedPreconditionError: AGENT_BUSY."""
        request = agent_pb2.DeleteAgentRequest(name=self._name(agent), etag=etag)
        await self._transport.unary(self._stub.DeleteAgent, request)

    def _name(self, agent: str) -> str:
        return full_name(self._transport.tenant, "agents", agent)
