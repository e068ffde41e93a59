"""The controller's side of WorkerService: deaths told, workers listed."""

from __future__ import annotations

import grpc
import grpc.aio

from fermata.server.cluster.controller import Sighting
from fermata.server.cluster.target import ServerTarget
from fermata.v1.worker_pb2 import ListWorkersRequest, ReportWorkerDeathRequest, WorkerState
from fermata.v1.worker_pb2_grpc import WorkerServiceStub

CALL_SECONDS = 5.0


class GrpcNotices:
    """Tells the server over one channel, which connects again by itself.

    :param channel: to ``target``; the caller closes it.
    """

    def __init__(self, channel: grpc.aio.Channel, target: ServerTarget) -> None:
        self._stub = WorkerServiceStub(channel)
        self._target = target

    async def report_death(self, worker: str, reason: str) -> None:
        """The worker's process is dead. A repeat changes nothing.

        :raises ConnectionError: the server can't be reached, or refuses for now.
        """
        request = ReportWorkerDeathRequest(worker=worker, reason=reason)
        try:
            await self._stub.ReportWorkerDeath(
                request, metadata=self._target.metadata(), timeout=CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return  # it died before the server had heard of it
            raise ConnectionError(f"{error.code().name}: {error.details()}") from error

    async def living_workers(self) -> list[Sighting]:
        """Workers that the server does not know to be dead.

        :raises ConnectionError: the server can't be reached, or refuses for now.
        """
        try:
            response = await self._stub.ListWorkers(
                ListWorkersRequest(show_dead=True), metadata=self._target.metadata(), timeout=CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise ConnectionError(f"{error.code().name}: {error.details()}") from error
        return [
            Sighting(worker.worker, worker.node, worker.pid)
            for worker in response.workers
            if worker.state != WorkerState.WORKER_STATE_DEAD
        ]
