"""Short messages that lean on what went before: "and on line 4?", "the same for ledger", "undo that", "the latter"."""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from fermata.agents.planner.candidates import candidates
from fermata.agents.planner.filling import Filling
from fermata.agents.planner.intent import Intent, Reading
from fermata.agents.planner.ranking import (
    Evidence,
    are_opposites,
    verb_fits,
)
from fermata.agents.planner.resolved import CERTAIN
from fermata.agents.planner.text import content_lemmas

if TYPE_CHECKING:
    from fermata.agents.planner.plan import Planner

_UNDO: Final = re.compile(
    r"\b(?:undo|reverse|revert|take back)\b(?: (?:it|that|this|the last \w+))?\s*$|\btake (?:it|that) back\b",
    re.IGNORECASE,
)


def elliptic(
    planner: Planner, reading: Reading, planned: Sequence[tuple[str, dict[str, Any]]]
) -> Evidence | None:
    """ "And on line 4?", "the same for ledger", "make it 5 instead": the earlier call with what is new, or None."""
    text = reading.clause.text.strip()
    low = text.lower()
    continues = bool(
        re.match(
            r"^(?:(?:ok|okay|hm|and|also|then|now|so|no|but|too \w+)\b[\s,.]*)*(?:and|what about|how about|same|the same|do the same|likewise|make (?:it|that)|instead|rather|also|no,)\b",
            low,
        )
        or re.search(
            r"\b(?:as well|too|instead|the same|likewise)\s*$|\bthe same (?:for|to|with|on|in)\b|\binstead\b",
            low,
        )
    )
    bare = reading.intent is Intent.FRAGMENT and len(text.split()) <= 5
    question = (
        reading.intent is Intent.QUESTION
        and len(text.split()) <= 5
        and bool(re.match(r"^(?:and|what about|how about)\b", low))
    )
    undo = bool(_UNDO.search(low))
    if not (continues or bare or question or undo):
        return None
    earlier = [*reversed(planned)] or [
        (c.name, dict(c.args))
        for turn in reversed(planner.conversation.turns[:-1])
        for c in reversed(turn.calls)
    ]
    if not earlier:
        return None
    tool = planner.tool(earlier[0][0])
    if tool is None:
        return None
    reverse = undone(planner, low, earlier)
    if reverse is not None:
        return reverse
    if reading.intent is Intent.REQUEST and not verb_fits(tool, reading.body):
        return None
    body = (
        re.sub(
            r"^\W*(?:too \w+\W+)?(?:and|what about|how about|do the same(?: for| to| with| on)?|the same(?: for)?|also|make (?:it|that))\b",
            "",
            text,
            flags=re.IGNORECASE,
        ).strip()
        or text
    )
    clause = planner.words(body)
    filling = Filling(tool, args=dict(earlier[0][1]))
    changed = False
    used: list[tuple[int, int]] = []
    for param in sorted(tool.params, key=lambda p: not p.required):
        found = [
            c
            for c in candidates(param, clause, planner.meaning, tool.params)
            if c.score >= (0.45 if param.required else 0.5)
        ]
        found = [c for c in found if not any(a < c.end and c.start < b for a, b in used)]
        if found and found[0].start >= 0:
            used.append((found[0].start, found[0].end))
            if found[0].problem:
                filling.problems.append((param, found[0]))
            filling.args[param.name] = found[0].value
            changed = changed or earlier[0][1].get(param.name) != found[0].value
    if not changed:
        return None
    rest = [w for w in content_lemmas(body) if not any(w in content_lemmas(body[a:b]) for a, b in used)]
    if bare and not continues and (len(rest) > 1 or (not tool.reads and rest)):
        return None
    filling.used = used
    return Evidence(filling, {"verb": 1.0, "meaning": 1.0, "opposite": 0.0}, CERTAIN)


def undone(planner: Planner, low: str, earlier: Sequence[tuple[str, dict[str, Any]]]) -> Evidence | None:
    """ "Undo that": the tool that does the opposite of the last action, with the same arguments."""
    if not _UNDO.search(low):
        return None
    for name, args in earlier:
        done = planner.tool(name)
        if done is None or done.reads:
            continue
        fits = [
            t
            for t in planner.tools
            if not t.reads and all(p.name in args for p in t.required) and are_opposites(done, t)
        ]
        if len(fits) != 1:
            return None
        known = {p.name for p in fits[0].params}
        filling = Filling(fits[0], args={k: v for k, v in args.items() if k in known})
        return Evidence(filling, {"verb": 1.0, "meaning": 1.0, "opposite": 0.0}, CERTAIN)
    return None


def chosen(planner: Planner, text: str) -> str:
    """The offer that "the latter" or "the first one" picks out of the last question, else `text` itself."""
    m = re.fullmatch(
        r"\W*(?:the |take the |let's do the )?(latter|former|first|second|last)(?: one| option)?(?: please)?\W*",
        text,
        re.IGNORECASE,
    )
    if not m or not planner.asked:
        return text
    question = re.sub(r"^.*\bwhich\b[^:,]*[:,]", "", planner.conversation.turns[-2].said, flags=re.IGNORECASE)
    offers = re.split(r",\s*(?:or\b)?|\bor\b", question.rstrip(" ?"))
    if len(offers) < 2:
        return text
    offer = (
        offers[0]
        if m[1].lower() in ("former", "first")
        else offers[1]
        if m[1].lower() == "second"
        else offers[-1]
    )
    return (
        re.sub(
            r"^.*?\b(?:do you want me to|should i|shall i|would you like me to|do you mean:?|mean:?|want:?)\b",
            "",
            offer,
            flags=re.IGNORECASE,
        ).strip(" ,:")
        or text
    )
