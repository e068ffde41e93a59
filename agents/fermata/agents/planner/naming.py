"""Names as values: known things of a kind, identifiers of a shape, words beside a noun, people."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from fermata.agents.planner.names import find_by_note, find_names
from fermata.agents.planner.text import (
    Token,
    is_identifier,
    known_verbs,
    lemma,
    quoted,
    related,
)
from fermata.agents.planner.times import find_times
from fermata.agents.planner.tools import Param
from fermata.agents.planner.words import (
    DETERMINERS,
    NUMBER_WORDS,
    PREPOSITIONS,
    PRONOUNS,
    STOPWORDS,
)
from fermata.agents.planner.words_given import PEOPLE, Candidate, Words

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


_QUANTIFIERS: Final = frozenset(
    ["more", "another", "only", "just", "extra", "further", "us", "me", "them", "get", "give"]
)
_NOBODY: Final = frozenset(
    {
        *(
            "somebody",
            "someone",
            "anybody",
            "anyone",
            "nobody",
            "everybody",
            "everyone",
            "something",
            "anything",
        ),
        *("somewhere", "whoever", "who", "whom"),
    }
)


def names_fitting(param: Param, words: Words) -> list[Candidate]:
    """Known names of the parameter's kind, identifiers of its shape, words beside its noun, and people.

    "Somebody" names nobody, and the verb that a request begins with names nothing.
    """
    first = next((t for t in words.tokens if t.is_word), None)
    return [
        c
        for c in _fitting(param, words)
        if not (
            isinstance(c.value, str)
            and c.value.lower() in _NOBODY | STOPWORDS | PREPOSITIONS
            and not _in_quotes(c, words)
        )
        and not (
            first is not None
            and (c.start, c.end) == (first.start, first.end)
            and first.text.islower()
            and first.low in known_verbs()
            and first.text not in {n.text for n in words.names}
        )
        and not (
            isinstance(c.value, str)
            and c.value.islower()
            and lemma(c.value) in words.vocabulary
            and c.value not in {n.text for n in words.names}
            and not _in_quotes(c, words)
        )
    ]


def _in_quotes(c: Candidate, words: Words) -> bool:
    return any(start <= c.start < end for _, start, end in quoted(words.text))


def _fitting(param: Param, words: Words) -> list[Candidate]:
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
    for name, start, end in () if out else find_by_note(words.text, words.names):
        if name.is_a(param.nouns) and (shape is None or re.fullmatch(shape, name.text)):
            out.append(_shaped(name.text, param, start, end, 0.9))
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
                    ordinary = any(
                        t.low in STOPWORDS or t.low in _QUANTIFIERS for t in tokens[i : i + width]
                    ) or (i == 0 and tokens[0].text.islower() and tokens[0].low in known_verbs())
                    figure = any(ch.isdigit() for ch in joined)
                    if width > 1 and figure and not ordinary and re.fullmatch(shape, joined):
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
        ) and not find_times(bare.text, words.today):
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
