"""LangGraph's checkpointer over the host's socket: a run's latest state in memory, and what is new as one commit.

``put`` and ``put_writes`` only buffer: LangGraph ignores what they return, and the gate, park and finish messages take
the buffer along in their own transaction, which makes a tool's task durable before its effect. A timer flushes what no
message takes. Reads come from memory where this host wrote, and from the server where it did not. Memory holds the
bytes that were committed, not the objects: a node that changed its state in place and is executed again after an
approval must find what was stored, or its calls would get other digests. Threads other than the run's own (a graph that
a node calls with a thread of its own) live in memory alone.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias, cast

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

from fermata.agents.runtime.errors import HostError, StateNotSerializableError
from fermata.agents.runtime.run import ActiveRun, answer_of
from fermata.v1 import worker_pb2

_logger = logging.getLogger(__name__)

TASK_SEPARATOR = ":"
"""Between a node and its task's id in a checkpoint namespace (``node:task|node:task``)."""

_KEPT = 2
"""Checkpoints of a namespace that stay in memory: the latest, and its parent while its tasks still write."""

Rows: TypeAlias = list[CheckpointTuple]
"""Needs a name of its own: the checkpointer has a method ``list``."""

_EMPTY = "empty"
"""Type tag of a channel that has a version and no value."""


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
    channels: dict[str, worker_pb2.Blob] = field(default_factory=dict)
    writes: dict[tuple[str, int], tuple[str, worker_pb2.Blob, str]] = field(default_factory=dict)


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
        query = worker_pb2.CheckpointQuery(namespace=namespace, checkpoint_id=checkpoint_id)
        reply = answer_of(await asyncio.wrap_future(self._run.send(checkpoint_query=query)))
        return self._learn(namespace, checkpoint_id, reply)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As ``aget_tuple``, for graphs that are invoked synchronously."""
        thread, namespace, checkpoint_id = _address(config)
        if (found := self._recall(thread, namespace, checkpoint_id)) is not None or self._complete(
            thread, namespace, checkpoint_id
        ):
            return found
        query = worker_pb2.CheckpointQuery(namespace=namespace, checkpoint_id=checkpoint_id)
        return self._learn(
            namespace, checkpoint_id, answer_of(self._run.send(checkpoint_query=query).result())
        )

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints of the config's namespace, newest first."""
        if (query := self._list_query(config, before, limit)) is None:
            rows = self._list_memory(config, before)
        else:
            rows = self._tuples(answer_of(await asyncio.wrap_future(query)))
        for row in _cut(rows, filter, limit):
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
        query = self._list_query(config, before, limit)
        rows = self._list_memory(config, before) if query is None else self._tuples(answer_of(query.result()))
        yield from _cut(rows, filter, limit)

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
        """
        thread, namespace, parent_id = _address(config)
        kept = get_checkpoint_metadata(config, metadata)
        head = _head(checkpoint)
        values = checkpoint["channel_values"]
        with self._lock:
            rows = self._memory.setdefault((thread, namespace), {})
            before = rows[parent_id].channels if parent_id in rows else {}
            channels = {
                channel: self._blob(channel, value)
                if channel in new_versions or channel not in before
                else before[channel]
                for channel, value in values.items()
            }
            rows[checkpoint["id"]] = _Stored(head, kept, parent_id, channels)
            self._loaded.add((thread, namespace))
            if thread == self._run.thread:
                for old in sorted(rows)[:-_KEPT]:
                    del rows[old]
        if thread == self._run.thread:
            put = worker_pb2.CheckpointPut(
                namespace=namespace,
                checkpoint_id=checkpoint["id"],
                parent_id=parent_id,
                checkpoint=self._blob("(checkpoint)", head),
                metadata=self._blob("(metadata)", kept),
                channels=[
                    worker_pb2.ChannelBlob(
                        channel=channel,
                        version=str(version),
                        value=channels.get(channel, worker_pb2.Blob(type=_EMPTY)),
                    )
                    for channel, version in new_versions.items()
                ],
                channel_versions={
                    channel: str(version) for channel, version in head["channel_versions"].items()
                },
            )
            self._run.buffer(lambda commit: commit.checkpoints.append(put))
        else:
            _logger.warning(
                "the graph keeps state in the thread %r, which is not its run's: it lives in memory alone",
                thread,
            )
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
        """
        thread, namespace, checkpoint_id = _address(config)
        message = worker_pb2.CheckpointWrites(
            namespace=namespace, checkpoint_id=checkpoint_id, task_id=task_id, task_path=task_path
        )
        with self._lock:
            stored = self._memory.get((thread, namespace), {}).get(checkpoint_id)
            for position, (channel, value) in enumerate(writes):
                index = WRITES_IDX_MAP.get(channel, position)
                if stored is not None and index >= 0 and (task_id, index) in stored.writes:
                    continue
                blob = self._blob(channel, value)
                if stored is not None:
                    stored.writes[(task_id, index)] = (channel, blob, task_path)
                if thread == self._run.thread:
                    message.writes.append(worker_pb2.ChannelWrite(index=index, channel=channel, value=blob))
        if message.writes:
            self._run.buffer(lambda commit: commit.writes.append(message))

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

    def delete_thread(self, thread_id: str) -> NoReturn:
        """
        :raises UnsupportedError: always; a thread is deleted over the API.
        """
        raise UnsupportedError(
            f"A run can't delete the state of the thread {thread_id!r}: it holds the run's own record. Delete the thread over the API."
        )

    async def adelete_thread(self, thread_id: str) -> NoReturn:
        """As ``delete_thread``."""
        self.delete_thread(thread_id)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Versions that sort as text: a counter of 32 digits, and a random part, for a thread that was rolled back
        counts anew."""
        return f"{(int(current.split('.')[0]) if current else 0) + 1:032}.{secrets.token_hex(8)}"

    # memory

    def _complete(self, thread: str, namespace: str, checkpoint_id: str) -> bool:
        """True where memory holds all that there is, so that nothing found means that there is nothing."""
        if thread != self._run.thread:
            return True
        if checkpoint_id:
            return False
        return (thread, namespace) in self._loaded or (self._fresh and TASK_SEPARATOR in namespace)

    def _recall(self, thread: str, namespace: str, checkpoint_id: str) -> CheckpointTuple | None:
        with self._lock:
            rows = self._memory.get((thread, namespace))
            if not rows:
                return None
            stored = rows.get(checkpoint_id or max(rows))
            return None if stored is None else self._tuple(thread, namespace, stored)

    def _learn(
        self, namespace: str, checkpoint_id: str, reply: worker_pb2.HostReply
    ) -> CheckpointTuple | None:
        thread = self._run.thread
        found = [self._load(row) for row in reply.checkpoints.checkpoints]
        with self._lock:
            if not checkpoint_id:
                self._loaded.add((thread, namespace))
                if found:
                    self._memory.setdefault((thread, namespace), {})[found[0].head["id"]] = found[0]
        return self._tuple(thread, namespace, found[0]) if found else None

    def _list_query(
        self, config: RunnableConfig | None, before: RunnableConfig | None, limit: int | None
    ) -> Future[worker_pb2.HostReply] | None:
        if config is None:
            raise UnsupportedError("A run can list checkpoints of one thread only: give a config.")
        thread, namespace, checkpoint_id = _address(config)
        if thread != self._run.thread:
            return None
        return self._run.send(
            checkpoint_query=worker_pb2.CheckpointQuery(
                namespace=namespace,
                checkpoint_id=checkpoint_id,
                list=True,
                before=(get_checkpoint_id(before) or "") if before else "",
                limit=limit or 0,
            )
        )

    def _list_memory(self, config: RunnableConfig | None, before: RunnableConfig | None) -> Rows:
        assert config is not None
        thread, namespace, _ = _address(config)
        bound = get_checkpoint_id(before) if before else None
        with self._lock:
            rows = self._memory.get((thread, namespace), {})
            ids = sorted((key for key in rows if bound is None or key < bound), reverse=True)
            return [self._tuple(thread, namespace, rows[key]) for key in ids]

    def _tuples(self, reply: worker_pb2.HostReply) -> Rows:
        return [
            self._tuple(self._run.thread, row.put.namespace, self._load(row))
            for row in reply.checkpoints.checkpoints
        ]

    # bytes

    def _load(self, row: worker_pb2.StoredCheckpoint) -> _Stored:
        head = self._value(row.put.checkpoint)
        versions = head["channel_versions"]
        return _Stored(
            head=head,
            metadata=self._value(row.put.metadata),
            parent_id=row.put.parent_id,
            channels={
                blob.channel: blob.value
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
                        channel: self._value(blob) for channel, blob in stored.channels.items()
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
        return self.serde.loads_typed((blob.type, blob.data))

    def _blob(self, channel: str, value: Any) -> worker_pb2.Blob:
        try:
            kind, data = self.serde.dumps_typed(value)
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"its value of type {type(value).__name__} can't be serialised ({error})"
            failure = StateNotSerializableError(channel, problem)
            self._run.fail(failure)
            raise failure from error
        return worker_pb2.Blob(type=kind, data=data)


def _address(config: RunnableConfig) -> tuple[str, str, str]:
    conf = config["configurable"]
    return conf["thread_id"], conf.get("checkpoint_ns", ""), get_checkpoint_id(config) or ""


def _head(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint without its values; copied, for the loop goes on to change versions in place."""
    return {
        **{key: value for key, value in checkpoint.items() if key != "channel_values"},
        "channel_versions": dict(checkpoint["channel_versions"]),
        "versions_seen": {node: dict(seen) for node, seen in checkpoint["versions_seen"].items()},
    }


def _cut(rows: Sequence[CheckpointTuple], wanted: dict[str, Any] | None, limit: int | None) -> Rows:
    kept = [
        row
        for row in rows
        if not wanted or all(row.metadata.get(key) == value for key, value in wanted.items())
    ]
    return kept if limit is None else kept[:limit]
