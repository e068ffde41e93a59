"""The tables. Time is seconds since the epoch; enums are the numbers of ``fermata.v1``; JSON is text; blobs are opaque."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()


def _text(name: str, default: str | None = "") -> Column[str]:
    return Column(name, Text, nullable=False, default=default)


def _number(name: str, default: int = 0) -> Column[int]:
    return Column(name, Integer, nullable=False, default=default)


def _flag(name: str, default: bool = False) -> Column[bool]:
    return Column(name, Boolean, nullable=False, default=default)


def _time(name: str) -> Column[float]:
    return Column(name, Float, nullable=False, default=0.0)


def _blob(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False, default=b"")


def _row_number() -> Column[int]:
    """Order of commit; SQLite never gives a number twice."""
    return Column("n", Integer, primary_key=True, autoincrement=True)


lives = Table(
    "lives",
    metadata,
    _row_number(),
    Column("incarnation", String, nullable=False, unique=True),
    _time("began"),
    _number("event"),
    _time("backed_up"),
    _flag("workers_stopped"),
    _flag("settled"),
    sqlite_autoincrement=True,
)
"""The store's lives: one from its making on, and one more from each restore on; see ``store/lives.py``."""

principals = Table(
    "principals",
    metadata,
    _text("tenant"),
    _text("id"),
    _number("kind"),
    _text("display_name"),
    _text("roles", "[]"),
    _text("token_hash"),
    _flag("disabled"),
    _text("etag"),
    _time("created"),
    PrimaryKeyConstraint("tenant", "id"),
)

agents = Table(
    "agents",
    metadata,
    _text("tenant"),
    _text("id"),
    _text("description"),
    _text("revision"),
    _text("etag"),
    _time("created"),
    _time("updated"),
    PrimaryKeyConstraint("tenant", "id"),
)

revisions = Table(
    "revisions",
    metadata,
    _row_number(),
    _text("tenant"),
    _text("agent"),
    _text("id"),
    _blob("spec"),
    _blob("report"),
    _text("created_by"),
    _time("created"),
    UniqueConstraint("tenant", "agent", "id"),
    sqlite_autoincrement=True,
)

packs = Table("packs", metadata, Column("digest", String, primary_key=True), _blob("data"))

threads = Table(
    "threads",
    metadata,
    _row_number(),
    _text("tenant"),
    _text("id"),
    _text("labels", "{}"),
    _text("active_run"),
    _number("multitask_strategy"),
    _text("created_by"),
    _time("created"),
    UniqueConstraint("tenant", "id"),
    sqlite_autoincrement=True,
)

links = Table(
    "links",
    metadata,
    _text("tenant"),
    _text("id"),
    _text("principal"),
    _text("created_by"),
    _time("created"),
    PrimaryKeyConstraint("tenant", "id"),
)
"""Accounts of chat surfaces; ``principal`` is a principal's id."""

link_codes = Table(
    "link_codes",
    metadata,
    _text("tenant"),
    _text("link"),
    _text("hash"),
    _time("expires"),
    PrimaryKeyConstraint("tenant", "link"),
)

places = Table(
    "places",
    metadata,
    _row_number(),
    _text("tenant"),
    _text("id"),
    _text("surface"),
    _text("team"),
    _text("channel"),
    _text("message"),
    _text("thread"),
    _text("agent"),
    UniqueConstraint("tenant", "id"),
    UniqueConstraint("tenant", "thread"),
    sqlite_autoincrement=True,
)

cards = Table(
    "cards",
    metadata,
    _row_number(),
    _text("tenant"),
    _text("surface"),
    _text("subject"),
    _text("place"),
    _text("message"),
    _text("digest"),
    _text("shown"),
    _flag("final"),
    _text("etag"),
    _time("updated"),
    UniqueConstraint("tenant", "surface", "subject", "place"),
    Index("cards_open", "tenant", "surface", "final"),
    sqlite_autoincrement=True,
)

runs = Table(
    "runs",
    metadata,
    _row_number(),
    _text("tenant"),
    _text("id"),
    _text("agent"),
    _text("revision"),
    _text("thread"),
    _number("state"),
    _number("held_from"),
    _text("input", "{}"),
    _flag("input_committed"),
    _text("output"),
    _text("answer"),
    _text("error"),
    _text("requested_by"),
    _text("on_behalf_of"),
    _number("epoch"),
    _text("worker"),
    _number("told"),
    _number("sequence"),
    _number("version"),
    _number("rank"),
    _time("deadline"),
    _time("due"),
    _flag("expires"),
    _time("created"),
    _time("ended"),
    _flag("in_line"),
    _text("successor"),
    _flag("rolls_back"),
    _number("base", -1),
    _flag("unsure"),
    _text("parent"),
    _text("ancestors"),
    _number("tool_calls"),
    _number("super_steps"),
    _number("tokens"),
    _time("wall_limit"),
    _time("worked"),
    _time("at_work_since"),
    _time("work_due"),
    _text("repeated_call"),
    _number("repeats"),
    _text("granted", "{}"),
    UniqueConstraint("tenant", "id"),
    Index("runs_to_lease", "state", "worker", "in_line", "tenant", "rank", "n"),
    Index("runs_due", "due", sqlite_where=text("due > 0")),
    Index("runs_work_due", "work_due", sqlite_where=text("work_due > 0")),
    Index("runs_by_parent", "tenant", "parent", sqlite_where=text("parent != ''")),
    Index("runs_by_thread", "tenant", "thread", "n"),
    # Every run that ends looks here who is next.
    Index("runs_in_line", "tenant", "thread", "n", sqlite_where=text("in_line = 1")),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    _row_number(),
    _text("tenant"),
    _text("run"),
    _text("thread"),
    _number("sequence"),
    _number("type"),
    _number("state"),
    _text("data", "{}"),
    _time("time"),
    UniqueConstraint("tenant", "run", "sequence"),
    Index("events_by_thread", "tenant", "thread", "n"),
    sqlite_autoincrement=True,
)

steps = Table(
    "steps",
    metadata,
    _row_number(),
    _text("tenant"),
    _text("run"),
    _text("id"),
    _text("key"),
    _text("place"),
    _text("kind"),
    _text("namespace"),
    _text("task"),
    _number("ordinal"),
    _text("tool"),
    _text("args", "{}"),
    _text("digest"),
    _text("call_digest"),
    _text("tool_call"),
    _number("effect"),
    _number("attempt"),
    _number("epoch"),
    _text("worker"),
    _text("nonce"),
    _number("outcome"),
    _text("result_type"),
    _blob("result"),
    _text("text"),
    _text("error"),
    _text("rule"),
    _text("approval"),
    _time("started"),
    _time("ended"),
    UniqueConstraint("tenant", "run", "key"),
    Index("steps_open", "tenant", "outcome", "run"),
    Index("steps_by_place", "tenant", "run", "place"),
    sqlite_autoincrement=True,
)

permits = Table(
    "permits",
    metadata,
    _text("tenant"),
    _text("run"),
    _text("nonce"),
    _text("key"),
    _text("step"),
    _text("tool"),
    _text("worker"),
    _number("epoch"),
    _flag("superseded"),
    PrimaryKeyConstraint("tenant", "run", "nonce"),
    Index("permits_by_worker", "worker", "run"),
)
"""Permits that no row of ``steps`` shows any more; see ``latches/permits.py``."""

gates = Table(
    "gates",
    metadata,
    _text("tenant"),
    _text("run"),
    _text("nonce"),
    _blob("answer"),
    PrimaryKeyConstraint("tenant", "run", "nonce"),
)
"""Answers by nonce, so that a lost one is asked for again and is the same; kept while the run lives."""

approvals = Table(
    "approvals",
    metadata,
    _row_number(),
    _text("tenant"),
    _text("id"),
    _text("run"),
    _text("thread"),
    _text("agent"),
    _number("kind"),
    _number("state"),
    _text("step"),
    _text("tool"),
    _text("tool_description"),
    _text("args", "{}"),
    _text("args_schema"),
    _text("digest"),
    _text("call_digest"),
    _number("effect"),
    _text("risk"),
    _text("rationale"),
    _text("rule"),
    _text("rule_reason"),
    _text("question", "null"),
    _text("roles", "[]"),
    _number("required_count", 1),
    _text("votes", "[]"),
    _flag("not_requester"),
    _text("on_timeout"),
    _time("expires"),
    _time("created"),
    _number("decision"),
    _text("decided_by"),
    _text("on_behalf_of"),
    _time("decided"),
    _text("comment"),
    _text("edited_args"),
    _text("value", "null"),
    _text("interrupt"),
    _number("position"),
    _number("delivered"),
    _text("used_by"),
    _text("allowed", "[]"),
    UniqueConstraint("tenant", "id"),
    Index("approvals_by_run", "tenant", "run", "state"),
    Index("approvals_by_state", "state", "expires"),
    sqlite_autoincrement=True,
)

latches = Table(
    "latches",
    metadata,
    _row_number(),
    _text("tenant"),
    _text("id"),
    _number("kind"),
    _text("scope"),
    _text("target"),
    _text("reason"),
    _number("state"),
    _text("created_by"),
    _text("on_behalf_of"),
    _text("released_by"),
    _time("created"),
    _time("settled"),
    _time("released"),
    _time("expires"),
    _number("on_expiry"),
    _time("reminded"),
    UniqueConstraint("tenant", "id"),
    Index("latches_by_state", "tenant", "state"),
    # Every gate looks here: those in force, by what they cover.
    Index("latches_in_force", "target", "tenant", sqlite_where=text("released = 0")),
    Index("latches_due", "expires", sqlite_where=text("expires > 0 AND released = 0")),
    sqlite_autoincrement=True,
)

latch_runs = Table(
    "latch_runs",
    metadata,
    _text("tenant"),
    _text("latch"),
    _text("run"),
    _flag("stopped"),
    _flag("told", True),
    PrimaryKeyConstraint("tenant", "latch", "run"),
    Index("latch_runs_by_run", "tenant", "run"),
    # A latch on everything covers runs of other tenants than its own.
    Index("latch_runs_by_latch", "latch", "stopped"),
    Index("latch_runs_to_tell", "latch", sqlite_where=text("told = 0")),
)

latch_steps = Table(
    "latch_steps",
    metadata,
    _text("tenant"),
    _text("latch"),
    _text("run"),
    _text("key"),
    _text("step"),
    _text("tool"),
    _number("status"),
    Column("milliseconds", Float, nullable=False, default=0.0),
    PrimaryKeyConstraint("tenant", "latch", "run", "key"),
    Index("latch_steps_by_run", "tenant", "run", "key"),
    Index("latch_steps_by_latch", "latch", "status"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _row_number(),
    _text("tenant"),
    _text("thread"),
    _text("namespace"),
    _text("id"),
    _text("parent"),
    _text("type"),
    _blob("data"),
    _text("metadata_type"),
    _blob("metadata"),
    _text("versions", "{}"),
    _text("run_id"),
    UniqueConstraint("tenant", "thread", "namespace", "id"),
    sqlite_autoincrement=True,
)

channel_blobs = Table(
    "channel_blobs",
    metadata,
    _text("tenant"),
    _text("thread"),
    _text("namespace"),
    _text("channel"),
    _text("version"),
    _text("type"),
    _blob("data"),
    _blob("chunks"),
    PrimaryKeyConstraint("tenant", "thread", "namespace", "channel", "version"),
)

chunks = Table(
    "chunks",
    metadata,
    _text("tenant"),
    _text("thread"),
    _blob("digest"),
    _text("type"),
    _blob("data"),
    _blob("parts"),
    PrimaryKeyConstraint("tenant", "thread", "digest"),
)
"""Parts of long lists, each once for a thread; ``parts`` and a channel's ``chunks`` are digests of 32 bytes, one after the other."""

checkpoint_writes = Table(
    "checkpoint_writes",
    metadata,
    _text("tenant"),
    _text("thread"),
    _text("namespace"),
    _text("checkpoint"),
    _text("task"),
    _number("position"),
    _text("task_path"),
    _text("channel"),
    _text("type"),
    _blob("data"),
    _text("run"),
    PrimaryKeyConstraint("tenant", "thread", "namespace", "checkpoint", "task", "position"),
)

model_records = Table(
    "model_records",
    metadata,
    _text("tenant"),
    _text("run"),
    _text("key"),
    _text("digest"),
    _text("model"),
    _text("type"),
    _blob("data"),
    PrimaryKeyConstraint("tenant", "run", "key", "digest"),
)

policies = Table(
    "policies",
    metadata,
    Column("tenant", String, primary_key=True),
    _text("text"),
    _text("etag"),
    _text("updated_by"),
    _time("updated"),
)

requests = Table(
    "requests",
    metadata,
    _text("principal"),
    _text("request"),
    _text("method"),
    _text("digest"),
    _blob("response"),
    _time("created"),
    PrimaryKeyConstraint("principal", "request"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String, primary_key=True),
    _text("node"),
    _number("pid"),
    _number("state"),
    _number("capacity"),
    _time("heard"),
)
