"""A worker's side of its warden: start it, let it start zygotes, and tell it that the worker is alive. And anyone's: wait
until the warden of a worker has ended everything."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fermata.agents.runtime import control, warden
from fermata.agents.runtime.frames import socket_pair

BEAT_SECONDS = 1.0
"""How often the event loop says that it goes round."""


class Warden:
    """A running warden. Made by ``start``.

    Its ``spawn`` is a ``spawning.Spawn``.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        sock: socket.socket,
        on_latch: Callable[[str], None],
    ) -> None:
        self._process = process
        self._socket = sock
        self._on_latch = on_latch
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._children: dict[int, WardenChild] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())
        self._beats = asyncio.create_task(self._beat())

    @classmethod
    async def start(cls, name: str, *, latch: Path | None, on_latch: Callable[[str], None]) -> Warden:
        """Start a warden for the calling process, and return when it is on watch.

        :param name: by which others wait for its end; the worker's id.
        :param latch: the file that halts everything on this machine.
        :param on_latch: told why everything here is halted, before anything is killed for it; and with nothing when it is
            not any more.
        :raises ChildProcessError: it did not start.
        """
        ours, theirs = socket_pair()
        command = ["-P", "-m", warden.__name__, "--control-fd", str(theirs.fileno()), "--name", name]
        command += ["--latch", str(latch)] if latch is not None else []
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            theirs.close()
        ours.setblocking(False)
        started = cls(process, ours, on_latch)
        await started._ready
        return started

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def spawn(
        self, command: Sequence[str], descriptors: Mapping[str, int], environment: Mapping[str, str]
    ) -> WardenChild:
        """Start a process; see ``spawning.Spawn``.

        :raises ChildProcessError: the latch file is there, or the warden is gone.
        """
        self._number += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = answer
        facts = {
            "command": list(command),
            "flags": list(descriptors),
            "environment": dict(environment),
        }
        self._send({"op": "spawn", "id": self._number, **facts}, tuple(descriptors.values()))
        told = await answer
        if told["op"] == "refused":
            raise ChildProcessError(told["reason"])
        return self._children[told["pid"]]

    async def close(self) -> None:
        """End it and everything that it has started; returns when all is dead. A repeat does nothing."""
        self._beats.cancel()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        await self._process.wait()
        await asyncio.wait([self._reader])
        self._socket.close()

    async def ended(self) -> int:
        """Wait until it has ended: its return code. Nobody else can end for certain then what the worker has started."""
        return await self._process.wait()

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            self._send({"op": "kill", "pid": pid})

    def _send(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        try:
            # Small enough for the socket's buffer, as long as the warden is not itself frozen.
            control.send(self._socket, message, descriptors)
        except OSError as error:
            raise ChildProcessError(f"The worker's warden is gone: {error.strerror}.") from error

    async def _beat(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                self._send({"op": "beat"})
                await asyncio.sleep(BEAT_SECONDS)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (message := await control.read(loop, self._socket)) is not None:
                self._take(message)
        finally:
            gone = ChildProcessError("The worker's warden is gone.")
            waits: list[asyncio.Future[Any]] = [self._ready, *self._answers.values()]
            for waiting in waits:
                if not waiting.done():
                    waiting.set_exception(gone)
                    waiting.exception()
            # It ends last. If it was killed, nobody can say of what its children have left behind that it is dead.
            if await self._process.wait() == 0:
                for child in self._children.values():
                    child.note_end(-signal.SIGKILL)

    def _take(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "ready":
                self._ready.set_result(None)
            case "latched":
                self._on_latch(message["reason"])
            case "unlatched":
                self._on_latch("")
            case "exited":
                self._children.pop(message["pid"]).note_end(message["exit_code"])
            case "spawned" | "refused":
                if message["op"] == "spawned":
                    self._children[message["pid"]] = WardenChild(message["pid"], self._kill)
                if not (answer := self._answers.pop(message["id"])).done():
                    answer.set_result(message)


class WardenChild:
    """A process that the warden has started. Implements ``spawning.Spawned``."""

    def __init__(self, pid: int, kill: Callable[[int], None]) -> None:
        self.pid = pid
        self._kill = kill
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def returncode(self) -> int | None:
        """How it has ended; None while that is not known."""
        return self._end.result() if self._end.done() else None

    async def wait(self) -> int:
        """Wait until it is dead with everything that it has left behind: its return code."""
        return await asyncio.shield(self._end)

    def kill(self) -> None:
        """End it at once."""
        if not self._end.done():
            self._kill(self.pid)

    def note_end(self, code: int) -> None:
        """Take the warden's word that it has ended."""
        if not self._end.done():
            self._end.set_result(code)


async def all_ended(name: str) -> None:
    """Wait until the warden of this name has ended: nothing is left then of what its worker had started on this machine.
    Returns at once where there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        # It never answers, and its end closes the connection.
        with contextlib.suppress(ConnectionError):
            await loop.sock_connect(sock, warden.address(name))
            await loop.sock_recv(sock, 1)
