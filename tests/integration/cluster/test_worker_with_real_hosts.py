"""The worker with real zygotes and hosts: processes that are forked, stopped, killed and told of."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fermata.agents.inference.readings import Pair, Reading
from fermata.server.cluster.testing import Connection, FakeServer
from fermata.server.cluster.worker import Worker
from fermata.server.cluster.zygotes import start_zygote
from fermata.v1.agent_pb2 import AgentSpec
from fermata.v1.worker_pb2 import (
    Ack,
    Assign,
    CheckpointReply,
    HostMessage,
    HostReply,
    Inspect,
    Lease,
    ModelReply,
    Stop,
    StopMode,
)

GRAPH = """
import asyncio, os, time
from typing import TypedDict
from langgraph.graph import StateGraph, START, END

class State(TypedDict, total=False):
    do: str
    said: str

async def work(state: State) -> State:
    do = state.get("do", "")
    if do == "wait":
        await asyncio.sleep(60)
    if do == "block":
        os.close(os.open(os.environ["MARK"], os.O_CREAT))
        time.sleep(60)
    if do == "die":
        os.write(2, b"these are my last words")
        os._exit(3)
    return {"said": "done " + do}

graph = StateGraph(State).add_node("work", work).add_edge(START, "work").add_edge("work", END).compile()
"""


async def embed(texts: list[str]) -> NDArray[np.float32]:
    return np.zeros((len(texts), 2), dtype=np.float32)


async def read(pairs: list[Pair]) -> list[Reading]:
    raise AssertionError(f"no graph here has a planner: {pairs}")


class Stage:
    """A server, a worker with real hosts, and an agent's pack."""

    def __init__(self, server: FakeServer, connection: Connection, worker: Worker, spec: AgentSpec) -> None:
        self.server = server
        self.connection = connection
        self.worker = worker
        self.spec = spec

    def lease(self, name: str) -> Lease:
        return Lease(run=f"tenants/default/runs/{name}", epoch=1)

    def begin(self, name: str, do: str, *, shared: bool = True) -> None:
        assign = Assign(
            lease=self.lease(name),
            thread=f"tenants/default/threads/{name}",
            spec=self.spec,
            shared_host=shared,
        )
        assign.input.update({"do": do})
        self.connection.send(assign=assign)

    async def next(self, kind: str, body: str = "") -> Any:
        """The worker's next message of this kind, for hosts' messages also of this body. All on the way are
        answered as a server would.
        """
        async with asyncio.timeout(60):
            while True:
                message = await self.connection.received.get()
                if message.WhichOneof("body") == "host":
                    self._answer(message.host)
                    if kind == "host" and message.host.WhichOneof("body") == body:
                        return getattr(message.host, body)
                elif message.WhichOneof("body") == kind:
                    return getattr(message, kind)

    def _answer(self, message: HostMessage) -> None:
        reply = HostReply(lease=message.lease, id=message.id)
        match message.WhichOneof("body"):
            case "checkpoint_query":
                reply.checkpoints.CopyFrom(CheckpointReply())
            case "model_query":
                reply.model.CopyFrom(ModelReply())
            case _:
                reply.ack.CopyFrom(Ack())
        if message.id:
            self.connection.send(host_reply=reply)

    async def host_of(self, name: str) -> int:
        async with asyncio.timeout(10):
            while True:
                for key, run in self.worker._runs.items():
                    if key[0] == self.lease(name).run and run.host is not None:
                        return run.host.pid
                await asyncio.sleep(0.01)

    async def marked(self) -> None:
        """Until the graph has left its mark."""
        while not Path(self.spec.environment["MARK"]).exists():  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)

    def halt(self, name: str, grace_seconds: float) -> None:
        stop = Stop(
            lease=self.lease(name),
            mode=StopMode.STOP_MODE_HALT,
            latch="latches/l1",
            grace_seconds=grace_seconds,
        )
        self.connection.send(stop=stop)


def stat_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def parent_of(pid: int) -> int:
    return int(stat_of(pid)[1])


def is_alive(pid: int) -> bool:
    try:
        return stat_of(pid)[0] != "Z"
    except OSError:
        return False


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    server = FakeServer(tmp_path)
    await server.start()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as pack:
        pack.writestr("shop.py", GRAPH)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    server.packs[digest] = buffer.getvalue()
    mark = tmp_path / "mark"
    spec = AgentSpec(graph="shop.py:graph", pack_digest=digest, environment={"MARK": str(mark)})
    worker = Worker(
        server.target, cache=tmp_path / "packs", start_zygote=start_zygote, embed=embed, read=read
    )
    task = asyncio.create_task(worker.run())
    yield Stage(server, await server.connection(), worker, spec)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.stop()


async def test_a_run_runs_in_a_forked_process_from_start_to_finish(stage: Stage) -> None:
    stage.begin("r1", "greet")
    finish = await stage.next("host", "finish")
    assert finish.output["said"] == "done greet"
    assert not finish.HasField("error")


async def test_inspection_says_what_is_in_the_graph(stage: Stage) -> None:
    stage.connection.send(inspect=Inspect(id=5, spec=stage.spec))
    result = await stage.next("inspect_result")
    assert list(result.report.nodes) == ["work"]
    assert not result.report.has_sync_code


async def test_a_graph_that_is_not_there_fails_inspection_with_its_reason(stage: Stage) -> None:
    spec = AgentSpec(graph="nowhere.py:graph", pack_digest=stage.spec.pack_digest)
    stage.connection.send(inspect=Inspect(id=6, spec=spec))
    result = await stage.next("inspect_result")
    assert result.error.reason == "GRAPH_INVALID"


async def test_a_halt_of_async_work_is_answered_by_the_host(stage: Stage) -> None:
    stage.begin("r1", "wait")
    pid = await stage.host_of("r1")
    stage.halt("r1", grace_seconds=10)
    report = await stage.next("stop_report")
    assert not report.killed
    assert is_alive(pid)


async def test_a_halt_of_code_that_does_not_listen_kills_its_process(stage: Stage) -> None:
    stage.begin("r1", "block", shared=False)
    pid = await stage.host_of("r1")
    report_comes = asyncio.create_task(stage.next("stop_report"))
    await stage.marked()
    stage.halt("r1", grace_seconds=0.2)
    report = await report_comes
    assert report.killed
    assert not is_alive(pid)


async def test_a_host_that_dies_by_itself_is_told_with_its_last_words(stage: Stage) -> None:
    stage.begin("r1", "die")
    ended = await stage.next("host_ended")
    assert [lease.run for lease in ended.leases] == [stage.lease("r1").run]
    assert (ended.exit_code, ended.stderr) == (3, "these are my last words")


async def test_hosts_die_with_their_zygote_and_that_is_told(stage: Stage) -> None:
    stage.begin("r1", "wait")
    pid = await stage.host_of("r1")
    zygote = parent_of(pid)
    os.kill(zygote, signal.SIGKILL)
    ended = await stage.next("host_ended")
    assert ended.exit_code == -signal.SIGKILL
    assert not is_alive(pid)
    stage.begin("r2", "again")
    assert (await stage.next("host", "finish")).output["said"] == "done again"
