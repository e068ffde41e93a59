"""The factory's policy, judged by the server's own evaluator with the effects that the tools declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fermata.agents.factory
from fermata.agents.factory.tools import TOOLS
from fermata.server.policy import Call, Outcome, evaluate, parse_policy

POLICY = parse_policy((Path(fermata.agents.factory.__file__).parent / "policy.yaml").read_bytes())
EFFECTS = {tool.name: (tool.metadata or {})["fermata.effect"] for tool in TOOLS}


def judged(tool: str, **arguments: Any) -> Outcome:
    return evaluate(POLICY, Call(tool, arguments, agent="operator", effect=EFFECTS.get(tool))).outcome


@pytest.mark.parametrize("tool", ["read_line", "read_trend", "list_alarms"])
def test_reading_is_free(tool: str) -> None:
    assert judged(tool, line="line-3") is Outcome.ALLOW


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("set_speed", {"line": "line-3", "rpm": 1200}),
        ("set_speed", {"line": "line-3", "rpm": 2800}),
        ("stop_line", {"line": "line-3", "reason": "smoke"}),
        ("start_line", {"line": "line-3"}),
        ("acknowledge_alarm", {"line": "line-3", "code": "HDF"}),
    ],
)
def test_whatever_changes_how_a_line_runs_asks_a_person(tool: str, arguments: dict[str, Any]) -> None:
    assert judged(tool, **arguments) is Outcome.REQUIRE_APPROVAL


def test_overspeed_is_denied_whoever_would_approve() -> None:
    assert judged("set_speed", line="line-3", rpm=2801) is Outcome.DENY


def test_work_orders_and_messages_pass() -> None:
    assert judged("schedule_maintenance", line="line-3", task="lubrication", within_hours=24) is Outcome.ALLOW
    assert judged("notify_person", role="shift_lead", message="hello") is Outcome.ALLOW


def test_an_unknown_tool_asks() -> None:
    assert judged("open_the_gates") is Outcome.REQUIRE_APPROVAL
