"""The worker: holds leases, keeps zygotes and hosts, and carries messages between hosts and the server. No
Ray, no user code.

A plain asyncio object. Everything happens on one loop and nothing blocks it; what takes time (fetching a
pack, starting a zygote) is a task of the run that waits for it. Ordering within a run is kept: messages for a
run whose host is not there yet wait in the run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from fermata.agents.inference.readings import Pair, Reading
from fermata.server.cluster.hosts import (
    GraphNotLoadedError,
    HostExit,
    HostProcess,
    StartZygote,
    ZygoteGoneError,
)
from fermata.server.cluster.link import ServerLink
from fermata.server.cluster.nursery import HostNursery
from fermata.server.cluster.packs import PackCache, PackError
from fermata.server.cluster.target import ServerTarget
from fermata.v1.run_pb2 import RunError
from fermata.v1.worker_pb2 import (
    Assign,
    EmbedResult,
    FileLatch,
    GetPackRequest,
    HostEnded,
    HostMessage,
    HostReply,
    Inspect,
    InspectResult,
    Lease,
    PairsRead,
    ServerMessage,
    Stop,
    StopMode,
    StopReport,
    Welcome,
    WorkerHello,
    WorkerMessage,
)
from fermata.v1.worker_pb2_grpc import WorkerServiceStub

log = logging.getLogger(__name__)

DEFAULT_CAPACITY = 64
OWN_MESSAGE_IDS = 1 << 62
"""Messages that the worker sends in a run's name are numbered from here, so that they never meet a host's
own.
"""
STALE_EPOCH = "STALE_EPOCH"
"""The reason with which the server refuses who does not hold the run's lease."""
DEFAULT_GRACE_SECONDS = 2.0
HOST_EXIT_SECONDS = 1.0
"""How long a host may live on after it has closed its end."""

LeaseKey = tuple[str, int]
Embed = Callable[[list[str]], Awaitable[NDArray[np.float32]]]
Read = Callable[[list[Pair]], Awaitable[list[Reading]]]


@dataclass(eq=False)
class _Run:
    """A lease that this worker holds."""

    key: LeaseKey
    lease: Lease
    host: HostProcess | None = None
    alone: bool = True
    """True where its host carries no other run."""
    drain_seconds: float = 0.0
    """How long its host lets calls go on that have started, when it is halted."""
    cancel_seconds: float = 0.0
    """And then for them to be cancelled; 0 where the agent does not say."""
    waiting: list[ServerMessage] = field(default_factory=list)
    """For the host, while there is none yet."""
    stop: Stop | None = None
    """The halt that it has been told of."""
    halt: asyncio.Task[None] | None = None
    """Kills the host when the halt's grace is over."""
    finish_id: int = 0
    """Of the message that ends the run; its answer ends the lease."""


class Worker:
    """One worker.

    :param target: the server.
    :param cache: folder for packs; made where missing.
    :param start_zygote: starts the process from which a revision's hosts are forked.
    :param embed: texts to float32 rows; called for hosts and for the server.
    :param read: pairs to their readings; called for hosts.
    :param capacity: how many runs the server may lease to this worker at once.
    :param worker_id: new for every process; made up where empty.
    """

    def __init__(
        self,
        target: ServerTarget,
        *,
        cache: Path,
        start_zygote: StartZygote,
        embed: Embed,
        read: Read,
        capacity: int = DEFAULT_CAPACITY,
        node: str = "",
        worker_id: str = "",
    ) -> None:
        self.id = worker_id or f"worker-{uuid.uuid4().hex[:12]}"
        self._target = target
        self._embed = embed
        self._read = read
        self._capacity = capacity
        self._node = node or socket.gethostname()
        self._version = version("fermata")
        self._runs: dict[LeaseKey, _Run] = {}
        self._hosts: dict[HostProcess, set[LeaseKey]] = {}
        self._leaving: dict[HostProcess, dict[LeaseKey, Lease]] = {}
        """Leases that were lost, by the host that goes on with others: what was called under them may still be under way."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._own_ids = OWN_MESSAGE_IDS
        self._incarnation = ""
        """The store's, when it last welcomed this worker."""
        self._file_latch = ""
        self._packs = PackCache(cache, self._fetch_pack)
        self._nursery = HostNursery(start_zygote, self._packs.get, self._on_fork)
        self._link = ServerLink(
            target,
            hello=self._hello,
            on_welcome=self._on_welcome,
            on_message=self._on_message,
            on_restored=self._begin_again,
        )

    @property
    def connected(self) -> bool:
        """True while the server's welcome stands."""
        return self._link.connected

    @property
    def leases(self) -> list[LeaseKey]:
        """Run and epoch of every lease held, in the order in which they came."""
        return list(self._runs)

    async def wait_connected(self) -> None:
        """Returns once the server has welcomed this worker for the first time."""
        await self._link.wait_connected()

    async def run(self) -> None:
        """Works until cancelled, through any number of broken connections; then ends all hosts and returns."""
        log.info("worker %s (pid %d) for %s", self.id, os.getpid(), self._target.address)
        try:
            await self._link.run()
        finally:
            await self._close()

    def set_file_latch(self, reason: str) -> None:
        """Take the warden's word that a file halts everything on this machine, and why; or with nothing, that it does not any more.

        Zygotes are dead or dying then, and none starts. Runs that have a host here end with it, halted.
        """
        self._file_latch = reason
        log.warning("%s", reason or "the latch file is gone")
        self._link.send(WorkerMessage(file_latch=FileLatch(reason=reason)))

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._nursery.close()

    # -- from the server

    def _hello(self) -> WorkerHello:
        return WorkerHello(
            worker=self.id,
            node=self._node,
            pid=os.getpid(),
            capacity=self._capacity,
            leases=[run.lease for run in self._runs.values()],
            version=self._version,
            incarnation=self._incarnation,
            file_latch=self._file_latch,
        )

    def _on_welcome(self, welcome: Welcome) -> None:
        self._incarnation = welcome.incarnation
        log.info("connected to %s, %d leases lost", self._target.address, len(welcome.lost))
        for lease in welcome.lost:
            self._drop((lease.run, lease.epoch))

    async def _begin_again(self) -> None:
        """End every host and drop every run: the store is a backup's, and knows nothing of what they have been doing since."""
        log.warning(
            "the store of %s was restored: %d runs are dropped", self._target.address, len(self._runs)
        )
        for key in list(self._runs):
            self._forget(key)
        await asyncio.gather(*(host.kill() for host in list(self._hosts)))
        self._incarnation = ""

    def _on_message(self, message: ServerMessage) -> None:
        match message.WhichOneof("body"):
            case "assign":
                self._on_assign(message)
            case "resume":
                self._on_resume(message)
            case "host_reply":
                self._on_host_reply(message)
            case "stop":
                self._on_stop(message)
            case "embed":
                self._spawn(self._embed_for_server(message.embed.id, list(message.embed.texts)))
            case "inspect":
                self._spawn(self._inspect(message.inspect))
            case body:
                log.warning("a message of an unknown kind: %s", body)

    def _on_assign(self, message: ServerMessage) -> None:
        assign = message.assign
        key = (assign.lease.run, assign.lease.epoch)
        if key in self._runs:
            return  # the repeat of an assignment changes nothing
        for older in [other for other in self._runs if other[0] == key[0] and other[1] < key[1]]:
            self._drop(older)
        limits = assign.spec.limits
        run = _Run(
            key,
            assign.lease,
            alone=not assign.shared_host,
            drain_seconds=limits.drain_time.ToNanoseconds() / 1e9,
            cancel_seconds=limits.cancel_time.ToNanoseconds() / 1e9,
            waiting=[message],
        )
        self._runs[key] = run
        self._spawn(self._start(run, assign))

    def _on_resume(self, message: ServerMessage) -> None:
        lease = message.resume.lease
        if (lease.run, lease.epoch) in self._runs:
            self._to_run(lease, message)
        else:
            # The server believes in a host that is gone, and would wait for it.
            self._end([lease], HostExit(-1, "This worker does not have the run."))

    def _on_host_reply(self, message: ServerMessage) -> None:
        reply = message.host_reply
        key = (reply.lease.run, reply.lease.epoch)
        if not self._link.answered((*key, reply.id)):
            return
        run = self._runs.get(key)
        if run is None:
            return
        if reply.id < OWN_MESSAGE_IDS:
            self._to_host(run, message)
        if reply.error.reason == STALE_EPOCH:
            # Somebody else may have the run by now; nothing that this one says of it is written any more.
            log.warning("%s is not ours any more: %s", key[0], reply.error.message)
            self._drop(key)
            return
        if run.finish_id and reply.id == run.finish_id:
            if run.stop is not None:
                self._report_stop(run.stop, killed=False)
            self._release(run)

    def _on_stop(self, message: ServerMessage) -> None:
        stop = message.stop
        key = (stop.lease.run, stop.lease.epoch)
        run = self._runs.get(key)
        match stop.mode:
            case StopMode.STOP_MODE_DROP:
                self._drop(key)
            case StopMode.STOP_MODE_HALT if run is None:
                # Whatever ran under this lease here has ended, with its process or by itself.
                self._report_stop(stop, killed=True)
            case StopMode.STOP_MODE_HALT:
                if run is not None and run.stop is None:
                    self._halt(run, message)
            case _:
                self._to_run(stop.lease, message)

    def _to_run(self, lease: Lease, message: ServerMessage) -> None:
        run = self._runs.get((lease.run, lease.epoch))
        if run is None:
            log.info("%s for %s/%d, which is not here", message.WhichOneof("body"), lease.run, lease.epoch)
        elif run.host is None:
            run.waiting.append(message)
        else:
            self._to_host(run, message)

    def _to_host(self, run: _Run, message: ServerMessage) -> None:
        if run.host is None:
            return
        try:
            run.host.send(message)
        except BufferError as error:
            log.warning("host %d of %s is killed: %s", run.host.pid, run.key[0], error)
            self._spawn(_kill(run.host))

    # -- starting

    async def _start(self, run: _Run, assign: Assign) -> None:
        try:
            host = await self._nursery.host(assign.spec, shared=assign.shared_host)
        except GraphNotLoadedError as error:
            self._fail(run, error.reason, str(error), error.detail)
        except PackError as error:
            self._fail(run, error.reason, str(error))
        except grpc.aio.AioRpcError as error:
            self._fail(run, "PACK_UNAVAILABLE", f"The agent's pack can't be fetched: {error.details()}.")
        except ZygoteGoneError as error:
            self._end([run.lease], HostExit(-1, str(error)))
        else:
            if self._runs.get(run.key) is not run:
                if run.alone:
                    await host.kill()
                return
            if host not in self._hosts:
                self._end([run.lease], HostExit(-1, "The host ended before the run had begun in it."))
                return
            self._hosts[host].add(run.key)
            run.host = host
            waiting, run.waiting = run.waiting, []
            for message in waiting:
                self._to_host(run, message)

    def _fail(self, run: _Run, reason: str, message: str, detail: str = "") -> None:
        """Ends a run that can't start, in its host's place."""
        if self._runs.get(run.key) is not run:
            return
        failed = HostMessage(lease=run.lease)
        failed.finish.error.CopyFrom(RunError(reason=reason, message=message, detail=detail[-8192:]))
        run.finish_id = self._send_for(failed)

    def _send_for(self, message: HostMessage) -> int:
        """Sends a message in a run's name, until it is answered; returns the id that it was given."""
        self._own_ids += 1
        message.id = self._own_ids
        lease = message.lease
        self._link.send(WorkerMessage(host=message), key=(lease.run, lease.epoch, message.id))
        return message.id

    # -- from hosts

    def _on_fork(self, host: HostProcess) -> None:
        self._hosts[host], self._leaving[host] = set(), {}
        self._spawn(self._carry(host))

    async def _carry(self, host: HostProcess) -> None:
        """Carries a host's messages until it ends, and says so when it does."""
        while (message := await host.receive()) is not None:
            self._on_host_message(host, message)
            await self._link.room()
        try:
            end = await asyncio.wait_for(host.ended(), HOST_EXIT_SECONDS)
        except TimeoutError:
            end = await host.kill()
        self._nursery.gone(host)
        runs = [run for key in self._hosts.pop(host, ()) if (run := self._runs.get(key)) is not None]
        if runs:
            log.warning("host %d ended with %d, and %d runs with it", host.pid, end.exit_code, len(runs))
        for run in runs:
            self._forget(run.key)
            if run.stop is not None:
                self._report_stop(run.stop, killed=True)
        leases = [*(run.lease for run in runs if run.stop is None), *self._leaving.pop(host).values()]
        self._end(leases, end, halted_by=self._file_latch)

    def _on_host_message(self, host: HostProcess, message: HostMessage) -> None:
        key = (message.lease.run, message.lease.epoch)
        body = message.WhichOneof("body")
        run = self._runs.get(key)
        if run is not None and run.host is not host:
            log.warning("host %d speaks for %s, which it does not carry; it is killed", host.pid, key[0])
            self._spawn(_kill(host))
            return
        if body in ("embed", "read", "stopped", "ready") and message.HasField("commit"):
            # What the worker answers by itself may still carry what the server must keep.
            self._send_for(HostMessage(lease=message.lease, commit=message.commit))
        match body:
            case "ready":
                return
            case "stopped":
                if run is not None and run.stop is not None:
                    self._report_stop(run.stop, killed=False, not_started=message.stopped.not_started)
                    self._release(run)
                elif (left := self._leaving[host].pop(key, None)) is not None:
                    self._end([left], HostExit(0, "Nothing of it moves any more."))
                return
            case "embed":
                self._spawn(self._embed_for_host(host, message))
                return
            case "read":
                self._spawn(self._read_for_host(host, message))
                return
            case "step_closed":
                pass  # how a started step ended is told also by one that has lost its lease
            case _ if run is None:
                return
        if body == "finish" and run is not None:
            run.finish_id = message.id
        self._link.send(WorkerMessage(host=message), key=(*key, message.id) if message.id else None)

    # -- stopping

    def _halt(self, run: _Run, message: ServerMessage) -> None:
        if run.host is None:
            # Nothing of it has run here: its messages, the assignment first, are still waiting.
            self._forget(run.key)
            self._report_stop(message.stop, killed=False)
            return
        run.stop = message.stop
        run.halt = self._spawn(self._kill_after_grace(run, run.host, message.stop))
        self._to_host(run, message)

    async def _kill_after_grace(self, run: _Run, host: HostProcess, stop: Stop) -> None:
        """Ends a host that has not answered a halt. The runs beside it share its fate: nothing less than a
        process can be stopped for certain.
        """
        grace = run.cancel_seconds or stop.grace_seconds or DEFAULT_GRACE_SECONDS
        await asyncio.sleep(run.drain_seconds + grace)
        log.warning("host %d of %s does not answer a halt; it is killed", host.pid, run.key[0])
        await host.kill()
        # What is told of it is told where its end is noticed.

    def _drop(self, key: LeaseKey) -> None:
        """Ends a run whose lease is lost. That nothing of it can act any more is told; nothing else but outcomes."""
        run = self._runs.get(key)
        if run is None:
            return
        self._forget(key)
        if run.host is None:
            return
        if run.alone:
            self._spawn(self._kill_and_tell(run.lease, run.host))
        elif run.host in self._leaving:
            self._leaving[run.host][key] = run.lease
            stop = Stop(lease=run.lease, mode=StopMode.STOP_MODE_DROP)
            self._to_host(run, ServerMessage(stop=stop))

    async def _kill_and_tell(self, lease: Lease, host: HostProcess) -> None:
        """What the host had started may be done again only once it is known to be dead."""
        self._end([lease], await host.kill())

    def _release(self, run: _Run) -> None:
        """Ends a lease whose run is over; a host of its own has done its work."""
        self._forget(run.key)
        if run.alone and run.host is not None:
            self._spawn(_kill(run.host))

    def _forget(self, key: LeaseKey) -> None:
        run = self._runs.pop(key, None)
        if run is None:
            return
        if run.halt is not None:
            run.halt.cancel()
        if run.host is not None and run.host in self._hosts:
            self._hosts[run.host].discard(key)
        run.waiting.clear()

    def _report_stop(self, stop: Stop, *, killed: bool, not_started: Iterable[str] = ()) -> None:
        report = StopReport(lease=stop.lease, latch=stop.latch, killed=killed, not_started=not_started)
        self._link.send(WorkerMessage(stop_report=report), fact=True)

    def _end(self, leases: Sequence[Lease], end: HostExit, halted_by: str = "") -> None:
        if not leases:
            return
        for lease in leases:
            self._forget((lease.run, lease.epoch))
        ended = HostEnded(
            leases=leases, exit_code=end.exit_code, stderr=end.stderr[-4096:], halted_by=halted_by
        )
        self._link.send(WorkerMessage(host_ended=ended), fact=True)

    # -- answers of the worker itself

    async def _embed_for_host(self, host: HostProcess, message: HostMessage) -> None:
        result = await self._embedded(message.id, list(message.embed.texts))
        await self._answer(host, HostReply(lease=message.lease, id=message.id, embed=result))

    async def _read_for_host(self, host: HostProcess, message: HostMessage) -> None:
        pairs = [Pair(tuple(p.text), tuple(p.tool), tuple(p.markers)) for p in message.read.pairs]
        try:
            result = PairsRead(readings=[_as_bytes(r) for r in await self._read(pairs)])
        except InferenceUnavailableError as error:
            result = PairsRead(error=RunError(reason=error.reason, message=str(error)))
        await self._answer(host, HostReply(lease=message.lease, id=message.id, read=result))

    async def _answer(self, host: HostProcess, reply: HostReply) -> None:
        try:
            host.send(ServerMessage(host_reply=reply))
        except BufferError:
            await host.kill()

    async def _embed_for_server(self, request: int, texts: list[str]) -> None:
        result = await self._embedded(request, texts)
        self._link.send(WorkerMessage(embed_result=result))

    async def _embedded(self, request: int, texts: list[str]) -> EmbedResult:
        try:
            rows = await self._embed(texts)
        except InferenceUnavailableError as error:
            return EmbedResult(id=request, error=RunError(reason=error.reason, message=str(error)))
        vectors = np.ascontiguousarray(rows, dtype="<f4")
        return EmbedResult(id=request, count=len(vectors), vectors=vectors.tobytes())

    async def _inspect(self, inspect: Inspect) -> None:
        result = InspectResult(id=inspect.id)
        try:
            result.report.CopyFrom(await self._nursery.inspect(inspect.spec))
        except (GraphNotLoadedError, PackError) as error:
            detail = error.detail if isinstance(error, GraphNotLoadedError) else ""
            result.error.CopyFrom(RunError(reason=error.reason, message=str(error), detail=detail[-8192:]))
        except ZygoteGoneError as error:
            result.error.CopyFrom(RunError(reason="GRAPH_PROCESS_DIED", message=str(error)))
        except grpc.aio.AioRpcError as error:
            result.error.CopyFrom(RunError(reason="PACK_UNAVAILABLE", message=error.details() or ""))
        self._link.send(WorkerMessage(inspect_result=result))

    async def _fetch_pack(self, digest: str) -> bytes:
        async with self._target.open_channel() as channel:
            stub = WorkerServiceStub(channel)
            request = GetPackRequest(digest=digest)
            response = await stub.GetPack(request, metadata=self._target.metadata(), wait_for_ready=True)
            return response.pack

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a worker's task failed", exc_info=error)


class InferenceUnavailableError(Exception):
    """The models can't answer now, or never to this; ``reason`` says which."""

    def __init__(self, message: str, *, reason: str = "EMBEDDER_UNAVAILABLE") -> None:
        super().__init__(message)
        self.reason = reason


def _as_bytes(reading: Reading) -> PairsRead.Reading:
    kind, tags, present, match = (
        np.ascontiguousarray(a, dtype="<f4").tobytes()
        for a in (reading.kind, reading.tags, reading.present, reading.match)
    )
    return PairsRead.Reading(kind=kind, tags=tags, present=present, match=match)


async def _kill(host: HostProcess) -> None:
    await host.kill()
