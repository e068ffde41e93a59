"""RunService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf import json_format
from sqlalchemy import and_, select

from fermata.server.errors import invalid
from fermata.server.ledger import steps
from fermata.server.lifecycle.doubletext import require_known
from fermata.server.lifecycle.start import NewRun, create_run
from fermata.server.names import parse
from fermata.server.principals.callers import Caller
from fermata.server.rpc import pages
from fermata.server.rpc.method import Service, stream, unary
from fermata.server.rpc.once import once
from fermata.server.rpc.watching import watch_runs
from fermata.server.runs import queries
from fermata.server.runs.record import to_event
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.values import canonical
from fermata.v1 import run_pb2, run_pb2_grpc

EVENTS_PAGE = 200
LARGEST_EVENTS_PAGE = 1000


class RunService(Service, run_pb2_grpc.RunServiceServicer):
    """See protos/fermata/v1/run.proto."""

    NAME = "RunService"

    @unary
    async def CreateRun(self, request: run_pb2.CreateRunRequest, caller: Caller) -> run_pb2.Run:
        tenant = self.tenant_of(caller, request.parent)
        actor = await self.act_for(caller, request.on_behalf_of, "RunService.CreateRun")
        agent = parse(request.agent, "agents")
        self.require_tenant(caller, agent.tenant)
        thread = self.id_of(caller, request.thread, "threads")
        strategy = request.multitask_strategy
        require_known(strategy, "multitask_strategy")
        given = _input(request)
        deadline = request.deadline.ToNanoseconds() / 1e9 if request.HasField("deadline") else 0.0
        wanted = NewRun(
            tenant,
            agent.id,
            thread,
            given,
            caller.name,
            actor.on_behalf_of,
            strategy,
            request.priority,
            deadline,
            self.id_of(caller, request.parent_run, "runs"),
        )

        def operation(transaction: Transaction) -> run_pb2.Run:
            def produce() -> run_pb2.Run:
                run = create_run(transaction, self.plane.leases, wanted)
                return queries.get(transaction, tenant, run)

            return once(transaction, caller, "CreateRun", request, produce, run_pb2.Run)

        return await self.plane.write(operation)

    @unary
    async def GetRun(self, request: run_pb2.GetRunRequest, caller: Caller) -> run_pb2.Run:
        name = parse(request.name, "runs")
        self.require_tenant(caller, name.tenant)
        return await self.plane.read(lambda connection: queries.get(connection, name.tenant, name.id))

    @unary
    async def ListRuns(self, request: run_pb2.ListRunsRequest, caller: Caller) -> run_pb2.ListRunsResponse:
        tenant = self.tenant_of(caller, request.parent)
        limit = pages.size(request.page_size)
        table = schema.runs.c
        where = [table.tenant == tenant]
        if (after := pages.position(request.page_token, int)) is not None:
            where.append(table.n < after)
        if agent := self.id_of(caller, request.agent, "agents"):
            where.append(table.agent == agent)
        if thread := self.id_of(caller, request.thread, "threads"):
            where.append(table.thread == thread)
        if request.states:
            where.append(table.state.in_(list(request.states)))
        query = select(schema.runs).where(and_(*where)).order_by(table.n.desc()).limit(limit + 1)

        def operation(connection: object) -> run_pb2.ListRunsResponse:
            rows, token = pages.cut(connection.execute(query).fetchall(), limit, "n")  # type: ignore[attr-defined]
            return run_pb2.ListRunsResponse(
                runs=queries.to_messages(connection, tenant, rows), next_page_token=token
            )

        return await self.plane.read(operation)

    @unary
    async def ListRunEvents(
        self, request: run_pb2.ListRunEventsRequest, caller: Caller
    ) -> run_pb2.ListRunEventsResponse:
        name = parse(request.parent, "runs")
        self.require_tenant(caller, name.tenant)
        limit = pages.size(request.page_size, EVENTS_PAGE, LARGEST_EVENTS_PAGE)
        table = schema.events.c
        query = (
            select(schema.events)
            .where(
                and_(
                    table.tenant == name.tenant,
                    table.run == name.id,
                    table.sequence > request.after_sequence,
                )
            )
            .order_by(table.sequence)
            .limit(limit + 1)
        )
        await self.plane.read(lambda connection: queries.get(connection, name.tenant, name.id))
        rows = await self.plane.read(lambda connection: connection.execute(query).mappings().fetchall())
        return run_pb2.ListRunEventsResponse(
            events=[to_event(row) for row in rows[:limit]], more=len(rows) > limit
        )

    @unary
    async def ListSteps(self, request: run_pb2.ListStepsRequest, caller: Caller) -> run_pb2.ListStepsResponse:
        name = parse(request.parent, "runs")
        self.require_tenant(caller, name.tenant)
        limit = pages.size(request.page_size, EVENTS_PAGE, LARGEST_EVENTS_PAGE)
        table = schema.steps.c
        where = [table.tenant == name.tenant, table.run == name.id]
        if (after := pages.position(request.page_token, int)) is not None:
            where.append(table.n > after)
        query = select(schema.steps).where(and_(*where)).order_by(table.n).limit(limit + 1)
        await self.plane.read(lambda connection: queries.get(connection, name.tenant, name.id))
        rows = await self.plane.read(lambda connection: connection.execute(query).fetchall())
        page, token = pages.cut(rows, limit, "n")
        return run_pb2.ListStepsResponse(steps=[steps.to_message(row) for row in page], next_page_token=token)

    @stream
    async def WatchRuns(
        self, request: run_pb2.WatchRunsRequest, caller: Caller
    ) -> AsyncIterator[run_pb2.WatchRunsResponse]:
        tenant = self.tenant_of(caller, request.parent)
        self.id_of(caller, request.run, "runs")
        self.id_of(caller, request.thread, "threads")
        async for response in watch_runs(self.plane, tenant, request):
            yield response


def _input(request: run_pb2.CreateRunRequest) -> str:
    match request.WhichOneof("input"):
        case "text":
            if not request.text.strip():
                raise invalid(
                    "The text is empty. Say what the agent shall do.", reason="INPUT_EMPTY", field="text"
                )
            values = {"messages": [{"role": "user", "content": request.text}]}
            return json_format.MessageToJson(
                json_format.ParseDict(values, run_pb2.Run().input), indent=None, ensure_ascii=False
            )
        case "values":
            return canonical(request.values, "values")
    raise invalid("A run needs an input: text, or values.", reason="INPUT_EMPTY", field="input")
