"""Zygotes and hosts as real processes: started, listened to, and killed with all that they started."""

from __future__ import annotations

import asyncio
import os
import signal
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fermata.agents.runtime.errors import HostError
from fermata.agents.runtime.launcher import HostProcess, ZygoteGoneError, ZygoteProcess
from fermata.v1 import agent_pb2, worker_pb2

V = worker_pb2

GRAPH = '''
import os, subprocess, sys, time
from pathlib import Path
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

@tool
def grind(n: int) -> str:
    """Never comes back from C, and leaves a daemon of its own."""
    child = subprocess.Popen(["setsid", "sleep", "1000"])
    Path("children").write_text(f"{child.pid}")
    return str(sum(range(10**13)))

@tool
def crash() -> str:
    """Ends the process."""
    print("last words", file=sys.stderr, flush=True)
    os._exit(9)

@tool
def vanish() -> str:
    """Ends the process without a word: its pipe closes as it dies."""
    os._exit(9)

@tool
async def environment() -> str:
    """Shows the environment."""
    names = [name for name in os.environ if name.startswith(("FERMATA_", "RAY_"))]
    return f"{names} {os.environ['PLAIN']} {os.environ['SECRET']} {os.getpid()}"

TOOLS = {"grind": grind, "crash": crash, "vanish": vanish, "environment": environment}

async def act(state: MessagesState):
    name = state["messages"][-1].text
    return {"messages": [AIMessage(await TOOLS[name].ainvoke({"n": 1} if name == "grind" else {}))]}

graph = StateGraph(MessagesState)
graph.add_node("act", act)
graph.add_edge(START, "act")
'''


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    (tmp_path / "agent.py").write_text(textwrap.dedent(GRAPH))
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\nfrom agent import graph\n"
    )
    return tmp_path


@pytest.fixture
async def start(pack: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setenv("FERMATA_TOKEN_WORKER", "not for hosts")
    monkeypatch.setenv("RAY_ADDRESS", "not for hosts")
    monkeypatch.setenv("THE_SECRET", "s3cret")
    started: list[ZygoteProcess] = []

    async def start(graph: str = "agent.py:graph") -> ZygoteProcess:
        spec = agent_pb2.AgentSpec(
            graph=graph, environment={"PLAIN": "plain"}, secrets={"SECRET": "env:THE_SECRET"}
        )
        zygote = await ZygoteProcess.start(spec, pack=str(pack))
        started.append(zygote)
        return zygote

    yield start
    for zygote in started:
        await zygote.close()


async def send_run(host: HostProcess, tool: str) -> None:
    ready = await host.stream.receive()
    assert ready is not None
    assert ready.host.ready.pid == host.pid
    assign = V.Assign(lease=V.Lease(run="tenants/t/runs/r", epoch=1), thread="tenants/t/threads/t")
    assign.input.update({"messages": [{"role": "user", "content": tool}]})
    host.stream.send(V.ServerMessage(assign=assign))


async def answer_until(host: HostProcess, last: str) -> V.HostMessage:
    """Allow everything until a message of this kind comes."""
    while (message := await host.stream.receive()) is not None:
        kind = message.host.WhichOneof("body")
        reply = V.HostReply(lease=message.host.lease, id=message.host.id)
        reply.ack.SetInParent()
        if kind == "gate":
            reply.gate.verdict = V.GATE_VERDICT_PROCEED
        elif kind == "checkpoint_query":
            reply.checkpoints.SetInParent()
        if message.host.id:
            host.stream.send(V.ServerMessage(host_reply=reply))
        if kind == last:
            return message.host
    raise AssertionError(f"the host closed its end before {last}")


async def until(true: Callable[[], object]) -> None:
    """Processes of others send no events: look again until it is so."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_forked_host_runs_a_graph_with_its_secrets_and_no_credentials(start: Any) -> None:
    zygote = await start()
    assert zygote.forkable
    host = await zygote.fork()
    await send_run(host, "environment")
    finish = (await answer_until(host, "finish")).finish
    assert finish.answer == f"[] plain s3cret {host.pid}"
    end = await host.ended()
    assert end.exit_code == 0


async def test_a_host_that_does_not_answer_is_killed_with_all_that_it_started(start: Any, pack: Path) -> None:
    zygote = await start()
    host, other = await zygote.fork(), await zygote.fork()
    await send_run(host, "grind")
    await answer_until(host, "gate")
    await until(lambda: (pack / "children").exists() and (pack / "children").read_text())
    daemon = int((pack / "children").read_text())
    assert alive(daemon)
    stop = V.Stop(lease=V.Lease(run="tenants/t/runs/r", epoch=1), mode=V.STOP_MODE_HALT, latch="l")
    host.stream.send(V.ServerMessage(stop=stop))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(answer_until(host, "stopped"), 0.3)
    end = await host.kill()
    assert end.exit_code == -signal.SIGKILL
    assert not alive(host.pid)
    assert not alive(daemon)
    assert alive(other.pid)
    assert await host.kill() == end


async def test_the_last_words_of_a_host_that_died_are_told(start: Any) -> None:
    zygote = await start()
    host = await zygote.fork()
    await send_run(host, "crash")
    with pytest.raises(AssertionError):
        await answer_until(host, "finish")
    end = await host.ended()
    assert end.exit_code == 9
    assert "last words" in end.stderr


async def test_a_zygote_outlives_hosts_that_end_as_they_are_killed(start: Any) -> None:
    zygote = await start()
    for _ in range(5):
        hosts = [await zygote.fork() for _ in range(4)]
        for host in hosts:
            await send_run(host, "vanish")
        await asyncio.gather(*(answer_until(host, "gate") for host in hosts))
        ends = await asyncio.gather(*(host.kill() for host in hosts))
        assert {end.exit_code for end in ends} <= {9, -signal.SIGKILL}
    assert alive(zygote.pid)


async def test_a_graph_that_starts_threads_gets_hosts_that_are_not_forked(start: Any) -> None:
    zygote = await start("threaded.py:graph")
    assert not zygote.forkable
    host = await zygote.fork()
    await send_run(host, "environment")
    assert "plain s3cret" in (await answer_until(host, "finish")).finish.answer
    assert (await host.ended()).exit_code == 0


async def test_hosts_die_with_their_zygote(start: Any) -> None:
    zygote = await start()
    host = await zygote.fork()
    await host.stream.receive()
    os.kill(zygote.pid, signal.SIGKILL)
    with pytest.raises(ZygoteGoneError):
        await host.ended()
    await until(lambda: not alive(host.pid))


async def test_closing_a_zygote_ends_its_hosts(start: Any) -> None:
    zygote = await start()
    host = await zygote.fork()
    await host.stream.receive()
    await zygote.close()
    assert not alive(host.pid)
    with pytest.raises(ZygoteGoneError):
        await zygote.fork()


async def test_the_graph_of_a_zygote_is_inspected_in_it(start: Any) -> None:
    zygote = await start()
    report = await zygote.inspect()
    assert report.nodes == ["act"]


@pytest.mark.parametrize(
    ("graph", "reason", "said"),
    [
        ("agent.py:missing", "GRAPH_INVALID", "no attribute 'missing'"),
        ("nowhere.py:graph", "GRAPH_INVALID", "nowhere.py was not found"),
    ],
)
async def test_a_graph_that_cant_be_loaded_is_told(start: Any, graph: str, reason: str, said: str) -> None:
    with pytest.raises(HostError, match=said) as refused:
        await start(graph)
    assert refused.value.reason == reason
