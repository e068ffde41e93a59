"""Tokens, base forms and masking: the only place that looks at letters.

Spans are character offsets into the text that was given, so that every value can be traced back to the words it
came from. Masking keeps the length, so that spans stay valid.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fermata.agents.planner.words import IRREGULAR, OTHER_VERBS, STOPWORDS, VERB_GROUPS

_TOKEN: Final = re.compile(
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # e-mail address
    r"|https?://[^\s,;)]+"
    r"|(?:[A-Za-z0-9_.-]*/)+[A-Za-z0-9_.-]*[A-Za-z0-9_-]"  # path, also units such as mm/s
    r"|\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?Z?)?"  # ISO date, with or without time
    r"|\d+(?:st|nd|rd|th)\b"  # ordinal
    r"|\d+[A-Za-z]+\d\w*(?:-\w+)*"  # identifier that begins with a digit
    r"|(?:(?<![\w)])[-+−])?\d+(?:[.,:]\d+)*"  # number, clock time, version
    r"|[A-Za-z_][\w'’]*(?:[-.]\w+)*"  # word, identifier
    r"|°[CF]?(?![A-Za-z])|[%€$£#]"
    r"|[.,;:!?()\"“”`]"
)
_WORD: Final = re.compile(r"[a-z][a-z'-]*", re.IGNORECASE)
_QUOTED: Final = re.compile(
    r"\"([^\"\n]+)\"|“([^”\n]+)”|«([^»\n]+)»|`([^`\n]+)`|(?<!\w)['‘]([^'’\n]{2,}?)['’](?!\w)"
)
_IDENTIFIER: Final = re.compile(r"^(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9]+(?:[-_.:/]?[A-Za-z0-9]+)*$")
_VOWELS: Final = "aeiou"
_MASK: Final = "\u2588"


@dataclass(frozen=True, slots=True)
class Token:
    """A word, number or mark of a text; `start` and `end` are its span, `low` its lower-case form."""

    text: str
    start: int
    end: int

    @property
    def low(self) -> str:
        return self.text.lower().replace("’", "'")

    @property
    def is_word(self) -> bool:
        return self.text[0].isalnum() or self.text[0] in "_%°€$£"


def tokenize(text: str) -> tuple[Token, ...]:
    """Split `text` into tokens; e-mail addresses, paths, identifiers and numbers stay whole."""
    return tuple(_tokenize(text))


@lru_cache(maxsize=512)
def _tokenize(text: str) -> tuple[Token, ...]:
    return tuple(
        Token(m.group().rstrip("'’"), m.start(), m.start() + len(m.group().rstrip("'’")))
        for m in _TOKEN.finditer(text)
    )


@lru_cache(maxsize=1)
def known_verbs() -> frozenset[str]:
    """Every base-form verb that the word lists know, without particles."""
    return frozenset(p.split()[0] for group in VERB_GROUPS.values() for p in group) | OTHER_VERBS


@lru_cache(maxsize=8192)
def lemma(word: str) -> str:
    """The base form of an English word (stopped, stopping, stops -> stop)."""
    low = word.lower().replace("’", "'").removesuffix("'s")
    if low in IRREGULAR:
        return IRREGULAR[low]
    if any(ch.isdigit() for ch in low) or len(low) < 4 or low in known_verbs():
        return low
    if low.endswith("ies") and len(low) > 4:
        return low[:-3] + "y"
    if low.endswith(("sses", "xes", "ches", "shes", "zes")):
        return _restore(low[:-2]) if low.endswith("zes") else low[:-2]
    if low.endswith("s") and not low.endswith(("ss", "us", "is")):
        return low[:-1]
    if low.endswith("ied") and len(low) > 4:
        return low[:-3] + "y"
    if low.endswith("ed") and len(low) > 4:
        return _restore(low[:-2])
    if low.endswith("ing") and len(low) > 5 and any(v in low[:-3] for v in _VOWELS + "y"):
        return _restore(low[:-3])
    return low


def _restore(trunk: str) -> str:
    """Give back what an ending took: closing -> clos -> close, stopping -> stopp -> stop."""
    verbs = known_verbs()
    if trunk in verbs:
        return trunk
    if trunk + "e" in verbs:
        return trunk + "e"
    if len(trunk) > 3 and trunk[-1] == trunk[-2] and trunk[-1] not in "lsz" + _VOWELS:
        return trunk[:-1]
    if len(trunk) > 3 and trunk[-1] == trunk[-2] and trunk[:-1] in verbs:
        return trunk[:-1]
    if trunk.endswith(
        (
            "at",
            "iz",
            "is",
            "us",
            "v",
            "c",
            "dg",
            "rg",
            "l" if trunk.endswith(("bl", "pl", "tl", "dl", "gl")) else "dg",
        )
    ):
        return trunk + "e"
    return trunk


def related(one: str, other: str) -> bool:
    """Whether two base forms share a root: vibrate and vibration, schedule and scheduler."""
    if one == other:
        return True
    shared = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared += 1
    return shared >= 5 and shared >= 0.62 * max(len(one), len(other))


@lru_cache(maxsize=4096)
def content_lemmas(text: str) -> tuple[str, ...]:
    """Base forms of the words of `text` that carry meaning, in order, without numbers and identifiers."""
    out = []
    for token in _tokenize(text):
        low = token.low
        if not _WORD.fullmatch(low) or low in STOPWORDS or len(low) < 2:
            continue
        for part in low.split("-"):
            base = lemma(part)
            if part and part not in STOPWORDS and base not in STOPWORDS:
                out.append(base)
    return tuple(out)


def is_identifier(text: str) -> bool:
    """Whether a token names one thing: letters and digits together, as node-3, INC-42, L3, v1.2 (not 3rd, 10min)."""
    return bool(_IDENTIFIER.fullmatch(text)) and not re.fullmatch(
        r"\d+(?:st|nd|rd|th|[.,]?\d*[a-zA-Zµ°]{1,4})", text
    )


def quoted(text: str) -> tuple[tuple[str, int, int], ...]:
    """Quoted strings of `text` as (content, start, end); the span holds the quotation marks."""
    out = []
    for m in _QUOTED.finditer(text):
        content = next(g for g in m.groups() if g is not None)
        out.append((content, m.start(), m.end()))
    return tuple(out)


def mask_quotes(text: str) -> str:
    """`text` with what stands in quotation marks blacked out, at the same length."""
    for _, start, end in quoted(text):
        text = text[:start] + _MASK * (end - start) + text[end:]
    return text


def split_name(name: str) -> tuple[str, ...]:
    """Words of a tool's or parameter's name: set_line_speed, setLineSpeed -> (set, line, speed)."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return tuple(w.lower() for w in re.split(r"[^A-Za-z0-9°%]+", spaced) if w)


def sentences(text: str) -> tuple[tuple[int, int], ...]:
    """Spans of the sentences of `text`. Dots in numbers, names and after short forms do not end one."""
    spans, start = [], 0
    for m in re.finditer(r"(?<=[.!?;])[\"”')]?\s+|\n+", text):
        before = text[start : m.start()]
        if re.search(
            r"\b(?:e\.g|i\.e|approx|no|nr|mr|mrs|ms|dr|vs|etc|st|min|max|temp|incl)\.$", before, re.IGNORECASE
        ):
            continue
        if before.strip():
            spans.append((start, m.start()))
        start = m.end()
    if text[start:].strip():
        spans.append((start, len(text)))
    return tuple(spans)
