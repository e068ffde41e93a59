"""A revision's zygote: loads the graph once and forks hosts from it, ends them, and tells their end. One per revision
and worker.

It stays single-threaded, for only such a process can be forked safely. Where loading the graph has started threads,
each host is a process of its own that loads the graph again: slower, and the same from there on. It answers over its
control socket:

- ``fork`` with a descriptor, the host's end of its socket → ``forked {pid}``
- ``kill {pid}`` → ``killed {pid, exit_code}`` once the process and all its descendants are dead and reaped
- ``inspect`` → ``report``, a GraphReport in base64
- unasked: ``ready {forkable}`` or ``failed {reason, message, detail}`` at the beginning, ``ended {pid, exit_code,
  stderr}`` for each host

When its control socket closes it kills all hosts and leaves. A warden that has started it takes it along when it dies.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gc
import os
import selectors
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, NoReturn

from langgraph.pregel import Pregel

from fermata.agents.runtime import control, gate, models
from fermata.agents.runtime.environment import add_secrets
from fermata.agents.runtime.errors import HostError
from fermata.agents.runtime.host import run_host
from fermata.agents.runtime.inspection import inspect_graph
from fermata.agents.runtime.loader import load_graph
from fermata.agents.runtime.processes import (
    adopt_orphans,
    die_with_parent,
    has_ended,
    kill_group,
    kill_strangers,
    thread_count,
)
from fermata.v1 import agent_pb2

STDERR_BYTES = 4096
"""How much of a host's last words is kept."""


@dataclass(eq=False)
class _HostProcess:
    """A child, and what it last wrote to stderr."""

    pid: int
    stderr: int
    process: subprocess.Popen[bytes] | None = None
    tail: bytearray = field(default_factory=bytearray)


class Zygote:
    """The main loop.

    :param sock: the control socket.
    :param spec: the revision's content; its graph is loaded by ``serve``.
    :param pack: folder of the unpacked pack, if there is one.
    """

    def __init__(self, sock: socket.socket, spec: agent_pb2.AgentSpec, pack: str | None) -> None:
        self._socket = sock
        self._spec = spec
        self._pack = pack
        self._graph: Pregel[Any, Any, Any, Any] | None = None
        self._forkable = True
        self._hosts: dict[int, _HostProcess] = {}
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()

    def serve(self) -> int:
        """Load the graph and serve until the control socket closes.

        :returns: the exit code.
        """
        try:
            add_secrets(self._spec)
            self._graph = load_graph(self._spec, self._pack)
        except HostError as error:
            self._tell(op="failed", reason=error.reason, message=error.message, detail=error.detail)
            return 1
        gate.install()
        models.install()
        self._forkable = thread_count() == 1
        if self._forkable:
            gc.collect()
            gc.freeze()
        adopt_orphans()
        self._watch_children()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._tell(op="ready", pid=os.getpid(), forkable=self._forkable)
        try:
            while self._turn():
                pass
        finally:
            for host in list(self._hosts.values()):
                kill_group(host.pid)
            kill_strangers(set())
        return 0

    def _turn(self) -> bool:
        """Take what is there. False where the control socket is closed."""
        for key, _ in self._selector.select():
            if key.fileobj is self._socket:
                received = control.receive(self._socket)
                if received is None:
                    return False
                self._obey(*received)
            elif key.fd == self._woken:
                os.read(self._woken, 4096)
                self._reap()
            elif key.data in self._hosts.values():
                # Else it was buried a moment ago, in this same turn, and its pipe is closed.
                self._listen(key.data)
        return True

    def _obey(self, message: dict[str, Any], descriptors: list[int]) -> None:
        operation, number = message["op"], message["id"]
        if operation == "fork":
            pid = self._start_host(descriptors[0])
            os.close(descriptors[0])
            self._tell(op="forked", id=number, pid=pid)
        elif operation == "kill":
            self._tell(op="killed", id=number, pid=message["pid"], exit_code=self._kill(message["pid"]))
        elif operation == "inspect":
            assert self._graph is not None
            report = inspect_graph(self._graph, self._spec)
            encoded = base64.b64encode(report.SerializeToString()).decode()
            self._tell(op="report", id=number, report=encoded)

    # hosts

    def _start_host(self, descriptor: int) -> int:
        reading, writing = os.pipe()
        host = self._fork(descriptor, writing) if self._forkable else self._spawn(descriptor, writing)
        os.close(writing)
        host.stderr = reading
        os.set_blocking(reading, False)
        self._hosts[host.pid] = host
        self._selector.register(reading, selectors.EVENT_READ, host)
        return host.pid

    def _fork(self, descriptor: int, stderr: int) -> _HostProcess:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that the child has not yet put back to its default would be written to the zygote's pipe.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            self._become_host(parent, descriptor, stderr)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        return _HostProcess(pid, -1)

    def _become_host(self, parent: int, descriptor: int, stderr: int) -> NoReturn:
        code = 1
        try:
            os.setsid()
            die_with_parent(parent)
            adopt_orphans()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            self._selector.close()
            self._socket.close()
            for pipe in (self._woken, self._wake, *(host.stderr for host in self._hosts.values())):
                os.close(pipe)
            os.dup2(stderr, 2)
            os.close(stderr)
            assert self._graph is not None
            code = run_host(socket.socket(fileno=descriptor), self._graph)
        except BaseException:  # noqa: BLE001 - nothing may escape into the zygote's stack
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _spawn(self, descriptor: int, stderr: int) -> _HostProcess:
        content = os.memfd_create("fermata-spec")
        os.write(content, self._spec.SerializeToString())
        command = [sys.executable, "-P", "-m", "fermata.agents.runtime.host", "--fd", str(descriptor)]
        command += ["--spec-fd", str(content), "--parent", str(os.getpid())]
        command += ["--pack", self._pack] if self._pack else []
        process = subprocess.Popen(  # noqa: S603 - our own module
            command, pass_fds=(descriptor, content), stderr=stderr, start_new_session=True
        )
        os.close(content)
        return _HostProcess(process.pid, -1, process)

    def _kill(self, pid: int) -> int:
        """End a host for certain. A host that is gone already counts as killed."""
        host = self._hosts.get(pid)
        if host is None:
            return -signal.SIGKILL
        kill_group(pid)
        has_ended(pid, wait=True)
        return self._bury(host)

    def _reap(self) -> None:
        for host in list(self._hosts.values()):
            if has_ended(host.pid, wait=False):
                self._bury(host)

    def _bury(self, host: _HostProcess) -> int:
        """A host is dead and not yet reaped: end what it leaves behind, reap it, and tell."""
        kill_group(host.pid)
        kill_strangers(set(self._hosts))
        _, status = os.waitpid(host.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if host.process is not None:
            host.process.returncode = code
        del self._hosts[host.pid]
        self._listen(host)
        with contextlib.suppress(KeyError):
            self._selector.unregister(host.stderr)
        os.close(host.stderr)
        self._tell(
            op="ended", pid=host.pid, exit_code=code, stderr=bytes(host.tail).decode("utf-8", "replace")
        )
        return code

    def _listen(self, host: _HostProcess) -> None:
        """Keep the end of what a host writes to stderr, and pass it on to our own."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(host.stderr, 65536):
                host.tail += chunk
                del host.tail[:-STDERR_BYTES]
                with contextlib.suppress(OSError):
                    os.write(2, chunk)
            with contextlib.suppress(KeyError):
                self._selector.unregister(host.stderr)

    # around it

    def _watch_children(self) -> None:
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _tell(self, **message: Any) -> None:
        with contextlib.suppress(OSError):
            control.send(self._socket, message)


def main() -> int:
    """``python -m fermata.agents.runtime.zygote --control-fd N --spec-fd M [--pack FOLDER]``."""
    parser = argparse.ArgumentParser(prog="fermata.agents.runtime.zygote")
    parser.add_argument("--control-fd", type=int, required=True, help="the control socket")
    parser.add_argument("--spec-fd", type=int, required=True, help="a file that holds the AgentSpec")
    parser.add_argument("--pack", default="", help="folder of the unpacked pack")
    parser.add_argument("--parent", type=int, default=0, help="process id of the parent, to die with")
    options = parser.parse_args()
    if options.parent:
        die_with_parent(options.parent)
    with os.fdopen(options.spec_fd, "rb") as file:
        file.seek(0)
        spec = agent_pb2.AgentSpec.FromString(file.read())
    sock = socket.socket(fileno=options.control_fd)
    os.set_inheritable(sock.fileno(), False)
    return Zygote(sock, spec, options.pack or None).serve()


if __name__ == "__main__":
    sys.exit(main())
