"""The agent's tools on the plant: LangChain tools that speak OPC UA, each with its effect class and risk
declared.

Results are flat JSON objects whose keys end in their unit. A refusal or an absent plant comes back as an
error message of the form ``{"error": {"reason": ..., "message": ..., ...}}``, so that the agent can say what
happened. ``set_speed``, ``stop_line`` and ``start_line`` wait (at most ``SETTLE_SECONDS``) until the line has
followed, so that what they return, and what is read next, is the effect and not a ramp on its way.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from fermata.agents.factory.client import PlantClient
from fermata.agents.factory.errors import PlantError, PlantUnavailableError
from fermata.agents.factory.readings import Quantity, Reading

SETTLE_SECONDS = 20.0
POLL_SECONDS = 0.25
MAX_ALARMS = 20
_SPEED_TOLERANCE_RPM = 5.0
_VIBRATION_TOLERANCE = 0.02

Line = Annotated[
    Literal["line-1", "line-2", "line-3", "line-4"], Field(description="The production line, such as line-3.")
]
Code = Literal[
    "VIB-WARN",
    "VIB-HIGH",
    "VIB-TRIP",
    "TW-WARN",
    "HD-WARN",
    "PW-WARN",
    "OS-WARN",
    "TWF",
    "HDF",
    "PWF",
    "OSF",
    "RNF",
]
MaintenanceTask = Literal[
    "bearing_inspection",
    "bearing_replacement",
    "tool_change",
    "cooling_service",
    "balancing",
    "lubrication",
    "sensor_check",
    "electrical_check",
]
PersonRole = Literal["maintenance_lead", "shift_lead", "process_engineer", "quality_lead", "safety_officer"]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReadLineArguments(_Arguments):
    """Arguments of ``read_line``."""

    line: Line


class ReadTrendArguments(_Arguments):
    """Arguments of ``read_trend``."""

    line: Line
    quantity: Annotated[
        Quantity,
        Field(
            description="What to look at: speed (rpm), torque (Nm), power (W), vibration (mm/s RMS), air or "
            "process temperature or their difference (K), tool wear (min)."
        ),
    ]
    minutes: Annotated[int, Field(ge=1, le=120, description="How far to look back, in minutes.")] = 60


class ListAlarmsArguments(_Arguments):
    """Arguments of ``list_alarms``."""

    line: Annotated[
        Literal["line-1", "line-2", "line-3", "line-4"] | None,
        Field(description="One line; all lines if left out."),
    ] = None
    active_only: Annotated[bool, Field(description="Leave out alarms that have cleared.")] = True


class SetSpeedArguments(_Arguments):
    """Arguments of ``set_speed``."""

    line: Line
    rpm: Annotated[
        int,
        Field(
            ge=1000, le=3000, description="The new speed in revolutions per minute (rpm), from 1000 to 3000."
        ),
    ]


class StopLineArguments(_Arguments):
    """Arguments of ``stop_line``."""

    line: Line
    reason: Annotated[
        str, Field(min_length=1, max_length=500, description="Why the line has to stop, where it was said.")
    ] = "no reason was given"


class StartLineArguments(_Arguments):
    """Arguments of ``start_line``."""

    line: Line


class AcknowledgeAlarmArguments(_Arguments):
    """Arguments of ``acknowledge_alarm``."""

    line: Line
    code: Annotated[Code, Field(description="The alarm code, such as VIB-HIGH or HDF.")]


class ScheduleMaintenanceArguments(_Arguments):
    """Arguments of ``schedule_maintenance``."""

    line: Line
    task: Annotated[
        MaintenanceTask, Field(description="The work to do, such as bearing inspection or tool change.")
    ]
    within_hours: Annotated[int, Field(ge=1, le=720, description="Do it within this many hours.")] = 24
    note: Annotated[str, Field(max_length=500, description="What the crew should know.")] = ""


class NotifyPersonArguments(_Arguments):
    """Arguments of ``notify_person``."""

    role: Annotated[
        PersonRole, Field(description="Whom to tell, such as the maintenance lead or the shift lead.")
    ]
    message: Annotated[str, Field(min_length=1, max_length=500, description="What to tell them.")]


async def _read_line(line: str) -> dict[str, Any]:
    async with PlantClient() as plant:
        values = await plant.read(line)
        alarms = await plant.document("alarms")
    active = [alarm["code"] for alarm in alarms if alarm["active"] and alarm["line"] == line]
    return {"line": line, **values, "active_alarms": active}


async def _read_trend(line: str, quantity: Quantity, minutes: int = 60) -> dict[str, Any]:
    async with PlantClient() as plant:
        trend = await plant.trend(line, quantity, minutes)
    points = [{"minutes_ago": ago, "value": value} for ago, value in trend.points]
    return {"line": line, "quantity": quantity, "minutes": minutes, **asdict(trend), "points": points}


async def _list_alarms(line: str | None = None, active_only: bool = True) -> dict[str, Any]:
    async with PlantClient() as plant:
        alarms = await plant.document("alarms")
    chosen = [
        alarm
        for alarm in alarms
        if (line is None or alarm["line"] == line) and (alarm["active"] or not active_only)
    ]
    return {"line": line or "all", "count": len(chosen), "alarms": chosen[-MAX_ALARMS:]}


async def _set_speed(line: str, rpm: int) -> dict[str, Any]:
    async with PlantClient() as plant:
        before = await plant.read(line)
        sequence = await plant.set_speed(line, rpm)
        after, settled = await _settled(plant, line, sequence)
    return {
        "line": line,
        "previous_setpoint_rpm": before["speed_setpoint_rpm"],
        "previous_vibration_mm_s": before["vibration_mm_s"],
        **_outcome(after, sequence),
        "at_setpoint": settled and after["state"] == "RUNNING",
    }


async def _stop_line(line: str, reason: str = "no reason was given") -> dict[str, Any]:
    async with PlantClient() as plant:
        sequence = await plant.stop_line(line, reason)
        after, settled = await _settled(plant, line, sequence)
    return {
        "line": line,
        **_outcome(after, sequence),
        "at_standstill": settled and after["state"] != "RUNNING",
    }


async def _start_line(line: str) -> dict[str, Any]:
    async with PlantClient() as plant:
        sequence = await plant.start_line(line)
        after, settled = await _settled(plant, line, sequence)
    return {"line": line, **_outcome(after, sequence), "at_setpoint": settled and after["state"] == "RUNNING"}


async def _acknowledge_alarm(line: str, code: str) -> dict[str, Any]:
    async with PlantClient() as plant:
        sequence = await plant.acknowledge_alarm(line, code)
    return {"line": line, "code": code, "acknowledged": True, "journal_sequence": sequence}


async def _schedule_maintenance(
    line: str, task: str, within_hours: int = 24, note: str = ""
) -> dict[str, Any]:
    async with PlantClient() as plant:
        sequence = await plant.schedule_maintenance(line, task, within_hours, note)
    return {
        "line": line,
        "task": task,
        "within_hours": within_hours,
        "scheduled": True,
        "journal_sequence": sequence,
    }


async def _notify_person(role: str, message: str) -> dict[str, Any]:
    async with PlantClient() as plant:
        sequence = await plant.notify_person(role, message)
    return {"role": role, "message": message, "sent": True, "journal_sequence": sequence}


async def _settled(plant: PlantClient, line: str, sequence: int) -> tuple[dict[str, Reading], bool]:
    """Wait until the line has followed its setpoint and its vibration has come to rest; False if time ran
    out.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + SETTLE_SECONDS
    last_vibration = float("inf")
    try:
        while True:
            now = await plant.read(line)
            vibration = float(now["vibration_mm_s"])
            target = float(now["speed_setpoint_rpm"]) if now["state"] == "RUNNING" else 0.0
            followed = abs(float(now["speed_rpm"]) - target) <= _SPEED_TOLERANCE_RPM
            at_rest = abs(vibration - last_vibration) <= _VIBRATION_TOLERANCE * (1.0 + vibration)
            if followed and at_rest:
                return now, True
            if loop.time() >= give_up_at:
                return now, False
            last_vibration = vibration
            await asyncio.sleep(POLL_SECONDS)
    except PlantUnavailableError as error:
        raise PlantUnavailableError(
            f"The plant at {plant.url} accepted the change to {line} (journal entry {sequence}) and then "
            "went away: its effect is not known. Read the line before doing anything else.",
            reason="PLANT_OUTCOME_UNKNOWN",
            url=plant.url,
            line=line,
            journal_sequence=sequence,
        ) from error


def _outcome(after: dict[str, Reading], sequence: int) -> dict[str, Any]:
    shown = ("state", "speed_setpoint_rpm", "speed_rpm", "torque_nm", "power_w", "vibration_mm_s")
    limits = ("vibration_warning_mm_s", "vibration_alarm_mm_s")
    return {**{name: after[name] for name in shown + limits}, "journal_sequence": sequence}


def _refusing(call: Callable[..., Awaitable[dict[str, Any]]]) -> Callable[..., Awaitable[dict[str, Any]]]:
    # LangChain turns a ToolException, and nothing else, into a message with status "error".
    @functools.wraps(call)
    async def refusing(**arguments: Any) -> dict[str, Any]:
        try:
            return await call(**arguments)
        except PlantError as error:
            raise ToolException(_error(error.reason, error.message, error.facts)) from error

    return refusing


def _invalid_arguments(error: ValidationError | ValidationErrorV1) -> str:
    faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
    return _error("INVALID_ARGUMENTS", faults, {})


def _error(reason: str, message: str, facts: Mapping[str, str | float]) -> str:
    return json.dumps({"error": {"reason": reason, "message": message, **facts}}, ensure_ascii=False)


def _tool(
    call: Callable[..., Awaitable[dict[str, Any]]],
    arguments: type[_Arguments],
    effect: Literal["READ", "IDEMPOTENT", "UNSAFE"],
    risk: Literal["low", "medium", "high"],
    description: str,
) -> BaseTool:
    return StructuredTool.from_function(
        coroutine=_refusing(call),
        name=call.__name__.removeprefix("_"),
        description=description,
        args_schema=arguments,
        infer_schema=False,
        handle_tool_error=True,
        handle_validation_error=_invalid_arguments,
        metadata={"fermata.effect": effect, "fermata.risk": risk},
    )


read_line = _tool(
    _read_line,
    ReadLineArguments,
    "READ",
    "low",
    "Read the present values of one production line: state, speed (rpm), torque (Nm), power (W), vibration "
    "(mm/s), air and process temperature (K), tool wear (min), their limits, and its active alarms.",
)
read_trend = _tool(
    _read_trend,
    ReadTrendArguments,
    "READ",
    "low",
    "Read how one quantity of a production line moved over the last minutes: whether it is rising, falling "
    "or steady, its minimum, maximum and mean, and its change per hour.",
)
list_alarms = _tool(
    _list_alarms,
    ListAlarmsArguments,
    "READ",
    "low",
    "List the alarms of the plant or of one production line, with code, severity, value and time; with "
    "active_only false also the history of alarms that have cleared.",
)
set_speed = _tool(
    _set_speed,
    SetSpeedArguments,
    "IDEMPOTENT",
    "medium",
    "Set the speed of a production line in rpm: slow it down or speed it up to this value.",
)
stop_line = _tool(
    _stop_line,
    StopLineArguments,
    "IDEMPOTENT",
    "high",
    "Stop a production line: shut it down to a standstill and halt its production.",
)
start_line = _tool(
    _start_line,
    StartLineArguments,
    "IDEMPOTENT",
    "high",
    "Start a production line that stands still: run it up to its speed setpoint again.",
)
acknowledge_alarm = _tool(
    _acknowledge_alarm,
    AcknowledgeAlarmArguments,
    "UNSAFE",
    "medium",
    "Acknowledge an active alarm of a production line; this resets a trip, so that the line can start again.",
)
schedule_maintenance = _tool(
    _schedule_maintenance,
    ScheduleMaintenanceArguments,
    "UNSAFE",
    "low",
    "Schedule maintenance on a production line: order an inspection, replacement, tool change, lubrication "
    "or service to be done within some hours.",
)
notify_person = _tool(
    _notify_person,
    NotifyPersonArguments,
    "UNSAFE",
    "low",
    "Notify a person: send a message to the maintenance lead, the shift lead or another role of the plant.",
)

TOOLS: list[BaseTool] = [
    read_line,
    read_trend,
    list_alarms,
    set_speed,
    stop_line,
    start_line,
    acknowledge_alarm,
    schedule_maintenance,
    notify_person,
]
"""Every tool of the factory, for ``agent.yaml``."""
