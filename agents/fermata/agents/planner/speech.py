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
    return f"I can't {tool.title} with {param.name.replace('_', ' ')} {_value(value)}: it must be {problem}. What should it be instead?"


def cannot(tools: Sequence[Tool]) -> str:
    """What can be done, in one sentence."""
    if not tools:
        return "I have no tools here."
    titles = [t.title for t in tools]
    more = f" and {len(titles) - _MAX_SHOWN * 2} more" if len(titles) > _MAX_SHOWN * 2 else ""
    return f"None of my tools does that. What I can do: {', '.join(titles[: _MAX_SHOWN * 2])}{more}."


def summary(planner: Planner) -> str:
    """What was done in this turn, each call with what came back."""
    lines = []
    for step, result in planner.done:
        tool = planner.tool(step.name)
        title = tool.title if tool else step.name
        if result.rejected or result.failed:
            continue
        said = shown_result(result.data)
        verb = "" if tool is not None and tool.reads else "Done: "
        lines.append(f"{verb}{title} ({shown_args(result.call.args)})" + (f": {said}" if said else "."))
    return "\n".join(lines)


def shown_result(data: Any) -> str:
    """A result in short: its values by name; "" for a bare confirmation."""
    values = list(values_of(data))
    if len(values) == 1 and values[0].path == ("ok",) and values[0].value is True:
        return ""
    if not values:
        return "nothing"
    parts = []
    for value in values[:_MAX_VALUES]:
        name = " ".join(k.replace("_", " ") for k in value.path if k not in ("value", "result", "data"))
        parts.append(f"{name} {value.shown()}".strip())
    more = f" (and {len(values) - _MAX_VALUES} more)" if len(values) > _MAX_VALUES else ""
    text = ", ".join(parts)
    return (text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS] + "…") + more


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f"“{value}”" if " " in value else value
    if isinstance(value, list):
        return ", ".join(_value(v) for v in value)
    return str(value)
