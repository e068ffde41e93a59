"""Go on with a request that waited for an answer.

What the last question was about is found by planning that turn again; nothing is remembered between two calls."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TYPE_CHECKING

from fermata.agents.planner.conversation import Result
from fermata.agents.planner.decision import Decision, Pending, Step
from fermata.agents.planner.doubts import check_filling
from fermata.agents.planner.intent import Intent, Reading
from fermata.agents.planner.ranking import (
    Evidence,
    rank,
)
from fermata.agents.planner.resolved import Resolved
from fermata.agents.planner.speech import summary

if TYPE_CHECKING:
    from fermata.agents.planner.plan import Planner


def pending(planner: Planner) -> Pending | None:
    """What the last question to the person was about, found by planning that turn again."""
    turns = planner.conversation.turns
    if (
        len(turns) < 2
        or not turns[-2].human
        or (len(turns) > 1 and turns[-2].said.strip() == "" and turns[-2].calls)
    ):
        return None
    said = turns[-2].said.lower()
    if said.strip() and not re.search(r"\?|which|please (?:tell|say|give)|what |continue", said):
        return None
    earlier = type(planner)(
        planner.conversation.before(len(turns) - 2),
        planner.tools,
        planner.meaning,
        planner.settings,
        planner.reader,
    )
    decision = earlier.decide()
    return decision.pending if decision.kind in ("ask", "refuse") else None


def resume(
    planner: Planner, pending: Pending, text: str, readings: list[Reading]
) -> Generator[list[Step], list[Result], Decision | None]:
    """Go on with a request that waited for an answer; None if the message is about something else."""
    intents = {r.intent for r in readings}
    if Intent.REFUSAL in intents and len(readings) == 1:
        return Decision("ack", "All right, I leave it at that.")
    if intents & {Intent.PROHIBITION, Intent.HYPOTHETICAL, Intent.QUESTION}:
        return None
    if pending.steps and Intent.CONSENT in intents:
        yield from planner.perform(list(pending.steps))
        return Decision("done", summary(planner))
    if not pending.tools:
        return None
    for reading in readings:
        if reading.intent is Intent.REQUEST and planner.request(reading, [], []).decision is None:
            return None
    tools = [t for t in planner.tools if t.name in pending.tools]
    if len(tools) > 1:
        chosen = rank(
            tools,
            planner.words(f"{text}"),
            [planner.words(pending.text)],
            planner.memory(),
            planner.meaning,
            settings=planner.settings,
        )
        tools = [chosen[0].tool]
    if not tools:
        return None
    tool = tools[0]
    reply = planner.words(text)
    support = [reply]
    for name in pending.missing:
        param = tool.param(name)
        if param is not None:
            support.append(planner.words(f"{' '.join(param.nouns)} {text}"))
    ranked = rank(
        [tool],
        planner.words(pending.text),
        support,
        planner.memory(),
        planner.meaning,
        settings=planner.settings,
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
    if not readings:
        return None
    item = Resolved(
        Reading(readings[0].clause, Intent.REQUEST, f"{pending.text} ({text})"),
        Evidence(filling, ranked[0].features, ranked[0].score),
    )
    for param in list(filling.missing):
        if filling.problems and filling.problems[0][0] is param:
            filling.missing.remove(param)
    stop = None
    if filling.missing or filling.problems or filling.doubtful:
        stop = check_filling(planner, item, [])
    if stop is not None:
        return stop
    ended = yield from planner.act(item)
    return ended or Decision("done", "\n".join(x for x in [summary(planner), *planner.notes] if x))
