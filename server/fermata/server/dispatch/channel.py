"""One worker's channel: frames in, frames out, and the order of what its hosts say."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from sqlalchemy.dialects.sqlite import insert

from fermata.server.agents.operations import latest_specs
from fermata.server.agents.revisions import of_run
from fermata.server.errors import DomainError, ErrorKind, precondition
from fermata.server.lifecycle import boundaries, latching, leases, reconnection
from fermata.server.live.workers import ConnectedWorker
from fermata.server.names import Name, parse
from fermata.server.plane import ControlPlane
from fermata.server.runs.record import open_run
from fermata.server.store import schema
from fermata.server.store.database import StoreTroubleError, Transaction
from fermata.server.threads import checkpoints
from fermata.v1 import collection_pb2, run_pb2, worker_pb2

T = TypeVar("T")
log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 2.0
LEASE_SECONDS = 10.0

WARM_AGENTS = 2
"""Agents whose graphs a worker loads as soon as it is there, so that a run that it takes over does not wait for that."""

LARGE_MESSAGE_BYTES = 64 * 1024
"""A host's message beyond this leaves the lane of the gates, and so do that run's later ones until it is committed."""

MAX_UNWRITTEN_BYTES = 32 * 1024 * 1024
"""With more than this of a worker's messages on their way to the disk, no more is read from it."""

Search = Callable[
    [collection_pb2.SearchDocumentsRequest, str], Awaitable[collection_pb2.SearchDocumentsResponse]
]
"""Searches for a run: the request, and the tenant it may search in."""


class Frames(Protocol):
    """Where frames from the worker come from."""

    def __aiter__(self) -> AsyncIterator[worker_pb2.ConnectRequest]: ...


class Channel:
    """Speaks with one worker until its stream ends.

    What the store can't take now is not refused: a host would take that for an answer, and its run would fail for want of a disk.
    The stream ends instead, nothing that follows is taken, and the worker, which comes back by itself, says all of it again in
    its old order.
    """

    def __init__(self, plane: ControlPlane, search: Search) -> None:
        self._plane = plane
        self._search = search
        self._slow: Counter[str] = Counter()
        self._unwritten_bytes = 0
        self._written_some = asyncio.Event()
        self._faults = plane.database.faults
        self._given_up = False
        self._worker: ConnectedWorker

    async def serve(self, frames: Frames) -> AsyncIterator[worker_pb2.ConnectResponse]:
        """Answer a worker's frames; the first message must be its hello.

        :raises DomainError: HELLO_EXPECTED, STORE_RESTORED.
        """
        incoming = frames.__aiter__()
        first = await anext(incoming, None)
        if first is None or not first.messages or first.messages[0].WhichOneof("body") != "hello":
            raise precondition("A worker's first message is its hello.", reason="HELLO_EXPECTED")
        hello = first.messages[0].hello
        self._require_this_life(hello)
        now = self._plane.clock.monotonic()
        self._worker = ConnectedWorker(hello.worker, hello.node, hello.pid, hello.capacity, now)
        self._worker.file_latch = hello.file_latch
        if hello.worker in self._plane.silent_since:
            # It is not silent, even where we can't write down that it is here.
            self._plane.silent_since[hello.worker] = now
        granted = await self._plane.write(lambda tx: _register(tx, hello), urgent=True)
        welcome = worker_pb2.Welcome(
            heartbeat_seconds=HEARTBEAT_SECONDS,
            lease_seconds=LEASE_SECONDS,
            lost=leases.lost(hello.leases, granted),
            incarnation=self._plane.lives.present.incarnation,
        )
        self._worker.send(worker_pb2.ServerMessage(welcome=welcome))
        self._worker.runs = await self._plane.read(
            lambda connection: leases.at_work(connection, hello.worker)
        )
        reader = asyncio.create_task(self._begin(first, hello, incoming), name=f"read {hello.worker}")
        reader.add_done_callback(lambda _: self._worker.wake.set())
        earlier = self._plane.workers.add(self._worker)
        try:
            if earlier is not None:
                earlier.close()
            while not self._worker.closed:
                await self._worker.wake.wait()
                self._worker.wake.clear()
                if reader.done() and not self._worker.outbox:
                    break
                while not self._worker.closed and (messages := self._worker.take_frame()):
                    yield worker_pb2.ConnectResponse(messages=messages)
            if reader.done() and not reader.cancelled() and (error := reader.exception()) is not None:
                log.info("worker %s: stream ended: %s", hello.worker, error)
        finally:
            reader.cancel()
            self._plane.workers.remove(self._worker)
            if self._plane.workers.get(hello.worker) is None:
                self._plane.silent_since[hello.worker] = self._worker.heard
                log.info("worker %s is not connected any more", hello.worker)

    def _require_this_life(self, hello: worker_pb2.WorkerHello) -> None:
        """Refuse a worker that has dealt with another life of the store: its hosts are at work for what nobody here knows of.

        :raises DomainError: STORE_RESTORED; the worker ends all its hosts, and comes again as a new one would.
        """
        present = self._plane.lives.present.incarnation
        if hello.incarnation not in ("", present):
            log.warning(
                "worker %s is from before the restore; it ends its hosts and begins anew", hello.worker
            )
            raise precondition(
                f"The store was restored from a backup since worker {hello.worker!r} was here; all of its leases are over.",
                reason="STORE_RESTORED",
                worker=hello.worker,
                incarnation=present,
            )

    async def _begin(
        self,
        first: worker_pb2.ConnectRequest,
        hello: worker_pb2.WorkerHello,
        incoming: AsyncIterator[worker_pb2.ConnectRequest],
    ) -> None:
        # Messages reach this connection by now; what went to an earlier one may not have arrived.
        await self._plane.write(
            lambda tx: reconnection.catch_up(tx, self._plane.leases, hello.worker, hello.leases), urgent=True
        )
        self._plane.claim_work()
        for spec in await self._plane.read(lambda connection: latest_specs(connection, WARM_AGENTS)):
            self._plane.workers.warm(spec, self._worker)
        await self._read(first, incoming)

    async def _read(
        self, first: worker_pb2.ConnectRequest, incoming: AsyncIterator[worker_pb2.ConnectRequest]
    ) -> None:
        for message in first.messages[1:]:
            self._take(message)
        async for frame in incoming:
            self._worker.heard = self._plane.clock.monotonic()
            for message in frame.messages:
                self._take(message)
            while self._unwritten_bytes > MAX_UNWRITTEN_BYTES:
                # The worker makes its hosts wait in turn. It is not silent: it is we who do not listen.
                self._written_some.clear()
                await self._written_some.wait()
                self._worker.heard = self._plane.clock.monotonic()

    def _take(self, message: worker_pb2.WorkerMessage) -> None:
        """Start what one message asks for. Messages that write are queued here and now, so that their order is kept."""
        if self._given_up:
            return
        match message.WhichOneof("body"):
            case "host":
                self._take_host(message.host)
            case "stop_report":
                report = message.stop_report
                self._write(lambda tx: latching.stop_report(tx, self._worker.id, report), report.lease.run)
            case "host_ended":
                for lease in message.host_ended.leases:
                    self._write(functools.partial(self._host_ended, lease, message.host_ended), lease.run)
            case "file_latch":
                self._worker.file_latch = message.file_latch.reason
                log.warning(
                    "worker %s: %s", self._worker.id, message.file_latch.reason or "its latch file is gone"
                )
                self._plane.claim_work()
            case "inspect_result":
                self._plane.workers.inspected(message.inspect_result)
            case "embed_result":
                self._plane.workers.embedded(message.embed_result)

    def _take_host(self, host: worker_pb2.HostMessage) -> None:
        body = host.WhichOneof("body")
        if body == "delta":
            # Whose text it is, is what the lease says.
            host.delta.run = host.lease.run
            self._plane.hub.delta(host.delta)
        elif body in ("search", "checkpoint_query"):
            if host.commit.ByteSize():
                # What rides along is committed first, as with every other message; the answer itself needs no transaction.
                self._write_host(worker_pb2.HostMessage(lease=host.lease, commit=host.commit))
            self._plane.spawn(self._answer(host), f"{body} for a run")
        else:
            self._write_host(host)

    def _write_host(self, host: worker_pb2.HostMessage) -> None:
        run, size = host.lease.run, host.ByteSize()
        slow = self._slow[run] > 0 or size > LARGE_MESSAGE_BYTES
        if slow:
            self._slow[run] += 1
        try:
            future = self._submit(
                lambda tx: boundaries.receive(tx, self._plane.keeper, self._worker.id, host),
                urgent=not slow,
                size_bytes=size,
            )
        except StoreTroubleError as error:
            self._give_up(error)
            return
        self._unwritten_bytes += size
        future.add_done_callback(functools.partial(self._written, host, size, slow))

    def _written(
        self,
        host: worker_pb2.HostMessage,
        size: int,
        slow: bool,
        future: asyncio.Future[worker_pb2.HostReply],
    ) -> None:
        self._unwritten_bytes -= size
        self._written_some.set()
        if slow:
            self._leave_slow_lane(host.lease.run)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._reply(host, future.result())
            return
        self._fail(host, error)

    def _submit(
        self, operation: Callable[[Transaction], T], *, urgent: bool, size_bytes: int = 0
    ) -> asyncio.Future[T]:
        """Queue an operation behind those before it: once one of them could not be written, none after it is."""

        def in_order(transaction: Transaction) -> T:
            if self._plane.database.faults != self._faults:
                raise StoreTroubleError("What was to be written before it could not be written.")
            return operation(transaction)

        return self._plane.database.submit(in_order, urgent=urgent, size_bytes=size_bytes)

    def _give_up(self, trouble: StoreTroubleError) -> None:
        """End the stream, so that the worker says again what the store could not take."""
        if not self._given_up:
            log.warning("the stream of %s ends: %s", self._worker.id, trouble.message)
        self._given_up = True
        self._worker.closed = True
        self._worker.wake.set()

    def _fail(self, host: worker_pb2.HostMessage, error: BaseException) -> None:
        if isinstance(error, StoreTroubleError):
            self._give_up(error)
            return
        if not isinstance(error, DomainError):
            log.error("a message of %s failed", host.lease.run, exc_info=error)
        self._reply(host, _refusal(host, error))

    def _leave_slow_lane(self, run: str) -> None:
        self._slow[run] -= 1
        if not self._slow[run]:
            del self._slow[run]

    def _reply(self, host: worker_pb2.HostMessage, reply: worker_pb2.HostReply) -> None:
        if host.id or reply.HasField("error"):
            self._worker.send(worker_pb2.ServerMessage(host_reply=reply))

    def _write(self, operation: Callable[[Transaction], None], run: str = "") -> None:
        """Queue what a worker says by itself; about ``run`` behind all that the run's host has said before."""
        try:
            try:
                future = self._submit(operation, urgent=not self._slow[run])
            except StoreTroubleError:
                # Too much waits for the disk; a halt settles all the same.
                future = self._submit(operation, urgent=True)
        except StoreTroubleError as error:
            self._give_up(error)
            return
        future.add_done_callback(self._written_down)

    def _written_down(self, future: asyncio.Future[None]) -> None:
        if future.cancelled() or (error := future.exception()) is None:
            return
        if isinstance(error, StoreTroubleError):
            self._give_up(error)
        else:
            log.error("a message of a worker failed", exc_info=error)

    def _host_ended(
        self, lease: worker_pb2.Lease, ended: worker_pb2.HostEnded, transaction: Transaction
    ) -> None:
        name = parse(lease.run, "runs")
        with open_run(transaction, name.tenant, name.id) as run:
            holds = run.is_leased_to(self._worker.id, lease.epoch)
        if holds and ended.halted_by:
            latching.halted_by_file(transaction, self._worker.id, self._worker.node, lease, ended.halted_by)
        elif holds:
            reason = f"its host ended with {ended.exit_code}"
            leases.lose_host(transaction, self._plane.keeper, name.tenant, name.id, reason, ended.stderr)
        else:
            leases.bury_host(transaction, self._worker.id, lease)

    async def _answer(self, host: worker_pb2.HostMessage) -> None:
        """Answer what only reads; whatever goes wrong, the host gets an answer."""
        answer = self._search_for if host.HasField("search") else self._read_checkpoints
        try:
            reply = await answer(host)
        except Exception as error:  # noqa: BLE001 - as with what writes: logged, and refused
            self._fail(host, error)
        else:
            self._reply(host, reply)

    async def _search_for(self, host: worker_pb2.HostMessage) -> worker_pb2.HostReply:
        reply = worker_pb2.HostReply(lease=host.lease, id=host.id)
        name = parse(host.lease.run, "runs")
        allowed = await self._plane.read(
            lambda connection: of_run(connection, self._plane.revisions, name).spec.collections
        )
        wanted = _within(name.tenant, list(host.search.collections), list(allowed))
        if wanted:
            request = collection_pb2.SearchDocumentsRequest(
                parent=f"tenants/{name.tenant}",
                collections=wanted,
                query=host.search.query,
                limit=host.search.limit,
            )
            reply.search.CopyFrom(await self._search(request, name.tenant))
        else:
            reply.search.SetInParent()
        return reply

    async def _read_checkpoints(self, host: worker_pb2.HostMessage) -> worker_pb2.HostReply:
        """Read a state. It is behind every commit of the run that was taken before, for that went through the same writer."""
        return await self._plane.write(
            lambda tx: _checkpoints(tx, self._worker.id, host), urgent=not self._slow[host.lease.run]
        )


def _within(tenant: str, wanted: list[str], allowed: list[str]) -> list[str]:
    """The collections that a run's search looks in, as resource names: those it names, or all that its agent may read.

    :raises DomainError: COLLECTION_NOT_ALLOWED.
    """
    for collection in wanted:
        if collection not in allowed:
            raise DomainError(
                f"The agent's file does not list the collection {collection!r}; it lists {', '.join(allowed) or 'none'}.",
                reason="COLLECTION_NOT_ALLOWED",
                kind=ErrorKind.PERMISSION_DENIED,
                collection=collection,
            )
    return [str(Name(tenant, "collections", collection)) for collection in wanted or allowed]


def _checkpoints(transaction: Transaction, worker: str, host: worker_pb2.HostMessage) -> worker_pb2.HostReply:
    name = parse(host.lease.run, "runs")
    with open_run(transaction, name.tenant, name.id) as run:
        run.require_lease(worker, host.lease.epoch)
        found = checkpoints.query(transaction, run.tenant, run.thread, host.checkpoint_query)
    return worker_pb2.HostReply(lease=host.lease, id=host.id, checkpoints=found)


def _register(transaction: Transaction, hello: worker_pb2.WorkerHello) -> set[tuple[str, int]]:
    transaction.execute(
        insert(schema.workers).prefix_with("OR REPLACE"),
        {
            "id": hello.worker,
            "node": hello.node,
            "pid": hello.pid,
            "state": worker_pb2.WORKER_STATE_CONNECTED,
            "capacity": hello.capacity,
            "heard": transaction.now,
        },
    )
    return leases.leases_of(transaction, hello.worker)


def _refusal(host: worker_pb2.HostMessage, error: BaseException) -> worker_pb2.HostReply:
    refused = run_pb2.RunError(reason="INTERNAL", message="The server failed; its log says why.")
    if isinstance(error, DomainError):
        refused = run_pb2.RunError(reason=error.reason, message=str(error))
    return worker_pb2.HostReply(lease=host.lease, id=host.id, error=refused)
