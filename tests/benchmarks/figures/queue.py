"""A long queue: what it costs the run at its head, and how fast it empties."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.benchmarks.figures.bench import CALLING, PLAIN, Bench
from tests.benchmarks.figures.series import Figure, Peer, Rounds, Series

from fermata.v1 import run_pb2

QUEUED = 10_000
CLAIMS = 100
_AT_ONCE = 64
_EMPTY, _LONG = "empty queue", "long queue"


async def queue(bench: Bench) -> Sequence[Figure]:
    """CreateRun called to LEASED seen, for one run at a time: with nothing queued, and with so many runs that wait under a
    hold of their agent; then the hold is released and they all run.
    """
    rounds = Rounds()
    count = bench.times(QUEUED)

    async def claimed() -> float:
        began = time.perf_counter()
        run = await bench.client.runs.create(PLAIN, values={"text": "next"})
        leased, _ = await bench.feed.until(run.name, run_pb2.EVENT_TYPE_LEASED)
        await bench.feed.until(run.name, run_pb2.EVENT_TYPE_SUCCEEDED)
        bench.feed.forget(run.name)
        return (leased - began) * 1e3

    for _ in range(bench.times(CLAIMS)):
        rounds.add(_EMPTY, await claimed())
    hold = await bench.client.latches.hold(agent=CALLING, reason="benchmark")
    try:
        waiting: list[str] = []
        left = iter(range(count))

        async def fill() -> None:
            for _ in left:
                waiting.append((await bench.client.runs.create(CALLING, "0")).name)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(fill())
        filled = count / (time.perf_counter() - began)
        for _ in range(bench.times(CLAIMS)):
            rounds.add(_LONG, await claimed())
    finally:
        began = time.perf_counter()
        await bench.client.latches.release(hold.name)
    for run in waiting:
        await bench.feed.until(run, run_pb2.EVENT_TYPE_SUCCEEDED, seconds=600.0)
        bench.feed.forget(run)
    emptied = count / (time.perf_counter() - began)
    return (
        Figure(
            f"CreateRun to LEASED, {count:,} queued",
            "ms",
            rounds.series(_LONG),
            [Peer(_EMPTY, rounds.series(_EMPTY))],
            note="the others wait under a hold of their agent",
        ),
        Figure("runs taken into the queue", "/s", Series([filled]), note=f"{_AT_ONCE} calls at once"),
        Figure(
            "runs out of the queue",
            "/s",
            Series([emptied]),
            note="from the release of the hold to the last end",
        ),
    )
