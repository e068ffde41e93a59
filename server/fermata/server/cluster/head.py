"""``python -m fermata.server.cluster.head``: a Ray head for one machine, without what nobody here uses.

Chosen: Ray's own ``Node``, the class behind ``ray start``, without the autoscaler's monitor, the Ray client
server and the dashboard's head: a third of the start time, 310 MB and most of the idle load, gone. Refused:
``ray start --head``, which can't leave out the last two, and ``ray.init(address="local")`` in the controller,
for then the actors could not outlive it. ``Node`` is no public API: it is used here and nowhere else, and a
test starts it. Another cluster, started in any way, is joined with ``--ray-address``.

To be started as the leader of a session, for with it ends its session. Writes one JSON line ``{"event":
"started"}`` to ``--ready-fd``. Ends on SIGTERM, or with status 70 when one of its processes ends.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn, cast

from ray._private.node import Node
from ray._private.parameter import RayParams

from fermata.server.up.proc import in_session, kill_all, process_table

POLL_SECONDS = 0.5
KILL_SECONDS = 5.0
FAILED_EXIT_CODE = 70


class _LeanHead(Node):
    """A head node whose dashboard is never started."""

    def start_api_server(self, **_: Any) -> None:
        """Does nothing: Ray works without."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Starts the head and waits for its end."""
    parser = argparse.ArgumentParser(prog="python -m fermata.server.cluster.head", description=__doc__)
    parser.add_argument("--ip", required=True, help="address of this node; other nodes must reach it")
    parser.add_argument("--port", required=True, type=int, help="port of the cluster")
    parser.add_argument(
        "--temp", required=True, type=Path, help="folder for sessions; its path must be short"
    )
    parser.add_argument("--object-store-bytes", required=True, type=int)
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: _end(0))
    parameters = RayParams(
        node_ip_address=options.ip,
        gcs_server_port=options.port,
        temp_dir=str(options.temp),
        object_store_memory=options.object_store_bytes,
        include_dashboard=False,
        # Annotated as text there, and used as a truth value.
        include_log_monitor=cast("Any", False),
        no_monitor=True,
    )
    head: Any = _LeanHead(parameters, head=True, shutdown_at_exit=False, spawn_reaper=False)
    if options.ready_fd is not None:
        os.write(options.ready_fd, json.dumps({"event": "started", "address": head.address}).encode() + b"\n")
    while not (dead := head.dead_processes()):
        time.sleep(POLL_SECONDS)
    names = ", ".join(sorted({str(kind) for kind, _ in dead}))
    print(f"RAY_FAILED: {names} ended; the cluster ends with it.", file=sys.stderr)
    _end(FAILED_EXIT_CODE)


def _end(status: int) -> NoReturn:
    """Ends all of this session, and then this process. Nothing in Ray is worth a farewell: the actors were
    ended before, or lost their cluster; one that is only just starting would wait half a minute for it.
    """
    me = os.getpid()
    if os.getsid(0) == me:
        kill_all(
            lambda: [entry for entry in in_session(process_table(), me) if entry.pid != me], KILL_SECONDS
        )
    os._exit(status)


if __name__ == "__main__":
    main()
