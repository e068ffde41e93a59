"""Many open watches of the same runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

from tests.benchmarks.figures.bench import PLAIN, Bench
from tests.benchmarks.figures.plane import cpu_seconds
from tests.benchmarks.figures.series import Figure, Peer, Rounds

from fermata.client import Client, Connection
from fermata.v1 import run_pb2

WATCHERS = 100
RUNS = 50
_ONE, _MANY = "1 watch", f"{WATCHERS} watches"


async def watchers(bench: Bench) -> Sequence[Figure]:
    """From CreateRun called to the run's end seen by the last of all watches, and the server's CPU for it."""
    rounds = Rounds()
    server = next(process.pid for role, process in bench.plane.processes() if role == "server")
    seen: dict[str, int] = {}
    all_seen = asyncio.Event()
    wanted = 0

    async def watch(client: Client, opened: asyncio.Event) -> None:
        async with aclosing(client.runs.watch()) as items:
            async for item in items:
                opened.set()
                if item.event.type == run_pb2.EVENT_TYPE_SUCCEEDED:
                    seen[item.event.run] = seen.get(item.event.run, 0) + 1
                    if seen[item.event.run] == wanted:
                        all_seen.set()

    async def measure(what: str) -> None:
        before = cpu_seconds(server)
        for _ in range(bench.times(RUNS)):
            all_seen.clear()
            began = time.perf_counter()
            run = await bench.client.runs.create(PLAIN, values={"text": "watched"})
            async with asyncio.timeout(60):
                await all_seen.wait()
            rounds.add(what, (time.perf_counter() - began) * 1e3)
            bench.feed.forget(run.name)
        rounds.add(f"{what}: CPU", (cpu_seconds(server) - before) / bench.times(RUNS) * 1e3)

    async with Client(Connection.discover(data=bench.plane.data)) as client:
        tasks: list[asyncio.Task[None]] = []
        try:
            for what, count in ((_ONE, 1), (_MANY, WATCHERS)):
                opened = [asyncio.Event() for _ in range(count - len(tasks))]
                tasks += [asyncio.create_task(watch(client, each)) for each in opened]
                while not all(each.is_set() for each in opened):
                    probe = await bench.client.runs.create(PLAIN, values={"text": "are you all there?"})
                    await bench.feed.until(probe.name, run_pb2.EVENT_TYPE_SUCCEEDED)
                    bench.feed.forget(probe.name)
                wanted = count
                await measure(what)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return (
        Figure(
            f"plain run to its end on the last of {WATCHERS} watches",
            "ms",
            rounds.series(_MANY),
            [Peer(_ONE, rounds.series(_ONE))],
            note="the watches are read by one client process",
        ),
        Figure(
            f"CPU a plain run, server, {WATCHERS} watches",
            "ms",
            rounds.series(f"{_MANY}: CPU"),
            [Peer(_ONE, rounds.series(f"{_ONE}: CPU"))],
        ),
    )
