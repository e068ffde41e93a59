"""Processes as ``/proc`` shows them: who descends from us, who shares a session, and ending all of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_POLL_SECONDS = 0.01

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ProcessEntry:
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    state: str

    @property
    def is_zombie(self) -> bool:
        """True for one that has ended and was not waited for."""
        return self.state in ("Z", "X")


def become_subreaper() -> None:
    """From now on, whoever loses their parent below us becomes our child, whatever session they went to."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent() -> None:
    """For the child between fork and exec: it is told to end when its parent is gone."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def process_table() -> list[ProcessEntry]:
    """Every process."""
    entries = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        entries.append(ProcessEntry(int(name), int(fields[1]), int(fields[3]), fields[0]))
    return entries


def descendants(table: Iterable[ProcessEntry], root: int) -> list[ProcessEntry]:
    """All below ``root`` that have not ended, without itself."""
    children: dict[int, list[ProcessEntry]] = {}
    for entry in table:
        children.setdefault(entry.parent, []).append(entry)
    found: list[ProcessEntry] = []
    queue = list(children.get(root, ()))
    while queue:
        entry = queue.pop()
        found.append(entry)
        queue += children.get(entry.pid, ())
    return [entry for entry in found if not entry.is_zombie]


def in_session(table: Iterable[ProcessEntry], session: int) -> list[ProcessEntry]:
    """All of one session that have not ended."""
    return [entry for entry in table if entry.session == session and not entry.is_zombie]


def kill_all(find: Callable[[], list[ProcessEntry]], seconds: float) -> list[ProcessEntry]:
    """SIGKILL to all that ``find`` names, again and again, for who is killed may just have forked.

    :returns: who is still there after ``seconds``: none, unless the kernel holds them.
    """
    end = time.monotonic() + seconds
    while (left := find()) and time.monotonic() < end:
        for entry in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry.pid, signal.SIGKILL)
        reap_orphans(keep=())
        time.sleep(KILL_POLL_SECONDS)
    return left


def reap_orphans(keep: Iterable[int]) -> None:
    """Takes leave of children that ended here as orphans. Those in ``keep`` are waited for by others."""
    kept = set(keep)
    me = os.getpid()
    for entry in process_table():
        if entry.parent == me and entry.is_zombie and entry.pid not in kept:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(entry.pid, os.WNOHANG)
