"""A real ``fermata up`` for the tests, and what they say to it and ask about it.

Chosen: one process tree for the whole session, started as a person starts it, and agents that write what they do to
files. Refused: any part of Fermata replaced by something that only looks like it; counting effects by what Fermata says.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format

from fermata.client import Client, Connection, MultitaskStrategy
from fermata.client.bundle import read
from fermata.server.up.proc import die_with_parent, process_table
from fermata.v1 import approval_pb2, run_pb2, worker_pb2

HERE = Path(__file__).parent
START_SECONDS = 180.0
STOP_SECONDS = 60.0
DEADLINE_SECONDS = 45.0
"""For whatever a test waits for: a worker's death, a new server."""

Call = tuple[str, dict[str, Any]]
T = TypeVar("T")


class Plane:
    """A running ``fermata up`` with its data in ``data``."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.said = data.parent / f"{data.name}.stderr"
        fermata = Path(sys.executable).with_name("fermata")
        command = [str(fermata), "up", "--data", str(data), "--json", *arguments]
        if "--port" not in arguments:
            command += ["--port", "0"]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(STOP_SECONDS)
            raise AssertionError(f"fermata up did not start:\n{self.tail()}")
        self.ready: dict[str, Any] = json.loads(line)
        self._applied: set[str] = set()

    @property
    def address(self) -> str:
        return str(self.ready["address"])

    def connection(self, token: str = "") -> Connection:
        if token:
            return Connection(self.address, token)
        return Connection.discover(data=self.data, environment={})

    def stop(self) -> int:
        """End it with SIGTERM, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return int(self.process.returncode)

    def tail(self, lines: int = 30) -> str:
        """What the supervisor and its children said last."""
        parts = []
        for path in (self.said, *sorted((self.data / "logs").glob("*.log"))):
            if path.exists():
                said = path.read_text(errors="replace").splitlines()[-lines:]
                parts.append(f"-- {path.name}\n" + "\n".join(said))
        return "\n".join(parts)

    def child(self, pattern: str) -> int:
        """The process id of the supervisor's child whose command line has the pattern."""
        for entry in process_table():
            if entry.parent == self.process.pid and re.search(pattern, _command(entry.pid)):
                return entry.pid
        raise AssertionError(f"no child of fermata up matches {pattern!r}")

    def kill(self, pattern: str) -> int:
        """kill -9 a child; return its process id."""
        pid = self.child(pattern)
        os.kill(pid, signal.SIGKILL)
        return pid

    async def agent(self, client: Client, name: str) -> str:
        """Apply one of the agents in ``graphs``, once, and return its name."""
        if name not in self._applied:
            path = (
                HERE / "existing" / "langgraph.json" if name == "clerk" else HERE / "graphs" / f"{name}.yaml"
            )
            (bundle,) = read(path, {})
            await client.agents.apply(name, bundle.spec, pack=bundle.pack)
            self._applied.add(name)
        return name


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


SERVER = r"-m fermata\.server --data"
CHROMA = "chromadb"
RAY = r"fermata\.server\.cluster\.head"


@dataclass
class Effects:
    """What tools did, read from the file that they wrote."""

    mark: Path

    def lines(self) -> list[str]:
        return self.mark.read_text().splitlines() if self.mark.exists() else []

    def let_go(self) -> None:
        """Let slow tools go on to their end."""
        Path(f"{self.mark}.go").touch()

    async def wait_for(self, line: str, count: int = 1) -> list[str]:
        """Wait until so many lines begin with the text."""

        async def there() -> list[str]:
            found = [said for said in self.lines() if said.startswith(line)]
            return found if len(found) >= count else []

        return await eventually(f"{count} × {line!r} in {self.mark.name}", there)

    async def pid(self, count: int = 1) -> int:
        """The process in which the last slow tool has begun."""
        return int((await self.wait_for("start ", count))[count - 1].split()[1])

    def __str__(self) -> str:
        return str(self.mark)


@contextmanager
def out_of_reach(worker: int) -> Iterator[None]:
    """A worker and its warden stand still, as behind a broken network: what has begun in its hosts goes on unheard."""
    both = [worker, *(entry.pid for entry in process_table() if entry.parent == worker)]
    for pid in both:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in both:
            os.kill(pid, signal.SIGCONT)


async def eventually(what: str, ask: Callable[[], Awaitable[T]], seconds: float = DEADLINE_SECONDS) -> T:
    """Ask until the answer is true. For what lies outside of any stream: files, processes."""
    end = time.monotonic() + seconds
    while True:
        answer = await ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.02)


def script(*turns: Sequence[Call]) -> str:
    """The message that makes the scripted model call these tools, turn by turn."""
    return json.dumps({"turns": [[{"tool": tool, "args": args} for tool, args in turn] for turn in turns]})


@dataclass
class Watched:
    """A run, and a watch of it that goes on from where it was."""

    client: Client
    run: run_pb2.Run
    events: list[run_pb2.Event] = field(default_factory=list)
    cursor: str = ""

    @property
    def name(self) -> str:
        return self.run.name

    async def until(
        self, what: str, holds: Callable[[run_pb2.Event], bool], seconds: float = DEADLINE_SECONDS
    ) -> run_pb2.Event:
        """Follow the run's events until one fits."""
        try:
            async with asyncio.timeout(seconds), aclosing(self._more()) as items:
                async for event in items:
                    if holds(event):
                        return event
        except TimeoutError:
            raise AssertionError(f"{what}: not within {seconds:g} s; {self.told()}") from None
        raise AssertionError(f"{what}: the run ended before; {self.told()}")

    async def asked(self, count: int = 1) -> list[approval_pb2.Approval]:
        """Wait until the run has parked with so many pending approvals; return them in order."""
        found: Sequence[approval_pb2.Approval] = await self.client.approvals.list(run=self.name)
        while len(found) < count or not await self._parked():
            await self.until(
                f"asks for {count} approval(s)",
                lambda event: (
                    event.type in (run_pb2.EVENT_TYPE_AWAITING, run_pb2.EVENT_TYPE_APPROVAL_REQUESTED)
                ),
            )
            found = await self.client.approvals.list(run=self.name)
        assert len(found) == count, (count, found, self.told())
        return list(found)

    async def started(self, tool: str) -> run_pb2.Event:
        """Wait until a call of the tool has passed its gate."""
        return await self.until(
            f"{tool} starts",
            lambda event: event.type == run_pb2.EVENT_TYPE_STEP_STARTED and event.data["tool"] == tool,
        )

    async def ended(self, state: run_pb2.RunState.ValueType | None = None) -> run_pb2.Run:
        """Wait for the run's end, and return it; it must be in the state, where one is given."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                self.run = await self.client.runs.wait(self.name)
        except TimeoutError:
            self.run = await self.client.runs.get(self.name)
            raise AssertionError(f"it has not ended: {self.run}\n{await self.history()}") from None
        if state is not None:
            got = run_pb2.RunState.Name(self.run.state)
            assert self.run.state == state, f"{got} {self.run.error}\n{await self.history()}"
        return self.run

    async def succeeded(self) -> run_pb2.Run:
        return await self.ended(run_pb2.RUN_STATE_SUCCEEDED)

    async def answers(self) -> list[dict[str, Any]]:
        """What the tools answered to the scripted model, after the run has succeeded."""
        run = await self.succeeded()
        found: list[dict[str, Any]] = json.loads(run.answer)
        return found

    async def history(self) -> str:
        """The run's events, one a line."""
        return "\n".join(line(event) for event in await self.client.runs.events(self.name))

    def told(self) -> str:
        return "saw:\n" + "\n".join(line(event) for event in self.events)

    async def _parked(self) -> bool:
        return (await self.client.runs.get(self.name)).state == run_pb2.RUN_STATE_AWAITING

    async def _more(self) -> AsyncGenerator[run_pb2.Event, None]:
        async with aclosing(self.client.runs.watch(self.name, cursor=self.cursor)) as items:
            async for item in items:
                self.cursor = item.cursor
                self.events.append(item.event)
                yield item.event


def line(event: run_pb2.Event) -> str:
    """An event in a line."""
    kind = run_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_")
    return f"{event.sequence:3} {kind} {json.dumps(json_format.MessageToDict(event.data))[:300]}"


class Driver:
    """Starts runs of the test agents and keeps their watches."""

    def __init__(self, plane: Plane, client: Client) -> None:
        self.plane = plane
        self.client = client

    async def talk(
        self,
        agent: str,
        *turns: Sequence[Call],
        thread: str = "",
        on_busy: MultitaskStrategy | None = None,
    ) -> Watched:
        """Start a run of a scripted agent."""
        await self.plane.agent(self.client, agent)
        run = await self.client.runs.create(agent, script(*turns), thread=thread, multitask_strategy=on_busy)
        return Watched(self.client, run)

    async def start(self, agent: str, values: Mapping[str, object]) -> Watched:
        """Start a run with the graph's own input."""
        await self.plane.agent(self.client, agent)
        return Watched(self.client, await self.client.runs.create(agent, values=values))

    async def worker_of(self, run: str) -> worker_pb2.Worker:
        """The worker that holds the run's lease."""
        wanted = (await self.client.runs.get(run)).worker
        return next(worker for worker in await self.client.workers.list() if worker.worker == wanted)

    async def workers(self, count: int = 2) -> list[worker_pb2.Worker]:
        """Wait until so many workers are connected."""

        async def connected() -> list[worker_pb2.Worker]:
            known = await self.client.workers.list()
            there = [worker for worker in known if worker.state == worker_pb2.WORKER_STATE_CONNECTED]
            return there if len(there) >= count else []

        return await eventually(f"{count} workers are connected", connected, 90)
