"""How well a tool fits what was said: meaning, verbs and their opposites, nouns, and whether the words fill it.

A weighted sum of a few pieces of evidence, each of which can be read and argued with. Refused: similarity alone, for
which start and stop are the same, and a trained classifier, which knows only the tools it has seen.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fermata.agents.planner.filling import Filling, Memory, fill
from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.names import Name, find_names
from fermata.agents.planner.naming import shape_of
from fermata.agents.planner.settings import DEFAULT, Settings
from fermata.agents.planner.text import (
    content_lemmas,
    is_identifier,
    known_verbs,
    lemma,
    related,
    split_name,
    tokenize,
)
from fermata.agents.planner.tools import Tool
from fermata.agents.planner.words import OPPOSITES, REVERSING_PREFIXES, VERB_GROUPS
from fermata.agents.planner.words_given import Words

_PARTICLES: Final = frozenset(
    {"up", "down", "off", "on", "out", "back", "over", "in", "aside", "away", "again", "round", "around"}
)
_OPPOSED: Final = frozenset(OPPOSITES) | frozenset((b, a) for a, b in OPPOSITES)
#: "tell Rosa that …": what is dictated says nothing about the tool.
_DICTATED: Final = re.compile(
    r"^(?P<head>.*?\b(?:tell|notify|inform|message|remind|warn|write|let|alert|text|e?-?mail|post|announce|send|ping|drop|radio|page|call|note)\b.{0,40}?)(?:\bthat\b|\bsaying\b|:)\s",
    re.IGNORECASE,
)
_ENDING_STATE: Final = re.compile(r"(?:^|[\s:])(on|off)(?: please| now| again)?\W*$", re.IGNORECASE)
_PRONOUN: Final = re.compile(r"\b(?:it|them|that|this)\b", re.IGNORECASE)
_IDIOMS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), group)
    for pattern, group in (
        (r"\bdrop\b.{1,25}\ba (?:line|note|message|mail|text)\b", "send"),
        (r"\bgive\b.{1,30}\ba (?:kick|bounce|restart|reboot|fresh start)\b", "restart"),
        (r"\bgive\b.{1,25}\ba (?:call|ring|shout|heads[- ]up|ping|buzz|message)\b", "send"),
        (r"\bput\b.{1,30}\b(?:aside|by|away)\b", "reserve"),
        (
            r"\btake\b.{1,30}\boff the (?:books?|list|menu|programme|program|schedule|calendar|roster|board)\b",
            "withdraw",
        ),
        (
            r"\b(?:put|get|add|note)\b.{1,40}\b(?:on|onto|to|into|in|for) (?:the|my|our|a|\w+'s) (?:\w+ )?(?:list|programme|program|schedule|calendar|agenda|diary|roster|books?)\b",
            "create",
        ),
        (r"\blet\b.{1,30}\bknow\b", "send"),
        (
            r"\b(?:put|bring|get|take)\b.{1,30}\b(?:back )?(?:in|into|to) (?:service|operation|rotation|use)\b",
            "start",
        ),
        (r"\b(?:take|pull|get)\b.{1,30}\bout of (?:service|operation|rotation|use)\b", "stop"),
        (r"\bcall\b.{1,30}\boff\b", "cancel"),
        (r"\b(?:another|one more|a second) (?:go|try|run|shot|chance|spin)\b", "restart"),
        (r"\b(?:bring|get|put|take)\b.{1,40}\bback (?:up|on|online)\b", "start"),
        (r"\b(?:bring|get|put|take)\b.{1,40}\bback (?:up|on|online)\b", "enable"),
        (r"\bget\b.{1,30}\b(?:working|running|going) again\b", "start"),
        (r"\bgo back to\b", "restore"),
        (
            r"^(?:run|keep|hold|have|put|take|bring|get|turn|drive|limit|cap)\b.{1,40}\b(?:at|to|with|on) (?:about |exactly )?(?:-?\d|(?:a|half|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|minus)\b(?!-? ?(?:third|second)))",
            "set",
        ),
        (r"\b(?:get|call|bring|fetch)\b.{1,30}\b(?:up|over|down)? ?here\b", "send"),
        (r"\b(?:have|take) (?:a|another) (?:quick |closer )?look\b|\bkeep an eye\b", "read"),
        (r"\b(?:put|bring|go|take|set|switch)\b.{1,40}\bback\b", "restore"),
        (r"\b(?:make|get) (?:it|them|the \w+) (?:going|running|moving)\b", "start"),
        (r"\b(?:bring|take|get)\b.{1,30}\bdown\b", "lower"),
        (r"\b(?:bring|take|get|turn)\b.{1,30}\bup to\b", "raise"),
        (r"\bmake\b.{1,30}\b(?:warmer|hotter|brighter|louder|faster|higher|bigger|longer)\b", "raise"),
        (r"\bmake\b.{1,30}\b(?:cooler|colder|darker|dimmer|quieter|slower|lower|smaller|shorter)\b", "lower"),
        (r"\bput\b.{1,30}\bon hold\b", "pause"),
        (r"\bput\b.{1,30}\bout\b", "stop"),
    )
)
_WEAK: Final = frozenset(
    {
        "make",
        "give",
        "get",
        "have",
        "put",
        "take",
        "bring",
        "let",
        "go",
        "do",
        "need",
        "want",
        "come",
        "be",
        "set",
        "keep",
        "use",
    }
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A filled tool with the evidence for it and the weighted sum."""

    filling: Filling
    features: dict[str, float]
    score: float

    @property
    def tool(self) -> Tool:
        return self.filling.tool


def rank(
    tools: Sequence[Tool], clause: Words, support: Sequence[Words], memory: Memory, meaning: Meaning,
    *, asks: bool = False, excluded: str = "", settings: Settings = DEFAULT,
) -> list[Evidence]:  # fmt: skip
    """Every tool with its evidence for `clause`, best first."""
    if not tools:
        return []
    whole = " ".join([*(s.text for s in support), clause.text])
    thing = _thing_spoken_of(clause.text, memory, tools)
    masked, masked_whole = mask(clause, tools), mask(Words(whole, clause.names, clause.today), tools)
    if thing:
        masked = _PRONOUN.sub(f"the {thing}", masked, count=1)
    near = meaning.similarity(masked, [t.text for t in tools])
    title = meaning.similarity(masked, [t.title for t in tools])
    wide = meaning.similarity(masked_whole, [t.text for t in tools]) if support else near
    weights = noun_weights(tuple(tools))
    groups, verb = verb_groups(clause.text)
    out = []
    for tool, a, b, c in zip(tools, near, title, wide, strict=True):
        filling = fill(tool, clause, support, memory, meaning, excluded)
        shared = _verbs(tool, groups, verb)
        features = {
            "meaning": 0.75 * a + 0.25 * b,
            "context": c,
            **shared,
            "nouns": _noun_share(
                tool, clause, weights, filling, meaning, verb if shared["verb"] >= 0.5 else ""
            ),
            "coverage": _coverage(tool, clause),
            "fill": filling.share - (0.25 if any(x for x in filling.problems) else 0.0),
            "missing": float(min(3, len(filling.missing))),
            "unused": float(min(3, filling.leftover)),
            "reading": _reading(tool, groups, verb, asks),
            "typed": _typed(filling),
        }
        out.append(Evidence(filling, features, sum(settings.weights[k] * v for k, v in features.items())))
    return sorted(out, key=lambda e: -e.score)


def _thing_spoken_of(text: str, memory: Memory, tools: Sequence[Tool]) -> str:
    """What "it" stands for, as a kind: the thing that the last call was about; "" if the text has no pronoun."""
    if not memory.calls or not _PRONOUN.search(text):
        return ""
    name, args = memory.calls[0]
    tool = next((t for t in tools if t.name == name), None)
    known = (p for p in tool.params if p.identifies and p.name in args) if tool else iter(())
    return next((" ".join(p.nouns) for p in known if p.kind != "enum" or p.required), "")


def mask(words: Words, tools: Sequence[Tool]) -> str:
    """The text with names put as their kind (EV-31 -> event), so that meaning is compared and not spelling."""
    replaced: list[tuple[int, int, str]] = []
    for name, start, end in find_names(words.text, words.names):
        if not any(a < end and start < b for a, b, _ in replaced) and not name.text.isdigit():
            replaced.append(
                (start, end, name.kind[-1] if is_identifier(name.text) else f"{name.text} {name.kind[-1]}")
            )
    for tool in tools:
        for param in tool.params:
            shape = shape_of(param) if param.kind == "name" else None
            if shape is None:
                continue
            for m in re.finditer(rf"(?<![\w-])(?:{shape})(?![\w-])", words.text):
                if not any(a < m.end() and m.start() < b for a, b, _ in replaced):
                    replaced.append((m.start(), m.end(), " ".join(param.nouns)))
    text = words.text
    dictated = _DICTATED.match(text)
    if dictated:
        text = text[: dictated.end("head")]
        replaced = [r for r in replaced if r[1] <= len(text)]
    for start, end, kind in sorted(replaced, reverse=True):
        text = text[:start] + kind + text[end:]
    return text


@lru_cache(maxsize=2048)
def verb_groups(text: str) -> tuple[frozenset[str], str]:
    """(groups of the leading verb with its particle, the verb) of a clause."""
    idioms = frozenset(group for pattern, group in _IDIOMS if pattern.search(text))
    groups, verb = _leading_groups(text)
    if not verb and not idioms:
        state = _ENDING_STATE.search(text)
        if state:
            return (
                _groups_of("turn on") if state[1].lower() == "on" else _groups_of("turn off")
            ), f"turn {state[1].lower()}"
    if groups & {"raise", "lower"}:
        groups = groups | {"set"}
    if not idioms:
        return groups, verb
    return (idioms, min(idioms)) if verb in _WEAK or not verb else (idioms | groups, verb)


_MODAL: Final = re.compile(
    r"^(?:(?!\b(?:that|who|which|to)\b).){2,60}?\b(?:(?:has|have|needs?|ought|is|are) to|must|should|can|may)\s+(?:be\s+|now\s+|get\s+)?(?=[a-z]+)",
    re.IGNORECASE,
)


def _leading_groups(text: str) -> tuple[frozenset[str], str]:
    modal = _MODAL.match(text)
    if modal and any(lemma(t.low) in known_verbs() for t in tokenize(text[modal.end() :])[:1]):
        text = text[modal.end() :]
    tokens = [t for t in tokenize(text) if t.is_word]
    for i, token in enumerate(tokens[:4]):
        base = lemma(token.low)
        if base not in known_verbs() and i == 0 and len(tokens) > 1:
            continue
        if base not in known_verbs():
            continue
        following = [t.low for t in tokens[i + 1 : i + 9]]
        if base in ("tell", "show", "send", "give", "let", "inform", "report", "text", "mail", "message"):
            told = following[:1] and following[0] in ("me", "us")
            if base in ("tell", "let", "inform", "show") or told:
                known = base != "let" or "know" in following[:5]
                if known:
                    return frozenset({"read"} if told or base == "show" else {"send"}), base
        if (
            base == "get"
            and "to" in following[1:5]
            and not any(lemma(w) in known_verbs() for w in following[following.index("to") + 1 :][:1])
        ):
            return frozenset(), base
        if (
            base == "get"
            and following[:1]
            and following[0] in ("it", "them", "him", "her")
            and set(following[1:4])
            & {"on", "to", "into", "off", "out", "onto", "back", "up", "down", "ready", "done"}
        ):
            return frozenset(), base
        if base in ("let", "have", "get", "make"):
            inner = next(
                (
                    lemma(w)
                    for w in following[1:]
                    if lemma(w) in known_verbs() and lemma(w) not in _WEAK and w not in _PARTICLES
                ),
                "",
            )
            moving = next((w for w in following if w in ("going", "running", "moving", "rolling")), "")
            if moving:
                return _groups_of("start") | _groups_of("resume"), "start"
            if inner and (base in ("let", "have", "make") or "to" in following):
                return _groups_of(inner) | _groups_of(base), inner
        for width in (3, 2, 1):
            phrase = " ".join([base, *following[:width]])
            found = _groups_of(phrase)
            if found:
                return found, phrase if width > 1 or base in _WEAK else base
        for particle in following:
            if particle in _PARTICLES:
                found = _groups_of(f"{base} {particle}")
                if found:
                    return found, base
        return _groups_of(base), base
    return frozenset(), ""


@lru_cache(maxsize=4096)
def _groups_of(phrase: str) -> frozenset[str]:
    return frozenset(group for group, members in VERB_GROUPS.items() if phrase in members)


@lru_cache(maxsize=1024)
def tool_verbs(
    tool_name: str, description: str
) -> tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[str]]:
    """(verbs of the name and first of the description, their groups, other verbs of the description, their groups)."""
    words = split_name(tool_name)
    main: set[str] = set()
    for i, word in enumerate(words):
        base = lemma(word)
        if (
            base in known_verbs()
            and (i == 0 or base == word)
            and (i == 0 or len(words) <= 2 or word not in ("order", "state", "status", "group"))
        ):
            main.add(" ".join(words[i : i + 2]) if _groups_of(" ".join(words[i : i + 2])) else base)
            if i == 0:
                break
    tokens = [t.low for t in tokenize(description.split(".")[0]) if t.is_word]
    other: set[str] = set()
    named = any(v not in _WEAK for v in main)
    for i, low in enumerate(tokens[:24]):
        base = lemma(low)
        if base not in known_verbs():
            continue
        phrases = [
            f"{base} {p}" for p in tokens[i + 1 : i + 7] if p in _PARTICLES and _groups_of(f"{base} {p}")
        ]
        target = main if i == 0 and not named else other
        if i == 0 or (
            (tokens[i - 1] in ("or", "and", "to", ",", "then") or low == base)
            and tokens[i - 1] not in ("the", "a", "an", "of", "its", "their")
        ):
            target.update(phrases or [base])
    groups = frozenset(g for v in main for g in _groups_of(v))
    return frozenset(main), groups, frozenset(other), frozenset(g for v in other for g in _groups_of(v))


@lru_cache(maxsize=1024)
def _option_groups(tool: Tool) -> frozenset[str]:
    """Verb groups that a tool's options stand for: a mode that can be "on" or "off" starts and stops."""
    states = {
        "on": "start",
        "off": "stop",
        "up": "raise",
        "down": "lower",
        "enabled": "enable",
        "disabled": "disable",
        "closed": "close",
        "locked": "lock",
    }
    words = [w for p in tool.params for v in p.options for w in split_name(str(v))]
    out = {g for w in words for g in (_groups_of(lemma(w)) | ({states[w]} if w in states else set()))}
    return frozenset(
        out
        | (
            {"enable", "disable", "open", "close"}
            if any(p.kind == "boolean" and p.required for p in tool.params)
            else set()
        )
    )


def _verbs(tool: Tool, groups: frozenset[str], verb: str) -> dict[str, float]:
    main, main_groups, other, other_groups = tool_verbs(tool.name, tool.description)
    other_groups = other_groups | _option_groups(tool)
    agree = 0.0
    if verb and any(verb == v.split()[0] and (verb not in _WEAK) for v in main):
        agree = 1.0
    elif groups & main_groups:
        agree = 0.8 if verb not in _WEAK else 0.3
    elif verb and any(verb == v.split()[0] for v in other) and verb not in _WEAK:
        agree = 0.7
    elif groups & other_groups:
        agree = 0.5 if verb not in _WEAK else 0.25
    opposed = 0.0
    if (
        agree < 1.0
        and not groups & (main_groups | other_groups)
        and any((a, b) in _OPPOSED for a in groups for b in main_groups)
    ):
        opposed = 1.0
    for prefix in REVERSING_PREFIXES:
        if (
            verb
            and any(v.split()[0] in (prefix + verb,) or prefix + v.split()[0] == verb for v in main)
            and not any(verb == v.split()[0] for v in main | other)
        ):
            opposed, agree = 1.0, 0.0
    return {"verb": agree, "opposite": opposed}


def are_opposites(one: Tool, other: Tool) -> bool:
    """Whether two tools undo each other, by their verbs (block and unblock, start and stop)."""
    a, a_groups, _, _ = tool_verbs(one.name, one.description)
    b, b_groups, _, _ = tool_verbs(other.name, other.description)
    for prefix in REVERSING_PREFIXES:
        if any(x == prefix + y or y == prefix + x for x in a for y in b):
            return True
    same_nouns = [lemma(w) for w in one.words[1:]] == [lemma(w) for w in other.words[1:]]
    return same_nouns and any((x, y) in _OPPOSED for x in a_groups for y in b_groups)


def verb_fits(tool: Tool, text: str) -> bool:
    """Whether the request's own verb, if it has a telling one, is among the tool's."""
    groups, verb = verb_groups(text)
    return not verb or verb in _WEAK or _verbs(tool, groups, verb)["verb"] > 0


@lru_cache(maxsize=64)
def noun_weights(tools: tuple[Tool, ...]) -> dict[str, float]:
    """How much a word tells tools apart: rare words weigh more."""
    counts: dict[str, int] = {}
    for tool in tools:
        for word in set(tool_words(tool)):
            counts[word] = counts.get(word, 0) + 1
    return {w: math.log(1 + len(tools) / n) for w, n in counts.items()}


def vocabulary(tools: Sequence[Tool], names: Sequence[Name]) -> frozenset[str]:
    """Base forms of words that already mean something here: nouns of tool names, listed options, known names."""
    out = {lemma(w) for t in tools for i, w in enumerate(t.words) if i or lemma(w) not in known_verbs()}
    out |= {lemma(w) for t in tools for p in t.params for v in p.options for w in split_name(str(v))}
    return frozenset(out | {lemma(w) for n in names for w in split_name(n.text)})


@lru_cache(maxsize=1024)
def tool_words(tool: Tool) -> tuple[str, ...]:
    """Base forms of the words that speak of a tool: name, description, parameters and listed options."""
    out = [lemma(w) for w in tool.words]
    out += content_lemmas(tool.description)
    for param in tool.params:
        out += [lemma(w) for w in param.words]
        out += param.description_nouns
        for value in param.options:
            out += [lemma(w) for w in split_name(str(value))]
    return tuple(dict.fromkeys(out))


def _noun_share(
    tool: Tool, clause: Words, weights: dict[str, float], filling: Filling, meaning: Meaning, known: str
) -> float:
    """Share of the clause's weighty words that the tool speaks of, by root or by meaning.

    Words that became arguments count as spoken of; free text and a verb that is known to fit do not count at all.
    """
    have, total, hit = tool_words(tool), 0.0, 0.0
    unknown = max(weights.values(), default=1.0)
    for token in clause.tokens:
        lemmas = content_lemmas(token.low.removesuffix("'s"))
        if lemmas and lemmas[0] == known:
            continue
        if not lemmas or any(a <= token.start < b for a, b in filling.loose):
            continue
        base = lemmas[0]
        weight = weights.get(base) or next((v for w, v in weights.items() if related(w, base)), unknown)
        if base in _WEAK:
            weight *= 0.2
        total += weight
        if any(a <= token.start < b for a, b in filling.used) or any(
            w == base or related(w, base) for w in have
        ):
            hit += weight
        elif have:
            near = max(meaning.similarity(base, have))
            hit += weight * min(1.0, max(0.0, (near - 0.3) / 0.4))
    return hit / total if total else 0.5


def _coverage(tool: Tool, clause: Words) -> float:
    """Share of the nouns in the tool's name that the clause speaks of, itself or by a name of that kind."""
    nouns = [lemma(w) for i, w in enumerate(tool.words) if not (i == 0 and lemma(w) in known_verbs())]
    if not nouns:
        return 0.5
    said = set(content_lemmas(clause.text))
    for name, _, _ in find_names(clause.text, clause.names):
        said.update(name.kind)
    return sum(any(related(n, s) for s in said) for n in nouns) / len(nouns)


def _typed(filling: Filling) -> float:
    """How many words found a place of their own by their form: numbers, days, listed options, known names (up to 4)."""
    loose = {p.name for p in filling.tool.params if p.kind in ("text", "boolean")}
    sure = [
        n
        for n in (*filling.args, *filling.choices)
        if n not in loose and n not in filling.weak and n not in filling.referred
    ]
    units = sum(
        1 for p in filling.tool.params if p.name in sure and p.kind == "number" and p.name in filling.measured
    )
    return min(4.0, float(len(sure) + units)) / 4


def is_foreign(evidence: Evidence, text: str) -> bool:
    """Whether the request has a telling verb of its own that the tool's words do not share."""
    groups, verb = verb_groups(text)
    return bool(verb) and verb not in _WEAK and evidence.features["verb"] == 0.0 and "read" not in groups


def _reading(tool: Tool, groups: frozenset[str], verb: str, asks: bool) -> float:
    reads = asks or (
        "read" in groups
        and not (
            groups - {"read", "raise", "test", "assign", "refund", "send"} and verb in ("report", "count")
        )
    )
    if reads:
        return 1.0 if tool.reads else -1.0
    return -0.6 if tool.reads and groups and "read" not in groups else 0.0
