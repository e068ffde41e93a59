"""A copy of the store in one file, made while the server writes, and a store made of such a copy.

The copy is SQLite's own online backup inside one read transaction of the source: it has all that was committed when it began, and
nothing of what is committed later, and what goes on being written neither waits for it nor makes it begin again. It is written beside
its place under another name, and gets its own only when it is whole, checked and on disk.

A restore makes the new store beside the old one, checks it, begins another life in it, and puts it in place in one rename; the old one
has been moved aside by then and is never deleted. A restore that ends before the rename has changed nothing.

Refused: to make the copy through an RPC of the server. Whoever may read the whole store can read the folder, the server need not lend
its threads to it, and a copy can be made as well where no server runs. Refused: VACUUM INTO, which reports no progress.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.store.lives import new_incarnation
from fermata.server.store.migrate import migrate, version_of

STORE = "fermata.db"
"""The store's file in a data folder."""

PAGES_AT_ONCE = 2_000
"""Pages of the source that are copied between two words about progress."""

BUSY_SECONDS = 5.0

_WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
"""What file systems without hard links say, such as those of memory sticks."""

Progress = Callable[[float], None]
"""Told how much is done, from 0 to 1."""


def back_up(data: Path, target: Path, progress: Progress = lambda done: None) -> int:
    """Copy the store in the folder ``data`` to the file ``target`` (mode 0600), and return its size in bytes.

    :raises DomainError: STORE_NOT_FOUND, BACKUP_EXISTS, BACKUP_FAILED, DATA_TOO_NEW, DATA_DAMAGED.
    """
    source = data / STORE
    if not source.is_file():
        raise _refusal(
            "STORE_NOT_FOUND", f"There is no store in {data}. Give its data folder with --data.", data
        )
    version_of(source)
    if target.exists():
        raise _exists(target)
    part = target.with_name(f".{target.name}.part")
    try:
        with _private(part):
            _copy(source, part, progress)
            with closing(sqlite3.connect(part)) as copy, copy:
                if copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'lives'").fetchone():
                    copy.execute(
                        "UPDATE lives SET backed_up = ? WHERE n = (SELECT max(n) FROM lives)", (time.time(),)
                    )
            check(part)
            _flush(part)
            _name(part, target)
    except FileExistsError:
        raise _exists(target) from None
    except (OSError, sqlite3.Error) as error:
        raise _refusal(
            "BACKUP_FAILED",
            f"{target} could not be written: {error}. Nothing is left of it; make room and try again.",
            target,
        ) from error
    _flush(target.parent)
    return target.stat().st_size


def restore(
    backup: Path,
    data: Path,
    *,
    force: bool = False,
    workers_stopped: bool = False,
    progress: Progress = lambda done: None,
) -> Path | None:
    """Make the store in the folder ``data``, which the caller has locked, from a backup.

    :param force: a store that is there is moved aside, into a folder beside it, which is returned; else it is refused.
    :param workers_stopped: no worker that has dealt with the store, and no process of one, runs any more.
    :raises DomainError: BACKUP_NOT_FOUND, DATA_EXISTS, DATA_IN_USE, DATA_TOO_NEW, DATA_DAMAGED, RESTORE_FAILED.
    """
    if not backup.is_file():
        raise _refusal("BACKUP_NOT_FOUND", f"There is no backup {backup}.", backup)
    store = data / STORE
    if store.exists() and not force:
        raise _refusal(
            "DATA_EXISTS",
            f"{data} has a store. Choose another data folder, or move it aside with --force.",
            data,
        )
    # Neither a server that died with its journal unread nor one that lives may find its file exchanged.
    if store.exists():
        require_unused(store)
    fresh = data / f".{STORE}.restored"
    try:
        with _private(fresh):
            _copy(backup, fresh, progress)
            check(fresh)
            if version_of(fresh) is None:
                raise _damaged(backup, "it has no schema")
            migrate(fresh)
            _begin_life(fresh, workers_stopped=workers_stopped)
            _flush(fresh)
            aside = _move_aside(store) if store.exists() else None
            fresh.replace(store)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise _failed(data, error) from error
        raise _damaged(backup, str(error)) from error
    except (OSError, DBAPIError) as error:
        raise _failed(data, error) from error
    _flush(data)
    return aside


def check(path: Path) -> None:
    """Read all of a store.

    :raises DomainError: DATA_DAMAGED.
    """
    try:
        with closing(sqlite3.connect(path)) as store:
            found = store.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error
    if found != "ok":
        raise _damaged(path, str(found))


def require_unused(store: Path) -> None:
    """Refuse where any process has the store open: the folder's lock is the supervisor's, and a server may outlive that. What is in
    its journal is in the file itself after this.

    :raises DomainError: DATA_IN_USE.
    """
    try:
        with closing(sqlite3.connect(store, timeout=0.2, isolation_level=None)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError as error:
        raise _refusal(
            "DATA_IN_USE",
            f"A process has {store} open ({error}). End `fermata up` and its server first.",
            store,
        ) from error
    except sqlite3.DatabaseError:
        # Too damaged to be asked; it is moved aside as it is.
        return


def _copy(source: Path, target: Path, progress: Progress) -> None:
    reading = sqlite3.connect(source, timeout=BUSY_SECONDS, isolation_level=None)
    with closing(reading), closing(sqlite3.connect(target)) as writing:
        # One snapshot for all of it; without this each write to the source would make the copy begin again.
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reading.backup(
            writing,
            pages=PAGES_AT_ONCE,
            progress=lambda _, remaining, total: progress(1 - remaining / max(1, total)),
        )
        # A backup is one file.
        writing.execute("PRAGMA journal_mode = DELETE").fetchone()


def _name(part: Path, target: Path) -> None:
    """Give a file a name that nothing has. Unlike a rename, a link does not take the place of what somebody has made meanwhile.

    :raises FileExistsError: something has it.
    """
    try:
        target.hardlink_to(part)
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        part.replace(target)


def _begin_life(path: Path, *, workers_stopped: bool) -> None:
    """Begin another life in a store that nobody has open; what follows from it is for the server's first start."""
    with closing(sqlite3.connect(path)) as store, store:
        (event,) = store.execute("SELECT coalesce(max(n), 0) FROM events").fetchone()
        (backed_up,) = store.execute("SELECT backed_up FROM lives ORDER BY n DESC LIMIT 1").fetchone()
        store.execute(
            "INSERT INTO lives (incarnation, began, event, backed_up, workers_stopped, settled) VALUES (?, ?, ?, ?, ?, 0)",
            (new_incarnation(), time.time(), event, backed_up, workers_stopped),
        )


def _move_aside(store: Path) -> Path:
    """Give the files of a store a second name in a folder of their own, and return that; the store's own name is still there."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = store.parent / f"before-restore-{stamp}"
    number = 1
    while aside.exists():
        number += 1
        aside = store.parent / f"before-restore-{stamp}-{number}"
    aside.mkdir(mode=0o700)
    (aside / store.name).hardlink_to(store)
    for suffix in ("-wal", "-shm"):
        journal = store.with_name(store.name + suffix)
        if journal.exists():
            journal.rename(aside / journal.name)
    return aside


@contextmanager
def _private(path: Path) -> Iterator[None]:
    """A new file that only its owner can read; gone at the end under this name, whatever happens."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        path.with_name(path.name + "-journal").unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(reason: str, message: str, path: Path) -> DomainError:
    return DomainError(message, reason=reason, kind=ErrorKind.FAILED_PRECONDITION, path=str(path))


def _exists(target: Path) -> DomainError:
    return _refusal(
        "BACKUP_EXISTS",
        f"{target} exists, and a backup takes the place of nothing. Give another name.",
        target,
    )


def _damaged(path: Path, why: str) -> DomainError:
    return _refusal("DATA_DAMAGED", f"{path} is no store that can be used: {why}. Take another backup.", path)


def _failed(data: Path, error: Exception) -> DomainError:
    return _refusal(
        "RESTORE_FAILED",
        f"The store could not be restored into {data}: {error}. The folder's store is as it was.",
        data,
    )
