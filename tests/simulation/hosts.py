"""Run hosts and the zygotes that fork them: the real host and the real worker, with a pipe of the simulation between them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.simulation.graphs import GRAPHS
from tests.simulation.loop import Process, SimulatedLoop, current_process

from fermata.agents.runtime.host import Host
from fermata.agents.runtime.inspection import inspect_graph
from fermata.agents.runtime.wire import Wire
from fermata.server.cluster.hosts import HostExit, ZygoteGoneError
from fermata.v1 import agent_pb2, worker_pb2

PIPE_SECONDS = 0.000_1


class Hosts:
    """All hosts of a simulation; starts zygotes for workers."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.numbers = itertools.count(1000)
        self.living: list[SimulatedHost] = []

    async def start_zygote(self, spec: agent_pb2.AgentSpec, folder: Path | None) -> SimulatedZygote:
        """Implements ``hosts.StartZygote``."""
        await asyncio.sleep(0.01)
        return SimulatedZygote(self, spec)


class SimulatedZygote:
    """Implements ``hosts.Zygote``. It ends with its worker."""

    def __init__(self, hosts: Hosts, spec: agent_pb2.AgentSpec) -> None:
        self._hosts = hosts
        self._spec = spec
        self._closed = False
        self._forked: list[SimulatedHost] = []

    async def fork(self) -> SimulatedHost:
        """A new host."""
        await asyncio.sleep(0.001)
        if self._closed:
            raise ZygoteGoneError("The zygote has ended.")
        host = SimulatedHost(self._hosts, self._spec)
        self._forked.append(host)
        return host

    async def inspect(self) -> agent_pb2.GraphReport:
        """What is in the graph."""
        return inspect_graph(GRAPHS[self._spec.graph], self._spec)

    async def close(self) -> None:
        """Ends the hosts."""
        self._closed = True
        for host in self._forked:
            await host.kill()


class SimulatedHost:
    """Implements ``hosts.HostProcess``: the worker's side of a host that runs in a process of its own."""

    def __init__(self, hosts: Hosts, spec: agent_pb2.AgentSpec) -> None:
        loop = hosts.loop
        self._hosts = hosts
        self._loop = loop
        self._worker = current_process()
        self.pid = next(hosts.numbers)
        self.process: Process = loop.process(f"host {self.pid} of {self._worker.name}")
        self._said: asyncio.Queue[worker_pb2.HostMessage | None] = asyncio.Queue()
        self._end: asyncio.Future[HostExit] = loop.create_future()
        self._exit_code = -9
        self._to_host = _Ordered(loop, self.process, self._at_host)
        self._to_worker = _Ordered(loop, self._worker, self._at_worker)
        self.wire: SimulatedWire | None = None
        self.process.on_death.append(self._died)
        # The kernel kills it with its parent.
        self._worker.on_death.append(lambda: loop.kill(self.process))
        hosts.living.append(self)
        loop.spawn(self.process, self._main(spec.graph))

    def send(self, message: worker_pb2.ServerMessage) -> None:
        """Queues a message for the host."""
        self._to_host.send(message.SerializeToString())

    async def receive(self) -> worker_pb2.HostMessage | None:
        """The next message; None once the host has ended."""
        return await self._said.get()

    async def kill(self) -> HostExit:
        """Ends the process, and returns once it is dead."""
        self._loop.kill(self.process)
        return await self.ended()

    async def ended(self) -> HostExit:
        """Waits until the process has ended."""
        return await asyncio.shield(self._end)

    # in the host's process

    async def _main(self, graph: str) -> None:
        self._exit_code = await Host(self._connect, GRAPHS[graph]).serve()
        self._loop.kill(self.process)

    def _connect(
        self, on_message: Callable[[worker_pb2.ServerMessage], None], on_closed: Callable[[], None]
    ) -> Wire:
        self.wire = SimulatedWire(self._to_worker.send, on_message, on_closed)
        return self.wire

    def _at_host(self, data: bytes) -> None:
        if self.wire is not None:
            self.wire.take(data)

    # in the worker's

    def _at_worker(self, data: bytes) -> None:
        self._said.put_nowait(worker_pb2.WorkerMessage.FromString(data).host)

    def _died(self) -> None:
        self._hosts.living.remove(self)
        self._loop.run_in(self._worker, self._over)

    def _over(self) -> None:
        # What it had written before it died is still in the pipe.
        self._to_worker.then(lambda: self._said.put_nowait(None))
        if not self._end.done():
            self._end.set_result(HostExit(self._exit_code))


class SimulatedWire(Wire):
    """A host's wire whose messages arrive as callbacks instead of in a thread."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        on_message: Callable[[worker_pb2.ServerMessage], None],
        on_closed: Callable[[], None],
    ) -> None:
        super().__init__(_Frames(send), on_message, on_closed)  # type: ignore[arg-type]

    def start(self) -> None:
        """Nothing to start."""

    def take(self, data: bytes) -> None:
        """A message has arrived."""
        self._take(worker_pb2.ServerMessage.FromString(data))


class _Frames:
    """The end of the pipe that a wire writes to."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def send(self, messages: Iterable[Any]) -> None:
        for message in messages:
            self._send(message.SerializeToString())

    def close(self) -> None:
        """The process ends with it."""


class _Ordered:
    """A pipe on one machine: in order, and never lost while somebody reads."""

    def __init__(self, loop: SimulatedLoop, target: Process, take: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._target = target
        self._take = take
        self._last = 0.0

    def send(self, data: bytes) -> None:
        self.then(lambda: self._take(data))

    def then(self, callback: Callable[[], None]) -> None:
        self._last = max(self._last + 1e-9, self._loop.time() + PIPE_SECONDS)
        self._loop.call_at(self._last, callback, context=self._target.context.copy())
