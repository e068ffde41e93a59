"""The plant as a value: scenarios, commands, alarms, maintenance, determinism."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fermata.agents.factory import process, scenarios
from fermata.agents.factory.alarms import HISTORY_LENGTH, Alarm
from fermata.agents.factory.errors import PlantRefusedError
from fermata.agents.factory.line import LineStatus
from fermata.agents.factory.process import Plant

TICK_S = 0.25


def later(plant: Plant, seconds: float, dt: float = TICK_S) -> Plant:
    for _ in range(round(seconds / dt)):
        plant = process.step(plant, dt, random_failures=False)
    return plant


def active(plant: Plant, line: str) -> set[str]:
    return {alarm.code for alarm in plant.alarms if alarm.active and alarm.line == line}


@pytest.fixture(scope="module")
def worn() -> Plant:
    return scenarios.opened("bearing-wear", 7)


@pytest.fixture(scope="module")
def normal() -> Plant:
    return scenarios.opened("normal", 7)


@pytest.mark.parametrize("seed", [0, 7, 12345])
@pytest.mark.parametrize("scenario", sorted(scenarios.SCENARIOS))
def test_every_scenario_opens_with_four_running_lines_and_no_trip(scenario: str, seed: int) -> None:
    plant = scenarios.opened(scenario, seed)

    assert [line.name for line in plant.lines] == list(process.LINE_NAMES)
    assert {line.status for line in plant.lines} == {LineStatus.RUNNING}
    assert plant.time_s == 0.0


@pytest.mark.parametrize(
    ("scenario", "line", "codes"),
    [
        ("bearing-wear", "line-3", {"VIB-WARN", "VIB-HIGH"}),
        ("heat-dissipation", "line-2", {"HD-WARN"}),
        ("worn-tool", "line-4", {"TW-WARN"}),
    ],
)
def test_a_scenario_opens_with_its_alarms_and_no_others(scenario: str, line: str, codes: set[str]) -> None:
    plant = scenarios.opened(scenario, 7)

    assert {alarm.line for alarm in plant.alarms} == {line}
    assert active(plant, line) == codes


def test_the_same_seed_gives_the_same_plant_and_another_seed_another() -> None:
    one, same, other = (later(scenarios.opened("bearing-wear", seed), 30.0) for seed in (7, 7, 8))

    assert one == same
    assert one.lines != other.lines


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("slower_by", [0.20, 0.25, 0.30, 1 / 3])
def test_slowing_line_3_takes_its_vibration_from_above_the_alarm_to_below_the_warning(
    seed: int, slower_by: float
) -> None:
    plant = scenarios.opened("bearing-wear", seed)
    before = plant.line("line-3")
    assert before.vibration_mm_s > 7.1

    plant = later(process.set_speed(plant, "line-3", before.speed_rpm * (1 - slower_by)), 60.0)

    assert plant.line("line-3").vibration_mm_s < 4.5
    assert plant.line("line-3").status is LineStatus.RUNNING
    assert active(plant, "line-3") == set()


def test_left_alone_line_3_keeps_vibrating_above_the_alarm_and_does_not_trip_within_an_hour(
    worn: Plant,
) -> None:
    plant = later(worn, 3600.0, dt=1.0)

    assert plant.line("line-3").status is LineStatus.RUNNING
    assert plant.line("line-3").vibration_mm_s > 7.1


def test_speeding_line_3_up_trips_it_and_it_starts_only_after_an_acknowledgement(worn: Plant) -> None:
    plant = later(process.set_speed(worn, "line-3", 1800.0), 20.0)
    assert plant.line("line-3").status is LineStatus.TRIPPED
    assert "VIB-TRIP" in active(plant, "line-3")

    with pytest.raises(PlantRefusedError) as refusal:
        process.start_line(plant, "line-3")
    assert refusal.value.reason == "TRIP_NOT_ACKNOWLEDGED"

    plant = process.acknowledge_alarm(plant, "line-3", "VIB-TRIP")
    plant = process.start_line(process.set_speed(plant, "line-3", 1200.0), "line-3")
    plant = later(plant, 15.0)
    assert plant.line("line-3").in_production
    assert active(plant, "line-3") == set()


def test_stopping_and_starting_twice_is_the_same_as_once(normal: Plant) -> None:
    stopped = process.stop_line(normal, "line-1", "lunch")
    assert process.stop_line(stopped, "line-1", "lunch again") == stopped

    started = process.start_line(stopped, "line-1")
    assert process.start_line(started, "line-1") == started
    assert process.set_speed(started, "line-1", 1450.0) == started


def test_stopping_a_tripped_line_leaves_it_tripped(worn: Plant) -> None:
    tripped = later(process.set_speed(worn, "line-3", 1800.0), 20.0)

    assert process.stop_line(tripped, "line-3", "safe").line("line-3").status is LineStatus.TRIPPED


def test_a_broken_tool_keeps_the_line_from_starting_until_it_is_changed(normal: Plant) -> None:
    line = replace(normal.line("line-2"), status=LineStatus.STOPPED, speed_rpm=0.0, tool_wear_min=250.0)
    plant = normal.with_line(line)
    with pytest.raises(PlantRefusedError, match="tool_change") as refusal:
        process.start_line(plant, "line-2")
    assert refusal.value.reason == "TOOL_BROKEN"

    plant = later(process.schedule_maintenance(plant, "line-2", "tool_change", 2), 601.0, dt=1.0)
    assert plant.orders[0].done_at_s is not None
    assert process.start_line(plant, "line-2").line("line-2").status is LineStatus.RUNNING


def test_a_bearing_replacement_ends_the_vibration(worn: Plant) -> None:
    plant = process.schedule_maintenance(worn, "line-3", "bearing_replacement", 8)
    plant = later(process.stop_line(plant, "line-3", "bearing"), 610.0, dt=1.0)
    plant = later(process.start_line(plant, "line-3"), 30.0)

    assert plant.line("line-3").speed_rpm == 1500.0
    assert plant.line("line-3").vibration_mm_s < 2.3


def test_maintenance_waits_while_the_line_runs(worn: Plant) -> None:
    plant = later(process.schedule_maintenance(worn, "line-3", "bearing_replacement", 8), 1200.0, dt=1.0)

    assert plant.orders[0].done_at_s is None


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (lambda plant: process.set_speed(plant, "line-9", 1500), "LINE_UNKNOWN"),
        (lambda plant: process.set_speed(plant, "line-1", 999), "SPEED_OUT_OF_RANGE"),
        (lambda plant: process.set_speed(plant, "line-1", 3001), "SPEED_OUT_OF_RANGE"),
        (lambda plant: process.set_speed(plant, "line-1", float("nan")), "SPEED_OUT_OF_RANGE"),
        (lambda plant: process.set_speed(plant, "line-1", float("inf")), "SPEED_OUT_OF_RANGE"),
        (lambda plant: process.stop_line(plant, "line-1", "  "), "TEXT_INVALID"),
        (lambda plant: process.stop_line(plant, "line-1", "x" * 501), "TEXT_INVALID"),
        (lambda plant: process.acknowledge_alarm(plant, "line-1", "NOPE"), "ALARM_UNKNOWN"),
        (lambda plant: process.acknowledge_alarm(plant, "line-1", "HDF"), "ALARM_NOT_ACTIVE"),
        (lambda plant: process.schedule_maintenance(plant, "line-1", "party", 2), "TASK_UNKNOWN"),
        (lambda plant: process.schedule_maintenance(plant, "line-1", "lubrication", 0), "DUE_OUT_OF_RANGE"),
        (lambda plant: process.notify_person(plant, "the_king", "hello"), "ROLE_UNKNOWN"),
        (lambda plant: process.notify_person(plant, "shift_lead", ""), "TEXT_INVALID"),
    ],
)
def test_a_bad_command_is_refused_with_its_reason(
    normal: Plant, command: Callable[[Plant], Plant], reason: str
) -> None:
    with pytest.raises(PlantRefusedError) as refusal:
        command(normal)
    assert refusal.value.reason == reason
    assert refusal.value.message.endswith(".")


@settings(max_examples=30)
@given(st.floats(1000.0, 3000.0))
def test_every_speed_in_range_is_taken(rpm: float) -> None:
    plant = Plant(seed=1, lines=scenarios.opened("normal", 1).lines)

    assert process.set_speed(plant, "line-2", rpm).line("line-2").speed_setpoint_rpm == rpm


def test_alarms_near_their_limit_do_not_flap(worn: Plant) -> None:
    # Just at the warning limit, for ten minutes of noise.
    plant = later(process.set_speed(worn, "line-3", 1228.0), 600.0)

    assert sum(alarm.code == "VIB-WARN" for alarm in plant.alarms) <= 2


def test_the_history_is_bounded_and_never_forgets_what_is_active(worn: Plant) -> None:
    old = tuple(
        Alarm(number, "line-1", "TW-WARN", 190.0, -9.0, cleared_at_s=-8.0) for number in range(3, 400)
    )
    plant = replace(worn, alarms=worn.alarms + old, alarms_raised=400)
    plant = later(plant.with_line(replace(plant.line("line-2"), cooling_loss_k=2.0)), 2.0)

    assert len(plant.alarms) == HISTORY_LENGTH
    assert active(plant, "line-3") == {"VIB-WARN", "VIB-HIGH"}
    assert active(plant, "line-2") == {"HD-WARN"}
    numbers = [alarm.number for alarm in plant.alarms]
    assert numbers == sorted(set(numbers))
