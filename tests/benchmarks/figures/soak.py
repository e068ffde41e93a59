"""Memory over many runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psutil
from tests.benchmarks.figures.bench import PLAIN, Bench
from tests.benchmarks.figures.series import Figure, Peer, Series

from fermata.v1 import run_pb2

SETTLED_AFTER = 0.25
"""Share of the runs after which caches and pools are full; memory is compared from there on."""

_AT_ONCE = 64
_SAMPLES = 20
_MEGABYTE = 1024 * 1024


async def soak(bench: Bench) -> Sequence[Figure]:
    """Resident memory of the server and of what runs graphs, from a quarter of the runs to their end."""
    count = bench.times(bench.soak)
    sizes: dict[str, list[float]] = {}

    def look() -> None:
        now: dict[str, float] = {}
        for role, process in bench.plane.processes():
            if role in ("server", "worker", "zygote or host"):
                try:
                    now[role] = now.get(role, 0.0) + process.memory_info().rss / _MEGABYTE
                except psutil.NoSuchProcess:
                    continue
        for role, size in now.items():
            sizes.setdefault(role, []).append(size)

    async def lane(left: Sequence[int]) -> None:
        for _ in left:
            run = await bench.client.runs.create(PLAIN, values={"text": "one of very many"})
            await bench.feed.until(run.name, run_pb2.EVENT_TYPE_SUCCEEDED)
            bench.feed.forget(run.name)

    each = max(count // _SAMPLES // _AT_ONCE, 1)
    for _ in range(_SAMPLES):
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(lane(range(each)))
        look()
    from_there = round(_SAMPLES * SETTLED_AFTER)
    note = f"{each * _AT_ONCE * _SAMPLES:,} runs, {_AT_ONCE} at once; peer: its size after a quarter of them"
    return [
        Figure(
            f"memory at the end, {role}",
            "MB",
            Series(values[-3:]),
            [Peer("after a quarter", Series(values[from_there : from_there + 3]))],
            note=note,
        )
        for role, values in sizes.items()
    ]
