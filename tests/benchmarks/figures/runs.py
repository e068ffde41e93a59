"""One run at a time: to its first event, to its end, and from an approval to the step that it lets through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.benchmarks.agents.graphs import ASKS
from tests.benchmarks.figures.bench import CALLING, MEMORY, PLAIN, SQLITE, Bench
from tests.benchmarks.figures.series import Figure, Rounds

from fermata.v1 import run_pb2

PLAIN_RUNS = 300
APPROVED_RUNS = 150
WARM_UPS = 10
PLAIN_AIM_MS = 15.0
APPROVE_AIM_MS = 10.0

_FIRST, _WHOLE, _STEP = "first event", "whole run", "approve to step"
_TOLD, _ASKED = "created", "asked"


async def plain(bench: Bench) -> Sequence[Figure]:
    """A run of two async nodes without a tool: CreateRun called to first event, and to SUCCEEDED, as the watch shows them."""
    rounds = Rounds()
    for index in range(WARM_UPS + bench.times(PLAIN_RUNS)):
        began = time.perf_counter()
        run = await bench.client.runs.create(PLAIN, values={"text": "two plain nodes"})
        answered = time.perf_counter()
        first = await bench.feed.first(run.name)
        ended, _ = await bench.feed.until(run.name, run_pb2.EVENT_TYPE_SUCCEEDED)
        bench.feed.forget(run.name)
        memory, sqlite = await bench.memory.plain(), await bench.sqlite.plain()
        if index >= WARM_UPS:
            rounds.add(_TOLD, (answered - began) * 1e3)
            rounds.add(_FIRST, (first - began) * 1e3)
            rounds.add(_WHOLE, (ended - began) * 1e3)
            rounds.add(MEMORY, memory * 1e3)
            rounds.add(SQLITE, sqlite * 1e3)
    return (
        Figure("CreateRun, call to answer", "ms", rounds.series(_TOLD), note="committed when it answers"),
        Figure("message to first event", "ms", rounds.series(_FIRST), note="on an open watch"),
        Figure(
            "plain two-node run, start to end",
            "ms",
            rounds.series(_WHOLE),
            rounds.peers(MEMORY, SQLITE),
            PLAIN_AIM_MS,
            "durable; CreateRun called to SUCCEEDED seen",
        ),
    )


async def approve(bench: Bench) -> Sequence[Figure]:
    """A run whose tool asks: from the message to the question, and from DecideApproval called to STEP_STARTED seen."""
    rounds = Rounds()
    for index in range(WARM_UPS + bench.times(APPROVED_RUNS)):
        began = time.perf_counter()
        run = await bench.client.runs.create(CALLING, ASKS)
        asked, event = await bench.feed.until(run.name, run_pb2.EVENT_TYPE_APPROVAL_REQUESTED)
        await bench.feed.until(run.name, run_pb2.EVENT_TYPE_AWAITING)
        shown = await bench.client.approvals.get(str(event.data["approval"]))
        await asyncio.sleep(0)
        said = time.perf_counter()
        await bench.client.approvals.approve(shown)
        started, _ = await bench.feed.until(run.name, run_pb2.EVENT_TYPE_STEP_STARTED)
        ended, _ = await bench.feed.until(run.name, run_pb2.EVENT_TYPE_SUCCEEDED)
        bench.feed.forget(run.name)
        memory, sqlite = await bench.memory.approve(), await bench.sqlite.approve()
        if index >= WARM_UPS:
            rounds.add(_ASKED, (asked - began) * 1e3)
            rounds.add(_STEP, (started - said) * 1e3)
            rounds.add(_WHOLE, (ended - said) * 1e3)
            rounds.add(MEMORY, memory * 1e3)
            rounds.add(SQLITE, sqlite * 1e3)
    return (
        Figure("message to question", "ms", rounds.series(_ASKED), note="CreateRun to APPROVAL_REQUESTED"),
        Figure(
            "approval to next step started",
            "ms",
            rounds.series(_STEP),
            rounds.peers(MEMORY, SQLITE),
            APPROVE_AIM_MS,
            "DecideApproval called to STEP_STARTED seen; peer: interrupt_before, ainvoke(None) to the tool",
        ),
        Figure("approval to end of run", "ms", rounds.series(_WHOLE)),
    )
