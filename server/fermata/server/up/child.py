"""One child process, kept alive: its command, its log, its readiness, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fermata.server.up.errors import CONFIG_EXIT_CODE, ChildFailedError
from fermata.server.up.proc import die_with_parent, in_session, kill_all, process_table
from fermata.server.up.restart import GiveUp, after_exit

LOG_BYTES = 10 * 1024 * 1024
"""A log that is longer when its child starts is set aside, in place of the one set aside before."""
TAIL_BYTES = 4096
KILL_SECONDS = 5.0
CHILD_ERROR = re.compile(r"^error \[(?P<reason>[A-Z_]+)\] (?P<message>.+)$", re.MULTILINE)

Ready = Callable[["Child", int], Awaitable[None]]
"""Returns once a started child can be used; the second argument reads its ready pipe."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class ChildSpec:
    """What a child is.

    :param title: what people call it.
    :param ready_text: what they are told when it can be used.
    :param command: made anew for each start; ``{ready_fd}`` stands for the pipe on which it may say that it
        is ready.
    :param ready: waits until it can be used.
    :param before: done before each start.
    :param after: told that it has ended, before it is started again.
    :param stop_seconds: how long it may take to end; 0 kills it at once.
    """

    name: str
    title: str
    ready_text: str
    command: Callable[[], Sequence[str]]
    ready: Ready
    environment: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[], None] = lambda: None
    after: Callable[[], Awaitable[None]] | None = None
    stop_seconds: float = 5.0


class Child:
    """Starts a process and starts it again when it ends, until it is stopped.

    Each process leads a session of its own, which is ended with it.

    :param logs: folder; output goes to ``<name>.log`` in it.
    :param tell: takes lines for the person who watches.
    """

    def __init__(self, spec: ChildSpec, *, logs: Path, tell: Tell) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.pid = 0
        self.first_ready = asyncio.Event()
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._log_start = 0

    async def run(self) -> None:
        """Keeps the child alive until ``stop``.

        :raises ChildFailedError: it ended with a configuration error, or again and again before it was ready.
        """
        failures = 0
        while not self._stopping:
            started = time.monotonic()
            exit_code = await self._live(started)
            if self._stopping:
                return
            if self.spec.after is not None:
                await self.spec.after()
            lived = time.monotonic() - started
            decision = after_exit(
                exit_code=exit_code,
                lived_seconds=lived,
                failures=failures,
                was_ready=self.first_ready.is_set(),
            )
            if isinstance(decision, GiveUp):
                raise self._failure(exit_code)
            failures = decision.failures
            self._tell(
                f"{self.spec.title} ended with {exit_code} after {lived:.1f} s; "
                f"again in {decision.after_seconds:.2f} s (log: {self.log})"
            )
            await asyncio.sleep(decision.after_seconds)

    async def restart(self) -> None:
        """Ends the present process hard; ``run`` starts the next."""
        if self._process is not None and self._process.returncode is None:
            await self._end_session()

    async def stop(self, *, hard: bool = False) -> None:
        """Ends the process with SIGTERM, and what is left of its session after ``stop_seconds`` with SIGKILL.
        A repeat is harmless.
        """
        self._stopping = True
        process = self._process
        if process is None:
            return
        if process.returncode is None and self.spec.stop_seconds > 0 and not hard:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self.spec.stop_seconds)
        await self._end_session()

    def tail(self) -> str:
        """What the present or last process wrote last."""
        try:
            with self.log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, end - TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def _failure(self, exit_code: int) -> ChildFailedError:
        facts = {"child": self.spec.name, "log": str(self.log)}
        if exit_code == CONFIG_EXIT_CODE and (said := CHILD_ERROR.search(self.tail())):
            # It has said itself what is wrong, in the way in which all of ours do.
            return ChildFailedError(said["reason"], said["message"], exit_code=exit_code, **facts)
        message = f"{self.spec.title} can't run: it ended with {exit_code}. From {self.log}:\n{self.tail()}"
        return ChildFailedError("CHILD_FAILED", message, exit_code=exit_code, **facts)

    async def _live(self, started: float) -> int:
        self.spec.before()
        read_end, write_end = os.pipe()
        command = [part.replace("{ready_fd}", str(write_end)) for part in self.spec.command()]
        try:
            with _open_log(self.log) as log:
                self._log_start = log.tell()
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    env=dict(self.spec.environment),
                    pass_fds=[write_end],
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
        finally:
            os.close(write_end)
        self._process = process
        self.pid = process.pid
        ready = asyncio.create_task(self._note_ready(read_end, started))
        try:
            return await process.wait()
        finally:
            ready.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ready
            os.close(read_end)
            await self._end_session()

    async def _note_ready(self, read_end: int, started: float) -> None:
        await self.spec.ready(self, read_end)
        again = " again" if self.first_ready.is_set() else ""
        self._tell(f"{self.spec.ready_text}{again} ({time.monotonic() - started:.1f} s)")
        self.first_ready.set()

    async def _end_session(self) -> None:
        session = self.pid
        if session:
            await asyncio.to_thread(kill_all, lambda: in_session(process_table(), session), KILL_SECONDS)


async def ready_line(_: Child, read_end: int) -> None:
    """Ready when the child has written a line to its pipe. One that ends without it is never ready."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    pipe = os.fdopen(os.dup(read_end), "rb")
    transport, _protocol = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        if not await reader.readline():
            await asyncio.Event().wait()
    finally:
        transport.close()


def _open_log(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    file = path.open("ab")
    file.seek(0, os.SEEK_END)
    return file
