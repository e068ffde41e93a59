"""Every number that was learned, in one place. Fitted on the development sets only; never on held-out data.

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
            "meaning": 3.8,
            "context": 2.1,
            "verb": 1.2,
            "opposite": -2.2,
            "nouns": 2.8,
            "coverage": 0.4,
            "fill": 0.6,
            "missing": -0.36,
            "unused": -1.1,
            "reading": 1.0,
            "typed": 1.8,
        }
    )
    read_floor: float = 3.0
    action_floor: float = 3.7
    verbless: float = 0.8
    read_margin: float = 0.0
    lone: float = 0.7
    step_floor: float = 2.2
    alien: float = 0.42
    clear_margin: float = 1.5
    #: A tool that the words fill completely, with this score and this lead, needs no verb that is known to fit.
    clear_floor: float = 4.9
    clear_lead: float = 2.5
    action_margin: float = 0.45
    option_floor: float = 0.44
    option_margin: float = 0.08
    resource_floor: float = 0.62
    optional_option_floor: float = 0.60
    answer_floor: float = 0.33
    runbook_floor: float = 0.25
    runbook_title: float = 0.49
    runbook_named: float = 0.42
    runbook_close: float = 0.6
    #: From here on the reader takes a call for asked for; where the rules see no request at all, from `reader_alone` on.
    #: Below the other, what the rules would do is asked about first.
    reader_floor: float = 0.5
    reader_alone: float = 0.7
    reader_talk: float = 0.2


DEFAULT: Final = Settings()
