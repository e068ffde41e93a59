"""Keeps the embedder and the workers alive, and tells the server at once which worker is dead.

A server that knows of a death gives the worker's runs to another one right away; without it they would wait
for their leases to expire. Actors outlive the controller: one that starts adopts those that it finds by name,
and looks for processes of workers that the server still believes in.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fermata.server.cluster.roster import Roster

log = logging.getLogger(__name__)

EMBEDDER = "embedder"
WORKER_PREFIX = "worker-"
SWEEP_SECONDS = 0.5
REPORT_RETRY_SECONDS = 0.5


class ActorGoneError(Exception):
    """An actor's process has ended, or it could not be started; the text says what is known."""


@dataclass(frozen=True)
class Sighting:
    """A worker as the server knows it."""

    worker: str
    node: str
    pid: int


class Actor(Protocol):
    """An actor of ours, wherever it runs. Each method raises ``ActorGoneError`` where it is dead."""

    async def worker_id(self) -> str:
        """The worker's id; empty for the embedder. Returns once the actor answers."""

    async def wait_connected(self) -> None:
        """Returns once the server has welcomed the worker."""

    async def wait_dead(self) -> str:
        """Returns when the actor's process has ended: what is known of why."""

    async def kill(self) -> None:
        """Ends the actor. A repeat does nothing."""


class ActorCluster(Protocol):
    """All that the controller asks of Ray."""

    async def find(self, name: str) -> Actor | None:
        """The living actor of this name that serves the same server as we do; one that serves another is
        ended.
        """

    async def start(self, name: str, worker_id: str) -> Actor:
        """Starts the actor of this name; with an empty ``worker_id`` it is the embedder.

        :raises ActorGoneError: it can't be started.
        """


class ServerNotices(Protocol):
    """What the controller tells and asks the server. Each raises ``ConnectionError`` where the server can't
    be reached.
    """

    async def report_death(self, worker: str, reason: str) -> None:
        """The worker's process is dead. A repeat changes nothing."""

    async def living_workers(self) -> list[Sighting]:
        """Workers that the server does not know to be dead."""


class Controller:
    """Runs until cancelled.

    :param on_connected: called once, when the first worker was welcomed by the server.
    :param clock: monotonic seconds.
    :param sleep: waits; with ``clock`` the only sense of time here.
    :param process_exists: whether a process id is alive on this machine.
    :param all_ended: returns when nothing is left on this machine of what a dead worker had started.
    """

    def __init__(
        self,
        cluster: ActorCluster,
        server: ServerNotices,
        *,
        workers: int,
        on_connected: Callable[[], None] = lambda: None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        process_exists: Callable[[int], bool] | None = None,
        all_ended: Callable[[str], Awaitable[None]] | None = None,
        node: str = "",
    ) -> None:
        self._cluster = cluster
        self._server = server
        # Workers first: they get the processes that Ray has ready, and a text can wait a second for its embedding.
        self._roster = Roster([*(f"{WORKER_PREFIX}{number}" for number in range(workers)), EMBEDDER])
        self._on_connected = on_connected
        self._told_connected = False
        self._clock = clock
        self._sleep = sleep
        self._process_exists = process_exists or _process_exists
        self._all_ended = all_ended
        self._node = node or socket.gethostname()
        self._actors: dict[str, Actor] = {}
        self._known: set[str] = set()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Adopts, starts and replaces until cancelled. Actors live on then; ``kill_all`` ends them."""
        try:
            await asyncio.gather(*(self._adopt(name) for name in self._roster.names))
            self._spawn(self._sweep())
            while True:
                self._wake.clear()
                now = self._clock()
                for name in self._roster.due(now):
                    self._roster.starting(name, now)
                    self._spawn(self._start(name))
                await self._rest(self._roster.seconds_to_next(self._clock()))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def kill_all(self) -> None:
        """Ends every actor."""
        await asyncio.gather(*(actor.kill() for actor in self._actors.values()), return_exceptions=True)

    async def _rest(self, seconds: float | None) -> None:
        """Until woken, or for so long."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._wake.wait())]
        if seconds is not None:
            waits.append(asyncio.ensure_future(self._sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _adopt(self, name: str) -> None:
        actor = await self._cluster.find(name)
        if actor is None:
            return
        try:
            worker = await actor.worker_id()
        except ActorGoneError:
            return
        log.info("%s is there already (%s)", name, worker or "no worker")
        self._spawn(self._watch(name, actor, worker))

    async def _start(self, name: str) -> None:
        # The id is ours to give: so a death can be told even of a worker that never answered.
        worker = f"worker-{uuid.uuid4().hex[:12]}" if name.startswith(WORKER_PREFIX) else ""
        self._known.add(worker)
        try:
            actor = await self._cluster.start(name, worker)
        except ActorGoneError as error:
            self._ended(name, worker, str(error))
            return
        await self._watch(name, actor, worker)

    async def _watch(self, name: str, actor: Actor, worker: str) -> None:
        self._actors[name] = actor
        if worker:
            self._known.add(worker)
        self._roster.alive(name, self._clock())
        if worker:
            self._spawn(self._tell_connected(actor))
        reason = await actor.wait_dead()
        del self._actors[name]
        self._ended(name, worker, reason)

    def _ended(self, name: str, worker: str, reason: str) -> None:
        delay = self._roster.died(name, self._clock())
        log.warning("%s ended (%s); the next one starts in %.1f s", name, reason, delay)
        if worker:
            self._spawn(self._report(worker, reason))
        self._wake.set()

    async def _tell_connected(self, actor: Actor) -> None:
        try:
            await actor.wait_connected()
        except ActorGoneError:
            return
        if not self._told_connected:
            self._told_connected = True
            self._on_connected()

    async def _report(self, worker: str, reason: str) -> None:
        """Tells a death, once all that the worker has started is dead as well, and for as long as it takes to be heard."""
        if self._all_ended is not None:
            await self._all_ended(worker)
        while True:
            try:
                await self._server.report_death(worker, reason)
            except ConnectionError as error:
                log.info("the death of %s can't be told yet: %s", worker, error)
                await self._sleep(REPORT_RETRY_SECONDS)
            else:
                self._known.discard(worker)
                return

    async def _sweep(self) -> None:
        """Looks for workers of an earlier time that the server waits for in vain, until none is left in
        doubt.
        """
        while True:
            try:
                sightings = await self._server.living_workers()
            except ConnectionError:
                await self._sleep(SWEEP_SECONDS)
                continue
            doubtful = [
                seen for seen in sightings if seen.node == self._node and seen.worker not in self._known
            ]
            for seen in doubtful:
                if not self._process_exists(seen.pid):
                    self._known.add(seen.worker)
                    self._spawn(self._report(seen.worker, f"process {seen.pid} is gone"))
            if not doubtful:
                return
            await self._sleep(SWEEP_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the controller failed", exc_info=error)


def _process_exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")
