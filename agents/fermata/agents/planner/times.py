"""Days and clock times in running text.

Relative days ("tomorrow", "Thursday") are resolved against the day that the conversation names; without one they stay
words. Refused: the process's own clock, by which the same conversation would be planned differently tomorrow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from fermata.agents.planner.quantities import ordinal, read_number, read_unit
from fermata.agents.planner.text import tokenize
from fermata.agents.planner.words import MONTHS, NUMBER_WORDS, WEEKDAYS

_MONTH: Final = (
    {name: i for i, name in enumerate(MONTHS, 1)}
    | {name[:3]: i for i, name in enumerate(MONTHS, 1)}
    | {"sept": 9}
)
_WEEKDAY: Final = {name: i for i, name in enumerate(WEEKDAYS)} | {
    "mon": 0, "tue": 1, "tues": 1, "wed": 2, "thu": 3, "thur": 3, "thurs": 3, "fri": 4,
}  # fmt: skip
_ISO: Final = re.compile(r"^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}:\d{2}))?")
_CLOCK: Final = re.compile(r"^([01]?\d|2[0-3])[:.]([0-5]\d)$")
#: "at 1830": four figures are a clock time only behind a word that says so.
_PLAIN_CLOCK: Final = re.compile(r"^([01]\d|2[0-3])([0-5]\d)$")
_CLOCK_WORDS: Final = frozenset({"at", "until", "till", "by", "from", "before", "after"})


@dataclass(frozen=True, slots=True)
class When:
    """A day (`day`, None when it could not be resolved) or a clock time (`clock`, "HH:MM") of a text."""

    day: date | None
    clock: str | None
    start: int
    end: int


def today_of(text: str) -> date | None:
    """The current day that a system text names ("Today is Tuesday 2026-03-10"), or None."""
    for pattern in (
        r"(?:today|now|current date|date)\b[^.\n]{0,40}?(\d{4}-\d{2}-\d{2})",
        r"(\d{4}-\d{2}-\d{2})[^.\n]{0,20}\btoday",
    ):
        m = re.search(pattern, text, re.IGNORECASE)
        if m:
            return date.fromisoformat(m.group(1))
    m = re.search(r"\btoday\b[^.\n]{0,60}", text, re.IGNORECASE)
    if m is None:
        return None
    found = [w.day for w in find_times(m.group()[5:], None) if w.day is not None]
    return found[0] if found else None


@lru_cache(maxsize=1024)
def find_times(text: str, today: date | None) -> tuple[When, ...]:
    """Days and clock times of `text` in order."""
    tokens = tokenize(text)
    lows = [t.low for t in tokens]
    out: list[When] = []
    i = 0
    while i < len(tokens):
        hit = _day(lows, i, today) or _clock(lows, i)
        if hit is None:
            i += 1
            continue
        day, clock, end = hit
        out.append(When(day, clock, tokens[i].start, tokens[end - 1].end))
        i = end
    return tuple(out)


def _day(lows: list[str], i: int, today: date | None) -> tuple[date | None, str | None, int] | None:
    low = lows[i]
    m = _ISO.match(low)
    if m:
        try:
            return date(int(m[1]), int(m[2]), int(m[3])), m[4], i + 1
        except ValueError:
            return None
    if low in ("today", "tonight"):
        return today, None, i + 1
    if low == "tomorrow":
        return _shift(today, 1), None, i + 1
    if low == "yesterday":
        return _shift(today, -1), None, i + 1
    if lows[i : i + 4] == ["the", "day", "after", "tomorrow"]:
        return _shift(today, 2), None, i + 4
    if lows[i : i + 3] == ["day", "after", "tomorrow"]:
        return _shift(today, 2), None, i + 3
    if low in ("in",) and i + 2 < len(lows):
        ahead = _days_ahead(lows, i + 1)
        if ahead is not None:
            return _shift(today, ahead[0]), None, ahead[1]
    if low in _WEEKDAY or low.removesuffix("'s") in _WEEKDAY:
        after = i + 1 + (i + 1 < len(lows) and lows[i + 1] in (",",))
        after += after < len(lows) and lows[after] == "the"
        exact = _day_of_month(lows, after, today) if after < len(lows) else None
        if exact is not None:
            return exact
        previous = lows[i - 1] if i else ""
        target = _WEEKDAY[low.removesuffix("'s")]
        if today is None:
            return None, None, i + 1
        if previous == "last":
            return today - timedelta(days=(today.weekday() - target) % 7 or 7), None, i + 1
        return today + timedelta(days=(target - today.weekday()) % 7 or 7), None, i + 1
    return _day_of_month(lows, i, today)


def _day_of_month(lows: list[str], i: int, today: date | None) -> tuple[date | None, str | None, int] | None:
    """14 March, March 14th 2026, the 14th of March, the 14th."""
    low = lows[i]
    number, month, end = None, None, i
    if low in _MONTH and i + 1 < len(lows) and (low != "may" or _number(lows[i + 1]) is not None):
        number, month, end = _number(lows[i + 1]), _MONTH[low], i + 2
    elif _number(low) is not None and i + 1 < len(lows):
        j = i + 2 if lows[i + 1] == "of" else i + 1
        if j < len(lows) and lows[j] in _MONTH:
            number, month, end = _number(low), _MONTH[lows[j]], j + 1
    if (
        number is None
        and re.fullmatch(r"\d+(?:st|nd|rd|th)", low)
        and i
        and lows[i - 1] in ("the", "on")
        and today
    ):
        number, end = ordinal(low), i + 1
        month = today.month if number is not None and number >= today.day else today.month % 12 + 1
    if number is None or month is None:
        return None
    year = None
    if end < len(lows) and re.fullmatch(r"20\d\d", lows[end]):
        year, end = int(lows[end]), end + 1
    if year is None:
        if today is None:
            return None, None, end
        year = today.year if (month, number) >= (today.month, today.day) else today.year + 1
    try:
        return date(year, month, number), None, end
    except ValueError:
        return None


def _days_ahead(lows: list[str], i: int) -> tuple[int, int] | None:
    tokens = tokenize(" ".join(lows[i : i + 4]))
    if not tokens:
        return None
    number = (1.0, 1, False) if tokens[0].low in ("a", "an") else read_number(tokens, 0)
    if number is None or number[1] >= len(tokens):
        return None
    unit, stop = read_unit(tokens, number[1])
    if unit is None or unit.name not in ("d", "week") or not float(number[0]).is_integer():
        return None
    return int(number[0] * unit.factor // 86400), i + stop


def _clock(lows: list[str], i: int) -> tuple[None, str, int] | None:
    low = lows[i]
    previous = lows[i - 1] if i else ""
    if low in ("noon", "midday"):
        return None, "12:00", i + 1
    if low == "midnight":
        return None, "00:00", i + 1
    if low in ("half", "quarter") and i + 2 < len(lows) and lows[i + 1] in ("past", "to"):
        hour = _number(lows[i + 2])
        if hour is not None and hour <= 12:
            minutes = 30 if low == "half" else 15
            total = hour * 60 + (minutes if lows[i + 1] == "past" else -minutes)
            return _afternoon(lows, i + 3, total // 60, total % 60)
    figures = _PLAIN_CLOCK.match(low)
    if figures and previous in _CLOCK_WORDS and (i + 1 >= len(lows) or _continues(lows[i + 1]) is False):
        return None, f"{figures[1]}:{figures[2]}", i + 1
    m = _CLOCK.match(low)
    if (
        m
        and (":" in low or previous in ("at", "from", "until", "till", "by", "to"))
        and low.count(":") + low.count(".") == 1
    ):
        if "." in low and not (i + 1 < len(lows) and lows[i + 1] in ("am", "pm", "o'clock", "h")):
            return None
        return _afternoon(lows, i + 1, int(m[1]), int(m[2]))
    hour = _number(low)
    if hour is None or hour > 24:
        return None
    following = lows[i + 1] if i + 1 < len(lows) else ""
    if following in ("am", "pm", "o'clock", "a.m", "p.m"):
        return _afternoon(lows, i + 1, hour, 0)
    if previous in ("at", "until", "till") and not _continues(following):
        return _afternoon(lows, i + 1, hour, 0)
    return None


def _continues(following: str) -> bool:
    """Whether the word behind a number makes it a quantity or a name instead of a clock time."""
    return bool(following) and following not in (
        ".", ",", "!", "?", ";", "and", "on", "in", "tomorrow", "today", "tonight", "for", "sharp", "please", "then", "to", "this",
    )  # fmt: skip


def _afternoon(lows: list[str], end: int, hour: int, minute: int) -> tuple[None, str, int]:
    following = lows[end] if end < len(lows) else ""
    if following in ("pm", "p.m"):
        return None, f"{hour % 12 + 12:02d}:{minute:02d}", end + 1
    if following in ("am", "a.m"):
        return None, f"{hour % 12:02d}:{minute:02d}", end + 1
    if following == "o'clock":
        end += 1
        following = lows[end] if end < len(lows) else ""
    if lows[end : end + 3] in (["in", "the", "afternoon"], ["in", "the", "evening"]) and hour < 12:
        return None, f"{hour + 12:02d}:{minute:02d}", end + 3
    if lows[end : end + 3] == ["in", "the", "morning"]:
        return None, f"{hour:02d}:{minute:02d}", end + 3
    return None, f"{hour:02d}:{minute:02d}", end


def _number(low: str) -> int | None:
    if low.isdigit():
        return int(low)
    if low in NUMBER_WORDS and NUMBER_WORDS[low] <= 20:
        return int(NUMBER_WORDS[low])
    return ordinal(low)


def _shift(today: date | None, days: int) -> date | None:
    return None if today is None else today + timedelta(days=days)
