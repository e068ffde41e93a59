"""A store of before long lists were in chunks: what is in it is read as before."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from fermata.server.store import migrate as migrate_module
from fermata.server.store.migrate import migrate
from fermata.server.threads import checkpoints
from fermata.v1 import worker_pb2


def test_a_checkpoint_of_before_is_read_with_its_values(tmp_path: Path) -> None:
    path = tmp_path / "fermata.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrate_module.__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    before = ScriptDirectory.from_config(config).get_revision("0006").down_revision
    assert isinstance(before, str)
    command.upgrade(config, before)
    here = {"tenant": "t", "thread": "th", "namespace": ""}
    with closing(sqlite3.connect(path)) as store, store:
        _insert(store, "checkpoints", **here, id="c1", data=b"head", versions=json.dumps({"value": "1"}))
        _insert(store, "channel_blobs", **here, channel="value", version="1", type="msgpack", data=b"old")
    migrate(path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        (found,) = checkpoints.query(connection, "t", "th", worker_pb2.CheckpointQuery()).checkpoints
    engine.dispose()
    (channel,) = found.put.channels
    assert (channel.value.type, channel.value.data, list(channel.chunks)) == ("msgpack", b"old", [])


def _insert(store: sqlite3.Connection, table: str, **values: Any) -> None:
    for _, column, kind, *_, is_key in store.execute(f"PRAGMA table_info({table})").fetchall():
        if not (is_key and column == "n"):
            values.setdefault(column, "" if kind == "TEXT" else b"" if kind == "BLOB" else 0)
    names = ", ".join(f'"{column}"' for column in values)
    store.execute(
        f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", [*values.values()]
    )
