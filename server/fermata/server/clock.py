"""Time as an argument: what decides takes a clock, and tests own theirs."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the server reads the time."""

    def now(self) -> float:
        """Seconds since the epoch, for records and for what people see."""

    def monotonic(self) -> float:
        """Seconds that never go back, for waiting."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
