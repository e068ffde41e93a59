"""The outside, which receives the effects: it reads lines, and closes a conversation once it has read it to its end."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Effect:
    """A line that arrived."""

    call: str
    pid: int
    sent: float
    """When it left, by CLOCK_MONOTONIC."""


class Recorder:
    """Listens on loopback from ``start`` on."""

    def __init__(self) -> None:
        self.port = 0
        self.by_call: dict[str, list[Effect]] = defaultdict(list)
        self._server: asyncio.Server | None = None

    async def start(self) -> Self:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._read, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    def processes(self, calls: set[str]) -> set[int]:
        """From which processes these calls have acted."""
        return {effect.pid for call in calls for effect in self.by_call.get(call, ())}

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async for line in reader:
                effect = Effect(*json.loads(line))
                self.by_call[effect.call].append(effect)
        except ConnectionError:
            pass
        finally:
            writer.close()
