"""What a message asks for, as the reader sees it: the calls, in the order in which they are said.

The reader says which tools are asked for, where, under which condition and which words express what. What those words
are worth stays with the planner's rules, and a parameter that the reader finds no words for is taken from what the rules
make of the call's own words (a reference to an earlier call, say) or stays missing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fermata.agents.planner.candidates import candidates
from fermata.agents.planner.clauses import Clause
from fermata.agents.planner.conversation import Conversation
from fermata.agents.planner.decision import Decision, Pending
from fermata.agents.planner.doubts import check_filling
from fermata.agents.planner.filling import Filling
from fermata.agents.planner.intent import Intent, Reading
from fermata.agents.planner.ranking import Evidence, rank
from fermata.agents.planner.reader.arguments import ArgumentReader
from fermata.agents.planner.reader.pairs import EncodedText, Said, said_call
from fermata.agents.planner.reader.sites import CALL, Site, ToolReading, find_sites
from fermata.agents.planner.resolved import CERTAIN, Resolved
from fermata.agents.planner.speech import ask_which
from fermata.agents.planner.tools import Param, Tool
from fermata.agents.planner.words_given import Words

if TYPE_CHECKING:
    from fermata.agents.planner.plan import Planner

_FAINT: Final = 0.3
_NAMED: Final = 0.8
_TRACE: Final = 0.05
"""Of a parameter that the reader is sure is not given, the rules invent no value either."""
_LEAD: Final = 0.6
"""How much better the rules have to find the surer one of two tools that fit alike, for it not to be asked about."""
MOST_TOOLS: Final = 24
"""Read for one message: each costs a pass of the model. Of more tools those are read that come closest in meaning."""
_BAN: Final = re.compile(r"^(?:without|but not|only not|except|not)\b", re.IGNORECASE)
_CONDITION_WORD: Final = re.compile(
    r"^(?:only )?(?:if|when|once|should|unless|in case|as soon as|provided(?: that)?|as long as|whenever|after)\b\s*",
    re.IGNORECASE,
)
_CLAIMS: Final = re.compile(
    r"\?|\b(?:is|are|was|has|have|does|isn't|aren't|over|under|below|above|than|less|more|fewer|least|most|no|not|\w+s|that)\b",
    re.IGNORECASE,
)
"""What says something that can hold or not; "500 kW" is no condition, whatever the model takes it for."""
_POINTS_BACK: Final = re.compile(r"\b(?:it|its|there|that one|them|him|her|their|again|his)\b", re.IGNORECASE)
_SEVERAL: Final = re.compile(r"\b(?:both|all|each|every|them|those|these|their|everything)\b", re.IGNORECASE)
_IN_ITS_PLACE: Final = re.compile(r"[,;]|\s[-–—]+\s|\b(?:but|just|only|instead|rather)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the reader makes of a message: each tool's reading."""

    text: EncodedText
    said: tuple[ToolReading, ...]

    def of(self, name: str) -> float:
        """How sure it is (0 to 1) that a call of the tool is asked for; 1 if it was not read."""
        return next((s.asked for s in self.said if s.tool.name == name), 1.0)

    def sure(self, floor: float, acting: float = 0.0) -> Asked:
        """The same with only the calls that it is as sure of as `floor`; of tools that act, as `acting` as well."""
        said = (
            s if s.asked >= (floor if s.tool.reads else max(floor, acting)) else replace(s, sites=[])
            for s in self.said
        )
        return replace(self, said=tuple(said))

    def beside(self, banned: Sequence[tuple[int, int]]) -> Asked:
        """The same without the calls whose words stand in a ban."""
        said = [
            replace(s, sites=[site for site in s.sites if not any(_within(site, ban) for ban in banned)])
            for s in self.said
        ]
        return replace(self, said=tuple(said))

    def alike(self) -> list[Tool]:
        """Two tools that would each act on the same words, the surer one first; nothing where there are none."""
        found = [(s, site) for s in self.said if not s.tool.reads for site in s.sites]
        found.sort(key=lambda f: -f[1].certainty)
        for (one, a), (other, b) in itertools.combinations(found, 2):
            if one is not other and _same_words(a, b):
                return [one.tool, other.tool]
        return []

    def sites(self) -> list[tuple[ToolReading, Site]]:
        """Every asked call, in the order of its words; of two that stand at the same words, the surer one."""
        found = [(s, site) for s in self.said for site in s.sites]
        found.sort(key=lambda f: -f[1].certainty)
        kept: list[tuple[ToolReading, Site]] = []
        for said, site in found:
            if any(_same_words(site, other) for s, other in kept if s is not said):
                continue
            kept.append((said, site))
        return sorted(kept, key=lambda f: f[1].start)


def _same_words(a: Site, b: Site) -> bool:
    common = min(a.end, b.end) - max(a.start, b.start)
    return common > 0.6 * min(a.end - a.start, b.end - b.start)


def _within(site: Site, ban: tuple[int, int]) -> bool:
    common = min(site.end, ban[1]) - max(site.start, ban[0])
    return common > 0.3 * (site.end - site.start)


def bans(readings: Sequence[Reading], text: str) -> list[tuple[int, int]]:
    """Where the message forbids: each ban's clause up to what is to be done in its place ("don't drain it, just lock it").
    A "no" without a request beside it forbids everything.
    """
    out = []
    asks = any(r.intent in (Intent.REQUEST, Intent.NEED) for r in readings)
    for reading in readings:
        if reading.intent is Intent.REFUSAL and not asks:
            return [(0, len(text))]
        if reading.intent not in (Intent.PROHIBITION, Intent.REFUSAL):
            continue
        clause = reading.clause
        ends = _IN_ITS_PLACE.search(text, clause.start + 1, clause.end)
        out.append((clause.start, ends.start() if ends else clause.end))
    return out


def history(conversation: Conversation) -> list[Said]:
    """What was said and done before the last message, oldest first."""
    out: list[Said] = []
    for turn in conversation.turns[:-1]:
        if turn.human:
            out.append(Said("human", turn.human))
        out.extend(Said("did", said_call(c.name.replace("_", " "), c.args)) for c in turn.calls)
        if turn.said:
            out.append(Said("ai", turn.said))
    return out


def read_message(planner: Planner, message: str) -> Asked | None:
    """The readings of the last message, as `message` puts it, with each tool that it could mean; None without a reader."""
    if planner.reader is None or not planner.tools:
        return None
    tools = planner.tools
    if len(tools) > MOST_TOOLS:
        near = planner.meaning.similarity(message, [t.text for t in tools])
        best = sorted(range(len(tools)), key=lambda i: -near[i])[:MOST_TOOLS]
        tools = [tools[i] for i in sorted(best)]
    text = planner.reader.encoder.text(history(planner.conversation), message)
    out = []
    for tool, encoded, reading in planner.reader.read(text, tools):
        said = ToolReading(tool, encoded, reading)
        said.sites = find_sites(text, tool, reading, planner.settings.reader_floor)
        out.append(said)
    return Asked(text, tuple(out))


def resolve_read(planner: Planner, asked: Asked) -> list[Resolved]:
    """The asked calls as the planner carries them out: filled, or with the decision that keeps one from being done."""
    arguments = ArgumentReader(asked.text, planner.names, planner.today, planner.meaning)
    out: list[Resolved] = []
    planned: list[tuple[str, dict[str, object]]] = []
    for said, site in asked.sites():
        words = asked.text.message[site.start : site.end]
        support = [replace(planner.words(rest), reason=True) for rest in _behind(asked, site)]
        stretch = asked.text.message[site.start : _ends(asked, site)]
        filling = _filled(planner, arguments, said, site, planner.words(words), support, planned, stretch)
        condition = _condition(asked.text, site)
        clause = Clause(words, site.start, site.end, condition=condition[1], condition_word=condition[0])
        reading = Reading(clause, Intent.REQUEST, words)
        item = Resolved(reading, Evidence(filling, {}, CERTAIN * site.certainty))
        item.decision = check_filling(planner, item, [], placed=True)
        if any(repeats(item, o) for o in out):
            continue
        out.append(item)
        planned.extend((said.tool.name, a) for a in filling.calls())
    return out


def repeats(item: Resolved, earlier: Resolved) -> bool:
    """Whether nothing new is asked for: the model sometimes finds one request in two parts of a sentence."""
    return item.filling.tool is earlier.filling.tool and (
        item.filling.args.items() <= earlier.filling.args.items()
    )


def _condition(text: EncodedText, site: Site) -> tuple[str, str]:
    if site.condition is None:
        return "", ""
    words = text.pieces[site.condition.piece][site.condition.start : site.condition.end].strip(" ,.")
    if _BAN.match(words):
        return "", ""
    head = _CONDITION_WORD.match(words)
    if head is None:
        return ("if", words) if _CLAIMS.search(words) else ("", "")
    word = head.group().strip().lower()
    return ("unless" if word == "unless" else "if"), words[head.end() :]


def _filled(
    planner: Planner,
    arguments: ArgumentReader,
    said: ToolReading,
    site: Site,
    words: Words,
    support: Sequence[Words],
    planned: Sequence[tuple[str, dict[str, object]]],
    stretch: str,
) -> Filling:
    """The tool filled from the site's words; what it points back to ("open it again", in the `stretch` up to the next
    request) is what an earlier request of the message is about.
    """
    tool = said.tool
    read = arguments.read(said, site)
    ruled = rank([tool], words, support, planner.memory(planned), planner.meaning, settings=planner.settings)[
        0
    ].filling
    own = len(said.sites) > 1
    args = {k: ruled.args.get(k, v) if own and k in read.borrowed else v for k, v in read.values.items()}
    problems = list(read.problems)
    coordinated = len(said.sites) == 1 and (ruled.choices or ruled.rows) and ruled.complete
    if coordinated:
        several = {*ruled.choices, *(name for row in ruled.rows for name in row)}
        args = {k: v for k, v in {**ruled.args, **args}.items() if k not in several}
        return Filling(tool, args, choices=ruled.choices, rows=ruled.rows, used=ruled.used)
    for param in tool.params:
        if param.name in args or any(p is param for p, _ in problems):
            continue
        literal = param.kind != "text" and _stands(ruled.args.get(param.name), words)
        given = said.present(param.name) > (_TRACE if param.required else _FAINT)
        given = given or (tool.reads or literal if param.required else param.kind == "text")
        # One thing is not two arguments: where the reader used it for another one, it does not fill this one as well.
        taken = str(ruled.args.get(param.name)) in {str(v) for v in args.values()}
        if param.name in ruled.args and given and not taken:
            args[param.name] = ruled.args[param.name]
    missing = [p for p in tool.required if p.name not in args and not any(q is p for q, _ in problems)]
    if _POINTS_BACK.search(stretch):
        for param in [p for p in missing if p.identifies or p.kind == "name"]:
            before = _antecedents(planner, param, arguments.message[: site.start], planned)
            if len(before) == 1:
                args[param.name] = before[0]
                missing.remove(param)
    start = site.start
    used = [(max(0, a - start), b - start) for a, b in read.used if b > start]
    doubtful = (
        {} if _SEVERAL.search(arguments.message) else {k: v for k, v in read.rivals.items() if k in args}
    )
    args = {k: v for k, v in args.items() if k not in doubtful}
    return Filling(tool, args, missing, problems, used=[*used, *ruled.used], doubtful=doubtful)


def _antecedents(
    planner: Planner, param: Param, before: str, planned: Sequence[tuple[str, dict[str, object]]]
) -> list[object]:
    """What "it" can be in a message: what its last request is about, else whatever is named before (also in a ban)."""
    planned_value = next((a[param.name] for _, a in reversed(planned) if param.name in a), None)
    if planned_value is not None:
        return [planned_value]
    named = candidates(param, planner.words(before), planner.meaning)
    sure = [c.value for c in named if c.score >= _NAMED and not c.soft and not c.problem]
    return list(dict.fromkeys(v for v in sure if not isinstance(v, list)))


def _stands(value: object, words: Words) -> bool:
    """Whether a value is said as it is, and not only concluded."""
    return value is not None and bool(
        re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", words.text, re.IGNORECASE)
    )


def _ends(asked: Asked, site: Site) -> int:
    """Where the next request begins."""
    return min((s.start for _, s in asked.sites() if s.start >= site.end), default=len(asked.text.message))


def _behind(asked: Asked, site: Site) -> list[str]:
    """What is said behind a request, up to the next one: often why."""
    rest = asked.text.message[site.end : _ends(asked, site)].strip(" ,.;:!?-")
    return [rest] if len(rest.split()) > 1 else []


def _undecided(planner: Planner, asked: Asked) -> list[Tool]:
    """Two tools that would both act on the same words, where the rules don't find the first one better by far."""
    tools = asked.alike()
    if not tools:
        return []
    words = planner.words(asked.text.message)
    ranked = rank(tools, words, [], planner.memory(), planner.meaning, settings=planner.settings)
    scores = {e.tool.name: e.score for e in ranked if not e.filling.missing}
    if len(scores) < len(tools) or scores[tools[0].name] - scores[tools[1].name] > _LEAD:
        return []
    return tools


def which_of(planner: Planner, asked: Asked, likely: float = 0.5) -> Decision | None:
    """The question back where several tools fit alike, and one of them acts: between readings the rules choose."""
    names = [s.tool for s in asked.said if s.either > likely and s.either > s.reading.kind[CALL]]
    names = names if len(names) > 1 else _undecided(planner, asked)
    if len(names) < 2 or all(t.reads for t in names):
        return None
    return Decision(
        "ask", ask_which(names), pending=Pending(planner.turn.human, tuple(t.name for t in names))
    )
