"""One run inside a transaction: its row, its transitions and its history are written together or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf import json_format, struct_pb2
from sqlalchemy import and_, bindparam, select, text, update

from fermata.server.errors import DomainError, ErrorKind, not_found
from fermata.server.latches.coverage import Subject
from fermata.server.names import Name
from fermata.server.runs.transitions import ENDED, HELD, RUNNING, Move, State, after
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.store.publication import PublishedEvent
from fermata.v1 import run_pb2

_UPDATED = (
    "state",
    "held_from",
    "input_committed",
    "output",
    "answer",
    "error",
    "epoch",
    "worker",
    "told",
    "sequence",
    "version",
    "ended",
    "in_line",
    "successor",
    "rolls_back",
    "due",
    "expires",
    "base",
    "unsure",
    "tool_calls",
    "super_steps",
    "tokens",
    "wall_limit",
    "worked",
    "at_work_since",
    "work_due",
    "repeated_call",
    "repeats",
    "granted",
)

# Statements are built once: to build one again costs several times what running it does.
_ONE = select(schema.runs).where(
    and_(schema.runs.c.tenant == bindparam("of_tenant"), schema.runs.c.id == bindparam("of_run"))
)
_UPDATE = update(schema.runs).where(
    and_(schema.runs.c.tenant == bindparam("of_tenant"), schema.runs.c.id == bindparam("of_run"))
)
_INSERT_EVENTS = schema.events.insert()
_LAST_NUMBER = text("SELECT last_insert_rowid()")


MAX_EVENT_CHARACTERS = 256 * 1024
"""Of an event's facts as JSON: recent events are kept in memory, and every watcher gets them."""

CUT_CHARACTERS = 16 * 1024
"""What is left of a fact where an event's facts are more than that."""


class RunRecord:
    """A run's row as it will be written, and the events that go with it.

    Attributes are those of the table ``runs``. Change state through :meth:`move` and history through :meth:`emit` only.
    """

    def __init__(self, transaction: Transaction, row: Any) -> None:
        self._transaction = transaction
        self._events: list[dict[str, Any]] = []
        self.tenant: str = row.tenant
        self.id: str = row.id
        self.agent: str = row.agent
        self.revision: str = row.revision
        self.thread: str = row.thread
        self.state: State.ValueType = row.state
        self.held_from: State.ValueType = row.held_from
        self.input: str = row.input
        self.input_committed: bool = row.input_committed
        self.output: str = row.output
        self.answer: str = row.answer
        self.error: str = row.error
        self.requested_by: str = row.requested_by
        self.on_behalf_of: str = row.on_behalf_of
        self.epoch: int = row.epoch
        self.worker: str = row.worker
        self.told: int = row.told
        """Id of the last message of the lease's host whose events are in the history: a repeat tells nothing new."""
        self.sequence: int = row.sequence
        self.version: int = row.version
        self.created: float = row.created
        self.ended: float = row.ended
        self.in_line: bool = row.in_line
        """True while it waits for the runs before it on its thread: it is not to be leased."""
        self.successor: str = row.successor
        """Id of the run that takes its place once nothing of it can start any more; empty where none does."""
        self.due: float = row.due
        """When its deadline ends it; 0 where none does."""
        self.expires: bool = row.expires
        """True where it is being stopped by its deadline."""
        self.rolls_back: bool = row.rolls_back
        """True where its thread's state goes back to what it was before it, when it has ended."""
        self.base: int = row.base
        """How far the store of checkpoints had come when it began; below 0 where it has not begun, or nobody knows."""
        self.unsure: bool = row.unsure
        """True where the store was restored from a backup, and a person must say what it did after that before it goes on."""
        self.parent: str = row.parent
        """Id of the run that it was made for; empty for most."""
        self.ancestors: str = row.ancestors
        """Ids of that run and of those before it, the eldest first, with slashes between."""
        self.tool_calls: int = row.tool_calls
        self.super_steps: int = row.super_steps
        self.tokens: int = row.tokens
        """What its models have read and written, as far as they say."""
        self.wall_limit: float = row.wall_limit
        """Seconds that it may be at work; 0 for as long as it likes."""
        self.worked: float = row.worked
        """Seconds that it had been at work when it last stopped to be."""
        self.at_work_since: float = row.at_work_since
        self.work_due: float = row.work_due
        """When it will have been at work for as long as it may; 0 while nobody has to look."""
        self.repeated_call: str = row.repeated_call
        """Digest of the call that it made last, and ``repeats`` how often in a row."""
        self.repeats: int = row.repeats
        self.granted: str = row.granted
        """What people have granted on top of its limits, by limit, as JSON."""
        self._before = {name: getattr(self, name) for name in _UPDATED}

    @property
    def name(self) -> str:
        """The resource name."""
        return str(Name(self.tenant, "runs", self.id))

    def subject(self, tool: str = "") -> Subject:
        """What a latch may cover: the run, or a call of ``tool`` in it."""
        return subject_of(self, tool)

    @property
    def has_ended(self) -> bool:
        """True where nothing can happen to it any more."""
        return self.state in ENDED

    def is_leased_to(self, worker: str, epoch: int) -> bool:
        """True where ``worker`` may write for the run at ``epoch``."""
        return self.worker == worker and self.epoch == epoch and not self.has_ended

    def require_lease(self, worker: str, epoch: int) -> None:
        """Refuse a writer who does not hold the lease of the current epoch.

        :raises DomainError: STALE_EPOCH; whoever gets it drops the run.
        """
        if not self.is_leased_to(worker, epoch):
            raise DomainError(
                f"Worker {worker!r} does not hold {self.name} at epoch {epoch}.",
                reason="STALE_EPOCH",
                kind=ErrorKind.FAILED_PRECONDITION,
                run=self.name,
                epoch=str(epoch),
                current_epoch=str(self.epoch),
            )

    def move(self, move: Move) -> None:
        """Make a transition.

        :raises DomainError: RUN_STATE, where the table has none.
        """
        before = self.state
        self.state = after(before, self.held_from, move)
        self.held_from = before if self.state == HELD else run_pb2.RUN_STATE_UNSPECIFIED
        self._count_time()
        if self.has_ended:
            self.ended = self._transaction.now
            self.worker = ""
            self.in_line = False
            self.due = 0.0

    def worked_by(self, now: float) -> float:
        """Seconds that it has been at work by ``now``."""
        return self.worked + (max(0.0, now - self.at_work_since) if self.at_work_since else 0.0)

    def _count_time(self) -> None:
        now = self._transaction.now
        if self.state == RUNNING and not self.at_work_since:
            self.at_work_since = now
            if self.wall_limit:
                self.work_due = now + max(0.0, self.wall_limit - self.worked)
                self._transaction.publication.deadline_set = True
        elif self.state != RUNNING and self.at_work_since:
            self.worked, self.at_work_since, self.work_due = self.worked_by(now), 0.0, 0.0

    def emit(self, event: run_pb2.EventType.ValueType, /, **data: Any) -> None:
        """Append to the history. Where the facts are more than an event holds, the long ones among them are cut."""
        self.sequence += 1
        self._events.append(
            {
                "tenant": self.tenant,
                "run": self.id,
                "thread": self.thread,
                "sequence": self.sequence,
                "type": event,
                "state": self.state,
                "data": _data(data),
                "time": self._transaction.now,
            }
        )

    def save(self) -> None:
        """Write what has changed; the end of the block in which the run is open does so by itself. For what has to read it before."""
        changed = {
            name: getattr(self, name) for name in _UPDATED if getattr(self, name) != self._before[name]
        }
        if changed:
            self.version += 1
            changed["version"] = self.version
            self._transaction.execute(_UPDATE, {"of_tenant": self.tenant, "of_run": self.id, **changed})
            self._before.update(changed)
        if not self._events:
            return
        self._transaction.execute(_INSERT_EVENTS, self._events)
        # There is one writer, so the rows of one statement are numbered without a gap.
        last = self._transaction.execute(_LAST_NUMBER).scalar_one()
        for number, values in enumerate(self._events, last - len(self._events) + 1):
            self._transaction.publication.events.append(
                PublishedEvent(number, self.tenant, self.id, self.thread, to_event(values))
            )
        self._events = []


def subject_of(row: Any, tool: str = "") -> Subject:
    """What a latch may cover of a run, from its row."""
    ancestors = tuple(row.ancestors.split("/")) if row.ancestors else ()
    return Subject(row.tenant, row.id, row.thread, row.agent, row.revision, ancestors, tool)


def _data(facts: dict[str, Any]) -> str:
    text = _json(facts)
    if len(text) <= MAX_EVENT_CHARACTERS:
        return text
    return _json({key: _cut(value) for key, value in facts.items()})


def _cut(value: Any) -> Any:
    text = value if isinstance(value, str) else _json(value)
    if len(text) <= CUT_CHARACTERS:
        return value
    return f"{text[:CUT_CHARACTERS]}…" if isinstance(value, str) else {"cut": text[:CUT_CHARACTERS]}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@contextmanager
def open_run(transaction: Transaction, tenant: str, run: str) -> Iterator[RunRecord]:
    """Load a run, let the caller change it, and write row and events at the end of the block.

    :raises DomainError: RUN_NOT_FOUND.
    """
    row = transaction.execute(_ONE, {"of_tenant": tenant, "of_run": run}).first()
    if row is None:
        raise not_found("run", str(Name(tenant, "runs", run)), "List them with ListRuns.")
    record = RunRecord(transaction, row)
    yield record
    record.save()


def last_event(connection: Any, run: RunRecord, *kinds: run_pb2.EventType.ValueType) -> dict[str, Any]:
    """The facts of the newest event in the store that is of one of these kinds, with its ``type`` and ``sequence``; empty where
    there is none.
    """
    table = schema.events.c
    row = connection.execute(
        select(table.type, table.sequence, table.data)
        .where(and_(table.tenant == run.tenant, table.run == run.id, table.type.in_(kinds)))
        .order_by(table.sequence.desc())
        .limit(1)
    ).first()
    return {} if row is None else {**json.loads(row.data), "type": row.type, "sequence": row.sequence}


def to_event(values: Any) -> run_pb2.Event:
    """An event of the API from a mapping with the columns of ``events``."""
    data = struct_pb2.Struct()
    json_format.Parse(values["data"], data)
    event = run_pb2.Event(
        run=str(Name(values["tenant"], "runs", values["run"])),
        sequence=values["sequence"],
        type=values["type"],
        state=values["state"],
        data=data,
    )
    event.time.FromNanoseconds(int(values["time"] * 1e9))
    return event
