"""A copy of the store while it is written, and a store made of a copy."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from fermata.server.clock import SystemClock
from fermata.server.errors import DomainError
from fermata.server.store import backup
from fermata.server.store.database import Database
from fermata.server.store.migrate import migrate
from fermata.server.up import copies
from fermata.server.up.preflight import lock_data

PAIR = (
    "INSERT INTO packs (digest, data) VALUES ('a' || :n, zeroblob(4096))",
    "INSERT INTO packs (digest, data) VALUES ('b' || :n, zeroblob(4096))",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    migrate(folder / "fermata.db")
    return folder


@pytest.fixture
async def database(data: Path) -> AsyncIterator[Database]:
    opened = Database(data / "fermata.db", SystemClock(), lambda _: None)
    yield opened
    await opened.close()


async def write_pair(database: Database, number: int) -> None:
    """Two rows in one transaction."""

    def operation(transaction: Any) -> None:
        for statement in PAIR:
            transaction.execute(text(statement), {"n": number})

    await database.write(operation)


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as store:
        return store.execute(query).fetchall()


def refusal(call: Any, *args: Any, **values: Any) -> str:
    with pytest.raises(DomainError) as refused:
        call(*args, **values)
    return refused.value.reason


async def test_a_backup_is_consistent_while_writes_go_on(
    data: Path, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PAGES_AT_ONCE", 100)
    for number in range(100):
        await write_pair(database, number)
    loop = asyncio.get_running_loop()
    told: list[float] = []

    def progress(done: float) -> None:
        told.append(done)
        # Between any two pieces of the copy something is committed.
        asyncio.run_coroutine_threadsafe(write_pair(database, 100 + len(told)), loop).result(10)

    target = tmp_path / "copy.db"
    size = await asyncio.to_thread(backup.back_up, data, target, progress)
    assert len(told) > 2
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert rows(target, "SELECT substr(digest, 1, 1), count(*) FROM packs GROUP BY 1") == [
        ("a", 100),
        ("b", 100),
    ]
    assert len(rows(data / "fermata.db", "SELECT 1 FROM packs")) == 200 + 2 * len(told)
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.stat().st_size == size
    assert sorted(os.listdir(tmp_path)) == ["copy.db", "data"]


def test_a_backup_takes_the_place_of_nothing(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("mine")
    assert refusal(backup.back_up, data, target) == "BACKUP_EXISTS"
    assert target.read_text() == "mine"


def test_a_file_that_appears_while_a_backup_is_made_is_left_alone(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    assert refusal(backup.back_up, data, target, lambda _: target.write_text("mine")) == "BACKUP_EXISTS"
    assert target.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "data"]


def test_a_backup_of_nothing_or_to_nowhere_says_so(data: Path, tmp_path: Path) -> None:
    assert refusal(backup.back_up, tmp_path, tmp_path / "copy.db") == "STORE_NOT_FOUND"
    assert refusal(backup.back_up, data, tmp_path / "no" / "copy.db") == "BACKUP_FAILED"


def little_room(*words: Path | str) -> subprocess.CompletedProcess[str]:
    """Run a command where no file can have more than a million bytes: that stands for a full disk."""
    program = (
        "import resource, signal, sys; from fermata.server.up import copies;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000000, 1000000));"
        "sys.exit(copies.main(sys.argv[1:]))"
    )
    return subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True)


def fill(data: Path) -> None:
    with closing(sqlite3.connect(data / "fermata.db")) as store, store:
        store.execute("INSERT INTO packs (digest, data) VALUES ('x', zeroblob(4000000))")


def test_a_backup_for_which_there_is_no_room_leaves_nothing_behind(data: Path, tmp_path: Path) -> None:
    fill(data)
    done = little_room("backup", "--data", data, tmp_path / "copy.db")
    assert (done.returncode, "BACKUP_FAILED" in done.stderr) == (78, True), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_restore_for_which_there_is_no_room_leaves_the_store_as_it_was(data: Path, tmp_path: Path) -> None:
    fill(data)
    copy, other = tmp_path / "copy.db", tmp_path / "other"
    backup.back_up(data, copy)
    other.mkdir()
    migrate(other / "fermata.db")
    done = little_room("restore", "--data", other, "--force", copy)
    assert (done.returncode, "RESTORE_FAILED" in done.stderr) == (78, True), done.stderr
    assert sorted(path.name for path in other.iterdir()) == ["fermata.db", "lock"]
    assert len(rows(other / "fermata.db", "SELECT 1 FROM lives")) == 1


def test_a_backup_goes_to_a_file_system_without_links_too(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    target = tmp_path / "copy.db"
    backup.back_up(data, target)
    assert len(rows(target, "SELECT 1 FROM lives")) == 1
    made = lambda _: target.with_name("other.db").write_text("mine")  # noqa: E731
    assert refusal(backup.back_up, data, target.with_name("other.db"), made) == "BACKUP_EXISTS"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "data", "other.db"]


def test_a_restored_store_has_what_the_backup_has_and_another_life(data: Path, tmp_path: Path) -> None:
    copy, fresh = tmp_path / "copy.db", tmp_path / "fresh"
    backup.back_up(data, copy)
    fresh.mkdir()
    assert backup.restore(copy, fresh, workers_stopped=True) is None
    store = fresh / "fermata.db"
    assert store.stat().st_mode & 0o777 == 0o600
    first, second = rows(
        store, "SELECT incarnation, backed_up, workers_stopped, settled FROM lives ORDER BY n"
    )
    assert first[0] == rows(data / "fermata.db", "SELECT incarnation FROM lives")[0][0] != second[0]
    assert second[1:] == (first[1], 1, 0)
    assert second[1] > 0
    assert [path.name for path in fresh.iterdir()] == ["fermata.db"]


def test_each_restore_of_one_backup_is_a_life_of_its_own(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    backup.back_up(data, copy)
    lives = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        backup.restore(copy, tmp_path / name)
        lives.add(rows(tmp_path / name / "fermata.db", "SELECT incarnation FROM lives ORDER BY n")[-1])
    assert len(lives) == 2


def test_a_store_that_is_there_is_moved_aside_only_when_told_to(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    backup.back_up(data, copy)
    with closing(sqlite3.connect(data / "fermata.db")) as store, store:
        store.execute("INSERT INTO packs (digest, data) VALUES ('later', x'00')")
    assert refusal(backup.restore, copy, data) == "DATA_EXISTS"
    aside = backup.restore(copy, data, force=True)
    assert aside is not None
    assert rows(data / "fermata.db", "SELECT digest FROM packs") == []
    assert rows(aside / "fermata.db", "SELECT digest FROM packs") == [("later",)]


async def test_a_store_that_a_process_has_open_is_not_exchanged(
    data: Path, database: Database, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    await write_pair(database, 1)
    backup.back_up(data, copy)
    assert refusal(backup.restore, copy, data, force=True) == "DATA_IN_USE"
    await write_pair(database, 2)
    assert len(rows(data / "fermata.db", "SELECT 1 FROM packs")) == 4


def test_a_folder_that_a_control_plane_holds_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.db"
    backup.back_up(data, copy)
    held = lock_data(data)
    assert copies.main(["restore", "--data", str(data), "--force", "--json", str(copy)]) == 78
    held.close()
    assert json.loads(capsys.readouterr().err)["reason"] == "DATA_IN_USE"


@pytest.mark.parametrize("damage", ["text", "cut", "no schema", "a page"])
def test_a_backup_that_is_damaged_is_refused_and_changes_nothing(
    data: Path, tmp_path: Path, damage: str
) -> None:
    copy = tmp_path / "copy.db"
    backup.back_up(data, copy)
    content = copy.read_bytes()
    copy.chmod(0o600)
    match damage:
        case "text":
            copy.write_bytes(b"no store at all" * 1000)
        case "cut":
            copy.write_bytes(content[: len(content) // 2])
        case "no schema":
            copy.unlink()
            sqlite3.connect(copy).execute("CREATE TABLE x (y)").connection.close()
        case "a page":
            copy.write_bytes(content[:8192] + os.urandom(4096) + content[12288:])
    before = (data / "fermata.db").read_bytes()
    assert refusal(backup.restore, copy, data, force=True) == "DATA_DAMAGED"
    assert (data / "fermata.db").read_bytes() == before
    assert [path.name for path in data.iterdir()] == ["fermata.db"]


def test_a_backup_of_a_newer_version_is_refused(data: Path, tmp_path: Path) -> None:
    copy, fresh = tmp_path / "copy.db", tmp_path / "fresh"
    backup.back_up(data, copy)
    with closing(sqlite3.connect(copy)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = '9999'")
    fresh.mkdir()
    assert refusal(backup.restore, copy, fresh) == "DATA_TOO_NEW"
    assert list(fresh.iterdir()) == []
    assert refusal(backup.restore, tmp_path / "none.db", fresh) == "BACKUP_NOT_FOUND"


def test_a_store_that_is_damaged_itself_can_be_moved_aside(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    backup.back_up(data, copy)
    (data / "fermata.db").write_bytes(b"no store at all" * 1000)
    aside = backup.restore(copy, data, force=True)
    assert aside is not None
    assert (aside / "fermata.db").read_bytes().startswith(b"no store")
    assert len(rows(data / "fermata.db", "SELECT 1 FROM lives")) == 2


def test_the_commands_tell_what_they_did_and_what_is_not_included(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, fresh = str(tmp_path / "copy.db"), str(tmp_path / "fresh")
    assert copies.main(["backup", "--data", str(data), copy]) == 0
    said = capsys.readouterr()
    assert "chroma/" in said.out
    assert "100 %" in said.err
    assert copies.main(["restore", "--data", fresh, "--workers-stopped", "--json", copy]) == 0
    assert json.loads(capsys.readouterr().out)["event"] == "restore"


def test_the_command_line_hands_over_to_the_server_s_program(data: Path, tmp_path: Path) -> None:
    fermata = [sys.executable, "-m", "fermata.bots.terminal.main"]
    environment = {**os.environ, "FERMATA_DATA": str(data)}
    copy, new = str(tmp_path / "copy.db"), str(tmp_path / "new")
    for words in (["backup", copy], ["--data", new, "restore", copy]):
        done = subprocess.run([*fermata, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "fermata.db").exists()
