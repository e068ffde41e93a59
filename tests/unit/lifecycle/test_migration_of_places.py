"""A store of before steps had places: they are kept as they are, in no place."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from fermata.server.store import migrate as migrate_module
from fermata.server.store.migrate import migrate


def test_steps_of_before_are_kept_and_have_no_place(tmp_path: Path) -> None:
    path = tmp_path / "fermata.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrate_module.__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    before = ScriptDirectory.from_config(config).get_revision("0005").down_revision
    assert isinstance(before, str)
    command.upgrade(config, before)
    with closing(sqlite3.connect(path)) as store, store:
        columns = [(name, kind) for _, name, kind, *_ in store.execute("PRAGMA table_info(steps)")]
        assert "place" not in dict(columns)
        values = {name: "kept" if kind == "TEXT" else b"" if kind == "BLOB" else 7 for name, kind in columns}
        store.execute(
            f"INSERT INTO steps ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            list(values.values()),
        )
    migrate(path)
    with closing(sqlite3.connect(path)) as store:
        assert store.execute("SELECT n, run, key, outcome, place FROM steps").fetchall() == [
            (7, "kept", "kept", 7, "")
        ]
