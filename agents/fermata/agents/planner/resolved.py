"""What a clause comes to, and the numbers by which it is told sure from unsure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from fermata.agents.planner.decision import Decision
from fermata.agents.planner.filling import Filling
from fermata.agents.planner.intent import Intent, Reading
from fermata.agents.planner.quantities import Quantity
from fermata.agents.planner.ranking import (
    Evidence,
)
from fermata.agents.planner.tools import Param

DOES: Final = frozenset({Intent.REQUEST, Intent.NEED, Intent.FRAGMENT})
SURE_VERB: Final = 0.4
CERTAIN: Final = 99.0


@dataclass(slots=True)
class Resolved:
    """What a clause comes to: steps (perhaps behind a condition), or a reason why not."""

    reading: Reading
    evidence: Evidence | None = None
    decision: Decision | None = None
    answer: str = ""
    derive: tuple[Param, Quantity, int] | None = None
    also: list[Evidence] = field(default_factory=list)
    #: By how much the next tool's score is lower.
    lead: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def filling(self) -> Filling:
        assert self.evidence is not None
        return self.evidence.filling
