"""Writes that share a flush: who shares it, who goes first, and that nobody is answered before it."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fermata.server.errors import DomainError
from fermata.server.store import schema
from fermata.server.store.database import MAX_BATCH, MAX_BATCH_BYTES, Database, Transaction
from fermata.server.store.migrate import migrate


class FixedClock:
    """A clock that stands still."""

    def now(self) -> float:
        return 1_000.0

    def monotonic(self) -> float:
        return 0.0


class Commits:
    """The writer's COMMITs, seen by SQLite's own trace: counted, and held up where a test says so."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        self.reached = threading.Event()
        self.go = threading.Event()
        self.go.set()
        driver = database._writer.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(self._trace)

    def hold(self) -> None:
        self.reached.clear()
        self.go.clear()

    def _trace(self, statement: str) -> None:
        if statement == "COMMIT":
            self.count += 1
            self.reached.set()
            self.go.wait(10)


class Order:
    """What ran, in order, and a way to stop the writer inside an operation."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ran: list[str] = []

    def submit(
        self, name: str, *, urgent: bool = False, at_once: bool = False, size_bytes: int = 0
    ) -> asyncio.Future[None]:
        operation = functools.partial(self._run, name)
        return self._database.submit(operation, urgent=urgent, at_once=at_once, size_bytes=size_bytes)

    async def stop_inside(
        self, name: str, size_bytes: int = 0
    ) -> tuple[asyncio.Future[None], Callable[[], None]]:
        inside, go = threading.Event(), threading.Event()

        def operation(_: Transaction) -> None:
            self.ran.append(name)
            inside.set()
            go.wait(10)

        future = self._database.submit(operation, size_bytes=size_bytes)
        await asyncio.to_thread(inside.wait, 10)
        return future, go.set

    def _run(self, name: str, _: Transaction) -> None:
        self.ran.append(name)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    path = tmp_path / "fermata.db"
    await asyncio.to_thread(migrate, path)
    opened = Database(path, FixedClock(), lambda publication: None)
    yield opened
    await opened.close()


@pytest.fixture
def commits(database: Database) -> Commits:
    return Commits(database)


@pytest.fixture
def order(database: Database) -> Order:
    return Order(database)


def _keep(digest: str, transaction: Transaction) -> None:
    transaction.execute(schema.packs.insert(), {"digest": digest, "data": b"x"})


def _seen_from_outside(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as other:
        return {digest for (digest,) in other.execute("SELECT digest FROM packs")}


async def test_nobody_is_answered_before_the_flush_and_then_all_can_see_what_was_written(
    database: Database, commits: Commits
) -> None:
    commits.hold()
    futures = [database.submit(functools.partial(_keep, name)) for name in "abc"]
    await asyncio.to_thread(commits.reached.wait, 10)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(future.done() for future in futures)
    assert _seen_from_outside(database.path) == set()
    seen: list[bool] = []
    for name, future in zip("abc", futures, strict=True):
        future.add_done_callback(lambda _, name=name: seen.append(name in _seen_from_outside(database.path)))  # type: ignore[misc]
    commits.go.set()
    await asyncio.gather(*futures)
    assert seen == [True, True, True]


async def test_concurrent_writes_take_far_fewer_flushes_than_there_are_writes(
    database: Database, commits: Commits, order: Order
) -> None:
    first, go = await order.stop_inside("first")
    futures = [database.submit(functools.partial(_keep, str(number))) for number in range(2 * MAX_BATCH)]
    go()
    await asyncio.gather(first, *futures)
    assert commits.count == 3
    assert len(_seen_from_outside(database.path)) == 2 * MAX_BATCH


async def test_what_comes_while_others_are_written_shares_their_flush(
    database: Database, commits: Commits, order: Order
) -> None:
    first, go = await order.stop_inside("first")
    later = order.submit("later")
    go()
    await asyncio.gather(first, later)
    assert commits.count == 1


async def test_an_urgent_operation_behind_hundreds_runs_next(
    database: Database, commits: Commits, order: Order
) -> None:
    first, go = await order.stop_inside("first")
    queued = [order.submit(str(number)) for number in range(500)]
    urgent = order.submit("urgent", urgent=True)
    commits.hold()
    go()
    await asyncio.to_thread(commits.reached.wait, 10)
    assert order.ran[:2] == ["first", "urgent"]
    assert len(order.ran) == MAX_BATCH
    assert not urgent.done()
    commits.go.set()
    await urgent
    await asyncio.gather(first, *queued)
    assert order.ran[2:] == [str(number) for number in range(500)]


async def test_a_latch_goes_ahead_of_gates_and_its_flush_waits_for_nothing_behind_it(
    database: Database, commits: Commits, order: Order
) -> None:
    first, go = await order.stop_inside("first")
    gates = [order.submit(f"gate {number}", urgent=True) for number in range(3)]
    latch = order.submit("latch", at_once=True)
    commits.hold()
    go()
    await asyncio.to_thread(commits.reached.wait, 10)
    assert order.ran == ["first", "latch"]
    commits.go.set()
    await asyncio.gather(first, latch, *gates)
    assert commits.count == 2


async def test_a_gate_waits_for_one_large_checkpoint_at_the_most(database: Database, order: Order) -> None:
    size = MAX_BATCH_BYTES
    running, go = await order.stop_inside("large 1", size)
    others = [order.submit(f"large {number}", size_bytes=size) for number in range(2, 6)]
    gate = order.submit("gate", urgent=True)
    go()
    await gate
    assert order.ran.index("gate") == 1
    await asyncio.gather(running, *others)


async def test_a_gate_is_not_flushed_together_with_a_large_checkpoint_that_came_before_it(
    database: Database, commits: Commits, order: Order
) -> None:
    first, go = await order.stop_inside("first")
    large = order.submit("large", size_bytes=MAX_BATCH_BYTES)
    gate = order.submit("gate", urgent=True)
    commits.hold()
    go()
    await asyncio.to_thread(commits.reached.wait, 10)
    assert order.ran == ["first", "gate"]
    commits.go.set()
    await asyncio.gather(first, gate, large)
    assert (order.ran, commits.count) == (["first", "gate", "large"], 2)


async def test_a_large_checkpoint_is_passed_over_once_and_no_more(database: Database, order: Order) -> None:
    first, go = await order.stop_inside("first")
    large = order.submit("large", size_bytes=MAX_BATCH_BYTES)
    gates = [order.submit("gate", urgent=True) for _ in range(3 * MAX_BATCH)]
    go()
    await large
    assert order.ran.index("large") <= 2 * MAX_BATCH
    await asyncio.gather(first, *gates)


async def test_large_checkpoints_do_not_share_a_flush(
    database: Database, commits: Commits, order: Order
) -> None:
    first, go = await order.stop_inside("first")
    large = [order.submit(f"{number}", size_bytes=MAX_BATCH_BYTES) for number in range(3)]
    go()
    await asyncio.gather(first, *large)
    assert commits.count == 3
    assert order.ran == ["first", "0", "1", "2"]


async def test_where_no_transaction_can_begin_all_that_wait_are_refused_and_later_ones_are_not(
    database: Database, order: Order
) -> None:
    driver: Any = database._writer.connection.driver_connection
    first, go = await order.stop_inside("first")
    go()
    await first
    driver.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        futures = [database.submit(functools.partial(_keep, name)) for name in "abc"]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [error.reason for error in results if isinstance(error, DomainError)] == [
            "STORE_UNAVAILABLE"
        ] * 3
        other.execute("ROLLBACK")
    await database.write(functools.partial(_keep, "d"))
    assert _seen_from_outside(database.path) == {"d"}
