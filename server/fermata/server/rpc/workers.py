"""WorkerService: what workers and the cluster controller need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import select

from fermata.server.agents import operations
from fermata.server.dispatch.channel import Channel, Search
from fermata.server.lifecycle import leases
from fermata.server.plane import ControlPlane
from fermata.server.principals.callers import Caller, Callers
from fermata.server.rpc.method import Service, stream, unary
from fermata.server.store import schema
from fermata.v1 import worker_pb2, worker_pb2_grpc


class WorkerService(Service, worker_pb2_grpc.WorkerServiceServicer):
    """See protos/fermata/v1/worker.proto."""

    NAME = "WorkerService"

    def __init__(self, plane: ControlPlane, callers: Callers, search: Search) -> None:
        super().__init__(plane, callers)
        self._search = search

    @stream
    async def Connect(self, request: Any, caller: Caller) -> AsyncIterator[worker_pb2.ConnectResponse]:
        async for frame in Channel(self.plane, self._search).serve(request):
            yield frame

    @unary
    async def GetPack(self, request: worker_pb2.GetPackRequest, caller: Caller) -> worker_pb2.GetPackResponse:
        pack = await self.plane.read(lambda connection: operations.pack(connection, request.digest))
        return worker_pb2.GetPackResponse(pack=pack)

    @unary
    async def ReportWorkerDeath(
        self, request: worker_pb2.ReportWorkerDeathRequest, caller: Caller
    ) -> worker_pb2.ReportWorkerDeathResponse:
        # Its connection may not have ended yet, and what it held must not be leased to it again.
        self.plane.workers.disconnect(request.worker)
        await self.plane.write(
            lambda tx: leases.lose_worker(tx, request.worker, request.reason, dead=True), urgent=True
        )
        self.plane.silent_since.pop(request.worker, None)
        return worker_pb2.ReportWorkerDeathResponse()

    @unary
    async def ListWorkers(
        self, request: worker_pb2.ListWorkersRequest, caller: Caller
    ) -> worker_pb2.ListWorkersResponse:
        rows = await self.plane.read(
            lambda connection: connection.execute(
                select(schema.workers).order_by(schema.workers.c.id)
            ).fetchall()
        )
        response = worker_pb2.ListWorkersResponse()
        for row in rows:
            connected = self.plane.workers.get(row.id)
            state = row.state
            if state == worker_pb2.WORKER_STATE_CONNECTED and connected is None:
                state = worker_pb2.WORKER_STATE_SILENT
            if state == worker_pb2.WORKER_STATE_CONNECTED or request.show_dead:
                worker = response.workers.add(
                    worker=row.id,
                    node=row.node,
                    pid=row.pid,
                    state=state,
                    capacity=row.capacity,
                    active_runs=len(connected.runs) if connected else 0,
                    file_latch=connected.file_latch if connected else "",
                )
                silence = self.plane.clock.monotonic() - connected.heard if connected else None
                heard = row.heard if silence is None else self.plane.clock.now() - silence
                worker.heard_time.FromNanoseconds(int(heard * 1e9))
        return response
