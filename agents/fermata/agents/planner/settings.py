"""Every number that was learned, in one place. Fitted on the development set only; never on held-out data.

An action needs more evidence than a reading: a wrong reading costs a moment, a wrong action is what people are asked
to stop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Settings:
    """Weights and thresholds of the planner."""

    #: Weights of the features that rank tools (names as in `ranking.Evidence`).
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "meaning": 3.5,
            "context": 1.6,
            "verb": 0.7,
            "opposite": -2.4,
            "nouns": 2.2,
            "coverage": 0.45,
            "fill": 1.0,
            "missing": -0.3,
            "unused": -0.8,
            "reading": 0.75,
            "typed": 1.0,
        }
    )
    read_floor: float = 2.6
    action_floor: float = 2.9
    foreign_verb: float = 0.5
    read_margin: float = 0.0
    action_margin: float = 0.35
    option_floor: float = 0.40
    option_margin: float = 0.06
    resource_floor: float = 0.62
    optional_option_floor: float = 0.60
    answer_floor: float = 0.38
    runbook_floor: float = 0.30


DEFAULT: Final = Settings()
