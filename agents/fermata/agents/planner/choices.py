"""Listed options and switches as values: named literally, inflected, by a synonym, by description, or by meaning.

Meaning comes last and is marked as such: it is a guess among options, which an action may not rest on alone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, Final

from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.names import find_by_note, fold
from fermata.agents.planner.settings import DEFAULT
from fermata.agents.planner.synonyms import heads_of
from fermata.agents.planner.text import (
    Token,
    content_lemmas,
    is_identifier,
    lemma,
    related,
    split_name,
)
from fermata.agents.planner.tools import Param
from fermata.agents.planner.words import (
    NUMBER_WORDS,
    STOPWORDS,
    VERB_GROUPS,
)
from fermata.agents.planner.words_given import Candidate, Words

_LEADING: Final = frozenset(p for members in VERB_GROUPS.values() for p in members)
_SWITCHES: Final = frozenset({"enabled", "enable", "on", "active", "state", "activated"})
_PARTICLES: Final = frozenset({"on", "off", "in", "out", "up", "down", "away", "over", "all"})
_ON: Final = frozenset(
    {"on", "enabled", "enable", "active", "running", "start", "started", "run", "true", "open", "up"}
)
_OFF: Final = frozenset({"off", "disabled", "disable", "inactive", "stopped", "stop", "false", "down"})


def options(param: Param, words: Words, meaning: Meaning) -> list[Candidate]:
    """Listed options that the text names: literally, inflected, by their description, or by meaning."""
    tokens = words.tokens
    out: list[Candidate] = []
    values = [v for v in param.options if isinstance(v, str | int | float)]
    parts = {v: tuple(lemma(w) for w in split_name(str(v))) or (str(v).lower(),) for v in values}
    for value in values:
        out.extend(_literal(value, parts, param, tokens, words))
    for name, start, end in find_by_note(words.text, words.names):
        hit = next((v for v in values if fold(str(v)) == fold(name.text)), None)
        if hit is not None and not out:
            out.append(Candidate(hit, start, end, 0.9))
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
    spans += [(a.start, b.end) for a, b in itertools.pairwise(tokens) if b.start - a.end <= 6]
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


def boolean(param: Param, words: Words) -> list[Candidate]:
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
