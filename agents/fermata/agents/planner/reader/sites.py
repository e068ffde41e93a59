"""From scores to words: where a message asks for a call of a tool, under which condition, and what expresses what.

Pure: readings in, spans out. A *site* is one place of the message that asks for one call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fermata.agents.inference.readings import Reading
from fermata.agents.planner.reader.pairs import (
    ASKED_BEGIN,
    ASKED_INSIDE,
    CHECK,
    CONDITION,
    EncodedText,
    EncodedTool,
)
from fermata.agents.planner.tools import Tool

_LIKELY: Final = 0.5
_BRIDGE: Final = 0.1
"""A word between two parts of a span that the model is surer of."""
CALL, MENTION, EITHER = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Span:
    """Words of a text: the piece (history item, or the message as the last), characters, and how sure."""

    piece: int
    start: int
    end: int
    score: float

    def overlaps(self, piece: int, start: int, end: int) -> bool:
        return self.piece == piece and self.start < end and start < self.end


@dataclass(slots=True)
class Site:
    """One asked call: its words in the message, its condition's (or None), and how sure it is (0 to 1)."""

    tool: Tool
    start: int
    end: int
    certainty: float
    condition: Span | None = None


@dataclass(slots=True)
class ToolReading:
    """What the message says about one tool."""

    tool: Tool
    encoded: EncodedTool
    reading: Reading
    sites: list[Site] = field(default_factory=list)

    @property
    def asked(self) -> float:
        return float(self.reading.kind[CALL])

    @property
    def either(self) -> float:
        return float(self.reading.kind[EITHER])

    @property
    def mentioned(self) -> float:
        return float(self.reading.kind[MENTION])

    def present(self, param: str) -> float:
        """Whether the text gives the parameter at all."""
        return self._present(self.encoded.params.get(param))

    def option_present(self, param: str, option: str) -> float:
        return self._present(self.encoded.options.get((param, option)))

    def _present(self, marker: int | None) -> float:
        at = self._row(marker)
        return 0.0 if at is None else float(self.reading.present[at])

    def matches(self, param: str, option: str | None = None) -> NDArray[np.float32] | None:
        """How much each token expresses the parameter or one of its options."""
        marker = (
            self.encoded.params.get(param) if option is None else self.encoded.options.get((param, option))
        )
        at = self._row(marker)
        return None if at is None else self.reading.match[at]

    def _row(self, marker: int | None) -> int | None:
        return None if marker is None or marker not in self.encoded.order else self.encoded.order[marker]


def find_sites(text: EncodedText, tool: Tool, reading: Reading, floor: float) -> list[Site]:
    """Where the message asks for the tool: nothing unless it is asked for at all with `floor`."""
    asked = float(reading.kind[CALL])
    if asked < floor:
        return []
    last = len(text.pieces) - 1
    own = [i for i, (piece, _, _) in enumerate(text.spans) if piece == last]
    inside, begins = reading.tags[:, ASKED_INSIDE], reading.tags[:, ASKED_BEGIN]
    groups: list[list[int]] = []
    previous = -10
    for i in own:
        if max(inside[i], begins[i]) <= _LIKELY:
            continue
        begun = begins[i] > _LIKELY and not (groups and _same_word(text, previous, i))
        if not groups or begun:
            groups.append([])
        groups[-1].append(i)
        previous = i
    checks = _runs(text, reading.tags[:, CHECK], last) if not groups else []
    sites = []
    for group in groups:
        start, end = text.spans[group[0]][1], text.spans[group[-1]][2]
        sites.append(Site(tool, start, end, asked * float(np.mean(inside[group]))))
    sites.extend(Site(tool, s.start, s.end, asked * s.score) for s in checks)
    if not sites:
        sites = [Site(tool, 0, len(text.message), asked * _LIKELY)]
    conditions = _runs(text, reading.tags[:, CONDITION], last)
    for site in sites:
        site.condition = min(conditions, key=lambda s: _distance(s, site), default=None)
    return sites


def find_spans(text: EncodedText, scores: NDArray[np.float32], floor: float = _LIKELY) -> list[Span]:
    """Runs of words in any piece that express something, in order."""
    return [s for piece in range(len(text.pieces)) for s in _runs(text, scores, piece, floor)]


def of_site(spans: Sequence[Span], site: Site, sites: Sequence[Site], last: int) -> list[Span]:
    """The spans that belong to a site: its own; else those that belong to no site of the tool; else the nearest."""
    if not spans:
        return []
    inside = [s for s in spans if s.piece == last and site.start <= s.start < site.end]
    if inside:
        return inside
    free = [s for s in spans if s.piece != last or not any(o.start <= s.start < o.end for o in sites)]
    if free:
        in_message = [s for s in free if s.piece == last]
        return in_message or free
    return [min(spans, key=lambda s: _distance(s, site))]


def _runs(text: EncodedText, scores: NDArray[np.float32], piece: int, floor: float = _LIKELY) -> list[Span]:
    groups: list[list[int]] = []
    for i, (of, _, _) in enumerate(text.spans):
        if of != piece or scores[i] <= floor:
            continue
        last = groups[-1][-1] if groups else -10
        bridged = i - last == 2 and scores[i - 1] > _BRIDGE
        if groups and (i - last == 1 or bridged or _same_word(text, last, i)):
            groups[-1].append(i)
        else:
            groups.append([i])
    return [_span(text, piece, g, scores) for g in groups]


def _span(text: EncodedText, piece: int, tokens: Iterable[int], scores: NDArray[np.float32]) -> Span:
    """Tokens as characters, widened to whole words."""
    tokens = list(tokens)
    start, end = text.spans[tokens[0]][1], text.spans[tokens[-1]][2]
    said = text.pieces[piece]
    while start > 0 and said[start - 1].isalnum() and said[start].isalnum():
        start -= 1
    while end < len(said) and said[end].isalnum() and said[end - 1].isalnum():
        end += 1
    return Span(piece, start, end, float(np.mean(scores[tokens])))


def _same_word(text: EncodedText, i: int, j: int) -> bool:
    if i < 0:
        return False
    (p, _, end), (q, start, _) = text.spans[i], text.spans[j]
    return p == q and not any(c.isspace() for c in text.pieces[p][end:start])


def _distance(span: Span, site: Site) -> int:
    return max(0, span.start - site.end, site.start - span.end)
