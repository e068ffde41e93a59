"""Many runs at once, with as many in flight as the table says."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence

from tests.benchmarks.agents.graphs import ASKS
from tests.benchmarks.figures.bench import CALLING, MEMORY, PLAIN, SQLITE, Bench
from tests.benchmarks.figures.plane import cpu_seconds
from tests.benchmarks.figures.series import Figure, Peer, Rounds

from fermata.v1 import run_pb2

AT_ONCE = 64
RUNS_A_ROUND = 256
ROUNDS = 5

_PLAIN, _GATED = "plain", "gated"
_SERVER, _WORKERS, _HOSTS, _CLIENT = "server", "workers", "hosts", "client"
_PARTS = (_SERVER, _WORKERS, _HOSTS, _CLIENT)
_PART_OF = {"server": _SERVER, "worker": _WORKERS, "zygote or host": _HOSTS}


async def throughput(bench: Bench) -> Sequence[Figure]:
    """Plain runs, and cycles of run, question, approval and end, each a second, over a few rounds."""
    rounds = Rounds()
    count = RUNS_A_ROUND // 4 if bench.quick else RUNS_A_ROUND

    async def plain() -> None:
        run = await bench.client.runs.create(PLAIN, values={"text": "two plain nodes"})
        await bench.feed.until(run.name, run_pb2.EVENT_TYPE_SUCCEEDED)
        bench.feed.forget(run.name)

    async def gated() -> None:
        run = await bench.client.runs.create(CALLING, ASKS)
        _, event = await bench.feed.until(run.name, run_pb2.EVENT_TYPE_APPROVAL_REQUESTED)
        await bench.client.approvals.approve(await bench.client.approvals.get(str(event.data["approval"])))
        await bench.feed.until(run.name, run_pb2.EVENT_TYPE_SUCCEEDED)
        bench.feed.forget(run.name)

    async def ours(what: str, one: Callable[[], Awaitable[object]]) -> None:
        before = _cpu_by_part(bench)
        rounds.add(what, await _rate(one, count))
        for part, seconds in _cpu_by_part(bench).items():
            rounds.add(f"{what}: {part}", (seconds - before[part]) / count * 1e3)

    async def peer(what: str, one: Callable[[], Awaitable[object]]) -> None:
        began = time.process_time()
        rounds.add(what, await _rate(one, count))
        rounds.add(f"{what}: CPU", (time.process_time() - began) / count * 1e3)

    await _rate(plain, AT_ONCE)
    await _rate(gated, AT_ONCE)
    for _ in range(2 if bench.quick else ROUNDS):
        await ours(_PLAIN, plain)
        await peer(MEMORY, bench.memory.plain)
        await peer(SQLITE, bench.sqlite.plain)
        await ours(_GATED, gated)
        await peer("gated " + MEMORY, bench.memory.approve)
        await peer("gated " + SQLITE, bench.sqlite.approve)
    note = f"{AT_ONCE} at once, {count} a round"
    return (
        Figure("plain runs", "/s", rounds.series(_PLAIN), rounds.peers(MEMORY, SQLITE), note=note),
        Figure(
            "gated cycles",
            "/s",
            rounds.series(_GATED),
            rounds.peers("gated " + MEMORY, "gated " + SQLITE),
            note=f"run, question, approval, end; {note}",
        ),
        *(_cpu(rounds, f"{_PLAIN}: {part}", f"CPU a plain run, {part}", MEMORY) for part in _PARTS),
        *(
            _cpu(rounds, f"{_GATED}: {part}", f"CPU a gated cycle, {part}", "gated " + MEMORY)
            for part in _PARTS
        ),
    )


def _cpu(rounds: Rounds, key: str, what: str, peer: str) -> Figure:
    """A part's CPU a run; beside it, for the part in which the graph runs, the CPU of bare LangGraph."""
    peers = [Peer(peer, rounds.series(f"{peer}: CPU"))] if key.endswith(_HOSTS) else []
    return Figure(what, "ms", rounds.series(key), peers)


def _cpu_by_part(bench: Bench) -> dict[str, float]:
    """CPU seconds so far of the server, of workers, of what runs graphs, and of this process."""
    seconds = dict.fromkeys(_PARTS, 0.0)
    for role, process in bench.plane.processes():
        if (part := _PART_OF.get(role)) is not None:
            seconds[part] += cpu_seconds(process.pid)
    return {**seconds, _CLIENT: cpu_seconds(os.getpid())}


async def _rate(one: Callable[[], Awaitable[object]], count: int) -> float:
    """How many a second, with ``AT_ONCE`` under way until ``count`` are done."""
    left = iter(range(count))

    async def lane() -> None:
        for _ in left:
            await one()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(lane())
    return count / (time.perf_counter() - began)
