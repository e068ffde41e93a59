"""Workers, as viewers see them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import worker_pb2, worker_pb2_grpc

from .transport import Transport

if TYPE_CHECKING:
    from fermata.v1.worker_pb2_grpc import WorkerServiceAsyncStub


class Workers:
    """The one method of ``WorkerService`` that is not for workers alone."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> WorkerServiceAsyncStub:
        return worker_pb2_grpc.WorkerServiceStub(self._transport.channel)

    async def list(self, *, show_dead: bool = False) -> Sequence[worker_pb2.Worker]:
        """Workers by id."""
        request = worker_pb2.ListWorkersRequest(show_dead=show_dead)
        return tuple((await self._transport.unary(self._stub.ListWorkers, request)).workers)
