"""Why a request is not done as it stands: nothing fits, two tools are close, something is missing, impossible or left over."""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fermata.agents.planner.decision import Decision, Pending
from fermata.agents.planner.filling import Filling
from fermata.agents.planner.intent import Intent, Reading
from fermata.agents.planner.quantities import Quantity, find_quantities
from fermata.agents.planner.ranking import (
    Evidence,
    is_foreign,
    tool_verbs,
)
from fermata.agents.planner.resolved import SURE_VERB, Resolved
from fermata.agents.planner.speech import ask_missing, ask_which, cannot, out_of_bounds, shown_args
from fermata.agents.planner.times import find_times
from fermata.agents.planner.tools import Param

if TYPE_CHECKING:
    from fermata.agents.planner.plan import Planner

_CONDITIONAL: Final = re.compile(
    r"\b(?:if|unless|in case|provided|as long as|as soon as|whenever|depending on|only when|except when|on condition)\b",
    re.IGNORECASE,
)
#: What ends or takes away is never done for a verb that does not say so.
_ENDING_VERBS: Final = frozenset({"stop", "cancel", "delete", "disable", "reject"})
_END: Final = re.compile(
    r"\b(?:off|out|down|away|gone|rid|over|ends?|enough|un\w+|back|no (?:more|longer)|not|kill\w*|forget\w*|forgotten|plug|quiet|shut|wipe|erase)\b",
    re.IGNORECASE,
)
_STRONG_VERB: Final = 0.7
_TWO_TYPED: Final = 0.5


def also(planner: Planner, best: Evidence, ranked: list[Evidence], reading: Reading) -> list[Evidence]:
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


def doubt(
    planner: Planner,
    best: Evidence,
    ranked: list[Evidence],
    reading: Reading,
    also: Sequence[Evidence],
    *,
    trusted: bool,
) -> Decision | None:
    """Why the best tool is not good enough: nothing fits, or two are close."""
    floor = planner.settings.read_floor if best.tool.reads else planner.settings.action_floor
    floor = planner.settings.step_floor if trusted else floor
    if not trusted and _ends_unasked(best, reading.body):
        return Decision("refuse", f"I can't do “{reading.clause.text.strip()}”. " + cannot(planner.tools))
    clear = _clear(planner, best, ranked)
    margin = planner.settings.action_margin * (0.3 if trusted else 1.0)
    if clear:
        floor = min(floor, best.score)
    elif not best.tool.reads and best.features["verb"] < SURE_VERB:
        if best.filling.weak and not trusted and best.features["typed"] < _TWO_TYPED:
            return Decision(
                "ask",
                f"I am not sure what to do about “{reading.clause.text.strip()}”. "
                + cannot(planner.tools)
                + " Which of these, if any?",
            )
        if is_foreign(best, reading.body) and best.features["typed"] < _TWO_TYPED and not trusted:
            return Decision("refuse", f"I can't do “{reading.clause.text.strip()}”. " + cannot(planner.tools))
        floor += planner.settings.verbless * (0.0 if trusted else 1.0)
        if best.features["typed"] < _TWO_TYPED and not trusted:
            floor, margin = floor + planner.settings.lone, margin + planner.settings.lone
        margin += planner.settings.verbless * (0.1 if trusted else 0.3)
    elif (
        not trusted
        and not best.tool.reads
        and best.features["nouns"] < planner.settings.alien
        and best.features["typed"] < _TWO_TYPED
    ):
        return Decision("refuse", f"I can't do “{reading.clause.text.strip()}”. " + cannot(planner.tools))
    elif best.features["verb"] >= _STRONG_VERB and best.filling.complete and not best.features["unused"]:
        floor -= planner.settings.verbless / 2
    if best.score < floor or best.features["opposite"]:
        return Decision("refuse", f"I can't do “{reading.clause.text.strip()}”. " + cannot(planner.tools))
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
            return Decision("refuse", f"I can't do “{reading.clause.text.strip()}”. " + cannot(planner.tools))
        return None
    rivals = [
        e for e in ranked[1:4]
        if not e.tool.reads and e not in also and best.score - e.score < margin + _endings_alike(best, e, planner) and not e.features["opposite"] and e.filling.share >= best.filling.share
    ]  # fmt: skip
    if rivals:
        names = [best.tool, *(e.tool for e in rivals)]
        return Decision("ask", ask_which(names), pending=Pending(reading.body, tuple(t.name for t in names)))
    return None


def _ends_unasked(best: Evidence, body: str) -> bool:
    """Whether the tool ends or takes away something, and no word of the request speaks of an end."""
    ending = tool_verbs(best.tool.name, best.tool.description)[1] & _ENDING_VERBS
    return not best.tool.reads and best.features["verb"] == 0.0 and bool(ending) and not _END.search(body)


def _endings_alike(best: Evidence, rival: Evidence, planner: Planner) -> float:
    """A wider margin between two ways to end the same thing (hide and delete, hold and cancel), if no verb names one."""
    groups = (tool_verbs(e.tool.name, e.tool.description)[1] for e in (best, rival))
    alike = all(g & (_ENDING_VERBS | {"pause"}) for g in groups) and best.features["verb"] < 1.0
    return planner.settings.clear_margin if alike else 0.0


def _clear(planner: Planner, best: Evidence, ranked: Sequence[Evidence]) -> bool:
    """Whether the words fill an action completely and no other tool comes near: then a paraphrased verb is no doubt."""
    lead = best.score - ranked[1].score if len(ranked) > 1 else planner.settings.clear_lead
    return (
        not best.tool.reads
        and best.filling.complete
        and not best.filling.weak
        and not best.features["opposite"]
        and bool(best.filling.args or best.filling.choices)
        and best.score >= planner.settings.clear_floor
        and lead >= planner.settings.clear_lead
    )


def check_filling(
    planner: Planner, item: Resolved, ranked: Sequence[Evidence], *, placed: bool = False
) -> Decision | None:
    """What keeps a chosen tool from being called: missing, doubtful or impossible arguments, and words that no argument
    took, unless they are `placed` already.
    """
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
            ask_missing(tool, missing, planner.names),
            pending=Pending(reading.body, (tool.name,), tuple(p.name for p in missing)),
        )
    if not tool.reads and not placed:
        loose = unplaced(planner, filling, reading, item.derive, item.also)
        if loose:
            return Decision(
                "ask",
                f"I can't place “{loose}” in “{tool.title}” ({shown_args(filling.calls()[0])}). Shall I do it without that?",
                pending=Pending(reading.body, (tool.name,)),
            )
    return None


def unplaced(
    planner: Planner,
    filling: Filling,
    reading: Reading,
    derive: tuple[Param, Quantity, int] | None = None,
    also: Sequence[Evidence] = (),
) -> str:
    """A day, a time or a quantity of the request that no argument took: doing it without would be something else."""
    body = reading.body
    for w in find_times(body, planner.today):
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
        if any(isinstance(v, int | float) and abs(float(v) - q.value) < 1e-9 for v in filling.args.values()):
            continue
        return body[q.start : q.end]
    return ""
