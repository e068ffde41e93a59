"""What to do about a child that has ended: one pure function."""

from __future__ import annotations

from dataclasses import dataclass

from fermata.server.up.errors import CONFIG_EXIT_CODE

FIRST_BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 15.0
STABLE_SECONDS = 30.0
MAX_FAILED_STARTS = 5
"""So many deaths in a row before it was ever ready end the supervisor: then nothing will come of it by
itself.
"""


@dataclass(frozen=True)
class Restart:
    """Start it again."""

    after_seconds: float
    failures: int
    """Deaths in a row, with this one."""


@dataclass(frozen=True)
class GiveUp:
    """It can't be helped by starting it again."""


def after_exit(*, exit_code: int, lived_seconds: float, failures: int, was_ready: bool) -> Restart | GiveUp:
    """What to do.

    :param failures: deaths in a row before this one.
    :param was_ready: true if the child has been ready at any time since the supervisor started.
    """
    if exit_code == CONFIG_EXIT_CODE:
        return GiveUp()
    failures = 1 if lived_seconds >= STABLE_SECONDS else failures + 1
    if not was_ready and failures >= MAX_FAILED_STARTS:
        return GiveUp()
    return Restart(min(FIRST_BACKOFF_SECONDS * 2.0 ** (failures - 1), MAX_BACKOFF_SECONDS), failures)
