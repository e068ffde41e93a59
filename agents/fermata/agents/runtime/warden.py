"""A worker's warden: a small process outside of it that can end everything the worker has started, whatever became of the
worker, of a zygote, or of the network.

Every zygote is the warden's child, and whoever loses its parent below it becomes its child as well. So it can tell for
certain when nothing is left: of a zygote that was killed, before it says that this one has ended; of the worker, before it
ends itself. It holds a name (an abstract socket) for as long as it lives, by which others on the machine can wait for that.

- A worker that is stopped, or whose loop stands still, can't obey a halt: it is killed, with all that is below.
- While the latch file is there nothing may run on this machine: zygotes are killed, and none is started.
- When the worker ends, so does everything else.

It counts its own looks and trusts no clock: a machine that slept kills nobody when it wakes. Over its control socket:

- ``spawn {command, flags, environment}`` with descriptors → ``spawned {pid}`` or ``refused {reason}``
- ``kill {pid}``, without an answer but ``exited``; ``beat``, without any
- unasked: ``ready``, ``exited {pid, exit_code}``, ``latched {reason}``, ``unlatched``

Only what Python brings along is imported here: it is there before the worker does anything, and must not cost much.
Refused: a cgroup for each host, which only root may make, and which can do no more than the parent of all orphans.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fermata.agents.runtime import control
from fermata.agents.runtime.processes import adopt_orphans, has_ended, kill_group, kill_strangers, state_of

LOOK_SECONDS = 0.25
"""How often the latch file and the worker are looked at."""

FROZEN_SECONDS = 3.0
"""A worker that has been stopped for so long is killed."""

SILENT_SECONDS = 10.0
"""One whose event loop says nothing for so long is killed: its leases end by then."""

REASON_CHARACTERS = 500
"""How much of the latch file's text is told."""


def address(name: str) -> str:
    """Where the warden of this name can be found by others on the machine: a name that the kernel forgets with it."""
    return f"\0fermata-warden-{name}"


class Warden:
    """The main loop.

    :param sock: the control socket; its end is the worker's.
    :param worker: the worker's process id.
    :param latch: the file that halts everything here; None where there is none.
    """

    def __init__(self, sock: socket.socket, worker: int, latch: Path | None) -> None:
        self._socket = sock
        self._worker = worker
        self._worker_handle = os.pidfd_open(worker)
        self._latch = latch
        self._reason = ""
        self._zygotes: dict[int, subprocess.Popen[bytes]] = {}
        self._stopped_looks = self._silent_looks = 0
        self._next_look = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()

    def serve(self) -> None:
        """Serve until the control socket closes, and return when nothing is left of what was started."""
        adopt_orphans()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Its worker ends it, by closing the socket. Not SIG_IGN, which zygotes and all that tools start would inherit.
        signal.signal(signal.SIGTERM, lambda *_: None)
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._tell(op="ready")
        try:
            while self._turn():
                pass
        finally:
            self._kill_zygotes()
            kill_strangers(set())

    def _turn(self) -> bool:
        """Take what is there. False where the control socket is closed."""
        for key, _ in self._selector.select(max(0.0, self._next_look - time.monotonic())):
            if key.fileobj is self._socket:
                received = control.receive(self._socket)
                if received is None:
                    return False
                self._obey(*received)
            else:
                os.read(self._woken, 4096)
                self._reap()
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            self._look_at_latch()
            self._look_at_worker()
        return True

    def _obey(self, message: dict[str, Any], descriptors: list[int]) -> None:
        match message["op"]:
            case "spawn":
                self._spawn(message, descriptors)
            case "kill" if message["pid"] in self._zygotes:
                kill_group(message["pid"])
            case "beat":
                self._silent_looks = 0

    def _spawn(self, message: dict[str, Any], descriptors: list[int]) -> None:
        try:
            self._look_at_latch()
            if self._reason:
                self._tell(op="refused", id=message["id"], reason=self._reason)
                return
            flags = [
                part
                for flag, number in zip(message["flags"], descriptors, strict=True)
                for part in (flag, str(number))
            ]
            try:
                process = subprocess.Popen(  # noqa: S603 - the worker's own command
                    [*message["command"], *flags, "--parent", str(os.getpid())],
                    pass_fds=descriptors,
                    stdin=subprocess.DEVNULL,
                    env=message["environment"],
                    start_new_session=True,
                )
            except OSError as error:
                self._tell(op="refused", id=message["id"], reason=str(error))
                return
            self._zygotes[process.pid] = process
            self._tell(op="spawned", id=message["id"], pid=process.pid)
        finally:
            for number in descriptors:
                os.close(number)

    def _reap(self) -> None:
        ended = [pid for pid in self._zygotes if has_ended(pid, wait=False)]
        for pid in ended:
            kill_group(pid)
        codes = {pid: self._zygotes.pop(pid).wait() for pid in ended}
        # Also where no zygote has ended: one that is ending gives its children away first.
        kill_strangers(set(self._zygotes))
        for pid, code in codes.items():
            self._tell(op="exited", pid=pid, exit_code=code)

    def _look_at_latch(self) -> None:
        reason = _reason_in(self._latch) if self._latch is not None else ""
        if reason and not self._reason:
            self._tell(op="latched", reason=reason)
            self._kill_zygotes()
        elif self._reason and not reason:
            self._tell(op="unlatched")
        self._reason = reason

    def _look_at_worker(self) -> None:
        self._stopped_looks = self._stopped_looks + 1 if state_of(self._worker) == "T" else 0
        self._silent_looks += 1
        if self._stopped_looks * LOOK_SECONDS >= FROZEN_SECONDS:
            self._kill_worker(f"it has been stopped for {FROZEN_SECONDS:g} s")
        elif self._silent_looks * LOOK_SECONDS >= SILENT_SECONDS:
            self._kill_worker(f"its event loop has stood still for {SILENT_SECONDS:g} s")

    def _kill_worker(self, why: str) -> None:
        sys.stderr.write(f"the worker {self._worker} is killed by its warden: {why}\n")
        sys.stderr.flush()
        # What follows is what follows on its end.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._worker_handle, signal.SIGKILL)

    def _kill_zygotes(self) -> None:
        """The kernel kills their hosts with them; what hosts leave behind is killed as it comes here."""
        for pid in self._zygotes:
            kill_group(pid)

    def _tell(self, **message: Any) -> None:
        with contextlib.suppress(OSError):
            control.send(self._socket, message)


def _reason_in(latch: Path) -> str:
    """Why everything here is halted; empty where it is not. A file that is there and can't be read halts as well."""
    try:
        text = latch.read_text(encoding="utf-8", errors="replace").strip()[:REASON_CHARACTERS]
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        text = error.strerror or ""
    return f"{text} ({latch})" if text else f"halted by the file {latch}"


def main() -> int:
    """``python -m fermata.agents.runtime.warden --control-fd N --name NAME [--latch FILE]``, started by the worker."""
    worker = os.getppid()
    parser = argparse.ArgumentParser(prog="fermata.agents.runtime.warden")
    parser.add_argument("--control-fd", type=int, required=True, help="the control socket")
    parser.add_argument("--name", required=True, help="by which others wait for its end")
    parser.add_argument("--latch", type=Path, help="the file that halts everything on this machine")
    options = parser.parse_args()
    sock = socket.socket(fileno=options.control_fd)
    os.set_inheritable(sock.fileno(), False)
    named = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    named.bind(address(options.name))
    named.listen()
    Warden(sock, worker, options.latch).serve()
    named.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
