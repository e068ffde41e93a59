"""From spans to arguments: the words that express a parameter, read by the reader of its kind.

The model says *which* words; what they are worth (a number in the parameter's unit, a day, a known name) is decided by
the same rules as everywhere in the planner. Nothing is invented: what those can't read stays missing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from fermata.agents.planner.candidates import candidates
from fermata.agents.planner.figures import bounded, numeric
from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.names import Name
from fermata.agents.planner.quantities import find_quantities
from fermata.agents.planner.reader.pairs import EncodedText, options_of
from fermata.agents.planner.reader.sites import Site, Span, ToolReading, find_spans, of_site
from fermata.agents.planner.text import content_lemmas, lemma
from fermata.agents.planner.times import find_times
from fermata.agents.planner.tools import Param
from fermata.agents.planner.units import convert, unit_named
from fermata.agents.planner.words import PRONOUNS
from fermata.agents.planner.words_given import Candidate, Words

_GIVEN: Final = 0.5
_FAINT: Final = 0.3
_MIN_CANDIDATE: Final = 0.2
_NAMED: Final = 0.8
_REFERRED: Final = frozenset({"name", "number", "email"})
"""Kinds of parameters that can be what "it" means."""
_IDENTIFIER: Final = re.compile(r"(?<![\w-])[A-Za-z]\w*-[\w-]*\d[\w-]*")
"""The 15 of O-15 is no number."""
_ARTICLE: Final = re.compile(r"^(?:the|a|an|our|my|your|this|that)\s+", re.IGNORECASE)


@dataclass(slots=True)
class Arguments:
    """What a site gives a tool: values, the words used in the message, values that do not fit the schema, which of the
    values stand in other words than the site's, and for what is referred to what else of its kind was spoken of there.
    """

    values: dict[str, Any] = field(default_factory=dict)
    used: list[tuple[int, int]] = field(default_factory=list)
    problems: list[tuple[Param, Candidate]] = field(default_factory=list)
    certainty: dict[str, float] = field(default_factory=dict)
    borrowed: set[str] = field(default_factory=set)
    rivals: dict[str, list[Any]] = field(default_factory=dict)
    taken: list[Span] = field(default_factory=list)


class ArgumentReader:
    """Reads the arguments of sites.

    :param names: what things are called here.
    :param today: the day that relative days count from, if the conversation names it.
    """

    def __init__(
        self, text: EncodedText, names: Sequence[Name], today: date | None, meaning: Meaning
    ) -> None:
        self._text = text
        self._names = tuple(names)
        self._today = today
        self._meaning = meaning

    @property
    def message(self) -> str:
        """The message that is read."""
        return self._text.message

    def read(self, said: ToolReading, site: Site) -> Arguments:
        """The arguments of one site of `said`."""
        out = Arguments()
        # Words express one parameter: the one that the model is surest of takes them.
        for param in sorted(said.tool.params, key=lambda p: -self._certainty(said, p)):
            value = self._value(said, site, param, out)
            if value is not None:
                out.values[param.name] = value
        self._drop_doubles(out)
        out.values = {p.name: out.values[p.name] for p in said.tool.params if p.name in out.values}
        return out

    def _drop_doubles(self, out: Arguments) -> None:
        """What is said once is one argument: of two equal ones the surer stays."""
        for one, other in itertools.combinations(list(out.values), 2):
            values = out.values.get(one), out.values.get(other)
            if values[0] != values[1] or not isinstance(values[0], str):
                continue
            said = re.findall(rf"(?<!\w){re.escape(values[0])}(?!\w)", self._text.message, re.IGNORECASE)
            if len(said) == 1:
                del out.values[min(one, other, key=lambda k: out.certainty.get(k, 0.0))]

    def _certainty(self, said: ToolReading, param: Param) -> float:
        scores = said.matches(param.name)
        return 0.0 if scores is None else float(scores.max(initial=0.0))

    def _value(self, said: ToolReading, site: Site, param: Param, out: Arguments) -> Any:
        listed = options_of(param)
        if listed and param.kind != "array":
            return self._option(said, site, param, listed, out)
        spans = self._spans(said, site, param)
        if param.kind != "text":
            spans = [s for s in spans if not any(s.overlaps(t.piece, t.start, t.end) for t in out.taken)]
        if not spans:
            return None
        out.certainty[param.name] = max(s.score for s in spans)
        if param.kind == "array":
            return self._list(said, site, param, spans, out)
        if param.kind == "text":
            return self._free(said, site, param, spans, out)
        for span in sorted(spans, key=lambda s: -s.score):
            found = self._normalised(param, span, said.tool.params)
            if found is None:
                continue
            self._use(span, out)
            out.taken.append(span)
            if found.problem:
                out.problems.append((param, found))
                return None
            rivals = self._rivals(param, span, said.tool.params)
            if len(rivals) > 1:
                out.rivals[param.name] = rivals
            return found.value
        return None

    def _rivals(self, param: Param, span: Span, others: Sequence[Param]) -> list[Any]:
        """What else of the parameter's kind the earlier sentence speaks of from which a value is taken."""
        counts = param.kind == "number" and not (param.identifies or (param.required and param.unit is None))
        if span.piece == len(self._text.pieces) - 1 or param.kind not in _REFERRED or counts:
            return []
        words = Words(self._text.pieces[span.piece], self._names, self._today)
        own = words.text[span.start : span.end].strip(" ,.!?;:")
        several = re.split(r",\s*|\s+(?:and|or|&)\s+", own)
        if len(several) > 1:
            return several
        if any(c.isdigit() for c in own) or param.kind == "email":
            named: list[Any] = [m.group() for m in re.finditer(_like(own), words.text)]
        else:
            found = candidates(param, words, self._meaning, others)
            found = [c for c in found if c.score >= _NAMED and not c.soft]
            named = [v for c in found for v in (c.value if isinstance(c.value, list) else [c.value])]
        return sorted(set(named), key=lambda v: words.text.find(str(v)))

    def _spans(self, said: ToolReading, site: Site, param: Param) -> list[Span]:
        scores = said.matches(param.name)
        if scores is None:
            return []
        spans = find_spans(self._text, scores)
        if not spans and said.present(param.name) > _GIVEN:
            spans = find_spans(self._text, scores, _FAINT)
        return of_site(spans, site, said.sites, len(self._text.pieces) - 1)

    def _use(self, span: Span, out: Arguments) -> None:
        if span.piece == len(self._text.pieces) - 1:
            out.used.append((span.start, span.end))

    # --- kinds -------------------------------------------------------------------------------------------------

    def _option(
        self, said: ToolReading, site: Site, param: Param, listed: Sequence[str], out: Arguments
    ) -> Any:
        """The listed value that the words of the site come closest to; what stands in the site itself goes first."""
        last = len(self._text.pieces) - 1
        words = self._text.message[site.start : site.end].lower()
        literal = [o for o in listed if _stands_in(o, words)]
        if len(literal) == 1 and param.kind == "enum" and said.present(param.name) > _GIVEN:
            return next(v for v in param.options if str(v) == literal[0])
        best, certainty, used = "", (False, 0.0), None
        for option in listed:
            scores = said.matches(param.name, option)
            if scores is None:
                continue
            spans = of_site(find_spans(self._text, scores, _FAINT), site, said.sites, last)
            spans = [s for s in spans if not self._only_names(s, param)]
            strongest = max(spans, key=lambda s: s.score, default=None)
            present = said.option_present(param.name, option) if len(said.sites) == 1 else 0.0
            score = max(present, strongest.score if strongest else 0.0)
            own = strongest is not None and strongest.overlaps(last, site.start, site.end)
            if score >= _GIVEN and (own, score) > certainty:
                best, certainty, used = option, (own, score), strongest
        if not best:
            return None
        if not certainty[0]:
            out.borrowed.add(param.name)
        out.certainty[param.name] = certainty[1]
        if used is not None:
            self._use(used, out)
            said_there = self._text.pieces[used.piece].lower()
            rivals = [
                o
                for o in listed
                if used.piece != last and "?" not in said_there and _stands_in(o, said_there)
            ]
            if len(rivals) > 1:
                out.rivals[param.name] = rivals
        if param.kind == "boolean":
            return best == "yes"
        return next(v for v in param.options if str(v) == best)

    def _only_names(self, span: Span, param: Param) -> bool:
        """Whether the words only say what kind of thing is meant ("one of the lists", "needs fuel"): that chooses nothing."""
        said = self._text.pieces[span.piece][span.start : span.end]
        words = {w for w in content_lemmas(said) if w not in ("one", "some", "any", "other", "another")}
        return words <= {lemma(n) for n in param.nouns}

    def _list(
        self, said: ToolReading, site: Site, param: Param, spans: Sequence[Span], out: Arguments
    ) -> Any:
        item = param.item
        values: list[Any] = []
        for span in spans:
            self._use(span, out)
            text = self._text.pieces[span.piece][span.start : span.end]
            if item.options:
                values.extend(
                    option
                    for option in item.options
                    if (scores := said.matches(param.name, str(option))) is not None
                    and any(
                        s.overlaps(span.piece, span.start, span.end) for s in find_spans(self._text, scores)
                    )
                )
                continue
            at = 0
            for part in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+|\s*&\s*", text):
                start = text.index(part, at)
                at = start + len(part)
                if not part.strip():
                    continue
                one = Span(span.piece, span.start + start, span.start + at, span.score)
                found = Candidate(part, 0, 0, 1.0) if item.kind == "text" else self._normalised(item, one, ())
                if found is not None and not found.problem:
                    values.append(found.value)
        unique = list(dict.fromkeys(values))
        return unique or None

    def _free(
        self, said: ToolReading, site: Site, param: Param, spans: Sequence[Span], out: Arguments
    ) -> str:
        """Free text: from its first word to its last, in the piece that has most of it. It runs on to the end of the
        site's words, unless another argument stands behind it: people put what is to be said last."""
        piece = max(spans, key=lambda s: (s.piece, s.score)).piece
        own = [s for s in spans if s.piece == piece]
        start, end = min(s.start for s in own), max(s.end for s in own)
        last = len(self._text.pieces) - 1
        if piece == last and start < site.end:
            behind = [
                s.start
                for other in said.tool.params
                if other is not param and (scores := said.matches(other.name)) is not None
                for s in find_spans(self._text, scores)
                if s.piece == last and end <= s.start < site.end
            ]
            if not behind:
                end = max(end, site.end)
        self._use(Span(piece, start, end, 1.0), out)
        return self._text.pieces[piece][start:end].strip(" \"'“”,;:.!?")

    def _normalised(self, param: Param, span: Span, others: Sequence[Param]) -> Candidate | None:
        said = self._text.pieces[span.piece]
        words = Words(said, self._names, self._today)
        own = said[span.start : span.end].strip(" ,.!?;:\"'“”()")
        if param.kind == "name":
            return self._name(param, own, span)
        touching = [
            c
            for c in candidates(param, words, self._meaning, others)
            if c.start >= 0 and span.overlaps(span.piece, c.start, c.end) and c.score > _MIN_CANDIDATE
        ]
        if touching:
            return touching[0]
        if param.kind == "number":
            return self._number(param, said, span)
        if param.kind in ("date", "time", "datetime"):
            return self._time(param, said, span)
        return None

    def _number(self, param: Param, said: str, span: Span) -> Candidate | None:
        if any(span.start < m.end() and m.start() < span.end for m in _IDENTIFIER.finditer(said)):
            return None
        for q in find_quantities(said):
            if not span.overlaps(span.piece, q.start, q.end):
                continue
            value = q.value
            if q.unit is not None and param.unit is not None:
                converted = convert(q.value, q.unit, param.unit)
                value = converted if converted is not None else q.value
            return Candidate(numeric(param, value), q.start, q.end, span.score, bounded(param, value))
        digits = re.search(r"\d+(?:\.\d+)?", said[span.start : span.end])
        if digits is None:
            return None
        value = float(digits.group())
        return Candidate(numeric(param, value), span.start, span.end, span.score, bounded(param, value))

    def _time(self, param: Param, said: str, span: Span) -> Candidate | None:
        padded = f"at {said[span.start : span.end]}"
        for w in find_times(padded, self._today):
            value = w.clock if param.kind == "time" else w.day.isoformat() if w.day else None
            if value is not None:
                return Candidate(value, span.start, span.end, span.score)
        return None

    def _name(self, param: Param, own: str, span: Span) -> Candidate | None:
        pattern = param.schema.get("pattern")
        if isinstance(pattern, str):
            bare = pattern.removeprefix("^").removesuffix("$")
            for text in (
                own,
                own.upper(),
                own.lower(),
                re.sub(r"\s+", "-", own.upper()),
                re.sub(r"\s+", "", own.upper()),
            ):
                m = re.search(bare, text)
                if m:
                    return Candidate(m.group(), span.start, span.end, span.score)
        said = self._text.pieces[span.piece]
        known = [
            n.text
            for n in self._names
            for m in re.finditer(rf"(?<!\w){re.escape(n.text)}(?!\w)", said, re.IGNORECASE)
            if span.overlaps(span.piece, m.start(), m.end())
        ]
        if known:
            return Candidate(max(known, key=len), span.start, span.end, span.score)
        bare = _ARTICLE.sub("", own)
        if not bare or bare.lower() in PRONOUNS or unit_named(bare.lower()) is not None:
            return None
        partly = {n.text for n in self._names if bare.lower() in n.text.lower().split()}
        value = partly.pop() if len(partly) == 1 else bare
        return None if isinstance(pattern, str) else Candidate(value, span.start, span.end, span.score)


def _like(identifier: str) -> str:
    """A pattern for identifiers that look like this one: B-1204 is like B-7, and 10 is not."""
    shape = re.sub(r"[^\W\d]+", "A", re.sub(r"\d+", "9", identifier))
    parts = (r"\d+" if c == "9" else r"[^\W\d]+" if c == "A" else re.escape(c) for c in shape)
    return rf"(?<![\w-]){''.join(parts)}(?![\w-])"


def _stands_in(option: str, words: str) -> bool:
    """Whether an option stands in the words as it is written, but for dashes and capitals."""
    bare = r"[\s_-]*".join(re.escape(part) for part in re.split(r"[\s_-]+", option.lower()) if part)
    return bool(re.search(rf"(?<!\w){bare}(?!\w)", words))
