"""What the factory refuses, as data: each error has a stable ``reason`` and its facts."""

from __future__ import annotations


class PlantError(Exception):
    """A request to the plant that did not succeed.

    :param message: one sentence that says what was wrong and how to mend it.
    :param reason: stable UPPER_SNAKE code.
    :param facts: ids, limits and values involved.
    """

    def __init__(self, message: str, *, reason: str, **facts: str | float) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.facts = facts


class PlantRefusedError(PlantError):
    """The request was understood and is refused. Nothing was changed."""


class PlantUnavailableError(PlantError):
    """The plant could not be reached (PLANT_UNAVAILABLE: nothing was changed), or went away before it
    answered (PLANT_OUTCOME_UNKNOWN: the change may or may not have happened).
    """
