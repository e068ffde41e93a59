"""From a person's message to steps: the plan of one turn.

Clauses are read for their intent; requests and questions are ranked against the tools and filled; runbooks are
followed. Everything is resolved before anything is done: if one part of a message needs a question back, nothing of
it is started.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fermata.agents.planner.answers import answer
from fermata.agents.planner.candidates import Words, bounded, candidates, numeric
from fermata.agents.planner.clauses import corrected, split_clauses, split_reason
from fermata.agents.planner.conditions import Verdict, judge, pick_number, read_bound
from fermata.agents.planner.conversation import Conversation, Result, Turn
from fermata.agents.planner.decision import Decision, Pending, Plan, Step, replay
from fermata.agents.planner.filling import Filling, Memory
from fermata.agents.planner.intent import Intent, Reading, read_intent
from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.names import catalogue, names_in_data
from fermata.agents.planner.quantities import Quantity, find_quantities
from fermata.agents.planner.ranking import (
    Evidence,
    are_opposites,
    is_foreign,
    rank,
    tool_verbs,
    verb_fits,
    verb_groups,
    vocabulary,
)
from fermata.agents.planner.readings import values_of
from fermata.agents.planner.runbook import Runbook, find_runbooks, fitting
from fermata.agents.planner.settings import DEFAULT, Settings
from fermata.agents.planner.speech import ask_missing, ask_which, cannot, out_of_bounds, shown_args, summary
from fermata.agents.planner.text import content_lemmas, known_verbs, lemma, related
from fermata.agents.planner.times import find_times, today_of
from fermata.agents.planner.tools import Param, Tool
from fermata.agents.planner.units import convert, plain, tidy

DOES: Final = frozenset({Intent.REQUEST, Intent.NEED, Intent.FRAGMENT})
_TELLS: Final = frozenset({Intent.STATEMENT, Intent.REPORT, Intent.NEED})
_NORMATIVE: Final = re.compile(
    r"\b(?:may|should|must|shall|allowed|permitted|supposed|how (?:do|to|often|long|soon|early|late|heavy|fast|big)|why|up to|need(?:ed|s)? to|policy|rule|according to|says? about|maximum|minimum|recommended|usually|normally|mean|difference)\b",
    re.IGNORECASE,
)
CONTINUE: Final = re.compile(
    r"^\s*(?:ok(?:ay)?[, ]*)?(?:please )?(?:continue|go on|carry on|proceed|resume|next)\b[^a-z]*(?:please)?\W*$",
    re.IGNORECASE,
)
_UNDO: Final = re.compile(
    r"\b(?:undo|reverse|revert|take back)\b(?: (?:it|that|this|the last \w+))?\s*$|\btake (?:it|that) back\b",
    re.IGNORECASE,
)
_CONDITIONAL: Final = re.compile(
    r"\b(?:if|unless|in case|provided|as long as|as soon as|whenever|depending on|only when|except when|on condition)\b",
    re.IGNORECASE,
)
_MAX_TAKEN_UP: Final = 3
_SURE_VERB: Final = 0.4
_CERTAIN: Final = 99.0
_ABOUT: Final = 0.3
_NAMED: Final = 0.8
_STRONG_VERB: Final = 0.7
_TWO_TYPED: Final = 0.5


@dataclass(slots=True)
class Resolved:
    """What a clause comes to: steps (perhaps behind a condition), or a reason why not."""

    reading: Reading
    evidence: Evidence | None = None
    decision: Decision | None = None
    answer: str = ""
    derive: tuple[Param, Quantity, int] | None = None
    also: list[Evidence] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def filling(self) -> Filling:
        assert self.evidence is not None
        return self.evidence.filling


class Planner:
    """Plans the last turn of a conversation with a set of tools."""

    def __init__(
        self,
        conversation: Conversation,
        tools: Sequence[Tool],
        meaning: Meaning,
        settings: Settings = DEFAULT,
    ) -> None:
        self.conversation = conversation
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
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.results: list[Result] = []
        self.done: list[tuple[Step, Result]] = []
        self.notes: list[str] = []
        self.forbidden: list[tuple[str, dict[str, Any]]] = []
        self.continued = 0
        earlier = conversation.turns[-2] if len(conversation.turns) > 1 else None
        self.asked = earlier is not None and earlier.said.rstrip().endswith("?")
        self._taken_up = 0

    def decide(self) -> Decision:
        """The next decision of the turn."""
        waiting = self._pending()
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
        text = corrected(self._chosen(self.turn.human))
        readings = [read_intent(c, self.verbs) for c in split_clauses(text, self.verbs)]
        readings = _needs_as_reasons(readings)
        self._forbid(readings)
        if pending is not None:
            resumed = yield from self._resume(pending, text, readings)
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
        resolved = _without_repeats(self._resolve_all(readings))
        for item in resolved:
            if item.decision is not None and item.reading.intent in (*DOES, Intent.DELEGATION):
                return item.decision
        return (yield from self._carry_out(resolved, readings))

    def _chosen(self, text: str) -> str:
        """The offer that "the latter" or "the first one" picks out of the last question, else `text` itself."""
        m = re.fullmatch(
            r"\W*(?:the |take the |let's do the )?(latter|former|first|second|last)(?: one| option)?(?: please)?\W*",
            text,
            re.IGNORECASE,
        )
        if not m or not self.asked:
            return text
        offers = re.split(r"\bor\b", self.conversation.turns[-2].said.rstrip(" ?"))
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
        if self.forbids(item):
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
                taken = yield from self.take_up(step, result)
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
            derived = yield from self._derive(item, situation)
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
        places = [max(s for s, _ in e.filling.used) for e in (item, *item.also)]
        return [s for _, s in sorted(zip(places, steps, strict=True), key=lambda p: p[0])]

    def take_up(self, step: Step, result: Result) -> Generator[list[Step], list[Result], bool | Decision]:
        """After a rejection: do what its reason asks for instead. True if something else was done for it."""
        reason = re.sub(
            r"^\W*(?:rejected|denied|declined|refused)\b\W*(?:by [^:.]+[:.])?[:.\s-]*",
            "",
            result.text,
            flags=re.IGNORECASE,
        ).strip()
        self.notes.append(
            f"{step.name} ({shown_args(result.call.args)}) was rejected"
            + (f": “{reason}”" if reason else "")
            + ", so it was not done."
        )
        tool = self.tool(step.name)
        if not reason or tool is None or self._taken_up >= _MAX_TAKEN_UP:
            return False
        self._taken_up += 1
        bound = self._within(tool, step, reason)
        if bound is not None:
            why = f"You rejected {step.name} ({shown_args(step.args)}): “{reason}”. So: {tool.title} ({shown_args(bound)})."
            return (yield from self._instead(Step(tool.name, bound, why, True)))
        clauses = split_clauses(re.sub(r"\b(?:instead|rather)\b", "", reason), self.verbs)
        for clause in clauses:
            reading = read_intent(clause, self.verbs)
            if reading.intent is not Intent.REQUEST or clause.condition:
                continue
            item = self.request(
                reading, [self.words(self.turn.human)], [(step.name, dict(step.args))], elliptic=False
            )
            if item.evidence is None or item.decision is not None:
                continue
            if item.evidence.features["verb"] < _SURE_VERB:
                continue
            steps = yield from self.steps_of(item, why=f"You rejected {step.name}: “{reason}”.")
            if isinstance(steps, Decision):
                return steps
            if any(s.name == step.name and dict(s.args) == dict(result.call.args) for s in steps):
                continue
            for other in steps:
                done = yield from self._instead(other)
                if done is not True:
                    return done
            return True
        return False

    def _instead(self, step: Step) -> Generator[list[Step], list[Result], bool | Decision]:
        results = yield from self.perform([step])
        if results[0].rejected:
            return (yield from self.take_up(step, results[0]))
        if results[0].failed:
            self.notes.append(f"{step.name} failed: {results[0].text.strip()[:300]}")
            return False
        return True

    def _within(self, tool: Tool, step: Step, reason: str) -> dict[str, Any] | None:
        """The step's arguments with one number moved to the limit that the reason names ("not below 1000 rpm")."""
        limit = read_bound(
            re.sub(
                r"\b(?:never|don't go|do not go|no lower|no higher|nothing|don't|do not)\b",
                lambda m: (
                    "not"
                    if m[0].lower() not in ("no lower", "no higher")
                    else m[0].lower().replace("no", "not")
                ),
                reason,
                flags=re.IGNORECASE,
            )
        )
        if limit is None or limit.op not in (">=", "<="):
            return None
        for param in tool.params:
            now = step.args.get(param.name)
            if param.kind != "number" or param.identifies or not isinstance(now, int | float):
                continue
            edge = convert(limit.limit.value, limit.limit.unit, param.unit)
            if edge is None or bounded(param, edge):
                continue
            if (limit.op == ">=" and now < edge) or (limit.op == "<=" and now > edge):
                return {**step.args, param.name: numeric(param, edge)}
        return None

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

    def forbids(self, item: Resolved) -> bool:
        """Whether the person's message forbids just this: the same tool, and nothing else named than what it concerns."""
        for name, args in self.forbidden:
            if name == item.filling.tool.name and all(
                any(call.get(k) == v for call in item.filling.calls()) for k, v in args.items()
            ):
                return True
        return False

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
            results = yield from self.perform(
                [Step(evidence.tool.name, args) for args in evidence.filling.calls()]
            )
            verdict = judge(condition, results, request)
            if verdict.holds is not None:
                return verdict
            break
        return Verdict(None, "")

    def _derive(
        self, item: Resolved, situation: Sequence[Words] = ()
    ) -> Generator[list[Step], list[Result], str | Decision]:
        """Compute "by 10 %" from the current value; returns the arithmetic in words."""
        assert item.derive is not None
        param, quantity, sign = item.derive
        tool = item.filling.tool
        subject = tuple(dict.fromkeys((*content_lemmas(tool.title), *param.nouns, *param.description_nouns)))
        found = self._current(subject, param)
        if found is None:
            reads = [t for t in self.tools if t.reads]
            query = self.words(
                f"what is the current {' '.join(w for w in tool.words[1:])} {' '.join(param.nouns)}"
            )
            planned = [(tool.name, item.filling.calls()[0])]
            ranked = rank(
                reads,
                query,
                [self.words(item.reading.body), *situation],
                self.memory(planned),
                self.meaning,
                asks=True,
                settings=self.settings,
            )
            for evidence in ranked[:2]:
                if evidence.filling.complete:
                    yield from self.perform(
                        [Step(evidence.tool.name, a) for a in evidence.filling.calls()[:1]]
                    )
                    found = self._current(subject, param)
                    break
        if found is None:
            return Decision(
                "ask",
                f"What should the new {' '.join(param.words)} be? I could not read its current value to compute the change.",
            )
        change = (
            f"{plain(quantity.value * (100 if quantity.unit and quantity.unit.name == 'fraction' else 1))} %"
            if quantity.unit and quantity.unit.dimension == "ratio"
            else plain(quantity.value)
        )
        if quantity.unit is not None and quantity.unit.dimension == "ratio":
            share = quantity.value * quantity.unit.factor / 100
            value = found * (1 + sign * share)
            shown = f"{plain(found)} × {plain(tidy(1 + sign * share))}"
        else:
            step = convert(quantity.value, quantity.unit, param.unit)
            value = found + sign * (step if step is not None else quantity.value)
            shown = f"{plain(found)} {'+' if sign > 0 else '-'} {plain(quantity.value)}"
        value = _sensible(value, found, param)
        problem = bounded(param, value)
        if problem:
            return Decision(
                "refuse",
                f"{shown} = {plain(value)}, but {' '.join(param.words)} must be {problem}. I have changed nothing.",
            )
        item.filling.args[param.name] = numeric(param, value)
        unit = f" {param.unit.name}" if param.unit else ""
        return f"The current value is {plain(found)}{unit}; {change} {'more' if sign > 0 else 'less'} is {shown} = {plain(value)}{unit}."

    def _current(self, subject: tuple[str, ...], param: Param) -> float | None:
        """The newest reading of what a parameter sets."""
        for result in self.results:
            if not result.ok:
                continue
            tool = self.tool(result.call.name)
            if tool is None or not tool.reads:
                continue
            numbers = [
                v
                for v in values_of(result.data)
                if isinstance(v.value, int | float) and not isinstance(v.value, bool)
            ]
            numbers = [
                v
                for v in numbers
                if param.unit is None or v.unit is None or convert(1.0, v.unit, param.unit) is not None
            ]
            words = set(
                content_lemmas(
                    " ".join([tool.title, *(str(a).replace("_", " ") for a in result.call.args.values())])
                )
            )
            about = any(related(w, s) for w in words for s in subject)
            value = pick_number(subject, numbers, None, result)
            named = value is not None and any(related(k, s) for k in value.words for s in subject)
            same_unit = value is not None and value.unit is not None and param.unit is not None
            if value is not None and (named or same_unit or (value.generic and about)):
                converted = convert(float(value.value), value.unit, param.unit)
                return converted
        return None

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
        if alone.evidence is not None and alone.evidence.score >= _CERTAIN:
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
            and not (set(p.name for p in gap.missing) & gained)
            and not any((p := gap.tool.param(k)) is not None and p.kind == "enum" for k in gained)
        ):
            return None
        evidence = Evidence(filling, previous.evidence.features, previous.evidence.score)
        item = Resolved(combined, evidence)
        item.decision = self._check_filling(item, [])
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
                return Resolved(reading)

    def _question(
        self, reading: Reading, support: list[Words], planned: list[tuple[str, dict[str, Any]]]
    ) -> Resolved:
        said, score = answer(reading.clause.text, self.conversation.passages, self.meaning, self.settings)
        reads = [t for t in self.tools if t.reads]
        follow_up = self._elliptic(reading, planned)
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
            if not about or _NORMATIVE.search(reading.clause.text) or score > 0.62:
                best = None
        if best is not None:
            return Resolved(reading, best)
        if said:
            return Resolved(reading, answer=said)
        top = ranked[0] if ranked else None
        if top is not None and top.score >= self.settings.read_floor + 0.4 and not top.filling.complete:
            return Resolved(reading, top, self._check_filling(Resolved(reading, top), ranked))
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
        *, elliptic: bool = True, trusted: bool = False, tools: Sequence[Tool] | None = None,
    ) -> Resolved:  # fmt: skip
        """A request as a filled tool, or the decision that keeps it from being done. `trusted`: a runbook's step."""
        follow_up = self._elliptic(reading, planned) if elliptic else None
        if follow_up is not None:
            item = Resolved(reading, follow_up)
            item.decision = self._check_filling(item, [])
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
        item.derive = self._change(best, self.words(body))
        item.also = self._also(best, ranked, reading)
        item.decision = self._doubt(best, ranked, reading, item.also, trusted=trusted) or self._check_filling(
            item, ranked
        )
        return item

    def _also(self, best: Evidence, ranked: list[Evidence], reading: Reading) -> list[Evidence]:
        """Further tools that one clause asks for ("set T3 to 8 °C and 1.2 bar"): each takes a quantity of its own."""
        out: list[Evidence] = []
        if best.tool.reads or not best.filling.complete or best.filling.choices or best.filling.rows:
            return out
        taken = list(best.filling.used)
        for q in find_quantities(reading.body):
            if q.unit is None or any(a < q.end and q.start < b for a, b in taken):
                continue
            for e in ranked[1:5]:
                shared = any(best.filling.args.get(k) == v for k, v in e.filling.args.items())
                own = any(a <= q.start < b for a, b in e.filling.used)
                able = not e.tool.reads and e.filling.complete and not e.features["opposite"]
                if able and own and shared and e.features["verb"] >= best.features["verb"]:
                    out.append(e)
                    taken.append((q.start, q.end))
                    break
        return out

    def _doubt(
        self,
        best: Evidence,
        ranked: list[Evidence],
        reading: Reading,
        also: Sequence[Evidence],
        *,
        trusted: bool,
    ) -> Decision | None:
        """Why the best tool is not good enough: nothing fits, or two are close."""
        floor = self.settings.read_floor if best.tool.reads else self.settings.action_floor
        floor = self.settings.step_floor if trusted else floor
        margin = self.settings.action_margin * (0.3 if trusted else 1.0)
        if not best.tool.reads and best.features["verb"] < _SURE_VERB:
            if best.filling.weak and not trusted and best.features["typed"] < _TWO_TYPED:
                return Decision(
                    "ask",
                    f"I am not sure what to do about “{reading.clause.text.strip()}”. "
                    + cannot(self.tools)
                    + " Which of these, if any?",
                )
            if is_foreign(best, reading.body) and best.features["typed"] < _TWO_TYPED and not trusted:
                return Decision(
                    "refuse", f"I can't do “{reading.clause.text.strip()}”. " + cannot(self.tools)
                )
            floor += self.settings.verbless * (0.0 if trusted else 1.0)
            if best.features["typed"] < _TWO_TYPED and not trusted:
                floor, margin = floor + self.settings.lone, margin + self.settings.lone
            margin += self.settings.verbless * (0.1 if trusted else 0.3)
        elif (
            not trusted
            and not best.tool.reads
            and best.features["nouns"] < self.settings.alien
            and best.features["typed"] < _TWO_TYPED
        ):
            return Decision("refuse", f"I can't do “{reading.clause.text.strip()}”. " + cannot(self.tools))
        elif best.features["verb"] >= _STRONG_VERB and best.filling.complete and not best.features["unused"]:
            floor -= self.settings.verbless / 2
        if best.score < floor or best.features["opposite"]:
            return Decision("refuse", f"I can't do “{reading.clause.text.strip()}”. " + cannot(self.tools))
        if (
            not best.tool.reads
            and not trusted
            and not reading.clause.condition
            and _CONDITIONAL.search(reading.body)
        ):
            return Decision(
                "ask",
                f"On what condition exactly do you want “{reading.clause.text.strip()}”? I did not understand it, so I have done nothing.",
            )
        if best.tool.reads:
            if reading.intent is Intent.REQUEST and is_foreign(best, reading.body):
                return Decision(
                    "refuse", f"I can't do “{reading.clause.text.strip()}”. " + cannot(self.tools)
                )
            return None
        rivals = [
            e for e in ranked[1:4]
            if not e.tool.reads and e not in also and best.score - e.score < margin and not e.features["opposite"] and e.filling.share >= best.filling.share
        ]  # fmt: skip
        if rivals:
            names = [best.tool, *(e.tool for e in rivals)]
            return Decision(
                "ask", ask_which(names), pending=Pending(reading.body, tuple(t.name for t in names))
            )
        return None

    def _check_filling(self, item: Resolved, ranked: Sequence[Evidence]) -> Decision | None:
        """What keeps a chosen tool from being called: missing, doubtful or impossible arguments."""
        filling, reading = item.filling, item.reading
        tool = filling.tool
        if filling.problems:
            param, c = filling.problems[0]
            return Decision(
                "refuse",
                out_of_bounds(tool, param, c.value, c.problem),
                pending=Pending(reading.body, (tool.name,), (param.name,)),
            )
        missing = [p for p in filling.missing if item.derive is None or p is not item.derive[0]]
        if filling.doubtful:
            name, values = next(iter(filling.doubtful.items()))
            shown = ", ".join(str(v) for v in values)
            return Decision(
                "ask",
                f"Which {name.replace('_', ' ')} do you mean: {shown}?",
                pending=Pending(reading.body, (tool.name,), (name,)),
            )
        if missing:
            return Decision(
                "ask",
                ask_missing(tool, missing, self.names),
                pending=Pending(reading.body, (tool.name,), tuple(p.name for p in missing)),
            )
        if not tool.reads:
            loose = self._unplaced(filling, reading, item.derive, item.also)
            if loose:
                return Decision(
                    "ask",
                    f"I can't place “{loose}” in “{tool.title}” ({shown_args(filling.calls()[0])}). Shall I do it without that?",
                    pending=Pending(reading.body, (tool.name,)),
                )
        return None

    def _unplaced(
        self,
        filling: Filling,
        reading: Reading,
        derive: tuple[Param, Quantity, int] | None = None,
        also: Sequence[Evidence] = (),
    ) -> str:
        """A day, a time or a quantity of the request that no argument took: doing it without would be something else."""
        body = reading.body
        for w in find_times(body, self.today):
            if w.clock is not None or w.day is not None:
                low = body[w.start : w.end].lower()
                placed = w.day is not None and any(w.day.isoformat() in str(v) for v in filling.args.values())
                if (
                    placed
                    or low in ("today", "tonight")
                    or any(a < w.end and w.start < b for a, b in filling.used)
                ):
                    continue
                return body[w.start : w.end]
        for q in find_quantities(body):
            if any(a < q.end and q.start < b for a, b in filling.used) or (q.unit is None and not q.digits):
                continue
            if derive is not None and q == derive[1]:
                continue
            if any(a <= q.start < b for e in also for a, b in e.filling.used):
                continue
            if any(
                isinstance(v, int | float) and abs(float(v) - q.value) < 1e-9 for v in filling.args.values()
            ):
                continue
            return body[q.start : q.end]
        return ""

    def _change(self, best: Evidence, words: Words) -> tuple[Param, Quantity, int] | None:
        """A change of an absolute parameter ("reduce it by 20 %"): the parameter, the change, its sign."""
        tool = best.tool
        groups, _ = verb_groups(words.text)
        low = words.text.lower()
        sign = 1 if "raise" in groups and "lower" not in groups else -1 if "lower" in groups else 0
        if re.search(r"\b(?:below|lower|less|slower|down|under)\b", low):
            sign = sign or -1
        elif re.search(r"\b(?:above|higher|more|faster|up|over)\b", low):
            sign = sign or 1
        for param in tool.params:
            if (
                param.kind != "number"
                or param.identifies
                or param.relative
                or param.name in best.filling.args
            ):
                continue
            for q in find_quantities(words.text):
                ratio = q.unit is not None and q.unit.dimension == "ratio"
                if not (
                    q.role == "change"
                    or (
                        ratio
                        and re.search(
                            r"\b(?:below|above|less|more|lower|higher|faster|slower)\b",
                            low[q.end : q.end + 12],
                        )
                    )
                ):
                    continue
                same = (
                    q.unit is not None
                    and param.unit is not None
                    and convert(1.0, q.unit, param.unit) is not None
                )
                if sign and (ratio or same or q.unit is None):
                    return param, q, sign
            whole = re.search(r"\b(?:halve|half (?:of )?(?:its|the|their) (?:current )?\w+|by half)\b", low)
            if whole:
                half = Quantity(
                    50.0, find_quantities("50 %")[0].unit, whole.start(), whole.end(), "change", "", ""
                )
                return param, half, -1
        return None

    # --- references to earlier turns ----------------------------------------------------------------------------

    def _elliptic(self, reading: Reading, planned: Sequence[tuple[str, dict[str, Any]]]) -> Evidence | None:
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
            for turn in reversed(self.conversation.turns[:-1])
            for c in reversed(turn.calls)
        ]
        if not earlier:
            return None
        tool = self.tool(earlier[0][0])
        if tool is None:
            return None
        undone = self._undone(low, earlier)
        if undone is not None:
            return undone
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
        clause = self.words(body)
        filling = Filling(tool, args=dict(earlier[0][1]))
        changed = False
        used: list[tuple[int, int]] = []
        for param in sorted(tool.params, key=lambda p: not p.required):
            found = [
                c
                for c in candidates(param, clause, self.meaning, tool.params)
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
        return Evidence(filling, {"verb": 1.0, "meaning": 1.0, "opposite": 0.0}, _CERTAIN)

    def _undone(self, low: str, earlier: Sequence[tuple[str, dict[str, Any]]]) -> Evidence | None:
        """ "Undo that": the tool that does the opposite of the last action, with the same arguments."""
        if not _UNDO.search(low):
            return None
        for name, args in earlier:
            done = self.tool(name)
            if done is None or done.reads:
                continue
            fits = [
                t
                for t in self.tools
                if not t.reads and all(p.name in args for p in t.required) and are_opposites(done, t)
            ]
            if len(fits) != 1:
                return None
            known = {p.name for p in fits[0].params}
            filling = Filling(fits[0], args={k: v for k, v in args.items() if k in known})
            return Evidence(filling, {"verb": 1.0, "meaning": 1.0, "opposite": 0.0}, _CERTAIN)
        return None

    def _pending(self) -> Pending | None:
        """What the last question to the person was about, found by planning that turn again."""
        turns = self.conversation.turns
        if (
            len(turns) < 2
            or not turns[-2].human
            or (len(turns) > 1
            and turns[-2].said.strip() == ""
            and turns[-2].calls)
        ):
            return None
        if (
            not re.search(r"\?|which|please (?:tell|say|give)|what ", turns[-2].said.lower())
            and turns[-2].calls
        ):
            return None
        earlier = Planner(self.conversation.before(len(turns) - 2), self.tools, self.meaning, self.settings)
        decision = earlier.decide()
        return decision.pending if decision.kind in ("ask", "refuse") else None

    def _resume(
        self, pending: Pending, text: str, readings: list[Reading]
    ) -> Generator[list[Step], list[Result], Decision | None]:
        """Go on with a request that waited for an answer; None if the message is about something else."""
        intents = {r.intent for r in readings}
        if Intent.REFUSAL in intents and len(readings) == 1:
            return Decision("ack", "All right, I leave it at that.")
        if intents & {Intent.PROHIBITION, Intent.HYPOTHETICAL, Intent.QUESTION}:
            return None
        if pending.steps and Intent.CONSENT in intents:
            yield from self.perform(list(pending.steps))
            return Decision("done", summary(self))
        if not pending.tools:
            return None
        for reading in readings:
            if reading.intent is Intent.REQUEST and self.request(reading, [], []).decision is None:
                return None
        tools = [t for t in self.tools if t.name in pending.tools]
        if len(tools) > 1:
            chosen = rank(
                tools,
                self.words(f"{text}"),
                [self.words(pending.text)],
                self.memory(),
                self.meaning,
                settings=self.settings,
            )
            tools = [chosen[0].tool]
        if not tools:
            return None
        tool = tools[0]
        reply = self.words(text)
        support = [reply]
        for name in pending.missing:
            param = tool.param(name)
            if param is not None:
                support.append(self.words(f"{' '.join(param.nouns)} {text}"))
        ranked = rank(
            [tool], self.words(pending.text), support, self.memory(), self.meaning, settings=self.settings
        )
        filling = ranked[0].filling
        gained = [n for n in pending.missing if n in filling.args or n in filling.choices]
        for param in list(filling.missing):
            if param.kind == "text" and len(filling.missing) == 1 and not gained:
                filling.args[param.name] = text.strip()
                filling.missing.remove(param)
                gained.append(param.name)
            elif param.kind in ("name", "text") and len(text.split()) <= 3 and len(filling.missing) == 1:
                filling.args[param.name] = text.strip(" .!")
                filling.missing.remove(param)
                gained.append(param.name)
        if not gained and pending.missing:
            return None
        reading = Reading(readings[0].clause, Intent.REQUEST, pending.text) if readings else None
        if reading is None:
            return None
        item = Resolved(
            Reading(reading.clause, reading.intent, f"{pending.text} ({text})"),
            Evidence(filling, ranked[0].features, ranked[0].score),
        )
        for param in list(filling.missing):
            if filling.problems and filling.problems[0][0] is param:
                filling.missing.remove(param)
        stop = None
        if filling.missing or filling.problems or filling.doubtful:
            stop = self._check_filling(item, [])
        if stop is not None:
            return stop
        ended = yield from self.act(item)
        return ended or Decision("done", "\n".join(x for x in [summary(self), *self.notes] if x))

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
                best if score >= self.settings.runbook_floor or (len(runbooks) == 1 and score > 0.15) else None
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
    for i, (one, other) in enumerate(zip(readings, readings[1:], strict=False)):
        same = one.clause.sentence == other.clause.sentence and other.intent is Intent.REQUEST
        if (
            one.intent is Intent.FRAGMENT
            and same
            and re.search(r"\b(?:it|them|that|him|her)\b", other.body, re.IGNORECASE)
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


def _sensible(value: float, current: float, param: Param) -> float:
    """Round a computed value as a person would: whole for integers and large numbers, else as fine as the reading."""
    if param.schema.get("type") == "integer" or abs(current) >= 100:
        return float(round(value))
    return round(value, 1 if abs(current) >= 10 else 2)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text else text
