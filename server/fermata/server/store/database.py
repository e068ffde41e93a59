"""The one writer, and readers beside it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from fermata.server.clock import Clock
from fermata.server.errors import DomainError, ErrorKind
from fermata.server.store.publication import Publication

T = TypeVar("T")

MAX_BATCH = 128
"""Operations that share a flush at the most: bounds how long the first of them waits."""

MAX_QUEUED = 20_000
"""Operations that may wait; beyond that callers are told to come back."""

READERS = 2


class StoreTroubleError(DomainError):
    """The store can't do it now. Nothing of it was done, and the same may succeed later: STORE_UNAVAILABLE, STORE_OVERLOADED."""

    def __init__(self, message: str, *, overloaded: bool = False) -> None:
        if overloaded:
            super().__init__(message, reason="STORE_OVERLOADED", kind=ErrorKind.RESOURCE_EXHAUSTED)
        else:
            super().__init__(message, reason="STORE_UNAVAILABLE", kind=ErrorKind.UNAVAILABLE)


class Transaction:
    """What an operation gets: a connection inside BEGIN IMMEDIATE, the time, and where to say what has happened.

    ``publish`` collects what watchers are told after the commit, and never before it.
    """

    __slots__ = ("connection", "now", "publication")

    def __init__(self, connection: Connection, now: float, publication: Publication) -> None:
        self.connection = connection
        self.now = now
        self.publication = publication

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run one statement."""
        return self.connection.execute(statement, parameters)


class _Operation:
    __slots__ = ("error", "function", "future", "publication", "result")

    def __init__(self, function: Callable[[Transaction], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
        self.publication = Publication()


class Database:
    """SQLite behind domain operations.

    :param path: the database file; its folder exists.
    :param clock: where operations read the time.
    :param published: called on the event loop after each commit with what it published, in the order of commits.
    :raises DomainError: STORE_UNAVAILABLE where the file can't be opened.
    """

    def __init__(self, path: Path, clock: Clock, published: Callable[[Publication], None]) -> None:
        self.path = path
        self._clock = clock
        self._published = published
        self._writer_engine = _engine(path, writer=True)
        # Before anybody reads: turning WAL on wants the file for itself, and a writer that can't begin is told here and now.
        self._writer = self._open_writer()
        self._reader_engine = _engine(path, writer=False)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        self._urgent: deque[_Operation] = deque()
        self._queued: deque[_Operation] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self.faults = 0
        """How often a batch could not be written."""
        self._loop = asyncio.get_running_loop()
        self._start_writing()

    async def write(self, operation: Callable[[Transaction], T], *, urgent: bool = False) -> T:
        """Run ``operation`` in a transaction and return its result once that is on disk.

        :param urgent: gates and latches go ahead of everything that waits.
        :raises DomainError: what the operation refuses; STORE_OVERLOADED where too much waits; STORE_UNAVAILABLE where the
            disk fails, in which case nothing of it was written.
        """
        return await self.submit(operation, urgent=urgent)

    def submit(self, operation: Callable[[Transaction], T], *, urgent: bool = False) -> asyncio.Future[T]:
        """Queue ``operation`` and return the future of its result. Operations of one lane run in the order of these calls.

        :raises DomainError: STORE_OVERLOADED, STORE_UNAVAILABLE where the store is closing.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        item = _Operation(operation, future)
        with self._wake:
            if self._closing:
                raise StoreTroubleError("The store is closing; try again.")
            if not urgent and len(self._queued) >= MAX_QUEUED:
                raise StoreTroubleError(
                    f"{MAX_QUEUED} operations are waiting for the disk; try again.", overloaded=True
                )
            (self._urgent if urgent else self._queued).append(item)
            self._wake_writer()
        return future

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """Run ``operation`` over a consistent snapshot of what is committed.

        :raises DomainError: what the operation refuses; STORE_UNAVAILABLE where the disk fails.
        """
        return await self._loop.run_in_executor(self._readers, self._read, operation)

    def _read(self, operation: Callable[[Connection], T]) -> T:
        try:
            with self._reader_engine.connect() as connection, connection.begin():
                _sqlite(connection).execute("BEGIN")
                return operation(connection)
        except DBAPIError as error:
            if not _is_disk_fault(error):
                raise
            raise StoreTroubleError(f"The store could not read {self.path}: {error.orig}.") from error

    async def close(self) -> None:
        """Finish what is queued and let go of the file."""
        with self._wake:
            self._closing = True
            self._wake_writer()
        await asyncio.to_thread(self._thread.join)
        self._readers.shutdown()
        self._writer_engine.dispose()
        self._reader_engine.dispose()

    def _open_writer(self) -> Connection:
        try:
            return self._writer_engine.connect()
        except DBAPIError as error:
            raise StoreTroubleError(f"The store could not open {self.path}: {error.orig}.") from error

    # What drives the writer: a thread of its own here, the loop's turn where a simulation owns time.

    def _start_writing(self) -> None:
        self._thread = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._thread.start()

    def _wake_writer(self) -> None:
        """Called with the lock held when there is something to write, or nothing ever again."""
        self._wake.notify()

    def _write_loop(self) -> None:
        with self._writer as connection:
            while batch := self._take():
                self._run(connection, batch)
                self._loop.call_soon_threadsafe(self._settle, batch)

    def _take(self) -> list[_Operation]:
        with self._wake:
            while not self._urgent and not self._queued and not self._closing:
                self._wake.wait()
            batch: list[_Operation] = []
            for queue in (self._urgent, self._queued):
                while queue and len(batch) < MAX_BATCH:
                    batch.append(queue.popleft())
            return batch

    def _run(self, connection: Connection, batch: list[_Operation]) -> None:
        """One transaction for the whole batch; a savepoint each, so that a refusal undoes its own operation only."""
        try:
            with connection.begin():
                now = self._clock.now()
                sqlite = _sqlite(connection)
                sqlite.execute("BEGIN IMMEDIATE")
                for item in batch:
                    sqlite.execute("SAVEPOINT operation")
                    try:
                        item.result = item.function(Transaction(connection, now, item.publication))
                    except Exception as error:
                        if isinstance(error, DBAPIError) and _is_disk_fault(error):
                            raise
                        sqlite.execute("ROLLBACK TO operation")
                        item.error = error
                    sqlite.execute("RELEASE operation")
        except (DBAPIError, sqlite3.Error) as error:
            fault = error.orig if isinstance(error, DBAPIError) else error
            refusal = StoreTroubleError(
                f"The store could not write to {self.path}: {fault}. Nothing of this call was done."
            )
            self.faults += 1
            for item in batch:
                item.error = refusal

    def _settle(self, batch: list[_Operation]) -> None:
        try:
            for item in batch:
                if item.error is None:
                    self._published(item.publication)
                    continue
                for undo in item.publication.undo:
                    undo()
        finally:
            # It is on disk: whatever fails in telling others, those who wait for it are answered.
            for item in batch:
                if item.future.cancelled():
                    continue
                if item.error is not None:
                    item.future.set_exception(item.error)
                else:
                    item.future.set_result(item.result)


def _is_disk_fault(error: DBAPIError) -> bool:
    return isinstance(error.orig, sqlite3.OperationalError)


def _sqlite(connection: Connection) -> sqlite3.Connection:
    """The driver's own connection, which begins transactions and marks savepoints: SQLAlchemy's savepoint costs as much as two
    statements, and a listener for "begin" makes each statement a fifth dearer.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _engine(path: Path, *, writer: bool) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=StaticPool if writer else QueuePool,
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": 5.0},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        if writer:  # the file keeps it
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA cache_size = -16000")
        if not writer:
            connection.execute("PRAGMA query_only = ON")

    return engine
