"""ThreadService."""

from __future__ import annotations

from fermata.server.lifecycle.doubletext import require_known
from fermata.server.names import parse
from fermata.server.principals.callers import Caller
from fermata.server.rpc import pages
from fermata.server.rpc.method import Service, unary
from fermata.server.rpc.once import once
from fermata.server.store.database import Transaction
from fermata.server.threads import conversations
from fermata.server.values import canonical
from fermata.v1 import thread_pb2, thread_pb2_grpc


class ThreadService(Service, thread_pb2_grpc.ThreadServiceServicer):
    """See protos/fermata/v1/thread.proto."""

    NAME = "ThreadService"

    @unary
    async def CreateThread(
        self, request: thread_pb2.CreateThreadRequest, caller: Caller
    ) -> thread_pb2.Thread:
        tenant = self.tenant_of(caller, request.parent)
        labels = canonical(request.thread.labels, "thread.labels")
        strategy = request.thread.multitask_strategy
        require_known(strategy, "thread.multitask_strategy")

        def operation(transaction: Transaction) -> thread_pb2.Thread:
            def produce() -> thread_pb2.Thread:
                return conversations.create(transaction, tenant, labels, caller.name, strategy)

            return once(transaction, caller, "CreateThread", request, produce, thread_pb2.Thread)

        return await self.plane.write(operation)

    @unary
    async def GetThread(self, request: thread_pb2.GetThreadRequest, caller: Caller) -> thread_pb2.Thread:
        name = parse(request.name, "threads")
        tenant = self.require_tenant(caller, name.tenant)
        return await self.plane.read(lambda connection: conversations.get(connection, tenant, name.id))

    @unary
    async def ListThreads(
        self, request: thread_pb2.ListThreadsRequest, caller: Caller
    ) -> thread_pb2.ListThreadsResponse:
        tenant = self.tenant_of(caller, request.parent)
        limit = pages.size(request.page_size)
        before = pages.position(request.page_token, int)
        rows = await self.plane.read(
            lambda connection: conversations.newest(connection, tenant, before, limit + 1)
        )
        page, token = pages.cut(rows, limit, "n")
        return thread_pb2.ListThreadsResponse(
            threads=[conversations.to_message(row) for row in page], next_page_token=token
        )
