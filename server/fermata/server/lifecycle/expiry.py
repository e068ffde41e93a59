"""Holds whose time is over. By default they stay, and say so: that nobody came is no reason to go on. Only a hold that was set with
RELEASE is lifted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, select, text, update

from fermata.server.lifecycle.releasing import release
from fermata.server.names import Name
from fermata.server.runs.record import open_run
from fermata.server.runs.transitions import HELD
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import latch_pb2, run_pb2

EXPIRED_AT_ONCE = 50
"""Holds that one transaction looks at the most."""

_DUE = and_(
    # Written out, as the partial index has it.
    text("expires > 0 AND released = 0"),
    schema.latches.c.reminded == 0.0,
)


def expire_due(transaction: Transaction) -> int:
    """Lift the holds that end now, and remind of the others once; return how many there were."""
    table = schema.latches.c
    due = transaction.execute(
        select(schema.latches)
        .where(_DUE, table.expires <= transaction.now)
        .order_by(table.expires)
        .limit(EXPIRED_AT_ONCE)
    ).fetchall()
    for row in due:
        name = str(Name(row.tenant, "latches", row.id))
        if row.on_expiry == latch_pb2.ON_EXPIRY_RELEASE:
            release(transaction, row.tenant, row.id, f"{name}/expiry")
        else:
            _remind(transaction, row, name)
    return len(due)


def next_due(connection: Any) -> float | None:
    """When the next hold's time is over, in seconds since the epoch; None where none has one."""
    table = schema.latches.c
    value: float | None = connection.execute(
        select(table.expires).where(_DUE).order_by(table.expires).limit(1)
    ).scalar()
    return value


def _remind(transaction: Transaction, row: Any, name: str) -> None:
    """Say in the history of each run that the hold keeps that its time is over."""
    table, kept, runs = schema.latches.c, schema.latch_runs.c, schema.runs.c
    transaction.execute(
        update(schema.latches)
        .where(and_(table.tenant == row.tenant, table.id == row.id))
        .values(reminded=transaction.now)
    )
    transaction.publication.latches.append(row.id)
    held = transaction.execute(
        select(runs.tenant, runs.id)
        .join(schema.latch_runs, and_(kept.tenant == runs.tenant, kept.run == runs.id))
        .where(and_(kept.latch == row.id, runs.state == HELD))
    ).fetchall()
    for run in held:
        with open_run(transaction, run.tenant, run.id) as record:
            record.emit(run_pb2.EVENT_TYPE_HOLD_EXPIRED, latch=name, reason=row.reason)
