"""The examples of README and docs that run, run: in order, against a real ``fermata up``, as a reader would."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.integration.plane.harness import Plane
from tests.unit.docs.fences import Fence, fences, the_project

SECONDS = 120


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """README's control plane."""
    plane = Plane(tmp_path_factory.mktemp("docs") / "data", "--workers", "1")
    yield plane
    assert plane.stop() == 0, plane.tail()


@pytest.fixture(scope="module")
def environment(plane: Plane) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FERMATA_")}
    return {**kept, "FERMATA_DATA": str(plane.data), "COLUMNS": "120"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str]) -> Path:
    """README's agent, applied."""
    folder = the_project(tmp_path_factory.mktemp("stock"))
    applied = _fermata(folder, environment, "agents", "apply", "agent.yaml")
    assert applied.returncode == 0, applied.stderr
    return folder


def _fermata(
    folder: Path, environment: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("fermata")
    return subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


WALK = (
    ("agents apply agent.yaml --dry-run", 0, "would be applied"),
    ("policy test order_parts item=bearing pieces=50 --agent stock", 0, "large-orders"),
    ("run stock 'order 5 belts'", 0, "5 pieces of belt are ordered"),
    ("run stock 'order 50 bearings'", 7, "May stock call order_parts?"),
    ("halt --agent stock --reason 'wrong prices' --yes", 0, "settled"),
    ("run stock 'order 5 belts'", 4, "HALTED"),
    ("release --agent stock", 0, "released"),
    ("run stock 'order 5 belts'", 0, "5 pieces of belt are ordered"),
)
"""Command lines of README, the exit code of each, and what it says."""


def test_the_walk_through_of_the_readme(project: Path, environment: Mapping[str, str]) -> None:
    for line, code, said in WALK:
        done = _fermata(project, environment, *shlex.split(line))
        assert done.returncode == code, line + done.stdout + done.stderr
        assert said in done.stdout + done.stderr


@pytest.mark.parametrize("fence", fences("python run"), ids=str)
def test_a_program_runs_to_its_end(project: Path, environment: Mapping[str, str], fence: Fence) -> None:
    done = subprocess.run(
        [sys.executable, "-c", fence.code],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_langgraph_project_is_applied_as_it_is(tmp_path: Path, environment: Mapping[str, str]) -> None:
    for name in ("python greeter.py", "json langgraph.json"):
        (fence,) = fences(name)
        (tmp_path / name.split()[1]).write_text(fence.code, encoding="utf-8")
    applied = _fermata(tmp_path, environment, "agents", "apply", "langgraph.json")
    assert applied.returncode == 0, applied.stderr
    ran = _fermata(tmp_path, environment, "run", "greeter", "--values", '{"name": "world"}')
    assert ran.returncode == 0, ran.stderr
    assert "greeting: Hello, world!" in ran.stdout
