"""One open watch over all runs, as a service holds it, and when each event arrived."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import aclosing

from fermata.client import TERMINAL_STATES, Client
from fermata.v1 import run_pb2

EVENT_SECONDS = 30.0
"""How long an event is waited for."""

_PROBES = 20
_PROBE_SECONDS = 0.5


class EventMissingError(RuntimeError):
    """An event did not come, or the run ended before it."""


class Feed:
    """Events of every run by arrival, until they are forgotten."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._arrived: dict[str, list[tuple[float, run_pb2.Event]]] = defaultdict(list)
        self._waiting: dict[str, list[asyncio.Event]] = defaultdict(list)
        self._task: asyncio.Task[None] | None = None

    async def open(self, probe: str) -> None:
        """Returns once events arrive.

        :param probe: an agent that takes a ``text``; runs of it show that the watch is open.
        """
        self._task = asyncio.create_task(self._read())
        for _ in range(_PROBES):
            run = await self._client.runs.create(probe, values={"text": "probe"})
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self.first(run.name)
            except TimeoutError:
                continue
            await self.until(run.name, run_pb2.EVENT_TYPE_SUCCEEDED)
            return
        raise EventMissingError("the watch of all runs says nothing")

    async def close(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def first(self, run: str) -> float:
        """When the run's first event arrived, by ``time.perf_counter``."""
        return (await self._find(run, None))[0]

    async def until(
        self, run: str, kind: run_pb2.EventType.ValueType, *, nth: int = 1, seconds: float = EVENT_SECONDS
    ) -> tuple[float, run_pb2.Event]:
        """When the run's ``nth`` event of a kind arrived, and the event.

        :raises EventMissingError: the run ends without it, or it takes more than ``seconds``.
        """
        return await self._find(run, kind, nth, seconds)

    def forget(self, run: str) -> None:
        """Drop what is kept of a run that is over."""
        self._arrived.pop(run, None)

    async def _find(
        self,
        run: str,
        kind: run_pb2.EventType.ValueType | None,
        nth: int = 1,
        seconds: float = EVENT_SECONDS,
    ) -> tuple[float, run_pb2.Event]:
        seen = 0
        wake = asyncio.Event()
        self._waiting[run].append(wake)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for when, event in self._arrived[run][seen:]:
                        if kind is None or event.type == kind:
                            nth -= 1
                            if nth == 0:
                                return when, event
                        if event.state in TERMINAL_STATES:
                            raise EventMissingError(
                                f"{run} ended {run_pb2.RunState.Name(event.state)}: {event.data}"
                            )
                    seen = len(self._arrived[run])
                    wake.clear()
                    await wake.wait()
        except TimeoutError:
            if kind is None:
                raise
            raise EventMissingError(f"{run}: no {run_pb2.EventType.Name(kind)}") from None
        finally:
            self._waiting[run].remove(wake)
            if not self._waiting[run]:
                del self._waiting[run]

    async def _read(self) -> None:
        async with aclosing(self._client.runs.watch()) as items:
            async for item in items:
                now = time.perf_counter()
                self._arrived[item.event.run].append((now, item.event))
                for wake in self._waiting.get(item.event.run, ()):
                    wake.set()
