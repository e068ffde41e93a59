"""A text to take values from, and what a possible value is.

Spans point into the text, so that no word is used twice and every value can be traced to its words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from fermata.agents.planner.names import Name
from fermata.agents.planner.text import (
    Token,
    tokenize,
)

#: Words for a person; names of people fill parameters that are called so.
PEOPLE: Final = frozenset(
    [
        "person",
        "people",
        "recipient",
        "user",
        "assignee",
        "employee",
        "attendee",
        "sender",
        "contact",
        "owner",
        "member",
        "colleague",
        "customer",
        "guest",
        "patient",
        "driver",
        "technician",
        "operator",
        "manager",
        "lead",
        "to",
        "who",
        "staff",
        "crew",
        "team",
        "doctor",
        "nurse",
        "teacher",
        "student",
        "client",
        "author",
        "reviewer",
        "approver",
        "participant",
        "invitee",
        "addressee",
        "receiver",
        "teammate",
        "whom",
        "tenant",
        "caller",
        "worker",
        "engineer",
    ]
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible value: where it stands in the text (`start` -1: nowhere, it was derived) and how well it fits."""

    value: Any
    start: int
    end: int
    score: float
    problem: str = ""
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """A text to take values from, with what is known about it; `vocabulary` are words that
    tools and options own, `reason` says that it may be why something is asked for."""

    text: str
    names: tuple[Name, ...]
    today: date | None
    vocabulary: frozenset[str] = frozenset()
    reason: bool = False
    condition: bool = False
    kinds: frozenset[str] = frozenset()

    @property
    def tokens(self) -> tuple[Token, ...]:
        return tuple(t for t in tokenize(self.text) if t.is_word)
