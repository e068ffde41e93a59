"""The runtime's zygotes and hosts, as the worker wants them: bounded queues, and an end that is certain even
where a zygote dies first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path

from fermata.agents.runtime import launcher
from fermata.agents.runtime.errors import FrameInvalidError, FrameTooLargeError, HostError
from fermata.agents.runtime.spawning import Spawn, as_child
from fermata.server.cluster.hosts import GraphNotLoadedError, HostExit, ZygoteGoneError
from fermata.v1.agent_pb2 import AgentSpec, GraphReport
from fermata.v1.worker_pb2 import HostMessage, ServerMessage

log = logging.getLogger(__name__)

MAX_UNREAD_BYTES = 128 * 1024 * 1024
"""A host that has left so much unread for so long is taken for stuck."""

KILL_SECONDS = 1.0
"""How long a zygote may take to kill a host, before it is killed itself: it is frozen, or stuck."""


class ForkedHost:
    """A host that a zygote forked. Implements ``hosts.HostProcess``."""

    def __init__(self, process: launcher.HostProcess) -> None:
        self._process = process
        # Says when the process ends, also after its zygote can't any more. The number can't be taken by another before it is open,
        # for the zygote has not waited for the process yet.
        self._pidfd = os.pidfd_open(process.pid)
        self._unread_bytes = 0
        self._draining: asyncio.Task[None] | None = None
        self._end: asyncio.Task[HostExit] = asyncio.create_task(self._wait())

    @property
    def pid(self) -> int:
        """Its process id, which is also its process group's."""
        return self._process.pid

    def send(self, message: ServerMessage) -> None:
        """Queues a message for the host; to a host that has ended it does nothing.

        :raises BufferError: the host has not read for so long that its queue is full, or no frame holds the message.
        """
        if self._end.done():
            return
        self._unread_bytes += message.ByteSize()
        if self._unread_bytes > MAX_UNREAD_BYTES:
            raise BufferError(f"host {self.pid} has {self._unread_bytes} bytes unread")
        try:
            self._process.stream.send(message)
        except FrameTooLargeError as error:
            raise BufferError(error.message) from error
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())

    async def receive(self) -> HostMessage | None:
        """The next message; ``None`` once the host has closed its end, or sent what is no frame."""
        try:
            while (message := await self._process.stream.receive()) is not None:
                if message.WhichOneof("body") == "host":
                    return message.host
        except (FrameTooLargeError, FrameInvalidError) as error:
            log.warning("host %d is killed: %s", self.pid, error)
            await self.kill()
        return None

    async def kill(self) -> HostExit:
        """Ends the process and all its children, and returns once it is confirmed dead. A repeat returns the
        same.
        """
        if not self._end.done():
            try:
                async with asyncio.timeout(KILL_SECONDS):
                    await self._process.kill()
            except TimeoutError:
                log.warning("the zygote of host %d does not kill it, and is killed with its hosts", self.pid)
                self._process.kill_zygote()
            except launcher.ZygoteGoneError:
                self._kill_directly()
        return await self.ended()

    async def ended(self) -> HostExit:
        """Waits until the process has ended."""
        return await asyncio.shield(self._end)

    async def _wait(self) -> HostExit:
        try:
            end = await self._process.ended()
            return HostExit(end.exit_code, end.stderr)
        except launcher.ZygoteGoneError:
            # The kernel kills it with its zygote; it is dead when its descriptor says so, and not before.
            self._kill_directly()
            await _readable(self._pidfd)
            return HostExit(-signal.SIGKILL, "Its zygote ended, and it was killed with it.")
        finally:
            os.close(self._pidfd)
            self._process.stream.close()

    def _kill_directly(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def _drain(self) -> None:
        await self._process.stream.drain()
        self._unread_bytes = 0


class RunningZygote:
    """A revision's zygote. Implements ``hosts.Zygote``."""

    def __init__(self, process: launcher.ZygoteProcess) -> None:
        self._process = process

    async def fork(self) -> ForkedHost:
        """A new host.

        :raises ZygoteGoneError: the zygote has ended.
        """
        try:
            return ForkedHost(await self._process.fork())
        except launcher.ZygoteGoneError as error:
            raise ZygoteGoneError(error.message) from error
        except ProcessLookupError as error:
            raise ZygoteGoneError("The host ended in the moment in which it was forked.") from error

    async def inspect(self) -> GraphReport:
        """What is in the graph.

        :raises ZygoteGoneError: the zygote has ended.
        """
        try:
            return await self._process.inspect()
        except launcher.ZygoteGoneError as error:
            raise ZygoteGoneError(error.message) from error

    async def close(self) -> None:
        """Ends the zygote and its hosts, and returns once they are dead. A repeat does nothing."""
        await self._process.close()


async def start_zygote(spec: AgentSpec, folder: Path | None, *, spawn: Spawn = as_child) -> RunningZygote:
    """Starts a revision's zygote, and returns when it has loaded the graph. Implements ``hosts.StartZygote``.

    :param spawn: starts its process; a warden's, so that also what a dead zygote leaves behind is ended for certain.
    :raises GraphNotLoadedError: the graph can't be loaded.
    :raises ZygoteGoneError: it was killed meanwhile, or may not be started now.
    """
    try:
        started = await launcher.ZygoteProcess.start(spec, pack=str(folder) if folder else None, spawn=spawn)
    except launcher.ZygoteGoneError as error:
        raise ZygoteGoneError(error.message) from error
    except HostError as error:
        raise GraphNotLoadedError(error.reason, error.message, error.detail) from error
    return RunningZygote(started)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
