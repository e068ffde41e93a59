"""A real plant process, reached over OPC UA by the agent's own tools."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from asyncua.client.client import Client
from asyncua.ua.uaerrors import UaStatusCodeError
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool

from fermata.agents.factory import tools
from fermata.agents.factory.client import PLANT_URL_VARIABLE, PlantClient
from fermata.agents.factory.errors import PlantRefusedError, PlantUnavailableError
from fermata.agents.factory.opcua import node_id

COMMAND = [sys.executable, "-m", "fermata.agents.factory.plant", "--ready-json"]
STOP_SECONDS = 20


@dataclass
class RunningPlant:
    """A plant of our own, and where it is."""

    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])


def start(*arguments: str) -> RunningPlant:
    process = subprocess.Popen([*COMMAND, "--port", "0", *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert ready["ready"] is True
    assert ready["pid"] == process.pid
    return RunningPlant(process, ready["endpoint"])


def end(plant: RunningPlant) -> int:
    if plant.process.poll() is None:
        plant.process.send_signal(signal.SIGCONT)
        plant.process.terminate()
    code = plant.process.wait(STOP_SECONDS)
    if plant.process.stdout is not None:
        plant.process.stdout.close()
    return code


@pytest.fixture(scope="module")
def worn_plant() -> Iterator[RunningPlant]:
    """A plant with a worn bearing for all tests that do not end it; its time runs 20 times as fast."""
    plant = start("--scenario", "bearing-wear", "--tick-seconds", "0.05", "--time-scale", "20")
    yield plant
    assert end(plant) == 0


@pytest.fixture
def plant(worn_plant: RunningPlant, monkeypatch: pytest.MonkeyPatch) -> RunningPlant:
    monkeypatch.setenv(PLANT_URL_VARIABLE, worn_plant.url)
    return worn_plant


async def call(tool: BaseTool, **arguments: Any) -> ToolMessage:
    message = await tool.ainvoke({"name": tool.name, "args": arguments, "id": "call-1", "type": "tool_call"})
    assert isinstance(message, ToolMessage)
    return message


async def result(tool: BaseTool, **arguments: Any) -> dict[str, Any]:
    message = await call(tool, **arguments)
    assert message.status == "success", message.content
    content: dict[str, Any] = json.loads(str(message.content))
    return content


async def reason(tool: BaseTool, **arguments: Any) -> str:
    message = await call(tool, **arguments)
    assert message.status == "error", message.content
    found: str = json.loads(str(message.content))["error"]["reason"]
    return found


async def test_the_story_of_line_3_from_the_first_reading_to_the_notified_lead(plant: RunningPlant) -> None:
    async with PlantClient() as client:
        written = await client.write_count()

    before = await result(tools.read_line, line="line-3")
    assert before["vibration_mm_s"] > before["vibration_alarm_mm_s"] == 7.1
    assert set(before["active_alarms"]) == {"VIB-WARN", "VIB-HIGH"}
    trend = await result(tools.read_trend, line="line-3", quantity="vibration_mm_s")
    assert trend["direction"] == "rising"
    alarms = await result(tools.list_alarms)
    assert {(alarm["line"], alarm["code"]) for alarm in alarms["alarms"]} == {
        ("line-3", "VIB-WARN"),
        ("line-3", "VIB-HIGH"),
    }
    async with PlantClient() as client:
        assert await client.write_count() == written, "reading has to write nothing"

    slowed = await result(tools.set_speed, line="line-3", rpm=1200)
    assert slowed["at_setpoint"] is True
    assert slowed["previous_setpoint_rpm"] == 1500
    assert slowed["journal_sequence"] == written + 1
    after = await result(tools.read_line, line="line-3")
    assert after["speed_rpm"] == pytest.approx(1200, abs=5)
    assert after["vibration_mm_s"] < 4.5
    assert after["active_alarms"] == []

    stopped = await result(tools.stop_line, line="line-3", reason="bearing inspection")
    assert (stopped["state"], stopped["speed_rpm"], stopped["at_standstill"]) == ("STOPPED", 0, True)
    started = await result(tools.start_line, line="line-3")
    assert (started["state"], started["at_setpoint"]) == ("RUNNING", True)

    order = await result(
        tools.schedule_maintenance, line="line-3", task="bearing_inspection", within_hours=24
    )
    assert order["scheduled"] is True
    told = await result(
        tools.notify_person, role="maintenance_lead", message="The bearing of line 3 is worn."
    )
    assert told["sent"] is True

    async with PlantClient() as client:
        journal = (await client.document("journal"))[-5:]
        orders = await client.document("orders")
        messages = await client.document("messages")
        assert await client.write_count() == written + 5
    assert [(entry["command"], entry["line"]) for entry in journal] == [
        ("SetSpeed", "line-3"),
        ("Stop", "line-3"),
        ("Start", "line-3"),
        ("ScheduleMaintenance", "line-3"),
        ("Notify", ""),
    ]
    assert [entry["sequence"] for entry in journal] == list(range(written + 1, written + 6))
    assert json.loads(journal[0]["value"]) == {"rpm": 1200.0}
    assert orders[-1]["task"] == "bearing_inspection"
    assert messages[-1]["role"] == "maintenance_lead"


async def test_a_refused_command_changes_and_journals_nothing(plant: RunningPlant) -> None:
    async with PlantClient() as client:
        written = await client.write_count()
        before = (await client.read("line-1"))["speed_setpoint_rpm"]
        for refused in (client.set_speed("line-1", 99999), client.set_speed("line-1", float("nan"))):
            with pytest.raises(PlantRefusedError) as error:
                await refused
            assert error.value.reason == "SPEED_OUT_OF_RANGE"
        with pytest.raises(PlantRefusedError) as error:
            await client.read("line-9")
        assert error.value.reason == "LINE_UNKNOWN"
        assert await client.write_count() == written
        assert (await client.read("line-1"))["speed_setpoint_rpm"] == before
    assert await reason(tools.acknowledge_alarm, line="line-1", code="HDF") == "ALARM_NOT_ACTIVE"


@pytest.mark.parametrize("arguments", [("fast",), (True,), (), (1200.0, 1.0), ([1200.0],)])
async def test_wrong_argument_types_are_refused_by_the_protocol(
    plant: RunningPlant, arguments: tuple[Any, ...]
) -> None:
    async with Client(plant.url) as client:
        line = client.get_node(node_id("line-2"))
        with pytest.raises(UaStatusCodeError):
            await line.call_method(node_id("line-2.SetSpeed"), *arguments)


async def test_a_reading_cannot_be_written_past_the_methods(plant: RunningPlant) -> None:
    async with Client(plant.url) as client:
        for name in ("line-2.speed_setpoint_rpm", "line-2.speed_rpm", "write_count", "journal"):
            with pytest.raises(UaStatusCodeError):
                await client.get_node(node_id(name)).write_value(1.0)


async def test_a_subscription_sees_readings_move(plant: RunningPlant) -> None:
    seen: asyncio.Queue[float] = asyncio.Queue()

    class Listener:
        def datachange_notification(self, node: Any, value: float, data: Any) -> None:
            seen.put_nowait(value)

    async with Client(plant.url) as client:
        subscription = await client.create_subscription(50, Listener())
        await subscription.subscribe_data_change(client.get_node(node_id("line-1.torque_nm")))
        values = {await asyncio.wait_for(seen.get(), 20) for _ in range(3)}
        await subscription.delete()
    assert len(values) > 1


async def test_many_clients_at_once_lose_no_journal_entry(plant: RunningPlant) -> None:
    async with PlantClient() as client:
        written = await client.write_count()

    async def tell(number: int) -> int:
        async with PlantClient() as each:
            return await each.notify_person("shift_lead", f"message {number}")

    sequences = await asyncio.gather(*(tell(number) for number in range(12)))
    assert sorted(sequences) == list(range(written + 1, written + 13))


@pytest.fixture
def own_plant(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningPlant]:
    """A plant that the test may stop or kill."""
    own = start()
    monkeypatch.setenv(PLANT_URL_VARIABLE, own.url)
    yield own
    end(own)


async def first_write(client: PlantClient) -> None:
    while await client.write_count() == 0:  # noqa: ASYNC110 (the plant is another process)
        await asyncio.sleep(0.01)


async def test_a_command_without_an_answer_leaves_its_outcome_open(own_plant: RunningPlant) -> None:
    async def frozen_while_commanded() -> None:
        async with PlantClient(timeout_seconds=0.5) as client:
            own_plant.process.send_signal(signal.SIGSTOP)
            await client.set_speed("line-1", 1300)

    with pytest.raises(PlantUnavailableError) as unknown:
        await frozen_while_commanded()
    assert unknown.value.reason == "PLANT_OUTCOME_UNKNOWN"
    assert unknown.value.facts["command"] == "SetSpeed"


async def test_a_plant_that_is_killed_between_two_reads_is_unavailable(own_plant: RunningPlant) -> None:
    async def killed_between_two_reads() -> None:
        async with PlantClient() as client:
            await client.read("line-1")
            own_plant.process.kill()
            own_plant.process.wait(STOP_SECONDS)
            await client.read("line-1")

    with pytest.raises(PlantUnavailableError) as gone:
        await killed_between_two_reads()
    assert gone.value.reason == "PLANT_UNAVAILABLE"
    assert await reason(tools.read_line, line="line-1") == "PLANT_UNAVAILABLE"


async def test_a_plant_that_dies_while_a_line_follows_leaves_the_effect_open(own_plant: RunningPlant) -> None:
    asking = asyncio.create_task(reason(tools.set_speed, line="line-1", rpm=2000))
    async with PlantClient() as client:
        await first_write(client)
    own_plant.process.kill()

    assert await asking == "PLANT_OUTCOME_UNKNOWN"


async def test_a_cancelled_call_ends_at_once_and_what_it_wrote_stays_on_record(
    own_plant: RunningPlant,
) -> None:
    asking = asyncio.create_task(call(tools.set_speed, line="line-1", rpm=2000))
    async with PlantClient() as client:
        await first_write(client)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asking, 1.0)
        assert await client.write_count() == 1
        assert (await client.read("line-1"))["speed_setpoint_rpm"] == 2000


def test_a_port_in_use_is_said_in_one_line(worn_plant: RunningPlant) -> None:
    second = subprocess.run(
        [*COMMAND, "--port", str(worn_plant.port)], capture_output=True, text=True, timeout=60
    )

    assert second.returncode == 1
    assert second.stdout == ""
    error = json.loads(second.stderr)["error"]
    assert error["reason"] == "PLANT_PORT_IN_USE"
    assert str(worn_plant.port) in error["message"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_beyond_loopback_the_plant_refuses_to_listen(host: str) -> None:
    refused = subprocess.run([*COMMAND, "--host", host], capture_output=True, text=True, timeout=60)

    assert refused.returncode == 1
    assert json.loads(refused.stderr)["error"]["reason"] == "PLANT_NOT_LOOPBACK"


@pytest.mark.parametrize(
    "arguments",
    [["--scenario", "meltdown"], ["--port", "70000"], ["--tick-seconds", "0"], ["--time-scale", "nan"]],
)
def test_a_bad_option_is_a_usage_error(arguments: list[str]) -> None:
    refused = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)

    assert refused.returncode == 2
    assert arguments[1] in refused.stderr


def test_it_listens_on_loopback_only_and_ends_cleanly_on_sigint() -> None:
    own = start("--seed", "3")
    try:
        listening = [
            connection.laddr.ip
            for connection in psutil.Process(own.process.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == ["127.0.0.1"]
        own.process.send_signal(signal.SIGINT)
        assert own.process.wait(STOP_SECONDS) == 0
    finally:
        end(own)
