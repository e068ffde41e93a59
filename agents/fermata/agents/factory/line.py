"""One production line: its state, and how that state moves in a step of simulated time.

The operating point follows AI4I 2020 (see ``ai4i``): process temperature about 10 K above an air temperature
of about 300 K, torque about 40 Nm at 1500 rpm and falling with speed, wear per finished product. What the
data set lacks is vibration: RMS velocity of the bearing housing, from rotating unbalance and bearing wear.
Below its critical speed a rotor's unbalance moves the housing with a velocity that grows with the cube of the
speed, amplified by 1 / (1 - (n/n_critical)²); a worn bearing excites it in the same way. So slowing a badly
vibrating line lowers its vibration steeply: by 20 % to about half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

from fermata.agents.factory import ai4i
from fermata.agents.factory.ai4i import Operation, Variant
from fermata.agents.factory.noise import Chance


class LineStatus(Enum):
    """RUNNING follows its setpoint; STOPPED and TRIPPED coast to a standstill and stay there."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    TRIPPED = "TRIPPED"


MIN_SPEED_RPM = 1000.0
"""Lowest setpoint that the drive takes."""
MAX_SPEED_RPM = 3000.0
"""Highest setpoint that the drive takes."""
RATED_SPEED_RPM = 1500.0
RAMP_RPM_PER_S = 200.0
STOP_RAMP_RPM_PER_S = 500.0
CRITICAL_SPEED_RPM = 6000.0
VIBRATION_FLOOR_MM_S = 0.3
VIBRATION_SETTLING_S = 0.5
VIBRATION_WARNING_MM_S = 4.5
"""Boundary of zones B and C of ISO 20816-3 (medium machine, flexible support): plan maintenance."""
VIBRATION_ALARM_MM_S = 7.1
"""Boundary of zones C and D: damage is likely, act now."""
VIBRATION_TRIP_MM_S = 8.9
"""1.25 times the alarm limit, the highest trip setting that the standard recommends."""
VIBRATION_TRIP_DELAY_S = 10.0
REVOLUTIONS_PER_PRODUCT = 4500.0
TEMPERATURE_DIFFERENCE_K = 10.0
AIR_TEMPERATURE_K = 300.0
_TORQUE_FALL = 0.8
_IN_PRODUCTION_TOLERANCE_RPM = 15.0

# Correlated noise: (correlation time in seconds, standard deviation). Torque and vibration are relative,
# temperatures in kelvin.
_TORQUE_NOISE = (4.0, 0.012)
_VIBRATION_NOISE = (6.0, 0.008)
_AIR_NOISE = (1800.0, 0.6)
_DIFFERENCE_NOISE = (300.0, 0.12)
_TOOL_LIFE_CHANNEL, _TOOL_END_CHANNEL, _RANDOM_FAILURE_CHANNEL = 10, 11, 12


@dataclass(frozen=True, slots=True)
class LineState:
    """Everything about one line at one instant. Units are in the names; ``*_at_rated`` are vibrations at 1500
    rpm.
    """

    name: str
    variant: Variant
    status: LineStatus
    speed_setpoint_rpm: float
    speed_rpm: float
    load_nm: float
    """Torque at rated speed, without noise."""
    tool_wear_min: float
    tool_life_min: float
    """Wear at which this tool's life ends. Nobody on the shop floor knows it."""
    imbalance_mm_s_at_rated: float
    bearing_mm_s_at_rated: float = 0.0
    bearing_growth_mm_s_per_h: float = 0.0
    cooling_loss_k: float = 0.0
    """By how much a fouled cooling circuit lowers the temperature difference."""
    torque_nm: float = 0.0
    vibration_mm_s: float = 0.0
    air_temperature_k: float = AIR_TEMPERATURE_K
    process_temperature_k: float = AIR_TEMPERATURE_K + TEMPERATURE_DIFFERENCE_K
    product_revolutions: float = 0.0
    products: int = 0
    standstill_seconds: float = 0.0
    vibration_over_trip_seconds: float = 0.0
    noise: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Torque, vibration, air and difference noise, each in units of its standard deviation."""

    @property
    def power_w(self) -> float:
        """Mechanical power in watts."""
        return ai4i.power_w(self.speed_rpm, self.torque_nm)

    @property
    def temperature_difference_k(self) -> float:
        """Process minus air temperature in kelvin."""
        return self.process_temperature_k - self.air_temperature_k

    @property
    def strain_min_nm(self) -> float:
        """Tool wear times torque, in min·Nm: what the overstrain rule looks at."""
        return self.tool_wear_min * self.torque_nm

    @property
    def tool_is_broken(self) -> bool:
        """True when the tool has outlived its life and was not changed."""
        return self.tool_wear_min >= self.tool_life_min

    @property
    def in_production(self) -> bool:
        """True when the line runs at its setpoint, which is when the failure rules apply (not on a ramp)."""
        return (
            self.status is LineStatus.RUNNING
            and abs(self.speed_rpm - self.speed_setpoint_rpm) <= _IN_PRODUCTION_TOLERANCE_RPM
        )

    @property
    def operation(self) -> Operation:
        """The operating point as the AI4I rules see it."""
        return Operation(
            self.variant,
            self.air_temperature_k,
            self.process_temperature_k,
            self.speed_rpm,
            self.torque_nm,
            self.tool_wear_min,
        )


def steady_torque_nm(load_nm: float, speed_rpm: float) -> float:
    """Torque without noise: falls with speed as at constant feed rate; below 1000 rpm the tool disengages
    linearly to zero.
    """
    engaged_rpm = max(speed_rpm, MIN_SPEED_RPM)
    engagement = min(1.0, speed_rpm / MIN_SPEED_RPM)
    return load_nm * math.pow(RATED_SPEED_RPM / engaged_rpm, _TORQUE_FALL) * engagement


def steady_vibration_mm_s(excitation_mm_s_at_rated: float, speed_rpm: float) -> float:
    """RMS velocity in mm/s without noise, for an excitation that is given as its vibration at rated speed."""
    ratio = speed_rpm / RATED_SPEED_RPM
    amplification = _amplification(speed_rpm) / _amplification(RATED_SPEED_RPM)
    floor = VIBRATION_FLOOR_MM_S * min(1.0, speed_rpm / MIN_SPEED_RPM)
    return floor + excitation_mm_s_at_rated * ratio**3 * amplification


def step_line(
    line: LineState, dt: float, chance: Chance, *, random_failures: bool = True
) -> tuple[LineState, tuple[str, ...]]:
    """Move a line by ``dt`` seconds.

    :returns: the new state, and the codes of what trips it now (``VIB-TRIP`` or failure modes), empty almost
        always. A tripped line has status TRIPPED in the new state.
    """
    noise = _step_noise(line.noise, dt, chance)
    speed = _step_speed(line, dt)
    torque = steady_torque_nm(line.load_nm, speed) * (1.0 + _TORQUE_NOISE[1] * noise[0])
    excitation = line.imbalance_mm_s_at_rated + line.bearing_mm_s_at_rated
    target = steady_vibration_mm_s(excitation, speed) * (1.0 + _VIBRATION_NOISE[1] * noise[1])
    vibration = target + (line.vibration_mm_s - target) * math.exp(-dt / VIBRATION_SETTLING_S)
    air = AIR_TEMPERATURE_K + _AIR_NOISE[1] * noise[2]
    turning = line.status is LineStatus.RUNNING
    moved = replace(
        line,
        speed_rpm=speed,
        torque_nm=torque,
        vibration_mm_s=vibration,
        air_temperature_k=air,
        process_temperature_k=air
        + TEMPERATURE_DIFFERENCE_K
        - line.cooling_loss_k
        + _DIFFERENCE_NOISE[1] * noise[3],
        bearing_mm_s_at_rated=line.bearing_mm_s_at_rated
        + (line.bearing_growth_mm_s_per_h * dt / 3600.0 if turning else 0.0),
        product_revolutions=line.product_revolutions + (speed * dt / 60.0 if turning else 0.0),
        standstill_seconds=line.standstill_seconds + dt if speed == 0.0 else 0.0,
        vibration_over_trip_seconds=line.vibration_over_trip_seconds + dt
        if vibration > VIBRATION_TRIP_MM_S
        else 0.0,
        noise=noise,
    )
    trips: list[str] = []
    while moved.product_revolutions >= REVOLUTIONS_PER_PRODUCT:
        moved, failed = _finish_product(moved, chance, random_failures=random_failures)
        trips += failed
    if turning and moved.vibration_over_trip_seconds > VIBRATION_TRIP_DELAY_S:
        trips.append("VIB-TRIP")
    if moved.in_production:
        trips += [mode.value for mode in ai4i.failures(moved.operation)]
    if trips:
        moved = replace(moved, status=LineStatus.TRIPPED)
    return moved, tuple(dict.fromkeys(trips))


def with_new_tool(line: LineState, chance: Chance) -> LineState:
    """The line with an unworn tool whose life is drawn anew."""
    life = ai4i.tool_life_min(chance.uniform(_TOOL_LIFE_CHANNEL))
    return replace(line, tool_wear_min=0.0, tool_life_min=life)


def _finish_product(line: LineState, chance: Chance, *, random_failures: bool) -> tuple[LineState, list[str]]:
    done = replace(
        line,
        product_revolutions=line.product_revolutions - REVOLUTIONS_PER_PRODUCT,
        products=line.products + 1,
        tool_wear_min=line.tool_wear_min + ai4i.WEAR_PER_PRODUCT_MIN[line.variant],
    )
    trips: list[str] = []
    if done.tool_is_broken:
        if chance.uniform(_TOOL_END_CHANNEL) < ai4i.TOOL_FAILS_AT_END_OF_LIFE:
            trips.append(ai4i.FailureMode.TWF.value)
        else:
            done = with_new_tool(done, chance)
    if random_failures and chance.uniform(_RANDOM_FAILURE_CHANNEL) < ai4i.RANDOM_FAILURE_PER_PRODUCT:
        trips.append(ai4i.FailureMode.RNF.value)
    return done, trips


def _step_speed(line: LineState, dt: float) -> float:
    if line.status is LineStatus.RUNNING:
        target, ramp = line.speed_setpoint_rpm, RAMP_RPM_PER_S
    else:
        target, ramp = 0.0, STOP_RAMP_RPM_PER_S
    change = max(-ramp * dt, min(ramp * dt, target - line.speed_rpm))
    return line.speed_rpm + change


def _step_noise(
    noise: tuple[float, float, float, float], dt: float, chance: Chance
) -> tuple[float, float, float, float]:
    # An Ornstein-Uhlenbeck process, exact for any dt: its spread does not depend on the length of a step.
    times = (_TORQUE_NOISE[0], _VIBRATION_NOISE[0], _AIR_NOISE[0], _DIFFERENCE_NOISE[0])
    torque, vibration, air, difference = (
        value * (keep := math.exp(-dt / seconds)) + math.sqrt(1.0 - keep * keep) * chance.normal(channel)
        for channel, (value, seconds) in enumerate(zip(noise, times, strict=True))
    )
    return torque, vibration, air, difference


def _amplification(speed_rpm: float) -> float:
    return 1.0 / (1.0 - (speed_rpm / CRITICAL_SPEED_RPM) ** 2)
