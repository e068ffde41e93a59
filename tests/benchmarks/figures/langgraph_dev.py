"""The peer that is a server as well: ``langgraph dev``, driven over its API with the same graphs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.benchmarks.agents.graphs import ASKS
from tests.benchmarks.figures.bench import AGENTS, CALLING, PLAIN, Bench
from tests.benchmarks.figures.series import Figure, Rounds

from fermata.v1 import run_pb2

PEERS = Path(__file__).parents[3] / ".peers"
"""An environment of its own, which ``make bench`` installs: its server is under the Elastic License."""

AT_ONCE = 64
ONE_BY_ONE = 20
RUNS_A_ROUND = 256
ROUNDS = 3
START_SECONDS = 60.0
DEV = "langgraph dev"
_ONE, _MANY, _GATED, _CANCEL = "one", "many", "gated", "cancel"
_UNDER_WAY_SECONDS = 0.1
_LOOK_SECONDS = 0.01


class PeerMissingError(RuntimeError):
    """The peer is not installed, or did not start."""


async def langgraph_dev(bench: Bench) -> Sequence[Figure]:
    """One run from call to answer, runs and gated cycles a second with 64 at once, and a stop of a run in its tool."""
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

    async def halted() -> float:
        run = await bench.client.runs.create(CALLING, "60")
        await bench.feed.until(run.name, run_pb2.EVENT_TYPE_STEP_STARTED)
        began = time.perf_counter()
        latch = await bench.client.latches.halt(run=run.name, reason="benchmark")
        await bench.client.latches.settle(latch.name)
        took = time.perf_counter() - began
        await bench.client.latches.release(latch.name)
        bench.feed.forget(run.name)
        return took

    async with _served(bench.plane.data.parent) as dev:
        for _ in range(bench.times(ONE_BY_ONE)):
            rounds.add(_ONE, await _timed(plain) * 1e3)
            rounds.add(DEV + _ONE, await _timed(dev.plain) * 1e3)
            rounds.add(_CANCEL, await halted() * 1e3)
            rounds.add(DEV + _CANCEL, await dev.cancel() * 1e3)
        for _ in range(1 if bench.quick else ROUNDS):
            for what, ours, theirs in ((_MANY, plain, dev.plain), (_GATED, gated, dev.gated)):
                rounds.add(what, await _rate(ours, count))
                rounds.add(DEV + what, await _rate(theirs, count))

    def figure(what: str, unit: str, key: str, note: str = "") -> Figure:
        (peer,) = rounds.peers(DEV + key)
        return Figure(what, unit, rounds.series(key), [type(peer)(DEV, peer.series)], note=note)

    note = f"{AT_ONCE} at once, {count} a round"
    return (
        figure("one plain run, call to end", "ms", _ONE, "peer: /threads, then /runs/wait"),
        figure("plain runs beside langgraph dev", "/s", _MANY, note),
        figure(
            "gated cycles beside langgraph dev",
            "/s",
            _GATED,
            f"peer: interrupt_before, then null input; {note}",
        ),
        figure("halt to SETTLED, async tool", "ms", _CANCEL, "peer: cancel with wait=true"),
    )


class Dev:
    """The four things that are measured, over the peer's HTTP API."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def plain(self) -> None:
        """A thread and a run of two nodes, to its end."""
        await self._wait(
            await self._thread(), {"assistant_id": "plain", "input": {"text": "two plain nodes"}}
        )

    async def gated(self) -> None:
        """A run that stops before its tool, and goes on."""
        thread = await self._thread()
        said = {"messages": [{"role": "user", "content": ASKS}]}
        await self._wait(thread, {"assistant_id": "calling", "input": said, "interrupt_before": ["tools"]})
        await self._wait(thread, {"assistant_id": "calling", "input": None})

    async def cancel(self) -> float:
        """Seconds from the cancel of a run in its tool to the answer that it has ended."""
        thread = await self._thread()
        said = {"messages": [{"role": "user", "content": "60"}]}
        run = await self._post(f"/threads/{thread}/runs", {"assistant_id": "calling", "input": said})
        await self._until_it_runs(f"/threads/{thread}/runs/{run['run_id']}")
        await asyncio.sleep(_UNDER_WAY_SECONDS)
        began = time.perf_counter()
        await self._post(f"/threads/{thread}/runs/{run['run_id']}/cancel?wait=true", None)
        return time.perf_counter() - began

    async def _until_it_runs(self, run: str) -> None:
        for _ in range(round(START_SECONDS / _LOOK_SECONDS)):
            if (await self._get(run))["status"] != "pending":
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise PeerMissingError(f"{run} does not start")

    async def _thread(self) -> str:
        return str((await self._post("/threads", {}))["thread_id"])

    async def _wait(self, thread: str, body: dict[str, Any]) -> None:
        await self._post(f"/threads/{thread}/runs/wait", body)

    async def _post(self, path: str, body: dict[str, Any] | None) -> Any:
        answer = await self._http.post(path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    async def _get(self, path: str) -> Any:
        answer = await self._http.get(path)
        answer.raise_for_status()
        return answer.json()


@asynccontextmanager
async def _served(folder: Path) -> AsyncGenerator[Dev, None]:
    process, port, log = await asyncio.to_thread(_start, folder)
    try:
        # The peer closes connections that were quiet for a few seconds, so none is used again after that.
        limits = httpx.Limits(max_connections=2 * AT_ONCE, keepalive_expiry=1.0)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120, limits=limits) as http:
            await _ready(http, process, log)
            dev = Dev(http)
            await dev.plain()
            await dev.gated()
            yield dev
    finally:
        await asyncio.to_thread(_stop, process)


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], int, Path]:
    command = PEERS / "bin" / "langgraph"
    if not command.exists():
        raise PeerMissingError(f"{command} is not there; `make bench` installs it")
    served = folder / "langgraph-dev"
    served.mkdir()
    graphs = {name: f"{AGENTS / 'graphs.py'}:{name}" for name in ("plain", "calling")}
    (served / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": graphs}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (served / "log").open("w") as log:
        process = subprocess.Popen(
            [command, "dev", "--no-browser", "--no-reload", "--host=127.0.0.1", f"--port={port}", f"--n-jobs-per-worker={AT_ONCE}"],
            cwd=served,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LOG_LEVEL": "WARNING"},
        )  # fmt: skip
    return process, port, served / "log"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _ready(http: httpx.AsyncClient, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if (await http.get("/ok")).is_success:
                return
        except httpx.TransportError:
            await asyncio.sleep(0.2)
    said = await asyncio.to_thread(log.read_text)
    raise PeerMissingError(f"langgraph dev did not start:\n{said[-2000:]}")


async def _timed(one: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await one()
    return time.perf_counter() - began


async def _rate(one: Callable[[], Awaitable[None]], count: int) -> float:
    left = iter(range(count))

    async def lane() -> None:
        for _ in left:
            await one()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(lane())
    return count / (time.perf_counter() - began)
