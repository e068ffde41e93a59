"""Some checkpoints of a namespace go, and with them what nothing else refers to: their writes, values of channels, chunks of lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, delete, select

from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.threads import chunks

_checkpoints, _writes, _blobs = schema.checkpoints.c, schema.checkpoint_writes.c, schema.channel_blobs.c

_ALL = (
    select(_checkpoints.n, _checkpoints.id, _checkpoints.versions)
    .where(
        and_(
            _checkpoints.tenant == bindparam("of_tenant"),
            _checkpoints.thread == bindparam("of_thread"),
            _checkpoints.namespace == bindparam("of_namespace"),
        )
    )
    .order_by(_checkpoints.id.desc())
)
_FORGET_WRITES = delete(schema.checkpoint_writes).where(
    and_(
        _writes.tenant == bindparam("of_tenant"),
        _writes.thread == bindparam("of_thread"),
        _writes.namespace == bindparam("of_namespace"),
        _writes.checkpoint == bindparam("of_checkpoint"),
    )
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


def forget_all_but(
    transaction: Transaction, tenant: str, thread: str, namespace: str, stays: Callable[[Any], bool]
) -> int:
    """Remove the checkpoints of a namespace that do not stay; return how many.

    :param stays: is asked about each row, with ``n`` and ``id``, the newest first.
    """
    here = {"of_tenant": tenant, "of_thread": thread, "of_namespace": namespace}
    gone: list[Any] = []
    kept: list[Any] = []
    for row in transaction.execute(_ALL, here).fetchall():
        (kept if stays(row) else gone).append(row)
    forget(transaction, here, gone, values_of(kept))
    if gone:
        chunks.forget_unreferenced(transaction, tenant, thread)
    return len(gone)


def forget_numbers(
    transaction: Transaction, tenant: str, thread: str, namespace: str, numbers: set[int]
) -> int:
    """Remove the checkpoints of a namespace with these numbers; return how many."""
    return forget_all_but(transaction, tenant, thread, namespace, lambda row: row.n not in numbers)


def forget(
    transaction: Transaction, here: dict[str, str], gone: Sequence[Any], kept: set[tuple[str, str]]
) -> None:
    """Remove checkpoints of one namespace with their writes, and the values that none of those that stay has.

    :param here: ``of_tenant``, ``of_thread`` and ``of_namespace``.
    :param gone: rows with ``n``, ``id`` and ``versions``.
    :param kept: channel and version of the values of those that stay.
    """
    if not gone:
        return
    transaction.execute(_FORGET_WRITES, [{**here, "of_checkpoint": row.id} for row in gone])
    transaction.execute(_FORGET_CHECKPOINT, [{"of_number": row.n} for row in gone])
    if values := values_of(gone) - kept:
        transaction.execute(
            _FORGET_VALUE,
            [{**here, "of_channel": channel, "of_version": version} for channel, version in values],
        )


def values_of(rows: Iterable[Any]) -> set[tuple[str, str]]:
    """Channel and version of the values that these checkpoints refer to."""
    return {value for row in rows for value in json.loads(row.versions).items()}
