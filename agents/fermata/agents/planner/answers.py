"""Answer a question with sentences taken from passages, cited; nothing is reworded.

Passages are data. A sentence that speaks to an assistant or orders something is not quoted as an answer unless the
question's own words are in it.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fermata.agents.planner.conversation import Passage
from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.settings import DEFAULT, Settings
from fermata.agents.planner.text import content_lemmas, related, sentences

_ADDRESSED: Final = re.compile(
    r"\b(?:assistant|AI|bots?|agents?|language model|LLM|system note|system prompt|ignore (?:all|any|the|your|earlier|previous)|when you read this|note for)\b",
    re.IGNORECASE,
)
_FRAME: Final = re.compile(r"\s*(?:#|\|[\s:|-]*\|?\s*$)")
"""Headings and the lines that rule tables: they frame what is said, and say nothing."""
_SECOND_SHARE: Final = 0.86
_MAX_SENTENCES: Final = 3


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of a passage with how well it answers."""

    passage: Passage
    text: str
    score: float


def quotes(question: str, passages: Sequence[Passage], meaning: Meaning) -> list[Quote]:
    """Sentences of the passages, those that answer best first."""
    items: list[tuple[Passage, str]] = []
    for passage in passages:
        for start, end in sentences(passage.text):
            if _FRAME.match(passage.text[start:end]):
                continue
            sentence = re.sub(r"^\s*(?:[-*#]+|\d+[.)])\s*", "", passage.text[start:end]).strip()
            if len(sentence) > 3 and not _ADDRESSED.search(sentence):
                items.append((passage, sentence))
    if not items:
        return []
    direct = meaning.similarity(question, [s for _, s in items])
    framed = meaning.similarity(question, [f"{p.heading.split('>')[-1].strip()}: {s}" for p, s in items])
    asked = set(content_lemmas(question))
    out = []
    for (passage, sentence), a, b in zip(items, direct, framed, strict=True):
        said = content_lemmas(sentence + " " + passage.heading + " " + re.sub(r"[/_.-]", " ", passage.source))
        words = tuple(dict.fromkeys(said))
        shared = sum(_said(w, words, meaning) for w in asked) / len(asked) if asked else 0.0
        figure = (
            0.06
            if re.match(
                r"^(?:how (?:much|many|often|long|fast|soon|heavy|hot|far|old|high|low|big)|when|what (?:temperature|time|price|speed)|from which|up to)",
                question,
                re.IGNORECASE,
            )
            and re.search(
                r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|third|second|daily|weekly|monthly|hours?|minutes?|days?)\b",
                sentence,
            )
            else 0.0
        )
        out.append(Quote(passage, sentence, 0.55 * max(a, b) + 0.1 * min(a, b) + 0.35 * shared + figure))
    return sorted(out, key=lambda q: -q.score)


def _said(word: str, words: tuple[str, ...], meaning: Meaning) -> float:
    """How far a word of the question occurs among `words`: 1 by root, less by meaning."""
    if any(related(word, w) for w in words):
        return 1.0
    return min(1.0, max(0.0, (max(meaning.similarity(word, words), default=0.0) - 0.3) / 0.4))


def answer(
    question: str, passages: Sequence[Passage], meaning: Meaning, settings: Settings = DEFAULT
) -> tuple[str, float]:
    """(an answer in cited sentences, its score); "" if nothing in the passages is relevant."""
    found = quotes(question, passages, meaning)
    if not found or found[0].score < settings.answer_floor:
        return "", found[0].score if found else 0.0
    best = [q for q in found if q.score >= found[0].score * _SECOND_SHARE][:_MAX_SENTENCES]
    return " ".join(f"{_ended(q.text)} [{q.passage.id}]" for q in best), found[0].score


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else sentence + "."
