"""A worker's warden ends what the worker can't: behind a frozen zygote, a frozen or dead worker, and where a file says so."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fermata.agents.runtime.launcher import ZygoteGoneError, ZygoteProcess
from fermata.agents.runtime.warden import FROZEN_SECONDS
from fermata.agents.runtime.warding import Warden, all_ended
from fermata.server.cluster.zygotes import ForkedHost
from fermata.v1 import agent_pb2

GRAPH = """
import os, subprocess
from langgraph.graph import START, MessagesState, StateGraph

async def act(state: MessagesState):
    return {}

graph = StateGraph(MessagesState)
graph.add_node("act", act)
graph.add_edge(START, "act")
if os.fork() == 0:
    # A daemon that has left its session, its group and its parent.
    os.setsid()
    if os.fork() == 0:
        open("daemon", "w").write(str(os.getpid()))
        os.execvp("sleep", ["sleep", "1000"])
    os._exit(0)
os.wait()
"""

WORKER = """
import asyncio, sys
from pathlib import Path
from fermata.agents.runtime.launcher import ZygoteProcess
from fermata.agents.runtime.warding import Warden
from fermata.v1 import agent_pb2

async def main(folder, name):
    warden = await Warden.start(name, latch=None, on_latch=print)
    zygote = await ZygoteProcess.start(agent_pb2.AgentSpec(graph="agent.py:graph"), pack=folder, spawn=warden.spawn)
    host = await zygote.fork()
    await host.stream.receive()
    print(warden.pid, zygote.pid, host.pid, flush=True)
    while True:
        await asyncio.sleep(0.1)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.py").write_text(textwrap.dedent(GRAPH))
    (tmp_path / "worker.py").write_text(WORKER)
    return tmp_path


@pytest.fixture
def latch(tmp_path: Path) -> Path:
    return tmp_path / "HALT"


@pytest.fixture
def told() -> asyncio.Queue[str]:
    return asyncio.Queue()


@pytest.fixture
async def warden(pack: Path, latch: Path, told: asyncio.Queue[str]) -> AsyncIterator[Warden]:
    warden = await Warden.start(f"of-{os.getpid()}", latch=latch, on_latch=told.put_nowait)
    yield warden
    await warden.close()


async def start(warden: Warden, pack: Path) -> tuple[ZygoteProcess, ForkedHost, int]:
    """A zygote, a host of it, and a daemon that was started in it."""
    spec = agent_pb2.AgentSpec(graph="agent.py:graph")
    zygote = await ZygoteProcess.start(spec, pack=str(pack), spawn=warden.spawn)
    host = ForkedHost(await zygote.fork())
    await host.receive()
    return zygote, host, int((pack / "daemon").read_text())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(true: Callable[[], object]) -> None:
    """Processes of others send no events: look again until it is so."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_host_behind_a_frozen_zygote_is_killed_with_all_that_was_started(
    warden: Warden, pack: Path
) -> None:
    zygote, host, daemon = await start(warden, pack)
    os.kill(zygote.pid, signal.SIGSTOP)
    os.kill(host.pid, signal.SIGSTOP)
    end = await asyncio.wait_for(host.kill(), 10)
    assert end.exit_code == -signal.SIGKILL
    assert not any(map(alive, (host.pid, zygote.pid, daemon)))


async def test_when_a_zygotes_end_is_told_its_daemons_are_dead(warden: Warden, pack: Path) -> None:
    zygote, host, daemon = await start(warden, pack)
    assert alive(daemon)
    os.kill(zygote.pid, signal.SIGKILL)
    await host.ended()
    assert not alive(daemon)


async def test_a_latch_file_ends_all_within_a_second_and_lets_nothing_start(
    warden: Warden, pack: Path, latch: Path, told: asyncio.Queue[str]
) -> None:
    _, host, daemon = await start(warden, pack)
    began = asyncio.get_running_loop().time()
    latch.write_text("wrong prices\n")  # noqa: ASYNC240
    await host.ended()
    assert asyncio.get_running_loop().time() - began < 1
    assert not any(map(alive, (host.pid, daemon)))
    assert told.get_nowait() == f"wrong prices ({latch})"
    with pytest.raises(ZygoteGoneError, match="wrong prices"):
        await start(warden, pack)
    latch.unlink()  # noqa: ASYNC240
    assert await asyncio.wait_for(told.get(), 5) == ""
    _, host, _ = await start(warden, pack)
    assert alive(host.pid)


async def test_nothing_starts_between_two_looks_at_the_latch_file(
    warden: Warden, pack: Path, latch: Path
) -> None:
    latch.touch()  # noqa: ASYNC240
    with pytest.raises(ZygoteGoneError, match="halted by the file"):
        await start(warden, pack)


async def test_a_latch_file_that_cant_be_read_halts(warden: Warden, pack: Path, latch: Path) -> None:
    latch.mkdir()  # noqa: ASYNC240
    with pytest.raises(ZygoteGoneError, match="Is a directory"):
        await start(warden, pack)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_all_that_a_worker_has_started_ends_when_it_is_killed_and_when_it_is_frozen(
    pack: Path, number: int
) -> None:
    name = f"of-{os.getpid()}-{number}"
    command = [sys.executable, "worker.py", str(pack), name]
    worker = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    pids = [int(pid) for pid in (await asyncio.wait_for(worker.stdout.readline(), 60)).split()]
    pids.append(int((pack / "daemon").read_text()))
    waiting = asyncio.create_task(all_ended(name))
    await asyncio.sleep(0)
    assert all(map(alive, pids))
    # A frozen zygote would not hear of it.
    os.kill(pids[1], signal.SIGSTOP)
    os.kill(worker.pid, number)
    await asyncio.wait_for(waiting, FROZEN_SECONDS + 5)
    assert not any(map(alive, pids[1:]))
    assert await worker.wait() == -signal.SIGKILL
    await until(lambda: not alive(pids[0]))
    await asyncio.wait_for(all_ended(name), 1)


async def test_a_warden_that_is_killed_takes_the_zygotes_along(pack: Path, told: asyncio.Queue[str]) -> None:
    warden = await Warden.start(f"of-{os.getpid()}-lost", latch=None, on_latch=told.put_nowait)
    zygote, host, daemon = await start(warden, pack)
    os.kill(warden.pid, signal.SIGKILL)
    assert await warden.ended() == -signal.SIGKILL
    await until(lambda: not alive(zygote.pid) and not alive(host.pid))
    with pytest.raises(ChildProcessError):
        await warden.spawn(["true"], {}, {})
    # Nobody ends it now but its worker, with itself.
    os.kill(daemon, signal.SIGKILL)
