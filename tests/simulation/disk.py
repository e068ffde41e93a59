"""The store's writer without its thread: the same batches, the same transactions, at instants that the seed chooses.

A server that is killed before a batch is written has lost it; killed between the write and its acknowledgement, it has written
what nobody was told of. A full disk fails whole batches. With the server its machine loses its power: what SQLite was not told to
flush at each commit is lost as well.
"""

from __future__ import annotations

import random
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError
from tests.simulation.loop import SimulatedLoop

from fermata.server.clock import Clock
from fermata.server.store.database import Database, _Operation, _sqlite
from fermata.server.store.publication import Publication


class _Compiled(dict[Any, Any]):
    """What SQLAlchemy has compiled, for all servers of all histories: to do it again for each would be a sixth of the whole. Its keys
    begin with the engine's dialect, of which each engine has its own, all of them alike.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(key[1:], default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key[1:], value)


_compiled = _Compiled()

FLUSH_SECONDS = 0.001
SLOW_FLUSH_SECONDS = 0.05

SYNCHRONOUS_FULL = 2
"""From this level of SQLite's ``synchronous`` on, a commit in WAL mode is on the disk when it returns."""

UNFLUSHED_SECONDS = 0.2
"""How far back a loss of power reaches where commits are not flushed."""


class Disk:
    """What the databases of one simulation share: how slow the disk is, and whether it is full."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.full = False

    def seconds(self) -> float:
        """How long a flush takes."""
        if self.rng.random() < 0.03:
            return self.rng.random() * SLOW_FLUSH_SECONDS
        return self.rng.expovariate(1 / FLUSH_SECONDS)

    def open(self, path: Path, clock: Clock, published: Callable[[Publication], None]) -> SimulatedDatabase:
        """A database on this disk, for :meth:`ControlPlane.over`."""
        return SimulatedDatabase(self, path, clock, published)


class SimulatedDatabase(Database):
    """A database whose writer takes its turns in the loop."""

    def __init__(
        self, disk: Disk, path: Path, clock: Clock, published: Callable[[Publication], None]
    ) -> None:
        self._disk = disk
        self._writing = False
        super().__init__(path, clock, published)
        for engine in (self._writer_engine, self._reader_engine):
            engine._compiled_cache = _compiled
        event.listen(self._writer_engine, "commit", self._commit)
        (level,) = _sqlite(self._writer).execute("PRAGMA synchronous").fetchone()
        self._flushes = level >= SYNCHRONOUS_FULL
        self._unflushed: deque[tuple[float, bytes]] = deque(maxlen=20)
        """Images of the file before the latest batches, where a commit does not flush."""

    def _start_writing(self) -> None:
        """Nothing to start: the first operation schedules the first turn."""

    def _wake_writer(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.call_later(self._disk.seconds(), self._write_batch)

    def _write_batch(self) -> None:
        if not self._flushes:
            self._unflushed.append((self._disk.loop.time(), _sqlite(self._writer).serialize()))
        batch = self._run(self._writer)
        self._loop.call_later(self._disk.seconds(), self._acknowledge, batch)

    def _commit(self, _: Connection) -> None:
        if self._disk.full:
            raise OperationalError("COMMIT", None, sqlite3.OperationalError("database or disk is full"))

    def _acknowledge(self, batch: list[_Operation]) -> None:
        self._settle(batch)
        self._writing = False
        if self._is_wanted:
            self._wake_writer()

    def leave(self, *, power_lost: bool = False) -> None:
        """What the kernel does when the process dies: its files are closed. With the power goes what was not flushed."""
        self._writer_engine.dispose()
        self._reader_engine.dispose()
        since = self._disk.loop.time() - UNFLUSHED_SECONDS
        lost = [image for time, image in self._unflushed if time >= since]
        if power_lost and lost:
            for rest in ("-wal", "-shm"):
                self.path.with_name(self.path.name + rest).unlink(missing_ok=True)
            self.path.write_bytes(lost[0])
