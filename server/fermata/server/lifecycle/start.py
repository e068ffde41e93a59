"""CreateRun: one transaction that commits the run, its thread, and, where a worker has room, its first lease."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, select, update

from fermata.server.errors import invalid, not_found, precondition
from fermata.server.latches import records as latch_records
from fermata.server.latches.coverage import Subject
from fermata.server.lifecycle.doubletext import INTERRUPT, ROLLBACK, Strategy, admit, take_place
from fermata.server.lifecycle.leases import Leases
from fermata.server.names import Name, new_id
from fermata.server.runs.record import open_run
from fermata.server.runs.transitions import ENDED, HALTING, QUEUED
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import run_pb2, thread_pb2

MAX_INPUT_BYTES = 4 * 1024 * 1024
"""Largest input of a run, as JSON."""

MAX_PRIORITY = 100

MAX_ANCESTORS = 32
"""Of a run: runs that make runs that make runs come to an end."""

_REVISION = select(schema.agents.c.revision).where(
    and_(schema.agents.c.tenant == bindparam("of_tenant"), schema.agents.c.id == bindparam("of_agent"))
)
_INSERT_RUN = schema.runs.insert()
_INSERT_THREAD = schema.threads.insert()


@dataclass(frozen=True, slots=True)
class NewRun:
    """What is asked for. ``thread`` is an id, empty for a new thread; ``input`` is JSON text."""

    tenant: str
    agent: str
    thread: str
    input: str
    requested_by: str
    on_behalf_of: str
    strategy: Strategy.ValueType = thread_pb2.MULTITASK_STRATEGY_UNSPECIFIED
    """What shall happen where another run of the thread is going on; what the thread says where unspecified."""
    priority: int = 0
    """From -100 to 100; of a tenant's waiting runs those with a greater number are leased first."""
    deadline: float = 0.0
    """Seconds since the epoch; 0 for none."""
    parent: str = ""
    """Id of the run that this one is made for; empty for none."""


def create_run(transaction: Transaction, leases: Leases, wanted: NewRun) -> str:
    """Commit a run and return its id.

    :raises DomainError: AGENT_NOT_FOUND, THREAD_NOT_FOUND, THREAD_BUSY, THREAD_QUEUE_FULL, ROLLBACK_UNKNOWN, QUEUE_FULL, HALTED,
        INPUT_TOO_LARGE, PRIORITY_OUT_OF_RANGE, DEADLINE_PASSED, RUN_NOT_FOUND, PARENT_RUN_ENDED, RUN_TREE_TOO_DEEP.
    """
    _require_sound(wanted, transaction.now)
    revision = transaction.execute(_REVISION, {"of_tenant": wanted.tenant, "of_agent": wanted.agent}).scalar()
    if revision is None:
        raise not_found(
            "agent", str(Name(wanted.tenant, "agents", wanted.agent)), "List them with `fermata agents`."
        )
    run = new_id()
    thread, busy, strategy = _take_thread(transaction, wanted, run)
    ancestors = _ancestors(transaction, wanted)
    latch = latch_records.on(
        transaction, Subject(wanted.tenant, run, thread, wanted.agent, revision, ancestors)
    )
    if latch is not None and latch.kind == latch_records.HALT:
        name = str(Name(latch.tenant, "latches", latch.id))
        raise precondition(
            f"{latch.created_by} has halted this{f': {latch.reason}' if latch.reason else ''}. "
            f"Lift it with `fermata release {latch.id}`.",
            reason="HALTED",
            latch=name,
        )
    transaction.execute(
        _INSERT_RUN,
        {
            "tenant": wanted.tenant,
            "id": run,
            "agent": wanted.agent,
            "revision": revision,
            "thread": thread,
            "parent": wanted.parent,
            "ancestors": "/".join(ancestors),
            "state": QUEUED,
            "input": wanted.input,
            "requested_by": wanted.requested_by,
            "on_behalf_of": wanted.on_behalf_of,
            "created": transaction.now,
            "in_line": busy is not None,
            # Counted the other way round, as the index does.
            "rank": -wanted.priority,
            "deadline": wanted.deadline,
            "due": wanted.deadline,
        },
    )
    if busy is not None and strategy in (INTERRUPT, ROLLBACK):
        # What is active may end here and now; the run is then the active one, and not in line any more.
        by = wanted.on_behalf_of or wanted.requested_by
        take_place(transaction, wanted.tenant, busy, run, strategy, by)
    with open_run(transaction, wanted.tenant, run) as record:
        behind = (
            {"behind": str(Name(wanted.tenant, "runs", busy.active_run))} if busy and record.in_line else {}
        )
        record.emit(
            run_pb2.EVENT_TYPE_CREATED,
            agent=wanted.agent,
            revision=revision,
            input=_shown(json.loads(wanted.input)),
            **behind,
        )
        granted = latch is None and not record.in_line and leases.grant_at_once(transaction, record)
    if not granted:
        leases.admit(transaction, wanted.tenant)
    transaction.publication.deadline_set |= bool(wanted.deadline)
    return run


def _ancestors(transaction: Transaction, wanted: NewRun) -> tuple[str, ...]:
    """The run that the new one is made for, and those before it, the eldest first.

    :raises DomainError: RUN_NOT_FOUND, PARENT_RUN_ENDED, RUN_TREE_TOO_DEEP.
    """
    if not wanted.parent:
        return ()
    runs = schema.runs.c
    row = transaction.execute(
        select(runs.ancestors, runs.state).where(and_(runs.tenant == wanted.tenant, runs.id == wanted.parent))
    ).first()
    name = str(Name(wanted.tenant, "runs", wanted.parent))
    if row is None:
        raise not_found("run", name, "List them with ListRuns.")
    if row.state == HALTING or row.state in ENDED:
        raise precondition(
            f"{name} has ended or is being stopped, and nothing more is made for it.",
            reason="PARENT_RUN_ENDED",
            run=name,
        )
    ancestors = (*(row.ancestors.split("/") if row.ancestors else ()), wanted.parent)
    if len(ancestors) > MAX_ANCESTORS:
        raise precondition(
            f"{name} stands {MAX_ANCESTORS} runs below the first already. Start a run of its own.",
            reason="RUN_TREE_TOO_DEEP",
            run=name,
        )
    return ancestors


def _take_thread(
    transaction: Transaction, wanted: NewRun, run: str
) -> tuple[str, Any | None, Strategy.ValueType]:
    """The thread's id; its row where another run is active on it, with the strategy that applies. A free thread is the run's now."""
    threads = schema.threads.c
    if not wanted.thread:
        thread = new_id()
        transaction.execute(
            _INSERT_THREAD,
            {
                "tenant": wanted.tenant,
                "id": thread,
                "active_run": run,
                "created_by": wanted.on_behalf_of or wanted.requested_by,
                "created": transaction.now,
            },
        )
        return thread, None, wanted.strategy
    mine = and_(threads.tenant == wanted.tenant, threads.id == wanted.thread)
    row = transaction.execute(select(schema.threads).where(mine)).first()
    if row is None:
        raise not_found("thread", str(Name(wanted.tenant, "threads", wanted.thread)))
    if row.active_run:
        return wanted.thread, row, admit(transaction, wanted.tenant, row, wanted.strategy)
    transaction.execute(update(schema.threads).where(mine).values(active_run=run))
    return wanted.thread, None, wanted.strategy


def _require_sound(wanted: NewRun, now: float) -> None:
    if len(wanted.input) > MAX_INPUT_BYTES:
        raise invalid(
            f"The input has {len(wanted.input)} bytes; {MAX_INPUT_BYTES} are the most.",
            reason="INPUT_TOO_LARGE",
        )
    if abs(wanted.priority) > MAX_PRIORITY:
        raise invalid(
            f"The priority {wanted.priority} is not between -{MAX_PRIORITY} and {MAX_PRIORITY}.",
            reason="PRIORITY_OUT_OF_RANGE",
            field="priority",
        )
    if wanted.deadline and wanted.deadline <= now:
        raise invalid(
            "The deadline has passed already; give one that lies ahead.",
            reason="DEADLINE_PASSED",
            field="deadline",
        )


def _shown(value: Any) -> Any:
    """The input as its event shows it: cut where it is long, whole on the run itself."""
    text = json.dumps(value, ensure_ascii=False)
    return value if len(text) <= SHOWN_INPUT else {"cut": text[:SHOWN_INPUT]}


SHOWN_INPUT = 16_384
"""Characters of an input that its event shows."""
