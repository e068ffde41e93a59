"""Runbooks in passages: which one fits, and its numbered steps as text.

Only a passage that came by a system message and is marked as a runbook (kind="runbook", or its source or heading says
so) and has numbered steps is ever followed; numbered text elsewhere is only text.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fermata.agents.planner.conversation import Passage
from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.text import content_lemmas, related

_NUMBERED: Final = re.compile(r"^\s*(?:step\s+)?(\d{1,2})\s*[.):]\s+(?=\S)", re.IGNORECASE | re.MULTILINE)
_MARKS: Final = re.compile(
    r"\b(?:run[- ]?books?|play[- ]?books?|procedures?|routines?|sops?|checklists?|protocols?|workflows?|drills?|emergency|how[- ]?tos?|instructions?|guides?|recipes?)\b",
    re.IGNORECASE,
)
_STEPS_HEADING: Final = re.compile(
    r"\b(?:steps|what to do|procedure|routine|checklist|instructions|actions|response|remedy|measures|how to|handling|recovery|mitigation|course of action|protocol)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Runbook:
    """A runbook: its passage, the text before its steps, and the steps by number."""

    passage: Passage
    preamble: str
    steps: tuple[tuple[int, str], ...]

    @property
    def title(self) -> str:
        return self.passage.heading.split(">")[0].strip() or self.passage.source


def read_runbook(passage: Passage) -> Runbook | None:
    """The runbook that a passage is, or None."""
    if not passage.trusted:
        return None
    source = re.sub(r"[/_.-]", " ", passage.source)
    marked = (
        passage.kind.lower() == "runbook"
        or _MARKS.search(source)
        or _MARKS.search(passage.heading)
        or _STEPS_HEADING.search(passage.heading)
    )
    if not marked:
        return None
    marks = list(_NUMBERED.finditer(passage.text))
    if len(marks) < 2 or int(marks[0][1]) > 1:
        return None
    steps: list[tuple[int, str]] = []
    for m, following in zip(marks, [*marks[1:], None], strict=True):
        body = passage.text[m.end() : following.start() if following else len(passage.text)]
        text = re.sub(r"\s*\n\s*(?:[-*]\s+)?", " ", body.strip())
        if steps and int(m[1]) <= steps[-1][0]:
            return None
        steps.append((int(m[1]), text))
    return Runbook(passage, passage.text[: marks[0].start()].strip(), tuple(steps))


def find_runbooks(passages: Sequence[Passage]) -> list[Runbook]:
    """Every runbook among the passages."""
    return [r for r in (read_runbook(p) for p in passages) if r is not None]


def fitting(situation: str, runbooks: Sequence[Runbook], meaning: Meaning) -> list[tuple[float, Runbook]]:
    """Runbooks with how well they fit `situation`, best first."""
    titles = [
        f"{r.passage.heading.replace('>', ' ')} {re.sub(r'[/_.-]', ' ', r.passage.source.rsplit('/', 1)[-1].removesuffix('.md'))} {r.preamble[:200]}"
        for r in runbooks
    ]
    sims = meaning.similarity(situation, titles)
    bodies = meaning.similarity(
        situation, [f"{r.title}. {r.preamble} " + " ".join(t for _, t in r.steps) for r in runbooks]
    )
    said = set(content_lemmas(situation))
    out = []
    for runbook, title, a, b in zip(runbooks, titles, sims, bodies, strict=True):
        words = set(content_lemmas(title)) - {"step", "runbook", "md", "procedure"}
        shared = sum(any(related(w, s) for s in said) for w in words) / len(words) if words else 0.0
        out.append((0.6 * a + 0.25 * b + 0.3 * shared, runbook))
    return sorted(out, key=lambda x: -x[0])
