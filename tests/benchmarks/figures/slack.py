"""The bot in a Slack workspace: what a person waits for, with the emulator's own share beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from tests.benchmarks.agents.graphs import ASKS
from tests.benchmarks.figures.bench import CALLING, Bench
from tests.benchmarks.figures.series import Figure, Rounds
from tests.e2e.slack.emulator import BINARY, BOT, CHANNEL, Emulator, Message, button, emulator, text_of

from fermata.v1 import principal_pb2, run_pb2

ROUNDS = 8
"""So few, and each in a channel of its own, because the bot keeps to what Slack allows a channel and a workspace."""
WARM_UPS = 1
TEAM = "T0BENCH"
PERSON = "U1"
GO_ON_AIM_MS = 150.0
HALTING_AIM_MS = 200.0
SHOWN_SECONDS = 30.0
_ANSWER, _DECIDED, _GOES_ON, _LATCHED, _SETTLED, _EMULATOR = (
    "first answer", "decided", "goes on", "latched", "settled", "emulator",
)  # fmt: skip


class Screen:
    """What a person sees in the workspace's page, and when, by ``time.perf_counter``."""

    def __init__(self, at: Emulator, http: aiohttp.ClientSession) -> None:
        self._at = at
        self._http = http
        self._seen: list[tuple[float, Message]] = []
        self._moved = asyncio.Event()
        self.channel = CHANNEL

    async def watch(self) -> None:
        """Take in what the page is told, until cancelled."""
        async with self._http.ws_connect(f"{self._at.url}/ui") as page:
            async for frame in page:
                told = json.loads(frame.data)
                if told["t"] in ("message", "message_update"):
                    self._seen.append((time.perf_counter(), told["message"]))
                    self._moved.set()

    async def shown(self, thread: str, fits: Callable[[Message], bool]) -> tuple[float, Message]:
        """When a message of the bot that fits was first shown in a thread."""
        async with asyncio.timeout(SHOWN_SECONDS):
            while True:
                self._moved.clear()
                for at, message in self._seen:
                    if message.get("thread_ts") == thread and message["user"] == BOT and fits(message):
                        return at, message
                await self._moved.wait()

    async def send(self, path: str, **body: Any) -> dict[str, Any]:
        """Do something as a person."""
        async with self._http.post(
            f"{self._at.url}/_control/{path}", json={"user": PERSON, "channel": self.channel, **body}
        ) as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def say(self, text: str) -> str:
        """Say something to the agent; returns the thread."""
        told = await self.send("message", text=f"<@{BOT}> {CALLING}: {text}")
        return str(told["message"]["ts"])

    async def press(self, message: Message, action: str) -> None:
        """Press a button."""
        shown = button(message, action)
        assert shown is not None
        clicked = {"type": "button", "action_id": action, "value": shown["value"]}
        await self.send("interact", messageTs=message["ts"], action=clicked)

    async def round_trip(self) -> float:
        """Milliseconds of the emulator alone: chat.postMessage called to shown in the page."""
        began = time.perf_counter()
        mark = f"probe {began}"
        data = {"channel": self.channel, "text": mark, "thread_ts": "1.0"}
        async with self._http.post(f"{self._at.url}/api/chat.postMessage", data=data):
            pass
        at, _ = await self.shown("1.0", lambda one: one["text"] == mark)
        return (at - began) * 1e3


async def slack(bench: Bench) -> Sequence[Figure]:
    """A person asks, approves, and halts. Nothing where the emulator is not installed."""
    if not BINARY.exists():
        sys.stderr.write("no Slack emulator: make slack-emulator\n")
        return ()
    rounds = Rounds()
    async with _workspace(bench) as screen:
        for index in range(WARM_UPS + bench.times(ROUNDS)):
            screen.channel = f"C{index + 1}"
            values = {
                **await _approve(bench, screen),
                **await _halt(bench, screen),
                _EMULATOR: await screen.round_trip(),
            }
            if index >= WARM_UPS:
                for what, milliseconds in values.items():
                    rounds.add(what, milliseconds)
    return (
        Figure(
            "Slack: message to first visible answer", "ms", rounds.series(_ANSWER), note="the run's message"
        ),
        Figure(
            "Slack: click to decision durable",
            "ms",
            rounds.series(_DECIDED),
            note="to APPROVAL_DECIDED on an open watch",
        ),
        Figure(
            "Slack: click to agent going on",
            "ms",
            rounds.series(_GOES_ON),
            aim=GO_ON_AIM_MS,
            note="to STEP_STARTED",
        ),
        Figure("Slack: Halt pressed to halting shown", "ms", rounds.series(_LATCHED), aim=HALTING_AIM_MS),
        Figure("Slack: Halt pressed to settled shown", "ms", rounds.series(_SETTLED)),
        Figure(
            "Slack: the emulator's own share of each",
            "ms",
            rounds.series(_EMULATOR),
            note="chat.postMessage to shown",
        ),
    )


async def _approve(bench: Bench, screen: Screen) -> dict[str, float]:
    began = time.perf_counter()
    thread = await screen.say(ASKS)
    answered, _ = await screen.shown(thread, lambda one: True)
    _, card = await screen.shown(thread, lambda one: button(one, "approval.approve") is not None)
    run = await _run_of(bench, card)
    await bench.feed.until(run, run_pb2.EVENT_TYPE_AWAITING)
    clicked = time.perf_counter()
    await screen.press(card, "approval.approve")
    decided, _ = await bench.feed.until(run, run_pb2.EVENT_TYPE_APPROVAL_DECIDED)
    goes_on, _ = await bench.feed.until(run, run_pb2.EVENT_TYPE_STEP_STARTED)
    await bench.feed.until(run, run_pb2.EVENT_TYPE_SUCCEEDED)
    bench.feed.forget(run)
    return {
        _ANSWER: (answered - began) * 1e3,
        _DECIDED: (decided - clicked) * 1e3,
        _GOES_ON: (goes_on - clicked) * 1e3,
    }


async def _halt(bench: Bench, screen: Screen) -> dict[str, float]:
    thread = await screen.say("60")
    _, message = await screen.shown(thread, lambda one: button(one, "run.halt") is not None)
    run = f"tenants/default/runs/{button(message, 'run.halt')['value']}"  # type: ignore[index]
    await bench.feed.until(run, run_pb2.EVENT_TYPE_STEP_STARTED)
    clicked = time.perf_counter()
    await screen.press(message, "run.halt")
    latched, _ = await screen.shown(
        thread, lambda one: "halting" in text_of(one) or "settled" in text_of(one)
    )
    settled, _ = await screen.shown(thread, lambda one: "settled" in text_of(one))
    bench.feed.forget(run)
    return {_LATCHED: (latched - clicked) * 1e3, _SETTLED: (settled - clicked) * 1e3}


async def _run_of(bench: Bench, card: Message) -> str:
    value = button(card, "approval.details")["value"]  # type: ignore[index]
    return (await bench.client.approvals.get(value.split(":")[0])).run


@contextlib.asynccontextmanager
async def _workspace(bench: Bench) -> AsyncIterator[Screen]:
    """The emulator with the real bot in it."""
    bot = await bench.client.principals.create(
        "bench-slack", kind=principal_pb2.PRINCIPAL_KIND_BOT, roles=[principal_pb2.ROLE_OPERATOR]
    )
    await bench.client.surfaces.link(f"slack.{TEAM}.{PERSON}", "local")
    fermata = str(Path(sys.executable).with_name("fermata"))
    with (
        tempfile.TemporaryDirectory() as folder,
        emulator(Path(folder), team=TEAM, channels=WARM_UPS + ROUNDS) as at,
    ):
        process = await asyncio.create_subprocess_exec(
            fermata, "--address", bench.client.connection.target, "bot", "slack", "--json",
            env={**os.environ, **at.environment, "FERMATA_TOKEN": bot.token},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            if not await process.stdout.readline():
                raise RuntimeError("the bot did not start")
            async with aiohttp.ClientSession() as http:
                screen = Screen(at, http)
                watching = asyncio.create_task(screen.watch())
                yield screen
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        finally:
            process.terminate()
            await process.wait()
