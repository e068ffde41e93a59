"""A channel's value as bytes: large ones compressed, long lists in chunks, so that an appended message costs what it holds.

A long list is a tree with a fixed shape: 16 elements make a leaf, 16 leaves or nodes a node, and what is left over at each
level stands in the root. Chunks go by the digest of what they hold, so one that the last checkpoint had is not sent again.
Of a list of 10,000 elements a step writes at most the 15 elements of its tail, 45 digests, and the few chunks that became
full.

All elements are serialised at every step, as by LangGraph's own savers, and only what is new is compressed, sent and stored. Refused:
to take an element for unchanged because it is the same object. A node may change a message in place, and one that is executed again
would then find another state than the one it was shown.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from fermata.v1 import worker_pb2

FAN = 16
"""Elements of a leaf, and parts of a node."""

CHUNKED_FROM = 64
"""Elements from which on a list is kept in chunks."""

COMPRESSED_FROM_BYTES = 2048
"""Below this the processor's time is worth more than the bytes."""

_LEVEL = 1
"""zlib's fastest: text shrinks to a third or less at some 100 MB/s."""

_COMPRESSED = "+zlib"
"""After the serializer's type tag of a blob that is compressed."""


@dataclass(frozen=True)
class Packed:
    """A value as it is stored.

    :param value: the value; of a long list what follows the last chunk.
    :param refs: digests of the chunks before it, in order.
    :param chunks: these chunks and all that they consist of, by digest.
    """

    value: worker_pb2.Blob
    refs: tuple[bytes, ...] = ()
    chunks: Mapping[bytes, worker_pb2.Chunk] = field(default_factory=dict)

    @cached_property
    def size_bytes(self) -> int:
        """What a reader gets."""
        own = len(self.value.data) + sum(map(len, self.refs))
        return own + sum(len(chunk.value.data) + FAN * len(chunk.parts) for chunk in self.chunks.values())


def pack(serde: SerializerProtocol, value: Any, before: Packed | None = None) -> Packed:
    """The value as it is stored.

    :param before: the channel's last value, whose chunks are taken over as they are.
    :raises Exception: whatever the value's own code raises where it can't be serialised.
    """
    if type(value) is not list or len(value) < CHUNKED_FROM:
        return Packed(dump(serde, value))
    known = before.chunks if before is not None else {}
    chunks: dict[bytes, worker_pb2.Chunk] = {}
    full = len(value) // FAN * FAN
    level = [
        _leaf(serde.dumps_typed(value[start : start + FAN]), known, chunks) for start in range(0, full, FAN)
    ]
    left_over: list[bytes] = []
    while len(level) >= FAN:
        full_nodes = len(level) // FAN * FAN
        left_over[:0] = level[full_nodes:]
        level = [_node(level[start : start + FAN], known, chunks) for start in range(0, full_nodes, FAN)]
    return Packed(dump(serde, value[full:]), (*level, *left_over), chunks)


def unpack(serde: SerializerProtocol, packed: Packed) -> Any:
    """The value that was packed, made anew."""
    last = load(serde, packed.value)
    if not packed.refs:
        return last
    items: list[Any] = []
    for leaf in _leaves(packed.refs, packed.chunks):
        items.extend(load(serde, leaf))
    items.extend(last)
    return items


def of_reply(blob: worker_pb2.ChannelBlob, known: Mapping[bytes, worker_pb2.Chunk]) -> Packed:
    """A stored value with its chunks, out of all those that came with the answer."""
    chunks: dict[bytes, worker_pb2.Chunk] = {}
    wanted = list(blob.chunks)
    while wanted:
        digest = wanted.pop()
        if digest not in chunks:
            chunks[digest] = known[digest]
            wanted.extend(known[digest].parts)
    return Packed(blob.value, tuple(blob.chunks), chunks)


def dump(serde: SerializerProtocol, value: Any) -> worker_pb2.Blob:
    """A value in one piece."""
    return _squeeze(*serde.dumps_typed(value))


def load(serde: SerializerProtocol, blob: worker_pb2.Blob) -> Any:
    """The value of a blob, made anew."""
    if blob.type.endswith(_COMPRESSED):
        return serde.loads_typed((blob.type.removesuffix(_COMPRESSED), zlib.decompress(blob.data)))
    return serde.loads_typed((blob.type, blob.data))


def _squeeze(kind: str, data: bytes) -> worker_pb2.Blob:
    if len(data) >= COMPRESSED_FROM_BYTES and len(small := zlib.compress(data, _LEVEL)) < len(data):
        return worker_pb2.Blob(type=kind + _COMPRESSED, data=small)
    return worker_pb2.Blob(type=kind, data=data)


def _leaf(
    typed: tuple[str, bytes],
    known: Mapping[bytes, worker_pb2.Chunk],
    chunks: dict[bytes, worker_pb2.Chunk],
) -> bytes:
    kind, data = typed
    digest = hashlib.sha256(b"leaf " + kind.encode() + b" " + data).digest()
    if digest not in chunks:
        chunks[digest] = known.get(digest) or worker_pb2.Chunk(digest=digest, value=_squeeze(kind, data))
    return digest


def _node(
    parts: list[bytes], known: Mapping[bytes, worker_pb2.Chunk], chunks: dict[bytes, worker_pb2.Chunk]
) -> bytes:
    digest = hashlib.sha256(b"node " + b"".join(parts)).digest()
    if digest not in chunks:
        chunks[digest] = known.get(digest) or worker_pb2.Chunk(digest=digest, parts=parts)
    return digest


def _leaves(
    refs: tuple[bytes, ...] | list[bytes], chunks: Mapping[bytes, worker_pb2.Chunk]
) -> Iterator[worker_pb2.Blob]:
    for digest in refs:
        chunk = chunks[digest]
        if chunk.parts:
            yield from _leaves(list(chunk.parts), chunks)
        else:
            yield chunk.value
