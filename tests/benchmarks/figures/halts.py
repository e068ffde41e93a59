"""A halt over a tool that waits: to LATCHED, and to SETTLED."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.benchmarks.figures.bench import CALLING, MEMORY, Bench
from tests.benchmarks.figures.series import Figure, Peer, Rounds

from fermata.v1 import latch_pb2, run_pb2

HALTS = 100
WARM_UPS = 5
LATCHED_AIM_MS = 10.0
SETTLED_AIM_MS = 20.0

_UNDER_WAY_SECONDS = 0.02
"""After the gate let the tool through, until it surely waits."""

_LATCHED, _SETTLED, _SERVER, _BARE = "latched", "settled", "server", "LangGraph, task.cancel()"


async def halt(bench: Bench) -> Sequence[Figure]:
    """An async tool is cut off in the middle of its waiting."""
    rounds = Rounds()
    for index in range(WARM_UPS + bench.times(HALTS)):
        run = await bench.client.runs.create(CALLING, "60")
        await bench.feed.until(run.name, run_pb2.EVENT_TYPE_STEP_STARTED)
        await asyncio.sleep(_UNDER_WAY_SECONDS)
        began = time.perf_counter()
        latch = await bench.client.latches.halt(run=run.name, reason="benchmark")
        latched = time.perf_counter()
        report = await bench.client.latches.settle(latch.name)
        settled = time.perf_counter()
        if report.state != latch_pb2.LATCH_STATE_SETTLED:
            raise RuntimeError(f"{latch.name} is {latch_pb2.LatchState.Name(report.state)}")
        await bench.client.latches.release(latch.name)
        bench.feed.forget(run.name)
        bare = await bench.memory.cancel(_UNDER_WAY_SECONDS)
        if index >= WARM_UPS:
            rounds.add(_LATCHED, (latched - began) * 1e3)
            rounds.add(_SETTLED, (settled - began) * 1e3)
            rounds.add(_SERVER, report.settle_milliseconds)
            rounds.add(MEMORY, bare * 1e3)
    bare_cancel = [Peer(_BARE, rounds.series(MEMORY))]
    return (
        Figure(
            "halt to LATCHED",
            "ms",
            rounds.series(_LATCHED),
            aim=LATCHED_AIM_MS,
            note="CreateLatch, call to answer",
        ),
        Figure(
            "halt to SETTLED",
            "ms",
            rounds.series(_SETTLED),
            bare_cancel,
            SETTLED_AIM_MS,
            "CreateLatch called to SETTLED seen by WatchLatch; an async tool that waits",
        ),
        Figure(
            "halt to SETTLED on the server",
            "ms",
            rounds.series(_SERVER),
            note="from commit to commit, as the latch's report says",
        ),
    )
