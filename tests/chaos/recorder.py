"""The machines that tools act on: a process outside of Fermata that is never killed, and remembers all that happened to it.

A conversation is: the tool says what it is about to do, is told ``ready``, says ``do``, and is told ``done``. The effect happens
when ``do`` arrives. So a call whose conversations are all over, and that did not happen, can't happen any more by itself.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Self

LONG_SECONDS = 0.6
"""How long a machine takes at the most, before it is ready and again until it is done."""


@dataclass(frozen=True)
class Effect:
    """Something that happened to a machine."""

    call: str
    tool: str
    amount: int
    key: str
    run: str
    attempt: int
    pid: int


class Recorder:
    """Listens on loopback from ``start`` on."""

    def __init__(self) -> None:
        self.port = 0
        self.by_call: dict[str, list[Effect]] = defaultdict(list)
        self.arrivals = 0
        """Lines that have arrived: how far everything has come."""
        self.open: Counter[str] = Counter()
        """Conversations that are going on, by call."""
        self.pids: Counter[int] = Counter()
        """Processes that are in a conversation."""
        self._unheard: set[int] = set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self) -> Self:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    def has_happened(self, call: str) -> bool:
        """True where the call has had its effect."""
        return bool(self.by_call.get(call))

    def leave_unheard(self, pids: set[int]) -> None:
        """Have the machines let these processes wait, and no others: none where the set is empty."""
        self._unheard = pids
        self._changed.set()

    async def arrived(self, count: int) -> None:
        """Wait until so many lines have arrived."""
        while self.arrivals < count:
            await self.change()

    async def change(self) -> None:
        """Wait until anything has happened here."""
        self._changed.clear()
        await self._changed.wait()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if line := await reader.readline():
                await self._serve(Effect(**json.loads(line)), reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _serve(
        self, wanted: Effect, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # The same for every attempt: a plan of faults that is played again meets the same machines.
        rng = random.Random(wanted.call)
        self.open[wanted.call] += 1
        self.pids[wanted.pid] += 1
        self._arrived()
        try:
            if await self._answer(b"ready\n", wanted.pid, rng, reader, writer) == b"do\n":
                self.by_call[wanted.call].append(wanted)
                self._arrived()
                await self._answer(b"done\n", wanted.pid, rng, reader, writer)
        finally:
            self.open[wanted.call] -= 1
            self.pids[wanted.pid] -= 1
            self._changed.set()

    async def _answer(
        self,
        answer: bytes,
        pid: int,
        rng: random.Random,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        """Answer when the machine has got so far, and return what is said then: nothing where the other side is gone."""
        # Whoever says anything before it has the answer has left.
        heard = asyncio.ensure_future(reader.readline())
        pause = asyncio.ensure_future(self._pause(pid, _pause_seconds(rng)))
        try:
            await asyncio.wait([heard, pause], return_when=asyncio.FIRST_COMPLETED)
            if not heard.done():
                writer.write(answer)
            return await heard
        finally:
            heard.cancel()
            pause.cancel()

    async def _pause(self, pid: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        while pid in self._unheard:
            await self.change()

    def _arrived(self) -> None:
        self.arrivals += 1
        self._changed.set()


def _pause_seconds(rng: random.Random) -> float:
    return LONG_SECONDS * rng.random() if rng.random() < 0.2 else min(LONG_SECONDS, rng.expovariate(1 / 0.03))
