"""From a person's message to steps: the plan of one turn.

Clauses are read for their intent; requests and questions are ranked against the tools and filled; runbooks are
followed. Everything is resolved before anything is done: if one part of a message needs a question back, nothing of
it is started.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, Final

from fermata.agents.planner.answers import answer
from fermata.agents.planner.candidates import candidates
from fermata.agents.planner.clauses import corrected, split_clauses, split_reason
from fermata.agents.planner.conditions import Verdict, judge
from fermata.agents.planner.conversation import Conversation, Result, Turn
from fermata.agents.planner.decision import Decision, Pending, Plan, Step, replay
from fermata.agents.planner.derive import change, derive
from fermata.agents.planner.doubts import also, check_filling, doubt
from fermata.agents.planner.filling import Memory
from fermata.agents.planner.intent import Intent, Reading, arranges, read_intent
from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.names import catalogue, names_in_data
from fermata.agents.planner.ranking import (
    Evidence,
    rank,
    tool_verbs,
    verb_fits,
    verb_groups,
    vocabulary,
)
from fermata.agents.planner.reader.asked import Asked, bans, read_message, repeats, resolve_read, which_of
from fermata.agents.planner.reader.shared import Reader
from fermata.agents.planner.references import chosen, elliptic
from fermata.agents.planner.rejection import take_up
from fermata.agents.planner.resolved import CERTAIN, DOES, SURE_VERB, Resolved
from fermata.agents.planner.resume import pending, resume
from fermata.agents.planner.runbook import Runbook, find_runbooks, fitting
from fermata.agents.planner.settings import DEFAULT, Settings
from fermata.agents.planner.speech import cannot, shown_args, summary
from fermata.agents.planner.text import content_lemmas, known_verbs, lemma, related
from fermata.agents.planner.times import today_of
from fermata.agents.planner.tools import Tool
from fermata.agents.planner.words import STOPWORDS
from fermata.agents.planner.words_given import Words

_TELLS: Final = frozenset({Intent.STATEMENT, Intent.REPORT, Intent.NEED})
_NORMATIVE: Final = re.compile(
    r"\b(?:may|should|must|shall|allowed|permitted|supposed|how (?:do|to|often|long|soon|early|late|heavy|fast|big)|why|up to|need(?:ed|s)? to|policy|rule|according to|says? about|maximum|minimum|recommended|usually|normally|mean|difference)\b",
    re.IGNORECASE,
)
CONTINUE: Final = re.compile(
    r"^\s*(?:ok(?:ay)?[, ]*)?(?:please )?(?:continue|go on|carry on|proceed|resume|next)\b[^a-z]*(?:please)?\W*$",
    re.IGNORECASE,
)
_PURPOSE: Final = re.compile(
    r"^(?:because |as |since )?(?:i|we|they|he|she|\w+)(?:'d| would)? (?:like|wants?|needs?|has|have|am going|are going|plans?|intends?) to \w+ (?:it|them|that|there|this|its|inside|under)\b",
    re.IGNORECASE,
)
_ABOUT: Final = 0.3
_RULE: Final = re.compile(
    r"\b(?:may|should|must|shall|can|allowed|permitted|supposed|how (?:do|to|often|long|soon)|why|up to|need(?:ed|s)? to|"
    r"policy|rule|according to|says? about|limits?|nominal|rated|specified|maximum|minimum|recommended|usually|normally|mean|difference)\b",
    re.IGNORECASE,
)
"""Words of a question about how things ought to be, also where it names one thing: documents know that, readings don't."""
_NAMED_NOUNS: Final = 0.5
_ORDERED: Final = 0.3
_NAMED: Final = 0.8


class Planner:
    """Plans the last turn of a conversation with a set of tools."""

    def __init__(
        self,
        conversation: Conversation,
        tools: Sequence[Tool],
        meaning: Meaning,
        settings: Settings = DEFAULT,
        reader: Reader | None = None,
    ) -> None:
        self.conversation = conversation
        self.reader = reader
        self.tools = list(tools)
        self.meaning = meaning
        self.settings = settings
        self.turn = conversation.turns[-1]
        self.names = catalogue(conversation)
        self.today = today_of(conversation.context)
        own = frozenset(v.split()[0] for t in tools for v in tool_verbs(t.name, t.description)[0])
        self.verbs = (known_verbs() - {n.text.lower() for n in self.names}) | own
        self.vocabulary = vocabulary(tools, self.names)
        self.kinds = frozenset(
            n for t in tools for p in t.params if p.identifies and p.kind != "enum" for n in p.nouns
        ) | {k for n in self.names for k in n.kind}
        self.kinds -= STOPWORDS
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.results: list[Result] = []
        self.done: list[tuple[Step, Result]] = []
        self.notes: list[str] = []
        self.forbidden: list[tuple[str, dict[str, Any]]] = []
        self.continued = 0
        earlier = conversation.turns[-2] if len(conversation.turns) > 1 else None
        self.asked = earlier is not None and earlier.said.rstrip().endswith("?")
        self.taken_up = 0

    def decide(self) -> Decision:
        """The next decision of the turn."""
        waiting = pending(
            self,
        )
        if waiting is not None and waiting.runbook and self._goes_on():
            self._join_turns()
            return replay(self._turn(None), self.turn, len(self.conversation.turns))
        return replay(self._turn(waiting), self.turn, len(self.conversation.turns))

    def _goes_on(self) -> bool:
        """Whether the message answers a question that a runbook waits for, instead of asking for something else."""
        readings = [read_intent(c, self.verbs) for c in split_clauses(self.turn.human, self.verbs)]
        return not any(
            r.intent
            in (Intent.REFUSAL, Intent.PROHIBITION, Intent.QUESTION, Intent.HYPOTHETICAL, Intent.CAPABILITY)
            for r in readings
        )

    def _join_turns(self) -> None:
        """Read the last two turns as one: the runbook goes on where it waited."""
        *before, last, this = self.conversation.turns
        said = "" if CONTINUE.match(this.human) else this.human
        joined = Turn(
            "\n".join(x for x in (last.human, said) if x),
            [*last.calls, *this.calls],
            {**last.results, **this.results},
            this.said,
        )
        self.continued = last.continued + 1
        joined.continued = self.continued
        self.turn = joined
        self.conversation = Conversation(
            self.conversation.context, self.conversation.passages, [*before, joined]
        )

    # --- doing -------------------------------------------------------------------------------------------------

    def perform(self, steps: list[Step]) -> Generator[list[Step], list[Result], list[Result]]:
        """Take `steps` and remember what came back (with the arguments that were really used)."""
        for step in steps:
            self.calls.insert(0, (step.name, dict(step.args)))
        results = yield steps
        del self.calls[: len(steps)]
        for step, result in zip(steps, results, strict=True):
            self.calls.insert(0, (step.name, {**step.args, **result.call.args}))
            self.results.insert(0, result)
            self.done.append((step, result))
        return results

    def tool(self, name: str) -> Tool | None:
        return next((t for t in self.tools if t.name == name), None)

    def words(self, text: str) -> Words:
        return Words(text, self.names, self.today, self.vocabulary, kinds=self.kinds)

    def memory(self, planned: Sequence[tuple[str, dict[str, Any]]] = ()) -> Memory:
        """What references can mean, newest first: planned and made calls of this turn, then of earlier ones."""
        earlier = [
            (c.name, c.args)
            for turn in reversed(self.conversation.turns[:-1])
            for c in reversed(turn.calls)
            if (r := turn.result_of(c)) is None or not r.rejected
        ]
        named = [n for r in self.results[:1] for n in names_in_data(r.data)]
        if not named:
            for turn in reversed(self.conversation.turns[:-1]):
                named = [n for r in turn.results.values() for n in names_in_data(r.data)]
                if named:
                    break
        texts = tuple(t.human for t in reversed(self.conversation.turns[-3:-1]) if t.human)
        return Memory((*reversed(planned), *self.calls, *earlier), texts, tuple(named), self.asked)

    # --- the turn ----------------------------------------------------------------------------------------------

    def _turn(self, pending: Pending | None) -> Plan:
        text = corrected(chosen(self, self.turn.human))
        readings = [read_intent(c, self.verbs) for c in split_clauses(text, self.verbs)]
        readings = _needs_as_reasons(self._purposes(readings))
        self._forbid(readings)
        if pending is not None:
            resumed = yield from resume(self, pending, text, readings)
            if resumed is not None:
                return resumed
        runbook = self._runbook(readings, text)
        if runbook is not None:
            from fermata.agents.planner.follow import follow

            return (yield from follow(self, runbook, readings))
        if any(r.intent is Intent.DELEGATION for r in readings) and not any(
            r.intent in DOES for r in readings
        ):
            readings = self._delegated(readings)
        either = next((r for r in readings if r.clause.link == "or" and r.intent is Intent.REQUEST), None)
        if either is not None:
            return Decision("ask", f"Which of the two do you want? You said “{text.strip()}”.")
        resolved = self._understood(text, readings)
        if isinstance(resolved, Decision):
            return resolved
        acting = any(
            i.evidence is not None and i.decision is None and not i.filling.tool.reads for i in resolved
        )
        for item in resolved:
            if acting and item.decision is not None and item.decision.kind in ("ask", "refuse"):
                return item.decision
            if item.decision is not None and item.reading.intent in (*DOES, Intent.DELEGATION):
                return item.decision
        return (yield from self._carry_out(resolved, readings))

    def _understood(self, text: str, readings: list[Reading]) -> list[Resolved] | Decision:
        """What the message comes to: the requests that the reader finds; where it finds none, those of the rules, of which
        it takes for mere talk are asked about first.
        """
        asked = read_message(self, text)
        if asked is not None:
            asked = self._beside_talk(asked, readings, text)
            either = which_of(self, asked)
            if either is not None:
                return either
            acts = any(not said.tool.reads for said, _ in asked.sites())
            if self._leans(readings):
                return _without_repeats(self._resolve_all(readings))
            if acts or (asked.sites() and not self.conversation.passages):
                return self._with_the_rest(resolve_read(self, asked), asked, readings)
        resolved = _without_repeats(self._resolve_all(readings))
        doubted = asked and next((i for i in resolved if self._talk(i, asked)), None)
        if doubted:
            steps = tuple(
                Step(doubted.filling.tool.name, a, f"You asked: “{text.strip()}”.", True)
                for a in doubted.filling.calls()
            )
            return Decision(
                "ask",
                f"Shall I do this: {doubted.filling.tool.title} ({shown_args(doubted.filling.calls()[0])})? "
                "I am not sure that you asked for it.",
                pending=Pending(text, (doubted.filling.tool.name,), steps=steps),
            )
        return resolved

    def _beside_talk(self, asked: Asked, readings: Sequence[Reading], text: str) -> Asked:
        """What is asked for beside bans: a ban always wins. Where the rules read no request, the reader has to be surer than
        otherwise, and nothing is done about what is only asked or wondered.
        """
        asked = asked.beside(bans(readings, text))
        if any(r.intent in DOES for r in readings):
            return asked
        wonders = any(r.intent in (Intent.HYPOTHETICAL, Intent.QUESTION) for r in readings)
        return asked.sure(self.settings.reader_alone, acting=CERTAIN if wonders else 0.0)

    def _with_the_rest(self, read: list[Resolved], asked: Asked, readings: list[Reading]) -> list[Resolved]:
        """The requests that the reader found and, in words that none of those take, those that only the rules understand."""
        places = [(i.reading.clause.start, i.reading.clause.end) for i in read]
        for item in self._resolve_all(readings):
            clause = item.reading.clause
            understood = (
                item.evidence is not None
                and item.decision is None
                and item.reading.intent in (*DOES, Intent.QUESTION)
            )
            alone = not any(a < clause.end and clause.start < b for a, b in places)
            said = any(repeats(item, o) or repeats(o, item) for o in read) if understood else True
            if understood and alone and not said and not self._talk(item, asked):
                read.append(item)
        return sorted(read, key=lambda i: i.reading.clause.start)

    def _leans(self, readings: Sequence[Reading]) -> bool:
        """Whether the one request of the message only changes or repeats the call before ("make it 30", "undo that")."""
        does = [r for r in readings if r.intent in (*DOES, Intent.STATEMENT)]
        return len(does) == 1 and elliptic(self, does[0], ()) is not None

    def _talk(self, item: Resolved, asked: Asked) -> bool:
        """Whether the reader takes for mere talk what the rules would act on, and no strong verb orders it."""
        if item.evidence is None or item.decision is not None or item.filling.tool.reads:
            return False
        if item.evidence.score >= CERTAIN:
            return False
        ordered = item.reading.intent is Intent.REQUEST and item.evidence.features["verb"] >= _ORDERED
        return not ordered and asked.of(item.filling.tool.name) < self.settings.reader_talk

    def _carry_out(self, resolved: list[Resolved], readings: list[Reading]) -> Plan:
        said: list[str] = []
        kind = "ack"
        for item in resolved:
            if item.decision is not None:
                said.append(item.decision.text)
                kind = item.decision.kind if kind == "ack" else kind
                continue
            if item.answer:
                said.append(item.answer)
                kind = "answer"
                continue
            if item.evidence is None:
                continue
            stop = yield from self.act(item)
            if stop is not None:
                return stop
            kind = "done"
        if self.done:
            said.insert(0, summary(self))
        said.extend(self.notes)
        if not said:
            return self._acknowledge(readings)
        return Decision("answer" if kind == "answer" else kind, "\n".join(s for s in said if s))  # type: ignore[arg-type]

    def act(self, item: Resolved) -> Generator[list[Step], list[Result], Decision | None]:
        """Take one resolved request, behind its condition if it has one. A decision ends the turn."""
        reason = ""
        condition = item.reading.clause.condition
        if condition:
            verdict = yield from self.check(condition, item.reading.body, item)
            if verdict.holds is None:
                return Decision(
                    "ask",
                    f"I can't tell whether “{condition}” holds: none of my tools reads it. Shall I go on without that check?",
                )
            wanted = item.reading.clause.condition_word != "unless"
            if verdict.holds is not wanted:
                self.notes.append(f"{capital(verdict.evidence)}, so “{item.reading.body}” was not done.")
                return None
            reason = capital(verdict.evidence) + "."
        if self.forbids(item, asked=True):
            self.notes.append(f"You also told me not to, so “{item.reading.body}” was not done.")
            return None
        steps = yield from self.steps_of(
            item, why=" ".join(x for x in (reason, f"You asked: “{item.reading.clause.text.strip()}”.") if x)
        )
        if isinstance(steps, Decision):
            return steps
        results = yield from self.perform(steps)
        for result in results:
            if result.rejected:
                step = next(s for s, r in self.done if r is result)
                taken = yield from take_up(self, step, result)
                if isinstance(taken, Decision):
                    return taken
                continue
            if result.failed:
                self.notes.append(f"{result.call.name} failed: {result.text.strip()[:300]}")
                return Decision("done", "\n".join(x for x in [summary(self), *self.notes] if x))
        return None

    def steps_of(
        self, item: Resolved, why: str, situation: Sequence[Words] = ()
    ) -> Generator[list[Step], list[Result], list[Step] | Decision]:
        """The steps of a resolved request, each with `why`; a change of a value is computed from what it is now."""
        tool = item.filling.tool
        arithmetic = ""
        if item.derive is not None:
            derived = yield from derive(self, item, situation)
            if isinstance(derived, Decision):
                return derived
            arithmetic = derived
        steps = []
        for args in item.filling.calls():
            said = (
                ""
                if tool.reads
                else " ".join(x for x in (why, arithmetic, f"So: {tool.title} ({shown_args(args)}).") if x)
            )
            steps.append(Step(tool.name, args, said, not tool.reads))
        if not item.also:
            return steps
        for other in item.also:
            said = f"{why} So: {other.tool.title} ({shown_args(other.filling.args)})."
            steps.append(Step(other.tool.name, other.filling.args, said, True))
        fillings = [item.filling, *(e.filling for e in item.also)]
        places = [max(s for s, _ in filling.used) for filling in fillings]
        return [s for _, s in sorted(zip(places, steps, strict=True), key=lambda p: p[0])]

    def name_of(self, noun: str, situation: Sequence[Words]) -> str:
        """What "the line" is called here ("line 3"), or "" if nothing or more than one thing can be meant."""
        base = lemma(noun)
        for tool in self.tools:
            for param in tool.params:
                if not param.identifies or base not in param.nouns:
                    continue
                values = {
                    args[param.name] for _, args in self.calls if isinstance(args.get(param.name), str | int)
                }
                for words in () if values else situation:
                    values |= {
                        c.value
                        for c in candidates(param, words, self.meaning, tool.params)
                        if c.score >= _NAMED and not c.soft
                    }
                if len(values) == 1:
                    value = str(values.pop()).replace("_", " ")
                    return (
                        value
                        if lemma(value.split("-")[0].lower()) == base or not value[:1].isdigit()
                        else f"{noun} {value}"
                    )
        return ""

    def results_of_reads(self) -> list[Result]:
        """Results of readings of this turn, newest first."""
        return [r for r in self.results if (t := self.tool(r.call.name)) is not None and t.reads]

    def forbids(self, item: Resolved, *, asked: bool = False) -> bool:
        """Whether the person's message forbids just this: the same tool, and nothing else named than what it concerns.

        `asked`: the same message asks for it, so that only a prohibition that names the same thing holds.
        """
        for name, args in self.forbidden:
            same = all(any(call.get(k) == v for call in item.filling.calls()) for k, v in args.items())
            if name == item.filling.tool.name and same and (args or not asked):
                return True
        return False

    def _purposes(self, readings: list[Reading]) -> list[Reading]:
        """ "Stop line 2, I want to clean it": what no tool does is the purpose of the request before, not a second one."""
        out = list(readings)
        for i, (one, other) in enumerate(itertools.pairwise(readings), 1):
            if one.intent not in DOES or other.intent not in DOES or not _PURPOSE.match(other.clause.text):
                continue
            acting = (t for t in self.tools if not t.reads)
            if "read" not in verb_groups(other.body)[0] and not any(verb_fits(t, other.body) for t in acting):
                out[i] = replace(other, intent=Intent.STATEMENT)
        return out

    def _forbid(self, readings: Sequence[Reading]) -> None:
        for reading in readings:
            if reading.intent is not Intent.PROHIBITION:
                continue
            said = re.sub(
                r"^.*?\b(?:don't|do not|never|not|no|avoid|without|refrain from)\b\s*",
                "",
                reading.clause.text,
                flags=re.IGNORECASE,
            )
            acting = [t for t in self.tools if not t.reads]
            ranked = rank(acting, self.words(said), [], self.memory(), self.meaning, settings=self.settings)
            if ranked and ranked[0].features["verb"] >= 0.5:
                self.forbidden.append((ranked[0].tool.name, dict(ranked[0].filling.args)))

    # --- conditions and derived values -------------------------------------------------------------------------

    def check(
        self,
        condition: str,
        request: str,
        item: Resolved | None = None,
        situation: Sequence[Words] = (),
        *,
        fresh: bool = False,
    ) -> Generator[list[Step], list[Result], Verdict]:
        """Hold a condition against readings; what is not read yet, or was read before the last action, is read now."""
        known = self.results_of_reads()
        verdict = judge(condition, known, request)
        stale = fresh or (bool(known) and self.results[0] is not known[0])
        if verdict.holds is not None and not stale:
            return verdict
        if verdict.holds is not None:
            source = next(r for r in known if judge(condition, [r], request).holds is not None)
            results = yield from self.perform([Step(source.call.name, dict(source.call.args))])
            return judge(condition, results, request)
        reads = [t for t in self.tools if t.reads]
        support = [self.words(request), *situation]
        planned = [(item.filling.tool.name, item.filling.calls()[0])] if item and item.evidence else []
        ranked = rank(
            reads,
            self.words(condition),
            support,
            self.memory(planned),
            self.meaning,
            asks=True,
            settings=self.settings,
        )
        for evidence in ranked[:3]:
            if not evidence.filling.complete or evidence.score < self.settings.read_floor - 0.6:
                continue
            asked = [(evidence.tool.name, args) for args in evidence.filling.calls()]
            if not stale and all(call in self.calls for call in asked):
                break  # it was read just now, and says nothing about the condition
            results = yield from self.perform([Step(name, args) for name, args in asked])
            verdict = judge(condition, results, request)
            if verdict.holds is not None:
                return verdict
            break
        return Verdict(None, "")

    # --- resolving ---------------------------------------------------------------------------------------------

    def _resolve_all(self, readings: list[Reading]) -> list[Resolved]:
        out: list[Resolved] = []
        planned: list[tuple[str, dict[str, Any]]] = []
        for i, reading in enumerate(readings):
            item = self.resolve(reading, self.support(readings, i), planned, readings)
            previous = next((p for p in reversed(out) if p.reading.intent in DOES), None)
            if (
                previous is not None
                and reading.intent in (*DOES, Intent.STATEMENT)
                and not reading.clause.condition
            ):
                merged = self._merged(previous, reading, item, readings, planned)
                if merged is not None:
                    out[out.index(previous)] = merged
                    if merged.evidence is not None and merged.decision is None:
                        planned = [
                            p
                            for p in planned
                            if previous.evidence is None or p[0] != previous.filling.tool.name
                        ]
                        planned.extend((merged.filling.tool.name, a) for a in merged.filling.calls())
                    continue
            out.append(item)
            if item.evidence is not None and item.decision is None:
                planned.extend((item.filling.tool.name, a) for a in item.filling.calls())
        return out

    def support(self, readings: list[Reading], i: int) -> list[Words]:
        """Statements around clause `i`, nearest first, and its own condition."""
        clause = readings[i].clause
        out = [replace(self.words(clause.condition), condition=True)] if clause.condition else []
        near = sorted(
            (j for j in range(len(readings)) if j != i),
            key=lambda j: (readings[j].clause.sentence != clause.sentence, abs(j - i), j > i),
        )
        for j in near:
            if readings[j].intent in _TELLS:
                told = self.words(readings[j].clause.text)
                out.append(replace(told, reason=readings[j].clause.sentence == clause.sentence and j > i))
        return out

    def _merged(
        self,
        previous: Resolved,
        reading: Reading,
        alone: Resolved,
        readings: list[Reading],
        planned: list[tuple[str, dict[str, Any]]],
    ) -> Resolved | None:
        """A clause that only completes the one before ("…, so put twelve hours"): both read as one, or None."""
        if previous.evidence is None or previous.reading.clause.condition != reading.clause.condition:
            return None
        if alone.evidence is not None and alone.evidence.score >= CERTAIN:
            return None
        strong = (
            alone.evidence is not None
            and alone.decision is None
            and (alone.evidence.features["verb"] >= 0.7 or alone.evidence.tool.reads)
        )
        if strong and reading.intent is Intent.REQUEST:
            return None
        gap = previous.filling
        text = f"{previous.reading.body}, {reading.body}"
        combined = Reading(previous.reading.clause, previous.reading.intent, text, previous.reading.excluded)
        others = [
            r for r in readings if r is not reading and r is not previous.reading and r.intent in _TELLS
        ]
        ranked = rank(
            [gap.tool],
            self.words(text),
            [self.words(r.clause.text) for r in others],
            self.memory(planned[:-1]),
            self.meaning,
            settings=self.settings,
        )
        filling = ranked[0].filling
        gained = {k for k in filling.args if gap.args.get(k) != filling.args[k]} | (
            set(filling.choices) - set(gap.choices)
        )
        lost = {k for k in gap.args if k not in filling.args}
        if not gained or lost or (previous.decision is None and not filling.complete):
            return None
        if (
            alone.evidence is not None
            and alone.decision is None
            and not (gained and len(filling.missing) < len(gap.missing))
            and reading.intent is Intent.FRAGMENT
        ):
            return None
        if (
            reading.intent is Intent.STATEMENT
            and not ({p.name for p in gap.missing} & gained)
            and not any((p := gap.tool.param(k)) is not None and p.kind == "enum" for k in gained)
        ):
            return None
        evidence = Evidence(filling, previous.evidence.features, previous.evidence.score)
        item = Resolved(combined, evidence)
        item.decision = check_filling(self, item, [])
        return item

    def resolve(
        self,
        reading: Reading,
        support: list[Words],
        planned: list[tuple[str, dict[str, Any]]],
        readings: Sequence[Reading] = (),
    ) -> Resolved:
        """What a clause comes to, without doing anything."""
        match reading.intent:
            case Intent.QUESTION:
                return self._question(reading, support, planned)
            case Intent.HYPOTHETICAL | Intent.CAPABILITY:
                return self._wondered(reading)
            case Intent.REQUEST | Intent.NEED | Intent.FRAGMENT:
                return self.request(reading, support, planned)
            case Intent.DELEGATION:
                return Resolved(
                    reading,
                    decision=Decision(
                        "ask",
                        "Which runbook or action do you mean? I found none that fits. " + cannot(self.tools),
                    ),
                )
            case _:
                arranged = self.request(reading, support, planned) if arranges(reading) else None
                if arranged is not None and arranged.evidence is not None and arranged.decision is None:
                    sure = (
                        arranged.evidence.features["verb"] >= SURE_VERB
                        or arranged.lead >= self.settings.clear_lead
                    )
                    if sure and not arranged.evidence.tool.reads:
                        return arranged
                return Resolved(reading)

    def _question(
        self, reading: Reading, support: list[Words], planned: list[tuple[str, dict[str, Any]]]
    ) -> Resolved:
        said, score = answer(reading.clause.text, self.conversation.passages, self.meaning, self.settings)
        reads = [t for t in self.tools if t.reads]
        follow_up = elliptic(self, reading, planned)
        if follow_up is not None and follow_up.tool.reads:
            return Resolved(reading, follow_up)
        ranked = rank(
            reads,
            self.words(reading.body),
            support,
            self.memory(planned),
            self.meaning,
            asks=True,
            settings=self.settings,
        )
        best = next(
            (e for e in ranked[:3] if e.filling.complete and e.score >= self.settings.read_floor), None
        )
        if (
            best is not None
            and not best.filling.used
            and not best.filling.args
            and best.features["meaning"] < _ABOUT
        ):
            alone = best is ranked[0] and (
                len(ranked) < 2 or best.score - ranked[1].score > self.settings.clear_margin
            )
            best = best if alone and not said else None
        if best is not None and said:
            about = bool(best.filling.used) and best.features["meaning"] > 0.2
            if not _asks_for_state(reading, best, said) and (
                not about or _NORMATIVE.search(reading.clause.text) or score > 0.62
            ):
                best = None
        if best is not None:
            return Resolved(reading, best)
        if said:
            return Resolved(reading, answer=said)
        top = ranked[0] if ranked else None
        if top is not None and top.score >= self.settings.read_floor + 0.4 and not top.filling.complete:
            return Resolved(reading, top, check_filling(self, Resolved(reading, top), ranked))
        if self.conversation.passages:
            text = "The passages that I have say nothing about that. " + cannot(self.tools)
        else:
            text = "I can't answer that: " + cannot(self.tools)
        return Resolved(reading, decision=Decision("refuse", text))

    def _wondered(self, reading: Reading) -> Resolved:
        said, _ = answer(reading.clause.text, self.conversation.passages, self.meaning, self.settings)
        if said:
            return Resolved(reading, answer=said)
        ranked = rank(
            self.tools, self.words(reading.body), [], Memory(), self.meaning, settings=self.settings
        )
        about = ""
        if ranked and ranked[0].features["meaning"] > 0.35:
            tool = ranked[0].tool
            needs = ", ".join(p.name.replace("_", " ") for p in tool.required)
            about = f" What I could do is “{tool.title}”: {tool.description}" + (
                f" It needs: {needs}." if needs else ""
            )
        return Resolved(
            reading, decision=Decision("ack", "That is a question, so I have done nothing." + about)
        )

    def request(
        self, reading: Reading, support: list[Words], planned: list[tuple[str, dict[str, Any]]],
        *, leaning: bool = True, trusted: bool = False, tools: Sequence[Tool] | None = None,
    ) -> Resolved:  # fmt: skip
        """A request as a filled tool, or the decision that keeps it from being done. `trusted`: a runbook's step."""
        follow_up = elliptic(self, reading, planned) if leaning else None
        if follow_up is not None:
            item = Resolved(reading, follow_up)
            item.decision = check_filling(self, item, [])
            return item
        body, reason = split_reason(reading.body)
        if reason:
            support = [replace(self.words(reason), reason=True), *support]
        ranked = rank(
            self.tools if tools is None else tools,
            self.words(reading.body),
            support,
            self.memory(planned),
            self.meaning,
            excluded=reading.excluded,
            settings=self.settings,
        )
        item = Resolved(reading, ranked[0] if ranked else None)
        item.lead = ranked[0].score - ranked[1].score if len(ranked) > 1 else CERTAIN
        if not ranked:
            item.decision = Decision("refuse", "I have no tools here, so I can't do that.")
            return item
        best = ranked[0]
        if best.tool.reads and not trusted:
            answerable = reading.intent is Intent.REQUEST and "read" in verb_groups(reading.body)[0]
            said, score = (
                answer(reading.clause.text, self.conversation.passages, self.meaning, self.settings)
                if answerable
                else ("", 0.0)
            )
            if said and (not best.filling.complete or _NORMATIVE.search(reading.clause.text) or score > 0.66):
                return Resolved(reading, answer=said)
        pointing = re.match(
            r"^(?:\w+ ){1,2}(?:it|them|that|this)\b(?! \w+(?:s|ed)?\b.*\d)", reading.body, re.IGNORECASE
        )
        if (
            pointing
            and not best.tool.reads
            and not self.memory(planned).calls
            and not support
            and not self.memory().texts
        ):
            item.decision = Decision(
                "ask", f"What do you mean by “{reading.body.strip()}”? Nothing was spoken of before."
            )
            return item
        item.derive = change(self, best, self.words(body))
        item.also = also(self, best, ranked, reading)
        item.decision = doubt(self, best, ranked, reading, item.also, trusted=trusted) or check_filling(
            self, item, ranked
        )
        return item

    # --- references to earlier turns ----------------------------------------------------------------------------

    # --- runbooks and delegation ---------------------------------------------------------------------------------

    def _runbook(self, readings: list[Reading], text: str) -> Runbook | None:
        """The runbook that the message asks for, or None. Without words that hand the matter over none is followed."""
        runbooks = find_runbooks(self.conversation.passages)
        if not runbooks:
            return None
        if any(
            r.intent in (Intent.PROHIBITION, Intent.HYPOTHETICAL, Intent.CAPABILITY)
            and "runbook" in r.clause.text.lower()
            for r in readings
        ):
            return None
        delegated = any(r.intent is Intent.DELEGATION for r in readings)
        asked = [r for r in readings if r.intent in DOES and not r.clause.condition]
        if not delegated and not asked:
            return None
        ranked = fitting(text, runbooks, self.meaning)
        score, best = ranked[0]
        if delegated:
            return (
                best
                if score >= self.settings.runbook_floor or (len(runbooks) == 1 and score > 0.15)
                else None
            )
        title = set(content_lemmas(best.title)) - {"step"}
        body = asked[0].body
        shared = (
            sum(any(related(w, s) for s in content_lemmas(body)) for w in title) / len(title)
            if title
            else 0.0
        )
        named = shared > self.settings.runbook_title
        direct = rank(self.tools, self.words(body), [], self.memory(), self.meaning, settings=self.settings)
        weak = not direct or direct[0].score < self.settings.action_floor or not direct[0].filling.complete
        return (
            best
            if weak
            and ((named and score >= self.settings.runbook_named) or score >= self.settings.runbook_close)
            else None
        )

    def _delegated(self, readings: list[Reading]) -> list[Reading]:
        """ "It's dark in the hallway, do something about it": the situation is read as the request."""
        told = [r for r in readings if r.intent in (Intent.STATEMENT, Intent.REPORT, Intent.FRAGMENT)]
        if not told:
            return readings
        return [Reading(told[0].clause, Intent.NEED, " ".join(r.clause.text for r in told))]

    def _acknowledge(self, readings: list[Reading]) -> Decision:
        intents = {r.intent for r in readings}
        if Intent.PROHIBITION in intents:
            return Decision("ack", "Understood: I won't do that. I have changed nothing.")
        if Intent.STATEMENT in intents and not intents & {Intent.REPORT}:
            return Decision(
                "ask",
                "Noted; I have done nothing. What would you like me to do about it? " + cannot(self.tools),
            )
        if intents & {Intent.CONSENT}:
            return Decision("ack", "There is nothing waiting for your answer.")
        return Decision(
            "ack",
            "Noted. That reads as information and not as a request, so I have done nothing. Is there anything that I should do?",
        )


def _needs_as_reasons(readings: list[Reading]) -> list[Reading]:
    """ "The cutter needs swapping, put it in for Thursday": the need is the reason for the request behind it."""
    out = list(readings)
    for i, (one, other) in enumerate(itertools.pairwise(readings)):
        same = one.clause.sentence == other.clause.sentence and other.intent is Intent.REQUEST
        if (
            one.intent is Intent.FRAGMENT
            and same
            and re.search(
                r"\b(?:it|them|him|her)\b|\bthat\b(?=\W*$|\s+(?:to|on|off|in|at|for|up|down)\b)",
                other.body,
                re.IGNORECASE,
            )
        ):
            out[i] = replace(one, intent=Intent.STATEMENT)
        if (
            one.intent is Intent.NEED
            and same
            and re.search(r"\b(?:needs?|has to|must|is due)\b", one.clause.text, re.IGNORECASE)
            and re.search(r"\b(?:it|them|that)\b", other.body, re.IGNORECASE)
        ):
            out[i] = replace(one, intent=Intent.STATEMENT)
    return out


def _asks_for_state(reading: Reading, best: Evidence, said: str) -> bool:
    """True where a question is about one thing that it names (line 3), which the tool reads and the passages do not speak of."""
    if _RULE.search(reading.clause.text) or best.features["nouns"] < _NAMED_NOUNS:
        return False
    named = [reading.body[start:end] for start, end in best.filling.used]
    return any(
        re.search(r"\d", name) and re.sub(r"\W+", "", name).lower() not in re.sub(r"\W+", "", said).lower()
        for name in named
    )


def _without_repeats(items: list[Resolved]) -> list[Resolved]:
    """Drop a reading that a later one narrows, and a few bare words beside something that was understood."""
    understood = [i for i in items if i.evidence is not None and i.decision is None]
    out = []
    for item in items:
        if item in understood and item.filling.tool.reads:
            own = item.filling.args.items()
            if any(
                o is not item and o.filling.tool is item.filling.tool and own < o.filling.args.items()
                for o in understood
            ):
                continue
        if item in understood and not item.filling.tool.reads and _said_before(item, understood):
            continue
        bare = item.reading.intent is Intent.FRAGMENT and len(item.reading.body.split()) <= 3
        if (
            understood
            and bare
            and item.decision is not None
            and (item.evidence is None or not item.filling.used)
        ):
            continue
        out.append(item)
    return out


def capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text else text


def _said_before(item: Resolved, understood: Sequence[Resolved]) -> bool:
    """Whether an action only says again, in other words, what an earlier clause asks for ("…, wipe it")."""
    own = item.filling.args.items()
    repeats = bool(item.filling.referred) or not item.filling.used
    return repeats and any(
        o.filling.tool is item.filling.tool and own <= o.filling.args.items() and not o.filling.choices
        for o in itertools.takewhile(lambda o: o is not item, understood)
    )
