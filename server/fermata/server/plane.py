"""The control plane: the store and the live side, wired together. The RPC layer calls nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select

from fermata.server.agents.revisions import Revisions
from fermata.server.clock import Clock, SystemClock
from fermata.server.errors import DomainError
from fermata.server.ledger.gate import GateKeeper
from fermata.server.lifecycle import budgets, latching, new_life
from fermata.server.lifecycle.leases import Leases
from fermata.server.lifecycle.schedule import Limits, Schedule
from fermata.server.live.hub import Hub
from fermata.server.live.workers import Workers
from fermata.server.policy.book import PolicyBook
from fermata.server.store import lives, schema
from fermata.server.store.database import Database, Transaction
from fermata.server.store.lives import Lives
from fermata.server.store.migrate import migrate
from fermata.server.store.publication import Publication
from fermata.server.threads.retention import Retention
from fermata.v1 import run_pb2

DEFAULT_LIMITS = Limits()
DEFAULT_RETENTION = Retention()

CLAIM_AGAIN_SECONDS = 1.0
"""How long to wait after the store has failed to hand out work."""

STOP_AGAIN_SECONDS = 0.2
"""The same, to stop runs: no gate lets anything through meanwhile, but whoever has set the latch waits."""

OpenDatabase = Callable[[Path, Clock, Callable[[Publication], None]], Database]

T = TypeVar("T")
log = logging.getLogger(__name__)


class ControlPlane:
    """Everything that a server process holds.

    Make one with :meth:`open`, end it with :meth:`close`.
    """

    database: Database
    hub: Hub
    lives: Lives

    def __init__(
        self, clock: Clock, limits: Limits = DEFAULT_LIMITS, retention: Retention = DEFAULT_RETENTION
    ) -> None:
        self.clock = clock
        self.retention = retention
        self.revisions = Revisions()
        self.policies = PolicyBook()
        self.workers = Workers()
        self.leases = Leases(self.revisions, self.policies, self.workers, Schedule(self.revisions, limits))
        self.keeper = GateKeeper(self.revisions, self.policies, budgets.stop_at_limit)
        self.approvals_changed = asyncio.Event()
        self.deadlines_changed = asyncio.Event()
        self.silent_since: dict[str, float] = {}
        """Workers without a connection, and when each last said anything (monotonic)."""
        self.draining = False
        self.latches_changed = asyncio.Event()
        self._claiming = False
        self._claim_again = False
        self._stopping = False
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(
        cls, data: Path, limits: Limits = DEFAULT_LIMITS, retention: Retention = DEFAULT_RETENTION
    ) -> ControlPlane:
        """Open the store in ``data``, bringing it up to date first.

        :param limits: of what runs and of what waits.
        :param retention: how much of the threads' history is kept.
        :raises DomainError: DATA_NOT_WRITABLE, DATA_TOO_NEW.
        """
        path = data / "fermata.db"
        await asyncio.to_thread(migrate, path)
        return await cls.over(path, SystemClock(), Database, limits, retention)

    @classmethod
    async def over(
        cls,
        path: Path,
        clock: Clock,
        database: OpenDatabase,
        limits: Limits = DEFAULT_LIMITS,
        retention: Retention = DEFAULT_RETENTION,
    ) -> ControlPlane:
        """Open over the store in the file ``path``, which is up to date.

        :param database: makes what keeps it.
        :raises DomainError: STORE_UNAVAILABLE.
        """
        plane = cls(clock, limits, retention)
        plane.database = database(path, clock, plane._published)
        try:
            plane.hub = Hub(await plane.read(_last_event))
            plane.lives = await plane.read(lives.load)
            # Only then: a store on a full disk can still be read.
            if not plane.lives.present.settled:
                await plane.write(lambda tx: new_life.settle(tx, plane.revisions))
                plane.lives = await plane.read(lives.load)
        except BaseException:
            await plane.close()
            raise
        return plane

    async def close(self) -> None:
        """Finish what is under way and let go of the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.database.close()

    async def write(
        self,
        operation: Callable[[Transaction], T],
        *,
        urgent: bool = False,
        at_once: bool = False,
        size_bytes: int = 0,
    ) -> T:
        """Run a domain operation; see :meth:`Database.write`."""
        return await self.database.write(operation, urgent=urgent, at_once=at_once, size_bytes=size_bytes)

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """Run a query; see :meth:`Database.read`."""
        return await self.database.read(operation)

    def spawn(self, coroutine: Any, name: str) -> None:
        """Run something beside the requests; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)

    def _spawned_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    def claim_work(self) -> None:
        """Hand out what waits, unless that is being done already."""
        if self.draining:
            return
        if self._claiming:
            self._claim_again = True
            return
        self._claiming = True
        self.spawn(self._claim(), "claim")

    async def _claim(self) -> None:
        try:
            while True:
                self._claim_again = False
                try:
                    leased = await self.write(self.leases.claim)
                except DomainError as error:
                    # Nothing else may ever ask again: what waits would wait for ever.
                    log.warning("what waits can't be handed out: %s", error)
                    await asyncio.sleep(CLAIM_AGAIN_SECONDS)
                    continue
                if not leased and not self._claim_again:
                    return
        finally:
            self._claiming = False

    def stop_covered(self) -> None:
        """Go on stopping the runs that latches cover, unless that is being done already."""
        if not self._stopping:
            self._stopping = True
            self.spawn(self._stop_covered(), "stop")

    async def _stop_covered(self) -> None:
        """Until there is none left. Each commit lets the gates that wait go before the next."""
        stopped = 1
        try:
            while stopped:
                try:
                    stopped = await self.write(latching.go_on_stopping, urgent=True)
                except DomainError as error:
                    log.warning("what is covered can't be stopped: %s", error)
                    await asyncio.sleep(STOP_AGAIN_SECONDS)
        finally:
            self._stopping = False

    def _published(self, publication: Publication) -> None:
        for worker, message in publication.to_workers:
            self.workers.send(worker, message)
        # Of each run the last: one that parks and goes on at once has not left.
        for event in {event.event.run: event for event in publication.events}.values():
            self.workers.follow(event)
        if publication.events:
            self.hub.publish(publication.events)
            if any(event.event.type == run_pb2.EVENT_TYPE_APPROVAL_REQUESTED for event in publication.events):
                # Only a new question can fall due before those that the sweep knows of.
                self.approvals_changed.set()
        elif publication.latches:
            self.hub.wake()
        if publication.work_available:
            self.claim_work()
        if publication.deadline_set:
            self.deadlines_changed.set()
        if publication.latch_expiry_set:
            self.latches_changed.set()
        if publication.runs_to_stop:
            self.stop_covered()


def _last_event(connection: Connection) -> int:
    return connection.execute(select(func.max(schema.events.c.n))).scalar() or 0
