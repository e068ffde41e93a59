"""Who should be alive, who is, and when to start whom: the controller's decisions, without I/O and with the
time as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 10.0
STABLE_SECONDS = 30.0
"""Who has lived this long has not failed at starting: its next replacement comes at once."""


class Phase(Enum):
    """How a place is filled."""

    EMPTY = "EMPTY"
    STARTING = "STARTING"
    ALIVE = "ALIVE"


@dataclass
class _Place:
    phase: Phase = Phase.EMPTY
    failures: int = 0
    since: float = 0.0
    not_before: float = 0.0


class Roster:
    """Places by name, each of which should be filled at all times.

    Times are seconds of any monotonic clock. A call that does not fit a place's phase changes nothing, so
    that notices may come late and twice.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._places = {name: _Place() for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        """Every place."""
        return tuple(self._places)

    def phase(self, name: str) -> Phase:
        """How a place is filled."""
        return self._places[name].phase

    def due(self, now: float) -> list[str]:
        """Empty places whose backoff is over."""
        return [
            name
            for name, place in self._places.items()
            if place.phase is Phase.EMPTY and place.not_before <= now
        ]

    def seconds_to_next(self, now: float) -> float | None:
        """How long until a place becomes due; ``None`` while none is waiting."""
        waiting = [place.not_before - now for place in self._places.values() if place.phase is Phase.EMPTY]
        return max(0.0, min(waiting)) if waiting else None

    def starting(self, name: str, now: float) -> None:
        """Somebody is on the way to fill an empty place."""
        place = self._places[name]
        if place.phase is Phase.EMPTY:
            place.phase, place.since = Phase.STARTING, now

    def alive(self, name: str, now: float) -> None:
        """A place is filled, by a start or by one that was there already."""
        place = self._places[name]
        if place.phase is not Phase.ALIVE:
            place.phase, place.since = Phase.ALIVE, now

    def died(self, name: str, now: float) -> float:
        """A place is empty again. Returns after how many seconds it becomes due: none after a long life, then
        doubling.
        """
        place = self._places[name]
        if place.phase is Phase.EMPTY:
            return max(0.0, place.not_before - now)
        stable = place.phase is Phase.ALIVE and now - place.since >= STABLE_SECONDS
        place.failures = 0 if stable else place.failures + 1
        # The first death of one that has just begun to live may be an accident; only a row of them is a pattern.
        doublings = place.failures - 2 if place.phase is Phase.ALIVE else place.failures - 1
        delay = min(FIRST_BACKOFF_SECONDS * 2.0**doublings, MAX_BACKOFF_SECONDS) if doublings >= 0 else 0.0
        place.phase, place.not_before = Phase.EMPTY, now + delay
        return delay
