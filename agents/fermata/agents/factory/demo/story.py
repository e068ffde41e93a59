"""The factory story. Each scene speaks the public API only, and believes nothing but what it reads back from the plant."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format

from fermata.agents.factory.client import PlantClient
from fermata.agents.factory.demo.narrator import Narrator
from fermata.client import Client
from fermata.v1 import approval_pb2, latch_pb2, run_pb2, worker_pb2

AGENT = "operator"

QUIET_SECONDS = 5.0
"""How long the plant is watched after a halt has settled: nothing may be written in that time."""

SCENE_SECONDS = 120.0

Decide = Callable[[approval_pb2.Approval], Awaitable[None]]
OnEvent = Callable[[run_pb2.Event], Awaitable[None]]


class StoryError(AssertionError):
    """Something in the story did not come out as it should."""


@dataclass(slots=True)
class Seen:
    """A run that came to its end, and the events that were seen on the way."""

    run: run_pb2.Run
    events: list[run_pb2.Event] = field(default_factory=list)

    def started(self) -> list[tuple[str, dict[str, Any]]]:
        """Tool and arguments of each call that started, in order."""
        return [
            (str(event.data["tool"]), json_format.MessageToDict(event.data)["args"])
            for event in self.events
            if event.type == run_pb2.EVENT_TYPE_STEP_STARTED
        ]

    def citations(self) -> list[str]:
        """Sources that the answer cites."""
        for event in reversed(self.events):
            data = json_format.MessageToDict(event.data)
            if event.type == run_pb2.EVENT_TYPE_MESSAGE and data.get("type") == "ai":
                return [str(cited["source"]) for cited in data.get("citations") or []]
        return []


class Story:
    """Plays the scenes.

    :param plant_url: where the plant is read back.
    """

    def __init__(self, client: Client, plant_url: str, narrator: Narrator) -> None:
        self._client = client
        self._plant_url = plant_url
        self._tell = narrator
        self._decisions = 0

    async def play(self) -> None:
        """All scenes in order.

        :raises StoryError: at the first check that does not hold.
        """
        for scene in (self.question, self.vibration, self.rejected_stop, self.halted, self.worker_killed):
            await asyncio.wait_for(scene(), SCENE_SECONDS)

    async def question(self) -> None:
        """A question, answered from the documents with citations."""
        self._tell.scene("1. A question, answered with citations")
        seen = await self._ask(
            "What is the alarm limit for vibration, and what is the usual cause when a line is above it?"
        )
        answer = seen.run.answer
        self._check(
            "7.1" in answer and "bearing" in answer.lower(), f"the answer names limit and cause: {answer}"
        )
        self._check(bool(seen.citations()), f"it cites {', '.join(dict.fromkeys(seen.citations()))}")
        changed = [tool for tool, _ in seen.started() if not tool.startswith(("read_", "list_"))]
        self._check(not changed, "nothing was changed")

    async def vibration(self) -> None:
        """Readings, runbook, a proposed slow-down, approved with another value, written, read back, verified."""
        self._tell.scene("2. “line 3 vibrates badly, deal with it”")
        before = await self._read("line-3")
        self._check(
            before["vibration_mm_s"] > 7.1,
            f"line-3 vibrates: {before['vibration_mm_s']:.1f} mm/s at {before['speed_rpm']:.0f} rpm",
        )
        proposed: list[dict[str, Any]] = []

        async def slower(approval: approval_pb2.Approval) -> None:
            args = json_format.MessageToDict(approval.args)
            self._check(
                approval.tool == "set_speed",
                f"the agent asks: {approval.tool} {args}, because {approval.rationale}",
            )
            proposed.append(args)
            self._tell.person("Yes, but go down to 1100 rpm (edited value)")
            await self._client.approvals.edit(
                approval, {**args, "rpm": 1100}, comment="1100 is kinder to the bearing"
            )

        seen = await self._ask("line 3 vibrates badly, deal with it", slower)
        self._check(seen.run.state == run_pb2.RUN_STATE_SUCCEEDED, "the run succeeded")
        wanted = round(before["speed_setpoint_rpm"] * 0.8)
        self._check(
            bool(proposed) and abs(proposed[0]["rpm"] - wanted) <= 5,
            f"the runbook's 20 % less was proposed: {wanted} rpm",
        )
        after = await self._read("line-3")
        self._check(
            abs(after["speed_setpoint_rpm"] - 1100) < 1,
            f"the plant has the edited value: {after['speed_setpoint_rpm']:.0f} rpm",
        )
        self._check(
            after["vibration_mm_s"] < 7.1, f"the vibration fell to {after['vibration_mm_s']:.1f} mm/s"
        )
        tools = [tool for tool, _ in seen.started()]
        changed = tools.index("set_speed")
        self._check(
            "read_line" in tools[:changed] and "read_line" in tools[changed:],
            "read before, and read back after",
        )
        self._check(
            "schedule_maintenance" in tools and "notify_person" in tools,
            "an inspection is ordered, the lead is told",
        )
        self._check("verified" in seen.run.answer, "the answer says what was verified")
        self._check(bool(seen.citations()), f"and cites {', '.join(dict.fromkeys(seen.citations()))}")

    async def rejected_stop(self) -> None:
        """A stop that a person rejects does not happen, and the agent takes the reason up."""
        self._tell.scene("3. A rejected stop")
        writes = await self._writes()
        reason = "not during the shift; slow it down to 1200 rpm instead"
        asked: list[str] = []

        async def decide(approval: approval_pb2.Approval) -> None:
            args = json_format.MessageToDict(approval.args)
            asked.append(approval.tool)
            if approval.tool == "stop_line":
                self._tell.person(f"No: {reason}")
                await self._client.approvals.reject(approval, comment=reason)
            else:
                self._tell.person(f"Yes: {approval.tool} {args}")
                await self._client.approvals.approve(approval)

        seen = await self._ask("stop line 2, please", decide)
        line = await self._read("line-2")
        self._check(asked[0] == "stop_line", "the stop was asked for")
        self._check(line["state"] == "RUNNING", f"line-2 still runs, at {line['speed_rpm']:.0f} rpm")
        self._check(not any(tool == "stop_line" for tool, _ in seen.started()), "no stop ever started")
        took_up = "set_speed" in asked or "shift" in seen.run.answer
        self._check(took_up, f"the agent took the reason up: {seen.run.answer}")
        if "set_speed" in asked:
            self._check(
                await self._writes() == writes + 1, "exactly one write reached the plant: the slow-down"
            )
            self._check(
                abs(line["speed_setpoint_rpm"] - 1200) < 1,
                f"which reads back as {line['speed_setpoint_rpm']:.0f} rpm",
            )

    async def halted(self) -> None:
        """A run is halted while its first write is under way; nothing is written after the halt has settled."""
        self._tell.scene("4. A halt that holds")
        reports: list[latch_pb2.Latch] = []

        async def halt(event: run_pb2.Event) -> None:
            if (
                event.type == run_pb2.EVENT_TYPE_STEP_STARTED
                and event.data["tool"] == "set_speed"
                and not reports
            ):
                self._tell.person("Halt!")
                latch = await self._client.latches.halt(run=event.run, reason="a person is at the line")
                reports.append(latch)
                self._tell.doing(
                    f"latched; open effects: {', '.join(step.tool for step in latch.steps) or 'none'}"
                )
                reports.append(await self._client.latches.settle(latch.name))

        seen = await self._ask("set line 1 to 1250 rpm, then set line 4 to 1250 rpm", self._approve, halt)
        self._check(bool(reports), "the halt came while a write was under way")
        settled = reports[-1]
        self._check(
            settled.state == latch_pb2.LATCH_STATE_SETTLED,
            f"settled after {settled.settle_milliseconds:.1f} ms",
        )
        writes = await self._writes()
        self._check(seen.run.state == run_pb2.RUN_STATE_HALTED, "the run is HALTED")
        self._tell.doing(f"watching the plant for {QUIET_SECONDS:.0f} s over fresh connections ...")
        deadline = asyncio.get_running_loop().time() + QUIET_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            self._check(await self._writes() == writes, "", quiet=True)
            await asyncio.sleep(0.5)
        self._check(await self._writes() == writes, "nothing was written after the halt had settled")
        line = await self._read("line-4")
        self._check(
            abs(line["speed_setpoint_rpm"] - 1250) > 1,
            f"line-4 was never touched: {line['speed_setpoint_rpm']:.0f} rpm",
        )

    async def worker_killed(self) -> None:
        """A worker is killed while a call runs; another one takes the run over, and it ends as it should."""
        self._tell.scene("5. A worker dies on the way")
        killed: list[str] = []

        async def kill(event: run_pb2.Event) -> None:
            if (
                event.type == run_pb2.EVENT_TYPE_STEP_STARTED
                and event.data["tool"] == "set_speed"
                and not killed
            ):
                run = await self._client.runs.get(event.run)
                worker = await self._worker(run.worker)
                self._tell.doing(f"kill -9 {worker.pid}: worker {worker.worker}, in the middle of the call")
                os.kill(worker.pid, signal.SIGKILL)
                killed.append(run.worker)

        seen = await self._ask("set line 4 to 1300 rpm", self._approve, kill)
        self._check(bool(killed), "a worker was killed during the call")
        self._check(seen.run.state == run_pb2.RUN_STATE_SUCCEEDED, "the run succeeded all the same")
        self._check(seen.run.epoch > 1, f"on another worker, at epoch {seen.run.epoch}")
        line = await self._read("line-4")
        self._check(
            abs(line["speed_setpoint_rpm"] - 1300) < 1,
            f"line-4 reads back as {line['speed_setpoint_rpm']:.0f} rpm",
        )

    async def _ask(self, text: str, decide: Decide | None = None, on_event: OnEvent | None = None) -> Seen:
        """Say something to the agent, play the person's part, and return the run when it has ended."""
        self._tell.person(text)
        run = await self._client.runs.create(AGENT, text)
        seen = Seen(run)
        async with aclosing(self._client.runs.watch(run.name)) as items:
            async for item in items:
                event = item.event
                seen.events.append(event)
                self._tell.event(event)
                if on_event is not None:
                    await on_event(event)
                if event.type == run_pb2.EVENT_TYPE_APPROVAL_REQUESTED:
                    approval = await self._client.approvals.get(str(event.data["approval"]))
                    self._check(
                        decide is not None,
                        "a person is asked only where that is part of the scene",
                        quiet=True,
                    )
                    assert decide is not None
                    await decide(approval)
        seen.run = await self._client.runs.get(run.name)
        return seen

    async def _approve(self, approval: approval_pb2.Approval) -> None:
        self._tell.person(f"Yes: {approval.tool} {json_format.MessageToDict(approval.args)}")
        await self._client.approvals.approve(approval)

    async def _worker(self, worker: str) -> worker_pb2.Worker:
        for known in await self._client.workers.list():
            if known.worker == worker:
                return known
        raise StoryError(f"the run's worker {worker!r} is not among the connected ones")

    async def _read(self, line: str) -> dict[str, Any]:
        async with PlantClient(self._plant_url) as plant:
            return {**await plant.read(line)}

    async def _writes(self) -> int:
        """How many writes the plant has ever taken, read over a fresh connection."""
        async with PlantClient(self._plant_url) as plant:
            return await plant.write_count()

    def _check(self, holds: bool, text: str, *, quiet: bool = False) -> None:
        if not holds:
            raise StoryError(text or "the plant was written to")
        if not quiet:
            self._tell.checked(text)
