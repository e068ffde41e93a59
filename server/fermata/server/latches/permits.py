"""Permits that are out and that no step shows: their host may still let the effect happen, and a halt has to wait for that.

A step's row is that of its latest start. Where a call that may be repeated is started again, while the host of the earlier start is
out of reach, that one's permit is out all the same; so is that of a call of which a person has said what became of it. Each is kept
here until its host has told how it ended, or is confirmed dead. In the report of a latch such a permit stands under the nonce of its
gate.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, delete, select

from fermata.server.latches import records
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import run_pb2

KILLED = run_pb2.STEP_OUTCOME_KILLED


def keep(transaction: Transaction, row: Any, *, superseded: bool) -> None:
    """Keep the permit of a step that is open, whose row is about to show something else.

    :param row: of the step, as it is.
    :param superseded: it is started again; else a person has said what became of it.
    """
    transaction.execute(
        schema.permits.insert(),
        {
            "tenant": row.tenant,
            "run": row.run,
            "nonce": row.nonce,
            "key": row.key,
            "step": row.id,
            "tool": row.tool,
            "worker": row.worker,
            "epoch": row.epoch,
            "superseded": superseded,
        },
    )


def reported(
    transaction: Transaction, tenant: str, run: str, nonce: str, outcome: run_pb2.StepOutcome.ValueType
) -> None:
    """The host that had a permit has told how its call ended; of one that is not kept here this changes nothing."""
    table = schema.permits.c
    _end(transaction, and_(table.tenant == tenant, table.run == run, table.nonce == nonce), outcome)


def host_is_dead(transaction: Transaction, worker: str, run: str = "", epoch: int = 0) -> None:
    """A worker is confirmed dead, or the host that had ``run`` under ``epoch``: nobody uses its permits any more."""
    table = schema.permits.c
    mine = table.worker == worker
    _end(transaction, and_(mine, table.run == run, table.epoch == epoch) if run else mine, KILLED)


def _end(transaction: Transaction, which: Any, outcome: run_pb2.StepOutcome.ValueType) -> None:
    rows = transaction.execute(select(schema.permits).where(which)).fetchall()
    if not rows:
        return
    transaction.execute(delete(schema.permits).where(which))
    for row in rows:
        records.step_ended(transaction, row.tenant, row.run, row.nonce, outcome)
        if not row.superseded:
            # For latches that were there before a person spoke it still stands under the step's key.
            records.step_ended(transaction, row.tenant, row.run, row.key, outcome)
