"""The people: they start runs, decide what they are asked, hold and halt, and write down what they were told.

They tell the truth about what has happened, for they can walk over to the machine and look.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.simulation.loop import Process
from tests.simulation.outside import Outside
from tests.simulation.plant import Plant

from fermata.client import Client, FermataError
from fermata.client.runs import TERMINAL_STATES
from fermata.client.streams import StreamOptions
from fermata.client.threads import MultitaskStrategy
from fermata.v1 import approval_pb2, latch_pb2

THINK_SECONDS = 0.5

STRATEGIES: tuple[MultitaskStrategy, ...] = ("reject", "enqueue", "interrupt", "rollback")


@dataclass
class Wanted:
    """A run that somebody wanted, and what it was to do."""

    agent: str
    turns: list[list[list[str]]]
    after: Wanted | None = None
    """The run whose thread it goes on with, where it goes on with one."""
    strategy: MultitaskStrategy | None = None
    parent: Wanted | None = None
    """The run for which it is made."""
    deadline_seconds: float = 0.0
    """How long it may take; 0 for as long as it likes."""
    run: str = ""
    """Its name, once the server has said that it is there."""
    thread: str = ""

    @property
    def calls(self) -> list[tuple[str, str]]:
        """(tool, call) of the whole plan."""
        return [(tool, call) for turn in self.turns for tool, call in turn]


@dataclass
class Stopped:
    """A latch, as the one who set it was told."""

    latch: latch_pb2.Latch
    latched: float
    settled: float = math.inf
    releasing: float = math.inf
    """When they began to lift it."""


@dataclass
class Notes:
    """What people were told."""

    wanted: list[Wanted] = field(default_factory=list)
    seen: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Sequence numbers by run, as a watch of everything brought them."""
    decided: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Approval to decision and call."""
    rejected: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    stopped: list[Stopped] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


class People:
    """See the module."""

    def __init__(self, plant: Plant, outside: Outside, rng: random.Random) -> None:
        self._plant = plant
        self._outside = outside
        self._rng = rng
        self._process: Process = plant.people
        self.notes = Notes()

    def begin(self, runs: int, within_seconds: float) -> list[asyncio.Task[Any]]:
        """Start to want things; the tasks are over when every run is acknowledged or refused."""
        loop, rng = self._plant.loop, self._rng
        loop.spawn(self._process, self._watch())
        loop.spawn(self._process, self._decide())
        self._outside.on_standstill = self._notice
        tasks = []
        for number in range(runs):
            wanted = _plan(rng, number, self.notes.wanted)
            self.notes.wanted.append(wanted)
            tasks.append(loop.spawn(self._process, self._want(wanted, rng.random() * within_seconds)))
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            # Some only after leases have ended, while the hosts that had them may still hold what they were permitted.
            late = rng.random() < 0.35
            loop.spawn(self._process, self._stop(rng.random() * within_seconds * (6 if late else 1)))
        return tasks

    async def wait_for_ends(self) -> None:
        """Wait until every run that was started has ended."""
        client = self._plant.client()
        for wanted in self.notes.wanted:
            if not wanted.run:
                continue
            while (await client.runs.get(wanted.run)).state not in TERMINAL_STATES:  # noqa: ASYNC110 - now and then
                await asyncio.sleep(0.5)

    def waiting(self) -> asyncio.Task[Any]:
        """:meth:`wait_for_ends`, in their process."""
        return self._plant.loop.spawn(self._process, self.wait_for_ends())

    async def _want(self, wanted: Wanted, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        client = self._plant.client()
        for first in (wanted.after, wanted.parent):
            if first is not None:
                await self._is_made(first)
        try:
            run = await client.runs.create(
                wanted.agent,
                values={"turns": wanted.turns, "turn": 0},
                thread=wanted.after.thread if wanted.after is not None else "",
                multitask_strategy=wanted.strategy,
                deadline=self._by(wanted.deadline_seconds),
                parent=wanted.parent.run if wanted.parent is not None else "",
            )
        except FermataError as error:
            self.notes.refusals.append(error.reason)
        else:
            wanted.run, wanted.thread = run.name, run.thread

    async def _is_made(self, wanted: Wanted) -> None:
        while not wanted.run and not self.notes.refusals:  # noqa: ASYNC110 - they look now and then
            await asyncio.sleep(0.05)

    def _by(self, seconds: float) -> datetime | None:
        if not seconds:
            return None
        return datetime.fromtimestamp(self._plant.clock.now() + seconds, UTC)

    async def _watch(self) -> None:
        client = self._plant.client()
        async with aclosing(client.runs.watch(options=StreamOptions(patience_seconds=None))) as items:
            async for item in items:
                self.notes.seen[item.event.run].append(item.event.sequence)

    async def _decide(self) -> None:
        client = self._plant.client()
        async with aclosing(client.approvals.watch(options=StreamOptions(patience_seconds=None))) as items:
            async for item in items:
                if item.approval.state == approval_pb2.APPROVAL_STATE_PENDING:
                    self._plant.loop.spawn(self._process, self._answer(client, item.approval))

    async def _answer(self, client: Client, shown: approval_pb2.Approval) -> None:
        if shown.name in self.notes.decided:
            return
        await asyncio.sleep(self._rng.random() * THINK_SECONDS)
        call = str(dict(shown.args)["call"])
        value: Any = None
        if shown.kind == approval_pb2.APPROVAL_KIND_ACTION:
            decision = (
                approval_pb2.DECISION_REJECT if self._rng.random() < 0.15 else approval_pb2.DECISION_APPROVE
            )
        elif self._outside.has_happened(call):
            decision, value = approval_pb2.DECISION_IT_HAPPENED, f"{call} is done"
        elif approval_pb2.DECISION_DO_AGAIN in shown.allowed_decisions:
            decision = approval_pb2.DECISION_DO_AGAIN
        elif self._rng.random() < 0.3:
            decision = approval_pb2.DECISION_GIVE_UP
        else:
            # It may still happen: look again later, and at what may be decided by then.
            await asyncio.sleep(2.0)
            self._plant.loop.spawn(
                self._process, self._answer(client, await client.approvals.get(shown.name))
            )
            return
        try:
            await client.approvals.decide(shown.name, decision, digest=shown.digest, value=value)
        except FermataError as error:
            self.notes.refusals.append(error.reason)
            return
        self.notes.decided[shown.name] = (decision, call)
        if decision == approval_pb2.DECISION_REJECT:
            self.notes.rejected.add(call)
        elif decision == approval_pb2.DECISION_GIVE_UP:
            self.notes.given_up.add(call)

    def _notice(self, run: str) -> None:
        """A run stands still in a call: often they halt it, before its lease ends or after."""
        if self._rng.random() < 0.7:
            self._plant.loop.spawn(self._process, self._stop(self._rng.random() * 20.0, run))

    async def _stop(self, after_seconds: float, run: str = "") -> None:
        """Hold or halt something, or halt ``run``, and lift that later."""
        await asyncio.sleep(after_seconds)
        client, rng = self._plant.client(), self._rng
        scope: dict[str, Any] = {"everything": True}
        kind = rng.random()
        made = [wanted for wanted in self.notes.wanted if wanted.run]
        if run and kind < 0.8:
            scope = {"run": run}
        elif kind < 0.3 and made:
            scope = {"run": rng.choice(made).run}
        elif kind < 0.5 and made:
            parents = [wanted.parent for wanted in made if wanted.parent is not None]
            scope = {"run": rng.choice(parents or made).run, "descendants": True}
        elif kind < 0.6 and made:
            scope = {"thread": rng.choice(made).thread}
        elif kind < 0.75:
            scope = {"agent": rng.choice(self.notes.wanted).agent}
        elif kind < 0.85:
            scope = {"tool": rng.choice(("fire", "put"))}
        holds = not run and rng.random() < 0.4
        set_latch = client.latches.hold if holds else client.latches.halt
        stopped = Stopped(await set_latch(**scope), self._plant.loop.time())
        name = stopped.latch.name
        self.notes.stopped.append(stopped)
        if holds and rng.random() < 0.5:
            # They change their minds whether or not it has settled.
            await asyncio.sleep(rng.random() * 5)
        else:
            await client.latches.settle(name, options=StreamOptions(patience_seconds=None))
            stopped.settled = self._plant.loop.time()
            await asyncio.sleep(rng.random() * 2)
        stopped.releasing = self._plant.loop.time()
        await client.latches.release(name)


def _plan(rng: random.Random, number: int, before: list[Wanted]) -> Wanted:
    turns = []
    count = 0
    for _ in range(rng.randint(1, 3)):
        turn = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            tool = rng.choices(("look", "put", "fire", "ask"), (2, 2, 4, 2))[0]
            turn.append([tool, f"{number}.{count}"])
            count += 1
        turns.append(turn)
    agent = rng.choices(("gathered", "fanned", "alone", "stubborn", "orphaning"), (3, 2, 2, 1, 1))[0]
    deadline_seconds = 0.1 + rng.random() * 3 if rng.random() < 0.1 else 0.0
    if not before or rng.random() < 0.6:
        parent = rng.choice(before) if before and rng.random() < 0.4 else None
        return Wanted(agent, turns, parent=parent, deadline_seconds=deadline_seconds)
    after = rng.choice(before)
    strategy = rng.choice(STRATEGIES)
    # A thread's state is a graph's, and another graph would not know it.
    return Wanted(after.agent, turns, after, strategy, deadline_seconds=deadline_seconds)
