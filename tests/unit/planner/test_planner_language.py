"""The small parts that read English: quantities, times, clauses, intents, conditions."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from fermata.agents.planner.clauses import corrected, split_clauses
from fermata.agents.planner.conditions import judge
from fermata.agents.planner.conversation import Call, Result, parse_data, read_passages
from fermata.agents.planner.intent import Intent, read_intent
from fermata.agents.planner.quantities import find_quantities
from fermata.agents.planner.text import lemma
from fermata.agents.planner.times import find_times, today_of
from fermata.agents.planner.units import convert, unit_named

TUESDAY = date(2026, 3, 10)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("for a minute and a half", 1.5, "min"),
        ("at fifteen hundred rpm", 1500, "rpm"),
        ("to sixty-eight fahrenheit", 68, "°F"),
        ("three quarters of a minute", 0.75, "min"),
        ("half a gibibyte", 0.5, "GiB"),
        ("a tenth of a litre per hour", 0.1, "l/h"),
        ("minus eighteen", -18, None),
        ("forty-two euros fifty", 42.5, "EUR"),
        ("two dozen", 24, None),
        ("1,200.5 kg", 1200.5, "kg"),
        ("halfway", 50, "%"),
        ("eighty centimetres a second", 80, "cm/s"),
    ],
)
def test_numbers_in_words_are_read_with_their_unit(text: str, value: float, unit: str | None) -> None:
    found = find_quantities(text)
    assert len(found) == 1
    assert found[0].value == pytest.approx(value)
    assert (found[0].unit.name if found[0].unit else None) == unit


def test_a_goal_is_told_from_a_change() -> None:
    assert find_quantities("set it to 1200 rpm")[0].role == "goal"
    assert find_quantities("reduce it by 10 %")[0].role == "change"


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (68, "°F", "°C", 20),
        (2, "GiB", "MiB", 2048),
        (60, "m/min", "m/s", 1),
        (90, "min", "h", 1.5),
        (1, "kg", "°C", None),
    ],
)
def test_units_convert_within_a_dimension_only(
    value: float, source: str, target: str, expected: float | None
) -> None:
    assert convert(value, unit_named(source), unit_named(target)) == expected


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("tomorrow", date(2026, 3, 11)),
        ("on Thursday", date(2026, 3, 12)),
        ("on the 14th of March", date(2026, 3, 14)),
        ("on Friday the 13th", date(2026, 3, 13)),
        ("in two weeks", date(2026, 3, 24)),
        ("on 2 January", date(2027, 1, 2)),
    ],
)
def test_days_are_resolved_against_the_day_that_the_conversation_names(text: str, day: date) -> None:
    assert [w.day for w in find_times(text, TUESDAY)] == [day]


def test_without_a_day_in_the_conversation_a_relative_day_stays_open() -> None:
    assert [w.day for w in find_times("tomorrow", None)] == [None]
    assert today_of("You run a plant. Today is Tuesday 2026-03-10.") == TUESDAY


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("at quarter past nine", "09:15"),
        ("at 2 pm", "14:00"),
        ("at seven", "07:00"),
        ("at 14:30", "14:30"),
        ("half past eight", "08:30"),
    ],
)
def test_clock_times(text: str, clock: str) -> None:
    assert [w.clock for w in find_times(text, None)] == [clock]


def intents(text: str) -> list[Intent]:
    return [read_intent(c).intent for c in split_clauses(text)]


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("Stop line 3.", Intent.REQUEST),
        ("could you please stop line 3?", Intent.REQUEST),
        ("would you mind stopping line 3", Intent.REQUEST),
        ("I want line 3 stopped", Intent.REQUEST),
        ("we should never drain node-3", Intent.PROHIBITION),
        ("do not stop line 3", Intent.PROHIBITION),
        ("EV-22 must not be cancelled", Intent.PROHIBITION),
        ("leave the garage alone", Intent.PROHIBITION),
        ("what happens if I stop line 3?", Intent.HYPOTHETICAL),
        ("should we stop line 3?", Intent.HYPOTHETICAL),
        ("I wonder whether we ought to stop it", Intent.HYPOTHETICAL),
        ("how do I drain a node?", Intent.CAPABILITY),
        ("yesterday I restarted node 3", Intent.REPORT),
        ("the kids started the washing machine an hour ago", Intent.REPORT),
        ("build 8 got cancelled", Intent.REPORT),
        ("is the front door locked?", Intent.QUESTION),
        ("follow the runbook", Intent.DELEGATION),
    ],
)
def test_only_what_has_the_form_of_a_request_is_one(text: str, intent: Intent) -> None:
    assert intents(text) == [intent]


def test_quoted_words_are_not_requests() -> None:
    assert Intent.REQUEST not in intents('Mina: "please unlock main"')


def test_clauses_keep_their_order_and_their_conditions() -> None:
    clauses = split_clauses("Lock the front door, turn off the lights and then set the alarm to night.")
    assert [c.text for c in clauses] == [
        "Lock the front door",
        "turn off the lights",
        "set the alarm to night",
    ]
    assert clauses[2].link == "then"
    (clause,) = split_clauses("If line 3 is hotter than 80 °C, slow it to 900 rpm.")
    assert (clause.condition, clause.text) == ("line 3 is hotter than 80 °C", "slow it to 900 rpm")
    after = split_clauses("If it is ready, leave it as it is; otherwise drain it.")[-1]
    assert (after.text, after.condition, after.condition_word) == ("drain it", "it is ready", "unless")


def test_what_a_person_takes_back_is_replaced() -> None:
    assert corrected("set volume on screen 3 to 5, no sorry, 6") == "set volume on screen 3 to 6"


def held(condition: str, data: Any) -> bool | None:
    return judge(condition, [Result(Call("1", "read", {}), "", data)]).holds


@pytest.mark.parametrize(
    ("condition", "data", "holds"),
    [
        (
            "the vibration is above 7.1 mm/s",
            {"vibration": {"value": 8.2, "unit": "mm/s"}, "speed_rpm": 900},
            True,
        ),
        ("the temperature is over 90 degrees", {"value": 71.5, "unit": "°C"}, False),
        ("the delay is less than an hour", {"delay_minutes": 45}, True),
        ("the pH is outside 6.5 to 7.5", {"ph": 8.0}, True),
        ("it isn't ready", {"ready": False}, True),
        ('the logs say "OOMKilled"', {"lines": ["starting", "OOMKilled"]}, True),
        ("any alarms are active", {"alarms": []}, False),
        ("the link is down", {"state": "up"}, False),
        ("more than 3 alarms are active", {"alarms": [1, 2, 3, 4]}, True),
        ("the moon is full", {"value": 3}, None),
    ],
)
def test_conditions_are_held_against_readings(condition: str, data: Any, holds: bool | None) -> None:
    assert held(condition, data) is holds


def test_results_as_lines_are_data_too() -> None:
    assert parse_data("speed: 1200\nstate: RUNNING") == {"speed": 1200, "state": "RUNNING"}


def test_passages_are_read_with_what_a_heading_may_hold() -> None:
    found, rest = read_passages(
        '<passage id="7" source="a/b.md" heading="A > B" line="3">\ntext\n</passage>', trusted=True
    )
    assert (found[0].id, found[0].heading, found[0].line, found[0].text, rest) == (
        "7",
        "A > B",
        3,
        "text",
        "",
    )


@pytest.mark.parametrize(
    ("word", "base"),
    [
        ("stopped", "stop"),
        ("closing", "close"),
        ("batteries", "battery"),
        ("went", "go"),
        ("scheduled", "schedule"),
    ],
)
def test_base_forms(word: str, base: str) -> None:
    assert lemma(word) == base
