"""The command line as a person and a script use it: at a pseudo-terminal, and through pipes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyte

LINES, COLUMNS = 60, 160
PATIENCE_SECONDS = 45.0


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FERMATA_")}


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its stream of JSON documents."""
        return [json.loads(line) for line in self.out.splitlines()]


class CommandLine:
    """``fermata`` with the data folder of a plane, without a terminal."""

    def __init__(self, data: Path) -> None:
        self._data = data

    async def __call__(self, *arguments: str, code: int = 0, stdin: str = "") -> Ended:
        """Run a command to its end; it must leave with ``code``."""
        fermata = Path(sys.executable).with_name("fermata")
        process = await asyncio.create_subprocess_exec(
            str(fermata),
            "--data",
            str(self._data),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin.encode()), PATIENCE_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        ended = Ended(process.returncode or 0, out.decode(), err.decode())
        assert ended.code == code, (arguments, ended)
        return ended


class Terminal:
    """A command at a pseudo-terminal, with a screen that can be read."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            [str(Path(sys.executable).with_name("fermata")), "--data", str(data), *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**_environment(), "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(theirs)
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def text(self) -> str:
        """What can be seen."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    async def until(self, words: str) -> None:
        """Read until ``words`` can be seen."""
        end = time.monotonic() + PATIENCE_SECONDS
        while words not in self.text:
            assert time.monotonic() < end, f"{words!r} did not appear:\n{self.text}"
            await asyncio.to_thread(self._read)

    async def ended(self) -> int:
        """Read until the command has ended; its exit code."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self._process.poll() is None:
            assert time.monotonic() < end, f"it does not end:\n{self.text}"
            await asyncio.to_thread(self._read)
        return int(self._process.returncode)

    def close(self) -> None:
        """End the command if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)

    def _read(self) -> None:
        ready, _, _ = select.select([self._ours], [], [], 0.1)
        if not ready:
            return
        try:
            found = os.read(self._ours, 65536)
        except OSError:
            return
        self._stream.feed(found)
        if b"\x1b[6n" in found:
            self.type(f"\x1b[{self._screen.cursor.y + 1};{self._screen.cursor.x + 1}R")
