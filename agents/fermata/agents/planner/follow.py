"""Follow a runbook: numbered steps become tool calls, with conditions on what earlier steps returned.

The position is never stored. The plan runs from step one at every call, over what has happened so far, and stops at
the first thing that has not. A step's arguments come from its own words, from the person's message and from readings.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Final, Literal

from fermata.agents.planner.clauses import Clause, split_clauses
from fermata.agents.planner.conditions import Verdict, read_bound
from fermata.agents.planner.conversation import Result
from fermata.agents.planner.decision import Decision, Pending, Plan, Step
from fermata.agents.planner.intent import Intent, Reading, read_intent
from fermata.agents.planner.plan import Planner, capital
from fermata.agents.planner.rejection import take_up
from fermata.agents.planner.resolved import DOES, Resolved
from fermata.agents.planner.runbook import Runbook
from fermata.agents.planner.speech import summary
from fermata.agents.planner.words_given import Words

_GOTO: Final = re.compile(
    r"\b(?:go (?:back |on |straight |directly )?(?:to|with)|continue (?:with|at|from)|skip (?:ahead )?to|return to|jump to|proceed (?:to|with|from)|repeat(?: from)?|start again (?:at|from)|move on to)\s+(?:the )?(?:step|point|number)\s*(\d+)",
    re.IGNORECASE,
)
_END: Final = re.compile(
    r"^(?:(?:then )?(?:you are |you're |we are )?(?:done|finished)|(?:stop|end|finish) (?:here|now|there|the (?:runbook|procedure|routine))|(?:the )?(?:runbook|procedure|routine) (?:ends|is (?:done|finished|complete))|no (?:further|more|other)? ?(?:actions?|steps?)(?: (?:is|are))?(?: (?:needed|required|necessary))?|nothing (?:more|else|further)? ?(?:to do|is needed|needs to be done)|do nothing(?: more)?|that(?:'s| is) (?:all|it)|leave it(?: at that)?|skip (?:the )?(?:rest|remaining steps))\W*$",
    re.IGNORECASE,
)  # fmt: skip
_WAIT: Final = re.compile(
    r"^(?:then )?(?:please )?(?:wait|pause for|allow|give it|let it (?:settle|run|cool|rest|stabilise|stabilize)|hold for)\b",
    re.IGNORECASE,
)
_VERIFY: Final = re.compile(
    r"^(?:then )?(?:please )?(?:verify|check|confirm|make sure|ensure|see|validate|double-check|assert)\s+(?:that |whether |if )?(?P<claim>.+)$",
    re.IGNORECASE,
)
_OTHERWISE: Final = re.compile(
    r"^(?:otherwise|else|if not|if it (?:isn't|is not|doesn't|does not|hasn't|has not)|in all other cases|failing that)\s*[,:]?\s+(?!\w+ (?:above|below|over|under))",
    re.IGNORECASE,
)
_IF_SO: Final = re.compile(r"^(?:if so|if yes|in that case|if it (?:is|does|has))\s*[,:]\s*", re.IGNORECASE)
_REFUSED: Final = re.compile(
    r"\b(?:reject|refus|den(?:y|ied)|not approv|isn't approv|disapprov|not (?:possible|allowed|permitted)|can't be|cannot be|impossible|no approval|not granted)",
    re.IGNORECASE,
)
_FAILED: Final = re.compile(
    r"\b(?:fails?|failed|error|does not work|doesn't work|unsuccessful)\b", re.IGNORECASE
)
_CLAIM: Final = re.compile(
    r"\b(?:is|are|has|have|was|were|isn't|aren't|hasn't|falls?|fell|drops?|dropped|rises?|rose|stays?|remains?|reads?|shows?|says?|runs?|works?|responds?|equals?|goes|went|no longer)\b",
    re.IGNORECASE,
)
_MAX_VISITS: Final = 4

Flow = Literal["next", "end"] | int


@dataclass(slots=True)
class _Progress:
    """Where a run through the steps stands."""

    held: bool | None = None  # what the last condition came to
    evidence: str = ""
    refused: str = ""  # why the last action was rejected
    failed: str = ""
    waits: int = 0
    condition: str = ""  # the condition of the step's clause before: one sentence is decided once


def follow(planner: Planner, runbook: Runbook, readings: list[Reading]) -> Plan:
    """Follow `runbook` for the situation that `readings` tell."""
    situation = [
        planner.words(r.clause.text)
        for r in readings
        if r.intent not in (Intent.PROHIBITION, Intent.HYPOTHETICAL)
    ]
    progress = _Progress()
    visits: dict[int, int] = {}
    numbers = [n for n, _ in runbook.steps]
    index = 0
    while index < len(runbook.steps):
        number, text = runbook.steps[index]
        visits[number] = visits.get(number, 0) + 1
        if visits[number] > _MAX_VISITS:
            planner.notes.append(
                f"Step {number} came up {_MAX_VISITS} times and the situation did not change, so I stop here. Please have a look."
            )
            break
        following = runbook.steps[index + 1][1] if index + 1 < len(runbook.steps) else ""
        flow = yield from _step(planner, runbook, number, text, following, situation, progress)
        if isinstance(flow, Decision):
            return flow
        if flow == "end":
            break
        if isinstance(flow, int):
            if flow not in numbers:
                planner.notes.append(
                    f"Step {number} points to step {flow}, which this runbook does not have, so I stop here."
                )
                break
            index = numbers.index(flow)
            continue
        index += 1
    stop = yield from _rest(planner, readings)
    if stop is not None:
        return stop
    return _report(planner, runbook)


def _report(planner: Planner, runbook: Runbook, more: str = "") -> Decision:
    done = summary(planner)
    head = f"I followed “{runbook.title}” [{runbook.passage.id}]."
    return Decision("done", "\n".join(x for x in [head, done, *planner.notes, more] if x))


def _rest(planner: Planner, readings: list[Reading]) -> Generator[list[Step], list[Result], Decision | None]:
    """What the person asked for beside the runbook, unless the runbook has done it."""
    covered = {r.clause.sentence for r in readings if r.intent is Intent.DELEGATION}
    if not covered:  # the request itself named the runbook
        return None
    for i, reading in enumerate(readings):
        if reading.intent is not Intent.REQUEST or reading.clause.sentence in covered:
            continue
        item = planner.request(reading, planner.support(readings, i), [])
        if (
            item.evidence is None
            or item.decision is not None
            or any(s.name == item.filling.tool.name for s, _ in planner.done)
        ):
            continue
        stop = yield from planner.act(item)
        if stop is not None:
            return stop
    return None


def _step(
    planner: Planner,
    runbook: Runbook,
    number: int,
    text: str,
    following: str,
    situation: list[Words],
    progress: _Progress,
) -> Generator[list[Step], list[Result], Flow | Decision]:
    """Carry out the text of one step; says where to go on."""
    clauses = split_clauses(text, planner.verbs)
    progress.condition = ""
    for position, clause in enumerate(clauses):
        lead = clauses[position - 1] if position else None
        if (
            lead is not None
            and lead.sentence == clause.sentence
            and re.fullmatch(r"(?:otherwise|else|if not|failing that)\W*", lead.text, re.IGNORECASE)
        ):
            clause = replace(clause, text=f"Otherwise, {clause.text}")
        if re.fullmatch(r"(?:otherwise|else|if not|failing that)\W*", clause.text, re.IGNORECASE):
            continue
        gate = yield from _gate(planner, clause, situation, progress)
        if gate is None:
            continue
        if isinstance(gate, Decision):
            return gate
        said = gate
        jump = _GOTO.search(said)
        if jump:
            return int(jump[1])
        if _END.match(said.strip()):
            return "end"
        if _WAIT.match(said):
            stop = yield from _wait(planner, runbook, number, said, situation, progress)
            if stop is not None:
                return stop
            continue
        claim = _VERIFY.match(said)
        if claim and _is_claim(claim["claim"]):
            stop = yield from _verify(
                planner, runbook, number, claim["claim"], following, text, situation, progress
            )
            if stop is not None:
                return stop
            continue
        stop = yield from _do(
            planner,
            runbook,
            number,
            text,
            replace(clause, text=said, condition="", condition_word=""),
            situation,
            progress,
        )
        if stop is not None:
            return stop
    return "next"


def _gate(
    planner: Planner, clause: Clause, situation: list[Words], progress: _Progress
) -> Generator[list[Step], list[Result], str | Decision | None]:
    """The words to act on if the clause's condition holds, else None."""
    said = clause.text
    otherwise, so = _OTHERWISE.match(said), _IF_SO.match(said)
    if otherwise:
        return said[otherwise.end() :] if progress.held is False else None
    if so:
        return said[so.end() :] if progress.held else None
    if not clause.condition:
        return said
    low = clause.condition.lower().strip()
    if low in ("not", "so", "yes", "no"):
        return said if progress.held is (low in ("so", "yes")) else None
    if _REFUSED.search(low):
        return said if progress.refused else None
    if _FAILED.search(low) and not planner.results_of_reads():
        return said if progress.failed else None
    wanted = clause.condition_word != "unless"
    if progress.condition == clause.condition and progress.held is not None:
        return said if progress.held is wanted else None
    verdict = yield from planner.check(clause.condition, said, situation=situation)
    if verdict.holds is None:
        if _FAILED.search(low):
            return said if progress.failed else None
        return _undecided(clause)
    progress.held, progress.condition = verdict.holds, clause.condition
    progress.evidence = verdict.evidence
    return said if verdict.holds is wanted else None


def _undecided(clause: Clause) -> Decision:
    return Decision(
        "ask",
        f"I can't tell whether “{clause.condition}” holds: no tool of mine reads it. Please tell me, and I go on with “{clause.text}” or leave it out.",
    )


def _is_claim(text: str) -> bool:
    return read_bound(text) is not None or bool(_CLAIM.search(text))


def _wait(
    planner: Planner, runbook: Runbook, number: int, said: str, situation: list[Words], progress: _Progress
) -> Generator[list[Step], list[Result], Decision | None]:
    """Wait with a tool if there is one; otherwise the person says when to go on."""
    waiting = [
        t
        for t in planner.tools
        if {"wait", "sleep", "delay", "pause"} & set(t.words[:1])
        and all(p.kind == "number" for p in t.required)
    ]
    if waiting:
        clause = Clause(said, 0, len(said))
        item = planner.request(Reading(clause, Intent.REQUEST, said), situation, [], tools=waiting)
        if item.evidence is not None and item.filling.complete:
            yield from planner.perform(
                [
                    Step(
                        item.filling.tool.name,
                        a,
                        f"Step {number} of “{runbook.title}” [{runbook.passage.id}]: {said}.",
                    )
                    for a in item.filling.calls()
                ]
            )
            return None
    progress.waits += 1
    if planner.continued >= progress.waits:
        return None
    text = f"{summary(planner)}\nStep {number} of “{runbook.title}” [{runbook.passage.id}] says: {said}. I can't wait by myself: write “continue” when it is time."
    return Decision("ask", text.strip(), pending=Pending(said, (), runbook=runbook.passage.id))


def _verify(
    planner: Planner,
    runbook: Runbook,
    number: int,
    claim: str,
    following: str,
    text: str,
    situation: list[Words],
    progress: _Progress,
) -> Generator[list[Step], list[Result], Decision | None]:
    """Read again and hold the claim against it; a claim that fails ends the runbook unless the next step deals with it."""
    verdict: Verdict = yield from planner.check(claim, claim, situation=situation, fresh=True)
    if verdict.holds is None:
        planner.notes.append(
            f"Step {number} wants “{claim}” verified; none of my tools shows it, so please check it yourself."
        )
        return None
    progress.held, progress.evidence = verdict.holds, verdict.evidence
    if verdict.holds:
        planner.notes.append(f"Verified: {verdict.evidence}.")
        return None
    handled = re.search(
        r"\b(?:otherwise|if not|if it (?:is|has|does)n'?t|still|if|else)\b",
        following + " " + text.split(claim)[-1],
        re.IGNORECASE,
    )
    if handled:
        return None
    return _report(
        planner,
        runbook,
        f"Step {number} is not met: {verdict.evidence}. I stop here; please decide how to go on.",
    )


def _do(
    planner: Planner,
    runbook: Runbook,
    number: int,
    text: str,
    clause: Clause,
    situation: list[Words],
    progress: _Progress,
) -> Generator[list[Step], list[Result], Decision | None]:
    """One instruction of a step as tool calls."""
    reading = read_intent(clause, planner.verbs)
    if reading.intent not in DOES:
        return None
    item = planner.request(reading, situation, [], leaning=False, trusted=True)
    if item.evidence is None:
        return None
    if item.decision is not None:
        if item.decision.kind == "refuse" and not item.filling.problems:
            planner.notes.append(
                f"Step {number} says “{clause.text.strip()}”; I have no tool for that, so it is left to you."
            )
            return None
        head = f"Step {number} of “{runbook.title}” [{runbook.passage.id}] says “{clause.text.strip()}”. "
        pending = (
            replace(item.decision.pending, runbook=runbook.passage.id) if item.decision.pending else None
        )
        return replace(
            item.decision,
            text="\n".join(x for x in [summary(planner), head + item.decision.text] if x),
            pending=pending,
        )
    _name_references(planner, item, situation)
    if planner.forbids(item):
        planner.notes.append(
            f"Step {number} says “{clause.text.strip()}”; you told me not to, so I left it out."
        )
        return None
    because = f"{capital(progress.evidence)}. " if progress.evidence else ""
    steps = yield from planner.steps_of(
        item,
        situation=situation,
        why=f"{because}Step {number} of “{runbook.title}” [{runbook.passage.id}]: “{text.strip().rstrip('.')}”.",
    )
    if isinstance(steps, Decision):
        return steps
    results = yield from planner.perform(steps)
    progress.refused = progress.failed = ""
    for step, result in zip(steps, results, strict=True):
        if result.rejected:
            progress.refused = result.text
            stop = yield from _refused(planner, runbook, number, step, result)
            if stop is not None:
                return stop
        elif result.failed:
            progress.failed = result.text
            later = " ".join(t for n, t in runbook.steps if n > number)
            planner.notes.append(f"Step {number}: {step.name} failed: {result.text.strip()[:300]}")
            if not re.search(rf"\bif\b[^.]*{_FAILED.pattern}", later, re.IGNORECASE):
                return _report(
                    planner, runbook, f"I stop at step {number}; the steps behind it are not done."
                )
    return None


def _name_references(planner: Planner, item: Resolved, situation: list[Words]) -> None:
    """In what is told to people, put "the line" by its name: "the line runs hot" -> "line 3 runs hot"."""
    for param in item.filling.tool.params:
        text = item.filling.args.get(param.name)
        if param.kind != "text" or not isinstance(text, str):
            continue
        for m in reversed(
            list(re.finditer(r"\b(?:the|this|that|its) ([a-z]+)\b(?!\s*\d)", text, re.IGNORECASE))
        ):
            name = planner.name_of(m[1], situation)
            if name:
                text = text[: m.start()] + name + text[m.end() :]
        item.filling.args[param.name] = text


def _refused(
    planner: Planner, runbook: Runbook, number: int, step: Step, result: Result
) -> Generator[list[Step], list[Result], Decision | None]:
    """After a rejection: what the person wants instead, else what the runbook names, else stop."""
    taken = yield from take_up(planner, step, result)
    if isinstance(taken, Decision):
        return taken
    if taken:
        return None
    later = " ".join(t for n, t in runbook.steps if n >= number)
    if re.search(rf"\b(?:if|unless)\b[^.]*{_REFUSED.pattern}", later, re.IGNORECASE):
        return None
    return _report(planner, runbook, f"The steps behind step {number} are not done.")
