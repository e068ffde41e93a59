"""One conversation in progress: it follows the thread, and carries out what the person means.

It draws through a ``Printer`` and asks through a ``Reader``, so that a terminal with line editing, a pipe
and a test can all drive it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any, Protocol

from rich.text import Text

from fermata.bots.conversation.cards import Card
from fermata.bots.conversation.editing import EditError, check, edited, typed
from fermata.bots.conversation.intents import (
    COMMANDS,
    Command,
    Decide,
    Details,
    Intent,
    Say,
    Unclear,
    intent_of,
)
from fermata.bots.conversation.text import one_line, short_name
from fermata.bots.conversation.view import Conversation, Entry, Message
from fermata.client import Client, FermataError, MultitaskStrategy, NotFoundError, StreamOptions
from fermata.client.latches import CLOSED_STATES
from fermata.client.values import JsonValue, from_struct
from fermata.v1 import approval_pb2, latch_pb2, run_pb2

from . import drawing
from .deciding import details
from .output import Output, report
from .printer import Printer

RUNS_SHOWN = 10
WAITING_STATES = (run_pb2.RUN_STATE_AWAITING, run_pb2.RUN_STATE_HELD)


class Reader(Protocol):
    """Asks the person for a line."""

    async def read(self, prompt: str, default: str = "") -> str:
        """The next line. :raises EOFError: at the end of input. :raises KeyboardInterrupt: for Ctrl-C."""


class Talk:
    """A conversation with ``agent`` on ``thread``.

    :param echo: print what the person says (where the terminal has not shown it already).
    :param on_busy: what a message does while a run is going on. Where it is left to the thread, and where it refuses, a message
        beside a card that waits is taken for a slip of the person who decides; else it is sent.
    """

    def __init__(
        self,
        client: Client,
        output: Output,
        reader: Reader,
        agent: str,
        thread: str,
        *,
        echo: bool = False,
        on_busy: MultitaskStrategy | None = None,
    ) -> None:
        self._client = client
        self._output = output
        self._reader = reader
        self._agent = agent
        self._thread = thread
        self._on_busy = on_busy
        self._said: set[str] = set()
        self._approvals: dict[str, approval_pb2.Approval] = {}
        self._moved = asyncio.Event()
        self._reports: set[asyncio.Task[None]] = set()
        self.printer = Printer(output.console, skip=(lambda entry: False) if echo else self._is_own)

    @property
    def view(self) -> Conversation:
        """What has happened so far."""
        return self.printer.view

    async def follow(self) -> None:
        """Show what happens on the thread, until cancelled. :raises FermataError: where the server refuses
        to tell."""
        options = StreamOptions(patience_seconds=None, on_break=self._on_break)
        async with aclosing(
            self._client.runs.watch(thread=self._thread, deltas=True, options=options)
        ) as items:
            async for item in items:
                match item.WhichOneof("item"):
                    case "event":
                        self._output.item({"event": item.event, "cursor": item.cursor})
                        self._take(item.event)
                        if item.event.type in (
                            run_pb2.EVENT_TYPE_APPROVAL_REQUESTED,
                            run_pb2.EVENT_TYPE_APPROVAL_DECIDED,
                        ):
                            await self._fetch(from_struct(item.event.data).get("approval"))
                    case "delta":
                        self._take(item.delta)

    async def catch_up(self) -> None:
        """Wait until what has happened on the thread so far is shown."""
        for run in await self._client.runs.list(thread=self._thread, limit=1):
            while self.view.sequences.get(run.name, 0) < run.last_sequence:
                self._moved.clear()
                await self._moved.wait()

    async def carry_out(self, line: str) -> bool:
        """Do what ``line`` means. Refusals are reported, not raised.

        :returns: False where the person wants to leave.
        """
        intent = intent_of(line, self.view)
        try:
            return await self._do(intent)
        except FermataError as failure:
            report(failure)
        except KeyboardInterrupt:
            self._output.note("Nothing was sent.")
        return True

    async def until_quiet(self) -> None:
        """Wait until the run has ended or waits for the person, and reports of halts are complete."""
        while self._reports:
            await asyncio.wait(self._reports)
        while self.view.is_active and not (
            self.view.state in WAITING_STATES and (self.view.cards or self._is_held)
        ):
            self._moved.clear()
            await self._moved.wait()

    async def halt(self, *, everything: bool = False) -> None:
        """Halt the present run, or everything; the report follows as it settles."""
        if not everything and not self.view.is_active:
            self._output.note("No run is going on.")
            return
        latch = await self._client.latches.halt(
            run="" if everything else self.view.run, everything=everything, reason="halted in the chat"
        )
        self._show_latch(latch)

    async def close(self) -> None:
        """End what runs in the background."""
        for task in self._reports:
            task.cancel()
        await asyncio.gather(*self._reports, return_exceptions=True)

    @property
    def _is_held(self) -> bool:
        return self.view.state == run_pb2.RUN_STATE_HELD

    async def _do(self, intent: Intent) -> bool:
        match intent:
            case Say(text):
                await self._say(text)
            case Decide():
                await self._decide(intent)
            case Details(card):
                self._output.note(details(card).plain, style="")
            case Unclear(message):
                self._output.note(message, style="yellow")
            case Command("quit"):
                return False
            case Command(name, argument):
                await self._commands[name](argument)
            case None:
                pass
        return True

    async def _say(self, text: str) -> None:
        if self.view.is_active and self.view.cards and self._on_busy in (None, "reject"):
            self._output.note("A card waits: a approve, e edit, r reject, d details, h halt.", style="yellow")
            return
        self._said.add(text)
        run = await self._client.runs.create(
            self._agent, text, thread=self._thread, multitask_strategy=self._on_busy
        )
        if run.in_line and self._on_busy == "enqueue":
            self._output.note("In line behind what is going on.")
        # The view hears of the run by its first event; until then it must not look as if nothing went on.
        self.printer.expect(run)

    async def _decide(self, intent: Decide) -> None:
        card = intent.card
        approval = self._approvals.get(card.name) or await self._client.approvals.get(card.name)
        client = self._client.approvals
        match intent.decision:
            case approval_pb2.DECISION_EDIT:
                if intent.assignments:
                    arguments = edited(card.args, intent.assignments, card.schema)
                else:
                    arguments = await self._ask_arguments(card)
                decided = await client.edit(approval, arguments, comment=intent.comment)
            case approval_pb2.DECISION_ANSWER:
                decided = await client.answer(approval, intent.value)
            case approval_pb2.DECISION_REJECT if not intent.comment:
                reason = await self._reader.read("Why? (the agent is told; empty for no reason) ")
                decided = await client.reject(approval, comment=reason.strip())
            case decision:
                decided = await client.decide(
                    approval.name,
                    decision,
                    digest=approval.digest,
                    comment=intent.comment,
                    value=intent.value or None,
                )
        self._take_approval(decided)

    async def _ask_arguments(self, card: Card) -> dict[str, JsonValue]:
        """Prompt for each argument. :raises EditError: where the schema refuses the whole, or nothing has
        changed."""
        arguments = dict(card.args)
        properties = card.schema.get("properties", {})
        for name in dict.fromkeys([*arguments, *properties]):
            present = card.texts.get(name, "")
            while True:
                text = (await self._reader.read(f"  {one_line(name, 60)} = ", default=present)).strip()
                if text == present:
                    break
                try:
                    arguments[name] = typed(name, text, card.schema)
                except EditError as failure:
                    report(failure)
                    continue
                break
        check(arguments, card.schema)
        if arguments == card.args:
            raise EditError("", "Nothing has changed. Type a to approve it as it is.")
        return arguments

    @property
    def _commands(self) -> dict[str, Callable[[str], Coroutine[Any, Any, None]]]:
        return {
            "halt": self._halt,
            "hold": self._hold,
            "release": self._release,
            "runs": self._runs,
            "help": self._help,
        }

    async def _halt(self, argument: str) -> None:
        if argument.lower() == "all":
            sure = await self._reader.read("Halt everything of this tenant? Type yes: ")
            if sure.strip().lower() == "yes":
                await self.halt(everything=True)
            return
        await self.halt()

    async def _hold(self, _: str) -> None:
        if not self.view.is_active:
            self._output.note("No run is going on.")
            return
        self._show_latch(await self._client.latches.hold(run=self.view.run, reason="held in the chat"))

    async def _release(self, argument: str) -> None:
        found = await self._client.latches.list(limit=None)
        fitting = [
            latch
            for latch in found
            if (short_name(latch.name).startswith(argument) if argument else latch.scope.run == self.view.run)
        ]
        if not fitting or (argument and len(fitting) > 1):
            names = ", ".join(f"{short_name(latch.name)}" for latch in found)
            self._output.note(f"Which one? In force: {names}." if found else "Nothing is held or halted.")
            return
        for latch in fitting:
            self._take(await self._client.latches.release(latch.name))

    async def _runs(self, _: str) -> None:
        found = list(await self._client.runs.list(limit=RUNS_SHOWN))
        self._output.console.print(drawing.run_table(found) if found else Text("No runs.", style="dim"))

    async def _help(self, _: str) -> None:
        lines = [f"  /{name:<9}{what}" for name, what in COMMANDS.items()]
        cards = "  on a card: a approve · e edit (e rpm=900) · r reject (r too risky) · d details · h halt; a 2: the second"
        self._output.note("\n".join([*lines, cards, "  stop       halts the run, too"]), style="")

    def _show_latch(self, latch: latch_pb2.Latch) -> None:
        self._take(latch)
        if latch.state not in CLOSED_STATES:
            task = asyncio.create_task(self._report(latch.name))
            self._reports.add(task)
            task.add_done_callback(self._reports.discard)

    async def _report(self, latch: str) -> None:
        try:
            async with aclosing(self._client.latches.watch(latch)) as reports:
                async for now in reports:
                    self._take(now)
        except FermataError as failure:
            report(failure)

    async def _fetch(self, name: JsonValue) -> None:
        if not isinstance(name, str):
            return
        try:
            self._take_approval(await self._client.approvals.get(name))
        except NotFoundError:
            self._output.note(f"The approval {one_line(short_name(name))} is gone.")
        except FermataError as failure:
            report(failure)

    def _take_approval(self, approval: approval_pb2.Approval) -> None:
        self._approvals[approval.name] = approval
        self._output.item({"approval": approval})
        self._take(approval)

    def _take(
        self, item: run_pb2.Event | run_pb2.TokenDelta | approval_pb2.Approval | latch_pb2.Latch
    ) -> None:
        self.printer.take(item, silent=self._output.as_json)
        self._moved.set()

    def _is_own(self, entry: Entry) -> bool:
        return isinstance(entry, Message) and entry.speaker == "person" and entry.text in self._said

    def _on_break(self, failure: FermataError) -> None:
        self.printer.trouble = f"reconnecting ({failure.reason})" if failure.reason else "reconnecting"

    def toolbar(self, now: float | None = None) -> str:
        """The status line: what goes on, or what waits and for how long."""
        now = time.time() if now is None else now
        cards = self.view.cards
        if self.printer.trouble:
            return self.printer.trouble
        if cards:
            left = cards[0].seconds_left(now)
            until = f", {drawing.left_text(left)} left" if left is not None else ""
            more = f" (+{len(cards) - 1})" if len(cards) > 1 else ""
            return f"waits for you: {cards[0].tool or 'an answer'}{more}{until}  {drawing.choices(cards[0])}"
        if self.view.is_active:
            word = drawing.enum_word(run_pb2.RunState.Name(self.view.state), "RUN_STATE_")
            doing = self.printer.status
            return (
                f"{word}: {doing}  stop halts it"
                if doing and doing != "working"
                else f"{word}  stop halts it"
            )
        return "/help"
