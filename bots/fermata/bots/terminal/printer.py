"""Prints a conversation as it goes on: each entry once, when it is worth a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from fermata.bots.conversation.reducer import Item, apply, changed
from fermata.bots.conversation.view import CardEntry, Conversation, Entry, LatchEntry, ToolStep
from fermata.v1 import run_pb2

from . import drawing


class Printer:
    """Keeps the view, and prints what changes in it.

    A terminal's lines can't be taken back, so a tool's line is printed when the call has ended, and a card
    once while it waits and once when it is decided. What is going on meanwhile is for a status line.

    :param skip: entries not to print, such as what the person has typed here.
    :ivar trouble: a connection's trouble, for the status line; the next item ends it.
    """

    def __init__(self, console: Console, *, skip: Callable[[Entry], bool] = lambda entry: False) -> None:
        self.view = Conversation()
        self.trouble = ""
        self._console = console
        self._skip = skip

    def take(self, item: Item, *, silent: bool = False) -> None:
        """Apply ``item`` and, unless ``silent``, print what is new."""
        before = self.view
        self.trouble = ""
        self.view = apply(before, item)
        if silent:
            return
        for entry in changed(before, self.view):
            if _is_worth_a_line(entry, before) and not self._skip(entry):
                self._console.print(drawing.entry(entry))

    def expect(self, run: run_pb2.Run) -> None:
        """Count ``run`` as going on from now, unless its events have told more already, or it waits for the one that is."""
        if run.in_line and self.view.is_active:
            return
        if self.view.run != run.name and run.name not in self.view.sequences:
            self.view = replace(self.view, run=run.name, state=run.state)

    @property
    def status(self) -> str:
        """What is going on now, for a status line."""
        running = self.view.running_steps
        if running:
            return ", ".join(
                f"{step.tool}({', '.join(f'{k}={v}' for k, v in step.arguments)})" for step in running
            )
        return "working" if self.view.is_active else ""


def _is_worth_a_line(entry: Entry, before: Conversation) -> bool:
    known = before.entry(entry.key)
    match entry:
        case ToolStep():
            return entry.state != "running"
        case CardEntry():
            return not isinstance(known, CardEntry) or known.card.state != entry.card.state
        case LatchEntry():
            return not isinstance(known, LatchEntry) or known.state != entry.state
        case _:
            return True
