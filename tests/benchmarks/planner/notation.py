"""Training domains and cases in a short notation that people can write quickly.

A file holds domains. ``# name | context`` begins one; ``T`` lines are its tools; every other line is a case::

    # bakery | Ovens O-1 to O-6. Bakers: Ilse, Rui. Today is Friday 2026-08-21.
    T set_oven! Sets the temperature of an oven. | oven:id Oven, O-1 to O-6. | celsius:num Temperature in °C. | steam?:bool With steam.
    p <set_oven|[oven O-3] could do with [celsius 220]>, thanks
    n (set_oven|leave [oven O-3] as it is), <set_oven|[oven O-4] to [celsius=200|two hundred]>

A tool's name ends with ``!`` (UNSAFE), ``~`` (IDEMPOTENT) or nothing (READ). A parameter is ``name[?]:type description``;
types are id, str, text, int, num, bool, date, time, enum(a,b) and list(type).

A case begins with its category (see ``CATEGORIES``). ``<tool|words>`` asks for a call; ``[param words]`` inside it is an
argument in its own words, ``[param=value|words]`` one that the words stand for; outside of any call it belongs to all
calls with such a parameter. ``{words}`` is the condition of the calls that act, ``<?tool|words>`` a reading that could
check it. ``(tool|words)`` speaks of a tool without asking. ``a tool/tool : words`` fits several tools alike.
What stands before ``>>`` is the history: ``H: words``, ``A: words``, ``D: tool param=value, ...``, divided by ``||``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CATEGORIES = {
    "d": "direct", "p": "paraphrase", "u": "units", "e": "enums", "c": "clauses", "r": "reference", "m": "missing",
    "a": "ambiguous", "o": "out_of_scope", "n": "prohibition", "h": "hypothetical", "w": "report", "i": "conditional",
    "q": "question", "s": "step", "t": "chat",
}  # fmt: skip
_TYPES: dict[str, dict[str, Any]] = {
    "id": {"type": "string"},
    "str": {"type": "string"},
    "text": {"type": "string"},
    "int": {"type": "integer"},
    "num": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string"},
}


class NotationError(ValueError):
    """A line that can't be read; says which and why."""


@dataclass
class Domain:
    name: str
    context: str
    tools: list[dict[str, Any]] = field(default_factory=list)
    cases: list[dict[str, Any]] = field(default_factory=list)

    def tool(self, name: str) -> dict[str, Any]:
        for tool in self.tools:
            if tool["name"] == name:
                return tool
        raise NotationError(f"no tool {name!r}")


@dataclass
class _Group:
    kind: str  # "call", "check" or "mention"
    tool: str
    start: int
    end: int = 0
    args: list[tuple[str, str | None, str]] = field(default_factory=list)


def read_domains(path: Path, problems: list[str] | None = None) -> Iterator[Domain]:
    """The domains of a file; lines that can't be read are told in `problems`, if it is given.

    :raises NotationError: with file and line, if it is not.
    """
    domain: Domain | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line:
            continue
        try:
            if line.startswith("# "):
                if domain is not None:
                    yield domain
                name, _, context = line[2:].partition("|")
                domain = Domain(name.strip(), context.strip())
            elif domain is None:
                raise NotationError("a line before the first domain")
            elif line.startswith("T "):
                domain.tools.append(_tool(line[2:]))
            else:
                domain.cases.append(_case(line, domain))
        except NotationError as error:
            told = f"{path.name}:{number}: {error}: {line}"
            if problems is None:
                raise NotationError(told) from error
            problems.append(told)
    if domain is not None:
        yield domain


def _tool(line: str) -> dict[str, Any]:
    head, *params = [p.strip() for p in line.split("|")]
    name, _, description = head.partition(" ")
    effect = {"!": "UNSAFE", "~": "IDEMPOTENT"}.get(name[-1], "READ")
    tool: dict[str, Any] = {"name": name.rstrip("!~"), "effect": effect, "description": description}
    tool |= {"params": {}, "required": []}
    for said in params:
        m = re.match(r"(\w+)(\?)?:(\w+(?:\([^)]*\)+)?)\s*(.*)$", said)
        if m is None:
            raise NotationError(f"not a parameter: {said!r}")
        tool["params"][m[1]] = {**_type(m[3]), "description": m[4]}
        if not m[2]:
            tool["required"].append(m[1])
    return tool


def _type(said: str) -> dict[str, Any]:
    if said.startswith("enum("):
        return {"type": "string", "enum": [v.strip() for v in said[5:-1].split(",")]}
    if said.startswith("list("):
        return {"type": "array", "items": _type(said[5:-1])}
    if said not in _TYPES:
        raise NotationError(f"no type {said!r}")
    return dict(_TYPES[said])


def _case(line: str, domain: Domain) -> dict[str, Any]:
    code, _, rest = line.partition(" ")
    if code not in CATEGORIES:
        raise NotationError(f"no category {code!r}")
    case: dict[str, Any] = {"k": CATEGORIES[code], "calls": []}
    before, mark, said = rest.partition(">>")
    if not mark:
        before, said = "", rest
    if code == "a":
        names, _, said = said.partition(" : ")
        case["either"] = [n.strip() for n in names.split("/")]
        for name in case["either"]:
            domain.tool(name)
    shared: list[tuple[str, str | None, str]] = []
    history = [_history(item.strip(), domain, shared) for item in before.split("||") if item.strip()]
    if history:
        case["h"] = history
    message, groups, condition, loose = _parse(said.strip())
    case["m"] = message
    shared += loose
    for group in groups:
        tool = domain.tool(group.tool)
        words = message[group.start : group.end]
        if group.kind == "mention":
            case.setdefault("mentions", []).append(group.tool)
            case["mq"] = words
            continue
        call: dict[str, Any] = {"t": group.tool, "a": {}, "q": words, "s": {}}
        if group.kind == "check":
            call["check"] = True
        elif condition and tool["effect"] != "READ":
            call["if"] = condition
        for name, value, text in [*group.args, *(s for s in shared if s[0] in tool["params"])]:
            if name not in tool["params"]:
                raise NotationError(f"{group.tool} has no parameter {name!r}")
            _argument(call, name, tool["params"][name], value, text)
        for name in tool["required"]:  # "if O-3 is too hot, turn it off": named beside another call
            beside = next((a for g in groups if g.kind != "mention" for a in g.args if a[0] == name), None)
            if name not in call["a"] and beside is not None and code in ("i", "c", "s", "p", "n"):
                _argument(call, name, tool["params"][name], beside[1], beside[2])
        missing = [p for p in tool["required"] if p not in call["a"]]
        if missing:
            case.setdefault("missing", {})[group.tool] = missing
            if code not in ("m", "s", "r"):
                raise NotationError(f"{group.tool} lacks {missing}")
        case["calls"].append(call)
    return case


def _argument(call: dict[str, Any], name: str, schema: dict[str, Any], value: str | None, text: str) -> None:
    kind = schema["type"]
    if kind == "array":
        item = _scalar(schema["items"], value if value is not None else text)
        call["a"].setdefault(name, []).append(item)
        call.setdefault("parts", {}).setdefault(name, []).append(text)
        return
    if name in call["a"]:
        return
    call["a"][name] = _scalar(schema, value if value is not None else text)
    call["s"][name] = text


def _scalar(schema: dict[str, Any], said: str) -> Any:
    if "enum" in schema:
        for option in schema["enum"]:
            if option.lower() == said.lower():
                return option
        raise NotationError(f"{said!r} is none of {schema['enum']}")
    match schema["type"]:
        case "boolean":
            if said.lower() not in ("yes", "no"):
                raise NotationError(f"{said!r} is neither yes nor no")
            return said.lower() == "yes"
        case "integer":
            return int(_number(said))
        case "number":
            return _number(said)
    return said


def _number(said: str) -> float:
    m = re.search(r"[-+−]?\d[\d,]*(?:\.\d+)?", said)
    if m is None:
        raise NotationError(f"{said!r} is no number")
    return float(m.group().replace(",", "").replace("−", "-"))


def _history(item: str, domain: Domain, shared: list[tuple[str, str | None, str]]) -> list[Any]:
    who, _, said = item.partition(":")
    if who == "D":
        name, _, args = said.strip().partition(" ")
        domain.tool(name)
        pairs = [a.partition("=") for a in args.split(",") if a.strip()]
        values = {k.strip(): _bare(v.strip(), k.strip(), shared) for k, _, v in pairs}
        return ["did", name, values]
    if who not in ("H", "A"):
        raise NotationError(f"history begins with H:, A: or D:, not {who!r}")
    text, _, _, loose = _parse(said.strip())
    shared.extend(loose)
    return ["human" if who == "H" else "ai", text]


def _bare(value: str, name: str, shared: list[tuple[str, str | None, str]]) -> str:
    """``[O-3]`` in a call of the history is an argument of the calls that are asked for, too."""
    if value.startswith("[") and value.endswith("]"):
        shared.append((name, None, value[1:-1]))
        return value[1:-1]
    return value


def _parse(said: str) -> tuple[str, list[_Group], str, list[tuple[str, str | None, str]]]:
    """(plain words, groups, condition, arguments outside of groups)."""
    out: list[str] = []
    groups: list[_Group] = []
    open_groups: list[_Group] = []
    loose: list[tuple[str, str | None, str]] = []
    condition, condition_at = "", -1
    length = 0
    i = 0

    def put(text: str) -> None:
        nonlocal length
        out.append(text)
        length += len(text)

    while i < len(said):
        c = said[i]
        m = re.compile(r"<(\?)?([\w-]+)\|").match(said, i)
        n = re.compile(r"\((\w[\w-]*)\|").match(said, i)
        if m:
            open_groups.append(_Group("check" if m[1] else "call", m[2], length))
            groups.append(open_groups[-1])
            i = m.end()
        elif n:
            open_groups.append(_Group("mention", n[1], length))
            groups.append(open_groups[-1])
            i = n.end()
        elif (c == ">" and open_groups and open_groups[-1].kind != "mention") or (
            c == ")" and open_groups and open_groups[-1].kind == "mention"
        ):
            open_groups.pop().end = length
            i += 1
        elif c == "[":
            m = re.compile(r"\[(\w+)(?:=([^|\]]*)\||\s)([^\]]*)\]").match(said, i)
            if m is None:
                raise NotationError(f"not an argument: {said[i : i + 30]!r}")
            target = open_groups[-1].args if open_groups else loose
            target.append((m[1], m[2], m[3]))
            stands_there = not open_groups and m[2] is not None and m[3] in "".join(out)
            if not stands_there:
                put(m[3])
            i = m.end()
        elif c == "{":
            condition_at = length
            i += 1
        elif c == "}":
            condition = "".join(out)[condition_at:]
            i += 1
        else:
            put(c)
            i += 1
    if open_groups:
        raise NotationError(f"<{open_groups[-1].tool}| is not closed")
    text = "".join(out)
    return text, groups, condition, loose


if __name__ == "__main__":
    wrong: list[str] = []
    for file in sys.argv[1:]:
        for found in read_domains(Path(file), wrong):
            print(f"{found.name}: {len(found.tools)} tools, {len(found.cases)} cases")
    print("\n".join(wrong) or "all lines can be read")
    sys.exit(bool(wrong))
