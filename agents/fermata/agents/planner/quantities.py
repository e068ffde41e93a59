"""Numbers in running text, with their unit and with the words that say whether they are a goal or a change.

"to 1200 rpm" is a goal, "by 10 %" a change, "above 7.1 mm/s" a limit; "a minute and a half", "fifteen hundred" and
"three quarters of a minute" are numbers as well. Every quantity keeps its span.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fermata.agents.planner.text import Token, tokenize
from fermata.agents.planner.units import Unit, unit_named
from fermata.agents.planner.words import MULTIPLIERS, NUMBER_WORDS, ORDINALS

_FRACTIONS: Final = {
    "half": 0.5,
    "quarter": 0.25,
    "quarters": 0.25,
    "third": 1 / 3,
    "thirds": 1 / 3,
    "halves": 0.5,
    "tenth": 0.1,
    "fifth": 0.2,
    "eighth": 0.125,
}
_NUMERAL: Final = re.compile(r"^[-+−]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\d+,\d+)$")
_RATIO: Final = unit_named("fraction")
_PERCENT: Final = unit_named("%")
_GOAL: Final = frozenset({"to", "at", "of", "is", "on", "=", "until", "reach", "reaches"})
_CHANGE: Final = frozenset({"by", "another", "extra", "additional", "further"})


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number in a text.

    `value` is in `unit` (None: none given). `role` is "goal", "change" or "" (not said); `before` and `after` are the
    neighbouring words in lower case; `digits` says that it was written in figures.
    """

    value: float
    unit: Unit | None
    start: int
    end: int
    role: str
    before: str
    after: str
    digits: bool = True


@lru_cache(maxsize=1024)
def find_quantities(text: str) -> tuple[Quantity, ...]:
    """Every number of `text` in order, longest reading first."""
    tokens = tuple(t for t in tokenize(text) if t.text not in '"“”`')
    out, i = [], 0
    while i < len(tokens):
        read = _read(tokens, i)
        if read is None:
            i += 1
            continue
        value, unit, end, digits = read
        before = tokens[i - 1].low if i else ""
        prior = tokens[i - 2].low if i > 1 else ""
        after = next((t.low for t in tokens[end : end + 1]), "")
        if before in ("$", "€", "£") and unit is None:
            unit = unit_named(before)
            before = prior
        out.append(
            Quantity(
                value,
                unit,
                tokens[i].start,
                tokens[end - 1].end,
                _role(before, prior, after),
                before,
                after,
                digits,
            )
        )
        i = end
    return tuple(out)


def _role(before: str, prior: str, after: str) -> str:
    if (
        before in _CHANGE
        or prior in _CHANGE
        or after in ("more", "less", "extra", "higher", "lower", "faster", "slower", "longer")
    ):
        return "change"
    if before in _GOAL or (
        prior in _GOAL and before in ("about", "around", "exactly", "just", "only", "a", "the")
    ):
        return "goal"
    return ""


def _read(tokens: tuple[Token, ...], i: int) -> tuple[float, Unit | None, int, bool] | None:
    """(value, unit, index behind it, written in figures) of the number that begins at token `i`."""
    low = tokens[i].low
    if low in ("halfway", "half-way"):
        return 50.0, _PERCENT, i + 1, False
    if low in ("last", "past", "previous") and i + 1 < len(tokens):
        unit, stop = read_unit(tokens, i + 1)
        if unit is not None and unit.dimension == "time" and not tokens[stop - 1].low.endswith("s"):
            return 1.0, unit, stop, False
        return None
    if low in ("a", "an", "one") and i + 1 < len(tokens):
        special = _article(tokens, i)
        if special is not None:
            return special
    negative = low == "minus" and i + 1 < len(tokens)
    number = read_number(tokens, i + 1 if negative else i)
    if number is None:
        return None
    value, end, digits = number
    if negative:
        value = -value
    if end < len(tokens) and tokens[end].low in ("of",) and _is_fraction(tokens, i, end):
        inner = _unit_behind_article(tokens, end + 1)
        if inner is not None:
            unit, stop = inner
            return value, unit, stop, digits
        return value, _RATIO, end, digits
    if _is_fraction(tokens, i, end):
        inner = _unit_behind_article(tokens, end)
        if inner is not None:
            return value, inner[0], inner[1], digits
        return value, _RATIO, end, digits
    unit, stop = read_unit(tokens, end)
    if unit is not None and unit.dimension == "count":
        return value * unit.factor, None, stop, digits
    if unit is not None:
        value, stop = _and_a_half(tokens, stop, value)
        value, stop = _smaller_unit(tokens, stop, value, unit)
        unit, stop = _per(tokens, stop, unit)
        if unit.dimension.startswith("money:") and _lows(tokens, stop, 1) in (("a",), ("per",), ("each",)):
            each = read_unit(tokens, stop + 1)
            stop = each[1] if each[0] is not None else stop
    return value, unit, stop if unit is not None else end, digits


def _article(tokens: tuple[Token, ...], i: int) -> tuple[float, Unit | None, int, bool] | None:
    """A number that begins with an article: a minute and a half, a quarter, a dozen, a hundred, a single, a couple."""
    nxt = tokens[i + 1].low
    if nxt in ("single",):
        return 1.0, None, i + 2, False
    if nxt in ("dozen",):
        return 12.0, None, i + 2, False
    if nxt in ("couple", "pair") and i + 2 < len(tokens) and tokens[i + 2].low == "of":
        unit, stop = read_unit(tokens, i + 3)
        return 2.0, unit, stop if unit else i + 3, False
    if nxt in _FRACTIONS and nxt != "third":
        of = i + 2 < len(tokens) and tokens[i + 2].low == "of"
        inner = _unit_behind_article(tokens, i + 3 if of else i + 2)
        if inner is not None and (
            of or nxt in ("half", "tenth", "fifth") or tokens[i + 2].low in ("an", "hour")
        ):
            return _FRACTIONS[nxt], inner[0], inner[1], False
        return _FRACTIONS[nxt], _RATIO, i + 2, False
    if nxt == "third":
        return 1 / 3, _RATIO, i + 2, False
    if nxt in MULTIPLIERS:
        number = read_number(tokens, i + 1, implied=1.0)
        if number is not None:
            unit, stop = read_unit(tokens, number[1])
            return number[0], unit, stop if unit else number[1], False
    if tokens[i].low in ("a", "an"):
        unit, stop = read_unit(tokens, i + 1)
        if unit is not None and unit.dimension == "time" and len(nxt) > 2:
            value, stop = _and_a_half(tokens, stop, 1.0)
            return value, unit, stop, False
        if unit is not None and unit.dimension in ("data", "mass", "length", "volume") and len(nxt) > 3:
            return 1.0, unit, stop, False
    return None


def read_number(
    tokens: tuple[Token, ...], i: int, implied: float | None = None
) -> tuple[float, int, bool] | None:
    """(value, index behind it, written in figures) of a number at token `i`, without its unit."""
    token = tokens[i]
    if _NUMERAL.match(token.text):
        value, end = _figure(token.text), i + 1
        if end < len(tokens) and tokens[end].low in ("k",) and tokens[end].start == token.end:
            return value * 1000, end + 1, True
        while end < len(tokens) and tokens[end].low in MULTIPLIERS:
            value *= MULTIPLIERS[tokens[end].low]
            end += 1
        if _lows(tokens, end, 3) in (("and", "a", "half"), ("and", "a", "quarter")):
            value += _FRACTIONS[tokens[end + 2].low]
            end += 3
        return value, end, True
    if token.low in ("half", "three-quarters") and implied is None:
        return (0.5 if token.low == "half" else 0.75), i + 1, False
    total, current, end, seen = 0.0, implied or 0.0, i, implied is not None
    while end < len(tokens):
        parts = tokens[end].low.split("-")
        if all(p in NUMBER_WORDS for p in parts):
            if seen and current % 10 and implied is None:
                break
            current += sum(NUMBER_WORDS[p] for p in parts)
        elif tokens[end].low in MULTIPLIERS and seen:
            scale = MULTIPLIERS[tokens[end].low]
            if scale >= 1000:
                total, current = total + (current or 1) * scale, 0.0
            else:
                current = (current or 1) * scale
        elif (
            tokens[end].low == "and"
            and seen
            and current >= 100
            and end + 1 < len(tokens)
            and all(p in NUMBER_WORDS for p in tokens[end + 1].low.split("-"))
        ):
            pass
        else:
            break
        seen = True
        end += 1
    if not seen:
        return None
    value = total + current
    if (
        end < len(tokens)
        and tokens[end].low in _FRACTIONS
        and value in (1, 2, 3)
        and tokens[end].low != "half"
    ):
        return value * _FRACTIONS[tokens[end].low], end + 1, False
    if end + 1 < len(tokens) and tokens[end].low == "point" and tokens[end + 1].low in NUMBER_WORDS:
        decimals, end = "", end + 1
        while end < len(tokens) and tokens[end].low in NUMBER_WORDS and NUMBER_WORDS[tokens[end].low] < 10:
            decimals += str(int(NUMBER_WORDS[tokens[end].low]))
            end += 1
        value += float("0." + decimals)
    elif _lows(tokens, end, 3) in (("and", "a", "half"), ("and", "a", "quarter")):
        value += _FRACTIONS[tokens[end + 2].low]
        end += 3
        if end < len(tokens) and tokens[end].low in MULTIPLIERS:
            value *= MULTIPLIERS[tokens[end].low]
            end += 1
    return value, end, False


def read_unit(tokens: tuple[Token, ...], i: int) -> tuple[Unit | None, int]:
    """The unit at token `i` and the index behind it."""
    if i < len(tokens) and tokens[i].low.startswith("-"):
        return None, i
    for width in (3, 2, 1):
        if i + width > len(tokens):
            continue
        phrase = " ".join(t.text for t in tokens[i : i + width])
        unit = unit_named(phrase)
        if unit is not None:
            if phrase in ("A", "a", "d", "t", "B", "F", "K") and tokens[i].start > tokens[i - 1].end + 1:
                continue
            if phrase.lower() == "a":
                continue
            return unit, i + width
    return None, i


def ordinal(word: str) -> int | None:
    """The number of an ordinal: second -> 2, 14th -> 14."""
    m = re.fullmatch(r"(\d+)(?:st|nd|rd|th)", word.lower())
    return int(m.group(1)) if m else ORDINALS.get(word.lower())


def _figure(text: str) -> float:
    text = text.replace("−", "-")
    if re.fullmatch(r"[-+]?\d+,\d{1,2}", text):
        return float(text.replace(",", "."))
    return float(text.replace(",", ""))


def _lows(tokens: tuple[Token, ...], i: int, n: int) -> tuple[str, ...]:
    return tuple(t.low for t in tokens[i : i + n])


def _is_fraction(tokens: tuple[Token, ...], i: int, end: int) -> bool:
    return tokens[end - 1].low in _FRACTIONS and "and" not in _lows(tokens, i, end - i)


def _unit_behind_article(tokens: tuple[Token, ...], i: int) -> tuple[Unit, int] | None:
    if i < len(tokens) and tokens[i].low in ("a", "an", "the"):
        i += 1
    unit, stop = read_unit(tokens, i)
    return None if unit is None or tokens[i].low in ("a",) else _per(tokens, stop, unit)


def _and_a_half(tokens: tuple[Token, ...], i: int, value: float) -> tuple[float, int]:
    if _lows(tokens, i, 3) in (("and", "a", "half"), ("and", "a", "quarter")):
        return value + _FRACTIONS[tokens[i + 2].low], i + 3
    return value, i


def _per(tokens: tuple[Token, ...], i: int, unit: Unit) -> tuple[Unit, int]:
    """Eighty centimetres a second: a length or volume per time is a speed or a flow."""
    if unit.dimension not in ("length", "volume") or _lows(tokens, i, 1) not in (
        ("a",),
        ("an",),
        ("per",),
        ("each",),
        ("every",),
    ):
        return unit, i
    inner, stop = read_unit(tokens, i + 1)
    if inner is None or inner.dimension != "time":
        return unit, i
    name = f"{unit.name}/{inner.name}"
    known = unit_named(name)
    if known is not None:
        return known, stop
    factor = unit.factor / inner.factor
    return (
        Unit(name, "speed", factor) if unit.dimension == "length" else Unit(name, "flow", factor * 60)
    ), stop


def _smaller_unit(tokens: tuple[Token, ...], i: int, value: float, unit: Unit) -> tuple[float, int]:
    """1 hour 30 minutes, 2 h and 15 min: one value in the first unit."""
    start = i + 1 if i < len(tokens) and tokens[i].low == "and" else i
    if unit.dimension.startswith("money:") and start == i and i < len(tokens):
        cents = read_number(tokens, i)
        return (
            (value + cents[0] / 100, cents[1])
            if cents and 0 < cents[0] < 100 and not cents[2]
            else (value, i)
        )
    if unit.dimension != "time" or start >= len(tokens):
        return value, i
    number = read_number(tokens, start)
    if number is None:
        return value, i
    inner, stop = read_unit(tokens, number[1])
    if inner is None or inner.dimension != "time" or inner.factor >= unit.factor:
        return value, i
    return value + number[0] * inner.factor / unit.factor, stop
