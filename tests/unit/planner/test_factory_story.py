"""The factory's own runbook, as the retriever hands it over, with the factory's own tools and readings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage

import fermata.agents.factory
from fermata.agents.factory.tools import TOOLS
from fermata.agents.planner import PlannerChatModel
from fermata.agents.retrieval import as_system_text

RUNBOOK = Path(fermata.agents.factory.__file__).parent / "runbooks" / "high-vibration.md"
READING: dict[str, Any] = {
    "line": "line-3",
    "state": "RUNNING",
    "speed_setpoint_rpm": 1500.0,
    "speed_rpm": 1500.0,
    "torque_nm": 42.1,
    "power_w": 6606.0,
    "vibration_mm_s": 8.22,
    "process_temperature_c": 38.32,
    "temperature_difference_k": 10.06,
    "tool_wear_min": 104.0,
    "speed_min_rpm": 1000.0,
    "speed_max_rpm": 3000.0,
    "vibration_warning_mm_s": 4.5,
    "vibration_alarm_mm_s": 7.1,
    "power_min_w": 3500.0,
    "active_alarms": [{"code": "VIB-HIGH", "severity": "high"}],
}


def _passages() -> SystemMessage:
    whole = RUNBOOK.read_text().split("---\n", 2)[2]
    documents = []
    for heading in ("When to use it", "Steps", "Afterwards", "Take care"):
        text = whole.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
        facts = {
            "source": "runbooks/high-vibration.md",
            "heading": f"High vibration on a line > {heading}",
            "line": 8,
            "kind": "runbook",
        }
        documents.append(Document(page_content=f"## {heading}\n{text}", metadata=facts))
    return SystemMessage(f"You operate equipment together with a person.\n\n{as_system_text(documents)}")


def _play(
    request: str, results: dict[str, Any], turns: int = 16
) -> tuple[list[tuple[str, dict[str, Any]]], list[AnyMessage]]:
    """Call the planner until it stops; results are by tool, a list is used up in order and its last one repeats."""
    model = PlannerChatModel().bind_tools(TOOLS)
    messages: list[AnyMessage] = [_passages(), HumanMessage(request)]
    calls: list[tuple[str, dict[str, Any]]] = []
    for _ in range(turns):
        reply = model.invoke(messages)
        assert isinstance(reply, AIMessage)
        messages.append(reply)
        if not reply.tool_calls:
            break
        for call in reply.tool_calls:
            calls.append((call["name"], call["args"]))
            result = results.get(call["name"], {"accepted": True})
            if isinstance(result, list):
                result = result.pop(0) if len(result) > 1 else result[0]
            if isinstance(result, ToolMessage):
                messages.append(
                    ToolMessage(
                        result.content, tool_call_id=call["id"], status=result.status, name=call["name"]
                    )
                )
            else:
                messages.append(ToolMessage(json.dumps(result), tool_call_id=call["id"], name=call["name"]))
    return calls, messages


def test_a_badly_vibrating_line_is_dealt_with_by_the_runbook() -> None:
    slower = {
        **READING,
        "speed_setpoint_rpm": 1100.0,
        "speed_rpm": 1100.0,
        "vibration_mm_s": 3.3,
        "active_alarms": [],
    }
    set_speed = {
        "line": "line-3",
        "previous_setpoint_rpm": 1500.0,
        "speed_setpoint_rpm": 1100.0,
        "speed_rpm": 1100.0,
        "at_setpoint": True,
    }
    calls, messages = _play(
        "line 3 vibrates badly, deal with it", {"read_line": [READING, slower], "set_speed": set_speed}
    )
    assert calls[0] == ("read_line", {"line": "line-3"})
    # How often it reads is its own business.
    changing = [call for call in calls if call[0] != "read_line"]
    assert [name for name, _ in changing] == ["set_speed", "schedule_maintenance", "notify_person"]
    assert calls[calls.index(changing[0]) + 1] == ("read_line", {"line": "line-3"})
    assert changing[0][1] == {"line": "line-3", "rpm": 1200}
    assert changing[1][1]["line"] == "line-3"
    assert changing[1][1]["task"] == "bearing_inspection"
    assert changing[1][1].get("within_hours", 24) == 24
    assert changing[2][1]["role"] == "maintenance_lead"
    asked = next(
        m
        for m in messages
        if isinstance(m, AIMessage) and m.tool_calls and m.tool_calls[0]["name"] == "set_speed"
    )
    assert "8.22" in asked.text
    assert "7.1" in asked.text
    assert "[" in messages[-1].text, "the summary cites its runbook"


def test_the_reason_of_a_rejection_is_taken_up() -> None:
    rejected = ToolMessage(
        "Rejected by local: not during the shift; slow it down to 1200 rpm instead",
        tool_call_id="",
        status="error",
    )
    stopped = {**READING, "line": "line-2", "vibration_mm_s": 1.2, "active_alarms": []}
    calls, messages = _play("stop line 2, please", {"stop_line": rejected, "read_line": stopped})
    changing = [
        (name, args) for name, args in calls if name not in ("read_line", "list_alarms", "read_trend")
    ]
    assert changing[0][0] == "stop_line"
    assert changing[0][1]["line"] == "line-2"
    assert [name for name, _ in changing].count("stop_line") == 1
    if len(changing) > 1:
        assert changing[1:] == [("set_speed", {"line": "line-2", "rpm": 1200})]
    else:
        assert "shift" in messages[-1].text


def test_two_lines_are_set_in_order() -> None:
    calls, _ = _play("set line 1 to 1250 rpm, then set line 4 to 1250 rpm", {})
    assert [call for call in calls if call[0] == "set_speed"] == [
        ("set_speed", {"line": "line-1", "rpm": 1250}),
        ("set_speed", {"line": "line-4", "rpm": 1250}),
    ]


def test_a_question_about_a_limit_is_answered_with_citations() -> None:
    calls, messages = _play(
        "What is the alarm limit for vibration, and what is the usual cause when a line is above it?", {}
    )
    assert calls == []
    assert "7.1 mm/s" in messages[-1].text
    assert "worn bearing" in messages[-1].text
    assert "[1]" in messages[-1].text
