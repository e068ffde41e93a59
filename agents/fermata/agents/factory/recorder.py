"""What the plant remembers: samples for trends, and the journal of accepted commands.

The journal is the plant's own witness: its count grows with every accepted command and with nothing else, so
whoever compares it before and after knows whether anything was written in between.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import get_args

from fermata.agents.factory.process import Plant
from fermata.agents.factory.readings import TREND_INTERVAL_S, TREND_MINUTES, Quantity, quantity_value

JOURNAL_LENGTH = 1000
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
_SAMPLES = round(TREND_MINUTES * 60 / TREND_INTERVAL_S)


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted command. ``sequence`` starts at 1 and has no gaps; ``time`` is UTC, ISO 8601."""

    sequence: int
    time: str
    command: str
    line: str
    value: str


@dataclass(slots=True)
class Journal:
    """Accepted commands, the newest ``JOURNAL_LENGTH`` of them, and how many there were at all."""

    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=JOURNAL_LENGTH))
    count: int = 0
    refused: int = 0

    def accept(self, time: str, command: str, line: str, value: str) -> Entry:
        """Record a command that was carried out."""
        self.count += 1
        entry = Entry(self.count, time, command, line, value)
        self.entries.append(entry)
        return entry

    def since(self, sequence: int) -> list[Entry]:
        """The remembered entries after this sequence number, oldest first."""
        return [entry for entry in self.entries if entry.sequence > sequence]


@dataclass(slots=True)
class Samples:
    """A ring of samples per line, one each ``TREND_INTERVAL_S`` of simulated time, reaching back
    ``TREND_MINUTES``.
    """

    rings: dict[str, deque[tuple[float, ...]]] = field(default_factory=dict)
    _due_s: float | None = None

    def record(self, plant: Plant) -> None:
        """Take a sample of each line if one is due."""
        if self._due_s is not None and plant.time_s < self._due_s:
            return
        self._due_s = plant.time_s + TREND_INTERVAL_S
        for line in plant.lines:
            ring = self.rings.setdefault(line.name, deque(maxlen=_SAMPLES))
            ring.append((plant.time_s, *(quantity_value(line, quantity) for quantity in QUANTITIES)))

    def window(self, line: str, quantity: Quantity, minutes: float) -> tuple[list[float], list[float]]:
        """Times (simulated seconds) and values of the last ``minutes``, oldest first; the newest sample
        always.
        """
        column = QUANTITIES.index(quantity) + 1
        ring = self.rings[line]
        oldest = ring[-1][0] - minutes * 60.0
        rows = [row for row in ring if row[0] >= oldest]
        return [row[0] for row in rows], [row[column] for row in rows]
