"""The model of gate, latch, lease and host in ``halt.pml``, checked by Spin; see README.md beside this file."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("halt.pml")
FAULTS = {
    "GATE_READS_BEFORE": "!(latched)||listed[k]",
    "HOST_AWAITS": "!(settled)",
    "DEATH_ASSUMED": "!(settled)",
    "OLD_LEASE_FORGOTTEN": "!(latched)||listed[k]",
    "SETTLES_UNASKED": "!(settled)",
}
_MISSING = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(
    bool(_MISSING), reason=f"{' and '.join(_MISSING)} missing: Debian's packages have them"
)


def _check(folder: Path, *, fault: str = "", liveness: bool = False) -> str:
    """What Spin's verifier prints for the model, every interleaving tried until one breaks an assertion."""
    planted = [f"-D{fault}"] if fault else []
    subprocess.run(["spin", *planted, "-a", MODEL], cwd=folder, check=True, capture_output=True)
    options = ["-DNFAIR=3"] if liveness else ["-DSAFETY", "-DNOCLAIM"]
    compiler = ["gcc", "-O2", "-w", *options, "-o", "pan", "pan.c"]
    subprocess.run(compiler, cwd=folder, check=True, capture_output=True)
    flags = ["-a", "-f"] if liveness else []
    done = subprocess.run(
        ["./pan", "-m200000", *flags], cwd=folder, check=True, capture_output=True, text=True, timeout=300
    )
    return done.stdout


def test_no_interleaving_starts_an_effect_that_the_latch_does_not_list_or_any_after_it_settled(
    tmp_path: Path,
) -> None:
    said = _check(tmp_path)
    assert "errors: 0" in said, said
    states = re.search(r"(\d+) states, stored", said)
    assert states is not None
    assert int(states[1]) > 100_000, "the model has become trivial"


def test_every_halt_settles_if_nobody_is_kept_from_taking_steps(tmp_path: Path) -> None:
    said = _check(tmp_path, liveness=True)
    assert "errors: 0" in said, said


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    said = _check(tmp_path, fault=fault)
    assert "errors: 1" in said, said
    assert FAULTS[fault] in said.replace("( ", "(").replace(" )", ")"), said
