"""Asking a person about an approval, and sending what they say."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from fermata.bots.conversation.cards import Card, card_of
from fermata.bots.conversation.editing import EditError, check, edited, typed
from fermata.bots.conversation.intents import Command, Decide, intent_of
from fermata.bots.conversation.text import clean, exposed, one_line
from fermata.bots.conversation.view import CardEntry, Conversation
from fermata.client import FermataError, LocalError
from fermata.client.values import JsonValue
from fermata.v1 import approval_pb2

from . import drawing
from .output import report
from .session import Session


def ask_about(opened: Session, shown_approval: approval_pb2.Approval) -> None:
    """Ask until this approval is decided, or the person leaves it to others."""
    card = card_of(shown_approval)
    view = Conversation(entries=(CardEntry(card.name, card),))
    while card.is_pending:
        line = typer.prompt(
            f"{card.tool or 'answer'} [a/e/r/d/h, empty: later]", default="", show_default=False
        )
        if not line.strip():
            raise typer.Exit(7)
        intent = intent_of(line, view)
        try:
            match intent:
                case Decide(decision=approval_pb2.DECISION_EDIT, assignments=()):
                    arguments = ask_arguments(card)
                    opened.client.approvals.edit(shown_approval, arguments)
                case Decide():
                    decide(opened, shown_approval, intent)
                case Command(name="halt"):
                    opened.client.latches.halt(run=shown_approval.run, reason="halted at an approval")
                case _:
                    opened.output.console.print(details(card))
                    continue
        except EditError as failure:
            report(failure)
            continue
        except FermataError as failure:
            report(failure)
        return


def decide(opened: Session, approval: approval_pb2.Approval, intent: Decide) -> approval_pb2.Approval:
    """Send a decision as ``intent`` says. :raises FermataError: EditError included."""
    client = opened.client.approvals
    card = card_of(approval)
    match intent.decision:
        case approval_pb2.DECISION_EDIT:
            return client.edit(approval, assign(card, intent.assignments), comment=intent.comment)
        case approval_pb2.DECISION_ANSWER:
            return client.answer(approval, intent.value, comment=intent.comment)
        case decision:
            return client.decide(
                approval.name,
                decision,
                digest=approval.digest,
                comment=intent.comment,
                value=intent.value or None,
            )


def assign(card: Card, assignments: tuple[str, ...]) -> dict[str, JsonValue]:
    """The card's arguments with ``name=value`` applied. :raises EditError: what the schema refuses."""
    return edited(card.args, assignments, card.schema)


def ask_arguments(card: Card) -> dict[str, JsonValue]:
    """Prompt for each argument, its present value as the default. :raises EditError: what the schema
    refuses as a whole."""
    arguments = dict(card.args)
    properties: Mapping[str, Any] = card.schema.get("properties", {})
    for name in dict.fromkeys([*arguments, *properties]):
        present = name in arguments
        while True:
            text = typer.prompt(one_line(name, 60), default=card.texts.get(name, ""), show_default=present)
            if (present and text == card.texts[name]) or (not present and not text):
                break
            try:
                arguments[name] = typed(name, text, card.schema)
            except EditError as failure:
                report(failure)
                continue
            break
    check(arguments, card.schema)
    return arguments


def edit_in_editor(card: Card) -> dict[str, JsonValue]:
    """The arguments as JSON in $VISUAL or $EDITOR. :raises LocalError: EDITOR_FAILED, ARGUMENT_INVALID."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise LocalError("Name the changes with --set name=value, or set EDITOR.", reason="EDITOR_MISSING")
    with tempfile.TemporaryDirectory(prefix="fermata-") as folder:
        path = Path(folder) / "arguments.json"
        # ASCII only: an editor would show hidden characters as little as a terminal does.
        path.write_text(json.dumps(card.args, indent=2) + "\n", encoding="utf-8")
        try:
            ended = subprocess.run([*shlex.split(editor), str(path)], check=False)  # noqa: S603 - the person's own editor
        except OSError as failure:
            raise LocalError(
                f"{editor} can't be started: {failure.strerror}.", reason="EDITOR_FAILED"
            ) from failure
        if ended.returncode:
            raise LocalError(
                f"{editor} ended with {ended.returncode}; nothing was sent.", reason="EDITOR_FAILED"
            )
        try:
            arguments = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as failure:
            raise EditError("", f"That is no JSON: {failure}") from failure
    if not isinstance(arguments, dict):
        raise EditError("", "The arguments should be a JSON object.")
    check(arguments, card.schema)
    return arguments


def details(card: Card) -> Text:
    """All that is known about a card, in full."""
    left = card.seconds_left(time.time())
    lines = [
        ("Approval", card.name),
        ("Run", card.run),
        ("Agent", card.agent),
        ("Tool", f"{card.tool}  {card.tool_description}"),
        ("Digest", card.digest),
        ("Rule", card.rule),
        ("Effect", card.effect),
        ("Risk", card.risk),
        ("Roles", ", ".join(card.roles)),
        ("Time left", drawing.left_text(left) if left is not None else ""),
        ("Arguments", exposed(json.dumps(card.shown_args, ensure_ascii=False))),
        ("Schema", exposed(json.dumps(card.schema, ensure_ascii=False)) if card.schema else ""),
        ("Why", card.why),
    ]
    text = Text()
    for label, value in lines:
        if value.strip():
            text.append(f"{label:<10} ", "dim").append(clean(value) + "\n")
    return text
