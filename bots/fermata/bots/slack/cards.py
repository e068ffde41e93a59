"""An approval as a Slack message: a question with buttons while it waits, a record afterwards.

Behind a button are the approval's id and the digest of the arguments that the card shows, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from fermata.bots.conversation.cards import DETAILS, HALT, Card, Choice
from fermata.bots.conversation.text import one_line, short_name
from fermata.v1 import approval_pb2

from . import blocks
from .blocks import Block
from .shown import PEOPLE, Shown

PREFIX = "approval."
ACTIONS = {
    approval_pb2.DECISION_APPROVE: "approval.approve",
    approval_pb2.DECISION_EDIT: "approval.edit",
    approval_pb2.DECISION_REJECT: "approval.reject",
    approval_pb2.DECISION_ANSWER: "approval.answer",
    approval_pb2.DECISION_IT_HAPPENED: "approval.happened",
    approval_pb2.DECISION_DO_AGAIN: "approval.again",
    approval_pb2.DECISION_GIVE_UP: "approval.give_up",
}
DETAILS_ACTION = "approval.details"
HALT_ACTION = "approval.halt"
STYLES = {
    approval_pb2.DECISION_APPROVE: "primary",
    approval_pb2.DECISION_ANSWER: "primary",
    approval_pb2.DECISION_REJECT: "danger",
}
RISKS = {"low": "🟢", "medium": "🟡", "high": "🔴"}

MAX_ARGUMENT = 600
"""Characters of an argument that a card shows; more of it is for the details."""
MAX_ARGUMENTS = 20
MAX_QUESTION = 2500
MAX_WHY = 1500
MAX_EVIDENCE = 5


def value_of(card: Card) -> str:
    """What a card's buttons carry."""
    return f"{short_name(card.name)}:{card.digest}"


def parse_value(value: str) -> tuple[str, str]:
    """The approval's id and the digest that was shown, of what came back with a click."""
    approval, _, digest = value.partition(":")
    return approval, digest


def is_whole(card: Card) -> bool:
    """True where a card shows all that is asked."""
    return (
        len(card.arguments) <= MAX_ARGUMENTS
        and all(blocks.length(argument.text) <= MAX_ARGUMENT for argument in card.arguments)
        and blocks.length(card.question) <= MAX_QUESTION
    )


def approval(card: Card, evidence: Sequence[str] = ()) -> Shown:
    """The message of an approval.

    :param evidence: what the agent has read and cited before, a line each.
    """
    drawn = _pending(card, evidence) if card.is_pending else _decided(card)
    return Shown(
        subject=card.name,
        text=blocks.escape(one_line(card.sentence if card.is_pending else card.outcome, 300)),
        blocks=drawn,
        digest=card.digest,
        is_final=not card.is_pending,
        priority=PEOPLE,
    )


def _pending(card: Card, evidence: Sequence[str]) -> list[Block]:
    found = [
        blocks.context(blocks.mrkdwn(f"*{card.title}* · {blocks.code(card.agent)} · {_risk(card)}")),
        blocks.section(blocks.plain(_headline(card))),
        *_arguments(card),
    ]
    if card.why:
        found += [
            blocks.section(blocks.mrkdwn("*Why*")),
            blocks.section(blocks.plain(card.why, MAX_WHY)),
        ]
    if evidence:
        lines = "\n".join(f"• {one_line(line, 240)}" for line in evidence[:MAX_EVIDENCE])
        found += [blocks.section(blocks.mrkdwn("*What it is based on*")), blocks.section(blocks.plain(lines))]
    # A block each: side by side they would be too narrow to read.
    found += [blocks.context(line) for line in _small_print(card)]
    if not is_whole(card):
        found.append(
            blocks.section(
                blocks.mrkdwn(
                    "⚠️ This is more than a message can show. Read all of it in *Details* to approve it."
                )
            )
        )
    found.append(blocks.actions([_button(card, choice) for choice in _offered(card)]))
    return found


def _headline(card: Card) -> str:
    if card.kind in (approval_pb2.APPROVAL_KIND_ACTION, approval_pb2.APPROVAL_KIND_UNSPECIFIED):
        about = f"\n{card.tool_description}" if card.tool_description else ""
        return blocks.cut(card.sentence, MAX_QUESTION) + about
    return blocks.cut(card.question, MAX_QUESTION)


def _arguments(card: Card) -> list[Block]:
    shown = card.arguments[:MAX_ARGUMENTS]
    found = blocks.fields((argument.name, blocks.cut(argument.text, MAX_ARGUMENT)) for argument in shown)
    if left := len(card.arguments) - len(shown):
        found.append(blocks.context(blocks.plain(f"and {left} more arguments")))
    return found


def _small_print(card: Card) -> list[Block]:
    found = []
    if card.effect:
        found.append(blocks.plain(f"Effect: {card.effect}", 200))
    if card.rule:
        found.append(blocks.plain(f"Rule: {card.rule}", 400))
    waits = f"for {', '.join(card.roles)}" if card.roles else "for a person"
    if card.still_needed > 1:
        waits += f", {card.still_needed} of them"
    found.append(blocks.plain(f"Waits {waits}", 200))
    if card.expires_at:
        found.append(blocks.mrkdwn(f"Until {blocks.until(card.expires_at)}; silence is a no"))
    return found


def _risk(card: Card) -> str:
    return f"{RISKS.get(card.risk, '🟡')} risk {blocks.code(card.risk)}" if card.risk else "risk not declared"


def _offered(card: Card) -> list[Choice]:
    """The buttons. What could not be read is not approved from the card, but from its details, which have all of it."""
    return [
        choice
        for choice in card.choices
        if is_whole(card) or choice.decision != approval_pb2.DECISION_APPROVE
    ]


def _button(card: Card, choice: Choice) -> Block:
    if choice == HALT:
        return blocks.button(
            choice.label,
            HALT_ACTION,
            value_of(card),
            style="danger",
            confirm=blocks.confirm("Halt the run?", "It stops for good.", "Halt"),
        )
    action = DETAILS_ACTION if choice == DETAILS else ACTIONS[choice.decision]
    return blocks.button(choice.label, action, value_of(card), style=STYLES.get(choice.decision, ""))


def _decided(card: Card) -> list[Block]:
    good = card.state in (approval_pb2.APPROVAL_STATE_APPROVED, approval_pb2.APPROVAL_STATE_ANSWERED)
    when = f" · {blocks.until(card.decided_at)}" if card.decided_at else ""
    changes = [
        (argument.name, f"{argument.was} → {argument.text}" if argument.was else argument.text)
        for argument in card.arguments[:MAX_ARGUMENTS]
    ]
    return [
        blocks.context(blocks.mrkdwn(f"*{card.title}* · {blocks.code(card.agent)}{when}")),
        blocks.section(
            blocks.plain(
                f"{'✓' if good else '⊘'} {card.tool or blocks.cut(card.question, 300)} {card.outcome}"
            )
        ),
        *blocks.fields((name, blocks.cut(text, MAX_ARGUMENT)) for name, text in changes),
        blocks.context(blocks.plain(f"{short_name(card.name)} · digest {card.digest[:12]}")),
    ]
