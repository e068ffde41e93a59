"""``python -m fermata.server.up``, which ``fermata up`` runs: the control plane on this machine.

Standard output carries one line, when the API serves and a worker is connected; progress and errors go to
standard error. The status is 0 after SIGTERM or SIGINT, 78 where something must be changed first, 69 where
something that we need is not there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

from fermata.server.up.errors import StartError
from fermata.server.up.preflight import check_chroma, check_listening, check_ray, lock_data, take_port
from fermata.server.up.proc import become_subreaper
from fermata.server.up.settings import UpSettings, add_flags, load_settings
from fermata.server.up.supervisor import Supervisor


def main(arguments: list[str] | None = None) -> int:
    """Runs the control plane until it is told to end; returns the exit status."""
    started = time.monotonic()
    options = vars(_parser().parse_args(arguments))
    config: Path | None = options.pop("config")
    as_json: bool = options.pop("json")
    try:
        settings = load_settings(options, os.environ, config)
        _run(settings, as_json, started)
    except StartError as error:
        if as_json:
            report = {"event": "error", "reason": error.reason, "message": error.message, **error.facts}
            print(json.dumps(report), file=sys.stderr)
        else:
            print(f"fermata up: {error.reason}: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(settings: UpSettings, as_json: bool, started: float) -> None:
    check_listening(settings)
    lock = lock_data(settings.data)
    try:
        port = take_port(settings.host, settings.port)
        if settings.ray_address:
            check_ray(settings.ray_address)
        if settings.chroma_address:
            check_chroma(settings.chroma_address)

        def tell(line: str) -> None:
            seconds = round(time.monotonic() - started, 2)
            if as_json:
                print(json.dumps({"event": "progress", "seconds": seconds, "message": line}), file=sys.stderr)
            else:
                print(f"[{seconds:6.2f} s] {line}", file=sys.stderr)

        become_subreaper()
        supervisor = Supervisor(settings, port=port, tell=tell)

        def on_ready() -> None:
            seconds = round(time.monotonic() - started, 2)
            if as_json:
                ready = {
                    "event": "ready",
                    "address": supervisor.address,
                    "pid": os.getpid(),
                    "data": str(settings.data),
                    "seconds": seconds,
                }
                print(json.dumps(ready), flush=True)
            else:
                print(
                    f"Fermata is ready on {supervisor.address} after {seconds} s (data: {settings.data})",
                    flush=True,
                )

        asyncio.run(supervisor.run(on_ready))
    finally:
        lock.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fermata up",
        description="Starts the control plane: server, Chroma, Ray and workers.",
        epilog="A flag wins over a variable FERMATA_NAME, which wins over the TOML file, which wins over the default.",
    )
    parser.add_argument(
        "--config", type=Path, help="TOML file; default: fermata.toml in the data folder, if it is there"
    )
    parser.add_argument("--json", action="store_true", help="lines on standard output and error as JSON")
    add_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
