"""Histories under faults: ``python -m tests.simulation.run --seeds 0-499``.

Prints each seed whose history breaks a promise, and ends with 1 if there was one. The same seed plays the same history again: with
``--trace`` it is told event by event.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from sqlalchemy import create_engine, select

from fermata.server.store import schema
from fermata.v1 import run_pb2

HASH_SEED = "PYTHONHASHSEED"
MEMORY = Path("/dev/shm")


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    parser.add_argument("--seeds", default="0-99", metavar="FIRST-LAST", help="or one seed")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--trace", action="store_true", help="tell each history event by event")
    parser.add_argument("--keep-going", action="store_true", help="go on after a seed that breaks a promise")
    options = parser.parse_args(arguments)
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if options.processes > 1 and len(seeds) > 1:
        return _shared_out(seeds, options)
    if os.environ.get(HASH_SEED) != "0":
        return _with_fixed_hashes(sys.argv[1:] if arguments is None else arguments)
    return _play(seeds, trace=options.trace, keep_going=options.keep_going)


def _with_fixed_hashes(arguments: Sequence[str]) -> int:
    """Again, in a process in which the order of sets is the same each time: it is part of a history."""
    command = [sys.executable, "-m", "tests.simulation.run", *arguments, "--processes", "1"]
    return subprocess.run(command, env={**os.environ, HASH_SEED: "0"}, check=False).returncode


def _shared_out(seeds: range, options: argparse.Namespace) -> int:
    """Each process plays a stretch of the seeds."""
    size = -(-len(seeds) // options.processes)
    children = []
    for start in range(seeds.start, seeds.stop, size):
        command = [sys.executable, "-m", "tests.simulation.run", "--processes", "1"]
        command += ["--seeds", f"{start}-{min(start + size, seeds.stop) - 1}"]
        command += ["--trace"] * options.trace + ["--keep-going"] * options.keep_going
        children.append(subprocess.Popen(command, env={**os.environ, HASH_SEED: "0"}))
    try:
        codes = []
        for child in children:
            codes.append(child.wait())
            if codes[-1] and not options.keep_going:
                break
    finally:
        for child in children:
            child.terminate()
            child.wait()
    return max(codes)


def _play(seeds: Iterable[int], *, trace: bool, keep_going: bool) -> int:
    # It takes seconds to import all of Fermata; a process that only shares out has no need of it.
    from tests.simulation.history import Player

    logging.basicConfig(
        level=logging.INFO if trace else logging.CRITICAL + 1, format="  %(created).3f %(message)s"
    )
    failed = 0
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        player = Player(Path(name))
        for seed in seeds:
            history = player.play(seed)
            if trace:
                _tell(history.store)
            if history.broken or trace:
                print(f"seed {seed}: {history.fingerprint}, {history.seconds:.1f} s, {history.turns} turns")
                print(*(f"  fault: {line}\n" for line in history.happened), sep="", end="")
            if history.broken:
                failed += 1
                print(*(f"  BROKEN: {line}" for line in history.broken), sep="\n")
                print(f"  again: python -m tests.simulation.run --seeds {seed} --trace", flush=True)
                if not keep_going:
                    break
    return 1 if failed else 0


def _tell(store: Path) -> None:
    engine = create_engine(f"sqlite:///{store}")
    with engine.connect() as connection:
        for row in connection.execute(select(schema.events).order_by(schema.events.c.n)):
            kind = run_pb2.EventType.Name(row.type).removeprefix("EVENT_TYPE_")
            print(f"  {row.time:.3f} {row.run[:6]} {row.sequence} {kind} {row.data}")
    engine.dispose()


if __name__ == "__main__":
    sys.exit(main())
