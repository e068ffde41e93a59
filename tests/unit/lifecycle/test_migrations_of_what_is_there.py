"""A store of each earlier version, with something in every table, becomes one of this version, and all of it is still there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from fermata.server.approvals import records as approvals
from fermata.server.clock import SystemClock
from fermata.server.ledger import steps
from fermata.server.plane import ControlPlane
from fermata.server.runs import queries
from fermata.server.store import migrate as migrate_module
from fermata.server.store import schema
from fermata.server.store.database import Database
from fermata.server.store.migrate import migrate
from fermata.v1 import agent_pb2, approval_pb2, run_pb2

TENANT = "default"
ROWS = 3

KNOWN: dict[str, Any] = {
    # What has a meaning to those who read it back; all else is made up by its type.
    "tenant": TENANT,
    "agent": "operator",
    "revision": "r0",
    "thread": "t0",
    "spec": agent_pb2.AgentSpec(graph="graphs:operator").SerializeToString(),
    "report": agent_pb2.GraphReport(
        tools=[agent_pb2.ToolInfo(name="turn", effect=run_pb2.EFFECT_CLASS_UNSAFE)]
    ).SerializeToString(),
    "input": '{"text": "go"}',
    "output": "",
    "error": "",
    "data": '{"fact": 1}',
    "args": '{"valve": 7}',
    "args_schema": "",
    "question": "null",
    "value": "null",
    "edited_args": "",
    "roles": '["approver"]',
    "votes": "[]",
    "allowed": "[1]",
    "labels": "{}",
    "versions": "{}",
    "effect": run_pb2.EFFECT_CLASS_UNSAFE,
    "interrupt": "",
    "worker": "",
}
OF_TABLE: dict[tuple[str, str], Any] = {
    ("runs", "state"): run_pb2.RUN_STATE_AWAITING,
    ("runs", "in_line"): 0,
    ("runs", "due"): 0.0,
    ("runs", "successor"): "",
    ("approvals", "state"): approval_pb2.APPROVAL_STATE_PENDING,
    ("approvals", "kind"): approval_pb2.APPROVAL_KIND_ACTION,
    ("approvals", "expires"): 4e9,
    ("approvals", "decision"): 0,
    ("agents", "revision"): "r0",
    ("steps", "outcome"): run_pb2.STEP_OUTCOME_FINISHED,
    ("latches", "state"): 3,
    ("latches", "released"): 1.0,
}
BLOBS = {"data": {"packs", "checkpoints", "channel_blobs", "checkpoint_writes", "model_records"}}


def script(path: Path) -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate_module.__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    return config, ScriptDirectory.from_config(config)


EARLIER = [revision.revision for revision in script(Path("unused"))[1].walk_revisions()][1:]


def populate(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows in every table that the store has, which they are, by table."""
    written: dict[str, list[dict[str, Any]]] = {}
    with closing(sqlite3.connect(path)) as store, store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in sorted(set(tables) - {"alembic_version", "sqlite_sequence", "lives"}):
            columns = [
                (name, kind.upper()) for _, name, kind, *_ in store.execute(f"PRAGMA table_info({table})")
            ]
            written[table] = []
            for number in range(ROWS):
                row = {name: _value(table, name, kind, number) for name, kind in columns}
                names, marks = ", ".join(row), ", ".join("?" * len(row))
                store.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
                written[table].append(row)
    return written


def _value(table: str, name: str, kind: str, number: int) -> Any:
    if name == "n":
        return number + 1
    if name == "id":
        return f"{table[0]}{number}"
    if name == "run":
        # Rows of one run differ by what else is in their keys.
        return "r0"
    if name == "sequence":
        return number + 1
    if table == "policies":
        # One each.
        return f"{name}{number}" if kind not in ("FLOAT", "REAL") else 0.0
    if (table, name) in OF_TABLE:
        return OF_TABLE[table, name]
    if table in BLOBS.get(name, ()) or (kind == "BLOB" and name not in KNOWN):
        return b"blob %d" % number
    if name in KNOWN:
        return KNOWN[name]
    if kind in ("INTEGER", "BOOLEAN"):
        return number if kind == "INTEGER" else 0
    return float(number) if kind in ("FLOAT", "REAL") else f"{name} {number}"


@pytest.mark.parametrize("revision", EARLIER)
async def test_everything_of_an_earlier_version_is_there_after_it_is_brought_up_to_date(
    tmp_path: Path, revision: str
) -> None:
    path = tmp_path / "fermata.db"
    config, _ = script(path)
    command.upgrade(config, revision)
    written = populate(path)
    assert {"runs", "approvals", "steps", "events", "latches", "checkpoints"} <= set(written)
    migrate(path)
    with closing(sqlite3.connect(path)) as store:
        store.row_factory = sqlite3.Row
        assert store.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        for table, rows in written.items():
            kept = [dict(row) for row in store.execute(f"SELECT * FROM {table} ORDER BY rowid")]
            assert [
                {name: row[name] for name in before} for row, before in zip(kept, rows, strict=True)
            ] == rows
    plane = await ControlPlane.over(path, SystemClock(), Database)
    try:
        run = await plane.read(lambda connection: queries.get(connection, TENANT, "r0"))
        assert (run.state, run.input["text"]) == (run_pb2.RUN_STATE_AWAITING, "go")
        asked = await plane.read(
            lambda connection: approvals.of_run(connection, TENANT, "r0", approvals.PENDING)
        )
        assert [approvals.to_message(row).args["valve"] for row in asked] == [7] * ROWS
        done = await plane.read(lambda connection: steps.of_run(connection, TENANT, "r0"))
        assert [steps.to_message(row).outcome for row in done] == [run_pb2.STEP_OUTCOME_FINISHED] * ROWS
        # It writes as well, with every column that this version has.
        await plane.write(lambda tx: tx.execute(schema.steps.insert(), _another(done[-1])))
        assert plane.lives.present.settled is True
    finally:
        await plane.close()


def _another(row: Any) -> dict[str, Any]:
    values = dict(row._mapping)
    del values["n"]
    return {**values, "id": "another", "key": "another"}


@pytest.mark.parametrize("revision", EARLIER)
def test_a_migrated_store_has_the_columns_and_keys_of_a_new_one(tmp_path: Path, revision: str) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    command.upgrade(script(old)[0], revision)
    populate(old)
    migrate(old)
    migrate(new)
    assert _shape(old) == _shape(new)


def _shape(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: (
                sorted(
                    (name, kind, bool(key))
                    for _, name, kind, _, _, key in store.execute(f"PRAGMA table_info({table})")
                ),
                sorted(
                    (bool(unique), partial)
                    for _, _, unique, _, partial in store.execute(f"PRAGMA index_list({table})")
                ),
            )
            for table in tables
        }
