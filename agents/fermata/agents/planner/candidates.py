"""Words of a text that could be the value of a parameter, with how well they fit.

One function per kind of parameter; each returns candidates with their span, so that no word is used twice and every
value can be traced. Nothing here invents: a value is a word, a number, a listed option or a known name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.names import Name, find_names, fold
from fermata.agents.planner.quantities import Quantity, find_quantities, ordinal, read_number
from fermata.agents.planner.settings import DEFAULT
from fermata.agents.planner.synonyms import heads_of
from fermata.agents.planner.text import (
    Token,
    content_lemmas,
    is_identifier,
    known_verbs,
    lemma,
    quoted,
    related,
    split_name,
    tokenize,
)
from fermata.agents.planner.times import find_times
from fermata.agents.planner.tools import Param
from fermata.agents.planner.units import convert, tidy
from fermata.agents.planner.words import (
    DETERMINERS,
    NUMBER_WORDS,
    PREPOSITIONS,
    PRONOUNS,
    STOPWORDS,
    VERB_GROUPS,
)

_LEADING: Final = frozenset(p for members in VERB_GROUPS.values() for p in members)
#: Words for a person; names of people fill parameters that are called so.
PEOPLE: Final = frozenset(
    [
        "person",
        "people",
        "recipient",
        "user",
        "assignee",
        "employee",
        "attendee",
        "sender",
        "contact",
        "owner",
        "member",
        "colleague",
        "customer",
        "guest",
        "patient",
        "driver",
        "technician",
        "operator",
        "manager",
        "lead",
        "to",
        "who",
        "staff",
        "crew",
        "team",
        "doctor",
        "nurse",
        "teacher",
        "student",
        "client",
        "author",
        "reviewer",
        "approver",
        "participant",
        "invitee",
        "addressee",
        "receiver",
        "teammate",
        "whom",
        "tenant",
        "caller",
        "worker",
        "engineer",
    ]
)
_FROM: Final = frozenset(
    {"from", "source", "origin", "start", "old", "begin", "since", "sender", "departure", "after", "current"}
)
_TO: Final = frozenset(
    {"to", "target", "destination", "end", "new", "until", "into", "recipient", "arrival", "before", "dest"}
)
_PARTICLES: Final = frozenset({"on", "off", "in", "out", "up", "down", "away", "over", "all"})
_SWITCHES: Final = frozenset({"enabled", "enable", "on", "active", "state", "activated"})
_ON: Final = frozenset(
    {"on", "enabled", "enable", "active", "running", "start", "started", "run", "true", "open", "up"}
)
_OFF: Final = frozenset({"off", "disabled", "disable", "inactive", "stopped", "stop", "false", "down"})
_TELLING: Final = frozenset(
    {
        "tell",
        "notify",
        "inform",
        "message",
        "mail",
        "email",
        "text",
        "ping",
        "ask",
        "let",
        "call",
        "page",
        "remind",
        "warn",
        "alert",
        "invite",
        "assign",
        "send",
        "write",
        "contact",
        "cc",
        "drop",
        "give",
        "phone",
        "reach",
    }
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible value: where it stands in the text (`start` -1: nowhere, it was derived) and how well it fits."""

    value: Any
    start: int
    end: int
    score: float
    problem: str = ""
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """A text to take values from, with what is known about it; `vocabulary` are words that
    tools and options own, `reason` says that it may be why something is asked for."""

    text: str
    names: tuple[Name, ...]
    today: date | None
    vocabulary: frozenset[str] = frozenset()
    reason: bool = False
    condition: bool = False
    kinds: frozenset[str] = frozenset()

    @property
    def tokens(self) -> tuple[Token, ...]:
        return tuple(t for t in tokenize(self.text) if t.is_word)


def candidates(param: Param, words: Words, meaning: Meaning, others: Sequence[Param] = ()) -> list[Candidate]:
    """Possible values of `param` in `words`, best first; `others` are the tool's other parameters."""
    found: list[Candidate]
    match param.kind:
        case "number":
            found = _which(param, words) if param.identifies else []
            if not param.identifies or not found:
                found = found + _amounts(param, words, others)
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
            found = _boolean(param, words)
        case "name":
            found = _names(param, words)
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


def _which(param: Param, words: Words) -> list[Candidate]:
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


def _numbered(param: Param, value: float, start: int, end: int, score: float) -> Candidate:
    return Candidate(numeric(param, value), start, end, score, bounded(param, value))


def _amounts(param: Param, words: Words, others: Sequence[Param]) -> list[Candidate]:
    """Quantities that fit a parameter's unit, its role (goal or change) and what it counts."""
    out = []
    for q in find_quantities(words.text):
        if _is_name_part(q, words, others):
            continue
        c = _amount(param, q, words, others)
        if c is not None:
            out.append(c)
    anchor = _anchored(param, words)
    if anchor is not None:
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


def _anchored(param: Param, words: Words) -> Candidate | None:
    """A number that the description ties to a word: "0 is fully open, 100 is fully closed" and "open it"."""
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


def options(param: Param, words: Words, meaning: Meaning) -> list[Candidate]:
    """Listed options that the text names: literally, inflected, by their description, or by meaning."""
    tokens = words.tokens
    out: list[Candidate] = []
    values = [v for v in param.options if isinstance(v, str | int | float)]
    parts = {v: tuple(lemma(w) for w in split_name(str(v))) or (str(v).lower(),) for v in values}
    for value in values:
        out.extend(_literal(value, parts, param, tokens, words))
    if out:
        best = max(c.score for c in out)
        return [c for c in out if c.score >= best - 0.35]
    for value in values:
        note = param.option_notes.get(str(value), "")
        for i, token in enumerate(tokens):
            if (
                lemma(token.low) in content_lemmas(note)
                and lemma(token.low) not in parts[value]
                and not any(
                    lemma(token.low) in content_lemmas(n)
                    for v, n in param.option_notes.items()
                    if v != str(value)
                )
            ):
                out.append(Candidate(value, token.start, tokens[i].end, 0.8))
    return out or _synonymous(values, words) or _similar(param, values, words, meaning)


def _synonymous(values: Sequence[Any], words: Words) -> list[Candidate]:
    """Options that a word or short phrase is a general synonym of; a word that fits two options fits none."""
    tokens, out = words.tokens, []
    i = 0
    while i < len(tokens):
        for width in (4, 3, 2, 1):
            window = tokens[i : i + width]
            if len(window) < width or (width == 1 and lemma(window[0].low) in words.vocabulary):
                continue
            phrase = " ".join(t.low for t in window)
            heads = heads_of(phrase) | (heads_of(lemma(phrase)) if width == 1 else frozenset())
            hits = [
                v
                for v in values
                if heads & {" ".join(split_name(str(v))), *(lemma(w) for w in split_name(str(v)))}
            ]
            if len(hits) == 1:
                out.append(Candidate(hits[0], window[0].start, window[-1].end, 0.78))
                i += width - 1
                break
        i += 1
    return out


def _literal(
    value: Any, parts: dict[Any, tuple[str, ...]], param: Param, tokens: tuple[Token, ...], words: Words
) -> list[Candidate]:
    want, out = parts[value], []
    lows = [t.low.removesuffix("'s") for t in tokens]
    bases = [lemma(low) for low in lows]
    raw = str(value)
    for i in range(len(tokens)):
        if len(want) == 1 and want[0] in _PARTICLES:
            if lows[i] == want[0] and _particle(tokens, i, words):
                out.append(Candidate(value, tokens[i].start, tokens[i].end, 1.0))
            continue
        if len(raw) == 1 and raw.isalpha():
            if tokens[i].text == raw and (
                i == 0
                or not (
                    raw == "A"
                    and i + 1 < len(tokens)
                    and tokens[i + 1].text.islower()
                    and tokens[i + 1].low not in STOPWORDS
                )
            ):
                out.append(Candidate(value, tokens[i].start, tokens[i].end, 1.0))
            continue
        span = bases[i : i + len(want)]
        if tuple(span) == want or fold("".join(lows[i : i + len(want)])) == fold(raw):
            out.append(Candidate(value, tokens[i].start, tokens[i + len(span) - 1].end, 1.0))
        elif fold(lows[i]) == fold(raw):
            out.append(Candidate(value, tokens[i].start, tokens[i].end, 1.0))
        elif i + 1 < len(tokens) and bases[i] in param.nouns and _initialled(raw, bases[i], lows[i + 1]):
            out.append(Candidate(value, tokens[i].start, tokens[i + 1].end, 1.0))
        elif len(want) == 1 and len(want[0]) > 3 and related(bases[i], want[0]):
            out.append(Candidate(value, tokens[i].start, tokens[i].end, 0.9))
        elif len(want) > 1 and bases[i] in want and len(bases[i]) > 2:
            distinctive = (
                not any(bases[i] in p for v, p in parts.items() if v != value) and bases[i] not in param.nouns
            )
            if distinctive and not any(c.start == tokens[i].start for c in out):
                out.append(Candidate(value, tokens[i].start, tokens[i].end, 0.8))
    if not out and len(want) == 1 and want[0] in _ON | _OFF:
        group = "start" if want[0] in _ON else "stop"
        first = " ".join(lows[:2])
        if (
            lows
            and (lows[0] in VERB_GROUPS[group] or first in VERB_GROUPS[group])
            and lows[0] not in ("turn", "put", "cut")
        ):
            out.append(Candidate(value, -1, -1, 0.85))
    return out


def _initialled(option: str, noun: str, number: str) -> bool:
    """Whether "tank five" is the option T5."""
    m = re.fullmatch(r"([A-Za-z]+)[-_]?(\d+)", option)
    said = str(int(NUMBER_WORDS[number])) if number in NUMBER_WORDS else number
    return m is not None and noun.startswith(m[1].lower()) and m[2].lstrip("0") == said


def _particle(tokens: tuple[Token, ...], i: int, words: Words) -> bool:
    """Whether on/off/… is a particle or a state here, not a preposition ("switch it on", not "on line 3")."""
    following = tokens[i + 1].low if i + 1 < len(tokens) else ""
    before = tokens[i - 1].low if i else ""
    gap = words.text[tokens[i].end : tokens[i + 1].start] if following else ""
    if (
        not following
        or "," in gap
        or ";" in gap
        or following
        in ("please", "and", "in", "for", "at", "again", "now", "then", "until", "with", "to", "when")
    ):
        return True
    return before in (
        "turn",
        "switch",
        "power",
        "put",
        "turned",
        "switched",
        "flip",
        "leave",
        "shut",
        "get",
        "keep",
        "kick",
    )


def _similar(param: Param, values: Sequence[Any], words: Words, meaning: Meaning) -> list[Candidate]:
    """Options whose meaning a word or two of the text come close to. Names of single things have no such meaning."""
    values = [v for v in values if isinstance(v, str) and len(v) > 1 and not is_identifier(v)]
    resource = any(fold(str(v)) == fold(n.text) for v in values for n in words.names)
    floor = (
        DEFAULT.option_floor
        if param.required or set(param.words) & {"reason", "cause"}
        else DEFAULT.optional_option_floor
    )
    floor = max(floor, DEFAULT.resource_floor) if resource else floor
    own = {lemma(w) for v in values for w in split_name(v)}
    tokens = [
        t
        for i, t in enumerate(words.tokens)
        if t.low not in STOPWORDS
        and not t.text[0].isdigit()
        and not is_identifier(t.text)
        and (lemma(t.low) not in words.vocabulary or lemma(t.low) in own)
        and not (i == 0 and lemma(t.low) in _LEADING)
    ]
    if not tokens or not values:
        return []
    spans = [(t.start, t.end) for t in tokens]
    spans += [(a.start, b.end) for a, b in zip(tokens, tokens[1:], strict=False) if b.start - a.end <= 6]
    phrases = [words.text[a:b].lower() for a, b in spans]
    noun = " ".join(param.nouns)
    plain = [" ".join(split_name(v)) for v in values]
    notes = [param.option_notes.get(v, p) for v, p in zip(values, plain, strict=True)]
    matrix = meaning.embed([*phrases, *plain, *(f"{p} {noun}" for p in plain), *notes])
    sims = matrix[: len(phrases)] @ matrix[len(phrases) :].T
    n = len(values)
    out = []
    for (start, end), row in zip(spans, sims, strict=True):
        scores = [
            max(float(row[j]), float(row[n + j]) - 0.08, float(row[2 * n + j]) - 0.03) for j in range(n)
        ]
        ranked = sorted(range(n), key=lambda j: -scores[j])
        best = scores[ranked[0]]
        margin = best - (scores[ranked[1]] if n > 1 else 0.0)
        if best >= floor and margin >= DEFAULT.option_margin:
            score = min(0.75, best * 0.6 + margin)
            out.append(Candidate(values[ranked[0]], start, end, score, soft=True))
    return sorted(out, key=lambda c: -c.score)[:2]


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


def _boolean(param: Param, words: Words) -> list[Candidate]:
    out = []
    tokens = words.tokens
    nouns = [
        n
        for n in (*param.nouns, *param.description_nouns)
        if n not in ("whether", "true", "false", "flag", "set", "default")
    ]
    for i, token in enumerate(tokens):
        if any(related(lemma(token.low), n) for n in param.nouns) or (
            param.required and lemma(token.low) in nouns
        ):
            before = [t.low for t in tokens[max(0, i - 3) : i]]
            negative = bool(
                {"no", "not", "without", "don't", "skip", "never", "disable", "off"} & set(before)
            )
            out.append(Candidate(not negative, token.start, token.end, 0.9))
    if param.required or set(param.words) & _SWITCHES:
        switched = _switched(words)
        if switched is not None:
            return [switched]
    return out


def _switched(words: Words) -> Candidate | None:
    """On or off, as a particle or by the verb."""
    tokens = words.tokens
    for i, token in enumerate(tokens):
        if token.low in ("on", "off") and _particle(tokens, i, words):
            return Candidate(token.low == "on", token.start, token.end, 0.95)
    first = lemma(tokens[0].low) if tokens else ""
    for group, value in (("enable", True), ("start", True), ("disable", False), ("stop", False)):
        if first in VERB_GROUPS[group] and first not in (
            "turn",
            "put",
            "switch",
            "run",
            "wake",
            "cut",
            "finish",
            "end",
        ):
            return Candidate(value, tokens[0].start, tokens[0].end, 0.85)
    return None


def _names(param: Param, words: Words) -> list[Candidate]:
    """Known names of the parameter's kind, identifiers of its shape, words beside its noun, and people."""
    out: list[Candidate] = []
    nouns = (*param.nouns, *(n for n in param.description_nouns if n not in STOPWORDS))
    shape = shape_of(param)
    people = shape is None and bool(set(param.nouns) & PEOPLE or set(param.words) & PEOPLE)
    for name, start, end in find_names(words.text, words.names):
        if shape is not None and not re.fullmatch(shape, name.text):
            continue
        if name.is_a(param.nouns):
            out.append(_shaped(name.text, param, start, end, 1.0))
        elif name.is_a(nouns):
            out.append(_shaped(name.text, param, start, end, 0.9))
        elif (
            people
            and name.text[:1].isupper()
            and not is_identifier(name.text)
            and (set(name.kind) & PEOPLE or not set(name.kind) & words.vocabulary)
        ):
            out.append(Candidate(name.text, start, end, 0.85))
    if people and not out:
        out.extend(_by_role(words))
    if shape is not None:
        for m in re.finditer(rf"(?<![\w-])(?:{shape})(?![\w-])", words.text, re.IGNORECASE):
            text = m.group()
            literal = re.match(r"[A-Z]+", _example(param) or "")
            out.append(
                Candidate(text.upper() if literal and text.islower() else text, m.start(), m.end(), 1.0)
            )
        if not out:
            out.extend(_joined(param, shape, words))
        if "pattern" in param.schema:
            return out or _wrong_shape(param, words)
    out.extend(
        c
        for c in _beside(param, words, nouns, people)
        if not any(o.start < c.end and c.start < o.end for o in out)
    )
    if people:
        out.extend(c for c in _capitalised(words) if not any(o.start == c.start for o in out))
    for text, start, end in quoted(words.text):
        if not people:
            out.append(Candidate(text, start, end, 0.7))
    return out


def _by_role(words: Words) -> list[Candidate]:
    """A person named by role: "the shift lead of the day" where the context lists shift leads with (day) and (night)."""
    tokens = words.tokens
    bases = [lemma(t.low) for t in tokens]
    hits = [n for n in words.names if n.kind and all(k in bases for k in n.kind)]
    noted = [n for n in hits if any(lemma(w) in bases for note in n.notes for w in note.lower().split())]
    chosen = noted or hits
    if len({n.text for n in chosen}) != 1:
        return []
    at = tokens[bases.index(chosen[0].kind[0])], tokens[bases.index(chosen[0].kind[-1])]
    end = max(
        (
            t.end
            for t, b in zip(tokens, bases, strict=True)
            for note in chosen[0].notes
            if b in note.lower().split() and t.start > at[0].start
        ),
        default=at[1].end,
    )
    return [Candidate(chosen[0].text, at[0].start, max(end, at[1].end), 0.85)]


def _shaped(text: str, param: Param, start: int, end: int, score: float) -> Candidate:
    pattern = param.schema.get("pattern")
    problem = f"of the form {pattern}" if isinstance(pattern, str) and not re.search(pattern, text) else ""
    return Candidate(text, start, end, score, problem)


def _example(param: Param) -> str | None:
    said = param.schema.get("examples")
    if isinstance(said, list) and said and isinstance(said[0], str):
        return said[0]
    m = re.search(
        r"(?:e\.g\.|for example|for instance|such as|like|example:)[\s,:]*['\"`]?([A-Za-z0-9][\w./:+-]*\w)",
        param.description,
        re.IGNORECASE,
    )
    return m.group(1) if m else None


def shape_of(param: Param) -> str | None:
    """A regular expression for the parameter's values: its pattern, or the form of the example that it gives."""
    pattern = param.schema.get("pattern")
    if isinstance(pattern, str):
        return pattern.removeprefix("^").removesuffix("$")
    example = _example(param)
    if example is None or not re.search(r"\d", example):
        return None
    out = []
    for part in re.split(r"([-_./:+])", example):
        if part in "-_./:+" and part:
            out.append(re.escape(part))
        elif part.isdigit():
            out.append(r"\d+")
        elif part.isalpha():
            out.append(part if part.isupper() else "[A-Za-z]+")
        else:
            m = re.fullmatch(r"([A-Z]+)(\d+)", part)
            letters = (m[1] if len(example) > len(part) else f"[A-Z]{{{len(m[1])}}}") if m else ""
            out.append(rf"{letters}\d+" if m else "[A-Za-z0-9]+")
    return "".join(out)


def _joined(param: Param, shape: str, words: Words) -> list[Candidate]:
    """Two or three words that make a name of the shape when joined: node 4 -> node-4, INC 42 -> INC-42."""
    tokens = words.tokens
    out: list[Candidate] = []
    for i in range(len(tokens)):
        for width in (3, 2, 1):
            window = [
                str(int(NUMBER_WORDS[t.low])) if t.low in NUMBER_WORDS else t.text
                for t in tokens[i : i + width]
            ]
            if len(window) < width:
                continue
            for glue in ("-", "", "_", "."):
                for joined in (glue.join(window), glue.join(window).lower(), glue.join(window).upper()):
                    if width > 1 and any(ch.isdigit() for ch in joined) and re.fullmatch(shape, joined):
                        return [*out, Candidate(joined, tokens[i].start, tokens[i + width - 1].end, 0.9)]
            prefix = re.match(r"^([A-Za-z]+)([-_]?)", shape.replace("\\", ""))
            if (
                width == 1
                and prefix
                and window[0].isdigit()
                and i
                and any(related(lemma(tokens[i - 1].low), n) for n in (*param.nouns, "number"))
            ):
                joined = f"{prefix[1]}{prefix[2]}{window[0]}"
                if re.fullmatch(shape, joined):
                    return [*out, Candidate(joined, tokens[i - 1].start, tokens[i].end, 0.85)]
    return out


def _wrong_shape(param: Param, words: Words) -> list[Candidate]:
    """An identifier that looks like the parameter's, but does not match its pattern (node-9 where there are five)."""
    stem = re.match(r"[A-Za-z]+", (shape_of(param) or "").replace("\\", ""))
    for token in words.tokens:
        if is_identifier(token.text) and stem and token.low.startswith(stem.group().lower()):
            return [
                Candidate(
                    token.text, token.start, token.end, 0.6, f"of the form {param.schema.get('pattern')}"
                )
            ]
    return []


def _beside(param: Param, words: Words, nouns: Iterable[str], people: bool) -> list[Candidate]:
    """Words next to the parameter's noun: service checkout, the checkout service, truck HH-AB 12."""
    tokens, out = words.tokens, []
    kinds = set(param.nouns)
    for i, token in enumerate(tokens):
        if lemma(token.low) not in kinds:
            continue
        j = i + 1
        while j < len(tokens) and tokens[j].low in (
            "named",
            "called",
            "number",
            "no",
            "id",
            "is",
            "with",
            "name",
        ):
            j += 1
        run: list[Token] = []
        while j < len(tokens) and (
            is_identifier(tokens[j].text)
            or (tokens[j].text.isupper() and len(tokens[j].text) > 1)
            or tokens[j].text[0].isdigit()
            or (tokens[j].text[0].isupper() and "-" in tokens[j].text)
        ):
            if run and words.text[run[-1].end : tokens[j].start].strip():
                break
            run.append(tokens[j])
            j += 1
        if run:
            out.append(Candidate(words.text[run[0].start : run[-1].end], run[0].start, run[-1].end, 0.9))
        elif (
            j < len(tokens)
            and not words.text[tokens[j - 1].end : tokens[j].start].strip()
            and (
                _namelike(tokens[j], loose=j > i + 1)
                or (
                    j == i + 1
                    and j + 1 == len(tokens)
                    and tokens[j].low not in STOPWORDS
                    and tokens[j].text.isalpha()
                    and not find_times(tokens[j].text, words.today)
                )
            )
        ):
            out.append(Candidate(tokens[j].text, tokens[j].start, tokens[j].end, 0.85 if j > i + 1 else 0.7))
        k = i - 1
        while (
            k >= 0
            and _namelike(tokens[k], loose=True)
            and i - k <= 2
            and not words.text[tokens[k].end : tokens[k + 1].start].strip()
        ):
            k -= 1
        if k < i - 1 and not run:
            start, end = tokens[k + 1].start, tokens[i - 1].end
            if k >= 0 or lemma(tokens[0].low) not in known_verbs():
                out.append(
                    Candidate(
                        words.text[start:end],
                        start,
                        end,
                        0.75 if not words.text[start:end].isalpha() or words.text[start].isupper() else 0.55,
                    )
                )
            elif k + 2 < i:
                out.append(Candidate(words.text[tokens[k + 2].start : end], tokens[k + 2].start, end, 0.75))
    if not out and not people:
        out.extend(
            Candidate(t.text, t.start, t.end, 0.75)
            for t in tokens
            if re.fullmatch(r"[A-Za-z]+(?:[-_][A-Za-z0-9]+)+", t.text)
            and t.low.split("-")[0] not in NUMBER_WORDS
            and t.low not in STOPWORDS
        )
    if not out and not people and len(tokens) > 1 and lemma(tokens[0].low) in known_verbs():
        bare = tokens[1]
        ordinary = not _namelike(bare, loose=True) and bare.low != "main"
        if (
            bare.text.isalpha()
            and not ordinary
            and lemma(bare.low) == bare.low
            and bare.low not in words.vocabulary | words.kinds
        ):
            if not find_times(bare.text, words.today):
                out.append(Candidate(bare.text, bare.start, bare.end, 0.55))
    if not out:
        out.extend(
            Candidate(t.text, t.start, t.end, 0.6)
            for t in tokens
            if is_identifier(t.text) and not people and t.start >= 0
        )
        runs = re.finditer(r"(?<![\w-])[A-Z][A-Z0-9]*-[A-Z0-9]+(?: \d+)?(?![\w-])", words.text)
        out = [Candidate(m.group(), m.start(), m.end(), 0.65) for m in runs if not people] or out
    return out


def _namelike(token: Token, *, loose: bool) -> bool:
    low = token.low
    if (
        low in STOPWORDS
        or low in PREPOSITIONS
        or low in PRONOUNS
        or low in DETERMINERS
        or low in NUMBER_WORDS
    ):
        return False
    if low in (
        "new",
        "old",
        "last",
        "first",
        "current",
        "whole",
        "entire",
        "stuck",
        "other",
        "next",
        "previous",
        "main",
        "specific",
        "certain",
        "right",
        "wrong",
        "same",
        "broken",
        "full",
    ):
        return False
    return loose or token.text[0].isupper() or is_identifier(token.text)


def _capitalised(words: Words) -> list[Candidate]:
    """Names of people: capitalised words that do not begin the text, or that stand behind a telling verb."""
    out = []
    tokens = words.tokens
    i = 0
    while i < len(tokens):
        token = tokens[i]
        at_start = i == 0 or words.text[: token.start].rstrip()[-1:] in ".!?"
        before = tokens[i - 1].low if i else ""
        addressed = before in _TELLING or (before in ("to", "with", "for", "and", "by") and not at_start)
        capital = token.text[0].isupper() and token.text[1:].islower() and not at_start
        if (
            capital
            and token.low not in STOPWORDS
            and not find_times(token.text, None)
            and lemma(token.low) not in ("monday",)
        ):
            j = i
            while (
                j + 1 < len(tokens)
                and tokens[j + 1].text[0].isupper()
                and tokens[j + 1].text[1:].islower()
                and tokens[j + 1].start == tokens[j].end + 1
            ):
                j += 1
            out.append(
                Candidate(
                    words.text[token.start : tokens[j].end].removesuffix("'s"),
                    token.start,
                    tokens[j].end,
                    0.8 if addressed else 0.6,
                )
            )
            i = j
        i += 1
    return out
