"""Fill a tool's schema from words: which word becomes which argument, what is missing, what does not fit.

Order of trust: the clause itself, then statements of the same message, then what the conversation spoke of last (only
where the words refer to it: "it", "that line", "the same", "and on line 4?"). What none of them says stays empty.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fermata.agents.planner.candidates import candidates
from fermata.agents.planner.freetext import MESSAGES, free_text
from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.names import Name, find_names
from fermata.agents.planner.quantities import find_quantities
from fermata.agents.planner.text import is_identifier, lemma, related
from fermata.agents.planner.tools import Param, Tool, make_tools
from fermata.agents.planner.words_given import Candidate, Words

_PRONOUN: Final = re.compile(
    r"\b(?:it|them|they|its|their|that|this|those|these|there|one|ones|same|again|him|her|his|both)\b",
    re.IGNORECASE,
)
_LONGEST_RANGE: Final = 12
_BOTH: Final = 2


@dataclass(frozen=True, slots=True)
class Memory:
    """What a reference can mean, newest first: arguments of earlier calls, names in results, earlier texts.

    `asked`: the message answers a question, so what the question was about need not be referred to.
    """

    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    texts: tuple[str, ...] = ()
    result_names: tuple[Name, ...] = ()
    asked: bool = False


@dataclass(slots=True)
class Filling:
    """A tool with what words gave it.

    `choices` holds, for a parameter that several coordinated words fill (lines 3 and 4), all of its values; `used` are
    the spans in the clause; `leftover` counts numbers and identifiers of the clause that found no place.
    """

    tool: Tool
    args: dict[str, Any] = field(default_factory=dict)
    missing: list[Param] = field(default_factory=list)
    problems: list[tuple[Param, Candidate]] = field(default_factory=list)
    choices: dict[str, list[Any]] = field(default_factory=dict)
    used: list[tuple[int, int]] = field(default_factory=list)
    leftover: int = 0
    referred: set[str] = field(default_factory=set)
    weak: dict[str, float] = field(default_factory=dict)
    loose: list[tuple[int, int]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    measured: set[str] = field(default_factory=set)
    doubtful: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.missing and not self.problems and not self.doubtful

    @property
    def share(self) -> float:
        """Share of the required parameters that are filled."""
        required = self.tool.required
        if not required:
            return 1.0
        filled = sum(
            self.weak.get(p.name, 1.0) for p in required if p.name in self.args or p.name in self.choices
        )
        return filled / len(required)

    def calls(self) -> list[dict[str, Any]]:
        """One argument set for each combination of coordinated values."""
        if self.rows:
            return [self._ordered({**self.args, **row}) for row in self.rows]
        sets = [dict(self.args)]
        for name, values in self.choices.items():
            sets = [{**s, name: v} for s in sets for v in values]
        return [self._ordered(s) for s in sets]

    def _ordered(self, args: dict[str, Any]) -> dict[str, Any]:
        order = [p.name for p in self.tool.params]
        return {k: args[k] for k in sorted(args, key=order.index)}


def fill(
    tool: Tool, clause: Words, support: Sequence[Words], memory: Memory, meaning: Meaning, excluded: str = ""
) -> Filling:
    """Fill `tool` from `clause`, then from `support` (statements around it), then from `memory` where it is referred to."""
    out = Filling(tool)
    banned = {(_banned(p, excluded, clause, meaning, tool)) for p in tool.params} if excluded else set()
    _assign(out, clause, meaning, banned)
    _parallel(out, clause, meaning)
    _every(out, clause, banned)
    _texts(out, clause, support)
    _support(out, support, meaning, soft=False)
    _associated(out, clause, support)
    _assign(out, clause, meaning, banned, soft=True)
    _support(out, support, meaning, soft=True)
    _refer(out, clause, memory, meaning)
    _dependencies(out)
    for param in tool.required:
        if (
            param.name not in out.args
            and param.name not in out.choices
            and param.name not in {p.name for p, _ in out.problems}
        ):
            if param.has_default:
                continue
            out.missing.append(param)
    out.leftover = _leftover(out, clause)
    return out


def _banned(param: Param, excluded: str, clause: Words, meaning: Meaning, tool: Tool) -> tuple[str, Any]:
    found = candidates(param, Words(excluded, clause.names, clause.today), meaning, tool.params)
    return (param.name, found[0].value if found and found[0].score >= 0.8 else None)


def _assign(
    out: Filling, clause: Words, meaning: Meaning, banned: set[tuple[str, Any]], *, soft: bool = False
) -> None:
    """Give each word to the parameter it fits best, best fits first; `soft`: by meaning, what is still open."""
    pairs: list[tuple[float, int, Param, Candidate]] = []
    found: dict[str, list[Candidate]] = {}
    for index, param in enumerate(out.tool.params):
        if param.kind in ("array", "object", "text"):
            continue
        found[param.name] = [
            c
            for c in candidates(param, clause, meaning, out.tool.params)
            if (param.name, c.value) not in banned
        ]
        for c in found[param.name]:
            floor = 0.0 if param.required else 0.5
            if c.score > floor and c.soft is soft:
                pairs.append((c.score + (0.05 if param.required else 0.0), -index, param, c))
    for param in () if soft else out.tool.params:
        if param.kind == "array":
            _list(out, param, clause, meaning)
        elif param.kind == "object":
            _object(out, param, clause, meaning)
    for _, _, param, c in sorted(pairs, key=lambda p: (-p[0], p[3].start, -p[1])):
        if param.name in out.args or param.name in {p.name for p, _ in out.problems}:
            continue
        if c.start >= 0 and any(a < c.end and c.start < b for a, b in out.used):
            continue
        if c.problem:
            out.problems.append((param, c))
        else:
            out.args[param.name] = c.value
            if param.kind == "number" and c.score >= 0.8 and param.unit is not None:
                out.measured.add(param.name)
            if c.soft or c.score < 0.5 or (param.kind == "name" and c.score <= 0.55):
                out.weak[param.name] = 0.5
        if c.start >= 0:
            out.used.append((c.start, c.end))
        _coordinate(out, param, c, found[param.name], clause)


def _coordinate(out: Filling, param: Param, first: Candidate, found: list[Candidate], clause: Words) -> None:
    """More values of the same parameter, joined to the first by "and" or commas."""
    if not param.identifies or first.start < 0 or param.name not in out.args:
        return
    values, spans = [first], [(first.start, first.end)]
    for c in sorted(found, key=lambda c: c.start):
        if c.value in [v.value for v in values] or c.start < 0 or c.score < first.score - 0.2 or c.problem:
            continue
        if any(a < c.end and c.start < b for a, b in out.used):
            continue
        near = min(spans, key=lambda s: min(abs(c.start - s[1]), abs(s[0] - c.end)))
        gap = clause.text[near[1] : c.start] if c.start >= near[1] else clause.text[c.end : near[0]]
        noun = "|".join(re.escape(n) for n in param.nouns) or "the"
        if re.fullmatch(
            rf"\s*(?:,|and|&|or|as well as|plus|,\s*and|and also|and then)\s*(?:the |of |on |also |in |for )*(?:(?:{noun})s?\s*)?",
            gap,
            re.IGNORECASE,
        ):
            values.append(c)
            spans.append((c.start, c.end))
            out.used.append((c.start, c.end))
        elif (
            len(values) == 1
            and re.fullmatch(r"\s*(?:to|through|up to|-|–)\s*", gap)
            and _alone(out.tool, param)
        ):
            between = _range(first.value, c.value)
            if between:
                out.choices[param.name] = between
                out.used.append((c.start, c.end))
                del out.args[param.name]
                return
    if len(values) > 1:
        values.sort(key=lambda c: c.start)
        out.choices[param.name] = [v.value for v in values]
        del out.args[param.name]


def _alone(tool: Tool, param: Param) -> bool:
    """Whether no other parameter of the tool is of the same kind (as a source and a target are)."""
    return not any(p is not param and set(p.nouns[-1:]) & set(param.nouns[-1:]) for p in tool.params)


def _range(first: Any, last: Any) -> list[Any]:
    """V1 and V3 -> V1, V2, V3; [] if they are not the ends of a short range."""
    one, other = re.fullmatch(r"(\D*)(\d+)", str(first)), re.fullmatch(r"(\D*)(\d+)", str(last))
    if not one or not other or one[1] != other[1] or not 0 < int(other[2]) - int(one[2]) <= _LONGEST_RANGE:
        return []
    numbers = range(int(one[2]), int(other[2]) + 1)
    return list(numbers) if isinstance(first, int) else [f"{one[1]}{n}" for n in numbers]


def _every(out: Filling, clause: Words, banned: set[tuple[str, Any]]) -> None:
    """ "Stop all pumps", "both", "every valve": each listed option or known name of that kind."""
    for param in out.tool.required:
        if param.name in out.args or param.name in out.choices or not param.identifies:
            continue
        nouns = "|".join(re.escape(n) for n in param.nouns)
        said = re.search(
            rf"\b(?:all|every|each|both)\b(?: (?:of|the|our|my|two|three|four|five|six|single))* (?:{nouns})(?:e?s)?\b",
            clause.text,
            re.IGNORECASE,
        )
        if not said:
            continue
        known = list(param.options) or [n.text for n in clause.names if n.is_a(param.nouns)]
        values = [int(v) if param.kind == "number" and str(v).isdigit() else v for v in dict.fromkeys(known)]
        values = [v for v in values if (param.name, v) not in banned and _allowed(param, v)]
        if "both" in said.group().lower() and len(values) != _BOTH:
            continue
        if 0 < len(values) <= _LONGEST_RANGE:
            out.choices[param.name] = values
            out.used.append(said.span())


def _parallel(out: Filling, clause: Words, meaning: Meaning) -> None:
    """Pairs in one clause ("belt 1 for LX7 and belt 3 for LX8"): one row of arguments for each."""
    found: dict[str, list[Candidate]] = {}
    for param in out.tool.required:
        if param.kind not in ("number", "enum", "name"):
            continue
        sure = sorted(
            (
                c
                for c in candidates(param, clause, meaning, out.tool.params)
                if c.score >= 0.6 and not c.soft and not c.problem and c.start >= 0
            ),
            key=lambda c: c.start,
        )
        distinct: list[Candidate] = []
        for c in sure:
            if not any(d.start < c.end and c.start < d.end for d in distinct):
                distinct.append(c)
        if len(distinct) > 1 and len({str(c.value) for c in distinct}) > 1:
            found[param.name] = distinct
    if len(found) < 2 or len({len(v) for v in found.values()}) != 1:
        return
    spans = [(c.start, c.end) for v in found.values() for c in v]
    if any(a[0] < b[1] and b[0] < a[1] for i, a in enumerate(spans) for b in spans[i + 1 :]):
        return
    columns = list(found.values())
    rows = list(zip(*columns, strict=True))
    bounds = [(min(c.start for c in row), max(c.end for c in row)) for row in rows]
    if any(a[1] > b[0] for a, b in itertools.pairwise(bounds)):
        return
    out.rows = [{name: c.value for name, c in zip(found, row, strict=True)} for row in rows]
    for name in found:
        out.choices.pop(name, None)
        out.args[name] = out.rows[0][name]
    out.problems = [p for p in out.problems if p[0].name not in found]
    out.used = sorted({*out.used, *spans})


def _list(out: Filling, param: Param, clause: Words, meaning: Meaning) -> None:
    """Every candidate of the item's kind, in order."""
    item = param.item
    if item.kind == "text":
        return
    found: dict[Any, Candidate] = {}
    for c in candidates(item, clause, meaning, out.tool.params):
        if c.score >= 0.6 and not c.problem and not any(a < c.end and c.start < b for a, b in out.used):
            found.setdefault(c.value if isinstance(c.value, str | int | float) else str(c.value), c)
    if found:
        ordered = sorted(found.values(), key=lambda c: c.start)
        out.args[param.name] = [c.value for c in ordered]
        out.used.extend((c.start, c.end) for c in ordered)


def _object(out: Filling, param: Param, clause: Words, meaning: Meaning) -> None:
    inner = make_tools(
        [
            {
                "name": param.name,
                "description": param.description,
                "parameters": dict(param.schema),
                "effect": "READ",
            }
        ]
    )[0]
    filled = Filling(inner)
    filled.used = out.used
    _assign(filled, clause, meaning, set())
    if filled.args and all(p.name in filled.args for p in inner.required):
        out.args[param.name] = filled.args


def _texts(out: Filling, clause: Words, support: Sequence[Words]) -> None:
    for param in out.tool.params:
        if param.kind == "array" and param.item.kind == "text" and param.required:
            c = free_text(param, out.tool, clause, out.used)
            if c is not None:
                out.args[param.name] = [x.strip() for x in re.split(r",|\band\b", str(c.value)) if x.strip()]
                out.used.append((c.start, c.end))
        if param.kind != "text" or param.name in out.args:
            continue
        c = free_text(param, out.tool, clause, out.used)
        told = next((s.text.strip(" .,!?") for s in support if s.condition), "")
        if (
            c is not None
            and told
            and re.fullmatch(r"(?:about |of )?(?:it|that|this)", str(c.value).strip(), re.IGNORECASE)
        ):
            c = None
        if c is None and param.required and told and set(param.words) & MESSAGES:
            out.args[param.name] = told
            continue
        if c is None and not param.required and set(param.words) & {"reason", "cause"}:
            near = next((s.text for s in support if s.reason and len(s.text) < 120), None)
            if near:
                out.args[param.name] = near
            continue
        if c is not None:
            longest = param.schema.get("maxLength")
            if isinstance(longest, int) and len(str(c.value)) > longest:
                out.problems.append(
                    (param, Candidate(c.value, c.start, c.end, c.score, f"at most {longest} characters"))
                )
                continue
            out.args[param.name] = c.value
            out.used.append((c.start, c.end))
            out.loose.append((c.start, c.end))
            if c.score < 0.6:
                out.weak[param.name] = 0.4


def _associated(out: Filling, clause: Words, support: Sequence[Words]) -> None:
    """What a named thing is noted with: of storefront (web) the namespace is web."""
    for param in out.tool.required:
        if param.name in out.args or param.name in out.choices:
            continue
        for words in (clause, *support):
            for name, _, _ in find_names(words.text, words.names):
                fits = [
                    n
                    for n in name.notes
                    if (
                        n in param.options
                        if param.options
                        else any(o.text == n and o.is_a(param.nouns) for o in words.names)
                    )
                ]
                if fits and param.name not in out.args:
                    out.args[param.name] = fits[0]


def _support(out: Filling, support: Sequence[Words], meaning: Meaning, *, soft: bool) -> None:
    """Fill what the clause left open from statements of the same message."""
    for words in support:
        taken: list[tuple[int, int]] = []
        for param in out.tool.params:
            if (
                param.name in out.args
                or param.name in out.choices
                or param.kind in ("text", "array", "object", "boolean")
            ):
                continue
            if any(p.name == param.name for p, _ in out.problems) or (
                not param.required and param.kind not in ("date", "time", "datetime")
            ):
                continue
            for c in candidates(param, words, meaning, out.tool.params):
                if (
                    c.score < 0.4
                    or c.problem
                    or c.start < 0
                    or any(a < c.end and c.start < b for a, b in taken)
                ):
                    continue
                rivals = {
                    x.value
                    for x in candidates(param, words, meaning, out.tool.params)
                    if x.score >= c.score - 0.05 and not isinstance(x.value, list)
                }
                if len(rivals) > 1 and param.identifies:
                    out.doubtful[param.name] = sorted(rivals, key=str)
                    break
                out.args[param.name] = c.value
                if soft:
                    out.weak[param.name] = 0.5
                taken.append((c.start, c.end))
                break


def _refer(out: Filling, clause: Words, memory: Memory, meaning: Meaning) -> None:
    """Fill what the words refer back to."""
    for param in out.tool.params:
        if (
            param.name in out.args
            or param.name in out.choices
            or param.name in out.doubtful
            or any(p.name == param.name for p, _ in out.problems)
        ):
            continue
        if not param.required or not ((memory.asked and param.identifies) or refers(param, clause.text)):
            continue
        values = remembered(param, memory)
        for text in () if values else memory.texts:
            found = [
                c
                for c in candidates(param, Words(text, clause.names, clause.today), meaning, out.tool.params)
                if c.score >= 0.8 and not c.soft and not c.problem
            ]
            values = list(dict.fromkeys(c.value for c in found if not isinstance(c.value, list)))
            if values:
                break
        if len(values) == 1:
            out.args[param.name] = values[0]
            out.referred.add(param.name)
        elif len(values) > 1:
            out.doubtful[param.name] = values


def refers(param: Param, text: str) -> bool:
    """Whether the words point back to something of the parameter's kind: a pronoun, or "the line", "that pod"."""
    if not (param.identifies or param.kind == "name"):
        return False
    if _PRONOUN.search(text):
        return True
    nouns = "|".join(re.escape(n) for n in param.nouns)
    return bool(
        re.search(rf"\b(?:the|that|this|its|said)\s+(?:\w+\s+)?(?:{nouns})(?:'s)?\b", text, re.IGNORECASE)
    )


def remembered(param: Param, memory: Memory) -> list[Any]:
    """Values that the conversation last gave to such a parameter; several if the newest place names several."""
    for _, args in memory.calls:
        if param.name in args and not isinstance(args[param.name], list):
            return [args[param.name]] if _allowed(param, args[param.name]) else []
    for _, args in memory.calls:
        for key, value in args.items():
            if (
                any(related(lemma(w), n) for w in re.split(r"[_\W]+", key) for n in param.nouns)
                and _allowed(param, value)
                and not isinstance(value, list | dict | bool)
            ):
                return [value]
    named = [n.text for n in memory.result_names if n.is_a(param.nouns) and _allowed(param, n.text)]
    if named:
        return list(dict.fromkeys(named))
    return []


def _allowed(param: Param, value: Any) -> bool:
    if param.options:
        return value in param.options
    pattern = param.schema.get("pattern")
    if isinstance(pattern, str) and not (isinstance(value, str) and re.search(pattern, value)):
        return False
    if param.kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return param.kind != "name" or isinstance(value, str)


def _dependencies(out: Filling) -> None:
    """ "Brightness in percent; only with on": the option that a filled parameter demands of a listed one."""
    for name in list(out.args):
        param = out.tool.param(name)
        m = re.search(
            r"\bonly (?:with|for|if|when)\s+(?:\w+ (?:is|=) )?['\"]?(\w+)",
            param.description if param else "",
            re.IGNORECASE,
        )
        if not m:
            continue
        for other in out.tool.params:
            if other.name != name and other.name not in out.args and m[1] in other.options:
                out.args[other.name] = m[1]


def _leftover(out: Filling, clause: Words) -> int:
    """Numbers with a unit and identifiers of the clause that found no place."""
    count = 0
    for q in find_quantities(clause.text):
        if (q.unit is not None or q.digits) and not any(a < q.end and q.start < b for a, b in out.used):
            if q.unit is None and re.search(
                r"(?:last|next|first|than|above|below|over|under|least|most)\s*$",
                clause.text[: q.start].lower(),
            ):
                continue
            count += 1
    for token in clause.tokens:
        if is_identifier(token.text) and not any(a < token.end and token.start < b for a, b in out.used):
            count += 1
    for name, start, end in find_names(clause.text, clause.names):
        if (
            not any(a < end and start < b for a, b in out.used)
            and not is_identifier(name.text)
            and not name.text.isdigit()
            and len(name.text) > 1
        ):
            count += 1
    return count
