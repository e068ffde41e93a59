"""Words of a text that could be the value of a parameter, with how well they fit: one reader for each kind.

Nothing here invents: a value is a word, a number, a listed option or a known name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fermata.agents.planner.choices import boolean, options
from fermata.agents.planner.figures import amounts, which
from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.naming import names_fitting
from fermata.agents.planner.text import (
    lemma,
    related,
)
from fermata.agents.planner.times import find_times
from fermata.agents.planner.tools import Param
from fermata.agents.planner.words import (
    DETERMINERS,
)
from fermata.agents.planner.words_given import Candidate, Words

_FROM: Final = frozenset(
    {"from", "source", "origin", "start", "old", "begin", "since", "sender", "departure", "after", "current"}
)
_TO: Final = frozenset(
    {"to", "target", "destination", "end", "new", "until", "into", "recipient", "arrival", "before", "dest"}
)


def candidates(param: Param, words: Words, meaning: Meaning, others: Sequence[Param] = ()) -> list[Candidate]:
    """Possible values of `param` in `words`, best first; `others` are the tool's other parameters."""
    found: list[Candidate]
    match param.kind:
        case "number":
            found = which(param, words) if param.identifies else []
            if not param.identifies or not found:
                found = found + amounts(param, words, others)
        case "enum":
            found = options(param, words, meaning)
        case "date" | "time" | "datetime":
            found = _times(param, words)
        case "email":
            found = [
                Candidate(m.group(), m.start(), m.end(), 1.0)
                for m in re.finditer(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", words.text)
            ]
        case "boolean":
            found = boolean(param, words)
        case "name":
            found = names_fitting(param, words)
        case "const":
            found = [Candidate(param.schema["const"], -1, -1, 1.0)]
        case _:
            found = []
    return sorted((_directed(c, param, words) for c in found), key=lambda c: -c.score)


def _directed(c: Candidate, param: Param, words: Words) -> Candidate:
    """Favour "from A" for a source and "to B" for a target."""
    if c.start < 0 or not (set(param.words) & (_FROM | _TO)):
        return c
    before = [t.low for t in words.tokens if t.end <= c.start][-3:]
    behind = [t.low for t in words.tokens if t.start >= c.end][:1]
    near = before[-1:] if not (before and before[-1] in DETERMINERS) else before[-2:-1]
    if len(before) > 1 and any(related(lemma(before[-1]), n) for n in param.nouns):
        near = before[-2:-1]
    source, target = bool(set(param.words) & _FROM), bool(set(param.words) & _TO)
    said_from = bool(near) and near[0] in ("from", "of", "out", "off", "leaving", "between", "since", "at")
    said_to = bool(near) and near[0] in ("to", "into", "onto", "until", "till", "towards", "for", "by")
    shift = 0.0
    if (source and near and near[0] in ("from", "out", "off", "leaving", "since")) or (
        source and near and near[0] == "of" and before[-2:-1] == ["out"]
    ):
        shift = 0.3
    elif source and (said_to or (behind and behind[0] in ("until",))):
        shift = -0.5
    elif target and said_to:
        shift = 0.3
    elif target and said_from and near and near[0] != "at":
        shift = -0.5
    return Candidate(c.value, c.start, c.end, c.score + shift, c.problem, c.soft)


def _times(param: Param, words: Words) -> list[Candidate]:
    found = find_times(words.text, words.today)
    days = [w for w in found if w.day is not None]
    clocks = [w for w in found if w.clock is not None]
    if param.kind == "date":
        return [Candidate(w.day.isoformat(), w.start, w.end, 1.0) for w in days if w.day is not None]
    if param.kind == "time":
        return [Candidate(w.clock, w.start, w.end, 1.0) for w in clocks]
    if clocks:
        day = days[0] if days else None
        when = (day.day if day else words.today) if day or words.today else None
        if when is not None:
            low = min([c.start for c in clocks[:1]] + ([day.start] if day else []))
            high = max([c.end for c in clocks[:1]] + ([day.end] if day else []))
            return [
                Candidate(
                    f"{when.isoformat()}T{clocks[0].clock}:00"
                    if "T" in param.description or param.schema.get("format") == "date-time"
                    else f"{when.isoformat()} {clocks[0].clock}",
                    low,
                    high,
                    0.9,
                )
            ]
    return []
