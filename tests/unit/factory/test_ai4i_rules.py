"""The failure rules, held to the thresholds that the AI4I 2020 data set publishes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fermata.agents.factory import ai4i
from fermata.agents.factory.ai4i import FailureMode, Operation, Variant

AIR_K = 300.0


def operation(
    *,
    variant: Variant = Variant.M,
    difference_k: float = 10.0,
    speed_rpm: float = 1500.0,
    torque_nm: float = 40.0,
    tool_wear_min: float = 100.0,
) -> Operation:
    return Operation(variant, AIR_K, AIR_K + difference_k, speed_rpm, torque_nm, tool_wear_min)


def test_a_usual_operating_point_does_not_fail() -> None:
    assert ai4i.failures(operation()) == ()


@given(difference_k=st.floats(0.0, 20.0), speed_rpm=st.floats(1000.0, 3000.0))
def test_heat_dissipation_fails_below_8_6_kelvin_and_1380_rpm_together(
    difference_k: float, speed_rpm: float
) -> None:
    point = operation(difference_k=difference_k, speed_rpm=speed_rpm)
    difference = point.process_temperature_k - point.air_temperature_k

    assert ai4i.heat_dissipation_fails(point) == (difference < 8.6 and speed_rpm < 1380.0)


@given(torque_nm=st.floats(0.0, 90.0), speed_rpm=st.floats(1000.0, 3000.0))
def test_power_fails_below_3500_and_above_9000_watts(torque_nm: float, speed_rpm: float) -> None:
    watts = torque_nm * (speed_rpm / 60.0 * 2.0 * math.pi)
    if min(abs(watts - 3500.0), abs(watts - 9000.0)) < 1e-6:
        return  # the order of multiplication may decide here
    assert ai4i.power_fails(operation(torque_nm=torque_nm, speed_rpm=speed_rpm)) == (
        watts < 3500.0 or watts > 9000.0
    )


@pytest.mark.parametrize(
    ("variant", "limit"), [(Variant.L, 11000.0), (Variant.M, 12000.0), (Variant.H, 13000.0)]
)
@given(tool_wear_min=st.floats(0.0, 260.0), torque_nm=st.floats(0.0, 90.0))
def test_overstrain_fails_above_the_limit_of_the_variant(
    variant: Variant, limit: float, tool_wear_min: float, torque_nm: float
) -> None:
    point = operation(variant=variant, tool_wear_min=tool_wear_min, torque_nm=torque_nm)

    assert ai4i.overstrain_fails(point) == (tool_wear_min * torque_nm > limit)


@given(st.floats(0.0, 1.0, exclude_max=True))
def test_a_tool_lives_between_200_and_240_minutes(uniform: float) -> None:
    assert 200.0 <= ai4i.tool_life_min(uniform) <= 240.0


def test_several_modes_can_hold_at_once() -> None:
    point = operation(
        variant=Variant.L, difference_k=5.0, speed_rpm=1200.0, torque_nm=80.0, tool_wear_min=210.0
    )

    assert ai4i.failures(point) == (FailureMode.HDF, FailureMode.PWF, FailureMode.OSF)


def test_limits_themselves_do_not_fail() -> None:
    assert not ai4i.heat_dissipation_fails(Operation(Variant.M, 0.0, 8.6, 1000.0, 40.0, 0.0))
    assert not ai4i.heat_dissipation_fails(operation(difference_k=0.0, speed_rpm=1380.0))
    assert not ai4i.overstrain_fails(operation(variant=Variant.L, tool_wear_min=220.0, torque_nm=50.0))


def test_wear_and_chance_are_those_of_the_data_set() -> None:
    assert ai4i.WEAR_PER_PRODUCT_MIN == {Variant.L: 2.0, Variant.M: 3.0, Variant.H: 5.0}
    assert ai4i.RANDOM_FAILURE_PER_PRODUCT == 0.001
    assert ai4i.TOOL_FAILS_AT_END_OF_LIFE == 51 / 120
