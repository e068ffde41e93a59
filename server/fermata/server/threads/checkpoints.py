"""Checkpoints: opaque bytes, each channel's value stored once for each version of it.

The layout is that of LangGraph's own Postgres saver: a checkpoint refers to channel values by version, so that a super-step writes
only what it changed. Of a long list it writes only the chunks that are new (``chunks.py``).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import and_, bindparam, exists, func, not_, select, tuple_
from sqlalchemy.dialects.sqlite import insert

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.threads import chunks
from fermata.server.threads.beside import stored_as
from fermata.v1 import worker_pb2

MAX_READ_BYTES = 40 * 1024 * 1024
"""Below what a frame to a host may hold."""

LISTED_CHECKPOINTS = 100
"""Checkpoints that one answer holds at the most."""

_KEEP_WRITES = insert(schema.checkpoint_writes).prefix_with("OR REPLACE")
_KEEP_CHECKPOINTS = insert(schema.checkpoints).prefix_with("OR IGNORE")
_KEEP_VALUES = insert(schema.channel_blobs).prefix_with("OR IGNORE")


_BASE = select(
    select(func.coalesce(func.max(schema.checkpoints.c.n), 0)).scalar_subquery(),
    not_(
        exists().where(
            and_(
                schema.checkpoints.c.tenant == bindparam("of_tenant"),
                schema.checkpoints.c.thread == bindparam("of_thread"),
            )
        )
    ),
)


def base(connection: Any, tenant: str, thread: str) -> tuple[int, bool]:
    """What a run begins from: how far the store has come, as the number of its last checkpoint of any thread, and whether nothing is
    stored for this thread.

    While the run is active, every checkpoint of its thread with a higher number is its own.
    """
    last, is_empty = connection.execute(_BASE, {"of_tenant": tenant, "of_thread": thread}).one()
    return last, bool(is_empty)


def apply(transaction: Transaction, tenant: str, thread: str, run: str, commit: worker_pb2.Commit) -> None:
    """Store what the checkpointer of a run's host has collected. The same commit again changes nothing."""
    if commit.checkpoints:
        _store_checkpoints(transaction, tenant, thread, commit.checkpoints)
    writes = [
        {
            "tenant": tenant,
            "thread": stored_as(thread, task.thread),
            "namespace": task.namespace,
            "checkpoint": task.checkpoint_id,
            "task": task.task_id,
            "position": write.index,
            "task_path": task.task_path,
            "channel": write.channel,
            "type": write.value.type,
            "data": write.value.data,
            "run": run,
        }
        for task in commit.writes
        for write in task.writes
    ]
    if writes:
        transaction.execute(_KEEP_WRITES, writes)


def _store_checkpoints(
    transaction: Transaction, tenant: str, thread: str, puts: Iterable[worker_pb2.CheckpointPut]
) -> None:
    rows: list[dict[str, Any]] = []
    blobs: list[dict[str, Any]] = []
    for put in puts:
        stored_thread = stored_as(thread, put.thread)
        chunks.keep(transaction, tenant, stored_thread, put.chunks)
        rows.append(
            {
                "tenant": tenant,
                "thread": stored_thread,
                "namespace": put.namespace,
                "id": put.checkpoint_id,
                "parent": put.parent_id,
                "type": put.checkpoint.type,
                "data": put.checkpoint.data,
                "metadata_type": put.metadata.type,
                "metadata": put.metadata.data,
                "versions": json.dumps(dict(put.channel_versions)),
                "run_id": put.run_id,
            }
        )
        blobs.extend(
            {
                "tenant": tenant,
                "thread": stored_thread,
                "namespace": put.namespace,
                "channel": channel.channel,
                "version": channel.version,
                "type": channel.value.type,
                "data": channel.value.data,
                "chunks": chunks.join(channel.chunks),
            }
            for channel in put.channels
        )
    transaction.execute(_KEEP_CHECKPOINTS, rows)
    if blobs:
        transaction.execute(_KEEP_VALUES, blobs)


def query(
    connection: Any, tenant: str, thread: str, wanted: worker_pb2.CheckpointQuery
) -> worker_pb2.CheckpointReply:
    """The checkpoints that are asked for, newest first, with their values and pending writes; as many as one message holds.

    :raises DomainError: STATE_TOO_LARGE, where that is not even the first.
    """
    table = schema.checkpoints.c
    where = [
        table.tenant == tenant,
        table.thread == stored_as(thread, wanted.thread),
        table.namespace == wanted.namespace,
    ]
    if wanted.checkpoint_id:
        where.append(table.id == wanted.checkpoint_id)
    if wanted.before:
        where.append(table.id < wanted.before)
    limit = min(wanted.limit or LISTED_CHECKPOINTS, LISTED_CHECKPOINTS) if wanted.list else 1
    # LangGraph's checkpoint ids grow with time (UUID 6), so their order is the order of the checkpoints.
    rows = connection.execute(
        select(schema.checkpoints).where(and_(*where)).order_by(table.id.desc()).limit(limit)
    ).fetchall()
    reply, size = worker_pb2.CheckpointReply(), 0
    sent: set[bytes] = set()
    for row in rows:
        stored = _stored(connection, row)
        roots = (digest for channel in stored.put.channels for digest in channel.chunks)
        # Those of one checkpoint are mostly those of the next: what an answer holds already is not looked up again.
        parts = chunks.read(
            connection, tenant, row.thread, (digest for digest in roots if digest not in sent)
        )
        parts = [chunk for chunk in parts if chunk.digest not in sent]
        size += stored.ByteSize() + sum(chunk.ByteSize() for chunk in parts)
        if size > MAX_READ_BYTES:
            if not reply.checkpoints:
                raise DomainError(
                    f"The state has {size} bytes, and {MAX_READ_BYTES} are the most that can be read at once: keep large values "
                    "outside of it, and a reference to them in it.",
                    reason="STATE_TOO_LARGE",
                    kind=ErrorKind.FAILED_PRECONDITION,
                )
            break
        reply.checkpoints.append(stored)
        reply.chunks.extend(parts)
        sent.update(chunk.digest for chunk in parts)
    return reply


def _stored(connection: Any, row: Any) -> worker_pb2.StoredCheckpoint:
    stored = worker_pb2.StoredCheckpoint()
    put = stored.put
    put.namespace, put.checkpoint_id, put.parent_id = row.namespace, row.id, row.parent
    put.checkpoint.type, put.checkpoint.data = row.type, row.data
    put.metadata.type, put.metadata.data = row.metadata_type, row.metadata
    versions: dict[str, str] = json.loads(row.versions)
    put.channel_versions.update(versions)
    if versions:
        blob = schema.channel_blobs.c
        found = connection.execute(
            select(blob.channel, blob.version, blob.type, blob.data, blob.chunks).where(
                and_(
                    blob.tenant == row.tenant,
                    blob.thread == row.thread,
                    blob.namespace == row.namespace,
                    tuple_(blob.channel, blob.version).in_(list(versions.items())),
                )
            )
        )
        for channel, version, kind, data, parts in found:
            put.channels.add(
                channel=channel,
                version=version,
                value=worker_pb2.Blob(type=kind, data=data),
                chunks=chunks.split(parts),
            )
    table = schema.checkpoint_writes.c
    tasks: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for write in connection.execute(
        select(schema.checkpoint_writes)
        .where(
            and_(
                table.tenant == row.tenant,
                table.thread == row.thread,
                table.namespace == row.namespace,
                table.checkpoint == row.id,
            )
        )
        .order_by(table.task_path, table.task, table.position)
    ):
        tasks[write.task, write.task_path].append(write)
    for (task, path), writes in tasks.items():
        stored.writes.add(
            namespace=row.namespace,
            checkpoint_id=row.id,
            task_id=task,
            task_path=path,
            writes=[
                worker_pb2.ChannelWrite(
                    index=write.position,
                    channel=write.channel,
                    value=worker_pb2.Blob(type=write.type, data=write.data),
                )
                for write in writes
            ],
        )
    return stored
