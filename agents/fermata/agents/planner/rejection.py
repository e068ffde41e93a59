"""What to do after a person has said no: their reason is taken up where it asks for something else.

A rejected call is never proposed again as it was. "Slow it down to 900 instead" is a request; "not below 1000 rpm" moves the
value to the limit; any other reason is said, and nothing is done in its place."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from fermata.agents.planner.clauses import split_clauses
from fermata.agents.planner.conditions import read_bound
from fermata.agents.planner.conversation import Result
from fermata.agents.planner.decision import Decision, Step
from fermata.agents.planner.figures import bounded, numeric
from fermata.agents.planner.intent import Intent, read_intent
from fermata.agents.planner.resolved import SURE_VERB
from fermata.agents.planner.speech import shown_args
from fermata.agents.planner.tools import Tool
from fermata.agents.planner.units import convert

if TYPE_CHECKING:
    from fermata.agents.planner.plan import Planner

_MAX_TAKEN_UP: Final = 3


def take_up(
    planner: Planner, step: Step, result: Result
) -> Generator[list[Step], list[Result], bool | Decision]:
    """After a rejection: do what its reason asks for instead. True if something else was done for it."""
    reason = re.sub(
        r"^\W*(?:rejected|denied|declined|refused)\b\W*(?:by [^:.]+[:.])?[:.\s-]*",
        "",
        result.text,
        flags=re.IGNORECASE,
    ).strip()
    planner.notes.append(
        f"{step.name} ({shown_args(result.call.args)}) was rejected"
        + (f": “{reason}”" if reason else "")
        + ", so it was not done."
    )
    tool = planner.tool(step.name)
    if not reason or tool is None or planner.taken_up >= _MAX_TAKEN_UP:
        return False
    planner.taken_up += 1
    bound = within(planner, tool, step, reason)
    if bound is not None:
        why = f"You rejected {step.name} ({shown_args(step.args)}): “{reason}”. So: {tool.title} ({shown_args(bound)})."
        return (yield from instead(planner, Step(tool.name, bound, why, True)))
    clauses = split_clauses(re.sub(r"\b(?:instead|rather)\b", "", reason), planner.verbs)
    for clause in clauses:
        reading = read_intent(clause, planner.verbs)
        if reading.intent is not Intent.REQUEST or clause.condition:
            continue
        item = planner.request(
            reading, [planner.words(planner.turn.human)], [(step.name, dict(step.args))], leaning=False
        )
        if item.evidence is None or item.decision is not None:
            continue
        if item.evidence.features["verb"] < SURE_VERB:
            continue
        steps = yield from planner.steps_of(item, why=f"You rejected {step.name}: “{reason}”.")
        if isinstance(steps, Decision):
            return steps
        if any(s.name == step.name and dict(s.args) == dict(result.call.args) for s in steps):
            continue
        for other in steps:
            done = yield from instead(planner, other)
            if done is not True:
                return done
        return True
    return False


def instead(planner: Planner, step: Step) -> Generator[list[Step], list[Result], bool | Decision]:
    results = yield from planner.perform([step])
    if results[0].rejected:
        return (yield from take_up(planner, step, results[0]))
    if results[0].failed:
        planner.notes.append(f"{step.name} failed: {results[0].text.strip()[:300]}")
        return False
    return True


def within(planner: Planner, tool: Tool, step: Step, reason: str) -> dict[str, Any] | None:
    """The step's arguments with one number moved to the limit that the reason names ("not below 1000 rpm")."""
    limit = read_bound(
        re.sub(
            r"\b(?:never|don't go|do not go|no lower|no higher|nothing|don't|do not)\b",
            lambda m: (
                "not" if m[0].lower() not in ("no lower", "no higher") else m[0].lower().replace("no", "not")
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
