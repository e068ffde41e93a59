"""The network: gRPC between processes, as channels and a server that are objects. Messages travel as bytes, in order within a call,
with delays of the seed's. A broken connection loses what is on its way; a partition delays it until it heals; a peer's death
ends its calls.

Chosen: the generated stubs and servicers on both sides, with only the transport replaced, so that what is tried is what runs.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc import aio
from tests.simulation.loop import Process, SimulatedLoop, current_process

Metadata = tuple[tuple[str, str | bytes], ...]

_END = object()


class Network:
    """Delays, breaks and partitions. ``server`` answers, once it is there."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.server: SimulatedServer | None = None
        self.calls: list[_Call] = []
        self.slowness = 1.0
        self._cut: set[Process] = set()
        self._snapping: set[Process] = set()

    def partition(self, process: Process) -> None:
        """Let nothing through to or from a process until it is healed."""
        self._cut.add(process)

    def heal(self, process: Process | None = None) -> None:
        """Let through what has waited."""
        healed = list(self._cut) if process is None else [process]
        self._cut.difference_update(healed)
        for call in list(self.calls):
            call.to_server.push()
            call.to_client.push()

    def is_cut(self, process: Process) -> bool:
        """True for a process behind a partition."""
        return process in self._cut

    def break_calls(self, of: Process) -> None:
        """Reset every connection of a process; what is on its way is lost."""
        for call in list(self.calls):
            if of in (call.client, call.server):
                call.break_off()

    def snap(self, process: Process) -> None:
        """Reset the connections of a process just after the next message that it writes has arrived: its answer is lost."""
        self._snapping.add(process)

    def written(self, process: Process, arrives: float) -> None:
        """A process has written a message."""
        if process in self._snapping:
            self._snapping.discard(process)
            context = self.loop.world.context.copy()
            self.loop.call_at(arrives + self.rng.random() * 0.003, self.break_calls, process, context=context)

    def delay(self) -> float:
        """Seconds that a message takes: mostly little, sometimes much."""
        seconds = self.rng.expovariate(1 / 0.0005)
        if self.rng.random() < 0.02:
            seconds += self.rng.random() * 0.2
        return seconds * self.slowness


class _Pipe:
    """One direction of a call: in order, each message at its time."""

    def __init__(
        self, network: Network, source: Process, target: Process, take: Callable[[Any], None]
    ) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._take = take
        self._waiting: deque[tuple[float, Any]] = deque()
        self._last = 0.0
        self.closed = False

    def send(self, item: Any) -> None:
        loop = self._network.loop
        self._last = max(self._last, loop.time() + self._network.delay())
        self._network.written(self._source, self._last)
        self._waiting.append((self._last, item))
        loop.call_at(self._last, self.push, context=loop.world.context.copy())

    def push(self) -> None:
        """Hand over what is due."""
        cut = self._network.is_cut(self._source) or self._network.is_cut(self._target)
        while (
            self._waiting and not cut and not self.closed and self._waiting[0][0] <= self._network.loop.time()
        ):
            _, item = self._waiting.popleft()
            self._network.loop.run_in(self._target, self._take, item)

    def drop(self) -> None:
        self.closed = True
        self._waiting.clear()


class _StatusError(Exception):
    def __init__(self, code: grpc.StatusCode, details: str, trailing: Metadata = ()) -> None:
        super().__init__(details)
        self.code, self.details, self.trailing = code, details, trailing

    def rpc(self) -> aio.AioRpcError:
        return aio.AioRpcError(self.code, aio.Metadata(), aio.Metadata(*self.trailing), self.details)


class _Call:
    """One RPC between two processes, of any kind: requests one way, responses and a status the other."""

    def __init__(self, network: Network, server: SimulatedServer, path: str, metadata: Metadata) -> None:
        self.network = network
        self.client = current_process()
        self.server = server.process
        self.responses: asyncio.Queue[Any] = asyncio.Queue()
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.metadata = metadata
        self.over = False
        self.task: asyncio.Task[None] | None = None
        self.to_server = _Pipe(network, self.client, self.server, self._at_server)
        self.to_client = _Pipe(network, self.server, self.client, self._at_client)
        network.calls.append(self)
        self.client.on_death.append(self._client_died)
        self.server.on_death.append(self._server_died)
        self.to_server.send(("begin", server, path))

    # at the server

    def _at_server(self, item: Any) -> None:
        if isinstance(item, tuple) and item[0] == "begin":
            self.task = self.network.loop.spawn(self.server, self._serve(item[1], item[2]))
        elif isinstance(item, tuple) and item[0] == "cancel":
            if self.task is not None:
                self.task.cancel()
        else:
            self.requests.put_nowait(item)

    async def _serve(self, server: SimulatedServer, path: str) -> None:
        handler = server.handlers[path]
        context = SimulatedContext(self.metadata)
        try:
            requests = self._requests(handler)
            request = requests if handler.request_streaming else await anext(requests)
            if handler.response_streaming:
                behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
                async for response in behaviour(request, context):
                    self.to_client.send(handler.response_serializer(response))
            else:
                response = await handler.unary_unary(request, context)
                self.to_client.send(handler.response_serializer(response))
        except aio.AbortError:
            assert context.failure is not None
            self.to_client.send(context.failure)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.to_client.send(_StatusError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}"))
        else:
            self.to_client.send(_END)

    async def _requests(self, handler: Any) -> AsyncIterator[Any]:
        while (item := await self.requests.get()) is not _END:
            yield handler.request_deserializer(item)

    # at the client

    def _at_client(self, item: Any) -> None:
        self.responses.put_nowait(item)
        if item is _END or isinstance(item, _StatusError):
            self._leave()

    def break_off(self, details: str = "the connection was reset") -> None:
        """Both ends are told, and what is between them is lost."""
        if self.over:
            return
        self._leave()
        self.to_server.drop()
        self.to_client.drop()
        loop = self.network.loop
        failure = _StatusError(grpc.StatusCode.UNAVAILABLE, details)
        loop.run_in(self.client, self.responses.put_nowait, failure)
        if self.task is not None and self.server.alive:
            loop.run_in(self.server, self.task.cancel)
        elif self.server.alive:
            loop.run_in(self.server, self.requests.put_nowait, _END)

    def cancel(self) -> None:
        """The client wants no more."""
        if not self.over:
            self._leave()
            self.to_client.drop()
            self.to_server.send(("cancel",))

    def _client_died(self) -> None:
        self.cancel()

    def _server_died(self) -> None:
        self.break_off("the server is gone")

    def _leave(self) -> None:
        self.over = True
        if self in self.network.calls:
            self.network.calls.remove(self)


class SimulatedContext:
    """What a servicer sees of a call."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self.failure: _StatusError | None = None

    def invocation_metadata(self) -> Metadata:
        """What came with the call."""
        return self._metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing: Any = ()) -> None:
        """End the call with a status."""
        self.failure = _StatusError(code, details, tuple(trailing))
        raise aio.AbortError


class SimulatedServer:
    """A gRPC server in one process: takes services as ``grpc.aio.server`` does."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Health and reflection come this way only, and nobody here calls them."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Take a service's methods."""
        self.handlers.update({f"/{service}/{method}": handler for method, handler in handlers.items()})


class SimulatedChannel:
    """A client's channel to whatever server is there when it calls."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def unary_unary(
        self, path: str, request_serializer: Any, response_deserializer: Any, _registered_method: bool = False
    ) -> Any:
        """A method that is asked once and answers once."""

        async def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: Metadata = (),
            wait_for_ready: bool = False,
        ) -> Any:
            while wait_for_ready and self._network.server is None:  # noqa: ASYNC110 - as gRPC does: it tries again
                await asyncio.sleep(0.05)
            stream = _Client(self._network, path, metadata, request_serializer, response_deserializer)
            await stream.write(request)
            try:
                async with asyncio.timeout(timeout):
                    response = await stream.read()
                    if response is aio.EOF:
                        raise _StatusError(grpc.StatusCode.INTERNAL, "no answer").rpc()
                    return response
            except TimeoutError:
                raise _StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded").rpc() from None
            finally:
                stream.cancel()

        return call

    def unary_stream(
        self, path: str, request_serializer: Any, response_deserializer: Any, _registered_method: bool = False
    ) -> Any:
        """A method that is asked once and answers with a stream."""

        def call(request: Any, *, metadata: Metadata = ()) -> _Client:
            stream = _Client(self._network, path, metadata, request_serializer, response_deserializer)
            stream.write_now(request)
            return stream

        return call

    def stream_stream(
        self, path: str, request_serializer: Any, response_deserializer: Any, _registered_method: bool = False
    ) -> Any:
        """A method with streams both ways."""

        def call(*, metadata: Metadata = ()) -> _Client:
            return _Client(self._network, path, metadata, request_serializer, response_deserializer)

        return call

    def stream_unary(self, *_: Any, **__: Any) -> Any:
        """No service has such a method."""
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is kept."""

    async def __aenter__(self) -> SimulatedChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is kept."""


class _Client:
    """The client's side of a call."""

    def __init__(
        self, network: Network, path: str, metadata: Metadata, serialize: Any, deserialize: Any
    ) -> None:
        self._serialize = serialize
        self._deserialize = deserialize
        self._failure: _StatusError | None = None
        server = network.server
        self._call = (
            _Call(network, server, path, metadata) if server is not None and server.process.alive else None
        )

    def write_now(self, request: Any) -> None:
        if self._call is not None and not self._call.over:
            self._call.to_server.send(self._serialize(request))

    async def write(self, request: Any) -> None:
        if self._call is None or self._call.over:
            if self._failure is not None:
                raise self._failure.rpc()
            return
        self._call.to_server.send(self._serialize(request))

    async def read(self) -> Any:
        if self._failure is not None:
            raise self._failure.rpc()
        if self._call is None:
            await asyncio.sleep(0.001)
            self._failure = _StatusError(grpc.StatusCode.UNAVAILABLE, "connection refused")
            raise self._failure.rpc()
        item = await self._call.responses.get()
        if item is _END:
            return aio.EOF
        if isinstance(item, _StatusError):
            self._failure = item
            raise item.rpc()
        return self._deserialize(item)

    async def code(self) -> grpc.StatusCode:
        return self._failure.code if self._failure else grpc.StatusCode.OK

    async def details(self) -> str:
        return self._failure.details if self._failure else ""

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
