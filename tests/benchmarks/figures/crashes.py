"""A worker is killed while its run is at work: how long until another lease has it, and until its step goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence

from tests.benchmarks.figures.bench import CALLING, Bench
from tests.benchmarks.figures.series import Figure, Rounds

from fermata.v1 import run_pb2

CRASHES = 20
AIM_SECONDS = 3.0
REPLACED_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_LEASED, _RESUMED = "leased", "resumed"


async def crash(bench: Bench) -> Sequence[Figure]:
    """SIGKILL of the worker that holds the run, to the second LEASED and to the second STEP_STARTED."""
    rounds = Rounds()
    whole = len(await bench.client.workers.list())
    for _ in range(bench.times(CRASHES)):
        run = await bench.client.runs.create(CALLING, "1")
        _, leased = await bench.feed.until(run.name, run_pb2.EVENT_TYPE_LEASED)
        await bench.feed.until(run.name, run_pb2.EVENT_TYPE_STEP_STARTED)
        worker = str(leased.data["worker"])
        pid = next(w.pid for w in await bench.client.workers.list() if w.worker == worker)
        killed = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        again, _ = await bench.feed.until(run.name, run_pb2.EVENT_TYPE_LEASED, nth=2)
        resumed, _ = await bench.feed.until(run.name, run_pb2.EVENT_TYPE_STEP_STARTED, nth=2)
        await bench.feed.until(run.name, run_pb2.EVENT_TYPE_SUCCEEDED)
        bench.feed.forget(run.name)
        rounds.add(_LEASED, again - killed)
        rounds.add(_RESUMED, resumed - killed)
        await _all_up(bench, whole)
    return (
        Figure("kill of a worker to its run leased again", "s", rounds.series(_LEASED)),
        Figure(
            "kill of a worker to its step under way again",
            "s",
            rounds.series(_RESUMED),
            aim=AIM_SECONDS,
            note="a READ step; graph imported anew where no other worker has it",
        ),
    )


async def _all_up(bench: Bench, workers: int) -> None:
    """Returns when the killed worker has been replaced, so that each crash meets the same cluster."""
    for _ in range(round(REPLACED_SECONDS / _LOOK_SECONDS)):
        if len(await bench.client.workers.list()) == workers:
            return
        await asyncio.sleep(_LOOK_SECONDS)
    raise RuntimeError(f"there are fewer than {workers} workers {REPLACED_SECONDS:.0f} s after a crash")
