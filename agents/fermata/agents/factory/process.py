"""The plant as a value: four lines, their alarms and work orders; a step of simulated time; and the commands
that people give.

Everything here is pure: ``step`` and the commands take a plant and return a new one, and chance comes from
the seed and the number of the step. Commands raise :class:`PlantRefusedError` and change nothing when they
do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from fermata.agents.factory import alarms as alarm_history
from fermata.agents.factory.alarms import ALARM_KINDS, Alarm
from fermata.agents.factory.errors import PlantRefusedError
from fermata.agents.factory.line import (
    MAX_SPEED_RPM,
    MIN_SPEED_RPM,
    LineState,
    LineStatus,
    step_line,
    with_new_tool,
)
from fermata.agents.factory.noise import Chance

LINE_NAMES = ("line-1", "line-2", "line-3", "line-4")
MAINTENANCE_STANDSTILL_S = 600.0
"""A crew carries out an open work order when its line has stood still for this long."""
MAX_WITHIN_HOURS = 720
MAX_TEXT_LENGTH = 500
HISTORY_LENGTH = 200


class Task(Enum):
    """Work that can be ordered. Changes and replacements restore the line; inspections and lubrication are
    only recorded.
    """

    BEARING_INSPECTION = "bearing_inspection"
    BEARING_REPLACEMENT = "bearing_replacement"
    TOOL_CHANGE = "tool_change"
    COOLING_SERVICE = "cooling_service"
    BALANCING = "balancing"
    LUBRICATION = "lubrication"
    SENSOR_CHECK = "sensor_check"
    ELECTRICAL_CHECK = "electrical_check"


class Role(Enum):
    """Whom the plant's message board reaches."""

    MAINTENANCE_LEAD = "maintenance_lead"
    SHIFT_LEAD = "shift_lead"
    PROCESS_ENGINEER = "process_engineer"
    QUALITY_LEAD = "quality_lead"
    SAFETY_OFFICER = "safety_officer"


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """A piece of maintenance that was ordered. Times are simulated seconds since the plant opened."""

    number: int
    line: str
    task: Task
    ordered_at_s: float
    due_at_s: float
    note: str = ""
    done_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message on the plant's board, addressed to a role."""

    number: int
    role: Role
    text: str
    sent_at_s: float


@dataclass(frozen=True, slots=True)
class Plant:
    """Everything at one instant. ``time_s`` is 0 when the plant opens."""

    seed: int
    lines: tuple[LineState, ...]
    time_s: float = 0.0
    steps: int = 0
    alarms: tuple[Alarm, ...] = ()
    alarms_raised: int = 0
    orders: tuple[WorkOrder, ...] = ()
    orders_made: int = 0
    messages: tuple[Message, ...] = ()
    messages_sent: int = 0

    def line(self, name: str) -> LineState:
        """The line of this name; raises :class:`PlantRefusedError` (LINE_UNKNOWN)."""
        return self.lines[self._index(name)]

    def with_line(self, line: LineState) -> Plant:
        """The plant with this line in the place of its namesake."""
        index = self._index(line.name)
        return replace(self, lines=(*self.lines[:index], line, *self.lines[index + 1 :]))

    def _index(self, name: str) -> int:
        for index, line in enumerate(self.lines):
            if line.name == name:
                return index
        known = ", ".join(line.name for line in self.lines)
        raise PlantRefusedError(
            f"There is no line {name!r}; the lines are {known}.", reason="LINE_UNKNOWN", line=name
        )


def step(plant: Plant, dt: float, *, random_failures: bool = True) -> Plant:
    """The plant ``dt`` simulated seconds later: lines move, failures trip them, alarms come and go, crews do
    their work.
    """
    now = plant.time_s + dt
    history, raised, lines = plant.alarms, plant.alarms_raised, list(plant.lines)
    for index, line in enumerate(plant.lines):
        chance = Chance.of(plant.seed, plant.steps, index)
        lines[index], trips = step_line(line, dt, chance, random_failures=random_failures)
        history = alarm_history.update(history, lines[index], trips, now, raised + 1)
        raised = max(raised, history[-1].number if history else 0)
    moved = replace(
        plant,
        time_s=now,
        steps=plant.steps + 1,
        lines=tuple(lines),
        alarms=history,
        alarms_raised=raised,
    )
    return _carry_out_maintenance(moved)


def set_speed(plant: Plant, name: str, rpm: float) -> Plant:
    """Give a line a new speed setpoint; a line that stands still takes it up when it starts. Repeating it
    changes nothing.
    """
    line = plant.line(name)
    if not MIN_SPEED_RPM <= rpm <= MAX_SPEED_RPM:  # also refuses NaN
        raise PlantRefusedError(
            f"{name} takes setpoints from {MIN_SPEED_RPM:.0f} to {MAX_SPEED_RPM:.0f} rpm, not {rpm:g} rpm.",
            reason="SPEED_OUT_OF_RANGE",
            line=name,
            rpm=rpm,
            min_rpm=MIN_SPEED_RPM,
            max_rpm=MAX_SPEED_RPM,
        )
    return plant.with_line(replace(line, speed_setpoint_rpm=float(rpm)))


def stop_line(plant: Plant, name: str, reason: str) -> Plant:
    """Bring a line to a standstill. A line that is stopped stays stopped, a tripped one stays tripped."""
    line = plant.line(name)
    _text(reason, "reason")
    if line.status is not LineStatus.RUNNING:
        return plant
    return plant.with_line(replace(line, status=LineStatus.STOPPED))


def start_line(plant: Plant, name: str) -> Plant:
    """Run a line up to its setpoint; a line that runs keeps running. Refused while a trip is unacknowledged
    or the tool is broken.
    """
    line = plant.line(name)
    if line.status is LineStatus.RUNNING:
        return plant
    if trips := alarm_history.active_trips(plant.alarms, name):
        raise PlantRefusedError(
            f"{name} tripped on {', '.join(trips)}: acknowledge that alarm before starting the line.",
            reason="TRIP_NOT_ACKNOWLEDGED",
            line=name,
            codes=", ".join(trips),
        )
    if line.tool_is_broken:
        raise PlantRefusedError(
            f"The tool of {name} is broken: order a tool_change before starting the line.",
            reason="TOOL_BROKEN",
            line=name,
            tool_wear_min=line.tool_wear_min,
        )
    return plant.with_line(replace(line, status=LineStatus.RUNNING, vibration_over_trip_seconds=0.0))


def acknowledge_alarm(plant: Plant, name: str, code: str) -> Plant:
    """Acknowledge the active alarms of this code on a line; a trip clears by it. Refused where none is
    active.
    """
    plant.line(name)
    if code not in ALARM_KINDS:
        raise PlantRefusedError(
            f"There is no alarm code {code!r}; the codes are {', '.join(ALARM_KINDS)}.",
            reason="ALARM_UNKNOWN",
            code=code,
        )
    if not any(alarm.active and alarm.line == name and alarm.code == code for alarm in plant.alarms):
        raise PlantRefusedError(
            f"{name} has no active alarm {code}.", reason="ALARM_NOT_ACTIVE", line=name, code=code
        )
    return replace(plant, alarms=alarm_history.acknowledge(plant.alarms, name, code, plant.time_s))


def schedule_maintenance(plant: Plant, name: str, task: str, within_hours: float, note: str = "") -> Plant:
    """Order maintenance on a line. Each call makes an order of its own; the newest is the last in
    ``orders``.
    """
    plant.line(name)
    try:
        work = Task(task)
    except ValueError:
        known = ", ".join(each.value for each in Task)
        raise PlantRefusedError(
            f"There is no task {task!r}; the tasks are {known}.", reason="TASK_UNKNOWN", task=task
        ) from None
    if not 1 <= within_hours <= MAX_WITHIN_HOURS:
        raise PlantRefusedError(
            f"Maintenance is due within 1 to {MAX_WITHIN_HOURS} hours, not {within_hours:g}.",
            reason="DUE_OUT_OF_RANGE",
            within_hours=within_hours,
        )
    if note:
        _text(note, "note")
    number = plant.orders_made + 1
    order = WorkOrder(number, name, work, plant.time_s, plant.time_s + within_hours * 3600.0, note)
    return replace(plant, orders=(*plant.orders, order)[-HISTORY_LENGTH:], orders_made=number)


def notify_person(plant: Plant, role: str, text: str) -> Plant:
    """Put a message for a role on the plant's board. Each call sends one message; the newest is the last in
    ``messages``.
    """
    try:
        addressee = Role(role)
    except ValueError:
        known = ", ".join(each.value for each in Role)
        raise PlantRefusedError(
            f"There is no role {role!r}; the roles are {known}.", reason="ROLE_UNKNOWN", role=role
        ) from None
    _text(text, "message")
    number = plant.messages_sent + 1
    message = Message(number, addressee, text.strip(), plant.time_s)
    return replace(plant, messages=(*plant.messages, message)[-HISTORY_LENGTH:], messages_sent=number)


def _carry_out_maintenance(plant: Plant) -> Plant:
    if all(order.done_at_s is not None for order in plant.orders):
        return plant
    for position, order in enumerate(plant.orders):
        line = plant.line(order.line)
        if order.done_at_s is None and line.standstill_seconds >= MAINTENANCE_STANDSTILL_S:
            done = replace(order, done_at_s=plant.time_s)
            plant = replace(plant, orders=(*plant.orders[:position], done, *plant.orders[position + 1 :]))
            plant = plant.with_line(
                _restored(line, order.task, Chance.of(plant.seed, plant.steps, order.number))
            )
    return plant


def _restored(line: LineState, task: Task, chance: Chance) -> LineState:
    match task:
        case Task.TOOL_CHANGE:
            return with_new_tool(line, chance)
        case Task.BEARING_REPLACEMENT:
            return replace(line, bearing_mm_s_at_rated=0.0, bearing_growth_mm_s_per_h=0.0)
        case Task.COOLING_SERVICE:
            return replace(line, cooling_loss_k=0.0)
        case Task.BALANCING:
            return replace(line, imbalance_mm_s_at_rated=0.5)
        case _:
            return line


def _text(text: str, what: str) -> None:
    if not text.strip() or len(text) > MAX_TEXT_LENGTH:
        raise PlantRefusedError(
            f"The {what} has to say something in at most {MAX_TEXT_LENGTH} characters (it has {len(text)}).",
            reason="TEXT_INVALID",
            what=what,
            length=len(text),
        )
