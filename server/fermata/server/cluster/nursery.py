"""Zygotes and hosts by revision: who exists, who is shared, who waits ready, and who is no longer worth its
memory.

A revision's zygote is started by the first run that needs it and kept while it has hosts, and beyond that
while it is among the last few that were used. A revision whose code is all async has one host for all its
runs; any other has one host per run, and one more that is already forked, so that the next run does not wait
for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from fermata.server.cluster.hosts import (
    GraphNotLoadedError,
    HostProcess,
    StartZygote,
    Zygote,
    ZygoteGoneError,
)
from fermata.v1.agent_pb2 import AgentSpec, GraphReport

log = logging.getLogger(__name__)

MAX_IDLE_ZYGOTES = 3
"""Zygotes without runs that are kept, those used last."""


@dataclass(eq=False)
class _Revision:
    zygote: asyncio.Task[Zygote]
    shared: asyncio.Task[HostProcess] | None = None
    spare: HostProcess | None = None
    refill: asyncio.Task[None] | None = None
    hosts: set[HostProcess] = field(default_factory=set)
    waiting: int = 0
    """Calls that are in the middle of using it."""

    @property
    def idle(self) -> bool:
        busy = self.hosts - ({self.spare} if self.spare else set())
        return not busy and not self.waiting


class HostNursery:
    """Gives out hosts.

    :param start_zygote: starts a revision's zygote.
    :param unpack: pack digest to the folder with its files.
    :param on_fork: told of every new host, before anyone else knows it.
    """

    def __init__(
        self,
        start_zygote: StartZygote,
        unpack: Callable[[str], Awaitable[Path]],
        on_fork: Callable[[HostProcess], None],
    ) -> None:
        self._start_zygote = start_zygote
        self._unpack = unpack
        self._on_fork = on_fork
        self._revisions: OrderedDict[str, _Revision] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def host(self, spec: AgentSpec, *, shared: bool) -> HostProcess:
        """A host for a run: the revision's shared one, or one for this run alone.

        :raises GraphNotLoadedError: the graph can't be loaded.
        :raises ZygoteGoneError: its zygote ended, and so did a second one.
        Whatever ``unpack`` raises passes through.
        """
        try:
            return await self._host(spec, shared)
        except ZygoteGoneError:
            return await self._host(spec, shared)

    async def inspect(self, spec: AgentSpec) -> GraphReport:
        """What is in a revision's graph. Raises as ``host`` does."""
        revision = self._revision(spec)
        revision.waiting += 1
        try:
            return await (await self._zygote(spec, revision)).inspect()
        except (GraphNotLoadedError, ZygoteGoneError):
            self._discard(revision)
            raise
        finally:
            revision.waiting -= 1
            self._evict()

    def gone(self, host: HostProcess) -> None:
        """Notes that a host has ended."""
        for revision in self._revisions.values():
            revision.hosts.discard(host)
            if revision.spare is host:
                revision.spare = None
            shared = revision.shared
            if shared and shared.done() and not shared.exception() and shared.result() is host:
                revision.shared = None
        self._evict()

    async def close(self) -> None:
        """Ends every zygote and host."""
        for revision in list(self._revisions.values()):
            self._discard(revision)
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _host(self, spec: AgentSpec, shared: bool) -> HostProcess:
        revision = self._revision(spec)
        revision.waiting += 1
        try:
            if shared:
                if revision.shared is None:
                    revision.shared = asyncio.create_task(self._fork(spec, revision))
                return await asyncio.shield(revision.shared)
            host, revision.spare = revision.spare, None
            if host is None:
                host = await self._fork(spec, revision)
            if revision.refill is None or revision.refill.done():
                revision.refill = asyncio.create_task(self._refill(spec, revision))
            return host  # noqa: TRY300
        except (GraphNotLoadedError, ZygoteGoneError):
            self._discard(revision)
            raise
        finally:
            revision.waiting -= 1
            self._evict()

    def _revision(self, spec: AgentSpec) -> _Revision:
        key = hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()
        revision = self._revisions.get(key)
        if revision is None:
            revision = _Revision(asyncio.create_task(self._start(spec)))
            self._revisions[key] = revision
        self._revisions.move_to_end(key)
        return revision

    async def _start(self, spec: AgentSpec) -> Zygote:
        folder = await self._unpack(spec.pack_digest) if spec.pack_digest else None
        return await self._start_zygote(spec, folder)

    async def _zygote(self, spec: AgentSpec, revision: _Revision) -> Zygote:
        try:
            return await asyncio.shield(revision.zygote)
        except asyncio.CancelledError:
            if not revision.zygote.cancelled():
                raise
            raise ZygoteGoneError(f"the zygote of {spec.graph} was closed") from None
        except Exception:
            # The next run tries again: a pack may be there by then, or a package installed.
            self._discard(revision)
            raise

    async def _fork(self, spec: AgentSpec, revision: _Revision) -> HostProcess:
        host = await (await self._zygote(spec, revision)).fork()
        revision.hosts.add(host)
        self._on_fork(host)
        return host

    async def _refill(self, spec: AgentSpec, revision: _Revision) -> None:
        try:
            revision.spare = await self._fork(spec, revision)
        except (ZygoteGoneError, GraphNotLoadedError) as error:
            log.info("no spare host for %s: %s", spec.graph, error)

    def _evict(self) -> None:
        idle = [revision for revision in self._revisions.values() if revision.idle]
        for revision in idle[: max(0, len(idle) - MAX_IDLE_ZYGOTES)]:
            self._discard(revision)

    def _discard(self, revision: _Revision) -> None:
        for key, known in list(self._revisions.items()):
            if known is revision:
                del self._revisions[key]
                task = asyncio.create_task(_close(revision))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)


async def _close(revision: _Revision) -> None:
    if revision.refill is not None:
        revision.refill.cancel()
    if not revision.zygote.done():
        revision.zygote.cancel()
    await asyncio.wait([revision.zygote])
    if not revision.zygote.cancelled() and revision.zygote.exception() is None:
        await revision.zygote.result().close()
