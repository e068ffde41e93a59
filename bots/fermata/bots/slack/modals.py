"""Modals: a form from a tool's JSON schema, a reason, an answer, and all of a card. What comes back is checked by the same schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fermata.bots.conversation.cards import REDACTED, Card
from fermata.bots.conversation.editing import check, options_of, typed
from fermata.bots.conversation.text import exposed, short_name
from fermata.client.values import JsonValue
from fermata.v1 import approval_pb2

from . import blocks, cards
from .blocks import Block

EDIT = "modal.edit"
REJECT = "modal.reject"
ANSWER = "modal.answer"
APPROVE = "modal.approve"
TEXT_BLOCK = "text"
VALUE = "value"
MAX_INPUT = 3000
MAX_OPTIONS = 100
MAX_OPTION = 75
MAX_INPUTS = 90
MAX_ERROR = 200
MAX_LABEL = 200
SHORT = 80
"""Characters from which on a text is given several lines."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a modal is about, and where it was opened; travels with it, and is checked again by the server."""

    approval: str
    digest: str
    channel: str = ""
    thread: str = ""

    def dump(self) -> str:
        """As private_metadata."""
        return json.dumps([self.approval, self.digest, self.channel, self.thread])

    @classmethod
    def load(cls, text: str) -> Origin:
        """From private_metadata. :raises ValueError: where it is none of ours."""
        found = json.loads(text)
        if not isinstance(found, list) or len(found) != 4:
            raise ValueError("no metadata of a card")
        return cls(*(str(part) for part in found))


def origin_of(card: Card, channel: str = "", thread: str = "") -> Origin:
    """The origin of a card's modal."""
    return Origin(short_name(card.name), card.digest, channel, thread)


def edit(card: Card, origin: Origin) -> Block:
    """A form with a field for each argument."""
    inputs = [_input(card, index, name) for index, name in enumerate(_names(card)[:MAX_INPUTS])]
    found = [blocks.section(blocks.plain(blocks.cut(card.sentence, 500)))]
    found += [block for block in inputs if block is not None]
    missing = len(_names(card)) - sum(block is not None for block in inputs)
    if missing:
        found.append(
            blocks.context(
                blocks.plain(
                    f"{missing} arguments are too long for this form, and stay: fermata edit changes them."
                )
            )
        )
    return _view("Change and approve", EDIT, found, origin, submit="Approve")


def read_edit(card: Card, values: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The arguments as a form has them.

    :param values: ``view.state.values``.
    :raises EditError: ``metadata["argument"]`` names what is wrong.
    """
    arguments = dict(card.args)
    required = card.schema.get("required", [])
    for index, name in enumerate(_names(card)):
        if (block := block_of(index)) not in values:
            continue
        text = _entered(values[block])
        present = card.texts.get(name)
        if text is None:
            # An emptied field leaves an optional argument to its default. A required one can't be emptied.
            if name in arguments and name not in required and present != REDACTED:
                del arguments[name]
        elif text != present:
            arguments[name] = typed(name, text, card.schema)
    check(arguments, card.schema)
    return arguments


def errors_of(card: Card, argument: str, message: str) -> dict[str, str]:
    """What to show beside which field: the one of ``argument``, else the first."""
    names = _names(card)
    first = argument.split(".")[0]
    index = names.index(first) if first in names else 0
    return {block_of(index): blocks.cut(message, MAX_ERROR)}


def reject(card: Card, origin: Origin) -> Block:
    """Asks for the reason, which the agent is told."""
    found = [
        blocks.section(blocks.plain(blocks.cut(card.sentence, 500))),
        _text("Why? The agent is told.", optional=True),
    ]
    return _view("Reject", REJECT, found, origin, submit="Reject")


def answer(card: Card, origin: Origin) -> Block:
    """Asks for an answer to an INPUT."""
    found = [*blocks.prose(card.question, most=10), _text("Your answer")]
    return _view("Answer", ANSWER, found, origin, submit="Answer")


def read_text(values: Mapping[str, Any]) -> str:
    """What was entered in the one field of a modal."""
    return (_entered(values.get(TEXT_BLOCK, {})) or "").strip()


def details(card: Card, origin: Origin) -> Block:
    """All of a card. Where its message could not show all of it, this is where it is approved."""
    found = [
        blocks.section(blocks.plain(card.question)),
        *(block for name, text in _facts(card) for block in blocks.prose(f"{name}\n{text}", most=20)),
    ]
    found += [
        block
        for argument in card.arguments
        for block in blocks.prose(f"{argument.name}\n{argument.text}", most=blocks.MAX_VIEW_BLOCKS)
    ]
    whole = len(found) <= blocks.MAX_VIEW_BLOCKS - 1
    if not whole:
        found = [
            *found[: blocks.MAX_VIEW_BLOCKS - 1],
            blocks.section(
                blocks.plain(
                    f"More than Slack can show. Read it at a terminal: fermata approve {origin.approval}"
                )
            ),
        ]
    approvable = card.is_pending and approval_pb2.DECISION_APPROVE in card.decisions
    submit = "Approve" if whole and approvable and not cards.is_whole(card) else ""
    return _view("Details", APPROVE, found, origin, submit=submit)


def block_of(index: int) -> str:
    """The id of an argument's field."""
    return f"argument.{index}"


def _facts(card: Card) -> Iterator[tuple[str, str]]:
    facts = (
        ("Approval", card.name),
        ("Run", card.run),
        ("Digest", card.digest),
        ("Tool", f"{card.tool}  {card.tool_description}"),
        ("Effect", card.effect),
        ("Risk", card.risk),
        ("Rule", card.rule),
        ("Roles", ", ".join(card.roles)),
        ("Why", card.why),
        ("Outcome", card.outcome),
        ("Schema", exposed(json.dumps(card.schema, ensure_ascii=False)) if card.schema else ""),
    )
    return ((name, text) for name, text in facts if text.strip())


def _names(card: Card) -> list[str]:
    """The arguments in the order of the form: those that are given, then those that could be."""
    known = card.schema.get("properties", {})
    return list(dict.fromkeys([*card.args, *(known if isinstance(known, dict) else ())]))


def _input(card: Card, index: int, name: str) -> Block | None:
    """The field of an argument; None where its value is longer than a field can be."""
    known = card.schema.get("properties", {})
    part = known.get(name, {}) if isinstance(known, dict) else {}
    part = part if isinstance(part, dict) else {}
    text = card.texts.get(name, "")
    if blocks.length(text) > MAX_INPUT:
        return None
    secret = text == REDACTED
    options = [] if secret else [_option(value) for value in options_of(name, card.schema)]
    if not options or len(options) > MAX_OPTIONS or any(option is None for option in options):
        element: Block = {
            "type": "plain_text_input",
            "action_id": VALUE,
            "multiline": blocks.length(text) > SHORT or "\n" in text,
        }
        if text and not secret:
            element["initial_value"] = text
        if secret:
            element["placeholder"] = blocks.plain("not shown; stays as it is where this is empty", 150)
    else:
        element = {"type": "static_select", "action_id": VALUE, "options": options}
        initial = next((option for option in options if option and option["value"] == text), None)
        if initial is not None:
            element["initial_option"] = initial
    description = str(part.get("description") or "")
    found: Block = {
        "type": "input",
        "block_id": block_of(index),
        "label": blocks.plain(name, MAX_LABEL),
        "element": element,
        "optional": secret or name not in card.schema.get("required", []),
    }
    return found | ({"hint": blocks.plain(description, 2000)} if description.strip() else {})


def _option(value: str) -> Block | None:
    if not value.strip() or blocks.length(value) > MAX_OPTION:
        return None
    return {"text": blocks.plain(value, MAX_OPTION), "value": value}


def _text(label: str, *, optional: bool = False) -> Block:
    return {
        "type": "input",
        "block_id": TEXT_BLOCK,
        "label": blocks.plain(label, MAX_LABEL),
        "element": {"type": "plain_text_input", "action_id": VALUE, "multiline": True},
        "optional": optional,
    }


def _entered(block: Mapping[str, Any]) -> str | None:
    """What a field holds; None for an empty one."""
    found = block.get(VALUE) or {}
    option = found.get("selected_option")
    text = option.get("value") if option else found.get("value")
    return text if isinstance(text, str) and text != "" else None


def _view(title: str, callback: str, found: list[Block], origin: Origin, *, submit: str) -> Block:
    view: Block = {
        "type": "modal",
        "callback_id": callback,
        "title": blocks.plain(title, blocks.MAX_TITLE),
        "close": blocks.plain("Close" if not submit else "Cancel", 24),
        "blocks": found[: blocks.MAX_VIEW_BLOCKS],
        "private_metadata": origin.dump(),
    }
    return view | ({"submit": blocks.plain(submit, 24)} if submit else {})
