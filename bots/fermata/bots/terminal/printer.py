"""Prints a conversation as it goes on: each entry once, when it is worth a line."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from fermata.bots.conversation.reducer import Item, apply, changed
from fermata.bots.conversation.view import CardEntry, Conversation, Entry, LatchEntry, ToolStep

from . import drawing


class Printer:
    """Keeps the view, and prints what changes in it.

    A terminal's lines can't be taken back, so a tool's line is printed when the call has ended, and a card
    once while it waits and once when it is decided. What is going on meanwhile is for a status line.

    :param skip: entries not to print, such as what the person has typed here.
    """

    def __init__(self, console: Console, *, skip: Callable[[Entry], bool] = lambda entry: False) -> None:
        self.view = Conversation()
        self._console = console
        self._skip = skip

    def take(self, item: Item) -> None:
        """Apply ``item`` and print what is new."""
        before = self.view
        self.view = apply(before, item)
        for entry in changed(before, self.view):
            if self._is_worth_a_line(entry, before) and not self._skip(entry):
                self._console.print(drawing.entry(entry))

    def _is_worth_a_line(self, entry: Entry, before: Conversation) -> bool:
        match entry:
            case ToolStep():
                return entry.state != "running"
            case CardEntry():
                known = before.entry(entry.key)
                return not isinstance(known, CardEntry) or known.card.state != entry.card.state
            case LatchEntry():
                known = before.entry(entry.key)
                return not isinstance(known, LatchEntry) or known.state != entry.state
            case _:
                return True

    @property
    def status(self) -> str:
        """What is going on now, for a status line."""
        running = self.view.running_steps
        if running:
            return ", ".join(
                f"{step.tool}({', '.join(f'{k}={v}' for k, v in step.arguments)})" for step in running
            )
        return "working" if self.view.is_active else ""
