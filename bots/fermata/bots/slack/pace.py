"""How fast Slack may be written to: a bucket of tokens.

Posts are limited for each channel, updates for the whole workspace (https://docs.slack.dev/apis/web-api/rate-limits).
"""

from __future__ import annotations

POSTS_PER_SECOND = 1.0
"""What Slack allows a channel in the long run."""
POSTS_BURST = 4
"""Posts that may follow each other at once; Slack tolerates short bursts and does not say how short."""
UPDATES_PER_SECOND = 50 / 60
"""Tier 3, of which chat.update is."""
UPDATES_BURST = 20


class Pace:
    """Of posts in one channel, or of all updates. Time is seconds on any clock that only grows, and comes in as an argument."""

    def __init__(self, per_second: float = POSTS_PER_SECOND, burst: int = POSTS_BURST) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._at = 0.0

    def wait_seconds(self, now: float, *, urgent: bool = False) -> float:
        """How long to wait before the next message. What is urgent may borrow one burst, which the others pay back."""
        self._fill(now)
        needed = 1.0 - (self._burst if urgent else 0)
        return max(0.0, needed - self._tokens) / self._per_second

    def sent(self, now: float) -> None:
        """Count a message."""
        self._fill(now)
        self._tokens -= 1.0

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
            self._at = now
