"""AgentService."""

from __future__ import annotations

from sqlalchemy import and_, select

from fermata.server.agents import durability, operations
from fermata.server.agents.revisions import revision_id
from fermata.server.errors import invalid
from fermata.server.names import Name, parse
from fermata.server.policy.parse import parse_policy
from fermata.server.principals.callers import Caller
from fermata.server.rpc import pages
from fermata.server.rpc.method import Service, unary
from fermata.server.rpc.once import once
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import agent_pb2, agent_pb2_grpc

FIRST_WORKER_SECONDS = 60.0
"""How long an apply waits for the first worker of a server that has just started."""


class AgentService(Service, agent_pb2_grpc.AgentServiceServicer):
    """See protos/fermata/v1/agent.proto."""

    NAME = "AgentService"

    @unary
    async def ApplyAgent(self, request: agent_pb2.ApplyAgentRequest, caller: Caller) -> agent_pb2.Agent:
        name = parse(request.name, "agents")
        tenant = self.require_tenant(caller, name.tenant)
        operations.check(name.id, request.spec, request.pack)
        if request.spec.policy:
            parse_policy(request.spec.policy)
        # The workers fetch the pack by its digest, so it is kept before the graph is loaded; a pack without an agent does no harm.
        await self.plane.write(lambda tx: operations.keep_pack(tx, request.spec.pack_digest, request.pack))
        report = await self._load(request.spec)
        durability.require_allowed(request.spec, report)
        if request.validate_only:
            return agent_pb2.Agent(
                name=request.name,
                description=request.spec.description,
                revision=agent_pb2.Revision(
                    name=str(Name(tenant, "agents", name.id, "revisions", revision_id(request.spec))),
                    spec=request.spec,
                    report=report,
                ),
            )
        # What is kept for a repeat is the request without its pack, which the digest in its spec stands for.
        repeat = agent_pb2.ApplyAgentRequest()
        repeat.CopyFrom(request)
        repeat.ClearField("pack")

        def operation(transaction: Transaction) -> agent_pb2.Agent:
            def produce() -> agent_pb2.Agent:
                operations.require_etag(transaction, tenant, name.id, request.etag)
                operations.apply(transaction, tenant, name.id, request.spec, report, caller.name)
                return operations.get(transaction, tenant, name.id)

            return once(transaction, caller, "ApplyAgent", repeat, produce, agent_pb2.Agent)

        applied = await self.plane.write(operation)
        self.plane.workers.warm(request.spec)
        return applied

    async def _load(self, spec: agent_pb2.AgentSpec) -> agent_pb2.GraphReport:
        """Load the graph once in a host.

        :raises DomainError: GRAPH_INVALID and what else the host finds, NO_WORKER.
        """
        result = await self.plane.workers.inspect(spec, FIRST_WORKER_SECONDS)
        if result.HasField("error"):
            detail = f"\n{result.error.detail}" if result.error.detail else ""
            raise invalid(
                f"{result.error.message}{detail}",
                reason=result.error.reason or "GRAPH_INVALID",
                graph=spec.graph,
            )
        return result.report

    @unary
    async def GetAgent(self, request: agent_pb2.GetAgentRequest, caller: Caller) -> agent_pb2.Agent:
        name = parse(request.name, "agents")
        tenant = self.require_tenant(caller, name.tenant)
        return await self.plane.read(lambda connection: operations.get(connection, tenant, name.id))

    @unary
    async def ListAgents(
        self, request: agent_pb2.ListAgentsRequest, caller: Caller
    ) -> agent_pb2.ListAgentsResponse:
        tenant = self.tenant_of(caller, request.parent)
        limit = pages.size(request.page_size)
        table = schema.agents.c
        where = [table.tenant == tenant]
        if (after := pages.position(request.page_token, str)) is not None:
            where.append(table.id > after)
        query = select(schema.agents).where(and_(*where)).order_by(table.id).limit(limit + 1)
        response = agent_pb2.ListAgentsResponse()

        def operation(connection: object) -> None:
            rows, response.next_page_token = pages.cut(
                connection.execute(query).fetchall(),  # type: ignore[attr-defined]
                limit,
                "id",
            )
            response.agents.extend(operations.to_message(connection, row) for row in rows)

        await self.plane.read(operation)
        return response

    @unary
    async def DeleteAgent(
        self, request: agent_pb2.DeleteAgentRequest, caller: Caller
    ) -> agent_pb2.DeleteAgentResponse:
        name = parse(request.name, "agents")
        tenant = self.require_tenant(caller, name.tenant)

        def operation(transaction: Transaction) -> None:
            operations.require_etag(transaction, tenant, name.id, request.etag)
            operations.remove(transaction, tenant, name.id)

        await self.plane.write(operation)
        return agent_pb2.DeleteAgentResponse()

    @unary
    async def ListRevisions(
        self, request: agent_pb2.ListRevisionsRequest, caller: Caller
    ) -> agent_pb2.ListRevisionsResponse:
        name = parse(request.parent, "agents")
        tenant = self.require_tenant(caller, name.tenant)
        limit = pages.size(request.page_size)
        table = schema.revisions.c
        where = [table.tenant == tenant, table.agent == name.id]
        if (after := pages.position(request.page_token, int)) is not None:
            where.append(table.n < after)
        query = select(schema.revisions).where(and_(*where)).order_by(table.n.desc()).limit(limit + 1)
        rows = await self.plane.read(lambda connection: connection.execute(query).fetchall())
        page, token = pages.cut(rows, limit, "n")
        return agent_pb2.ListRevisionsResponse(
            revisions=[operations.revision_message(row) for row in page], next_page_token=token
        )
