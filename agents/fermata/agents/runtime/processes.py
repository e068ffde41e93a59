"""What Linux offers to end a process with all that it has started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill the calling process when the thread that forked it ends. Leaves at once where that has
    happened already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none gets out of sight."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def thread_count() -> int:
    """Threads of the calling process, those of C libraries included."""
    return len(os.listdir("/proc/self/task"))


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does: ``T`` is stopped, ``Z`` has ended; empty where there is none."""
    return _stat(pid)[0]


def children() -> set[int]:
    """Processes whose parent is the calling one, zombies included."""
    with contextlib.suppress(FileNotFoundError):
        listed = [
            Path("/proc/self/task", task, "children").read_text() for task in os.listdir("/proc/self/task")
        ]
        return {int(pid) for text in listed for pid in text.split()}
    # A kernel without CONFIG_PROC_CHILDREN.
    return {
        int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent_of(entry) == os.getpid()
    }


def _parent_of(pid: str) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int | str) -> list[str]:
    try:
        stat = Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ["", "0"]
    # The name in brackets may hold anything; what follows it is fixed.
    return stat.rpartition(")")[2].split()


def kill_group(pid: int) -> None:
    """SIGKILL to a child that is not yet reaped, and to its process group, if it leads one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def has_ended(pid: int, *, wait: bool) -> bool:
    """Whether a child has ended. It stays a zombie, so that its id, and its group's, are nobody else's until it is
    reaped."""
    options = os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)
    return os.waitid(os.P_PID, pid, options) is not None


def kill_strangers(known: set[int]) -> None:
    """Kill and reap every child that is not ``known``: what a dead host has left behind. Needs ``adopt_orphans``."""
    while strangers := children() - known:
        for stranger in strangers:
            kill_group(stranger)
        for stranger in strangers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(stranger, 0)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
