"""Where a command writes: people's output or JSON on stdout, errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import IO, Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console, RenderableType
from rich.text import Text

from fermata.bots.conversation.text import clean
from fermata.client import FermataError

from .exits import hint_of

PIPE_WIDTH = 140
"""Columns where stdout is no terminal, unless COLUMNS says otherwise."""


class Output:
    """One command's output.

    :param as_json: True for ``--json``.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = console_for(sys.stdout)
        self.errors = console_for(sys.stderr)

    def show(self, *people: RenderableType, document: Message | Mapping[str, object]) -> None:
        """One answer: ``people`` for people, ``document`` for ``--json``."""
        if self.as_json:
            print_json(document)
        else:
            for part in people:
                self.console.print(part)

    def attach_terminal(self) -> None:
        """Write to the present ``sys.stdout``, which a line editor has put in place of the terminal."""
        self.console = Console(
            file=sys.stdout, markup=False, emoji=False, highlight=False, force_terminal=True, soft_wrap=False
        )

    def note(self, text: str, style: str = "dim") -> None:
        """A line for people; nothing with ``--json``."""
        if not self.as_json:
            self.console.print(Text(clean(text), style=style))

    def item(self, document: Message | Mapping[str, object]) -> None:
        """One line of a stream, with ``--json`` only."""
        if self.as_json:
            print_json(document)


def console_for(stream: IO[str]) -> Console:
    """A console without markup, emoji codes and highlighting, wide enough in a pipe that nothing is cut
    off."""
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=width)


def to_json(document: object) -> Any:
    """JSON-ready form: messages in protobuf's JSON with the names of the .proto files, also inside of lists
    and dicts."""
    if isinstance(document, Message):
        return to_json(
            MessageToDict(
                document, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )
    if isinstance(document, float) and document.is_integer():
        # A Struct keeps 3 as 3.0; to JSON they are one number, to many of its readers they are not.
        return int(document)
    if isinstance(document, Mapping):
        return {key: to_json(value) for key, value in document.items()}
    if isinstance(document, Iterable) and not isinstance(document, str | bytes):
        return [to_json(value) for value in document]
    return document


def print_json(document: Message | Mapping[str, object]) -> None:
    """One JSON document on one line of stdout, at once."""
    sys.stdout.write(json.dumps(to_json(document), ensure_ascii=True) + "\n")
    sys.stdout.flush()


def report(failure: FermataError) -> None:
    """An error on stderr: ``error [REASON] message``, the refused fields, and a hint."""
    errors = console_for(sys.stderr)
    errors.print(
        Text.assemble(("error ", "bold red"), f"[{failure.reason}] {clean(failure.message)}"), soft_wrap=True
    )
    for violation in failure.violations:
        errors.print(Text(f"  {clean(violation.field)}: {clean(violation.description)}"), soft_wrap=True)
    if hint := hint_of(failure):
        errors.print(Text(f"  {hint}", style="dim"), soft_wrap=True)
