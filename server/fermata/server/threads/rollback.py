"""A thread's state as it was before a run: what that run has stored of it is removed.

Chosen: to delete, by the number that the last checkpoint had when the run began. Refused: a copy of the old checkpoint on top of the
newer ones, for a checkpoint's own bytes hold its id, and the server never reads those; marking the newer ones as gone, which every
reader would have to know. The ledger is another thing and is left alone: steps, events, approvals and the record of model calls.

What prunes checkpoints leaves those alone that an active run began from.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import and_, bindparam, delete, select

from fermata.server.store import schema
from fermata.server.store.database import Transaction

_checkpoints, _writes, _blobs = schema.checkpoints.c, schema.checkpoint_writes.c, schema.channel_blobs.c

_STORED_SINCE = select(_checkpoints.n, _checkpoints.namespace, _checkpoints.id, _checkpoints.versions).where(
    and_(
        _checkpoints.tenant == bindparam("of_tenant"),
        _checkpoints.thread == bindparam("of_thread"),
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
_AT_CHECKPOINT = and_(
    _writes.tenant == bindparam("of_tenant"),
    _writes.thread == bindparam("of_thread"),
    _writes.namespace == bindparam("of_namespace"),
    _writes.checkpoint == bindparam("of_checkpoint"),
)
_FORGET_WRITES = delete(schema.checkpoint_writes).where(_AT_CHECKPOINT)
_FORGET_OWN_WRITES = delete(schema.checkpoint_writes).where(
    and_(_AT_CHECKPOINT, _writes.run == bindparam("of_run"))
)
_FORGET_CHECKPOINT = delete(schema.checkpoints).where(_checkpoints.n == bindparam("of_number"))
_FORGET_VALUE = delete(schema.channel_blobs).where(
    and_(
        _blobs.tenant == bindparam("of_tenant"),
        _blobs.thread == bindparam("of_thread"),
        _blobs.namespace == bindparam("of_namespace"),
        _blobs.channel == bindparam("of_channel"),
        _blobs.version == bindparam("of_version"),
    )
)


def put_back(transaction: Transaction, tenant: str, thread: str, run: str, base: int) -> None:
    """Put a thread's state back to what it was before ``run``, the last that has stored any of it.

    :param base: the number of the store's last checkpoint when the run began.
    """
    mine = {"of_tenant": tenant, "of_thread": thread}
    stored = transaction.execute(_STORED_SINCE, {**mine, "base": base}).fetchall()
    # A run may write beside the root's checkpoint that it begins from before it has one of its own.
    for namespace in {"", *(row.namespace for row in stored)}:
        here = {**mine, "of_namespace": namespace}
        gone = [row for row in stored if row.namespace == namespace]
        before = transaction.execute(_NEWEST_BEFORE, {**here, "base": base}).first()
        _forget(transaction, here, gone, _values(before.versions) if before is not None else set())
        if before is not None:
            transaction.execute(_FORGET_OWN_WRITES, {**here, "of_checkpoint": before.id, "of_run": run})


def _forget(
    transaction: Transaction, here: dict[str, str], gone: list[Any], kept: set[tuple[str, str]]
) -> None:
    """Remove checkpoints of one namespace with their writes, and the values that none of those before them has.

    :param kept: channel and version of the values of the newest checkpoint that stays; versions only grow, so what else they share
        with older ones is among these.
    """
    if not gone:
        return
    transaction.execute(_FORGET_WRITES, [{**here, "of_checkpoint": row.id} for row in gone])
    transaction.execute(_FORGET_CHECKPOINT, [{"of_number": row.n} for row in gone])
    values = set().union(*(_values(row.versions) for row in gone)) - kept
    if values:
        transaction.execute(
            _FORGET_VALUE,
            [{**here, "of_channel": channel, "of_version": version} for channel, version in values],
        )


def _values(versions: str) -> set[tuple[str, str]]:
    found: dict[str, str] = json.loads(versions)
    return set(found.items())
