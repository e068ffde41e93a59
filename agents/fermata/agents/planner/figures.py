"""Numbers as values: which one (line 3) and how much (3 lines), in the unit, the role and the bounds of a parameter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fermata.agents.planner.names import find_names
from fermata.agents.planner.quantities import Quantity, find_quantities, ordinal, read_number
from fermata.agents.planner.text import (
    lemma,
    related,
)
from fermata.agents.planner.times import find_times
from fermata.agents.planner.tools import Param
from fermata.agents.planner.units import convert, tidy
from fermata.agents.planner.words import (
    STOPWORDS,
)
from fermata.agents.planner.words_given import Candidate, Words

_WHOLE: Final = 100
_FITTING: Final = 0.3


def bounded(param: Param, value: float) -> str:
    """Why `value` is out of the schema's bounds, or ""."""
    schema = param.schema
    low, high = (
        schema.get("minimum", schema.get("exclusiveMinimum")),
        schema.get("maximum", schema.get("exclusiveMaximum")),
    )
    if low is not None and (value < low or value == schema.get("exclusiveMinimum")):
        return f"at least {low}"
    if high is not None and (value > high or value == schema.get("exclusiveMaximum")):
        return f"at most {high}"
    if schema.get("type") == "integer" and not float(value).is_integer():
        return "a whole number"
    return ""


def numeric(param: Param, value: float) -> float | int:
    """The number in the type that the schema asks for."""
    value = tidy(value)
    return (
        int(value)
        if float(value).is_integer() and (param.schema.get("type") == "integer" or abs(value) < 1e15)
        else value
    )


def which(param: Param, words: Words) -> list[Candidate]:
    """Numbers that say which one: line 3, lines 3 and 4, number two, the third line, L3."""
    tokens, out = words.tokens, []
    nouns = (
        *param.nouns,
        *[n for n in param.description_nouns[-2:] if any(related(n, p) for p in param.nouns)],
    )
    i = 0
    while i < len(tokens):
        base = lemma(tokens[i].low)
        if any(base == n or (related(base, n) and len(base) > 3) for n in nouns):
            j = i + 1
            while j < len(tokens) and tokens[j].low in ("number", "no", "nr", "#", "numbers", "is", "id"):
                j += 1
            between = (
                j < len(tokens) and not read_number(tokens, j) and lemma(tokens[j].low) in words.vocabulary
            )
            if between and j + 1 < len(tokens) and tokens[j + 1].text.isdigit():
                j += 1
            first = True
            while j < len(tokens):
                number = read_number(tokens, j)
                gap = words.text[tokens[j - 1].end : tokens[j].start]
                if (
                    number is None
                    or not number[0].is_integer()
                    or (not first and not re.search(r",|and|&|or|\+", gap + tokens[j - 1].low))
                ):
                    break
                behind = tokens[number[1]].low if number[1] < len(tokens) else ""
                if not first and behind in ("rpm", "%", "percent", "minutes", "hours", "seconds", "degrees"):
                    break
                out.append(_numbered(param, number[0], tokens[j].start, tokens[number[1] - 1].end, 1.0))
                j, first = number[1], False
                if j < len(tokens) and tokens[j].low in ("and", "or"):
                    j += 1
        rank = ordinal(tokens[i].low)
        if rank is not None and i + 1 < len(tokens) and lemma(tokens[i + 1].low) in nouns:
            out.append(_numbered(param, rank, tokens[i].start, tokens[i + 1].end, 0.9))
        m = re.fullmatch(r"([a-z]+)[-_]?(\d+)", tokens[i].low)
        if m and (m[1] in nouns or any(n.startswith(m[1]) and len(m[1]) == 1 for n in nouns)):
            out.append(_numbered(param, float(m[2]), tokens[i].start, tokens[i].end, 0.9))
        i += 1
    if out:
        return out
    out.extend(_bare_number(param, words))
    for i, token in enumerate(tokens):
        if token.low in ("number", "no", "#", "nr", "on", "for", "of") and i + 1 < len(tokens):
            number = read_number(tokens, i + 1)
            behind = tokens[number[1]].low if number and number[1] < len(tokens) else ""
            if (
                number
                and number[0].is_integer()
                and not any(q.unit for q in find_quantities(words.text) if q.start == tokens[i + 1].start)
            ):
                strong = token.low in ("number", "#", "nr", "no")
                if strong or not behind or behind in STOPWORDS:
                    out.append(
                        _numbered(
                            param,
                            number[0],
                            tokens[i + 1].start,
                            tokens[number[1] - 1].end,
                            0.8 if strong else 0.5,
                        )
                    )
    return out


def _bare_number(param: Param, words: Words) -> list[Candidate]:
    """The one number of three or more figures and no unit, where the bounds of the schema let only such numbers say which."""
    if param.schema.get("minimum", 0) < _WHOLE:
        return []
    measured = [q for q in find_quantities(words.text) if q.unit is not None or q.role == "change"]
    fits = [
        m
        for m in re.finditer(r"(?<![\w.#-])(\d{3,})(?![\d\w-]|[.,]\d)", words.text)
        if not bounded(param, float(m[1])) and not any(q.start <= m.start() < q.end for q in measured)
    ]
    return [Candidate(int(m[1]), m.start(), m.end(), 0.6) for m in fits] if len(fits) == 1 else []


def _numbered(param: Param, value: float, start: int, end: int, score: float) -> Candidate:
    return Candidate(numeric(param, value), start, end, score, bounded(param, value))


def amounts(param: Param, words: Words, others: Sequence[Param]) -> list[Candidate]:
    """Quantities that fit a parameter's unit, its role (goal or change) and what it counts."""
    out = []
    for q in find_quantities(words.text):
        if _is_name_part(q, words, others):
            continue
        c = _amount(param, q, words, others)
        if c is not None:
            out.append(c)
    anchor = _anchored(param, words)
    if anchor is not None and not any(c.score >= _FITTING and not c.problem for c in out):
        out.append(anchor)
    return out


def _amount(param: Param, q: Quantity, words: Words, others: Sequence[Param]) -> Candidate | None:
    unit, value = param.unit, q.value
    bare_share = q.unit is None and (
        (unit is not None and unit.dimension == "ratio")
        or (unit is None and param.schema.get("maximum") == 100)
    )
    score = 0.35 if bare_share else 0.5
    if (
        q.unit is not None
        and unit is None
        and q.unit.dimension == "ratio"
        and param.schema.get("maximum") == 100
    ):
        value = value * q.unit.factor
        score = 0.8
    elif q.unit is not None and unit is None:
        if q.unit.dimension == "ratio" and param.schema.get("maximum") in (1, 1.0):
            value, score = tidy(value * q.unit.factor / 100), 0.8
        elif any(
            related(lemma(w), c) for w in (q.unit.name, q.after) for c in (*param.counted, *param.words)
        ):
            score = 0.7
        elif q.unit.dimension in ("time", "temperature", "ratio", "data", "mass", "length") or any(
            o.unit is not None and o.unit.dimension == q.unit.dimension for o in others
        ):
            return None
        else:
            score = 0.35
    elif q.unit is not None:
        converted = convert(value, q.unit, unit)
        if converted is None:
            return None
        value, score = converted, 0.95
    elif unit is not None and param.schema.get("maximum") in (1, 1.0) and value > 1:
        return None
    behind = [lemma(t.low) for t in words.tokens if t.start >= q.end][:2]
    after, before = lemma(q.after) if q.after else "", lemma(q.before) if q.before else ""
    if q.unit is None and any(related(b, c) for b in behind for c in param.counted):
        score += 0.45
    elif (
        q.unit is None
        and before
        and any(related(before, c) for c in (*param.counted, *(lemma(w) for w in param.words)))
    ):
        score += 0.35
    elif (
        q.unit is None
        and after
        and after not in STOPWORDS
        and any(related(after, c) for o in others if o.kind == "number" for c in o.counted)
    ):
        return None
    if q.role == "change" and not param.relative and (unit is None or unit.dimension != "time"):
        return None
    if q.role == "goal":
        score += (0.05 if q.before == "of" else 0.15) if not param.relative else -0.4
    elif param.relative and q.role == "change":
        score += 0.3
    limit = re.search(
        r"(?:above|below|over|under|than|exceeds?|least|most)\s*(?:about\s*)?$", words.text[: q.start].lower()
    )
    if limit:
        score -= 0.3
    return Candidate(numeric(param, value), q.start, q.end, score, bounded(param, value))


def _is_name_part(q: Quantity, words: Words, others: Sequence[Param]) -> bool:
    """Whether a number belongs to a name (line 3, dock 4) or to a time."""
    if q.unit is not None:
        return False
    for param in others:
        if param.identifies and any(q.before and (lemma(q.before) == n) for n in param.nouns):
            return True
        if param.identifies and param.kind == "number" and q.before in ("number", "#", "no", "nr"):
            return True
    if any(w.start <= q.start < w.end for w in find_times(words.text, words.today)):
        return True
    if q.before and lemma(q.before) in words.kinds:
        return True
    return any(
        start <= q.start < end and end - start > q.end - q.start
        for _, start, end in find_names(words.text, words.names)
    )


def _extreme(param: Param, words: Words) -> Candidate | None:
    """The end of a share's range that words name: shut and off are none of it, full and wide open all of it."""
    share = (param.unit is not None and param.unit.dimension == "ratio") or "percent" in param.words
    if not share or find_quantities(words.text):
        return None
    lows = [t.low for t in words.tokens]
    opening = bool({"opening", "open", "openness"} & set(param.words))
    if param.schema.get("minimum") == 0 and (
        lows[-1:] == ["off"] or "off" in lows[1:3] or (opening and {"shut", "close", "closed"} & set(lows))
    ):
        return Candidate(numeric(param, 0), -1, -1, 0.8)
    if param.schema.get("maximum") == _WHOLE and {
        "full",
        "fully",
        "maximum",
        "max",
        "completely",
        "wide",
    } & set(lows):
        return Candidate(numeric(param, _WHOLE), -1, -1, 0.8)
    return None


def _anchored(param: Param, words: Words) -> Candidate | None:
    """A number that the description ties to a word: "0 is fully open, 100 is fully closed" and "open it"."""
    extreme = _extreme(param, words)
    if extreme is not None:
        return extreme
    anchors = re.findall(
        r"(-?\d+(?:\.\d+)?)\s*(?:is|=|means|:|\()\s*(?:fully |completely |all )?(\w+)", param.description
    )
    if not anchors or any(
        q for q in find_quantities(words.text) if q.unit is not None and q.unit.dimension == "ratio"
    ):
        return None
    for token in words.tokens:
        for number, word in anchors:
            if lemma(token.low) == lemma(word.lower()) and token.low not in STOPWORDS | {"the"}:
                return Candidate(numeric(param, float(number)), -1, -1, 0.8)
    return None
