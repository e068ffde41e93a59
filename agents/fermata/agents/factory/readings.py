"""What can be read from a line: names with their units, and their rounded values.

The names are the contract between the plant's OPC UA nodes, the client and the tools' results: a reading
``vibration_mm_s`` of ``line-3`` is the node ``ns=2;s=line-3.vibration_mm_s`` and the key ``"vibration_mm_s"``
of the JSON that an agent sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fermata.agents.factory import ai4i
from fermata.agents.factory.line import (
    MAX_SPEED_RPM,
    MIN_SPEED_RPM,
    VIBRATION_ALARM_MM_S,
    VIBRATION_WARNING_MM_S,
    LineState,
)

Reading = str | float | int
Quantity = Literal[
    "speed_rpm",
    "torque_nm",
    "power_w",
    "vibration_mm_s",
    "air_temperature_k",
    "process_temperature_k",
    "temperature_difference_k",
    "tool_wear_min",
]
"""The readings that have a trend."""
TREND_INTERVAL_S = 5.0
"""Simulated seconds between two samples of a trend."""
TREND_MINUTES = 120
"""How far back a trend reaches."""
MAX_TREND_POINTS = 12
_STEADY = 0.03
_KELVIN = 273.15


def values(line: LineState) -> dict[str, Reading]:
    """The readings that move, with the unit at the end of each name; ``strain_min_nm`` is tool wear times
    torque.
    """
    return {
        "state": line.status.value,
        "speed_setpoint_rpm": round(line.speed_setpoint_rpm, 1),
        "speed_rpm": round(line.speed_rpm, 1),
        "torque_nm": round(line.torque_nm, 1),
        "power_w": round(line.power_w, 0),
        "vibration_mm_s": round(line.vibration_mm_s, 2),
        "air_temperature_k": round(line.air_temperature_k, 2),
        "process_temperature_k": round(line.process_temperature_k, 2),
        "process_temperature_c": round(line.process_temperature_k - _KELVIN, 2),
        "temperature_difference_k": round(line.temperature_difference_k, 2),
        "tool_wear_min": round(line.tool_wear_min, 1),
        "strain_min_nm": round(line.strain_min_nm, 0),
        "products_made": line.products,
    }


def limits(line: LineState) -> dict[str, Reading]:
    """What the readings are held against; these never change."""
    return {
        "product_variant": line.variant.value,
        "speed_min_rpm": MIN_SPEED_RPM,
        "speed_max_rpm": MAX_SPEED_RPM,
        "vibration_warning_mm_s": VIBRATION_WARNING_MM_S,
        "vibration_alarm_mm_s": VIBRATION_ALARM_MM_S,
        "power_min_w": ai4i.MIN_POWER_W,
        "power_max_w": ai4i.MAX_POWER_W,
        "temperature_difference_limit_k": ai4i.MIN_TEMPERATURE_DIFFERENCE_K,
        "tool_wear_limit_min": ai4i.TOOL_LIFE_MIN[0],
        "strain_limit_min_nm": ai4i.OVERSTRAIN_LIMIT_MIN_NM[line.variant],
    }


VALUE_NAMES = (
    "state",
    "speed_setpoint_rpm",
    "speed_rpm",
    "torque_nm",
    "power_w",
    "vibration_mm_s",
    "air_temperature_k",
    "process_temperature_k",
    "process_temperature_c",
    "temperature_difference_k",
    "tool_wear_min",
    "strain_min_nm",
    "products_made",
)
LIMIT_NAMES = (
    "product_variant",
    "speed_min_rpm",
    "speed_max_rpm",
    "vibration_warning_mm_s",
    "vibration_alarm_mm_s",
    "power_min_w",
    "power_max_w",
    "temperature_difference_limit_k",
    "tool_wear_limit_min",
    "strain_limit_min_nm",
)
NAMES = VALUE_NAMES + LIMIT_NAMES


def quantity_value(line: LineState, quantity: Quantity) -> float:
    """The unrounded value of one quantity that has a trend."""
    value: float = getattr(line, quantity)
    return value


@dataclass(frozen=True, slots=True)
class Trend:
    """A summary of samples. ``points`` are (minutes before the newest sample, value), oldest first, at most
    12.
    """

    first: float
    last: float
    minimum: float
    maximum: float
    mean: float
    change_per_hour: float
    direction: Literal["rising", "falling", "steady"]
    points: tuple[tuple[float, float], ...]


def summarize(times_s: Sequence[float], samples: Sequence[float]) -> Trend:
    """Summarize at least one sample.

    ``change_per_hour`` is the slope of the least-squares line; a quantity whose line moves by less than 3 %
    of its mean over the window counts as steady.
    """
    count = len(samples)
    mean_t, mean = math.fsum(times_s) / count, math.fsum(samples) / count
    spread = math.fsum((t - mean_t) ** 2 for t in times_s)
    slope = (
        math.fsum((t - mean_t) * (v - mean) for t, v in zip(times_s, samples, strict=True)) / spread
        if spread
        else 0.0
    )
    moved = slope * (times_s[-1] - times_s[0])
    steady = abs(moved) <= _STEADY * abs(mean)
    stride = max(1, math.ceil((count - 1) / (MAX_TREND_POINTS - 1)))
    kept = range((count - 1) % stride, count, stride)
    return Trend(
        first=round(samples[0], 2),
        last=round(samples[-1], 2),
        minimum=round(min(samples), 2),
        maximum=round(max(samples), 2),
        mean=round(mean, 2),
        change_per_hour=round(slope * 3600.0, 2),
        direction="steady" if steady else "rising" if moved > 0 else "falling",
        points=tuple((round((times_s[-1] - times_s[i]) / 60.0, 1), round(samples[i], 2)) for i in kept),
    )
