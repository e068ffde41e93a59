"""Deadlines: a run that has not ended by then is stopped, and ends EXPIRED."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, select

from fermata.server.lifecycle.stopping import expire
from fermata.server.runs.record import open_run
from fermata.server.store import schema
from fermata.server.store.database import Transaction

EXPIRED_AT_ONCE = 100
"""Runs that one transaction ends at the most."""

_DUE = schema.runs.c.due > 0


def expire_due(transaction: Transaction) -> int:
    """Stop runs whose deadline has passed, or begin to; return how many."""
    runs = schema.runs.c
    due = transaction.execute(
        select(runs.tenant, runs.id)
        .where(and_(_DUE, runs.due <= transaction.now))
        .order_by(runs.due)
        .limit(EXPIRED_AT_ONCE)
    ).fetchall()
    for row in due:
        with open_run(transaction, row.tenant, row.id) as run:
            # It has had its effect: a run that is being stopped is not due a second time.
            run.due = 0.0
            expire(transaction, run)
    return len(due)


def next_due(connection: Any) -> float | None:
    """When the next deadline passes, in seconds since the epoch; None where no run has one."""
    value: float | None = connection.execute(
        select(schema.runs.c.due).where(_DUE).order_by(schema.runs.c.due).limit(1)
    ).scalar()
    return value
