"""Parts of long lists: each is stored once for a thread, under the digest of what it holds, and goes when nothing refers to it.

A channel's value and a chunk name others by digests, one after the other in one blob. The server follows them and reads nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import and_, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import worker_pb2

DIGEST_BYTES = 32

READ_AT_ONCE = 500
"""Digests in one statement: SQLite takes some 30,000, and a long statement must be planned anew for each length."""

_chunks, _blobs = schema.chunks.c, schema.channel_blobs.c

_KEEP = insert(schema.chunks).prefix_with("OR IGNORE")
_HERE = and_(_chunks.tenant == bindparam("of_tenant"), _chunks.thread == bindparam("of_thread"))
_SOME = select(_chunks.digest, _chunks.type, _chunks.data, _chunks.parts).where(
    and_(_HERE, _chunks.digest.in_(bindparam("digests", expanding=True)))
)
_ANY = select(_chunks.digest).where(_HERE).limit(1)
_LINKS = select(_chunks.digest, _chunks.parts).where(_HERE)
_ROOTS = select(_blobs.chunks).where(
    and_(
        _blobs.tenant == bindparam("of_tenant"),
        _blobs.thread == bindparam("of_thread"),
        _blobs.chunks != b"",
    )
)
_FORGET = delete(schema.chunks).where(and_(_HERE, _chunks.digest == bindparam("of_digest")))


def keep(transaction: Transaction, tenant: str, thread: str, chunks: Iterable[worker_pb2.Chunk]) -> None:
    """Store chunks; those that are there already stay as they are."""
    rows = [
        {
            "tenant": tenant,
            "thread": thread,
            "digest": chunk.digest,
            "type": chunk.value.type,
            "data": chunk.value.data,
            "parts": join(chunk.parts),
        }
        for chunk in chunks
    ]
    if rows:
        transaction.execute(_KEEP, rows)


def read(connection: Any, tenant: str, thread: str, digests: Iterable[bytes]) -> list[worker_pb2.Chunk]:
    """These chunks and all that they consist of, each once. One statement for each level of the tree and each ``READ_AT_ONCE``.

    :raises DomainError: STATE_INCOMPLETE, where one of them is gone.
    """
    found: list[worker_pb2.Chunk] = []
    seen: set[bytes] = set()
    wanted = list(dict.fromkeys(digests))
    while wanted:
        seen.update(wanted)
        parts: dict[bytes, None] = {}
        for start in range(0, len(wanted), READ_AT_ONCE):
            for row in connection.execute(
                _SOME,
                {
                    "of_tenant": tenant,
                    "of_thread": thread,
                    "digests": wanted[start : start + READ_AT_ONCE],
                },
            ):
                chunk = worker_pb2.Chunk(digest=row.digest, parts=split(row.parts))
                chunk.value.type, chunk.value.data = row.type, row.data
                found.append(chunk)
                parts.update(dict.fromkeys(chunk.parts))
        wanted = [digest for digest in parts if digest not in seen]
    if len(found) < len(seen):
        raise DomainError(
            f"{len(seen) - len(found)} of {len(seen)} parts of a list of the thread {thread!r} are gone: its checkpoint was pruned.",
            reason="STATE_INCOMPLETE",
            kind=ErrorKind.FAILED_PRECONDITION,
            thread=thread,
        )
    return found


def forget_unreferenced(transaction: Transaction, tenant: str, thread: str) -> int:
    """Remove the chunks of a thread that no value of it leads to; return how many."""
    here = {"of_tenant": tenant, "of_thread": thread}
    if transaction.execute(_ANY, here).first() is None:
        return 0
    links = {row.digest: row.parts for row in transaction.execute(_LINKS, here)}
    wanted = [digest for row in transaction.execute(_ROOTS, here) for digest in split(row.chunks)]
    alive: set[bytes] = set()
    while wanted:
        digest = wanted.pop()
        if digest not in alive:
            alive.add(digest)
            wanted.extend(split(links.get(digest, b"")))
    gone = [{**here, "of_digest": digest} for digest in links.keys() - alive]
    if gone:
        transaction.execute(_FORGET, gone)
    return len(gone)


def join(digests: Iterable[bytes]) -> bytes:
    """Digests as they are stored."""
    return b"".join(digests)


def split(joined: bytes) -> list[bytes]:
    """Stored digests, one by one."""
    return [joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)]
