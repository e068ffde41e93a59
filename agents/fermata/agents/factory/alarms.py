"""Alarms: which codes there are, when each holds, and their history.

A warning or alarm clears by itself when its value is back inside by a margin (so that noise at the limit does
not make it flap). A trip is latched: it stays active until somebody acknowledges it, and a tripped line does
not start before that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from fermata.agents.factory import ai4i
from fermata.agents.factory.line import (
    VIBRATION_ALARM_MM_S,
    VIBRATION_WARNING_MM_S,
    LineState,
)


class Severity(Enum):
    """WARNING: plan something. ALARM: act now. TRIP: the plant has stopped the line."""

    WARNING = "WARNING"
    ALARM = "ALARM"
    TRIP = "TRIP"


@dataclass(frozen=True, slots=True)
class AlarmKind:
    """What a code means. ``quantity`` names the value at raising, with its unit."""

    code: str
    severity: Severity
    text: str
    quantity: str


ALARM_KINDS = {
    kind.code: kind
    for kind in (
        AlarmKind("VIB-WARN", Severity.WARNING, "Vibration above 4.5 mm/s", "vibration_mm_s"),
        AlarmKind("VIB-HIGH", Severity.ALARM, "Vibration above 7.1 mm/s", "vibration_mm_s"),
        AlarmKind("VIB-TRIP", Severity.TRIP, "Tripped: vibration above 8.9 mm/s for 10 s", "vibration_mm_s"),
        AlarmKind("TW-WARN", Severity.WARNING, "Tool wear above 180 min", "tool_wear_min"),
        AlarmKind(
            "HD-WARN", Severity.WARNING, "Temperature difference below 9.0 K", "temperature_difference_k"
        ),
        AlarmKind("PW-WARN", Severity.WARNING, "Power within 400 W of a limit", "power_w"),
        AlarmKind("OS-WARN", Severity.WARNING, "Strain above 90 % of its limit", "strain_min_nm"),
        AlarmKind("TWF", Severity.TRIP, "Tripped: the worn tool failed", "tool_wear_min"),
        AlarmKind(
            "HDF",
            Severity.TRIP,
            "Tripped: heat dissipation, below 8.6 K and 1380 rpm",
            "temperature_difference_k",
        ),
        AlarmKind("PWF", Severity.TRIP, "Tripped: power below 3500 W or above 9000 W", "power_w"),
        AlarmKind(
            "OSF", Severity.TRIP, "Tripped: overstrain, wear times torque above its limit", "strain_min_nm"
        ),
        AlarmKind("RNF", Severity.TRIP, "Tripped: random failure, cause unknown", "speed_rpm"),
    )
}
HISTORY_LENGTH = 200
_TOOL_WEAR_WARNING_MIN = 180.0
_DIFFERENCE_WARNING_K = 9.0
_POWER_MARGIN_W = 400.0
_STRAIN_WARNING = 0.9
# How far a value has to be back inside its limit before the warning clears.
_VIBRATION_MARGIN, _DIFFERENCE_MARGIN_K, _POWER_HYSTERESIS_W, _STRAIN_HYSTERESIS = 0.03, 0.1, 100.0, 0.02


@dataclass(frozen=True, slots=True)
class Alarm:
    """One occurrence. Times are simulated seconds since the plant opened (negative: in the hour before)."""

    number: int
    line: str
    code: str
    value: float
    raised_at_s: float
    cleared_at_s: float | None = None
    acknowledged_at_s: float | None = None

    @property
    def kind(self) -> AlarmKind:
        """What the code means."""
        return ALARM_KINDS[self.code]

    @property
    def active(self) -> bool:
        """True until it clears."""
        return self.cleared_at_s is None


def conditions(line: LineState, active: frozenset[str]) -> frozenset[str]:
    """The warning and alarm codes that hold for this line, given those that held before (their margins
    apply).
    """

    def over(code: str, value: float, limit: float, margin: float) -> bool:
        return value > limit - (margin if code in active else 0.0)

    limit = ai4i.OVERSTRAIN_LIMIT_MIN_NM[line.variant]
    holds = {
        "VIB-WARN": over("VIB-WARN", line.vibration_mm_s / VIBRATION_WARNING_MM_S, 1.0, _VIBRATION_MARGIN),
        "VIB-HIGH": over("VIB-HIGH", line.vibration_mm_s / VIBRATION_ALARM_MM_S, 1.0, _VIBRATION_MARGIN),
        "TW-WARN": line.tool_wear_min > _TOOL_WEAR_WARNING_MIN,
        "HD-WARN": over(
            "HD-WARN", -line.temperature_difference_k, -_DIFFERENCE_WARNING_K, _DIFFERENCE_MARGIN_K
        ),
        "PW-WARN": line.in_production
        and (
            over("PW-WARN", line.power_w, ai4i.MAX_POWER_W - _POWER_MARGIN_W, _POWER_HYSTERESIS_W)
            or over("PW-WARN", -line.power_w, -ai4i.MIN_POWER_W - _POWER_MARGIN_W, _POWER_HYSTERESIS_W)
        ),
        "OS-WARN": over("OS-WARN", line.strain_min_nm / limit, _STRAIN_WARNING, _STRAIN_HYSTERESIS),
    }
    return frozenset(code for code, held in holds.items() if held)


def update(
    alarms: tuple[Alarm, ...], line: LineState, trips: tuple[str, ...], now_s: float, next_number: int
) -> tuple[Alarm, ...]:
    """The history after this instant: what newly holds is raised, what no longer holds is cleared, trips are
    latched.

    :param next_number: the number of the next alarm that is raised.
    """
    active = frozenset(alarm.code for alarm in alarms if alarm.active and alarm.line == line.name)
    held = conditions(line, active)
    raised = [code for code in ALARM_KINDS if code in (held | frozenset(trips)) and code not in active]
    cleared = {code for code in active - held if ALARM_KINDS[code].severity is not Severity.TRIP}
    if not raised and not cleared:
        return alarms
    kept = tuple(
        replace(alarm, cleared_at_s=now_s)
        if alarm.active and alarm.line == line.name and alarm.code in cleared
        else alarm
        for alarm in alarms
    )
    new = tuple(
        Alarm(next_number + offset, line.name, code, _value(line, ALARM_KINDS[code].quantity), now_s)
        for offset, code in enumerate(raised)
    )
    return _bounded(kept + new)


def acknowledge(alarms: tuple[Alarm, ...], line: str, code: str, now_s: float) -> tuple[Alarm, ...]:
    """The history with every active alarm of this line and code acknowledged; a trip clears by it."""
    return tuple(
        replace(
            alarm,
            acknowledged_at_s=alarm.acknowledged_at_s if alarm.acknowledged_at_s is not None else now_s,
            cleared_at_s=now_s if alarm.kind.severity is Severity.TRIP else alarm.cleared_at_s,
        )
        if alarm.active and alarm.line == line and alarm.code == code
        else alarm
        for alarm in alarms
    )


def active_trips(alarms: tuple[Alarm, ...], line: str) -> tuple[str, ...]:
    """Codes of the trips of this line that nobody has acknowledged."""
    return tuple(
        alarm.code
        for alarm in alarms
        if alarm.active and alarm.line == line and alarm.kind.severity is Severity.TRIP
    )


def _bounded(alarms: tuple[Alarm, ...]) -> tuple[Alarm, ...]:
    # What is still active is never dropped, however old.
    excess = len(alarms) - HISTORY_LENGTH
    if excess <= 0:
        return alarms
    droppable = [alarm.number for alarm in alarms if not alarm.active][:excess]
    return tuple(alarm for alarm in alarms if alarm.number not in droppable)


def _value(line: LineState, quantity: str) -> float:
    return float(getattr(line, quantity))
