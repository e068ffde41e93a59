"""Starts the control plane's processes together, says when it can be used, keeps it so, and ends them in
order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fermata.server.up.child import Child, ChildSpec, Tell, ready_line
from fermata.server.up.errors import ChildFailedError
from fermata.server.up.preflight import ensure_token, take_port
from fermata.server.up.proc import descendants, kill_all, process_table, reap_orphans
from fermata.server.up.settings import UpSettings

RAY_NODE_IP = "127.0.0.2"
"""Loopback, and a spelling of it that Ray does not replace by the machine's outward address."""
RAY_OBJECT_STORE_BYTES = 128 * 1024 * 1024
RAY_TEMP_PREFIX = "fermata-ray-"
"""In /tmp, for the paths of AF_UNIX sockets must stay short."""
CONTROLLER_STOP_SECONDS = 8.0
CHROMA_STOP_SECONDS = 5.0
REAP_SECONDS = 10.0
POLL_SECONDS = 0.05
LEFTOVER_SECONDS = 5.0
_NO_TELEMETRY = {
    "ANONYMIZED_TELEMETRY": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",
}
"""What Chroma, Ray and onnxruntime would report by default is switched off."""


@dataclass(frozen=True)
class Places:
    """Files and folders of a control plane, all under its data folder but Ray's sockets."""

    data: Path
    ray_temp: Path

    @property
    def logs(self) -> Path:
        """One log for each child."""
        return self.data / "logs"

    @property
    def worker_token(self) -> Path:
        """The token of workers and controller."""
        return self.data / "worker-token"

    @property
    def ray_token(self) -> Path:
        """The token of our own Ray cluster."""
        return self.data / "ray-token"

    @property
    def ray_started(self) -> Path:
        """Is there while our Ray cluster can be used: the controller waits for it."""
        return self.ray_temp / "started"


class Supervisor:
    """One run of ``fermata up``.

    The caller has locked the data folder and checked the settings.

    :param port: to listen on, never 0.
    :param tell: takes lines on progress.
    :param server_command: what starts the server; its flags are appended.
    """

    def __init__(
        self,
        settings: UpSettings,
        *,
        port: int,
        tell: Tell,
        server_command: Sequence[str] = (sys.executable, "-m", "fermata.server"),
    ) -> None:
        self._server_command = server_command
        self._settings = settings
        self._tell = tell
        self._host = settings.host
        self._port = port
        self._places = Places(settings.data, _ray_temp(settings.data))
        ensure_token(self._places.worker_token)
        self._chroma_port = 0 if settings.chroma_address else take_port("127.0.0.1", 0)
        self._ray_port = 0 if settings.ray_address else take_port("127.0.0.1", 0)
        self._children = {
            spec.name: Child(spec, logs=self._places.logs, tell=tell)
            for spec in (self._server(), self._chroma(), self._ray(), self._controller())
            if spec is not None
        }

    @property
    def address(self) -> str:
        """Where clients on this machine reach the API."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "") else self._host  # noqa: S104 - compared, not bound
        if host == "::":
            host = "::1"
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Runs until SIGTERM or SIGINT; a second one does not wait for anybody. Nothing that was started is
        left when it returns.

        :param on_ready: called once, when the API serves and a worker is connected.
        :raises ChildFailedError: a child can't be kept alive.
        """
        signals = asyncio.Semaphore(0)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signals.release)
        self._tell("starting " + ", ".join(child.spec.title for child in self._children.values()))
        keepers = [asyncio.create_task(child.run()) for child in self._children.values()]
        chores = [asyncio.create_task(self._announce(on_ready)), asyncio.create_task(self._reap())]
        asked = asyncio.create_task(signals.acquire())
        try:
            await asyncio.wait([*keepers, asked], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for chore in chores:
                chore.cancel()
            again = asyncio.create_task(signals.acquire())
            stopping = asyncio.create_task(self._stop())
            await asyncio.wait([stopping, again], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            again.cancel()
            for keeper in keepers:
                keeper.cancel()
            results = await asyncio.gather(*keepers, return_exceptions=True)
            await asyncio.to_thread(
                kill_all, lambda: descendants(process_table(), os.getpid()), LEFTOVER_SECONDS
            )
            shutil.rmtree(self._places.ray_temp, ignore_errors=True)
        for result in results:
            if isinstance(result, ChildFailedError):
                raise result

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        await asyncio.gather(*(child.first_ready.wait() for child in self._children.values()))
        on_ready()

    async def _stop(self) -> None:
        """The server first, so that it ends what it has begun; then who worked for it."""
        self._tell("stopping")
        await self._children["server"].stop()
        if "chroma" in self._children:
            chroma = asyncio.create_task(self._children["chroma"].stop())
        else:
            chroma = asyncio.create_task(asyncio.sleep(0))
        await self._children["controller"].stop()
        if "ray" in self._children:
            await self._children["ray"].stop()
        await chroma

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_SECONDS)
            reap_orphans(keep=[child.pid for child in self._children.values()])

    # -- the children

    def _server(self) -> ChildSpec:
        settings = self._settings
        chroma = settings.chroma_address or f"http://127.0.0.1:{self._chroma_port}"
        command = [
            *self._server_command,
            *("--data", str(settings.data), "--host", settings.host, "--port", str(self._port)),
            *("--chroma-address", chroma, "--worker-token-file", str(self._places.worker_token)),
            *("--ready-fd", "{ready_fd}"),
            *("--max-queued-runs", str(settings.max_queued_runs)),
            *("--max-queued-runs-per-tenant", str(settings.max_queued_runs_per_tenant)),
            *("--max-running-runs-per-tenant", str(settings.max_running_runs_per_tenant)),
            *("--keep-checkpoints", str(settings.keep_checkpoints)),
        ]
        for flag, path in (
            ("--tls-cert", settings.tls_cert),
            ("--tls-key", settings.tls_key),
            ("--tls-client-ca", settings.tls_client_ca),
        ):
            if path is not None:
                command += [flag, str(path)]
        return ChildSpec(
            "server",
            "the server",
            "the server is serving",
            lambda: command,
            ready_line,
            environment={**_environment(), "FERMATA_LOG_LEVEL": settings.log_level},
            stop_seconds=settings.drain_seconds,
        )

    def _chroma(self) -> ChildSpec | None:
        if self._settings.chroma_address:
            return None
        folder = self._settings.data / "chroma"
        command = [
            # What the chroma command runs, without the second and the 75 MB of the Python around it.
            *(sys.executable, "-c", "import sys, chromadb_rust_bindings as b; b.cli(sys.argv)", "run"),
            *("--path", str(folder), "--host", "127.0.0.1", "--port", str(self._chroma_port)),
        ]
        return ChildSpec(
            "chroma",
            "Chroma",
            "Chroma is up",
            lambda: command,
            lambda _child, _fd: _until_open("127.0.0.1", self._chroma_port),
            environment=_environment(),
            stop_seconds=CHROMA_STOP_SECONDS,
        )

    def _ray(self) -> ChildSpec | None:
        if self._settings.ray_address:
            return None
        ensure_token(self._places.ray_token)
        started = self._places.ray_started

        command = [
            *(sys.executable, "-m", "fermata.server.cluster.head", "--ip", RAY_NODE_IP),
            *("--port", str(self._ray_port), "--temp", str(self._places.ray_temp)),
            *("--object-store-bytes", str(RAY_OBJECT_STORE_BYTES), "--ready-fd", "{ready_fd}"),
        ]

        async def ready(child: Child, read_end: int) -> None:
            await ready_line(child, read_end)
            started.touch()

        async def after() -> None:
            # A controller can't go on with a cluster that is gone; the next one finds the next.
            await self._children["controller"].restart()

        return ChildSpec(
            "ray",
            "Ray",
            "Ray is up",
            lambda: command,
            ready,
            environment=self._ray_environment(),
            before=lambda: started.unlink(missing_ok=True),
            after=after,
            # Its actors are gone by then, and it keeps nothing that is worth three seconds.
            stop_seconds=0,
        )

    def _controller(self) -> ChildSpec:
        settings = self._settings
        command = [
            *(sys.executable, "-m", "fermata.server.cluster"),
            *("--server", self.address, "--token-file", str(self._places.worker_token)),
            *("--workers", str(settings.workers), "--capacity", str(settings.capacity)),
            *("--cache", str(settings.data / "packs-cache"), "--ready-fd", "{ready_fd}"),
            *("--latch-file", str(settings.data / "HALT")),
            *("--log-level", settings.log_level, "--logs", str(self._places.logs)),
        ]
        if settings.ray_address:
            command += ["--ray-address", settings.ray_address]
        else:
            command += ["--ray-address", f"{RAY_NODE_IP}:{self._ray_port}"]
            command += ["--ray-started", str(self._places.ray_started)]
        if settings.has_tls:
            command += ["--tls-ca", str(settings.tls_ca or settings.tls_cert)]
        for flag, value in (
            ("--tls-server-name", settings.tls_server_name),
            ("--tls-certificate", settings.worker_tls_cert),
            ("--tls-key", settings.worker_tls_key),
        ):
            if value:
                command += [flag, str(value)]
        return ChildSpec(
            "controller",
            "the workers' controller",
            "a worker is connected",
            lambda: command,
            ready_line,
            environment=_environment() if settings.ray_address else self._ray_environment(),
            stop_seconds=CONTROLLER_STOP_SECONDS,
        )

    def _ray_environment(self) -> dict[str, str]:
        own = {name: value for name, value in _environment().items() if not name.startswith("RAY_")}
        return {
            **own,
            **_NO_TELEMETRY,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._places.ray_token),
            # Ray would kill workers, and their hosts with them, where the machine's memory is short; the kernel chooses better.
            "RAY_memory_monitor_refresh_ms": "0",
            # And wardens with their workers, before these have ended what is below.
            "RAY_kill_child_processes_on_worker_exit": "false",
        }


def _environment() -> dict[str, str]:
    return {**os.environ, **_NO_TELEMETRY}


def _ray_temp(data: Path) -> Path:
    """A new folder that only we can read; the one of a supervisor that was killed is removed."""
    note = data / "ray-temp"
    with contextlib.suppress(OSError):
        old = Path(note.read_text().strip())
        if old.name.startswith(RAY_TEMP_PREFIX) and old.stat().st_uid == os.getuid():
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=RAY_TEMP_PREFIX, dir="/tmp"))
    note.write_text(f"{folder}\n")
    return folder


async def _until_open(host: str, port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(POLL_SECONDS)
        else:
            writer.close()
            return
