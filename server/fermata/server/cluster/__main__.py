"""``python -m fermata.server.cluster``: the controller's process.

Prints nothing; writes one JSON line ``{"event": "connected"}`` to ``--ready-fd`` once the server has welcomed
a worker. SIGTERM and SIGINT end the actors, then the process, with status 0. Status 69 (EX_UNAVAILABLE) says
that Ray can't be reached.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

from fermata.agents.runtime.warding import all_ended
from fermata.server.cluster.controller import Controller
from fermata.server.cluster.logs import LogSettings, configure_logging
from fermata.server.cluster.notices import GrpcNotices
from fermata.server.cluster.ray_cluster import RayCluster, connect_to_ray
from fermata.server.cluster.target import ServerTarget
from fermata.server.cluster.worker import DEFAULT_CAPACITY

UNAVAILABLE_EXIT_CODE = 69
POLL_SECONDS = 0.05
KILL_SECONDS = 5.0
"""A cluster that is gone can't be asked to end actors; they end with it."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the controller until it is told to end."""
    options = _parser().parse_args(arguments)
    configure_logging(options.log_level, as_json=options.json_logs)
    target = ServerTarget(
        options.server,
        options.token_file,
        tls_ca=options.tls_ca,
        tls_certificate=options.tls_certificate,
        tls_key=options.tls_key,
        tls_server_name=options.tls_server_name,
    )
    while options.ray_started is not None and not options.ray_started.exists():
        time.sleep(POLL_SECONDS)
    try:
        connect_to_ray(options.ray_address, options.namespace)
    except (ConnectionError, RuntimeError) as error:
        print(f"RAY_UNAVAILABLE: Ray at {options.ray_address} can't be used: {error}", file=sys.stderr)
        return UNAVAILABLE_EXIT_CODE
    return asyncio.run(_run(options, target))


async def _run(options: argparse.Namespace, target: ServerTarget) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    cluster = RayCluster(
        target,
        cache=options.cache,
        latch=options.latch_file,
        capacity=options.capacity,
        namespace=options.namespace,
        log=LogSettings(options.log_level, options.json_logs),
        logs=options.logs,
    )

    def on_connected() -> None:
        if options.ready_fd is not None:
            os.write(options.ready_fd, json.dumps({"event": "connected"}).encode() + b"\n")

    async with target.open_channel() as channel:
        controller = Controller(
            cluster,
            GrpcNotices(channel, target),
            workers=options.workers,
            on_connected=on_connected,
            clock=time.monotonic,
            all_ended=all_ended,
        )
        run = asyncio.create_task(controller.run())
        await asyncio.wait([run, asyncio.create_task(ended.wait())], return_when=asyncio.FIRST_COMPLETED)
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(controller.kill_all(), KILL_SECONDS)
    logging.shutdown()
    # From here, because Ray's farewell, and its calls that are still under way in threads, wait half a minute for a cluster that has
    # ended before us.
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fermata.server.cluster", description=__doc__)
    parser.add_argument("--ray-address", required=True, help="host:port of the Ray cluster")
    parser.add_argument("--ray-started", type=Path, help="wait until this file is there")
    parser.add_argument("--server", required=True, help="host:port of the Fermata server")
    parser.add_argument("--token-file", required=True, type=Path, help="file with the worker token")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--capacity", type=int, default=DEFAULT_CAPACITY, help="runs per worker at once")
    parser.add_argument("--cache", required=True, type=Path, help="folder for agents' packs")
    parser.add_argument(
        "--latch-file", required=True, type=Path, help="while it is there, nothing runs on its machine"
    )
    parser.add_argument("--logs", type=Path, help="folder for the actors' logs")
    parser.add_argument("--namespace", default="fermata", help="Ray namespace of the actors")
    parser.add_argument("--ready-fd", type=int, help="file descriptor for the line that tells of a worker")
    parser.add_argument("--tls-ca", type=Path, help="root certificates; without them no TLS")
    parser.add_argument("--tls-certificate", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--tls-server-name", default="")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--json-logs", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
