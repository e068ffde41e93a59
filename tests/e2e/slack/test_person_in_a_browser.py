"""A person's path, clicked through in a real browser."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from tests.e2e.slack.conftest import Scene

HERE = Path(__file__).parent
SCREENSHOTS = "FERMATA_SLACK_SCREENSHOTS"
"""A folder that shall have the screenshots, as the pages in docs show them."""


@pytest.mark.ray
@pytest.mark.timeout(300)
async def test_a_person_asks_changes_approves_and_halts_in_a_browser(
    fresh_scene: Scene, tmp_path: Path
) -> None:
    chromium, node = shutil.which("chromium"), shutil.which("node")
    if chromium is None or node is None:
        pytest.skip("no browser here: it needs node and chromium")
    folder = os.environ.get(SCREENSHOTS, str(tmp_path))
    person = await asyncio.create_subprocess_exec(
        node, str(HERE / "person.mjs"), fresh_scene.slack.at.url, chromium, folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await person.communicate()
    assert person.returncode == 0, said.decode()
    for step in (
        "a card",
        "a refusal in the form",
        "the record",
        "the answer",
        "another card",
        "the halt's report",
    ):
        assert f"seen: {step}\n" in said.decode()
    line = await fresh_scene.factory.line("line-4")
    assert abs(float(str(line["speed_setpoint_rpm"])) - 1150) < 1
    assert (await fresh_scene.factory.line("line-2"))["state"] == "RUNNING"
