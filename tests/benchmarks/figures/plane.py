"""A real ``fermata up`` to measure, in a group of its own, and its processes by what they are."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

START_SECONDS = 180
STOP_SECONDS = 60

_ROLES = (
    ("server", r"-m fermata\.server --data"),
    ("supervisor", r"-m fermata\.server\.up |fermata up "),
    ("controller", r"-m fermata\.server\.cluster --server"),
    ("Chroma", r"chromadb"),
    ("Ray: head", r"fermata\.server\.cluster\.head"),
    ("Ray: GCS", r"gcs_server"),
    ("Ray: raylet", r"raylet/raylet"),
    ("Ray: dashboard agent", r"DashboardAgent"),
    ("Ray: environment agent", r"RuntimeEnvAgent"),
    ("worker", r"AgentWorkerActor"),
    ("embedder", r"EmbedderActor"),
    ("zygote or host", r"fermata\.agents\.runtime"),
)


class PlaneFailedError(RuntimeError):
    """``fermata up`` did not become ready; the message has what it last said."""


@dataclass(frozen=True, slots=True)
class Plane:
    """A running control plane.

    :param ready_seconds: from the start to its ready line, as it says itself.
    """

    process: subprocess.Popen[str]
    data: Path
    address: str
    ready_seconds: float

    def processes(self) -> list[tuple[str, psutil.Process]]:
        """Everything that runs for it, the supervisor included, each with its role."""
        root = psutil.Process(self.process.pid)
        found = []
        for process in [root, *root.children(recursive=True)]:
            try:
                found.append((_role(" ".join(process.cmdline())), process))
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        order = [role for role, _ in _ROLES]
        return sorted(found, key=lambda item: order.index(item[0]) if item[0] in order else len(order))

    def chroma_port(self) -> int:
        """Where its Chroma listens on loopback."""
        for role, process in self.processes():
            if role == "server":
                command = process.cmdline()
                return int(command[command.index("--chroma-address") + 1].rsplit(":", 1)[1])
        raise PlaneFailedError("there is no server process")

    def stop(self) -> int:
        """End it and all its processes; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


def start(data: Path, log: Path) -> Plane:
    """Start a control plane with its data in ``data`` and its standard error in ``log``.

    :raises PlaneFailedError: where it ends instead of becoming ready.
    """
    command = [
        str(Path(sys.executable).with_name("fermata")),
        "up",
        f"--data={data}",
        "--port=0",
        "--json",
        "--max-queued-runs-per-tenant=20000",
    ]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={**os.environ, "FERMATA_LOG_LEVEL": "warning"},
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(STOP_SECONDS)
        raise PlaneFailedError(f"fermata up ended with {process.returncode}:\n{log.read_text()[-4000:]}")
    ready = json.loads(line)
    return Plane(process, data, ready["address"], float(ready["seconds"]))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process's threads, in nanoseconds' resolution: the ticks of ``/proc/PID/stat`` are too coarse."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1e9


def _role(command: str) -> str:
    return next((role for role, pattern in _ROLES if re.search(pattern, command)), command[:40] or "?")
