"""Plants each fault and has the simulation look for it: ``python -m tests.mutants.run``. Ends with 1 if one survives.

Each mutant is a copy of the product's code with one text changed, before everything else on the path of a process of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.faults import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
TREES = ("protos", "server", "agents", "bots")
SEEDS = 500


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: the seed that found it, and what that seed said."""

    mutant: Mutant
    seed: int | None
    said: str


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__)
    parser.add_argument("--only", default="", help="a part of the names")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many each is hunted with")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    survived = 0
    with ThreadPoolExecutor(options.processes) as pool:
        hunts = [pool.submit(hunt, mutant, options.seeds) for mutant in chosen]
        for outcome in (future.result() for future in as_completed(hunts)):
            survived += outcome.seed is None
            found = "SURVIVED" if outcome.seed is None else f"found by seed {outcome.seed}"
            print(f"{outcome.mutant.name}: {found}\n    {outcome.said}", flush=True)
    return 1 if survived else 0


def hunt(mutant: Mutant, seeds: int = SEEDS) -> Outcome:
    """Play seeds against a mutant until one finds it, or all have been played.

    :raises AssertionError: the text that it changes is not there, or more than once.
    """
    with tempfile.TemporaryDirectory() as folder:
        code = plant(mutant, Path(folder))
        for stretch in (str(mutant.seed), f"0-{seeds - 1}"):
            command = [sys.executable, "-m", "tests.simulation.run", "--seeds", stretch, "--processes", "1"]
            path = os.pathsep.join([*(str(code / tree) for tree in TREES), str(ROOT)])
            played = subprocess.run(
                command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            said = played.stdout.splitlines()
            if played.returncode == 1 and said and said[0].startswith("seed "):
                broken = [line.strip() for line in said if "BROKEN" in line]
                return Outcome(mutant, int(said[0].split()[1].rstrip(":")), broken[0])
            if played.returncode:
                raise AssertionError(f"{mutant.name} can't be played:\n{played.stderr[-2000:]}")
    return Outcome(mutant, None, "no seed breaks a promise")


def plant(mutant: Mutant, folder: Path) -> Path:
    """Copy the product's code into ``folder`` with the mutant's change, and return where it is.

    :raises AssertionError: the text that it changes is not there, or more than once.
    """
    for tree in TREES:
        shutil.copytree(
            ROOT / tree / "fermata",
            folder / tree / "fermata",
            ignore=shutil.ignore_patterns("*.onnx", "*.md", "__pycache__"),
        )
    for file, old, new in mutant.changes:
        path = folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{mutant.name}: {text.count(old)} places in {file}"
        path.write_text(text.replace(old, new))
    return folder


if __name__ == "__main__":
    sys.exit(main())
