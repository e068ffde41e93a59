"""Bring a store up to this version, or refuse one that is newer."""

from __future__ import annotations

import os
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DatabaseError

from fermata.server.errors import DomainError, ErrorKind


def migrate(path: Path) -> None:
    """Make the store at ``path``, or run the migrations that it lacks. Nothing happens to one that is current.

    :raises DomainError: DATA_NOT_WRITABLE, DATA_TOO_NEW, DATA_DAMAGED.
    """
    _require_writable(path)
    config = _config(path)
    present = version_of(path)
    if present == ScriptDirectory.from_config(config).get_current_head():
        return
    command.upgrade(config, "head")
    path.chmod(0o600)


def _config(path: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    return config


def version_of(path: Path) -> str | None:
    """The schema of the store at ``path``; None where it has none yet.

    :raises DomainError: DATA_TOO_NEW, DATA_DAMAGED.
    """
    script = ScriptDirectory.from_config(_config(path))
    present = _version(path)
    if present is not None and present not in {revision.revision for revision in script.walk_revisions()}:
        raise DomainError(
            f"{path} was written by a newer Fermata (schema {present}); this one knows up to "
            f"{script.get_current_head()}. Install that version again, or choose another data folder.",
            reason="DATA_TOO_NEW",
            kind=ErrorKind.FAILED_PRECONDITION,
            path=str(path),
        )
    return present


def _version(path: Path) -> str | None:
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except DatabaseError as error:
        raise _damaged(path, error) from error
    finally:
        engine.dispose()


def _damaged(path: Path, error: Exception) -> DomainError:
    return DomainError(
        f"{path} is not a Fermata store: {error}. Restore it from a backup, or choose another data folder.",
        reason="DATA_DAMAGED",
        kind=ErrorKind.FAILED_PRECONDITION,
        path=str(path),
    )


def _require_writable(path: Path) -> None:
    target = path if path.exists() else path.parent
    if not target.exists() or not os.access(target, os.W_OK):
        raise DomainError(
            f"{target} can't be written. Choose another data folder with --data, or mend its rights.",
            reason="DATA_NOT_WRITABLE",
            kind=ErrorKind.FAILED_PRECONDITION,
            path=str(target),
        )
