"""What things are called here: a catalogue of names with their kind, gathered from the conversation.

System prompts list what exists ("Deployments: storefront (web), ledger (billing)"), results name things by key
({"pods": [{"name": …}]}). A name with a kind fills a parameter of that kind; a note in brackets relates it to another
(storefront belongs to web). Refused: names from passages, which are text that anybody may have written.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from fermata.agents.planner.conversation import Conversation
from fermata.agents.planner.text import is_identifier, lemma, related, split_name, tokenize
from fermata.agents.planner.words import NUMBER_WORDS, STOPWORDS

_LISTING: Final = re.compile(
    r"(?:^|(?<=[.;\n]))\s*(?:[-*]\s*)?(?:(?:the|our|your|its|known|available|valid|existing|possible|current|there are(?: the)?)\s+)*(?P<kind>[A-Za-z][A-Za-z -]{1,40}?)"
    r"\s*(?::|\bare called\b|\bare named\b|\bare\b|\bis\b:)\s*(?P<items>[^;\n]+?)(?=\.(?:\s|$)|;|\n|$)",
    re.IGNORECASE,
)
_INLINE: Final = re.compile(
    r"\b(?P<kind>[a-z][a-z-]+s)\s*(?:\((?P<inner>[^()]*,[^()]*)\)|(?:named|called|:)\s+(?P<items>[\w' -]+(?:, [\w' -]+)+(?:,? and [\w' -]+)?))",
    re.IGNORECASE,
)
_RANGE: Final = re.compile(
    r"\b(?P<kind>[a-z]+s)\b,?[^.;\n]{0,30}?\b(?:numbered |from |no\. )?(?P<low>\d+)\s*(?:to|-|–|through)\s*(?P<high>\d+)\b",
    re.IGNORECASE,
)
_MAX_RANGE: Final = 64


@dataclass(frozen=True, slots=True)
class Name:
    """A known thing: how it is written, the base forms of its kind ("shift", "lead"), and notes in brackets."""

    text: str
    kind: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def is_a(self, nouns: Iterable[str]) -> bool:
        """Whether the kind is one of `nouns` (base forms)."""
        return any(related(k, n) for k in self.kind for n in nouns)


@lru_cache(maxsize=128)
def names_in_context(context: str) -> tuple[Name, ...]:
    """Names that a system text lists with their kind."""
    out: dict[tuple[str, str], Name] = {}
    for m in _LISTING.finditer(context):
        for name in _items(m["kind"], m["items"]):
            out.setdefault((name.text.lower(), name.kind[-1]), name)
    for m in _INLINE.finditer(context):
        for name in _items(m["kind"], m["inner"] or m["items"]):
            out.setdefault((name.text.lower(), name.kind[-1]), name)
    for m in _RANGE.finditer(context):
        low, high = int(m["low"]), int(m["high"])
        if low < high <= low + _MAX_RANGE and high < 1900:
            for n in range(low, high + 1):
                out.setdefault((str(n), lemma(m["kind"])), Name(str(n), (lemma(m["kind"].lower()),)))
    return tuple(out.values())


def _items(kind: str, items: str) -> list[Name]:
    words = tuple(lemma(w) for w in re.findall(r"[a-z]+", kind.lower()) if w not in STOPWORDS)
    if not words:
        return []
    parts = re.split(r",\s*(?:and\s+)?(?![^()]*\))|\s+(?:and|or)\s+(?![^()]*\))", items)
    if len(parts) == 1 and len(parts[0].split()) > 3:
        return []
    out: list[Name] = []
    for part in parts:
        span = re.fullmatch(r"\s*([A-Za-z][A-Za-z-]*?-?)(\d+)\s*(?:to|through|–|-)\s*\1(\d+)\s*", part)
        if span and 0 < int(span[3]) - int(span[2]) <= _MAX_RANGE:
            out.extend(Name(f"{span[1]}{n}", words) for n in range(int(span[2]), int(span[3]) + 1))
            continue
        m = re.match(r"^\s*['\"`]?([\w][\w .@/:+'-]*?)['\"`]?\s*(?:\(([^)]*)\)|[-–:=]\s+(.*))?\s*$", part)
        if (
            not m
            or len(m[1].split()) > 3
            or (m[1].lower() in STOPWORDS and not m[1].isupper())
            or re.fullmatch(r"\d+ to \d+", m[1])
        ):
            continue
        notes = tuple(x.strip() for x in re.split(r"[,;]", m[2] or m[3] or "") if x.strip())
        out.append(Name(m[1].strip(), words, notes))
    return out


def names_in_data(data: Any, kind: tuple[str, ...] = ()) -> list[Name]:
    """Names that a result's data gives: values of name and id keys, and identifiers, with their kind from the keys."""
    out: list[Name] = []
    if isinstance(data, Mapping):
        for key, value in data.items():
            words = split_name(str(key))
            nouns = tuple(lemma(w) for w in words if w not in ("id", "name", "key", "number", "code"))
            if isinstance(value, str) and (
                set(words) & {"id", "name", "key", "code", "number"} or is_identifier(value)
            ):
                if len(value) <= 80:
                    out.append(Name(value, nouns or kind))
            elif isinstance(value, Mapping | list):
                out.extend(names_in_data(value, nouns or kind))
    elif isinstance(data, list):
        for item in data:
            if isinstance(item, str) and len(item) <= 60 and " " not in item.strip():
                out.append(Name(item, kind))
            else:
                out.extend(names_in_data(item, kind))
    return out


def catalogue(conversation: Conversation) -> tuple[Name, ...]:
    """Every name of the conversation: of the system text first, then of results, newest first."""
    out = list(names_in_context(conversation.context))
    seen = {(n.text.lower(), n.kind) for n in out}
    for turn in reversed(conversation.turns):
        for result in reversed(list(turn.results.values())):
            for name in names_in_data(result.data):
                if (name.text.lower(), name.kind) not in seen and name.kind:
                    seen.add((name.text.lower(), name.kind))
                    out.append(name)
    return tuple(out)


def fold(text: str) -> str:
    """For comparing names: case, separators and number words folded (Node 4, node-four -> node4)."""
    low = re.sub(r"'s$|’s$", "", text.lower().strip())
    words = [str(int(NUMBER_WORDS[w])) if w in NUMBER_WORDS else w for w in re.split(r"[\s_\-./]+", low) if w]
    return "".join(words)


def find_names(text: str, names: Iterable[Name]) -> list[tuple[Name, int, int]]:
    """Occurrences of known names in `text` as (name, start, end); the longest reading wins."""
    tokens = [t for t in tokenize(text) if t.is_word]
    by_fold: dict[str, list[Name]] = {}
    for name in names:
        by_fold.setdefault(fold(name.text), []).append(name)
    hits: list[tuple[Name, int, int]] = []
    i = 0
    while i < len(tokens):
        for width in (4, 3, 2, 1):
            window = tokens[i : i + width]
            if len(window) < width:
                continue
            key = fold(" ".join(t.text for t in window))
            found = by_fold.get(key)
            if found is None and width == 1 and key.endswith("s") and len(key) > 4:
                found = by_fold.get(key[:-1])
            if found and not (len(key) == 1 and (not window[0].text.isupper() and not key.isdigit())):
                hits.extend((name, window[0].start, window[-1].end) for name in found)
                i += width - 1
                break
        i += 1
    return hits


def find_by_note(text: str, names: Iterable[Name]) -> list[tuple[Name, int, int]]:
    """Names that a text speaks of by what they are noted with: "the tomatoes" where bays are listed as north (tomatoes)."""
    by_word: dict[str, list[Name]] = {}
    for name in names:
        for note in name.notes:
            words = [lemma(w) for w in re.findall(r"[a-z]+", note.lower()) if w not in STOPWORDS]
            if len(words) == 1:
                by_word.setdefault(words[0], []).append(name)
    hits = []
    for token in tokenize(text):
        found = by_word.get(lemma(token.low.removesuffix("'s")), []) if token.is_word else []
        if len(found) == 1:
            hits.append((found[0], token.start, token.end))
    return hits
