"""One line, stepped by hand."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fermata.agents.factory import line as physics
from fermata.agents.factory.ai4i import Variant
from fermata.agents.factory.line import LineState, LineStatus, step_line
from fermata.agents.factory.noise import Chance

TICK_S = 0.25


def a_line(**changes: object) -> LineState:
    healthy = LineState(
        name="line-1",
        variant=Variant.M,
        status=LineStatus.RUNNING,
        speed_setpoint_rpm=1500.0,
        speed_rpm=1500.0,
        load_nm=40.0,
        tool_wear_min=50.0,
        tool_life_min=220.0,
        imbalance_mm_s_at_rated=0.8,
    )
    return replace(healthy, **changes)  # type: ignore[arg-type]


def run(line: LineState, seconds: float, *, seed: int = 1, dt: float = TICK_S) -> tuple[LineState, list[str]]:
    trips: list[str] = []
    for step in range(round(seconds / dt)):
        line, new = step_line(line, dt, Chance.of(seed, step, 0), random_failures=False)
        trips += new
    return line, trips


def test_speed_follows_its_setpoint_at_200_rpm_per_second() -> None:
    line, _ = run(a_line(speed_setpoint_rpm=1900.0), 1.0)
    assert line.speed_rpm == pytest.approx(1700.0)

    line, _ = run(line, 2.0)
    assert line.speed_rpm == 1900.0


@pytest.mark.parametrize("status", [LineStatus.STOPPED, LineStatus.TRIPPED])
def test_a_line_that_does_not_run_comes_to_a_standstill(status: LineStatus) -> None:
    line, _ = run(a_line(status=status), 6.0)

    assert (line.speed_rpm, line.torque_nm, line.power_w) == (0.0, 0.0, 0.0)
    assert line.vibration_mm_s == pytest.approx(0.0, abs=0.01)
    assert line.products == 0


@given(low=st.floats(1000.0, 2900.0), step=st.floats(1.0, 100.0), excitation=st.floats(0.1, 10.0))
def test_a_slower_line_always_vibrates_less(low: float, step: float, excitation: float) -> None:
    slower = physics.steady_vibration_mm_s(excitation, low)
    faster = physics.steady_vibration_mm_s(excitation, low + step)

    assert slower < faster


@given(low=st.floats(1000.0, 2900.0), step=st.floats(1.0, 100.0))
def test_a_slower_line_needs_more_torque_and_a_little_less_power(low: float, step: float) -> None:
    slow, fast = physics.steady_torque_nm(40.0, low), physics.steady_torque_nm(40.0, low + step)

    assert slow > fast
    assert slow * low < fast * (low + step)


def test_each_finished_product_wears_the_tool_by_its_variant() -> None:
    for variant, wear in ((Variant.L, 2.0), (Variant.M, 3.0), (Variant.H, 5.0)):
        line, _ = run(a_line(variant=variant), 9 * 60.0 + 1.0)
        assert (line.products, line.tool_wear_min) == (3, 50.0 + 3 * wear)


def test_a_tool_at_the_end_of_its_life_fails_51_times_of_120_and_is_replaced_otherwise() -> None:
    line = a_line(tool_wear_min=218.0, product_revolutions=4499.0)
    failed = replaced = 0
    for seed in range(2000):
        after, trips = step_line(line, TICK_S, Chance.of(seed, 0, 0))
        failed += "TWF" in trips
        replaced += after.tool_wear_min == 0.0
        assert ("TWF" in trips) == (after.tool_wear_min > 0.0)
    assert failed + replaced == 2000
    assert failed / 2000 == pytest.approx(51 / 120, abs=0.04)


def test_one_product_in_a_thousand_fails_at_random() -> None:
    line = a_line(product_revolutions=4499.0)
    trips = [step_line(line, TICK_S, Chance.of(seed, 0, 0))[1] for seed in range(20000)]

    assert sum("RNF" in each for each in trips) / 20000 == pytest.approx(0.001, abs=0.0008)


def test_slowing_a_line_with_poor_cooling_below_1380_rpm_trips_it() -> None:
    line, trips = run(a_line(cooling_loss_k=2.0), 60.0)
    assert trips == []

    line, trips = run(replace(line, speed_setpoint_rpm=1300.0), 5.0)
    assert trips == ["HDF"]
    assert line.status is LineStatus.TRIPPED


def test_the_rules_do_not_apply_on_a_ramp() -> None:
    # From standstill the power is below 3500 W for seconds; that is a start and not a failure.
    line, trips = run(a_line(speed_rpm=0.0), 30.0)

    assert trips == []
    assert line.in_production


def test_vibration_above_8_9_trips_only_after_ten_seconds() -> None:
    shaken = a_line(bearing_mm_s_at_rated=9.0)
    assert run(shaken, 10.0)[1] == []
    assert run(shaken, 14.0)[1][:1] == ["VIB-TRIP"]


def test_a_worn_bearing_gets_worse_only_while_the_line_runs() -> None:
    wearing = a_line(bearing_mm_s_at_rated=2.0, bearing_growth_mm_s_per_h=3.0)
    running, _ = run(wearing, 600.0, dt=5.0)
    stopped, _ = run(replace(wearing, status=LineStatus.STOPPED), 600.0, dt=5.0)

    assert running.bearing_mm_s_at_rated == pytest.approx(2.5)
    assert stopped.bearing_mm_s_at_rated == 2.0


@settings(max_examples=20)
@given(seed=st.integers(0, 2**63), dt=st.sampled_from([0.1, 0.25, 1.0, 5.0]))
def test_a_healthy_line_stays_healthy_whatever_the_seed_and_the_step(seed: int, dt: float) -> None:
    line, trips = run(a_line(), 100.0, seed=seed, dt=dt)

    assert trips == []
    assert 0.5 < line.vibration_mm_s < 2.3
    assert 9.0 < line.temperature_difference_k < 11.0
    assert 5000.0 < line.power_w < 7500.0


def test_chance_depends_on_seed_step_line_and_channel_only() -> None:
    assert Chance.of(7, 3, 1).normal(2) == Chance.of(7, 3, 1).normal(2)
    keys = [(7, 3, 1), (8, 3, 1), (7, 4, 1), (7, 3, 2)]
    assert len({Chance.of(*key).uniform(0) for key in keys}) == len(keys)

    normals = [Chance.of(1, step, 0).normal(0) for step in range(4000)]
    assert statistics.fmean(normals) == pytest.approx(0.0, abs=0.06)
    assert statistics.stdev(normals) == pytest.approx(1.0, abs=0.05)
