"""The first start of a restored store: nothing of the earlier life holds a lease in this one, and people are asked about runs.

One transaction, before the server listens: either all of it is done or none, and a server that ends in between does it at its next
start. Epochs are raised beyond all that the earlier life can have given, so whatever comes from it is stale.

A run that was halting starts nothing, whatever happened since; it stays with its worker, whose hosts end when it comes back, or whose
death is confirmed, as after any other restart of the server.
"""

from __future__ import annotations

import logging

from sqlalchemy import select, update

from fermata.server.agents.revisions import Revisions
from fermata.server.lifecycle import restoration
from fermata.server.lifecycle.leases import lose_lease, lose_worker
from fermata.server.runs.record import open_run
from fermata.server.runs.transitions import ENDED, HALTING
from fermata.server.store import lives, schema
from fermata.server.store.database import Transaction

log = logging.getLogger(__name__)

REASON = "the store was restored from a backup"


def settle(transaction: Transaction, revisions: Revisions) -> int:
    """Begin the store's present life, where that was not done yet; return how many runs wait for a person because of it."""
    life = lives.load(transaction).present
    if life.settled:
        return 0
    runs = schema.runs.c
    if life.workers_stopped:
        _bury_workers(transaction)
    held = transaction.execute(
        select(runs.tenant, runs.id).where(runs.worker != "", runs.state != HALTING)
    ).fetchall()
    for row in held:
        lose_lease(transaction, row.tenant, row.id, REASON, dead=False)
    going_on = runs.state.not_in((*ENDED, HALTING))
    transaction.execute(update(schema.runs).where(going_on).values(epoch=runs.epoch + life.first_epoch))
    tools: dict[tuple[str, str, str], set[str]] = {}
    asked = 0
    for row in transaction.execute(select(schema.runs).where(going_on).order_by(runs.n)).fetchall():
        key = (row.tenant, row.agent, row.revision)
        if key not in tools:
            tools[key] = restoration.unsafe_tools(transaction, revisions, *key)
        if tools[key]:
            with open_run(transaction, row.tenant, row.id) as run:
                restoration.ask(transaction, run, life, tools[key])
            asked += 1
    lives.mark_settled(transaction)
    transaction.publication.work_available = True
    log.warning("%s: %d runs wait for a person's word on what they did after it", REASON, asked)
    return asked


def _bury_workers(transaction: Transaction) -> None:
    """What no process is at work on any more was killed; a halt that waited for it settles."""
    known = transaction.execute(select(schema.workers.c.id)).scalars().all()
    holders = (
        transaction.execute(select(schema.runs.c.worker).where(schema.runs.c.worker != "")).scalars().all()
    )
    openers = (
        transaction.execute(select(schema.steps.c.worker).where(schema.steps.c.outcome == 0)).scalars().all()
    )
    for worker in sorted({*known, *holders, *openers} - {""}):
        lose_worker(transaction, worker, REASON, dead=True)
