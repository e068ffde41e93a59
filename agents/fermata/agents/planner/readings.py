"""Values in tool results: found by name, with their unit, wherever they lie in the data.

A reading is one leaf of a result: its path of keys, its value and its unit (a sibling key "unit", a suffix of the
key, or written behind the number).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fermata.agents.planner.quantities import find_quantities
from fermata.agents.planner.text import lemma, related, split_name
from fermata.agents.planner.units import Unit, plain, unit_named

_GENERIC: Final = frozenset(
    {"value", "result", "data", "reading", "current", "output", "amount", "measurement", "answer"}
)
_SUFFIXES: Final = {
    "c": "C",
    "f": "F",
    "pct": "%",
    "s": "s",
    "ms": "ms",
    "min": "min",
    "h": "h",
    "kw": "kW",
    "w": "W",
    "v": "V",
    "a": "A",
    "kg": "kg",
    "g": "g",
    "mm": "mm",
    "l": "l",
    "ml": "ml",
    "nm": "Nm",
    "hz": "hz",
    "bar": "bar",
}


_WRAPPERS: Final = frozenset({"value", "result", "data"})
"""Keys that say nothing about what lies in them."""


@dataclass(frozen=True, slots=True)
class Value:
    """One leaf of a result."""

    path: tuple[str, ...]
    value: Any
    unit: Unit | None

    @property
    def words(self) -> tuple[str, ...]:
        """Base forms of the keys' words, outermost first, without generic ones."""
        return tuple(lemma(w) for key in self.path for w in split_name(key) if w not in _GENERIC)

    @property
    def generic(self) -> bool:
        return not self.words

    @property
    def label(self) -> str:
        """The keys as words, without the unit that the value is shown with: "vibration" of ``vibration_mm_s``."""
        words = [word for key in self.path if key not in _WRAPPERS for word in key.split("_") if word]
        if self.unit is not None:
            unit = self.unit.name.lower().split("/")
            spelt = len(unit) if [word.lower() for word in words[-len(unit) :]] == unit else 0
            if not spelt and words and (words[-1].lower() in _SUFFIXES or words[-1].lower() == "percent"):
                spelt = 1
            words = words[: len(words) - spelt] or words
        return " ".join(words)

    def shown(self) -> str:
        """As a person would write it: 7.9 mm/s."""
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        if isinstance(self.value, int | float):
            return plain(self.value) + (f" {self.unit.name}" if self.unit else "")
        return str(self.value)


def values_of(data: Any, path: tuple[str, ...] = ()) -> Iterator[Value]:
    """Every leaf of parsed result data, in order."""
    if isinstance(data, Mapping):
        unit = data.get("unit") or data.get("units")
        for key, inner in data.items():
            if key in ("unit", "units") and isinstance(inner, str):
                continue
            for value in values_of(inner, (*path, str(key))):
                if (
                    isinstance(unit, str)
                    and value.unit is None
                    and _numeric(value.value)
                    and len(value.path) == len(path) + 1
                ):
                    yield Value(value.path, value.value, unit_named(unit))
                else:
                    yield value
    elif isinstance(data, list):
        for inner in data:
            yield from values_of(inner, path)
    elif isinstance(data, str):
        found = find_quantities(data)
        if len(found) == 1 and found[0].start == 0 and found[0].end >= len(data.rstrip()) and found[0].digits:
            yield Value(path, found[0].value, found[0].unit or _key_unit(path))
        else:
            yield Value(path, data, None)
    elif data is not None:
        yield Value(path, data, _key_unit(path) if _numeric(data) else None)


def _key_unit(path: tuple[str, ...]) -> Unit | None:
    words = split_name(path[-1]) if path else ()
    if not words:
        return None
    if words[-1] == "s" and len(words) > 2 and (per_second := unit_named("/".join(words[-2:]))):
        return per_second
    if len(words) > 1 and words[-1] in _SUFFIXES:
        return unit_named(_SUFFIXES[words[-1]])
    if "per" in words[1:-1]:
        at = words.index("per")
        rate = find_quantities(f"1 {words[at - 1]} per {words[at + 1]}")
        if rate and rate[0].unit is not None:
            return rate[0].unit
    for word in reversed(words):
        if len(word) > 2 and unit_named(word):
            return unit_named(word)
    return None


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def matching(values: list[Value], words: tuple[str, ...]) -> list[Value]:
    """Leaves whose keys share most with `words`, best first; leaves that share nothing are left out."""
    scored = []
    for index, value in enumerate(values):
        shared = sum(any(related(k, w) for w in words) for k in dict.fromkeys(value.words))
        if shared:
            last = value.words[-1] if value.words else ""
            scored.append(
                (
                    -(
                        shared
                        + (0.5 if any(related(last, w) for w in words) else 0)
                        + (0.3 if words and related(last, words[-1]) else 0)
                        - 0.1 * (len(set(value.words)) - shared)
                    ),
                    index,
                    value,
                )
            )
    return [v for _, _, v in sorted(scored, key=lambda s: s[:2])]


def text_blob(data: Any) -> str:
    """Everything in a result as text, to look for words in it."""
    return " ".join(re.sub(r"[_\n]+", " ", f"{'.'.join(v.path)} {v.value}") for v in values_of(data))
