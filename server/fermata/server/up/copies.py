"""``fermata backup`` and ``fermata restore``: the store of a data folder on this machine, copied while it is written, and put back.

Both work on the folder and not through the server. The status is 0, or 78 where something must be changed first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from fermata.server.errors import DomainError
from fermata.server.store import backup
from fermata.server.up.errors import CONFIG_EXIT_CODE, StartError
from fermata.server.up.preflight import lock_data
from fermata.server.up.settings import DEFAULT_DATA

NOT_INCLUDED = (
    "Not in it: the knowledge base (chroma/), which can be copied while nothing runs, or filled again by `fermata ingest`; tokens, "
    "certificates and fermata.toml."
)


def main(arguments: list[str] | None = None) -> int:
    """Make a backup or restore one; returns the exit status."""
    options = _parser().parse_args(arguments)
    data = Path(options.data or os.environ.get("FERMATA_DATA") or DEFAULT_DATA).expanduser().absolute()
    try:
        done = _back_up(data, options) if options.what == "backup" else _restore(data, options)
    except (DomainError, StartError) as error:
        facts = error.metadata if isinstance(error, DomainError) else error.facts
        if options.json:
            print(
                json.dumps({"event": "error", "reason": error.reason, "message": error.message, **facts}),
                file=sys.stderr,
            )
        else:
            print(f"fermata {options.what}: {error.reason}: {error.message}", file=sys.stderr)
        return CONFIG_EXIT_CODE
    if options.json:
        print(json.dumps({"event": options.what, "data": str(data), **done}))
    return 0


def _back_up(data: Path, options: argparse.Namespace) -> dict[str, str | int]:
    file = Path(options.file).absolute()
    size = backup.back_up(data, file, _progress(options))
    if not options.json:
        print(f"{file} has the store of {data}: {size / 1e6:.1f} MB. {NOT_INCLUDED}")
    return {"file": str(file), "bytes": size}


def _restore(data: Path, options: argparse.Namespace) -> dict[str, str | int]:
    file = Path(options.file).absolute()
    lock = lock_data(data)
    try:
        aside = backup.restore(
            file,
            data,
            force=options.force,
            workers_stopped=options.workers_stopped,
            progress=_progress(options),
        )
    finally:
        lock.close()
    if not options.json:
        if aside is not None:
            print(f"The store that was there is in {aside}.")
        print(
            f"{data} has the store of {file}. At the next `fermata up` runs that may have gone on after the backup wait for a person: "
            f"`fermata approvals`. {NOT_INCLUDED}"
        )
    return {"file": str(file), "aside": str(aside or "")}


def _progress(options: argparse.Namespace) -> Callable[[float], None]:
    shown = -1

    def tell(done: float) -> None:
        nonlocal shown
        percent = int(done * 100)
        if percent // 10 == shown // 10 and shown >= 0:
            return
        shown = percent
        if options.json:
            print(json.dumps({"event": "progress", "percent": percent}), file=sys.stderr)
        else:
            print(f"{percent} %", file=sys.stderr)

    return tell


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fermata")
    commands = parser.add_subparsers(dest="what", required=True)
    for name, described in (
        ("backup", "Copies the store into one new file, also while `fermata up` runs."),
        ("restore", "Makes the store of a data folder from a backup. Nothing may be running there."),
    ):
        command = commands.add_parser(name, description=f"{described} {NOT_INCLUDED}")
        command.add_argument("file", metavar="FILE", help="the backup")
        command.add_argument("--data", help="data folder; default: FERMATA_DATA, or that of `fermata up`")
        command.add_argument("--json", action="store_true", help="lines on standard output and error as JSON")
        if name == "restore":
            command.add_argument(
                "--force",
                action="store_true",
                help="where a store is there, move it aside into before-restore-TIME/",
            )
            command.add_argument(
                "--workers-stopped",
                action="store_true",
                help="you have made sure that no worker of the store, and no process of one, runs any more on any machine; only then "
                "may runs be let go on from where the backup has them",
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
