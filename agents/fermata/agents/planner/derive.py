"""Values that are computed: "reduce it by 20 %" of what is read now, with the arithmetic in words.

The current value comes from a reading, never from memory of what was set."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from fermata.agents.planner.conditions import pick_number
from fermata.agents.planner.conversation import Result
from fermata.agents.planner.decision import Decision, Step
from fermata.agents.planner.figures import bounded, numeric
from fermata.agents.planner.quantities import Quantity, find_quantities
from fermata.agents.planner.ranking import (
    Evidence,
    rank,
    verb_groups,
)
from fermata.agents.planner.readings import values_of
from fermata.agents.planner.resolved import Resolved
from fermata.agents.planner.text import content_lemmas, related
from fermata.agents.planner.tools import Param
from fermata.agents.planner.units import convert, plain, tidy
from fermata.agents.planner.words_given import Words

if TYPE_CHECKING:
    from fermata.agents.planner.plan import Planner


def derive(
    planner: Planner, item: Resolved, situation: Sequence[Words] = ()
) -> Generator[list[Step], list[Result], str | Decision]:
    """Compute "by 10 %" from the current value; returns the arithmetic in words."""
    assert item.derive is not None
    param, quantity, sign = item.derive
    tool = item.filling.tool
    subject = tuple(dict.fromkeys((*content_lemmas(tool.title), *param.nouns, *param.description_nouns)))
    found = current(planner, subject, param)
    if found is None:
        reads = [t for t in planner.tools if t.reads]
        query = planner.words(
            f"what is the current {' '.join(w for w in tool.words[1:])} {' '.join(param.nouns)}"
        )
        planned = [(tool.name, item.filling.calls()[0])]
        ranked = rank(
            reads,
            query,
            [planner.words(item.reading.body), *situation],
            planner.memory(planned),
            planner.meaning,
            asks=True,
            settings=planner.settings,
        )
        for evidence in ranked[:2]:
            if evidence.filling.complete:
                yield from planner.perform(
                    [Step(evidence.tool.name, a) for a in evidence.filling.calls()[:1]]
                )
                found = current(planner, subject, param)
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


def current(planner: Planner, subject: tuple[str, ...], param: Param) -> float | None:
    """The newest reading of what a parameter sets."""
    for result in planner.results:
        if not result.ok:
            continue
        tool = planner.tool(result.call.name)
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
            return convert(float(value.value), value.unit, param.unit)
    return None


def change(planner: Planner, best: Evidence, words: Words) -> tuple[Param, Quantity, int] | None:
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
        if param.kind != "number" or param.identifies or param.relative or param.name in best.filling.args:
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
                q.unit is not None and param.unit is not None and convert(1.0, q.unit, param.unit) is not None
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


def _sensible(value: float, current: float, param: Param) -> float:
    """Round a computed value as a person would: whole for integers and large numbers, else as fine as the reading."""
    if param.schema.get("type") == "integer" or abs(current) >= 100:
        return float(round(value))
    return round(value, 1 if abs(current) >= 10 else 2)
