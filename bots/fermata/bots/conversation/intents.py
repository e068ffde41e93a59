"""What a person means by a line that they typed.

Words for cards (approve, edit, reject, details) count only while a card waits; otherwise they are a message
like any other. "stop" is the one word that is never only a message: while a run is going on it halts that
run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fermata.v1 import approval_pb2

from .cards import Card
from .view import Conversation

_STOP = frozenset(
    {
        "stop",
        "halt",
        "stop it",
        "stop now",
        "stop that",
        "stop this",
        "please stop",
        "stop please",
        "abort",
        "emergency stop",
    }
)
_ACTION_WORDS = {"a": "approve", "approve": "approve"} | {
    "r": "reject", "reject": "reject", "no": "reject",
    "e": "edit", "edit": "edit",
    "d": "details", "details": "details",
    "h": "halt",
}  # fmt: skip
_RECOVERY_WORDS = {
    "happened": approval_pb2.DECISION_IT_HAPPENED,
    "it happened": approval_pb2.DECISION_IT_HAPPENED,
    "again": approval_pb2.DECISION_DO_AGAIN,
    "do it again": approval_pb2.DECISION_DO_AGAIN,
    "give up": approval_pb2.DECISION_GIVE_UP,
    "give-up": approval_pb2.DECISION_GIVE_UP,
}


@dataclass(frozen=True, slots=True)
class Say:
    """Send ``text`` as a message on the thread."""

    text: str


@dataclass(frozen=True, slots=True)
class Decide:
    """Decide ``card``. ``assignments`` (name=value) belong to an edit; none of them: ask for each
    argument."""

    card: Card
    decision: approval_pb2.Decision.ValueType
    comment: str = ""
    assignments: tuple[str, ...] = ()
    value: str = ""


@dataclass(frozen=True, slots=True)
class Details:
    """Show all of ``card``."""

    card: Card


@dataclass(frozen=True, slots=True)
class Command:
    """A surface's command: halt, hold, release, runs, help, quit; ``argument`` is what follows it."""

    name: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Unclear:
    """Something that looks like a command and is none; ``message`` says what would be."""

    message: str


Intent = Say | Decide | Details | Command | Unclear | None
COMMANDS = {
    "halt": "stop the run for good (/halt all: everything)",
    "hold": "let started effects finish, and stop there",
    "release": "let a held run go on (/release ID: that latch)",
    "runs": "the latest runs",
    "help": "what can be typed",
    "quit": "leave; runs go on",
}


def intent_of(line: str, view: Conversation) -> Intent:
    """What ``line`` means now; None for an empty one."""
    text = line.strip()
    if not text:
        return None
    if text.startswith("/"):
        name, _, argument = text[1:].partition(" ")
        name = {"exit": "quit", "q": "quit", "?": "help", "stop": "halt"}.get(name.lower(), name.lower())
        if name in COMMANDS:
            return Command(name, argument.strip())
        return Unclear(f"There is no command /{name}. Known: {', '.join('/' + known for known in COMMANDS)}.")
    if view.is_active and re.sub(r"[^a-z ]", "", text.lower()).strip() in _STOP:
        return Command("halt")
    return _about_card(text, view) or Say(text)


def _about_card(text: str, view: Conversation) -> Intent:
    cards = view.cards
    if not cards:
        return None
    found = re.fullmatch(r"(\S+?)(?:\s+#?(\d+))?(?:[\s:,]+(.*))?", text, re.DOTALL)
    word, number, rest = (found[1].lower(), found[2], found[3] or "") if found else ("", None, "")
    index = int(number) - 1 if number else 0
    if not 0 <= index < len(cards):
        # Not a card's number: it belongs to what follows, such as "reject 5 is too much".
        index, rest = 0, f"{number} {rest}".strip()
    card = cards[index]
    recovery = _RECOVERY_WORDS.get(text.lower().rstrip("."))
    if card.kind == approval_pb2.APPROVAL_KIND_RECOVERY and recovery is not None:
        return Decide(card, recovery)
    if card.kind == approval_pb2.APPROVAL_KIND_INPUT and _ACTION_WORDS.get(word) not in ("details", "halt"):
        return Decide(card, approval_pb2.DECISION_ANSWER, value=text)
    meant = _ACTION_WORDS.get(word)
    if card.kind == approval_pb2.APPROVAL_KIND_RECOVERY and meant in ("approve", "edit", "reject"):
        return Unclear("Say what became of it: happened, again or give up.")
    match meant:
        case "approve" if not rest:
            return Decide(card, approval_pb2.DECISION_APPROVE)
        case "reject":
            return Decide(card, approval_pb2.DECISION_REJECT, comment=rest)
        case "edit" if not rest or "=" in rest:
            return Decide(card, approval_pb2.DECISION_EDIT, assignments=split_assignments(rest))
        case "details" if not rest:
            return Details(card)
        case "halt" if not rest:
            return Command("halt")
    return None


def split_assignments(text: str) -> tuple[str, ...]:
    """``rpm=900 note=too fast`` as its assignments: a value goes on until the next name."""
    starts = [match.start() for match in re.finditer(r"(?:(?<=^)|(?<=\s))[A-Za-z_]\w*=", text)]
    ends = [*starts[1:], len(text)]
    return tuple(text[start:end].strip().rstrip(",") for start, end in zip(starts, ends, strict=False))
