"""What the planner says: questions back, refusals, reasons and summaries, in plain sentences with their facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from fermata.agents.planner.names import Name
from fermata.agents.planner.readings import values_of
from fermata.agents.planner.tools import Param, Tool

if TYPE_CHECKING:
    from fermata.agents.planner.plan import Planner

_MAX_SHOWN: Final = 8
_MAX_VALUES: Final = 12
_MAX_EFFECT: Final = 5
_MAX_CHARS: Final = 600


def shown_args(args: Mapping[str, Any]) -> str:
    """line 3, rpm 1200."""
    return ", ".join(f"{k.replace('_', ' ')} {_value(v)}" for k, v in args.items()) or "no arguments"


def ask_missing(tool: Tool, missing: Sequence[Param], names: Iterable[Name]) -> str:
    """A question for each missing argument, with what it can be where that is known."""
    out = []
    known = list(names)
    for param in missing:
        noun = param.name.replace("_", " ")
        choices = [str(v) for v in param.options] or [n.text for n in known if n.is_a(param.nouns)]
        about = f" ({param.description.rstrip('.')})" if param.description and not choices else ""
        if choices:
            out.append(f"Which {noun}: {', '.join(choices[:_MAX_SHOWN])}?")
        else:
            out.append(f"What is the {noun}{about}?")
    return f"To {tool.title} I need more. " + " ".join(out)


def ask_which(tools: Sequence[Tool]) -> str:
    """A question which of several close tools is meant."""
    named = "; or ".join(f"{t.title} ({t.description.rstrip('.')})" for t in tools)
    return f"Which do you mean: {named}?"


def out_of_bounds(tool: Tool, param: Param, value: Any, problem: str) -> str:
    """Why a value can't be used."""
    noun = param.name.replace("_", " ")
    return (
        f"I can't {tool.title} with {noun} {_value(value)}: it must be {problem}. What should it be instead?"
    )


def cannot(tools: Sequence[Tool]) -> str:
    """What can be done, in one sentence."""
    if not tools:
        return "I have no tools here."
    titles = [t.title for t in tools]
    more = f" and {len(titles) - _MAX_SHOWN * 2} more" if len(titles) > _MAX_SHOWN * 2 else ""
    return f"None of my tools does that. What I can do: {', '.join(titles[: _MAX_SHOWN * 2])}{more}."


def summary(planner: Planner) -> str:
    """What was done in this turn, each call with what came back; of readings that were repeated the last one."""
    went = [(step, result) for step, result in planner.done if not (result.rejected or result.failed)]
    last = {repr((step.name, result.call.args)): result for step, result in went}
    lines = []
    for step, result in went:
        tool = planner.tool(step.name)
        title = tool.title if tool else step.name
        if tool is not None and tool.reads:
            if last[repr((step.name, result.call.args))] is result:
                said = shown_result(result.data)
                lines.append(f"{title} ({shown_args(result.call.args)})" + (f": {said}" if said else "."))
            continue
        # The result speaks where it says anything: a person may have changed the arguments since they were proposed.
        said = shown_effect(result.data, result.call.args)
        lines.append(f"Done: {title}" + (f": {said}" if said else f" ({shown_args(result.call.args)})."))
    return "\n".join(lines)


def shown_effect(data: Any, args: Mapping[str, Any]) -> str:
    """Of a changing call's result what is named as its arguments are, else its beginning; "" for a bare confirmation."""
    if not isinstance(data, Mapping):
        return shown_result(data)
    words = {word for name in args for word in name.split("_")}
    about = {
        key: value
        for key, value in data.items()
        if not key.startswith("previous") and words & set(key.split("_"))
    }
    return shown_result(dict(list((about or data).items())[:_MAX_EFFECT]))


def shown_result(data: Any) -> str:
    """A result in short: its values by name; "" for a bare confirmation."""
    values = list(values_of(data))
    if len(values) == 1 and values[0].path == ("ok",) and values[0].value is True:
        return ""
    if not values:
        return "nothing"
    parts = []
    for value in values[:_MAX_VALUES]:
        parts.append(f"{value.label} {value.shown()}".strip())
    more = f" (and {len(values) - _MAX_VALUES} more)" if len(values) > _MAX_VALUES else ""
    text = ", ".join(parts)
    return (text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS] + "…") + more


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f"“{value}”" if " " in value else value
    if isinstance(value, list):
        return ", ".join(_value(v) for v in value)
    return str(value)
