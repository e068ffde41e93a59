"""Threads that a graph keeps beside its run's: a graph inside a node may have a thread of its own, with any name.

They are stored like the run's thread, under ``{thread}/{name}``: so each conversation has its own, a rollback finds them, and no
name leads to another thread. Their graph may delete, copy and prune them; the run's own thread, which is the run's record, it may not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, bindparam, delete, insert, literal, or_, select

from fermata.server.errors import precondition
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.threads.forgetting import forget_all_but, forget_numbers
from fermata.v1 import worker_pb2

_SEPARATOR = "/"
_AFTER = chr(ord(_SEPARATOR) + 1)
"""What sorts after every thread beside one."""

_TABLES = (schema.checkpoints, schema.channel_blobs, schema.checkpoint_writes, schema.chunks)


def stored_as(thread: str, name: str) -> str:
    """The thread's id in the store.

    :param thread: the run's thread.
    :param name: how the graph calls it; empty for the run's own.
    """
    return f"{thread}{_SEPARATOR}{name}" if name else thread


def owner(stored: str) -> str:
    """The run's thread that a stored thread belongs to."""
    return stored.partition(_SEPARATOR)[0]


def among(column: Any, thread: Any) -> ColumnElement[bool]:
    """SQL: true for the run's thread and for all beside it."""
    return or_(column == thread, _beside(column, thread))


def _beside(column: Any, thread: Any) -> ColumnElement[bool]:
    return and_(column > thread + literal(_SEPARATOR), column < thread + literal(_AFTER))


_HAS_RUN = select(schema.checkpoints.c.thread, schema.checkpoints.c.namespace, schema.checkpoints.c.n).where(
    and_(
        schema.checkpoints.c.tenant == bindparam("of_tenant"),
        _beside(schema.checkpoints.c.thread, bindparam("of_thread")),
        schema.checkpoints.c.run_id.in_(bindparam("run_ids", expanding=True)),
    )
)
_NAMESPACES = (
    select(schema.checkpoints.c.namespace)
    .where(
        and_(
            schema.checkpoints.c.tenant == bindparam("of_tenant"),
            schema.checkpoints.c.thread == bindparam("of_thread"),
        )
    )
    .distinct()
)


def edit(transaction: Transaction, tenant: str, thread: str, wanted: worker_pb2.CheckpointEdit) -> None:
    """Do what a graph asks for. The same again changes nothing more.

    :param thread: the run's thread.
    :raises DomainError: THREAD_IS_THE_RUNS.
    """
    match wanted.WhichOneof("edit"):
        case "delete_thread":
            _delete(transaction, tenant, _named(thread, wanted.delete_thread))
        case "delete_runs":
            _delete_runs(transaction, tenant, thread, wanted.delete_runs.ids)
        case "copy":
            source = stored_as(thread, wanted.copy.source)
            _copy(transaction, tenant, source, _named(thread, wanted.copy.target))
        case "keep_latest":
            for name in wanted.keep_latest.ids:
                _keep_latest(transaction, tenant, _named(thread, name))


def _named(thread: str, name: str) -> str:
    if not name:
        raise precondition(
            f"The thread {thread!r} is the record of its runs: no graph may change what is stored of it.",
            reason="THREAD_IS_THE_RUNS",
            thread=thread,
        )
    return stored_as(thread, name)


def _delete(transaction: Transaction, tenant: str, thread: str) -> None:
    for table in _TABLES:
        transaction.execute(delete(table).where(and_(table.c.tenant == tenant, table.c.thread == thread)))


def _delete_runs(transaction: Transaction, tenant: str, thread: str, run_ids: Iterable[str]) -> None:
    rows = transaction.execute(
        _HAS_RUN, {"of_tenant": tenant, "of_thread": thread, "run_ids": [run for run in run_ids if run]}
    ).fetchall()
    gone = {row.n for row in rows}
    for place in dict.fromkeys((row.thread, row.namespace) for row in rows):
        forget_numbers(transaction, tenant, *place, gone)


def _keep_latest(transaction: Transaction, tenant: str, thread: str) -> None:
    here = {"of_tenant": tenant, "of_thread": thread}
    for namespace in transaction.execute(_NAMESPACES, here).scalars().all():
        latest: list[str] = []

        def is_latest(row: Any, latest: list[str] = latest) -> bool:
            latest.append(row.id)
            return len(latest) == 1

        forget_all_but(transaction, tenant, thread, namespace, is_latest)


def _copy(transaction: Transaction, tenant: str, source: str, target: str) -> None:
    for table in _TABLES:
        names = [column.name for column in table.c if column.name != "n"]
        rows = (
            select(*(_copied(table, name, target) for name in names))
            .where(and_(table.c.tenant == tenant, table.c.thread == source))
            .order_by(*([table.c.n] if "n" in table.c else []))
        )
        transaction.execute(insert(table).prefix_with("OR IGNORE").from_select(names, rows))


def _copied(table: Table, name: str, target: str) -> ColumnElement[Any]:
    return literal(target).label(name) if name == "thread" else table.c[name]
