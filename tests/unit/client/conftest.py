"""Small gRPC servers in this process, on the test's own event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from fermata.client import Client, Connection, RetryPolicy
from fermata.client.transport import Transport
from fermata.v1 import agent_pb2, approval_pb2, latch_pb2, principal_pb2, run_pb2, thread_pb2

SERVICES = [
    service
    for module in (agent_pb2, approval_pb2, latch_pb2, principal_pb2, run_pb2, thread_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
]


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Pass ``seconds`` at once."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


Serve = Callable[[object], Awaitable[Client]]


@pytest.fixture
async def serve(clock: Clock) -> AsyncIterator[Serve]:
    """Serve an object whose methods are named as RPCs, and return a client of it, whose clock is the test's."""
    servers: list[aio.Server] = []
    clients: list[Client] = []

    async def start(implementation: object, *, token: str = "") -> Client:
        server = aio.server()
        for service in SERVICES:
            found: dict[str, Any] = {}
            for method in service.methods:
                behaviour = getattr(implementation, method.name, None)
                if behaviour is not None:
                    make = (
                        grpc.unary_stream_rpc_method_handler
                        if method.server_streaming
                        else grpc.unary_unary_rpc_method_handler
                    )
                    found[method.name] = make(
                        behaviour,
                        request_deserializer=GetMessageClass(method.input_type).FromString,
                        response_serializer=GetMessageClass(method.output_type).SerializeToString,
                    )
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, found),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        transport = Transport(
            Connection(f"127.0.0.1:{port}", token=token),
            retry=RetryPolicy(attempts=4),
            random=lambda: 1.0,
            sleep=clock.sleep,
            clock=clock,
        )
        client = Client(transport=transport)
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()
    for server in servers:
        await server.stop(None)


async def refuse(context: Any, code: grpc.StatusCode, message: str, *details: Message) -> None:
    """End the call with ``google.rpc`` details."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(code, message)


@pytest.fixture
def refusal() -> Callable[..., Awaitable[None]]:
    return refuse


@pytest.fixture
def details() -> Any:
    """The ``google.rpc`` detail messages."""
    return error_details_pb2
