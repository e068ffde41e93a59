"""The tools' contract, without a plant: schemas, effect classes, and what they say about a wrong argument."""

from __future__ import annotations

import json
import socket
from enum import Enum
from typing import Any, get_args

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from fermata.agents.factory import tools
from fermata.agents.factory.alarms import ALARM_KINDS
from fermata.agents.factory.client import PLANT_URL_VARIABLE, PlantClient
from fermata.agents.factory.errors import PlantRefusedError
from fermata.agents.factory.process import LINE_NAMES, Role, Task

EFFECTS = {
    "read_line": "READ",
    "read_trend": "READ",
    "list_alarms": "READ",
    "set_speed": "IDEMPOTENT",
    "stop_line": "IDEMPOTENT",
    "start_line": "IDEMPOTENT",
    "acknowledge_alarm": "UNSAFE",
    "schedule_maintenance": "UNSAFE",
    "notify_person": "UNSAFE",
}


async def call(tool: BaseTool, **arguments: Any) -> ToolMessage:
    message = await tool.ainvoke({"name": tool.name, "args": arguments, "id": "call-1", "type": "tool_call"})
    assert isinstance(message, ToolMessage)
    return message


def fault(message: ToolMessage) -> dict[str, Any]:
    assert message.status == "error"
    error: dict[str, Any] = json.loads(str(message.content))["error"]
    return error


def test_every_tool_declares_its_effect_and_risk() -> None:
    assert {tool.name: (tool.metadata or {})["fermata.effect"] for tool in tools.TOOLS} == EFFECTS
    assert {(tool.metadata or {})["fermata.risk"] for tool in tools.TOOLS} <= {"low", "medium", "high"}


@pytest.mark.parametrize("tool", tools.TOOLS, ids=lambda tool: tool.name)
def test_a_model_sees_a_description_of_the_tool_and_of_each_argument(tool: BaseTool) -> None:
    function = convert_to_openai_tool(tool)["function"]

    assert len(function["description"]) > 40
    for name, parameter in function["parameters"]["properties"].items():
        assert parameter.get("description"), name


def values(kind: type[Enum]) -> tuple[str, ...]:
    return tuple(member.value for member in kind)


def test_the_choices_in_the_schemas_are_those_of_the_plant() -> None:
    assert get_args(get_args(tools.Line)[0]) == LINE_NAMES
    assert get_args(tools.Code) == tuple(ALARM_KINDS)
    assert get_args(tools.MaintenanceTask) == values(Task)
    assert set(get_args(tools.PersonRole)) == set(values(Role))


@pytest.mark.parametrize(
    ("tool", "arguments", "named"),
    [
        (tools.read_line, {"line": "line-9"}, "line"),
        (tools.read_line, {}, "line"),
        (tools.set_speed, {"line": "line-3", "rpm": 999}, "rpm"),
        (tools.set_speed, {"line": "line-3", "rpm": 3001}, "rpm"),
        (tools.set_speed, {"line": "line-3", "rpm": "fast"}, "rpm"),
        (tools.set_speed, {"line": "line-3", "rpm": None}, "rpm"),
        (tools.set_speed, {"line": "line-3", "rpm": 1200, "force": True}, "force"),
        (tools.stop_line, {"line": "line-3", "reason": ""}, "reason"),
        (tools.stop_line, {"reason": "smoke"}, "line"),
        (tools.read_trend, {"line": "line-3", "quantity": "mood"}, "quantity"),
        (tools.read_trend, {"line": "line-3", "quantity": "speed_rpm", "minutes": 121}, "minutes"),
        (tools.schedule_maintenance, {"line": "line-3", "task": "party"}, "task"),
        (tools.notify_person, {"role": "the_king", "message": "hello"}, "role"),
    ],
)
async def test_a_wrong_argument_is_named(tool: BaseTool, arguments: dict[str, Any], named: str) -> None:
    error = fault(await call(tool, **arguments))

    assert error["reason"] == "INVALID_ARGUMENTS"
    assert named in error["message"]


@pytest.mark.parametrize("tool", tools.TOOLS, ids=lambda tool: tool.name)
async def test_without_a_plant_every_tool_says_so_and_how_to_start_one(
    tool: BaseTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"opc.tcp://127.0.0.1:{probe.getsockname()[1]}/fermata/plant"
        monkeypatch.setenv(PLANT_URL_VARIABLE, url)  # bound and not listening: refused at once
        arguments: dict[str, dict[str, Any]] = {
            "read_trend": {"quantity": "vibration_mm_s"},
            "set_speed": {"rpm": 1200},
            "stop_line": {"reason": "test"},
            "acknowledge_alarm": {"code": "VIB-HIGH"},
            "schedule_maintenance": {"task": "lubrication"},
            "notify_person": {"role": "shift_lead", "message": "hello"},
        }
        given = arguments.get(tool.name, {}) | ({} if tool.name == "notify_person" else {"line": "line-1"})
        error = fault(await call(tool, **given))

    assert error["reason"] == "PLANT_UNAVAILABLE"
    assert error["url"] == url
    assert url in error["message"]
    assert "python -m fermata.agents.factory.plant" in error["message"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:4840", "opc.tcp://", "plant"])
def test_an_address_that_is_not_one_of_a_plant_is_refused(url: str) -> None:
    with pytest.raises(PlantRefusedError) as refusal:
        PlantClient(url)
    assert refusal.value.reason == "PLANT_URL_INVALID"
