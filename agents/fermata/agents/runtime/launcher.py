"""A worker's side of a zygote: start it, let it fork hosts, kill a host, and hear of every end. asyncio, one task, no
threads."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import sys
from dataclasses import dataclass
from typing import Any

from fermata.agents.runtime import control
from fermata.agents.runtime.environment import host_environment
from fermata.agents.runtime.errors import GraphInvalidError, HostError
from fermata.agents.runtime.frames import FrameStream, socket_pair
from fermata.agents.runtime.spawning import Spawn, Spawned, as_child
from fermata.v1 import agent_pb2, worker_pb2

END_SECONDS = 5.0
"""How long a zygote may live on after it has closed its control socket, or ours has been closed, before it is killed."""


class ZygoteGoneError(HostError):
    """The zygote has ended; all its hosts are dead or dying. With a warden, all are dead, and what they have started."""

    reason = "ZYGOTE_GONE"


@dataclass(frozen=True)
class HostEnd:
    """A host is dead, confirmed by its parent, with all its descendants. Killed by a signal: minus its number."""

    pid: int
    exit_code: int
    stderr: str


class HostProcess:
    """A run host. Its first message is ``ready``.

    ``stream`` carries ``ServerMessage`` to it and ``WorkerMessage`` from it.
    """

    def __init__(
        self, zygote: ZygoteProcess, pid: int, stream: FrameStream[worker_pb2.WorkerMessage]
    ) -> None:
        self._zygote = zygote
        self.pid = pid
        self.stream = stream

    async def kill(self) -> HostEnd:
        """Kill it with all its descendants; returns when they are dead. A repeat returns the same.

        :raises ZygoteGoneError: where the zygote ended first: the kernel kills its hosts then, and nobody confirms it.
        """
        return await self._zygote.kill(self.pid)

    async def ended(self) -> HostEnd:
        """Wait until it is dead.

        :raises ZygoteGoneError: as ``kill``.
        """
        return await self._zygote.ended(self.pid)

    def kill_zygote(self) -> None:
        """Kill the zygote that does not obey, and with it all of its hosts."""
        self._zygote.kill_at_once()


class ZygoteProcess:
    """A running zygote. Made by ``start``."""

    def __init__(self, process: Spawned, sock: socket.socket) -> None:
        self._process = process
        self._socket = sock
        self._ends: dict[int, asyncio.Future[HostEnd]] = {}
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._reader: asyncio.Task[None] | None = None
        self._loaded: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.forkable = True
        """False where loading the graph started threads: hosts then take as long to start as the graph takes to load."""

    @classmethod
    async def start(
        cls,
        spec: agent_pb2.AgentSpec,
        *,
        pack: str | None = None,
        load_seconds: float = 120.0,
        spawn: Spawn = as_child,
    ) -> ZygoteProcess:
        """Start a zygote and wait until it has loaded the graph.

        :param pack: folder of the unpacked pack.
        :param load_seconds: how long loading may take.
        :param spawn: starts the process.
        :raises HostError: as the graph's loading failed: GRAPH_INVALID, SECRET_MISSING, MODEL_KEY_MISSING, ...
        :raises ZygoteGoneError: where it was killed meanwhile, or may not be started now.
        """
        ours, theirs = socket_pair()
        content = os.memfd_create("fermata-spec")
        try:
            os.write(content, spec.SerializeToString())
            # -P: what lies in the worker's folder is no module of an agent's.
            command = [sys.executable, "-P", "-m", "fermata.agents.runtime.zygote"]
            command += ["--pack", pack] if pack else []
            descriptors = {"--control-fd": theirs.fileno(), "--spec-fd": content}
            process = await spawn(command, descriptors, host_environment(spec))
        except ChildProcessError as error:
            ours.close()
            raise ZygoteGoneError(f"No process for the graph {spec.graph} was started: {error}") from error
        finally:
            theirs.close()
            os.close(content)
        ours.setblocking(False)
        zygote = cls(process, ours)
        zygote._reader = asyncio.create_task(zygote._read())
        try:
            async with asyncio.timeout(load_seconds):
                told = await zygote._loaded
        except TimeoutError:
            await zygote.close()
            raise GraphInvalidError(
                f"Loading the graph {spec.graph} took longer than {load_seconds:g} s."
            ) from None
        except ZygoteGoneError:
            await zygote.close()
            code = process.returncode or 0
            message = f"The process ended (exit code {code}) while it loaded the graph {spec.graph}."
            # Killed by a signal: that may have come from anywhere, and says nothing about the graph.
            raise (ZygoteGoneError(message) if code < 0 else GraphInvalidError(message)) from None
        if told["op"] == "failed":
            await zygote.close()
            raise HostError(told["message"], reason=told["reason"], detail=told["detail"])
        zygote.forkable = told["forkable"]
        return zygote

    @property
    def pid(self) -> int:
        """The zygote's process id."""
        return self._process.pid

    async def fork(self) -> HostProcess:
        """Start a host.

        :raises ZygoteGoneError: where the zygote has ended.
        """
        ours, theirs = socket_pair()
        try:
            told = await self._ask("fork", descriptors=(theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        pid = told["pid"]
        return HostProcess(self, pid, await FrameStream.open(ours, worker_pb2.WorkerMessage))

    async def kill(self, pid: int) -> HostEnd:
        """As ``HostProcess.kill``."""
        ended = self._end_of(pid)
        if not ended.done():
            await self._ask("kill", pid=pid)
        return await asyncio.shield(ended)

    async def ended(self, pid: int) -> HostEnd:
        """As ``HostProcess.ended``."""
        return await asyncio.shield(self._end_of(pid))

    async def inspect(self) -> agent_pb2.GraphReport:
        """What is in the loaded graph.

        :raises ZygoteGoneError: where the zygote has ended.
        """
        told = await self._ask("inspect")
        return agent_pb2.GraphReport.FromString(base64.b64decode(told["report"]))

    async def close(self) -> None:
        """End the zygote and all its hosts; returns when it is dead."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._reader is not None:
            await asyncio.wait([self._reader])
        self._socket.close()

    def kill_at_once(self) -> None:
        """Kill the zygote; the kernel kills its hosts with it. All are told of as if it had ended by itself."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _ask(self, operation: str, descriptors: tuple[int, ...] = (), **facts: Any) -> dict[str, Any]:
        if self._reader is None or self._reader.done():
            raise ZygoteGoneError("The zygote has ended.")
        self._number += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = answer
        try:
            # Small enough for the socket's buffer: the zygote takes one command after the other, and nobody sends many.
            control.send(self._socket, {"op": operation, "id": self._number, **facts}, descriptors)
        except OSError as error:
            raise ZygoteGoneError("The zygote has ended.") from error
        return await answer

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (message := await control.read(loop, self._socket)) is not None:
                self._take(message)
            await self._dead()
        finally:
            gone = ZygoteGoneError("The zygote has ended.")
            waits: list[asyncio.Future[Any]] = [self._loaded, *self._answers.values(), *self._ends.values()]
            for waiting in waits:
                if not waiting.done():
                    waiting.set_exception(gone)
                    # Nobody may be waiting for it.
                    waiting.exception()

    async def _dead(self) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.kill_at_once()
            await self._process.wait()

    def _end_of(self, pid: int) -> asyncio.Future[HostEnd]:
        if pid not in self._ends:
            self._ends[pid] = asyncio.get_running_loop().create_future()
            if self._reader is None or self._reader.done():
                self._ends[pid].set_exception(ZygoteGoneError("The zygote has ended."))
        return self._ends[pid]

    def _take(self, message: dict[str, Any]) -> None:
        if message["op"] in ("ready", "failed"):
            self._loaded.set_result(message)
        elif message["op"] == "ended":
            ended = self._end_of(message["pid"])
            if not ended.done():
                ended.set_result(HostEnd(message["pid"], message["exit_code"], message["stderr"]))
        else:
            if message["op"] == "forked":
                # Process ids come again; what was known of an earlier host is not this one's end.
                self._ends.pop(message["pid"], None)
            self._answer(message)

    def _answer(self, message: dict[str, Any]) -> None:
        if (answer := self._answers.pop(message["id"], None)) is not None and not answer.done():
            answer.set_result(message)
