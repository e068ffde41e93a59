"""The processes below one ``fermata up``, by what they are, and what is done to them."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import psutil
from tests.chaos.plan import BEYOND_LEASE_SECONDS, Fault
from tests.chaos.recorder import Recorder
from tests.integration.plane.harness import CHROMA, RAY, SERVER, Plane

CONTROLLER = r"fermata\.server\.cluster --server"
ZYGOTE = "fermata.agents.runtime.zygote"
WORKER = "AgentWorkerActor"
SLOW_SECONDS = 1.0
"""How long machines leave a worker's hosts unheard after it has come back."""
RAYS_OWN = ("gcs_server", "raylet")


class Processes:
    """Finds targets among the descendants of ``fermata up``, and nowhere else."""

    def __init__(self, plane: Plane, recorder: Recorder) -> None:
        self._plane = plane
        self._recorder = recorder
        self._root = psutil.Process(plane.process.pid)

    def of(self, target: str) -> list[psutil.Process]:
        """All that there are of a kind, oldest first; hosts at work before others."""
        if target in (one := {"server": SERVER, "controller": CONTROLLER, "chroma": CHROMA}):
            try:
                return [psutil.Process(self._plane.child(one[target]))]
            except (AssertionError, psutil.NoSuchProcess):
                return []
        commands = {process: command for process in self._below() if (command := _command(process))}
        match target:
            case "ray":
                return [p for p, command in commands.items() if _name(p) in RAYS_OWN or _is_head(command)]
            case "worker" | "worker with its hosts":
                return [p for p, command in commands.items() if WORKER in command]
        zygotes = [p for p, command in commands.items() if ZYGOTE in command]
        parents = {p.pid for p in zygotes}
        hosts = [p for p in zygotes if _parent(p) in parents]
        if target == "zygote":
            return [p for p in zygotes if p not in hosts]
        return [p for p in hosts if self._recorder.pids[p.pid]] or hosts

    def let_wait(self, worker: psutil.Process | None) -> None:
        """Have the machines leave the hosts of a worker unheard; those of nobody where it is None."""
        with contextlib.suppress(psutil.NoSuchProcess):
            below = worker.children(recursive=True) if worker is not None else []
            self._recorder.leave_unheard({process.pid for process in below})

    def _below(self) -> list[psutil.Process]:
        return sorted(self._root.children(recursive=True), key=lambda p: (p.create_time(), p.pid))


async def play(processes: Processes, fault: Fault) -> str:
    """Let it go wrong, and end when what was frozen is awake again. Returns what it was that happened."""
    await asyncio.sleep(fault.delay_seconds)
    found = processes.of(fault.target)
    if not found:
        return f"{fault}: there is none"
    hit = found[int(fault.pick * len(found))]
    said = f"{fault}: {hit.pid} {_name(hit)}"
    if fault.verb == "kill":
        _send(hit, signal.SIGKILL)
        return said
    group = [hit]
    if fault.target == "worker with its hosts":
        with contextlib.suppress(psutil.NoSuchProcess):
            group += hit.children(recursive=True)
    beyond_lease = fault.for_seconds >= BEYOND_LEASE_SECONDS
    for process in group:
        _send(process, signal.SIGSTOP)
    if beyond_lease:
        # What it was in the middle of is not over when it wakes: its lease is lost while it acts.
        processes.let_wait(hit)
    try:
        await asyncio.sleep(fault.for_seconds)
    finally:
        for process in group:
            _send(process, signal.SIGCONT)
    if beyond_lease:
        await asyncio.sleep(SLOW_SECONDS)
        processes.let_wait(None)
    return said


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        # psutil looks whether it is still the same process.
        process.send_signal(number)


def _command(process: psutil.Process) -> str:
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return "gone"


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def _is_head(command: str) -> bool:
    return RAY.replace("\\", "") in command
