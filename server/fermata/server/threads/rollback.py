"""A thread's state as it was before a run: what that run has stored of it is removed.

Chosen: to delete, by the number that the last checkpoint had when the run began. Refused: a copy of the old checkpoint on top of the
newer ones, for a checkpoint's own bytes hold its id, and the server never reads those; marking the newer ones as gone, which every
reader would have to know. The ledger is another thing and is left alone: steps, events, approvals and the record of model calls.

What prunes checkpoints leaves those alone that an active run began from (``retention.py``). Threads that the run's graph keeps beside
its own go back with it.
"""

from __future__ import annotations

from sqlalchemy import and_, bindparam, delete, select

from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.threads import chunks
from fermata.server.threads.beside import among
from fermata.server.threads.forgetting import forget, values_of

_checkpoints, _writes = schema.checkpoints.c, schema.checkpoint_writes.c

_STORED_SINCE = select(
    _checkpoints.n, _checkpoints.thread, _checkpoints.namespace, _checkpoints.id, _checkpoints.versions
).where(
    and_(
        _checkpoints.tenant == bindparam("of_tenant"),
        among(_checkpoints.thread, bindparam("of_thread")),
        _checkpoints.n > bindparam("base"),
    )
)
_NEWEST_BEFORE = (
    select(_checkpoints.id, _checkpoints.versions)
    .where(
        and_(
            _checkpoints.tenant == bindparam("of_tenant"),
            _checkpoints.thread == bindparam("of_thread"),
            _checkpoints.namespace == bindparam("of_namespace"),
            _checkpoints.n <= bindparam("base"),
        )
    )
    .order_by(_checkpoints.id.desc())
    .limit(1)
)
_FORGET_OWN_WRITES = delete(schema.checkpoint_writes).where(
    and_(
        _writes.tenant == bindparam("of_tenant"),
        _writes.thread == bindparam("of_thread"),
        _writes.namespace == bindparam("of_namespace"),
        _writes.checkpoint == bindparam("of_checkpoint"),
        _writes.run == bindparam("of_run"),
    )
)


def put_back(transaction: Transaction, tenant: str, thread: str, run: str, base: int) -> None:
    """Put a thread's state back to what it was before ``run``, the last that has stored any of it.

    :param base: the number of the store's last checkpoint when the run began.
    """
    mine = {"of_tenant": tenant, "of_thread": thread}
    stored = transaction.execute(_STORED_SINCE, {**mine, "base": base}).fetchall()
    # A run may write beside the root's checkpoint that it begins from before it has one of its own.
    for place in {(thread, ""), *((row.thread, row.namespace) for row in stored)}:
        here = {"of_tenant": tenant, "of_thread": place[0], "of_namespace": place[1]}
        gone = [row for row in stored if (row.thread, row.namespace) == place]
        before = transaction.execute(_NEWEST_BEFORE, {**here, "base": base}).first()
        # Versions only grow: what else those that go share with older ones, the newest of these has too.
        forget(transaction, here, gone, values_of([before]) if before is not None else set())
        if before is not None:
            transaction.execute(_FORGET_OWN_WRITES, {**here, "of_checkpoint": before.id, "of_run": run})
    for changed in {row.thread for row in stored}:
        chunks.forget_unreferenced(transaction, tenant, changed)
