"""Watches the conversations that go on in Slack, and wants their messages as they should be now.

Level-triggered: what is wanted is drawn from the whole view each time, and the outbox leaves out what Slack shows already. A follower
that begins anew therefore repairs whatever a dead one has left half done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing

from fermata.bots.conversation.cards import Card, secrets_of
from fermata.bots.conversation.reducer import Item, apply, latch_entry
from fermata.bots.conversation.view import CardEntry, Conversation
from fermata.client import Client, FermataError, NotFoundError, StreamOptions
from fermata.client.latches import CLOSED_STATES
from fermata.client.names import last_part
from fermata.client.runs import TERMINAL_STATES
from fermata.client.values import from_struct
from fermata.v1 import approval_pb2, latch_pb2, run_pb2, surface_pb2

from . import messages
from .outbox import SURFACE, Outbox

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0
"""A conversation in which nothing happens for so long is not watched any more; the next message begins it anew."""
RECENT_RUNS = 200
"""Runs that a new process looks at for answers that were never posted."""
RESTART_SECONDS = 2.0
ACTIVE_STATES = tuple(state for state in run_pb2.RunState.values() if state and state not in TERMINAL_STATES)
ANSWERED_STATES = TERMINAL_STATES - {run_pb2.RUN_STATE_HALTED, run_pb2.RUN_STATE_CANCELLED}
"""Ends of which there is a message beside the run's own."""
_APPROVALS = frozenset({run_pb2.EVENT_TYPE_APPROVAL_REQUESTED, run_pb2.EVENT_TYPE_APPROVAL_DECIDED})
_LATCHES = frozenset(
    {
        run_pb2.EVENT_TYPE_HELD,
        run_pb2.EVENT_TYPE_RELEASED,
        run_pb2.EVENT_TYPE_HALTING,
        run_pb2.EVENT_TYPE_HALTED,
    }
)


class Follower:
    """One conversation."""

    def __init__(
        self,
        client: Client,
        outbox: Outbox,
        place: surface_pb2.Place,
        report: Callable[[surface_pb2.Place, latch_pb2.Latch], None],
    ) -> None:
        self.place = place
        self.view = Conversation()
        self.heard = time.monotonic()
        self.is_caught_up = asyncio.Event()
        self._client = client
        self._outbox = outbox
        self._report = report
        self._targets: dict[str, int] = {}
        self._secrets: messages.Secrets = frozenset()

    async def run(self) -> None:
        """Watch until cancelled. :raises FermataError: where the server refuses to tell."""
        runs = await self._client.runs.list(thread=self.place.thread, limit=5)
        self._targets = {run.name: run.last_sequence for run in runs}
        agents = await self._client.agents.list()
        self._secrets = frozenset().union(*(secrets_of(agent.revision.report) for agent in agents))
        self._publish()
        options = StreamOptions(patience_seconds=None)
        stream = self._client.runs.watch(thread=self.place.thread, deltas=True, options=options)
        async with aclosing(stream) as items:
            async for item in items:
                match item.WhichOneof("item"):
                    case "event":
                        await self._event(item.event)
                    case "delta":
                        self.take(item.delta)

    def take(self, item: Item) -> None:
        """Count what has happened, and want the messages that follow from it."""
        self.view = apply(self.view, item)
        self.heard = time.monotonic()
        self._publish()

    @property
    def is_idle(self) -> bool:
        """True where nobody needs it for now."""
        active = any(state not in TERMINAL_STATES for state in self.view.states.values())
        return not active and time.monotonic() - self.heard > IDLE_SECONDS

    async def _event(self, event: run_pb2.Event) -> None:
        facts = from_struct(event.data)
        if event.type in _APPROVALS and isinstance(name := facts.get("approval"), str):
            await self._approval(name)
        if event.type in _LATCHES and isinstance(name := facts.get("latch"), str):
            await self._latch(name)
        self.take(event)

    async def _approval(self, name: str) -> None:
        try:
            approval = await self._client.approvals.get(name)
        except NotFoundError:
            log.info("the approval %s is gone", name)
            return
        self.take(approval)

    async def _latch(self, name: str) -> None:
        try:
            self._report(self.place, await self._client.latches.get(last_part(name)))
        except NotFoundError:
            log.info("the latch %s is gone", name)

    def _publish(self) -> None:
        # What an old run was in between is not shown again on the way to what it is now.
        if any(self.view.sequences.get(run, 0) < target for run, target in self._targets.items()):
            return
        self._targets = {}
        self.is_caught_up.set()
        for shown in messages.messages(self.view, last_part(self.place.agent), self._secrets):
            self._outbox.show(self.place, shown)


class Conversations:
    """All conversations of a workspace.

    :param team: its id; what goes on in another one is another bot's.
    """

    def __init__(self, client: Client, outbox: Outbox, team: str) -> None:
        self._client = client
        self._team = team
        self._outbox = outbox
        self._followers: dict[str, Follower] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._reports: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._places: dict[str, surface_pb2.Place | None] = {}

    def follow(self, place: surface_pb2.Place) -> Follower:
        """Watch a conversation; one that is watched already goes on."""
        follower = self._followers.get(place.name)
        if follower is None:
            follower = Follower(self._client, self._outbox, place, self.report)
            self._followers[place.name] = follower
            self._tasks[place.name] = asyncio.create_task(
                self._keep_on(follower), name=f"follow {place.name}"
            )
        return follower

    async def place_of(self, thread: str) -> surface_pb2.Place | None:
        """Where a thread goes on in this surface; None where it does not."""
        if thread not in self._places:
            try:
                found = await self._client.surfaces.place(thread)
            except NotFoundError:
                found = None
            self._places[thread] = found if found is not None and self._is_own(found) else None
        return self._places[thread]

    def report(self, place: surface_pb2.Place, latch: latch_pb2.Latch) -> None:
        """Show a latch in a place, and on until it has settled. One of another workspace is left to that one's bot."""
        if not self._is_own(place):
            return
        self._outbox.show(place, messages.latch(latch_entry(latch)))
        key = (place.name, latch.name)
        task = self._reports.get(key)
        if latch.state not in CLOSED_STATES and (task is None or task.done()):
            self._reports[key] = asyncio.create_task(
                self._settle(place, latch.name), name=f"report {latch.name}"
            )

    async def take_approval(self, approval: approval_pb2.Approval) -> None:
        """Show an approval that has changed, or that a new process hears of for the first time."""
        place = await self.place_of(approval.thread)
        if place is not None:
            follower = self.follow(place)
            if approval.run in follower.view.sequences:
                follower.take(approval)

    async def reconcile(self) -> None:
        """Go on with whatever goes on, or was not shown to its end."""
        for run in await self._client.runs.list(states=ACTIVE_STATES, limit=None):
            if (place := await self.place_of(run.thread)) is not None:
                self.follow(place)
        for card in await self._client.surfaces.cards(surface=SURFACE, open_only=True):
            await self._take_up(card)

    async def catch_up(self) -> None:
        """At the start of a process: find runs that have ended while no bot was there to say so."""
        for run in await self._client.runs.list(limit=RECENT_RUNS):
            place = await self.place_of(run.thread)
            if place is None or run.state not in ANSWERED_STATES:
                continue
            subject = messages.answer_of(run.name)
            if not await self._client.surfaces.cards(surface=SURFACE, subject=subject, limit=1):
                self.follow(place)

    async def watch_approvals(self) -> None:
        """Follow every conversation in which somebody is asked, also one that another process has begun. Until cancelled."""
        options = StreamOptions(patience_seconds=None)
        async with aclosing(self._client.approvals.watch(options=options)) as items:
            async for item in items:
                await self.take_approval(item.approval)

    def rest(self) -> None:
        """Stop watching what has been quiet for long."""
        for name, follower in list(self._followers.items()):
            if follower.is_idle:
                self._tasks.pop(name).cancel()
                del self._followers[name]
        self._reports = {key: task for key, task in self._reports.items() if not task.done()}

    @property
    def all(self) -> tuple[Follower, ...]:
        """What is watched."""
        return tuple(self._followers.values())

    def card(self, approval: str) -> Card | None:
        """A card that a conversation has at hand, by the approval's id."""
        for follower in self._followers.values():
            for entry in follower.view.entries:
                if isinstance(entry, CardEntry) and last_part(entry.card.name) == approval:
                    return entry.card
        return None

    @property
    def watched(self) -> int:
        """Conversations that are watched."""
        return len(self._followers)

    async def close(self) -> None:
        """End all watches."""
        tasks = [*self._tasks.values(), *self._reports.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_up(self, card: surface_pb2.Card) -> None:
        try:
            place = await self._client.surfaces.place(card.place)
            if not self._is_own(place):
                return
            if "/latches/" in card.subject:
                self.report(place, await self._client.latches.get(last_part(card.subject)))
            else:
                self.follow(place)
        except NotFoundError:
            log.info("%s or its place is gone", card.subject)

    def _is_own(self, place: surface_pb2.Place) -> bool:
        return place.surface == SURFACE and place.team == self._team

    async def _keep_on(self, follower: Follower) -> None:
        while True:
            try:
                await follower.run()
            except FermataError as failure:
                log.warning("the watch of %s broke: %s", follower.place.thread, failure)
            await asyncio.sleep(RESTART_SECONDS)

    async def _settle(self, place: surface_pb2.Place, latch: str) -> None:
        try:
            options = StreamOptions(patience_seconds=None)
            async with aclosing(self._client.latches.watch(latch, options=options)) as reports:
                async for now in reports:
                    self._outbox.show(place, messages.latch(latch_entry(now)))
        except FermataError as failure:
            log.warning("the report of %s broke: %s", latch, failure)
