"""The demo as a newcomer runs it: every step of its story is checked at the plant, and nothing is left running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
LONGEST_SECONDS = 600


@pytest.mark.ray
@pytest.mark.timeout(LONGEST_SECONDS + 60)
def test_the_factory_story_holds_step_by_step(tmp_path: Path) -> None:
    data = tmp_path / "data"
    played = subprocess.run(
        [sys.executable, "-m", "fermata.agents.factory.demo", f"--data={data}"],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert played.returncode == 0, f"{played.stdout[-6000:]}\n{played.stderr[-2000:]}"
    assert "plays the person's part" in played.stdout
    assert "Every step of the story was checked" in played.stdout
    for step in (
        "cites",
        "edited value",
        "rejected",
        "settled after",
        "nothing was written",
        "another worker",
    ):
        assert step in played.stdout
    assert _processes_of(data) == []


def _processes_of(data: Path) -> list[str]:
    """Command lines of processes that still have to do with a data folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(data) in command:
            found.append(command)
    return found
