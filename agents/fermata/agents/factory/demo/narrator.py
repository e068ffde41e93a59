"""What the demo prints: scenes, events as they come, and checks."""

from __future__ import annotations

import json
import time
from typing import Any

from google.protobuf import json_format
from rich.console import Console
from rich.markup import escape

from fermata.v1 import run_pb2

_SHOWN = 220
"""Characters of a text that one line shows."""


class Narrator:
    """Prints to a console, each line with the seconds since the demo began."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def scene(self, title: str) -> None:
        """Begin a scene."""
        self._console.print()
        self._console.rule(f"[bold]{escape(title)}", align="left")

    def doing(self, text: str) -> None:
        """Say what is being done."""
        self._line("·", escape(text), "dim")

    def person(self, text: str) -> None:
        """What the person says or decides."""
        self._line("»", f"[bold cyan]{escape(text)}[/]")

    def checked(self, text: str) -> None:
        """A check that held."""
        self._line("✓", f"[green]{escape(text)}[/]")

    def failed(self, text: str) -> None:
        """A check that did not hold."""
        self._line("✗", f"[bold red]{escape(text)}[/]")

    def event(self, event: run_pb2.Event) -> None:
        """One event of a run."""
        name = run_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_").lower()
        data = json_format.MessageToDict(event.data)
        text = _told(event.type, data)
        if text is not None:
            self._line(" ", f"[yellow]{name:<18}[/] {escape(_cut(text))}")

    def _line(self, mark: str, text: str, style: str = "") -> None:
        seconds = time.monotonic() - self._began
        self._console.print(f"[dim]{seconds:6.1f}s[/] {mark} {text}", style=style, highlight=False)


def _told(kind: run_pb2.EventType.ValueType, data: dict[str, Any]) -> str | None:
    """An event's facts in a line; None for what people need not see."""
    match kind:
        case run_pb2.EVENT_TYPE_NODE_FINISHED:
            return None
        case run_pb2.EVENT_TYPE_MESSAGE:
            calls = ", ".join(
                f"{call['name']}({_args(call['args'])})" for call in data.get("tool_calls") or []
            )
            text = str(data.get("content") or "")
            return f"{data.get('type')}: {text}{f'  → {calls}' if calls else ''}"
        case run_pb2.EVENT_TYPE_STEP_STARTED | run_pb2.EVENT_TYPE_APPROVAL_REQUESTED:
            return f"{data.get('tool')}({_args(data.get('args') or {})})"
        case run_pb2.EVENT_TYPE_STEP_CLOSED:
            return (
                f"{data.get('tool')} {data.get('outcome')}: {data.get('result') or data.get('error') or ''}"
            )
    facts = {key: value for key, value in data.items() if value not in ("", None, [], {})}
    return json.dumps(facts, ensure_ascii=False)


def _args(args: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value!r}"
        for name, value in args.items()
    )


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else flat[: _SHOWN - 1] + "…"
