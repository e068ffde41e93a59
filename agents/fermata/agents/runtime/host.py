"""A run host: a process in which graphs and tools run, at the end of one socket. It holds no credentials and can be
killed at any time.

The wire's thread takes messages in: what stops a run takes effect there, at once, also while user code blocks the event
loop; everything else is handed to the loop. A host that carries one run ends with it; a shared one ends with its
socket.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvloop
from langgraph.pregel import Pregel

from fermata.agents.inference.embeddings import use_backend
from fermata.agents.inference.readings import use_reader
from fermata.agents.runtime import gate, models
from fermata.agents.runtime.calls import TrackedExecutor
from fermata.agents.runtime.environment import add_secrets
from fermata.agents.runtime.errors import ChannelClosedError, HostError
from fermata.agents.runtime.execution import Execution
from fermata.agents.runtime.frames import FrameSocket
from fermata.agents.runtime.loader import load_graph
from fermata.agents.runtime.processes import adopt_orphans, die_with_parent
from fermata.agents.runtime.run import ActiveRun
from fermata.agents.runtime.services import WorkerEmbeddings, WorkerReader
from fermata.agents.runtime.wire import Wire
from fermata.v1 import agent_pb2, run_pb2, worker_pb2

_logger = logging.getLogger(__name__)

EXIT_OK = 0
"""The run has ended, or the worker has closed the socket."""

EXIT_STUCK = 70
"""A thread could not be stopped, so the process ended under it."""

EXIT_GRAPH_INVALID = 71
"""The graph can't be loaded; stderr says why."""

LEAVE_SECONDS = 0.2
"""How long runs that are left behind may take to clean up, before the process ends under them."""

GC_THRESHOLDS = (20_000, 50, 1_000)
"""Fewer collections: a run makes many short-lived objects."""


_ANSWERED = (worker_pb2.STOP_MODE_HALT, worker_pb2.STOP_MODE_DROP)
"""Stops to which a host says when nothing of the run moves any more."""

Connect = Callable[[Callable[[worker_pb2.ServerMessage], None], Callable[[], None]], Wire]


class Host:
    """The runs of this process.

    :param connect: opens the wire to its worker, given what takes messages and what is told of the end.
    :param graph: the compiled graph of the revision.
    """

    def __init__(self, connect: Connect, graph: Pregel[Any, Any, Any, Any]) -> None:
        self._graph = graph
        self._loop = asyncio.get_running_loop()
        self._executions: dict[str, tuple[ActiveRun, Execution, asyncio.Task[None]]] = {}
        self._runs: dict[str, ActiveRun] = {}
        self._over: asyncio.Future[int] = self._loop.create_future()
        self._shared = True
        self._wire = connect(self._on_message, self._on_closed)

    @classmethod
    def over(cls, sock: socket.socket, graph: Pregel[Any, Any, Any, Any]) -> Host:
        """A host at its end of the socket to its worker."""
        frames = FrameSocket(sock, worker_pb2.ServerMessage)
        return cls(lambda *taking: Wire(frames, *taking), graph)

    async def serve(self) -> int:
        """Serve until the worker is gone, or the host's only run is over.

        :returns: the exit code.
        """
        self._wire.start()
        self._wire.post(worker_pb2.HostMessage(ready=worker_pb2.HostReady(pid=os.getpid())))
        code = await self._over
        self._wire.close()
        tasks = [task for _, _, task in self._executions.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LEAVE_SECONDS)
        return code

    # in the wire's thread

    def _on_message(self, message: worker_pb2.ServerMessage) -> None:
        if message.WhichOneof("body") == "stop":
            stop = message.stop
            run = self._runs.get(stop.lease.run)
            if run is None or run.lease.epoch != stop.lease.epoch:
                if stop.mode in _ANSWERED:
                    self._nothing_is_here(stop)
                return
            if stop.mode == worker_pb2.STOP_MODE_HALT:
                run.stop(f"halted by {stop.latch}", drains=bool(drain_seconds(run)))
            elif stop.mode == worker_pb2.STOP_MODE_DROP:
                run.stop("the lease is lost", silent=True)
            elif stop.mode == worker_pb2.STOP_MODE_HOLD:
                run.hold = stop.latch or "hold"
            elif stop.mode == worker_pb2.STOP_MODE_CONTINUE:
                run.hold = ""
        elif message.WhichOneof("body") == "resume":
            resumed = self._runs.get(message.resume.lease.run)
            if resumed is not None and resumed.lease.epoch == message.resume.lease.epoch:
                resumed.hold = ""
        elif message.WhichOneof("body") == "assign":
            # Known from here on, so that a stop that follows at once finds it.
            self._runs[message.assign.lease.run] = ActiveRun(self._wire, message.assign)
        self._loop.call_soon_threadsafe(self._take, message)

    def _on_closed(self) -> None:
        self._loop.call_soon_threadsafe(self._end, EXIT_OK)

    # in the event loop

    def _take(self, message: worker_pb2.ServerMessage) -> None:
        kind = message.WhichOneof("body")
        if kind == "assign":
            self._assign(message.assign)
        elif kind == "resume":
            found = self._executions.get(message.resume.lease.run)
            if found is not None and found[0].lease.epoch == message.resume.lease.epoch:
                found[1].resume(message.resume)
        elif kind == "stop" and message.stop.mode in _ANSWERED:
            found = self._executions.get(message.stop.lease.run)
            if found is not None and found[0].lease.epoch == message.stop.lease.epoch:
                task = asyncio.create_task(self._stopped(message.stop, *found))
                task.add_done_callback(lambda done: done.exception())
            else:
                # It has come to its end between the two threads.
                self._nothing_is_here(message.stop)

    def _nothing_is_here(self, stop: worker_pb2.Stop) -> None:
        """Answer a stop of a run of which nothing is here, and so nothing moves here."""
        stopped = worker_pb2.HostStopped(latch=stop.latch)
        self._wire.post(worker_pb2.HostMessage(lease=stop.lease, stopped=stopped))

    def _assign(self, assign: worker_pb2.Assign) -> None:
        name = assign.lease.run
        run = self._runs[name]
        if run.lease.epoch != assign.lease.epoch:
            return
        if (earlier := self._executions.get(name)) is not None:
            earlier[0].stop("the run was leased anew", silent=True)
            earlier[2].cancel()
        self._shared = assign.shared_host
        execution = Execution(run, self._graph)
        task = asyncio.create_task(execution.serve(assign), name=name)
        self._executions[name] = (run, execution, task)
        task.add_done_callback(lambda done: self._ended(run, execution, done))

    def _ended(self, run: ActiveRun, execution: Execution, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("the run %s ended with an error of its host", run.name, exc_info=error)
            run.stop(str(error))
            failure = run_pb2.RunError(reason="HOST_FAILED", message=f"{type(error).__name__}: {error}")
            run.send(finish=worker_pb2.Finish(error=failure))
        halting = bool(run.stop_cause) and not run.silent and run.failure is None and run.refusal is None
        if execution.stuck:
            self._end(EXIT_STUCK)
        elif run.silent and self._shared:
            # Its worker is about to ask whether anything of it moves, for the lease is lost.
            leaving = asyncio.create_task(self._left(run, execution))
            leaving.add_done_callback(lambda done: done.cancelled() or done.exception())
        elif not halting:
            self._forget(run)

    async def _left(self, run: ActiveRun, execution: Execution) -> None:
        await execution.halted()
        self._forget(run)

    def _forget(self, run: ActiveRun) -> None:
        if self._runs.get(run.name) is run:
            del self._runs[run.name]
        if (found := self._executions.get(run.name)) is not None and found[0] is run:
            del self._executions[run.name]
        if not self._shared and not self._executions:
            self._end(EXIT_OK)

    async def _stopped(
        self, stop: worker_pb2.Stop, run: ActiveRun, execution: Execution, task: asyncio.Task[None]
    ) -> None:
        """Answer a stop once nothing of the run moves any more. Never answers while something does: a halt's process is killed
        then."""
        if stop.mode == worker_pb2.STOP_MODE_HALT and (seconds := drain_seconds(run)):
            # What has started may end by itself; nothing starts.
            await asyncio.wait([asyncio.wrap_future(run.activity.closed())], timeout=seconds)
            run.on_stop()
        await execution.halted()
        task.cancel()
        stopped = worker_pb2.HostStopped(latch=stop.latch, not_started=run.not_started)
        self._wire.post(worker_pb2.HostMessage(lease=run.lease, stopped=stopped))
        self._forget(run)

    def _end(self, code: int) -> None:
        if not self._over.done():
            self._over.set_result(code)


def drain_seconds(run: ActiveRun) -> float:
    """How long what has started may take to end by itself when the run is halted."""
    return run.spec.limits.drain_time.ToNanoseconds() / 1e9


def run_host(sock: socket.socket, graph: Pregel[Any, Any, Any, Any]) -> int:
    """Serve runs of a loaded graph in this process, until its end.

    :returns: the exit code. The caller must leave with ``os._exit``: threads that can't be stopped would keep the
        interpreter.
    """
    gate.install()
    models.install()
    use_backend(WorkerEmbeddings())
    use_reader(WorkerReader())
    gc.set_threshold(*GC_THRESHOLDS)

    async def main() -> int:
        asyncio.get_running_loop().set_default_executor(TrackedExecutor(gate.follow_threads))
        return await Host.over(sock, graph).serve()

    # Made here, in a process that is done with forking: a sixth less CPU for a run than asyncio's own.
    loop = uvloop.new_event_loop()
    try:
        with gate.only_in_runs():
            return loop.run_until_complete(main())
    except ChannelClosedError:
        return EXIT_OK


def main() -> int:
    """A host that was not forked: ``python -m fermata.agents.runtime.host --fd N --spec-fd M [--pack FOLDER]``."""
    parser = argparse.ArgumentParser(prog="fermata.agents.runtime.host")
    parser.add_argument("--fd", type=int, required=True, help="the host's end of the socket")
    parser.add_argument("--spec-fd", type=int, required=True, help="a file that holds the AgentSpec")
    parser.add_argument("--pack", default="", help="folder of the unpacked pack")
    parser.add_argument("--parent", type=int, default=0, help="process id of the parent, to die with")
    options = parser.parse_args()
    if options.parent:
        die_with_parent(options.parent)
        adopt_orphans()
    with os.fdopen(options.spec_fd, "rb") as file:
        file.seek(0)
        spec = agent_pb2.AgentSpec.FromString(file.read())
    try:
        add_secrets(spec)
        graph = load_graph(spec, options.pack or None)
    except HostError as error:
        sys.stderr.write(f"{error.reason}: {error.message}\n{error.detail}\n")
        return EXIT_GRAPH_INVALID
    return run_host(socket.socket(fileno=options.fd), graph)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
