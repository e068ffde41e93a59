"""The view of a conversation: what every surface shows, in order, as immutable values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fermata.client.runs import TERMINAL_STATES
from fermata.client.values import JsonValue
from fermata.v1 import run_pb2

from .cards import Card

StepState = Literal[
    "running", "finished", "failed", "not started", "killed", "confirmed", "abandoned", "refused"
]
LatchStage = Literal["holding", "held", "halting", "settled", "released"]
Tone = Literal["info", "good", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a statement comes from: number in the answer, source, headings, first line."""

    number: str
    source: str
    heading: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """``source:line``."""
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Message:
    """Something that was said. ``key`` is stable; a surface updates what it posted under it."""

    key: str
    speaker: Literal["person", "agent"]
    text: str
    citations: tuple[Citation, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolStep:
    """A call of a tool. ``milliseconds`` is None while it runs."""

    key: str
    tool: str
    arguments: tuple[tuple[str, str], ...]
    state: StepState
    result: str = ""
    milliseconds: float | None = None
    started_at: float = 0.0


@dataclass(frozen=True, slots=True)
class CardEntry:
    """A card for a person to decide, or as it was decided."""

    key: str
    card: Card


@dataclass(frozen=True, slots=True)
class LatchEntry:
    """A hold or halt with its report: (tool, status) of each effect that was open."""

    key: str
    halt: bool
    target: str
    state: LatchStage
    steps: tuple[tuple[str, str], ...] = ()
    runs: int = 0
    stopped_runs: int = 0
    milliseconds: float = 0.0
    reason: str = ""
    expires_at: float = 0.0
    """When a hold's time is over, in seconds since 1970; 0 for never."""


@dataclass(frozen=True, slots=True)
class Note:
    """A line about what happens, such as a run that failed."""

    key: str
    text: str
    tone: Tone = "info"


Entry = Message | ToolStep | CardEntry | LatchEntry | Note


@dataclass(frozen=True, slots=True)
class Conversation:
    """All of it.

    :param run: the latest run's name; empty before the first.
    :param state: that run's state.
    :param entries: in order; each has a ``key`` of its own.
    :param draft: what the agent is writing just now; replaced by its message.
    :param pending: names of approvals that wait for a person, oldest first; their cards may still be on the
        way.
    :param sequences: of each run, the last event that the view has seen.
    :param inputs: the texts that began the runs, to leave out repeats.
    :param states: of each run, its state.
    """

    run: str = ""
    state: run_pb2.RunState.ValueType = run_pb2.RUN_STATE_UNSPECIFIED
    entries: tuple[Entry, ...] = ()
    draft: str = ""
    pending: tuple[str, ...] = ()
    sequences: dict[str, int] = field(default_factory=dict, hash=False)
    inputs: dict[str, JsonValue] = field(default_factory=dict, hash=False)
    states: dict[str, run_pb2.RunState.ValueType] = field(default_factory=dict, hash=False)

    @property
    def is_active(self) -> bool:
        """True while the latest run has not ended."""
        return bool(self.run) and self.state not in TERMINAL_STATES

    @property
    def running_steps(self) -> tuple[ToolStep, ...]:
        """Calls that are going on."""
        return tuple(
            entry for entry in self.entries if isinstance(entry, ToolStep) and entry.state == "running"
        )

    @property
    def cards(self) -> tuple[Card, ...]:
        """Cards that wait for a person, oldest first."""
        return tuple(
            entry.card for entry in self.entries if isinstance(entry, CardEntry) and entry.card.is_pending
        )

    def entry(self, key: str) -> Entry | None:
        """The entry under ``key``."""
        return next((entry for entry in self.entries if entry.key == key), None)
