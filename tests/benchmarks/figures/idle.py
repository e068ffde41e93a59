"""What an idle ``fermata up`` costs: start, and then memory and CPU of each of its processes."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence

import psutil
from tests.benchmarks.figures.plane import Plane, cpu_seconds
from tests.benchmarks.figures.series import Figure, Series

SETTLE_SECONDS = 8.0
WINDOW_SECONDS = 5.0
WINDOWS = 6
SERVER_AIM_PERCENT = 0.5

_MEGABYTE = 1024 * 1024


async def idle(plane: Plane, *, quick: bool) -> Sequence[Figure]:
    """CPU in windows of five seconds, as the scheduler counted it for each thread; memory at the end."""
    await asyncio.sleep(SETTLE_SECONDS)
    processes = plane.processes()
    percents: dict[int, list[float]] = defaultdict(list)
    before = {process.pid: cpu_seconds(process.pid) for _, process in processes}
    began = time.perf_counter()
    for _ in range(1 if quick else WINDOWS):
        await asyncio.sleep(WINDOW_SECONDS)
        now = time.perf_counter()
        for _, process in processes:
            used = cpu_seconds(process.pid)
            percents[process.pid].append(max(used - before[process.pid], 0.0) / (now - began) * 100)
            before[process.pid] = used
        began = now
    figures = [Figure("start to ready", "s", Series([plane.ready_seconds]), note="as its ready line says")]
    totals = [0.0] * len(next(iter(percents.values())))
    pss_total = 0.0
    for role, process in processes:
        try:
            memory = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        values = percents[process.pid]
        totals = [total + value for total, value in zip(totals, values, strict=True)]
        pss_total += memory.pss / _MEGABYTE
        note = f"PSS {memory.pss / _MEGABYTE:.0f} MB, RSS {memory.rss / _MEGABYTE:.0f} MB"
        aim = SERVER_AIM_PERCENT if role == "server" else None
        figures.append(Figure(f"idle: {role}", "%", Series(values), aim=aim, note=note))
    figures.append(Figure("idle: all together", "%", Series(totals), note=f"PSS {pss_total:.0f} MB"))
    return figures
