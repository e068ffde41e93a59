"""Free text out of a request: what to write, look for or note, in the person's own words.

The words behind a marker (that, saying, a colon, about, because) or, failing that, the longest run of words that
nothing else has used. Never reworded, except that a reference in it may be put by its name.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from fermata.agents.planner.text import known_verbs, lemma, quoted, related
from fermata.agents.planner.tools import Param, Tool
from fermata.agents.planner.words import DETERMINERS, PREPOSITIONS, PRONOUNS, STOPWORDS, VERB_GROUPS
from fermata.agents.planner.words_given import PEOPLE, Candidate, Words

_REASON: Final = re.compile(
    r"\b(?:because(?: of)?|since|due to|owing to|as (?=the |it |we |there )|on account of|reason(?: is|:)?|for the reason that|so that|the cause is|, for )\s*:?\s*",
    re.IGNORECASE,
)
_MESSAGE: Final = re.compile(
    r"\b(?:that|saying|says|reading|to say|as follows|with the (?:message|text|words|note|comment|body)|the following|message|text)\b\s*:?\s*|:\s*",
    re.IGNORECASE,
)
_TOPIC: Final = re.compile(
    r"\b(?:about|regarding|concerning|on the subject of|for|of|named|called|titled|entitled|to (?=\w+ \w+))\s*:?\s+|:\s*",
    re.IGNORECASE,
)
_NAMED: Final = re.compile(
    r"\b(?:named|called|titled|entitled|with the (?:title|subject|name|summary)|(?:title|subject|name|summary)(?: is|:)?)\s*:?\s*",
    re.IGNORECASE,
)
_REASONS: Final = frozenset({"reason", "cause", "why", "justification", "explanation"})
_TITLES: Final = frozenset({"title", "subject", "name", "summary", "heading", "label"})
MESSAGES: Final = frozenset(
    {
        "text",
        "message",
        "body",
        "content",
        "announcement",
        "comment",
        "note",
        "notes",
        "comments",
        "details",
        "description",
        "remark",
        "memo",
        "instructions",
        "task",
        "job",
        "defect",
        "problem",
        "issue",
        "fault",
        "purpose",
    }
)
_EDGE: Final = STOPWORDS | PREPOSITIONS | DETERMINERS | PRONOUNS


def free_text(param: Param, tool: Tool, words: Words, used: Iterable[tuple[int, int]]) -> Candidate | None:
    """The words of `words` for a text parameter; `used` are the spans that other parameters took."""
    spans = sorted(s for s in used if s[0] >= 0)
    inside = quoted(words.text)
    named = set(param.words)
    for text, start, end in inside:
        if not any(a < end and start < b for a, b in spans):
            return Candidate(text, start, end, 0.95)
    if named & _REASONS:
        return _behind(_REASON, words, spans, 0.9)
    if named & _TITLES:
        found = _behind(_NAMED, words, spans, 0.9)
        if found is not None or not param.required:
            return found
        return _leftover(param, tool, words, spans)
    if named & MESSAGES:
        reminding = next(
            (
                m
                for m in [
                    re.search(
                        r"\b(?:remind|nudge|ask|tell|order|call|get|have|page|radio|instruct|request|bring|send|want)\b.{1,40}?\b(?:to|about|of) (?=\w)",
                        words.text,
                        re.IGNORECASE,
                    )
                ]
                if m
            ),
            None,
        )
        found = _behind(_MESSAGE, words, spans, 0.9)
        if found is None and reminding:
            found = _run(words, reminding.end(), spans, 0.85)
        if found is None and param.required:
            found = _after_person(words, spans) or _behind(
                re.compile(r"\b(?:about|regarding)\s+", re.IGNORECASE), words, spans, 0.7
            )
        if (
            found is None
            and param.required
            and not any(
                t in PEOPLE or t in ("to", "recipient", "person", "channel")
                for p in tool.params
                for t in p.words
            )
        ):
            found = _leftover(param, tool, words, spans)
        return found
    if not param.required:
        return None
    return _behind(
        re.compile(
            r"\b(?:about|regarding|concerning|named|called|titled|mentioning|containing|says?|with the words?)\s*:?\s+|:\s+",
            re.IGNORECASE,
        ),
        words,
        spans,
        0.85,
    ) or _leftover(param, tool, words, spans)


def _behind(
    marker: re.Pattern[str], words: Words, spans: list[tuple[int, int]], score: float
) -> Candidate | None:
    for m in marker.finditer(words.text):
        if any(a <= m.start() < b for a, b in spans):
            continue
        if (
            m.group().strip().lower() in ("text", "message")
            and m.end() < len(words.text)
            and words.text[m.end() - 1] != ":"
            and not m.group().strip().endswith(":")
        ):
            continue
        found = _run(words, m.end(), spans, score)
        if found is not None:
            return found
    return None


def _run(words: Words, start: int, spans: list[tuple[int, int]], score: float) -> Candidate | None:
    """Everything from `start` to the end, without other parameters' words at its edges."""
    end = len(words.text.rstrip(" .!?\n"))
    changed = True
    while changed:
        changed = False
        for a, b in spans:
            if start <= a and not words.text[b:end].strip(" .,!?") and a < end:
                cut = words.text[:a].rstrip()
                cut = re.sub(r"\s+(?:in|at|on|by|for|until|to|with|as|priority|of)$", "", cut)
                if len(cut) <= start:
                    continue
                end, changed = len(cut), True
            if a <= start < b:
                start, changed = b, True
    text = words.text[start:end].strip(" ,;:")
    if not text or all(t.lower() in _EDGE for t in text.split()):
        return None
    start = words.text.index(text, start)
    return Candidate(text, start, start + len(text), score)


def _after_person(words: Words, spans: list[tuple[int, int]]) -> Candidate | None:
    """tell Rosa line 2 runs slow: what stands behind the person, if it says something."""
    for _, b in spans:
        rest = words.text[b:].strip(" ,.!?")
        tokens = rest.split()
        if len(tokens) >= 3 and tokens[0].lower() not in (
            "a",
            "an",
            "in",
            "at",
            "on",
            "know",
            "about",
            "by",
            "when",
        ):
            return _run(
                words,
                b + len(words.text[b:]) - len(words.text[b:].lstrip(" ,")),
                [s for s in spans if s[1] > b],
                0.7,
            )
    return None


def _leftover(param: Param, tool: Tool, words: Words, spans: list[tuple[int, int]]) -> Candidate | None:
    """The longest run of words that no other parameter used and that are not the tool's own words."""
    own = (
        {lemma(w) for w in tool.words}
        | {lemma(n) for n in param.nouns}
        | {lemma(t) for p in tool.params for t in p.nouns}
    )
    generic = {p for group in ("set", "create", "read", "send", "play", "book") for p in VERB_GROUPS[group]}
    runs: list[list[int]] = []
    tokens = words.tokens
    current: list[int] = []
    for i, token in enumerate(tokens):
        low, base = token.low, lemma(token.low)
        taken = any(a < token.end and token.start < b for a, b in spans)
        verbal = i == 0 and base in known_verbs()
        own_word = any(base == o or (len(o) > 4 and related(base, o)) for o in own) or (
            i < 2 and low in generic
        )
        gap = bool(current) and bool(re.search(r"[,;:.]", words.text[tokens[current[-1]].end : token.start]))
        if taken or verbal or own_word or gap:
            if current:
                runs.append(current)
            current = []
            if gap and not (taken or verbal or own_word):
                current = [i]
            continue
        current.append(i)
    if current:
        runs.append(current)
    trimmed = []
    for run in runs:
        while run and tokens[run[0]].low in _EDGE:
            run = run[1:]
        while run and tokens[run[-1]].low in _EDGE | {
            "lovely",
            "nice",
            "great",
            "something",
            "anything",
            "thing",
            "stuff",
        }:
            run = run[:-1]
        if run and not all(
            tokens[i].low
            in ("something", "anything", "some", "stuff", "things", "bit", "someone", "everyone")
            for i in run
        ):
            trimmed.append(run)
    if not trimmed:
        return None
    best = max(trimmed, key=len)
    start, end = tokens[best[0]].start, tokens[best[-1]].end
    return Candidate(words.text[start:end], start, end, 0.55)
