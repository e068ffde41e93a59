"""The failure rules of the AI4I 2020 Predictive Maintenance data set, as pure functions.

Source: S. Matzka, "Explainable Artificial Intelligence for Predictive Maintenance Applications", AI4I 2020,
pp. 69-74, doi:10.1109/AI4I49448.2020.00023; the data set is UCI Machine Learning Repository no. 601,
doi:10.24432/C5HS5C. The rules below are those of its description; the data set applies them once per product,
the plant on every step in production.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Variant(Enum):
    """Quality of the product that a line makes: low, medium or high."""

    L = "L"
    M = "M"
    H = "H"


class FailureMode(Enum):
    """The five independent failure modes of the data set."""

    TWF = "TWF"
    """Tool wear failure: the tool fails at a wear drawn between 200 and 240 min."""
    HDF = "HDF"
    """Heat dissipation failure: process less than 8.6 K above air, and less than 1380 rpm."""
    PWF = "PWF"
    """Power failure: torque times angular speed below 3500 W or above 9000 W."""
    OSF = "OSF"
    """Overstrain failure: tool wear times torque above 11000, 12000 or 13000 min·Nm for L, M, H."""
    RNF = "RNF"
    """Random failure: one product in a thousand, whatever its parameters."""


TOOL_LIFE_MIN = (200.0, 240.0)
"""Bounds, in minutes of wear, between which a tool's life is drawn."""
TOOL_FAILS_AT_END_OF_LIFE = 51 / 120
"""Of 120 tools at the end of their life 51 failed and 69 were replaced in time."""
WEAR_PER_PRODUCT_MIN = {Variant.L: 2.0, Variant.M: 3.0, Variant.H: 5.0}
"""Minutes of wear that one product adds to its tool."""
MIN_TEMPERATURE_DIFFERENCE_K = 8.6
MIN_SPEED_FOR_COOLING_RPM = 1380.0
MIN_POWER_W = 3500.0
MAX_POWER_W = 9000.0
OVERSTRAIN_LIMIT_MIN_NM = {Variant.L: 11000.0, Variant.M: 12000.0, Variant.H: 13000.0}
RANDOM_FAILURE_PER_PRODUCT = 0.001


@dataclass(frozen=True, slots=True)
class Operation:
    """What the rules look at: one line's operating point. Temperatures in kelvin, speed in rpm, torque in Nm,
    wear in minutes.
    """

    variant: Variant
    air_temperature_k: float
    process_temperature_k: float
    speed_rpm: float
    torque_nm: float
    tool_wear_min: float


def power_w(speed_rpm: float, torque_nm: float) -> float:
    """Mechanical power in watts: torque times angular speed (2π/60 rad/s per rpm)."""
    return torque_nm * speed_rpm * 2.0 * math.pi / 60.0


def heat_dissipation_fails(operation: Operation) -> bool:
    """HDF: the difference is below 8.6 K *and* the speed is below 1380 rpm."""
    difference_k = operation.process_temperature_k - operation.air_temperature_k
    return difference_k < MIN_TEMPERATURE_DIFFERENCE_K and operation.speed_rpm < MIN_SPEED_FOR_COOLING_RPM


def power_fails(operation: Operation) -> bool:
    """PWF: below 3500 W or above 9000 W."""
    watts = power_w(operation.speed_rpm, operation.torque_nm)
    return watts < MIN_POWER_W or watts > MAX_POWER_W


def overstrain_fails(operation: Operation) -> bool:
    """OSF: tool wear times torque above the variant's limit."""
    return operation.tool_wear_min * operation.torque_nm > OVERSTRAIN_LIMIT_MIN_NM[operation.variant]


def tool_life_min(uniform: float) -> float:
    """The wear in minutes at which a tool's life ends, from a number in [0, 1)."""
    low, high = TOOL_LIFE_MIN
    return low + (high - low) * uniform


def failures(operation: Operation) -> tuple[FailureMode, ...]:
    """The deterministic failure modes (HDF, PWF, OSF) that hold at this operating point, in that order.

    TWF and RNF depend on chance as well: see :func:`tool_life_min` and ``RANDOM_FAILURE_PER_PRODUCT``.
    """
    rules = (
        (FailureMode.HDF, heat_dissipation_fails),
        (FailureMode.PWF, power_fails),
        (FailureMode.OSF, overstrain_fails),
    )
    return tuple(mode for mode, fails in rules if fails(operation))
