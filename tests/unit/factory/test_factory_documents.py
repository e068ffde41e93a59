"""What ships beside the code: runbooks, manuals, policy and agent file agree with it and with each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import fermata.agents.factory
from fermata.agents.factory import ai4i, line, process
from fermata.agents.factory.alarms import ALARM_KINDS
from fermata.agents.factory.tools import TOOLS

FOLDER = Path(fermata.agents.factory.__file__).parent
RUNBOOKS = sorted((FOLDER / "runbooks").glob("*.md"))
MANUALS = sorted((FOLDER / "manuals").glob("*.md"))
VERBS = {
    "Read",
    "List",
    "If",
    "Verify",
    "Set",
    "Stop",
    "Start",
    "Acknowledge",
    "Schedule",
    "Notify",
}


def front_matter(path: Path) -> tuple[dict[str, Any], str]:
    _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def steps(path: Path) -> list[str]:
    section = front_matter(path)[1].split("## Steps\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\d+\. .*$", section, re.MULTILINE)


def test_there_are_at_least_a_dozen_documents_with_ids_of_their_own() -> None:
    ids = [front_matter(path)[0]["id"] for path in RUNBOOKS + MANUALS]

    assert len(ids) >= 12
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", RUNBOOKS + MANUALS, ids=lambda path: path.stem)
def test_a_document_says_what_it_is(path: Path) -> None:
    head, body = front_matter(path)

    assert head["kind"] == ("runbook" if path.parent.name == "runbooks" else "manual")
    assert set(head["applies_to"]) <= set(process.LINE_NAMES)
    assert body.strip().startswith(f"# {head['title']}\n")


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_the_steps_of_a_runbook_are_numbered_and_each_begins_with_what_to_do(path: Path) -> None:
    found = steps(path)

    assert [int(step.split(".")[0]) for step in found] == list(range(1, len(found) + 1))
    assert found
    for step in found:
        assert step.split()[1] in VERBS, step


@pytest.mark.parametrize("path", RUNBOOKS + MANUALS, ids=lambda path: path.stem)
def test_a_document_names_only_alarm_codes_and_runbooks_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    codes = set(re.findall(r"\b(?:VIB|TW|HD|PW|OS)-(?:WARN|HIGH|TRIP)\b|\b(?:TWF|HDF|PWF|OSF|RNF)\b", text))
    runbooks = {front_matter(each)[0]["id"] for each in RUNBOOKS}

    assert codes <= set(ALARM_KINDS)
    assert set(re.findall(r"\bRB-\d+\b", text)) <= runbooks


def test_the_alarm_reference_explains_every_code() -> None:
    text = (FOLDER / "manuals" / "alarm-codes.md").read_text(encoding="utf-8")

    assert [code for code in ALARM_KINDS if f"| {code} |" not in text] == []


def test_the_limits_in_the_documents_are_those_of_the_plant() -> None:
    vibration = (FOLDER / "manuals" / "vibration-monitoring.md").read_text(encoding="utf-8")
    assert f"warning limit is {line.VIBRATION_WARNING_MM_S} mm/s" in vibration
    assert f"alarm limit is {line.VIBRATION_ALARM_MM_S} mm/s" in vibration
    assert f"trips at {line.VIBRATION_TRIP_MM_S} mm/s" in vibration

    modes = (FOLDER / "manuals" / "failure-modes.md").read_text(encoding="utf-8")
    assert f"below {ai4i.MIN_TEMPERATURE_DIFFERENCE_K} K" in modes
    assert f"below {ai4i.MIN_SPEED_FOR_COOLING_RPM:.0f} rpm" in modes
    assert f"below {ai4i.MIN_POWER_W:.0f} W or above {ai4i.MAX_POWER_W:.0f} W" in modes
    for limit in ai4i.OVERSTRAIN_LIMIT_MIN_NM.values():
        assert f"{limit:.0f}" in modes


def test_the_policy_names_only_tools_that_exist() -> None:
    policy = yaml.safe_load((FOLDER / "policy.yaml").read_text(encoding="utf-8"))
    known = {tool.name for tool in TOOLS} | {"*"}
    named: set[str] = set()
    for rule in policy["rules"]:
        tools = rule["match"].get("tool", [])
        named |= {tools} if isinstance(tools, str) else set(tools)

    assert policy["version"] == 1
    assert named <= known


def test_the_agent_file_names_its_tools_policy_and_collection() -> None:
    agent = yaml.safe_load((FOLDER / "agent.yaml").read_text(encoding="utf-8"))

    assert agent["name"] == "operator"
    assert agent["tools"] == ["fermata.agents.factory.tools:TOOLS"]
    assert (FOLDER / agent["policy"]).is_file()
    assert agent["collections"] == ["factory"]
