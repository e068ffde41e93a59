"""The wheel, built from the source distribution, has every module and every file that the product reads."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
ROOTS = ("server", "agents", "bots", "protos")


@pytest.mark.timeout(180)
def test_the_wheel_of_the_source_distribution_is_whole(tmp_path: Path) -> None:
    _run(sys.executable, "-m", "build", "--sdist", f"--outdir={tmp_path}", str(REPOSITORY))
    (sdist,) = tmp_path.glob("*.tar.gz")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={tmp_path}", str(sdist))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("fermata/")}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    tracked = _tracked()
    assert tracked - packed == set(), "in the repository and not in the wheel"
    assert packed - tracked == set(), "in the wheel and not in the repository"
    assert licences


def _tracked() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", *(f"{root}/fermata" for root in ROOTS)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split("/", 1)[1] for name in listed.stdout.splitlines()}


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
