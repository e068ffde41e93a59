"""Halts of work that has to be killed, of many runs at once, and under load."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

from tests.benchmarks.agents.graphs import ASKS
from tests.benchmarks.figures.bench import AGENTS, CALLING, PLAIN, Bench
from tests.benchmarks.figures.series import Figure, Rounds

from fermata.client.bundle import read
from fermata.v1 import latch_pb2, run_pb2

STUBBORN = "bench-stubborn"
GRACE_MS = 100.0
"""As ``stubborn.yaml`` has it: how long a host may take to obey before it is killed. It is taken off what is told here."""

KINDS = {
    "a sync tool": "block",
    "a loop in C": "loop_in_c",
    "a child and a daemon": "children",
    "a swallowed cancellation": "swallow",
}
KILLS = 50
MANY = {100: 20, 1_000: 5}
"""How many runs a latch covers, to how often."""
AT_WORK = 100
"""Of these so many are in a call, and the others wait for a person."""
LONG_SECONDS = "900"
"""Beyond what it takes to start a thousand runs."""
LOADED = 200
LOAD_LANES = 16
LATCHED_AIM_MS, SETTLED_AIM_MS, KILLED_AIM_MS = 15.0, 30.0, 100.0

_UNDER_WAY_SECONDS = 0.02
_AT_ONCE = 32


async def kills(bench: Bench) -> Sequence[Figure]:
    """One run in a call that no cancellation ends: its process is killed."""
    (bundle,) = read(AGENTS / "stubborn.yaml", os.environ)
    await bench.client.agents.apply(bundle.name, bundle.spec, pack=bundle.pack)
    rounds = Rounds()
    for index in range(2 + bench.times(KILLS)):
        for what, tool in KINDS.items():
            run = await bench.client.runs.create(STUBBORN, tool)
            await bench.feed.until(run.name, run_pb2.EVENT_TYPE_STEP_STARTED)
            await asyncio.sleep(_UNDER_WAY_SECONDS)
            latched, settled, report = await _halt(bench, run=run.name)
            if [step.status for step in report.steps] != [latch_pb2.LATCH_STEP_STATUS_KILLED]:
                raise RuntimeError(f"{what} was not killed: {report}")
            bench.feed.forget(run.name)
            if index >= 2:
                rounds.add("latched", latched)
                rounds.add(what, settled - GRACE_MS)
    return (
        Figure("halt to LATCHED, work that is killed", "ms", rounds.series("latched"), aim=LATCHED_AIM_MS),
        *(
            Figure(
                f"halt to SETTLED, {what}",
                "ms",
                rounds.series(what),
                aim=KILLED_AIM_MS,
                note=f"killed after {GRACE_MS:.0f} ms of grace, which are not counted",
            )
            for what in KINDS
        ),
    )


async def many(bench: Bench) -> Sequence[Figure]:
    """An agent's runs at once: a hundred in an async call each, the others waiting for a person."""
    figures = []
    for count, times in MANY.items():
        rounds = Rounds()
        for _ in range(bench.times(times)):
            runs = await _started(bench, count)
            latched, settled, report = await _halt(bench, agent=CALLING)
            if len(report.runs) != count:
                raise RuntimeError(f"{report.name} covers {len(report.runs)} runs instead of {count}")
            rounds.add("latched", latched)
            rounds.add("settled", settled)
            for run in runs:
                bench.feed.forget(run)
        at_work = min(count, AT_WORK)
        note = f"{at_work} in an async call" + (
            f", {count - at_work} waiting for a person" if count > at_work else ""
        )
        figures += [
            Figure(
                f"halt of {count:,} runs to LATCHED", "ms", rounds.series("latched"), (), LATCHED_AIM_MS, note
            ),
            Figure(f"halt of {count:,} runs to SETTLED", "ms", rounds.series("settled"), note=note),
        ]
    return figures


async def loaded(bench: Bench) -> Sequence[Figure]:
    """A run, and an agent, while another agent's runs keep server and workers busy."""
    rounds = Rounds()
    over = False

    async def lane() -> None:
        while not over:
            run = await bench.client.runs.create(PLAIN, values={"text": "some load"})
            await bench.feed.until(run.name, run_pb2.EVENT_TYPE_SUCCEEDED)
            bench.feed.forget(run.name)

    async with asyncio.TaskGroup() as group:
        for _ in range(LOAD_LANES):
            group.create_task(lane())
        try:
            for _ in range(bench.times(LOADED)):
                for scope in ("run", "agent"):
                    (run,) = await _started(bench, 1)
                    latched, settled, _ = await _halt(bench, **{scope: run if scope == "run" else CALLING})
                    rounds.add("latched", latched)
                    rounds.add("settled", settled)
                    bench.feed.forget(run)
        finally:
            over = True
    note = f"{LOAD_LANES} other runs at once all the while; by run and by agent"
    return (
        Figure("halt to LATCHED, under load", "ms", rounds.series("latched"), (), LATCHED_AIM_MS, note),
        Figure(
            "halt to SETTLED, async work, under load",
            "ms",
            rounds.series("settled"),
            (),
            SETTLED_AIM_MS,
            note,
        ),
    )


async def _started(bench: Bench, count: int) -> list[str]:
    """So many runs of ``bench-calling``, all in their call or waiting for a person."""
    left = iter(range(count))
    runs: list[str] = []

    async def lane() -> None:
        for number in left:
            at_work = number < AT_WORK
            run = await bench.client.runs.create(CALLING, LONG_SECONDS if at_work else ASKS)
            runs.append(run.name)
            until = run_pb2.EVENT_TYPE_STEP_STARTED if at_work else run_pb2.EVENT_TYPE_AWAITING
            await bench.feed.until(run.name, until, seconds=120.0)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(lane())
    await asyncio.sleep(_UNDER_WAY_SECONDS)
    return runs


async def _halt(bench: Bench, *, run: str = "", agent: str = "") -> tuple[float, float, latch_pb2.Latch]:
    """Milliseconds from the call to LATCHED and to SETTLED seen, and the report; the latch is lifted again."""
    began = time.perf_counter()
    latch = await bench.client.latches.halt(run=run, agent=agent, reason="benchmark")
    latched = time.perf_counter()
    report = await bench.client.latches.settle(latch.name)
    settled = time.perf_counter()
    if report.state != latch_pb2.LATCH_STATE_SETTLED:
        raise RuntimeError(f"{latch.name} is {latch_pb2.LatchState.Name(report.state)}")
    await bench.client.latches.release(latch.name)
    return (latched - began) * 1e3, (settled - began) * 1e3, report
