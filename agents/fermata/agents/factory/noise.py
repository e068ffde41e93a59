"""Chance without state: numbers that depend only on a seed, a step, a line and a channel.

Chosen over ``random.Random`` because a pure step has no generator to carry: the same seed and step give the
same number in any process and in any order of evaluation. The mixer is SplitMix64 (Steele, Lea, Flood, OOPSLA
2014), the normal variate Box-Muller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@dataclass(frozen=True, slots=True)
class Chance:
    """The chance of one line in one step. ``key`` is the mixed (seed, step, line)."""

    key: int

    @classmethod
    def of(cls, seed: int, step: int, line: int) -> Chance:
        """The chance of line number ``line`` in step number ``step`` under ``seed``; all are integers."""
        return cls(_mix(_mix(_mix(seed & _MASK) ^ (step & _MASK)) ^ line))

    def uniform(self, channel: int) -> float:
        """A number in [0, 1) for this channel (a small non-negative integer)."""
        return (_mix(self.key ^ (channel * _GOLDEN & _MASK)) >> 11) * 2.0**-53

    def normal(self, channel: int) -> float:
        """A standard normal number; uses channels ``2 * channel + 1000`` and the one after it."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform(2 * channel + 1000)))
        return radius * math.cos(2.0 * math.pi * self.uniform(2 * channel + 1001))
