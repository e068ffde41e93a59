"""LangGraph's checkpointer over the host's socket: a run's latest state in memory, and what is new as one commit.

``put`` and ``put_writes`` only buffer: LangGraph ignores what they return, and the gate, park and finish messages take
the buffer along in their own transaction, which makes a tool's task durable before its effect. A timer flushes what no
message takes. Reads come from memory where this host wrote, and from the server where it did not. Memory holds the
bytes that were committed, not the objects: a node that changed its state in place and is executed again after an
approval must find what was stored, or its calls would get other digests.

A graph that a node calls with a thread of its own has that state beside the run's thread: each conversation has its own
threads of any name, and none sees another's. They may be deleted, copied and pruned from inside a run; the run's own
thread may only be read and written on, for it is the run's record.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from fermata.agents.runtime.errors import HostError, StateNotSerializableError, StateTooLargeError
from fermata.agents.runtime.packing import Packed, dump, load, of_reply, pack, unpack
from fermata.agents.runtime.run import ActiveRun, answer_of
from fermata.v1 import worker_pb2

TASK_SEPARATOR = ":"
"""Between a node and its task's id in a checkpoint namespace (``node:task|node:task``)."""

_KEPT = 2
"""Checkpoints of a namespace that stay in memory: the latest, and its parent while its tasks still write."""

Rows: TypeAlias = list[CheckpointTuple]
"""Needs a name of its own: the checkpointer has a method ``list``."""

_EMPTY = "empty"
"""Type tag of a channel that has a version and no value."""

_NO_VALUE = Packed(worker_pb2.Blob(type=_EMPTY))


MAX_STATE_BYTES = 32 * 1024 * 1024
"""Of a checkpoint's values and pending writes together, as they are stored: what a later host reads in one answer."""

_PAGE = 20
"""Checkpoints of a history that are asked for at once."""


class UnsupportedError(HostError):
    """The checkpointer does not do this inside a run."""

    reason = "CHECKPOINTER_UNSUPPORTED"


@dataclass
class _Stored:
    """A checkpoint: its head, its channels' bytes, and its pending writes by (task, index) as (channel, bytes, task
    path)."""

    head: dict[str, Any]
    metadata: CheckpointMetadata
    parent_id: str
    channels: dict[str, Packed] = field(default_factory=dict)
    writes: dict[tuple[str, int], tuple[str, worker_pb2.Blob, str]] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of all its values and writes."""
        return sum(packed.size_bytes for packed in self.channels.values()) + sum(
            len(blob.data) for _, blob, _ in self.writes.values()
        )


class ChannelCheckpointSaver(BaseCheckpointSaver[str]):
    """The checkpointer of one run.

    :param run: its run; commits go through it.
    :param fresh: True where this run has never been executed: namespaces of its tasks then hold nothing that isn't in
        memory.
    """

    def __init__(self, run: ActiveRun, *, fresh: bool) -> None:
        super().__init__(serde=JsonPlusSerializer())
        self._run = run
        self._fresh = fresh
        self._lock = threading.RLock()
        self._memory: dict[tuple[str, str], dict[str, _Stored]] = {}
        self._loaded: set[tuple[str, str]] = {(run.thread, "")} if run.thread_is_new else set()

    def knows(self, namespace: str) -> bool:
        """True where a graph with this namespace keeps its state here, so that its task ids outlast a crash."""
        with self._lock:
            return not namespace or bool(self._memory.get((self._run.thread, namespace)))

    # reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the latest of its namespace."""
        thread, namespace, checkpoint_id = _address(config)
        if (found := self._recall(thread, namespace, checkpoint_id)) is not None or self._complete(
            thread, namespace, checkpoint_id
        ):
            return found
        answer = self._run.send(checkpoint_query=self._query(thread, namespace, checkpoint_id))
        return self._learn(thread, namespace, checkpoint_id, answer_of(await asyncio.wrap_future(answer)))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As ``aget_tuple``, for graphs that are invoked synchronously."""
        thread, namespace, checkpoint_id = _address(config)
        if (found := self._recall(thread, namespace, checkpoint_id)) is not None or self._complete(
            thread, namespace, checkpoint_id
        ):
            return found
        answer = self._run.send(checkpoint_query=self._query(thread, namespace, checkpoint_id))
        return self._learn(thread, namespace, checkpoint_id, answer_of(answer.result()))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints of the config's namespace, newest first."""
        listing = _Listing(config, filter, before, limit)
        while (query := listing.next_query(self._query)) is not None:
            reply = answer_of(await asyncio.wrap_future(self._run.send(checkpoint_query=query)))
            for row in listing.take(self._tuples(listing.thread, reply)):
                yield row

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """As ``alist``."""
        listing = _Listing(config, filter, before, limit)
        while (query := listing.next_query(self._query)) is not None:
            reply = answer_of(self._run.send(checkpoint_query=query).result())
            yield from listing.take(self._tuples(listing.thread, reply))

    # writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint and queue its commit.

        :raises StateNotSerializableError: names the channel that can't be stored.
        :raises StateTooLargeError: names the largest channel. In both cases nothing of the checkpoint is kept.
        """
        thread, namespace, parent_id = _address(config)
        kept = get_checkpoint_metadata(config, metadata)
        head = _head(checkpoint)
        values = checkpoint["channel_values"]
        with self._lock:
            rows = self._memory.setdefault((thread, namespace), {})
            before = rows[parent_id].channels if parent_id in rows else {}
            channels = {
                channel: self._packed(channel, value, before.get(channel))
                if channel in new_versions or channel not in before
                else before[channel]
                for channel, value in values.items()
            }
            stored = _Stored(head, kept, parent_id, channels)
            put = worker_pb2.CheckpointPut(
                thread=self._side(thread),
                namespace=namespace,
                checkpoint_id=checkpoint["id"],
                parent_id=parent_id,
                run_id=str(kept.get("run_id") or ""),
                checkpoint=self._blob("(checkpoint)", head),
                metadata=self._blob("(metadata)", kept),
                channel_versions={
                    channel: str(version) for channel, version in head["channel_versions"].items()
                },
            )
            sent: set[bytes] = set()
            for channel, version in new_versions.items():
                packed = channels.get(channel, _NO_VALUE)
                put.channels.add(
                    channel=channel, version=str(version), value=packed.value, chunks=packed.refs
                )
                known = before[channel].chunks if channel in before else {}
                fresh = [digest for digest in packed.chunks if digest not in known and digest not in sent]
                put.chunks.extend(packed.chunks[digest] for digest in fresh)
                sent.update(fresh)
            self._require_room(
                stored.size_bytes, {channel: packed.size_bytes for channel, packed in channels.items()}
            )
            rows[checkpoint["id"]] = stored
            self._loaded.add((thread, namespace))
            for old in sorted(rows)[:-_KEPT]:
                del rows[old]
        self._run.buffer(lambda commit: commit.checkpoints.append(put), put.ByteSize())
        return {
            "configurable": {
                "thread_id": thread,
                "checkpoint_ns": namespace,
                "checkpoint_id": checkpoint["id"],
            }
        }

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep a task's pending writes and queue their commit.

        :raises StateNotSerializableError: names the channel that can't be stored.
        :raises StateTooLargeError: names the largest channel. In both cases none of the writes is kept.
        """
        thread, namespace, checkpoint_id = _address(config)
        message = worker_pb2.CheckpointWrites(
            thread=self._side(thread),
            namespace=namespace,
            checkpoint_id=checkpoint_id,
            task_id=task_id,
            task_path=task_path,
        )
        with self._lock:
            stored = self._memory.get((thread, namespace), {}).get(checkpoint_id)
            sizes: dict[str, int] = {}
            for position, (channel, value) in enumerate(writes):
                index = WRITES_IDX_MAP.get(channel, position)
                if stored is not None and index >= 0 and (task_id, index) in stored.writes:
                    continue
                write = message.writes.add(index=index, channel=channel, value=self._blob(channel, value))
                sizes[channel] = sizes.get(channel, 0) + len(write.value.data)
            self._require_room(sum(sizes.values()) + (stored.size_bytes if stored is not None else 0), sizes)
            if stored is not None:
                for write in message.writes:
                    stored.writes[task_id, write.index] = (write.channel, write.value, task_path)
        if message.writes:
            self._run.buffer(lambda commit: commit.writes.append(message), message.ByteSize())

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As ``put``."""
        return self.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As ``put_writes``."""
        self.put_writes(config, writes, task_id, task_path)

    # threads beside the run's own

    def delete_thread(self, thread_id: str) -> None:
        """Forget a thread that the graph keeps beside the run's own.

        :raises UnsupportedError: for the run's own.
        """
        self._edited(self._edit(self._deletion(thread_id)).result())

    async def adelete_thread(self, thread_id: str) -> None:
        """As ``delete_thread``."""
        self._edited(await asyncio.wrap_future(self._edit(self._deletion(thread_id))))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Forget what these runs have stored, by the ``run_id`` of the metadata, in threads beside the run's own."""
        self._edited(self._edit(_deletion_of_runs(run_ids)).result())

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As ``delete_for_runs``."""
        self._edited(await asyncio.wrap_future(self._edit(_deletion_of_runs(run_ids))))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread, with their writes, to one beside the run's own.

        :raises UnsupportedError: where the target is the run's own.
        """
        self._edited(self._edit(self._copy(source_thread_id, target_thread_id)).result())

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As ``copy_thread``."""
        self._edited(await asyncio.wrap_future(self._edit(self._copy(source_thread_id, target_thread_id))))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep the latest checkpoint of each namespace of these threads, or with ``delete`` none.

        :raises UnsupportedError: for the run's own thread, which is pruned by the server, and for other strategies.
        """
        for edit in self._prunings(thread_ids, strategy):
            self._edited(self._edit(edit).result())

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As ``prune``."""
        for edit in self._prunings(thread_ids, strategy):
            self._edited(await asyncio.wrap_future(self._edit(edit)))

    def _side(self, thread: str) -> str:
        """How messages call a thread: the run's own needs no name.

        :raises UnsupportedError: for a thread without a name, which would be taken for it.
        """
        if not thread:
            raise UnsupportedError("A thread needs a name: the config's thread_id is empty.")
        return "" if thread == self._run.thread else thread

    def _beside(self, thread: str, what: str) -> str:
        if not (side := self._side(str(thread))):
            raise UnsupportedError(
                f"A run can't {what} its own thread {self._run.thread!r}: its state is the run's record. The server prunes it, "
                "as its settings say."
            )
        return side

    def _deletion(self, thread: str) -> worker_pb2.CheckpointEdit:
        return worker_pb2.CheckpointEdit(delete_thread=self._beside(thread, "delete"))

    def _copy(self, source: str, target: str) -> worker_pb2.CheckpointEdit:
        return worker_pb2.CheckpointEdit(
            copy=worker_pb2.CopyThread(
                source=self._side(str(source)), target=self._beside(target, "copy over")
            )
        )

    def _prunings(self, threads: Sequence[str], strategy: str) -> Sequence[worker_pb2.CheckpointEdit]:
        named = [self._beside(thread, "prune") for thread in threads]
        if strategy == "delete":
            return [worker_pb2.CheckpointEdit(delete_thread=thread) for thread in named]
        if strategy != "keep_latest":
            raise UnsupportedError(
                f"There is no strategy {strategy!r} of pruning: say keep_latest or delete."
            )
        return [worker_pb2.CheckpointEdit(keep_latest=worker_pb2.ThreadIds(ids=named))] if named else []

    def _edit(self, edit: worker_pb2.CheckpointEdit) -> Future[worker_pb2.HostReply]:
        with self._lock:
            # What is put from now on comes after the edit, and must not rely on chunks that it removes.
            self._forget_beside()
            return self._run.send(checkpoint_edit=edit)

    def _edited(self, reply: worker_pb2.HostReply) -> None:
        answer_of(reply)
        self._forget_beside()

    def _forget_beside(self) -> None:
        """What memory has of threads beside the run's own may be gone: it is read again."""
        with self._lock:
            self._memory = {key: rows for key, rows in self._memory.items() if key[0] == self._run.thread}
            self._loaded = {key for key in self._loaded if key[0] == self._run.thread}

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Versions that sort as text: a counter of 32 digits, and a random part, for a thread that was rolled back
        counts anew."""
        return f"{(int(current.split('.')[0]) if current else 0) + 1:032}.{secrets.token_hex(8)}"

    # memory

    def _complete(self, thread: str, namespace: str, checkpoint_id: str) -> bool:
        """True where memory holds all that there is, so that nothing found means that there is nothing."""
        if checkpoint_id:
            return False
        if (thread, namespace) in self._loaded:
            return True
        return self._fresh and TASK_SEPARATOR in namespace and thread == self._run.thread

    def _recall(self, thread: str, namespace: str, checkpoint_id: str) -> CheckpointTuple | None:
        with self._lock:
            rows = self._memory.get((thread, namespace))
            if not rows:
                return None
            stored = rows.get(checkpoint_id or max(rows))
            return None if stored is None else self._tuple(thread, namespace, stored)

    def _query(self, thread: str, namespace: str, checkpoint_id: str) -> worker_pb2.CheckpointQuery:
        return worker_pb2.CheckpointQuery(
            thread=self._side(thread), namespace=namespace, checkpoint_id=checkpoint_id
        )

    def _learn(
        self, thread: str, namespace: str, checkpoint_id: str, reply: worker_pb2.HostReply
    ) -> CheckpointTuple | None:
        found = self._read(reply)
        with self._lock:
            if not checkpoint_id:
                self._loaded.add((thread, namespace))
                if found:
                    self._memory.setdefault((thread, namespace), {})[found[0].head["id"]] = found[0]
        return self._tuple(thread, namespace, found[0]) if found else None

    def _tuples(self, thread: str, reply: worker_pb2.HostReply) -> Rows:
        namespaces = [row.put.namespace for row in reply.checkpoints.checkpoints]
        return [self._tuple(thread, *row) for row in zip(namespaces, self._read(reply), strict=True)]

    # bytes

    def _read(self, reply: worker_pb2.HostReply) -> Sequence[_Stored]:
        chunks = {chunk.digest: chunk for chunk in reply.checkpoints.chunks}
        return [self._load(row, chunks) for row in reply.checkpoints.checkpoints]

    def _load(self, row: worker_pb2.StoredCheckpoint, chunks: Mapping[bytes, worker_pb2.Chunk]) -> _Stored:
        head = self._value(row.put.checkpoint)
        versions = head["channel_versions"]
        return _Stored(
            head=head,
            metadata=self._value(row.put.metadata),
            parent_id=row.put.parent_id,
            channels={
                blob.channel: of_reply(blob, chunks)
                for blob in row.put.channels
                if blob.value.type != _EMPTY and str(versions.get(blob.channel)) == blob.version
            },
            writes={
                (task.task_id, write.index): (write.channel, write.value, task.task_path)
                for task in row.writes
                for write in task.writes
            },
        )

    def _tuple(self, thread: str, namespace: str, stored: _Stored) -> CheckpointTuple:
        def config(checkpoint_id: str) -> RunnableConfig:
            return {
                "configurable": {
                    "thread_id": thread,
                    "checkpoint_ns": namespace,
                    "checkpoint_id": checkpoint_id,
                }
            }

        head = _head(stored.head)
        ordered = sorted(stored.writes.items(), key=lambda item: writes_sort_key(item[1][2], *item[0]))
        return CheckpointTuple(
            config=config(head["id"]),
            checkpoint=cast(
                Checkpoint,
                {
                    **head,
                    "channel_values": {
                        channel: unpack(self.serde, packed) for channel, packed in stored.channels.items()
                    },
                },
            ),
            metadata=stored.metadata,
            parent_config=config(stored.parent_id) if stored.parent_id else None,
            pending_writes=[
                (task, channel, self._value(blob)) for (task, _), (channel, blob, _path) in ordered
            ],
        )

    def _value(self, blob: worker_pb2.Blob) -> Any:
        return load(self.serde, blob)

    def _blob(self, channel: str, value: Any) -> worker_pb2.Blob:
        try:
            return dump(self.serde, value)
        except Exception as error:
            raise self._not_serializable(channel, value, error) from error

    def _packed(self, channel: str, value: Any, before: Packed | None) -> Packed:
        try:
            return pack(self.serde, value, before)
        except Exception as error:
            raise self._not_serializable(channel, value, error) from error

    def _not_serializable(self, channel: str, value: Any, error: Exception) -> StateNotSerializableError:
        problem = f"its value of type {type(value).__name__} can't be serialised ({error})"
        failure = StateNotSerializableError(channel, problem)
        self._run.fail(failure)
        return failure

    def _require_room(self, size_bytes: int, sizes: Mapping[str, int]) -> None:
        """
        :param sizes: bytes of each channel that may be to blame.
        :raises StateTooLargeError: names the largest.
        """
        if size_bytes <= MAX_STATE_BYTES or not sizes:
            return
        channel = max(sizes, key=lambda name: sizes[name])
        failure = StateTooLargeError(channel, sizes[channel], size_bytes, MAX_STATE_BYTES)
        self._run.fail(failure)
        raise failure


class _Listing:
    """A history, page by page.

    :raises UnsupportedError: where no thread is named.
    """

    def __init__(
        self,
        config: RunnableConfig | None,
        wanted: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        if config is None:
            raise UnsupportedError("A run can list checkpoints of one thread only: give a config.")
        self.thread, self._namespace, self._checkpoint_id = _address(config)
        self._wanted = dict(wanted or {})
        self._before = (get_checkpoint_id(before) or "") if before else ""
        self._left = limit
        self._is_over = False

    def next_query(
        self, query: Callable[[str, str, str], worker_pb2.CheckpointQuery]
    ) -> worker_pb2.CheckpointQuery | None:
        """What to ask for next; None where that was all."""
        if self._is_over or self._left == 0:
            return None
        asked = query(self.thread, self._namespace, self._checkpoint_id)
        asked.list = True
        asked.before = self._before
        asked.limit = _PAGE if self._left is None or self._wanted else min(self._left, _PAGE)
        return asked

    def take(self, rows: Rows) -> Rows:
        """Those of an answer's rows that are wanted."""
        self._is_over = not rows or bool(self._checkpoint_id)
        if rows:
            self._before = rows[-1].checkpoint["id"]
        kept = [
            row for row in rows if all(row.metadata.get(key) == value for key, value in self._wanted.items())
        ][: self._left]
        if self._left is not None:
            self._left -= len(kept)
        return kept


def _deletion_of_runs(runs: Sequence[str]) -> worker_pb2.CheckpointEdit:
    return worker_pb2.CheckpointEdit(delete_runs=worker_pb2.RunIds(ids=[str(run) for run in runs]))


def _address(config: RunnableConfig) -> tuple[str, str, str]:
    conf = config["configurable"]
    return str(conf["thread_id"]), conf.get("checkpoint_ns", ""), get_checkpoint_id(config) or ""


def _head(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint without its values; copied, for the loop goes on to change versions in place."""
    return {
        **{key: value for key, value in checkpoint.items() if key != "channel_values"},
        "channel_versions": dict(checkpoint["channel_versions"]),
        "versions_seen": {node: dict(seen) for node, seen in checkpoint["versions_seen"].items()},
    }
