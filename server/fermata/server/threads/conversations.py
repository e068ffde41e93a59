"""Threads inside a transaction: made, read, listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format
from sqlalchemy import and_, select

from fermata.server.errors import invalid, not_found
from fermata.server.names import Name, new_id
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import thread_pb2

MAX_LABELS_BYTES = 16 * 1024
"""Largest labels of a thread, as JSON: they name a place in a surface, they are no store."""


def create(
    transaction: Transaction,
    tenant: str,
    labels: str,
    created_by: str,
    strategy: thread_pb2.MultitaskStrategy.ValueType = thread_pb2.MULTITASK_STRATEGY_UNSPECIFIED,
) -> thread_pb2.Thread:
    """Make an empty thread.

    :param labels: JSON text of an object.
    :param created_by: the principal's name.
    :param strategy: what becomes of a run that is asked for while another is going on, where the request does not say.
    :raises DomainError: LABELS_TOO_LARGE.
    """
    size = len(labels.encode())
    if size > MAX_LABELS_BYTES:
        raise invalid(
            f"The labels have {size} bytes; {MAX_LABELS_BYTES} are the most.",
            reason="LABELS_TOO_LARGE",
            field="thread.labels",
            size_bytes=str(size),
            limit_bytes=str(MAX_LABELS_BYTES),
        )
    thread = new_id()
    transaction.execute(
        schema.threads.insert(),
        {
            "tenant": tenant,
            "id": thread,
            "labels": labels,
            "multitask_strategy": strategy,
            "created_by": created_by,
            "created": transaction.now,
        },
    )
    return get(transaction, tenant, thread)


def get(connection: Any, tenant: str, thread: str) -> thread_pb2.Thread:
    """One thread.

    :raises DomainError: THREAD_NOT_FOUND.
    """
    table = schema.threads.c
    row = connection.execute(
        select(schema.threads).where(and_(table.tenant == tenant, table.id == thread))
    ).first()
    if row is None:
        raise not_found("thread", str(Name(tenant, "threads", thread)), "List them with ListThreads.")
    return to_message(row)


def newest(connection: Any, tenant: str, before: int | None, limit: int) -> Sequence[Any]:
    """Up to ``limit`` rows, newest first; those before row number ``before`` where it is given."""
    table = schema.threads.c
    where = [table.tenant == tenant]
    if before is not None:
        where.append(table.n < before)
    rows: Sequence[Any] = connection.execute(
        select(schema.threads).where(and_(*where)).order_by(table.n.desc()).limit(limit)
    ).fetchall()
    return rows


def to_message(row: Any) -> thread_pb2.Thread:
    """A thread of the API from its row."""
    message = thread_pb2.Thread(
        name=str(Name(row.tenant, "threads", row.id)),
        active_run=str(Name(row.tenant, "runs", row.active_run)) if row.active_run else "",
        created_by=row.created_by,
        multitask_strategy=row.multitask_strategy or thread_pb2.MULTITASK_STRATEGY_REJECT,
    )
    json_format.Parse(row.labels, message.labels)
    message.create_time.FromNanoseconds(int(row.created * 1e9))
    return message
