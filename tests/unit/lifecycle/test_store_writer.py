"""The one writer: operations that share a flush, and each of which stands or falls alone."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, event, select
from sqlalchemy.exc import OperationalError

from fermata.server.errors import DomainError, invalid
from fermata.server.store import schema
from fermata.server.store.database import Database, Transaction
from fermata.server.store.migrate import migrate
from fermata.server.store.publication import Publication


class FixedClock:
    """A clock that stands still."""

    def now(self) -> float:
        return 1_000.0

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
async def published() -> list[Publication]:
    return []


@pytest.fixture
async def database(tmp_path: Path, published: list[Publication]) -> AsyncIterator[Database]:
    path = tmp_path / "fermata.db"
    await asyncio.to_thread(migrate, path)
    opened = Database(path, FixedClock(), published.append)
    yield opened
    await opened.close()


def _keep(digest: str) -> Any:
    def operation(transaction: Transaction) -> str:
        transaction.execute(schema.packs.insert(), {"digest": digest, "data": b"x"})
        transaction.publication.latches.append(digest)
        return digest

    return operation


async def _kept(database: Database) -> set[str]:
    query = select(schema.packs.c.digest)
    return set(await database.read(lambda connection: connection.execute(query).scalars().all()))


async def _block(database: Database) -> tuple[asyncio.Future[None], threading.Event]:
    """Occupy the writer, so that what is submitted now shares the next flush."""
    inside, go = threading.Event(), threading.Event()

    def operation(transaction: Transaction) -> None:
        inside.set()
        go.wait(5)

    future = database.submit(operation)
    await asyncio.to_thread(inside.wait, 5)
    return future, go


async def test_what_is_written_can_be_read_and_is_published_after_the_commit(
    database: Database, published: list[Publication]
) -> None:
    assert await database.write(_keep("a")) == "a"
    assert await _kept(database) == {"a"}
    assert [publication.latches for publication in published] == [["a"]]


async def test_a_refused_operation_undoes_itself_and_nothing_beside_it(
    database: Database, published: list[Publication]
) -> None:
    def refuse(transaction: Transaction) -> None:
        _keep("b")(transaction)
        raise invalid("no")

    blocked, go = await _block(database)
    futures = [database.submit(operation) for operation in (_keep("a"), refuse, _keep("c"))]
    go.set()
    results = await asyncio.gather(blocked, *futures, return_exceptions=True)
    assert isinstance(results[2], DomainError)
    assert (results[1], results[3]) == ("a", "c")
    assert await _kept(database) == {"a", "c"}
    assert [p.latches for p in published if p.latches] == [["a"], ["c"]]


async def test_a_fault_of_the_disk_refuses_all_that_shared_the_flush_and_nothing_later(
    database: Database, published: list[Publication]
) -> None:
    def fault(transaction: Transaction) -> None:
        transaction.connection.exec_driver_sql("SELECT * FROM a_table_that_is_gone")

    blocked, go = await _block(database)
    futures = [database.submit(operation) for operation in (_keep("a"), fault)]
    go.set()
    results = await asyncio.gather(blocked, *futures, return_exceptions=True)
    assert [getattr(result, "reason", result) for result in results[1:]] == ["STORE_UNAVAILABLE"] * 2
    assert await _kept(database) == set()
    assert not any(publication.latches for publication in published)
    assert await database.write(_keep("b")) == "b"


async def test_a_commit_that_fails_costs_what_it_was_to_commit_and_nothing_after_it(
    database: Database,
) -> None:
    left = [True]

    def fail_once(_: object) -> None:
        if left:
            left.clear()
            raise OperationalError("COMMIT", None, sqlite3.OperationalError("database or disk is full"))

    event.listen(database._writer_engine, "commit", fail_once)
    with pytest.raises(DomainError) as refused:
        await database.write(_keep("a"))
    assert refused.value.reason == "STORE_UNAVAILABLE"
    assert await database.write(_keep("b")) == "b"
    assert await _kept(database) == {"b"}


async def test_gates_and_latches_go_ahead_of_all_that_waits(database: Database) -> None:
    order: list[str] = []
    blocked, go = await _block(database)
    slow = database.submit(lambda tx: order.append("slow"))
    urgent = database.submit(lambda tx: order.append("urgent"), urgent=True)
    go.set()
    await asyncio.gather(blocked, slow, urgent)
    assert order == ["urgent", "slow"]


async def test_operations_of_one_lane_keep_their_order(database: Database) -> None:
    order: list[int] = []

    def note(number: int, _: Transaction) -> None:
        order.append(number)

    futures = [database.submit(functools.partial(note, number)) for number in range(500)]
    await asyncio.gather(*futures)
    assert order == list(range(500))


async def test_who_gave_up_waiting_does_not_undo_what_was_asked(database: Database) -> None:
    blocked, go = await _block(database)
    future = database.submit(_keep("a"))
    future.cancel()
    go.set()
    await blocked
    await database.write(lambda tx: None)
    assert await _kept(database) == {"a"}


async def test_readers_can_write_nothing(database: Database) -> None:
    with pytest.raises(DomainError, match="readonly"):
        await database.read(lambda connection: connection.execute(schema.packs.insert(), {"digest": "a"}))


async def test_a_write_is_answered_also_where_telling_others_of_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "fermata.db"
    await asyncio.to_thread(migrate, path)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    def fail(_: object) -> None:
        raise ZeroDivisionError

    database = Database(path, FixedClock(), fail)
    await asyncio.wait_for(database.write(_keep("a")), 5)
    await database.close()


async def test_a_store_that_is_closing_takes_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "fermata.db"
    await asyncio.to_thread(migrate, path)
    database = Database(path, FixedClock(), lambda publication: None)
    written = database.submit(_keep("a"))
    await database.close()
    assert await written == "a"
    with pytest.raises(DomainError) as refused:
        await database.write(_keep("b"))
    assert refused.value.reason == "STORE_UNAVAILABLE"


def test_a_migrated_store_is_what_the_schema_says(tmp_path: Path) -> None:
    path = tmp_path / "fermata.db"
    migrate(path)
    migrate(path)
    assert path.stat().st_mode & 0o777 == 0o600
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


@pytest.mark.parametrize("content", [b"no store at all" * 100, b"SQLite format 3\0" + b"\xff" * 200])
def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fermata.db"
    path.write_bytes(content)
    with pytest.raises(DomainError) as refused:
        migrate(path)
    assert refused.value.reason == "DATA_DAMAGED"
    assert path.read_bytes() == content


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fermata.db"
    migrate(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(DomainError) as refused:
        migrate(path)
    assert refused.value.reason == "DATA_TOO_NEW"


async def test_the_file_is_in_wal_mode_before_anybody_can_read_or_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fermata.db"
    await asyncio.to_thread(migrate, path)
    with monkeypatch.context() as writer_has_not_run:
        writer_has_not_run.setattr(threading.Thread, "start", lambda _thread: None)
        opened = Database(path, FixedClock(), lambda publication: None)
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    opened._thread.start()
    await opened.close()


async def test_a_file_that_cannot_be_opened_is_refused_at_once_and_nobody_waits_for_a_writer(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fermata.db"
    path.write_bytes(b"this is no database, but it is long enough to be looked at as one" * 20)
    with pytest.raises(DomainError, match="not a database") as refused:
        Database(path, FixedClock(), lambda publication: None)
    assert refused.value.reason == "STORE_UNAVAILABLE"
