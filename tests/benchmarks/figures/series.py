"""Measured values and what the table says of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one figure, all in its unit; at least one."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)

    def share(self, percent: float) -> float:
        """The smallest value that ``percent`` of all do not exceed."""
        ordered = sorted(self.values)
        return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


@dataclass(frozen=True, slots=True)
class Peer:
    """What does the same without Fermata, measured in the same run."""

    what: str
    series: Series


@dataclass(frozen=True, slots=True)
class Figure:
    """One row.

    :param unit: of all its values: ``ms``, ``/s``, ``s``, ``%`` of a core.
    :param aim: what the median should stay below; None where none is set.
    """

    what: str
    unit: str
    series: Series
    peers: Sequence[Peer] = ()
    aim: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The row with its values, for ``--json``."""
        return {
            "what": self.what,
            "unit": self.unit,
            **_facts(self.series),
            "peers": [
                {
                    "what": peer.what,
                    **_facts(peer.series),
                    "ratio": ratio(self.series, peer.series),
                }
                for peer in self.peers
            ],
            "aim": self.aim,
            "note": self.note,
            "values": list(self.series.values),
        }


@dataclass(slots=True)
class Rounds:
    """Values of a figure and its peers, gathered in turns."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, what: str, value: float) -> None:
        """Keep one value."""
        self.values.setdefault(what, []).append(value)

    def series(self, what: str) -> Series:
        """What was gathered under a name."""
        return Series(self.values[what])

    def peers(self, *names: str) -> list[Peer]:
        """What was gathered under these names, as peers."""
        return [Peer(name, self.series(name)) for name in names]


def ratio(ours: Series, peer: Series) -> float:
    """Fermata's median over the peer's; nan where the peer's is nothing."""
    return ours.median / peer.median if peer.median else float("nan")


def _facts(series: Series) -> dict[str, float]:
    return {
        "median": series.median,
        "p90": series.share(90),
        "p99": series.share(99),
        "min": series.low,
        "max": series.high,
        "n": len(series.values),
    }
