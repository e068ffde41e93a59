"""Durations as people write them: 90s, 15m, 2h, 3d."""

from __future__ import annotations

import re
from datetime import timedelta

from fermata.client import LocalError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


def duration(text: str) -> timedelta:
    """The duration that the text says.

    :raises LocalError: DURATION_INVALID.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise LocalError(
            f"{text!r} is no duration. Write a number and s, m, h or d: 90s, 15m, 2h.",
            reason="DURATION_INVALID",
        )
    return timedelta(**{_UNITS[found[2]]: float(found[1])})
