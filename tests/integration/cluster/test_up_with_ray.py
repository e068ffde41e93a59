"""``fermata up`` as a person starts it, with a real server, Chroma and Ray; and every part of it killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from fermata.server.up.proc import descendants, process_table
from fermata.v1.worker_pb2 import ListWorkersRequest, Worker, WorkerState
from fermata.v1.worker_pb2_grpc import WorkerServiceStub

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

START_SECONDS = 180
SETTLE_SECONDS = 120
STOP_SECONDS = 60


NOTICED_SECONDS = 2.0
"""Within which a worker's death is known."""


class ControlPlane:
    """A running ``fermata up``."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.progress = (data.parent / "progress").open("w+")
        command = [sys.executable, "-m", "fermata.server.up", "--data", str(data), "--port", "0", "--json"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.progress, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.ready: dict[str, Any] = json.loads(line) if line else {}

    @property
    def pid(self) -> int:
        return self.process.pid

    def told(self) -> str:
        return Path(self.progress.name).read_text()

    def workers(self) -> list[Worker]:
        token = (self.data / "token").read_text().strip()
        with grpc.insecure_channel(self.ready["address"]) as channel:
            response = WorkerServiceStub(channel).ListWorkers(
                ListWorkersRequest(show_dead=True),
                metadata=(("authorization", f"Bearer {token}"),),
                timeout=5,
                wait_for_ready=True,
            )
        return list(response.workers)

    def connected(self) -> set[str]:
        return {
            worker.worker for worker in self.workers() if worker.state == WorkerState.WORKER_STATE_CONNECTED
        }

    def dead(self) -> set[str]:
        return {worker.worker for worker in self.workers() if worker.state == WorkerState.WORKER_STATE_DEAD}

    def child(self, pattern: str) -> int:
        """The direct child whose command line has the pattern."""
        for entry in process_table():
            if entry.parent == self.pid and re.search(pattern, command_of(entry.pid)):
                return entry.pid
        raise AssertionError(f"no child matches {pattern}")

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float = SETTLE_SECONDS) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if condition():
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"{what}: not within {seconds} s\n{self.told()}")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def mentions(text: str) -> list[str]:
    """Command lines of processes other than this one that name a folder."""
    found = [command_of(entry.pid) for entry in process_table() if entry.pid != os.getpid()]
    return [command for command in found if text in command]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("up") / "data")
    assert plane.ready, plane.told()
    yield plane
    if plane.process.poll() is None:
        plane.process.send_signal(signal.SIGTERM)
        plane.process.wait(STOP_SECONDS)
    plane.progress.close()


def test_the_ready_line_says_where_it_is(plane: ControlPlane) -> None:
    assert plane.ready["event"] == "ready"
    assert plane.ready["pid"] == plane.pid
    assert plane.ready["data"] == str(plane.data)
    assert plane.connected()


def test_no_library_reports_to_its_makers_from_what_was_started(plane: ControlPlane) -> None:
    for part in (r"fermata\.server ", r"chroma", r"server\.cluster\.head", r"server\.cluster "):
        pid = plane.child(part)
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
        off = {"ANONYMIZED_TELEMETRY=False", "ORT_DISABLE_TELEMETRY=1"}
        off |= {"RAY_USAGE_STATS_ENABLED=0"} if "cluster" in part else set()
        assert off <= set(environment), command_of(pid)


def test_a_second_one_on_the_same_data_is_refused(plane: ControlPlane) -> None:
    command = [sys.executable, "-m", "fermata.server.up", "--data", str(plane.data), "--port", "0"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 78
    assert "DATA_IN_USE" in second.stderr
    assert second.stdout == ""


def test_one_on_the_same_port_is_refused(plane: ControlPlane, tmp_path: Path) -> None:
    port = plane.ready["address"].rpartition(":")[2]
    command = [sys.executable, "-m", "fermata.server.up", "--data", str(tmp_path), "--port", port, "--json"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 78
    error = json.loads(second.stderr)
    assert (error["reason"], error["port"]) == ("PORT_IN_USE", port)
    assert not (tmp_path / "logs").exists()


def test_workers_come_back_to_a_server_that_was_killed(plane: ControlPlane) -> None:
    plane.wait_for("both workers", lambda: len(plane.connected()) == 2)
    before = plane.connected()
    os.kill(plane.child(r"-m fermata\.server --data"), signal.SIGKILL)
    plane.wait_for("the server is back with its workers", lambda: plane.connected() == before)


def test_a_killed_worker_is_reported_dead_and_replaced(plane: ControlPlane) -> None:
    plane.wait_for("both workers", lambda: len(plane.connected()) == 2)
    victim = next(w for w in plane.workers() if w.state == WorkerState.WORKER_STATE_CONNECTED)
    os.kill(victim.pid, signal.SIGKILL)
    plane.wait_for("its death is known", lambda: victim.worker in plane.dead(), NOTICED_SECONDS)
    plane.wait_for("there are two again", lambda: len(plane.connected() - {victim.worker}) == 2)


def test_actors_outlive_a_controller_that_was_killed_and_are_adopted(plane: ControlPlane) -> None:
    plane.wait_for("both workers", lambda: len(plane.connected()) == 2)
    before = plane.connected()
    old = plane.child(r"fermata\.server\.cluster --server")
    os.kill(old, signal.SIGKILL)
    log = plane.data / "logs" / "controller.log"
    plane.wait_for("they are adopted", lambda: "worker-1 is there already" in log.read_text())
    assert plane.connected() == before
    victim = next(worker for worker in plane.workers() if worker.worker in before)
    os.kill(victim.pid, signal.SIGKILL)
    plane.wait_for("the new controller tells of deaths", lambda: victim.worker in plane.dead())
    plane.wait_for("and starts others", lambda: len(plane.connected() - {victim.worker}) == 2)


def test_a_killed_chroma_is_started_again_on_the_same_port(plane: ControlPlane) -> None:
    old = plane.child("chromadb_rust")
    port = re.search(r"--port (\d+)", command_of(old))
    os.kill(old, signal.SIGKILL)

    def is_back() -> bool:
        new = plane.child("chromadb_rust")
        return new != old and port is not None and port.group() in command_of(new)

    plane.wait_for("Chroma", lambda: "Chroma is up again" in plane.told() and is_back())


def test_after_ray_was_killed_there_is_a_new_one_with_new_workers(plane: ControlPlane) -> None:
    plane.wait_for("both workers", lambda: len(plane.connected()) == 2)
    before = plane.connected()
    os.kill(plane.child(r"fermata\.server\.cluster\.head"), signal.SIGKILL)
    plane.wait_for("the old are known to be dead", lambda: before <= plane.dead())
    plane.wait_for("there are two new ones", lambda: len(plane.connected() - before) == 2)


def test_it_ends_with_status_0_and_leaves_nothing(plane: ControlPlane) -> None:
    started = [entry.pid for entry in descendants(process_table(), plane.pid)]
    plane.process.send_signal(signal.SIGTERM)
    assert plane.process.wait(STOP_SECONDS) == 0, plane.told()
    assert plane.process.stdout is not None
    assert plane.process.stdout.read() == "", "standard output has one line"
    ray_temp = (plane.data / "ray-temp").read_text().strip()
    alive = [entry for entry in process_table() if entry.pid in started and not entry.is_zombie]
    assert not alive, [command_of(entry.pid) for entry in alive]
    assert not mentions(str(plane.data))
    assert not mentions(ray_temp)
    assert not Path(ray_temp).exists()


def test_all_ends_also_where_the_supervisor_is_killed(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path / "data")
    assert plane.ready, plane.told()
    started = {entry.pid for entry in descendants(process_table(), plane.pid)}
    assert len(started) >= 8
    plane.process.kill()
    plane.process.wait()

    def left() -> list[int]:
        return [entry.pid for entry in process_table() if entry.pid in started and not entry.is_zombie]

    plane.wait_for("nothing is left", lambda: not left())
    plane.progress.close()
