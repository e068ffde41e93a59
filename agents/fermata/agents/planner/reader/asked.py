"""What a message asks for, as the reader sees it: the calls, in the order in which they are said.

The reader says which tools are asked for, where, under which condition and which words express what. What those words
are worth stays with the planner's rules, and a parameter that the reader finds no words for is taken from what the rules
make of the call's own words (a reference to an earlier call, say) or stays missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

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
from fermata.agents.planner.words_given import Words

if TYPE_CHECKING:
    from fermata.agents.planner.plan import Planner

_FAINT: Final = 0.3
MOST_TOOLS: Final = 24
"""Read for one message: each costs a pass of the model. Of more tools those are read that come closest in meaning."""
_BAN: Final = re.compile(r"^(?:without|but not|only not|except|not)\b", re.IGNORECASE)
_CONDITION_WORD: Final = re.compile(
    r"^(?:only )?(?:if|when|once|should|unless|in case|as soon as|provided(?: that)?|as long as|whenever|after)\b\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the reader makes of a message: each tool's reading."""

    text: EncodedText
    said: tuple[ToolReading, ...]

    def of(self, name: str) -> float:
        """How sure it is (0 to 1) that a call of the tool is asked for; 1 if it was not read."""
        return next((s.asked for s in self.said if s.tool.name == name), 1.0)

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
        filling = _filled(planner, arguments, said, site, planner.words(words), support, planned)
        condition = _condition(asked.text, site)
        clause = Clause(words, site.start, site.end, condition=condition[1], condition_word=condition[0])
        reading = Reading(clause, Intent.REQUEST, words)
        item = Resolved(reading, Evidence(filling, {}, CERTAIN * site.certainty))
        item.decision = check_filling(planner, item, [], placed=True)
        if any(_repeats(item, o) for o in out):
            continue
        out.append(item)
        planned.extend((said.tool.name, a) for a in filling.calls())
    return out


def _repeats(item: Resolved, earlier: Resolved) -> bool:
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
        return "if", words
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
) -> Filling:
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
        given = param.required or param.kind == "text" or said.present(param.name) > _FAINT
        if param.name in ruled.args and given:
            args[param.name] = ruled.args[param.name]
    missing = [p for p in tool.required if p.name not in args and not any(q is p for q, _ in problems)]
    start = site.start
    used = [(max(0, a - start), b - start) for a, b in read.used if b > start]
    return Filling(tool, args, missing, problems, used=[*used, *ruled.used])


def _behind(asked: Asked, site: Site) -> list[str]:
    """What is said behind a request, up to the next one: often why."""
    ends = min((s.start for _, s in asked.sites() if s.start >= site.end), default=len(asked.text.message))
    rest = asked.text.message[site.end : ends].strip(" ,.;:!?-")
    return [rest] if len(rest.split()) > 1 else []


def which_of(planner: Planner, asked: Asked, likely: float = 0.5) -> Decision | None:
    """The question back where several tools fit alike, and one of them acts: between readings the rules choose."""
    names = [s.tool for s in asked.said if s.either > likely and s.either > s.reading.kind[CALL]]
    if len(names) < 2 or all(t.reads for t in names):
        return None
    return Decision(
        "ask", ask_which(names), pending=Pending(planner.turn.human, tuple(t.name for t in names))
    )
