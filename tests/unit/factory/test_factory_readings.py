"""Names and values of readings, trends and the journal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fermata.agents.factory import readings, scenarios
from fermata.agents.factory.recorder import JOURNAL_LENGTH, QUANTITIES, Journal, Samples


def test_the_names_are_those_of_the_values() -> None:
    line = scenarios.opened("normal", 7).line("line-1")

    assert tuple(readings.values(line)) == readings.VALUE_NAMES
    assert tuple(readings.limits(line)) == readings.LIMIT_NAMES
    assert set(QUANTITIES) <= set(readings.VALUE_NAMES)


def test_the_past_of_a_worn_bearing_is_a_rising_trend() -> None:
    samples = Samples()
    for plant in scenarios.past("bearing-wear", 7):
        samples.record(plant)

    trend = readings.summarize(*samples.window("line-3", "vibration_mm_s", 60))
    assert trend.direction == "rising"
    assert trend.last > 7.1 > 5.0 > trend.first
    assert len(trend.points) <= readings.MAX_TREND_POINTS
    assert trend.points[-1] == (0.0, trend.last)

    healthy = readings.summarize(*samples.window("line-1", "vibration_mm_s", 60))
    assert healthy.direction == "steady"


def test_a_shorter_window_holds_only_its_minutes() -> None:
    samples = Samples()
    for plant in scenarios.past("normal", 7):
        samples.record(plant)
    times, values = samples.window("line-2", "torque_nm", 10)

    assert len(times) == len(values)
    assert times[-1] - times[0] == pytest.approx(600.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=500))
def test_any_samples_can_be_summarized(values: list[float]) -> None:
    trend = readings.summarize([5.0 * index for index in range(len(values))], values)

    assert trend.minimum <= trend.mean <= trend.maximum
    assert 1 <= len(trend.points) <= readings.MAX_TREND_POINTS
    assert trend.points[-1] == (0.0, round(values[-1], 2))


def test_the_journal_counts_every_accepted_command_and_remembers_the_newest() -> None:
    journal = Journal()
    for number in range(JOURNAL_LENGTH + 5):
        journal.accept("2026-01-01T00:00:00+00:00", "SetSpeed", "line-1", f'{{"rpm": {number}}}')

    assert journal.count == JOURNAL_LENGTH + 5
    assert [entry.sequence for entry in journal.entries] == list(range(6, JOURNAL_LENGTH + 6))
