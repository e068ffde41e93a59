"""Measure Fermata beside its peers and print one table: ``make bench``, or ``python tests/benchmarks/run.py``.

The client shares the cores with everything that it measures. Nothing here is a limit: figures are read, not asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
# The bare onnxruntime that is measured beside ours would report to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from rich.console import Console
from tests.benchmarks.figures.bench import SOAK_RUNS, Measure, bench
from tests.benchmarks.figures.crashes import crash
from tests.benchmarks.figures.halts import halt
from tests.benchmarks.figures.idle import idle
from tests.benchmarks.figures.inference import embed, search
from tests.benchmarks.figures.kills import kills, loaded, many
from tests.benchmarks.figures.langgraph_dev import langgraph_dev
from tests.benchmarks.figures.plane import start
from tests.benchmarks.figures.queue import queue
from tests.benchmarks.figures.runs import approve, plain
from tests.benchmarks.figures.series import Figure
from tests.benchmarks.figures.slack import slack
from tests.benchmarks.figures.soak import soak
from tests.benchmarks.figures.table import table
from tests.benchmarks.figures.throughput import throughput
from tests.benchmarks.figures.watchers import watchers

GROUPS: dict[str, Measure] = {
    "plain": plain,
    "approve": approve,
    "halt": halt,
    "halt-kills": kills,
    "halt-many": many,
    "halt-load": loaded,
    "slack": slack,
    "throughput": throughput,
    "embed": embed,
    "search": search,
    "langgraph-dev": langgraph_dev,
    "watchers": watchers,
    "queue": queue,
    "soak": soak,
    "crash": crash,
}
IDLE = "idle"
GROUP_SECONDS = 900.0
WIDTH = 190


async def measure(
    names: list[str], folder: Path, *, quick: bool, soak_runs: int
) -> tuple[list[tuple[str, list[Figure]]], int]:
    """The figures of the groups named, by group, and how many groups failed: those are told on standard error, and left out."""
    errors = Console(stderr=True)
    measured: list[tuple[str, list[Figure]]] = []
    failed = 0
    errors.print("starting fermata up ...", style="dim")
    plane = await asyncio.to_thread(start, folder / "data", folder / "up.log")
    try:
        if IDLE in names:
            errors.print("measuring idle ...", style="dim")
            measured.append((IDLE, list(await idle(plane, quick=quick))))
        wanted = [name for name in names if name in GROUPS]
        if wanted:
            async with bench(plane, folder, quick=quick, soak=soak_runs) as shared:
                gc.collect()
                gc.freeze()
                for name in wanted:
                    errors.print(f"measuring {name} ...", style="dim")
                    try:
                        async with asyncio.timeout(GROUP_SECONDS):
                            measured.append((name, list(await GROUPS[name](shared))))
                    except Exception:  # the other groups' figures are worth having all the same
                        failed += 1
                        errors.print_exception()
    finally:
        code = await asyncio.to_thread(plane.stop)
        if code:
            errors.print(f"fermata up ended with {code}; see {folder / 'up.log'}", style="red")
    return measured, failed


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Measure Fermata beside its peers.")
    names = [IDLE, *GROUPS]
    parser.add_argument("--only", action="append", choices=names, help="measure this group; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions")
    parser.add_argument(
        "--soak", type=int, default=SOAK_RUNS, metavar="RUNS", help="runs of the soak (default: %(default)s)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures, with every value, to a file"
    )
    given = parser.parse_args()
    began, load = time.time(), os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="fermata-bench-", ignore_cleanup_errors=True) as folder:
        measured, failed = asyncio.run(
            measure(given.only or names, Path(folder), quick=given.quick, soak_runs=given.soak)
        )
    machine: dict[str, Any] = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_before": load,
        "load_after": os.getloadavg(),
        "began": began,
        "seconds": time.time() - began,
        "quick": given.quick,
    }
    loads = " before, ".join(
        f"{figures[0]:.1f}/{figures[1]:.1f}" for figures in (load, machine["load_after"])
    )
    title = (
        f"Fermata on {machine['cores']} cores, client included; Python {machine['python']}; "
        f"load average (1/5 min) {loads} after; {machine['seconds']:.0f} s"
    )
    caption = "ratio: Fermata's median over the peer's, both measured in turns in this run. % is of one core."
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table(title, caption, measured))
    if given.json:
        groups = {name: [figure.as_json() for figure in figures] for name, figures in measured}
        given.json.write_text(json.dumps({"machine": machine, "figures": groups}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
