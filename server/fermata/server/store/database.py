"""The one writer, and readers beside it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
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

MAX_BATCH_BYTES = 64 * 1024
"""A batch takes nothing more once those of its operations that are not urgent have brought this much: so a gate waits for one large
checkpoint at the most, and never for a row of them.
"""

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
    __slots__ = ("error", "function", "future", "is_last", "publication", "result", "size_bytes")

    def __init__(
        self,
        function: Callable[[Transaction], Any],
        future: asyncio.Future[Any],
        size_bytes: int,
        is_last: bool,
    ) -> None:
        self.function = function
        self.future = future
        self.size_bytes = size_bytes
        self.is_last = is_last
        """Nothing joins its batch after it."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.publication = Publication()


class Database:
    """SQLite behind domain operations.

    Group commit: what waits when the writer is free shares one transaction and its flush, and what comes while that transaction is
    being written joins it. Each operation has a savepoint of its own, and is answered after the flush.

    Refused: to linger for up to 2 ms before a batch, so that more share it. Of 64 writers in a loop all are in one batch anyway (2,700
    to 3,400 operations/s with and without), and of 8 the batch was complete at once and the wait was for nobody (1,200 to 2,700/s
    without, 900 to 1,000 with). Whole runs, 64 at once, five rounds each on two loaded cores: 64 to 109 plain ones/s without, 74 to
    117 with; 21 to 32 gated cycles/s without, 27 to 33 with: no more than the rounds differ among themselves.

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
        self._at_once: deque[_Operation] = deque()
        self._urgent: deque[_Operation] = deque()
        self._queued: deque[_Operation] = deque()
        self._passed_over = False
        """True where the large operation that waits has let a batch go before it."""
        self._wake = threading.Condition()
        self._closing = False
        self.faults = 0
        """How often a batch could not be written."""
        self._loop = asyncio.get_running_loop()
        self._start_writing()

    async def write(
        self,
        operation: Callable[[Transaction], T],
        *,
        urgent: bool = False,
        at_once: bool = False,
        size_bytes: int = 0,
    ) -> T:
        """Run ``operation`` in a transaction and return its result once that is on disk.

        :param urgent: gates and latches go ahead of everything that waits.
        :param at_once: latches go ahead of gates as well, and their flush waits for nothing else.
        :param size_bytes: about how much it writes, where that is much.
        :raises DomainError: what the operation refuses; STORE_OVERLOADED where too much waits; STORE_UNAVAILABLE where the
            disk fails, in which case nothing of it was written.
        """
        return await self.submit(operation, urgent=urgent, at_once=at_once, size_bytes=size_bytes)

    def submit(
        self,
        operation: Callable[[Transaction], T],
        *,
        urgent: bool = False,
        at_once: bool = False,
        size_bytes: int = 0,
    ) -> asyncio.Future[T]:
        """Queue ``operation`` and return the future of its result. Operations of one lane run in the order of these calls.

        :raises DomainError: STORE_OVERLOADED, STORE_UNAVAILABLE where the store is closing.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        item = _Operation(operation, future, 0 if urgent else size_bytes, at_once)
        with self._wake:
            if self._closing:
                raise StoreTroubleError("The store is closing; try again.")
            if not urgent and len(self._queued) >= MAX_QUEUED:
                raise StoreTroubleError(
                    f"{MAX_QUEUED} operations are waiting for the disk; try again.", overloaded=True
                )
            if at_once:
                self._at_once.append(item)
            else:
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
            while self._wait():
                batch = self._run(connection)
                self._loop.call_soon_threadsafe(self._settle, batch)

    def _wait(self) -> bool:
        """Wait for something to write; False where there is nothing and the store is closing."""
        with self._wake:
            while not self._is_wanted and not self._closing:
                self._wake.wait()
            return self._is_wanted

    @property
    def _is_wanted(self) -> bool:
        return bool(self._at_once or self._urgent or self._queued)

    def _batch(self) -> Iterator[_Operation]:
        """What shares the next flush, each chosen as late as can be: what is urgent and comes while others are written goes next.

        Nothing follows a latch: its flush is waited for by whoever has set it. Nothing follows what is large, and beside something
        urgent that is passed over, once: so a gate waits for one large operation at the most, be it under way or in its own batch.
        The last place is not for what is urgent: however much of that comes, the rest goes on.
        """
        size_bytes, is_urgent = 0, False
        for place in range(MAX_BATCH):
            with self._wake:
                if size_bytes >= MAX_BATCH_BYTES:
                    return
                is_last = place == MAX_BATCH - 1
                if self._at_once:
                    item, is_urgent = self._at_once.popleft(), True
                elif self._urgent and not (is_last and self._queued):
                    item, is_urgent = self._urgent.popleft(), True
                elif self._queued:
                    is_large = self._queued[0].size_bytes >= MAX_BATCH_BYTES
                    if is_large and is_urgent and not self._passed_over:
                        self._passed_over = True
                        return
                    self._passed_over = self._passed_over and not is_large
                    item = self._queued.popleft()
                else:
                    return
            size_bytes += item.size_bytes
            yield item
            if item.is_last and not self._at_once:
                return

    def _run(self, connection: Connection) -> list[_Operation]:
        """One transaction for a batch; a savepoint each, so that a refusal undoes its own operation only."""
        batch: list[_Operation] = []
        try:
            with connection.begin():
                now = self._clock.now()
                sqlite = _sqlite(connection)
                sqlite.execute("BEGIN IMMEDIATE")
                for item in self._batch():
                    batch.append(item)
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
            if _sqlite(connection).in_transaction:
                # SQLAlchemy takes a commit that failed for the end of a transaction; SQLite does not.
                _sqlite(connection).rollback()
            # Where it could not even begin, those who would have shared it are told so all the same.
            batch = batch or list(self._batch())
            for item in batch:
                item.error = refusal
        return batch

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
