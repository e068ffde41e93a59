"""What a bound tool offers to a planner: its words, its parameters, and how careful one must be with it.

A `Tool` is read from the provider-neutral function schema that `bind_tools` makes of LangChain tools, pydantic
classes and JSON-schema dicts. The effect class comes from the tool's metadata; a bare schema says nothing about it
and counts as UNSAFE.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from fermata.agents.planner.quantities import find_quantities
from fermata.agents.planner.text import content_lemmas, lemma, split_name, tokenize
from fermata.agents.planner.units import Unit, unit_in_words, unit_named

Effect = Literal["READ", "IDEMPOTENT", "UNSAFE"]
Kind = Literal[
    "number",
    "boolean",
    "enum",
    "date",
    "time",
    "datetime",
    "email",
    "text",
    "name",
    "array",
    "object",
    "const",
]
EFFECT_KEY: Final = "fermata.effect"

_NAMING: Final = frozenset(
    {
        "id",
        "name",
        "number",
        "no",
        "nr",
        "code",
        "key",
        "ref",
        "reference",
        "uid",
        "uuid",
        "identifier",
        "slug",
        "tag",
    }
)
_AMOUNTS: Final = frozenset(
    [
        "count",
        "quantity",
        "amount",
        "size",
        "limit",
        "level",
        "volume",
        "position",
        "percent",
        "pct",
        "ratio",
        "value",
        "speed",
        "rate",
        "temperature",
        "pressure",
        "weight",
        "mass",
        "brightness",
        "intensity",
        "dose",
        "duration",
        "delay",
        "timeout",
        "length",
        "width",
        "height",
        "depth",
        "target",
        "setpoint",
        "threshold",
        "minimum",
        "maximum",
        "min",
        "max",
        "total",
        "price",
        "budget",
        "share",
        "step",
        "offset",
        "capacity",
        "age",
        "score",
        "duty",
        "frequency",
        "power",
        "voltage",
        "current",
        "factor",
        "seats",
    ]
)
_TEXTS: Final = frozenset(
    [
        "text",
        "message",
        "body",
        "content",
        "note",
        "notes",
        "comment",
        "comments",
        "reason",
        "description",
        "summary",
        "subject",
        "title",
        "query",
        "question",
        "topic",
        "details",
        "remark",
        "remarks",
        "instructions",
        "search",
        "memo",
        "caption",
        "cause",
        "explanation",
        "announcement",
        "task",
        "job",
        "defect",
        "problem",
        "issue",
        "fault",
        "purpose",
    ]
)
_UNIT_SUFFIX: Final = {
    "s": "s", "ms": "ms", "h": "h", "min": "min", "c": "C", "f": "F", "pct": "%", "kg": "kg", "g": "g", "mm": "mm", "cm": "cm",
    "m": "m", "km": "km", "w": "W", "kw": "kW", "v": "V", "a": "A", "l": "l", "ml": "ml", "mb": "MB", "gb": "GB", "kb": "kB",
    "mib": "MiB", "gib": "GiB", "hz": "hz", "eur": "EUR", "usd": "USD", "cents": "cents", "sec": "s", "secs": "s", "mins": "min",
    "hrs": "h", "degc": "°C", "degf": "°F", "ul": "µl", "k": "K", "kpa": "kPa", "mbar": "mbar", "rpm": "rpm", "mg": "mg",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Param:
    """One parameter of a tool, as far as words can fill it."""

    name: str
    schema: Mapping[str, Any]
    required: bool
    kind: Kind
    description: str

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Words of the name."""
        return split_name(self.name)

    @cached_property
    def nouns(self) -> tuple[str, ...]:
        """Base forms of what the parameter names: alarm_id -> (alarm,)."""
        nouns = tuple(lemma(w) for w in self.words if w not in _NAMING)
        return nouns or tuple(lemma(w) for w in self.words)

    @cached_property
    def description_nouns(self) -> tuple[str, ...]:
        return tuple(w for w in content_lemmas(self.description) if w not in _NAMING)

    @cached_property
    def unit(self) -> Unit | None:
        """The unit that the schema, the name or the description demands."""
        if self.kind != "number":
            return None
        said = self.schema.get("unit") or self.schema.get("x-unit")
        if isinstance(said, str):
            return unit_named(said)
        last = self.words[-1] if self.words else ""
        if len(self.words) > 1 and last in _UNIT_SUFFIX:
            return unit_named(_UNIT_SUFFIX[last])
        if "per" in self.words[1:-1]:
            at = self.words.index("per")
            rate = find_quantities(f"1 {self.words[at - 1]} per {self.words[at + 1]}")
            if rate and rate[0].unit is not None:
                return rate[0].unit
        for word in reversed(self.words):
            unit = unit_named(word)
            if unit is not None and len(word) > 2:
                return unit
        description = re.sub(r"\([^)]*\b(?:e\.g\.|default)[^)]*\)", " ", self.description)
        words = tuple(t.text for t in tokenize(description) if t.text not in ".,;:")
        return unit_in_words(words)

    @cached_property
    def counted(self) -> tuple[str, ...]:
        """What is counted by this number: replicas, nights; in base form."""
        named = tuple(lemma(w) for w in self.words if w not in _AMOUNTS and w not in _NAMING)
        m = re.search(r"\b(?:number|count|amount|quantity) of ([\w -]+)", self.description, re.IGNORECASE)
        how = re.search(r"\bhow many ([\w -]+)", self.description, re.IGNORECASE)
        more = content_lemmas(m.group(1))[:2] if m else content_lemmas(how.group(1))[:2] if how else ()
        return (*named, *more)

    @cached_property
    def identifies(self) -> bool:
        """Whether a number or word here says which one (line 3) instead of how much (3 lines)."""
        if self.kind in ("name", "enum"):
            return True
        if self.kind != "number" or self.unit is not None or not self.words:
            return False
        if self.schema.get("type") == "number" or any(w in _AMOUNTS for w in self.words):
            return False
        plural = self.words[-1] != lemma(self.words[-1]) and self.words[-1] not in _NAMING
        return not plural and not re.search(
            r"\bhow many\b|\bnumber of \w+s\b", self.description, re.IGNORECASE
        )

    @cached_property
    def relative(self) -> bool:
        """Whether the number is a change instead of a new value."""
        if {
            "delta",
            "extra",
            "additional",
            "change",
            "increment",
            "decrement",
            "adjustment",
            "offset",
            "by",
        } & set(self.words):
            return True
        return bool(
            re.search(r"\b(?:by how much|how much to (?:change|add|raise|lower|increase|reduce)|relative to|change in|difference)\b",
                      self.description, re.IGNORECASE)
        )  # fmt: skip

    @cached_property
    def options(self) -> tuple[Any, ...]:
        """The values that the schema allows, if it lists them."""
        if self.kind == "const":
            return (self.schema["const"],)
        return tuple(v for v in self.schema.get("enum", ()) if v is not None)

    @cached_property
    def option_notes(self) -> dict[str, str]:
        """What the description says about single options ("away: all sensors; night: doors only")."""
        notes: dict[str, str] = {}
        values = [str(v) for v in self.options]
        for value in values:
            m = re.search(
                rf"(?<![\w-]){re.escape(value)}['\"]?\s*(?::|=|\(|-|–|means|is)\s*([^;,.)]+)",
                self.description,
                re.IGNORECASE,
            )
            if m:
                notes[value] = m.group(1).strip()
        return notes

    @cached_property
    def item(self) -> Param:
        """The parameter that one item of a list would be."""
        items = self.schema.get("items")
        return make_param(
            self.name, items if isinstance(items, Mapping) else {"type": "string"}, True, self.description
        )

    @property
    def has_default(self) -> bool:
        return "default" in self.schema


@dataclass(frozen=True, eq=False)
class Tool:
    """A bound tool."""

    name: str
    description: str
    params: tuple[Param, ...]
    effect: Effect

    @property
    def reads(self) -> bool:
        return self.effect == "READ"

    @cached_property
    def words(self) -> tuple[str, ...]:
        return split_name(self.name)

    @cached_property
    def title(self) -> str:
        """The name as words."""
        return " ".join(self.words)

    @cached_property
    def text(self) -> str:
        """What is embedded for meaning."""
        return f"{self.title}: {self.description}".strip()

    @cached_property
    def required(self) -> tuple[Param, ...]:
        return tuple(p for p in self.params if p.required)

    def param(self, name: str) -> Param | None:
        return next((p for p in self.params if p.name == name), None)


def read_tools(tools: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """JSON-able descriptions {name, description, parameters, effect} of what was given to `bind_tools`.

    :raises ValueError: if something is neither a tool, a class, a function nor a schema.
    """
    out = []
    for given in tools:
        effect = "UNSAFE"
        if isinstance(given, BaseTool):
            declared = (given.metadata or {}).get(EFFECT_KEY)
            effect = declared if declared in ("READ", "IDEMPOTENT", "UNSAFE") else "UNSAFE"
        elif isinstance(given, Mapping):
            nested = given.get("metadata")
            declared = nested.get(EFFECT_KEY) if isinstance(nested, Mapping) else None
            effect = declared if declared in ("READ", "IDEMPOTENT", "UNSAFE") else "UNSAFE"
            given = {k: v for k, v in given.items() if k != "metadata"}
        function = convert_to_openai_tool(given)["function"]
        out.append(
            {
                "name": function["name"],
                "description": function.get("description", ""),
                "parameters": function.get("parameters") or {"type": "object", "properties": {}},
                "effect": effect,
            }
        )
    return tuple(out)


def make_tools(descriptions: Sequence[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Tools of the descriptions that `read_tools` returned."""
    tools = []
    for d in descriptions:
        schema = _resolve(d["parameters"], d["parameters"])
        required = set(schema.get("required", ()))
        params = tuple(
            make_param(name, sub, name in required, "")
            for name, sub in (schema.get("properties") or {}).items()
            if isinstance(sub, Mapping)
        )
        tools.append(Tool(d["name"], d.get("description") or "", params, d.get("effect", "UNSAFE")))
    return tuple(tools)


def digest(descriptions: Sequence[Mapping[str, Any]]) -> str:
    """A key for caches: the same tools give the same text."""
    return hashlib.sha256(json.dumps(list(descriptions), sort_keys=True, default=str).encode()).hexdigest()


def make_param(name: str, schema: Mapping[str, Any], required: bool, description: str) -> Param:
    """A parameter of a (resolved) JSON schema."""
    said = str(schema.get("description") or description)
    return Param(name, schema, required, _kind(name, schema, said), said)


def _kind(name: str, schema: Mapping[str, Any], description: str) -> Kind:
    if "const" in schema:
        return "const"
    if schema.get("enum"):
        return "enum"
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "string")
    if kind in ("number", "integer"):
        return "number"
    if kind == "boolean":
        return "boolean"
    if kind == "array":
        return "array"
    if kind == "object":
        return "object"
    return _string_kind(name, schema, description)


def _string_kind(name: str, schema: Mapping[str, Any], description: str) -> Kind:
    low, words = description.lower(), set(split_name(name))
    form = schema.get("format")
    if form in ("date", "time", "email"):
        return form  # type: ignore[no-any-return]
    if form == "date-time":
        return "datetime"
    has_day, has_clock = "yyyy-mm-dd" in low or "iso date" in low, bool(re.search(r"hh:mm|24[- ]?h", low))
    if (has_day and has_clock) or "iso 8601" in low:
        return "datetime" if has_clock or "time" in low else "date"
    if has_day:
        return "date"
    if has_clock:
        return "time"
    if (words & {"email", "mail"} and "address" in (low + name)) or words == {"email"}:
        return "email"
    if words & _TEXTS and not words & {"id", "name"} and "pattern" not in schema:
        return "text"
    if (
        not (words & _NAMING)
        and "pattern" not in schema
        and re.search(
            r"\b(?:free text|the message|text to|what to (?:say|write|search|buy|look)|message to|why it|wording|reason|search (?:for|terms?|words?))\b",
            low,
        )
    ):
        return "text"
    return "name"


def _resolve(schema: Any, root: Mapping[str, Any]) -> Any:
    """`schema` with local references followed and `anyOf: [X, null]` (pydantic's Optional) reduced to X."""
    if isinstance(schema, list):
        return [_resolve(s, root) for s in schema]
    if not isinstance(schema, Mapping):
        return schema
    if isinstance(schema.get("$ref"), str) and schema["$ref"].startswith("#/"):
        target: Any = root
        for part in schema["$ref"][2:].split("/"):
            target = target.get(part, {}) if isinstance(target, Mapping) else {}
        rest = {k: v for k, v in schema.items() if k != "$ref"}
        return _resolve({**target, **rest}, root)
    for key in ("anyOf", "oneOf", "allOf"):
        branches = schema.get(key)
        if isinstance(branches, list):
            real = [b for b in branches if isinstance(b, Mapping) and b.get("type") != "null"]
            if len(real) == 1:
                rest = {k: v for k, v in schema.items() if k != key}
                return _resolve({**real[0], **rest}, root)
    return {
        k: (_resolve(v, root) if k in ("properties", "items") or isinstance(v, Mapping) else v)
        for k, v in schema.items()
        if k not in ("$defs", "definitions")
    }
