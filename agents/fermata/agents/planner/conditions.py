"""Conditions in words, and whether readings meet them.

"the vibration is above 7.1 mm/s", "it isn't ready", 'the logs say "OOMKilled"', "the alarm is still active". A
condition is held against what tools returned; what cannot be told from it is None, never a guess.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fermata.agents.planner.conversation import Result
from fermata.agents.planner.quantities import Quantity, find_quantities
from fermata.agents.planner.readings import Value, matching, text_blob, values_of
from fermata.agents.planner.synonyms import heads_of
from fermata.agents.planner.text import content_lemmas, lemma, quoted, related, split_name, tokenize
from fermata.agents.planner.units import convert, plain

_BOUNDS: Final = (
    (r"\b(?:at least|no less than|not (?:below|under|less than)|not lower than|or more|or above|>=|≥|minimum of)", ">="),
    (r"\b(?:at most|no more than|not (?:above|over|more than|exceed(?:ing)?)|not higher than|or less|or below|up to|<=|≤|within)", "<="),
    (r"(?:\b(?:above|over|more than|greater than|exceed(?:s|ed|ing)?|past|beyond|upwards of|in excess of|higher than|rises? to|risen above|hotter than|warmer than|faster than)|>)", ">"),
    (r"(?:\b(?:below|under|less than|fewer than|lower than|short of|beneath|colder than|cooler than|slower than)|<)", "<"),
    (r"\b(?:equals?|exactly|equal to|==?)", "="),
)  # fmt: skip
_THAN: Final = re.compile(r"\b(\w+er) than\b", re.IGNORECASE)
_DOWNWARD: Final = frozenset(
    {
        "lower",
        "colder",
        "cooler",
        "slower",
        "smaller",
        "shorter",
        "fewer",
        "lighter",
        "drier",
        "darker",
        "quieter",
        "thinner",
        "weaker",
        "younger",
        "emptier",
    }
)
_PLACES: Final = frozenset({"location", "place", "position", "where", "site", "room", "area", "zone"})
_NEGATION: Final = re.compile(
    r"\b(?:not|isn't|aren't|wasn't|doesn't|don't|hasn't|haven't|no|never|without|fails? to)\b|n't\b",
    re.IGNORECASE,
)
_OPPOSITE: Final = {
    "ready": {"notready"}, "open": {"closed", "shut"}, "closed": {"open"}, "locked": {"unlocked"}, "unlocked": {"locked"}, "on": {"off"}, "off": {"on"},
    "running": {"stopped", "idle", "halted", "paused"}, "stopped": {"running"}, "active": {"inactive", "cleared", "resolved"}, "empty": {"full"}, "full": {"empty"},
    "online": {"offline"}, "offline": {"online"}, "healthy": {"unhealthy"}, "available": {"unavailable"}, "free": {"occupied", "taken"}, "occupied": {"free", "vacant"},
    "up": {"down"}, "down": {"up"}, "failed": {"succeeded", "passed", "ok"}, "clear": {"active"}, "enabled": {"disabled"}, "disabled": {"enabled"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a condition holds (None: cannot be told) and the reading that says so."""

    holds: bool | None
    evidence: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Bound:
    """A comparison with a number; `high` for a range."""

    op: str
    limit: Quantity
    subject: tuple[str, ...]
    high: Quantity | None = None


def read_bound(text: str) -> Bound | None:
    """The comparison in `text`, or None if it compares nothing with a number."""
    quantities = find_quantities(text)
    if not quantities:
        return None
    low = text.lower()
    outside = re.search(r"\boutside\b|\bnot (?:between|within)\b", low)
    if outside and len(quantities) > 1:
        first, second = [q for q in quantities if q.start > outside.start()][:2] or quantities[:2]
        return Bound("out", first, content_lemmas(text[: outside.start()]), second)
    m = re.search(r"\b(?:between|from)\b", low)
    if m and len(quantities) > 1 and re.search(r"\b(?:outside|not)\b", low[: m.start() + 1]) is None:
        first, second = [q for q in quantities if q.start > m.start()][:2] or quantities[:2]
        return Bound("in", first, content_lemmas(text[: m.start()]), second)
    than = _THAN.search(text)
    if than and lemma(than[1].lower()) != "other":
        behind = [q for q in quantities if q.start >= than.end()]
        if behind:
            return Bound(
                "<" if than[1].lower() in _DOWNWARD else ">",
                behind[0],
                (*_subject(text, than.start(), behind[0]), than[1].lower(), *_measure(than[1].lower())),
            )
    for pattern, op in _BOUNDS:
        m = re.search(pattern, low)
        if m is None:
            continue
        behind = [q for q in quantities if q.start >= m.end()]
        limit = behind[0] if behind else quantities[-1] if m.group().startswith("or ") else None
        if limit is None:
            continue
        if re.search(r"(?:\bnot|n't)\s*$", low[: m.start()].rstrip() + " ") and op in "<>":
            op = {"<": ">=", ">": "<="}[op]
        return Bound(op, limit, _subject(text, m.start(), limit))
    be = re.search(r"\b(?:is|are|equals|reads|shows)\b", low)
    if be:
        behind = [q for q in quantities if q.start >= be.end()]
        if behind:
            return Bound("=", behind[0], _subject(text, be.start(), behind[0]))
    return None


def _measure(comparative: str) -> tuple[str, ...]:
    """What a comparative compares: warmer, hotter -> temperature."""
    stem = comparative.removesuffix("er")
    stems = {
        stem,
        stem + "e",
        stem[:-1] if len(stem) > 2 and stem[-1] == stem[-2] else stem,
        stem[:-1] + "y" if stem.endswith("i") else stem,
    }
    return tuple(sorted({head for s in stems for head in heads_of(s) if " " not in head}))


def _subject(text: str, end: int, limit: Quantity) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*content_lemmas(text[:end]), *content_lemmas(text[limit.end :]))))


def judge(text: str, results: Sequence[Result], hint: str = "") -> Verdict:
    """Hold the condition `text` against `results`, newest first; `hint` says what "it" is (the request's words)."""
    for result in results:
        if not result.ok:
            continue
        verdict = _judge_one(text, result, hint)
        if verdict.holds is not None:
            return verdict
    return Verdict(None, "")


def _judge_one(text: str, result: Result, hint: str) -> Verdict:
    values = list(values_of(result.data))
    said = quoted(text)
    if said:
        blob = text_blob(result.data)
        found = all(s.lower() in blob.lower() for s, _, _ in said)
        negative = bool(_NEGATION.search(re.sub(r"[\"“].*?[\"”]", "", text)))
        about = "does" if found else "does not"
        return Verdict(
            found != negative, f"what {_call_name(result)} returned {about} contain “{said[0][0]}”"
        )
    bound = read_bound(text)
    if bound is not None:
        return _compare(bound, values, result, hint)
    return _state(text, values, result)


def _call_name(result: Result) -> str:
    return " ".join(split_name(result.call.name))


def _compare(bound: Bound, values: list[Value], result: Result, hint: str) -> Verdict:
    numbers = [v for v in values if isinstance(v.value, int | float) and not isinstance(v.value, bool)]
    lists = _list_lengths(result.data)
    counted = [
        (key, n)
        for key, n in lists
        if any(related(lemma(w), s) for w in split_name(key) for s in bound.subject)
    ]
    value = (
        Value((counted[0][0],), counted[0][1], None)
        if counted and bound.limit.unit is None
        else pick_number(bound.subject, numbers, bound.limit, result)
    )
    if value is None:
        hits = [
            n for key, n in lists if any(related(lemma(w), s) for w in split_name(key) for s in bound.subject)
        ]
        if not hits:
            return Verdict(None, "")
        value = Value(("count",), hits[0], None)
    reading = convert(float(value.value), value.unit, bound.limit.unit)
    if reading is None:
        return Verdict(None, "")
    limit = bound.limit.value
    if (
        bound.limit.unit is not None
        and bound.limit.unit.name == "fraction"
        and (value.unit is None or value.unit.name == "%")
    ):
        limit, reading = limit * 100, float(value.value)
    if bound.op in ("in", "out") and bound.high is not None:
        holds = (limit <= reading <= bound.high.value) is (bound.op == "in")
    else:
        holds = {
            ">": reading > limit,
            ">=": reading >= limit,
            "<": reading < limit,
            "<=": reading <= limit,
            "=": abs(reading - limit) < 1e-9,
        }[bound.op]
    unit = (
        bound.limit.unit.name
        if bound.limit.unit and bound.limit.unit.name != "fraction"
        else (value.unit.name if value.unit else "")
    )
    name = reading_name(value, result)
    word = {
        ">": "above",
        ">=": "at or above",
        "<": "below",
        "<=": "at or below",
        "=": "equal to",
        "in": "within",
        "out": "outside",
    }[bound.op]
    return Verdict(
        holds,
        f"{name} is {value.shown()}, {'' if holds else 'not '}{word} {plain(limit)}{' ' + unit if unit else ''}",
        name,
    )


def reading_name(value: Value, result: Result) -> str:
    """What a reading is called: its key, or for a bare value the argument or tool that named it."""
    if any(word != "percent" for word in value.words):
        return f"the {value.label}"
    args = [str(a).replace("_", " ") for a in result.call.args.values() if isinstance(a, str)]
    named = [a for a in args if not re.search(r"\d", a)]
    return "the " + (named[0] if named else _call_name(result).removeprefix("get ").removeprefix("read "))


def pick_number(
    subject: Sequence[str], numbers: list[Value], limit: Quantity | None, result: Result
) -> Value | None:
    """The number that the subject's words mean among a result's numbers."""
    fitting = [v for v in numbers if limit is None or convert(1.0, v.unit, limit.unit) is not None]
    named = matching(fitting, tuple(subject))
    if named:
        return named[0]
    if limit is not None and limit.unit is not None:
        same = [v for v in fitting if v.unit is not None]
        if len(same) == 1:
            return same[0]
    generic = [v for v in fitting if v.generic]
    if len(generic) == 1:
        return generic[0]
    return fitting[0] if len(fitting) == 1 else None


def _list_lengths(data: Any, key: str = "") -> list[tuple[str, int]]:
    if isinstance(data, dict):
        return [hit for k, v in data.items() for hit in _list_lengths(v, str(k))]
    return [(key, len(data))] if isinstance(data, list) else []


def _state(text: str, values: list[Value], result: Result) -> Verdict:
    """A condition without a number: ready, locked, still active, any errors."""
    negative = bool(_NEGATION.search(text))
    tokens = [t.low.removesuffix("'s") for t in tokenize(text) if t.is_word]
    words = [
        w
        for w in tokens
        if w
        not in (
            "still",
            "already",
            "any",
            "not",
            "yet",
            "again",
            "now",
            "is",
            "are",
            "it",
            "the",
            "isn't",
            "aren't",
            "there",
            "was",
            "has",
            "have",
            "been",
            "be",
            "a",
            "an",
            "no",
            "hasn't",
            "of",
            "says",
            "say",
            "shows",
            "show",
        )
    ]
    if not words:
        return Verdict(None, "")
    predicate = words[-1]
    if re.search(r"\b(?:nobody|no one|no-one|noone)\b", text, re.IGNORECASE):
        words, predicate, negative = [*words, "occupied"], "occupied", True
    if predicate in ("left", "remaining", "none") or re.search(r"\bnone\b", text):
        numbers = [v for v in values if isinstance(v.value, int | float) and not isinstance(v.value, bool)]
        if len(numbers) == 1:
            none = negative or bool(re.search(r"\bnone\b", text))
            return Verdict((numbers[0].value > 0) != none, f"there are {numbers[0].shown()}")
    existence = re.search(r"\bthere (?:is|are|'s)\b|\bany\b|\bsome\b|\bno \w+s\b", text, re.IGNORECASE)
    lists = _list_lengths(result.data)
    if existence and lists:
        for key, n in lists:
            nouns = [lemma(w) for w in split_name(key)] or ["item"]
            if any(related(x, lemma(w)) for x in nouns for w in words) or len(lists) == 1:
                return Verdict(
                    (n > 0) != negative,
                    f"there {'is' if n == 1 else 'are'} {n or 'no'} {key.replace('_', ' ') or 'of them'}",
                )
    for candidate in reversed(words):
        for value in values:
            own = [lemma(w) for k in value.path[-1:] for w in split_name(k)]
            if isinstance(value.value, bool) and any(related(lemma(candidate), k) for k in own):
                return Verdict(
                    value.value != negative, f"{value.path[-1].replace('_', ' ')}: {value.shown()}", predicate
                )
    for value in values:
        own = [lemma(w) for k in value.path[-1:] for w in split_name(k)]
        if isinstance(value.value, int | float) and not isinstance(value.value, bool) and predicate in own:
            return Verdict(
                (value.value > 0) != negative,
                f"{value.path[-1].replace('_', ' ')}: {value.shown()}",
                predicate,
            )
        if (
            isinstance(value.value, str)
            and set(own) & _PLACES
            and re.search(rf"\b(?:at|in|on|near) (?:the )?{re.escape(predicate)}\b", text, re.IGNORECASE)
        ):
            there = predicate in value.value.lower()
            return Verdict(there != negative, f"{value.path[-1]} is “{value.value}”", predicate)
    for value in values:
        if not isinstance(value.value, bool):
            continue
        key = value.path[-1].lower() if value.path else ""
        if key in _OPPOSITE.get(predicate, set()) or predicate in _OPPOSITE.get(key, set()):
            return Verdict((not value.value) != negative, f"{key}: {value.shown()}", predicate)
    strings = [v for v in values if isinstance(v.value, str)]
    for candidate in reversed(words):
        for value in strings:
            said = [
                lemma(w)
                for w in re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(value.value)).lower())
            ]
            if any(
                s == lemma(candidate) or (len(s) > 4 and related(s, lemma(candidate))) for s in said
            ) and not {"not", "un", "no"} & set(said[:1]):
                return Verdict(
                    not negative, f"{'.'.join(value.path) or 'the result'} is “{value.value}”", predicate
                )
            if {str(value.value).lower()} & _OPPOSITE.get(predicate, set()):
                return Verdict(
                    negative, f"{'.'.join(value.path) or 'the result'} is “{value.value}”", predicate
                )
    for value in strings:
        if value.path and value.path[-1].lower() in (
            "state",
            "status",
            "phase",
            "mode",
            "condition",
            "result",
        ):
            return Verdict(negative, f"{value.path[-1]} is “{value.value}”", predicate)
    return Verdict(None, "")
