"""The worker against a server on loopback: what is carried, what survives a break, and how runs are stopped."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fermata.agents.inference.readings import Pair, Reading
from fermata.server.cluster.hosts import GraphNotLoadedError
from fermata.server.cluster.testing import Connection, FakeHost, FakeServer, FakeZygotes
from fermata.server.cluster.worker import InferenceUnavailableError, Worker
from fermata.v1.agent_pb2 import AgentSpec, RunLimits
from fermata.v1.run_pb2 import RunError, TokenDelta
from fermata.v1.worker_pb2 import (
    Ack,
    Assign,
    Commit,
    Embed,
    Finish,
    Gate,
    HostReply,
    HostStopped,
    Inspect,
    Lease,
    ReadPairs,
    Resume,
    StepClosed,
    Stop,
    StopMode,
)

ASYNC_SPEC = AgentSpec(graph="shop:graph")


def lease(name: str, epoch: int = 1) -> Lease:
    return Lease(run=f"tenants/default/runs/{name}", epoch=epoch)


def assign(name: str, *, shared: bool = True, epoch: int = 1, spec: AgentSpec = ASYNC_SPEC) -> Assign:
    return Assign(lease=lease(name, epoch), spec=spec, shared_host=shared)


UNREADABLE = 13
"""A token of which the reader here is gone."""


def halt(name: str, grace_seconds: float = 5.0) -> Stop:
    return Stop(
        lease=lease(name), mode=StopMode.STOP_MODE_HALT, latch="latches/l1", grace_seconds=grace_seconds
    )


async def embed(texts: list[str]) -> NDArray[np.float32]:
    if "unembeddable" in texts:
        raise InferenceUnavailableError("the embedder is gone")
    return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


async def read(pairs: list[Pair]) -> list[Reading]:
    if any(pair.text == (UNREADABLE,) for pair in pairs):
        raise InferenceUnavailableError("the reader is gone")
    return [_reading_of(pair) for pair in pairs]


def _reading_of(pair: Pair) -> Reading:
    """Numbers by which one can tell that the right ones come back: of a text, a tool and its markers."""
    match = np.array([[t / 100 + m for t in pair.text] for m in pair.markers], dtype=np.float32)
    tags = np.array([[t, 0, 0, 1] for t in pair.text], dtype=np.float32)
    kind = np.array([len(pair.tool), 0, 0, 1], dtype=np.float32)
    return Reading(kind, tags, np.array(pair.markers, dtype=np.float32), match)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    server = FakeServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def zygotes() -> FakeZygotes:
    return FakeZygotes()


@pytest.fixture
async def worker(server: FakeServer, zygotes: FakeZygotes, tmp_path: Path) -> AsyncIterator[Worker]:
    worker = Worker(
        server.target,
        cache=tmp_path / "packs",
        start_zygote=zygotes,
        embed=embed,
        read=read,
        capacity=7,
        node="here",
    )
    task = asyncio.create_task(worker.run())
    yield worker
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def running(
    connection: Connection, zygotes: FakeZygotes, name: str, *, shared: bool = True
) -> FakeHost:
    """The host of a run that has reached it."""
    connection.send(assign=assign(name, shared=shared))
    return await reached(zygotes, name)


async def reached(zygotes: FakeZygotes, name: str) -> FakeHost:
    async with asyncio.timeout(10):
        while True:
            for host in zygotes.hosts:
                if any(message.assign.lease == lease(name) for message in host.sent):
                    await host.got("assign")
                    return host
            await asyncio.sleep(0)


async def test_the_first_message_says_who_the_worker_is(server: FakeServer, worker: Worker) -> None:
    hello = (await server.connection()).hello
    assert (hello.worker, hello.node, hello.pid, hello.capacity) == (worker.id, "here", os.getpid(), 7)
    assert not hello.leases
    await worker.wait_connected()


async def test_heartbeats_come_as_often_as_the_welcome_said(server: FakeServer, worker: Worker) -> None:
    connection = await server.connection()
    for _ in range(3):
        assert (await connection.next("heartbeat")).time.seconds > 0


async def test_a_hosts_message_reaches_the_server_and_the_answer_the_host(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    host.say(lease("r1"), 5, gate=Gate(step="s", nonce="n"))
    message = await connection.next("host")
    assert (message.id, message.gate.nonce, message.lease) == (5, "n", lease("r1"))
    connection.send(host_reply=HostReply(lease=lease("r1"), id=5, ack=Ack()))
    assert (await host.got("host_reply")).id == 5


async def test_runs_of_an_async_revision_share_a_host_and_others_have_their_own(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    first = await running(connection, zygotes, "r1")
    connection.send(assign=assign("r2"))
    assert (await first.got("assign")).lease == lease("r2")
    third, fourth = [await running(connection, zygotes, name, shared=False) for name in ("r3", "r4")]
    assert len({first, third, fourth}) == 3
    assert len(zygotes.started) == 1


async def test_a_repeated_assignment_changes_nothing(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    connection.send(assign=assign("r1"))
    host.say(lease("r1"), 1, gate=Gate(step="s"))
    await connection.next("host")
    assert not host.sent


async def test_a_higher_epoch_ends_the_older_lease(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1", shared=False)
    connection.send(assign=assign("r1", shared=False, epoch=2))
    await host.ended()
    assert host.killed
    assert worker.leases == [(lease("r1").run, 2)]


async def test_after_a_break_unanswered_messages_go_out_again_with_the_same_id(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    host.say(lease("r1"), 1, gate=Gate(nonce="first"))
    host.say(lease("r1"), 2, gate=Gate(nonce="second"))
    host.say(lease("r1"), 0, delta=TokenDelta())
    assert (await connection.next("host")).id == 1
    assert (await connection.next("host")).id == 2
    connection.send(host_reply=HostReply(lease=lease("r1"), id=1, ack=Ack()))
    await host.got("host_reply")
    connection.break_off()
    again = await server.connection()
    assert [held.run for held in again.hello.leases] == [lease("r1").run]
    assert again.hello.worker == connection.hello.worker
    repeated = await again.next("host")
    assert (repeated.id, repeated.gate.nonce) == (2, "second")
    again.send(host_reply=HostReply(lease=lease("r1"), id=2, ack=Ack()))
    assert (await host.got("host_reply")).id == 2


async def test_a_server_that_restarts_finds_its_workers_again_and_what_they_had_to_say(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    await server.stop()
    host.say(lease("r1"), 9, gate=Gate(nonce="while it was gone"))
    await server.start()
    again = await server.connection()
    assert (await again.next("host")).gate.nonce == "while it was gone"
    assert not host.killed


async def test_leases_that_the_server_calls_lost_are_dropped(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1", shared=False)
    host.say(lease("r1"), 3, gate=Gate(nonce="stale"))
    await connection.next("host")
    server.lost = [lease("r1")]
    connection.break_off()
    again = await server.connection()
    await host.ended()
    assert host.killed
    again.send(embed=Embed(id=1, texts=["x"]))
    await again.next("embed_result")
    assert not worker.leases


async def test_a_finished_run_gives_its_host_back(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1", shared=False)
    host.say(lease("r1"), 4, finish=Finish(answer="42"))
    await connection.next("host")
    assert worker.leases
    connection.send(host_reply=HostReply(lease=lease("r1"), id=4, ack=Ack()))
    await host.ended()
    assert not worker.leases


async def test_a_halt_that_the_host_answers_is_reported_with_the_permits_given_back(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    connection.send(stop=halt("r1"))
    assert (await host.got("stop")).latch == "latches/l1"
    host.say(lease("r1"), stopped=HostStopped(latch="latches/l1", not_started=["s1"]))
    report = await connection.next("stop_report")
    assert (report.killed, list(report.not_started), report.latch) == (False, ["s1"], "latches/l1")
    assert not host.killed


async def test_a_host_that_does_not_answer_a_halt_is_killed_and_the_runs_beside_it_are_named(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    connection.send(assign=assign("r2"))
    await host.got("assign")
    connection.send(stop=halt("r1", grace_seconds=0.02))
    report = await connection.next("stop_report")
    assert report.killed
    assert report.lease == lease("r1")
    ended = await connection.next("host_ended")
    assert list(ended.leases) == [lease("r2")]
    assert host.killed
    assert not worker.leases


async def test_how_long_a_halted_run_may_take_is_its_agents_to_say(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    limits = RunLimits()
    limits.drain_time.FromMilliseconds(30)
    limits.cancel_time.FromMilliseconds(20)
    spec = AgentSpec(graph=ASYNC_SPEC.graph, limits=limits)
    connection.send(assign=assign("r1", spec=spec))
    await reached(zygotes, "r1")
    began = asyncio.get_running_loop().time()
    connection.send(stop=halt("r1", grace_seconds=60))
    assert (await connection.next("stop_report")).killed
    assert asyncio.get_running_loop().time() - began >= 0.05


async def test_a_host_that_speaks_for_a_run_of_another_host_is_killed_and_not_heard(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    await running(connection, zygotes, "r1", shared=False)
    other = await running(connection, zygotes, "r2", shared=False)
    other.say(lease("r1"), id=1, finish=Finish(answer="forged"))
    ended = await connection.next("host_ended")
    assert list(ended.leases) == [lease("r2")]
    assert other.killed
    assert worker.leases == [(lease("r1").run, 1)]


async def test_a_halt_of_a_run_that_is_not_here_is_reported_as_dead(
    server: FakeServer, worker: Worker
) -> None:
    connection = await server.connection()
    connection.send(stop=halt("gone"))
    assert (await connection.next("stop_report")).killed


async def test_a_report_that_may_have_been_lost_in_a_break_is_sent_again(
    server: FakeServer, worker: Worker
) -> None:
    connection = await server.connection()
    connection.send(stop=halt("gone"))
    await connection.next("stop_report")
    connection.break_off()
    assert (await (await server.connection()).next("stop_report")).latch == "latches/l1"


async def test_a_resume_of_a_run_that_is_not_here_is_answered_with_its_hosts_end(
    server: FakeServer, worker: Worker
) -> None:
    connection = await server.connection()
    connection.send(resume=Resume(lease=lease("gone", 3)))
    assert list((await connection.next("host_ended")).leases) == [lease("gone", 3)]


async def test_hold_and_continue_are_the_hosts_business(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    for mode in (StopMode.STOP_MODE_HOLD, StopMode.STOP_MODE_CONTINUE):
        connection.send(stop=Stop(lease=lease("r1"), mode=mode))
        assert (await host.got("stop")).mode == mode
    assert worker.leases


async def test_of_a_dropped_run_nothing_is_told_but_that_its_own_host_is_dead(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1", shared=False)
    connection.send(stop=Stop(lease=lease("r1"), mode=StopMode.STOP_MODE_DROP))
    ended = await connection.next("host_ended")
    assert host.killed
    assert list(ended.leases) == [lease("r1")]
    other = await running(connection, zygotes, "r2", shared=False)
    other.say(lease("r2"), 1, gate=Gate(nonce="next"))
    assert (await connection.next("host")).lease == lease("r2")


@pytest.mark.parametrize("how", ["its host says so", "its host ends"])
async def test_of_a_dropped_run_in_a_shared_host_it_is_told_once_that_nothing_of_it_moves(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes, how: str
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    connection.send(assign=assign("r2"))
    await host.got("assign")
    connection.send(stop=Stop(lease=lease("r1"), mode=StopMode.STOP_MODE_DROP))
    await host.got("stop")
    assert not host.killed
    if how == "its host says so":
        host.say(lease("r1"), stopped=HostStopped())
        assert list((await connection.next("host_ended")).leases) == [lease("r1")]
        assert worker.leases == [(lease("r2").run, 1)]
    host.die(1)
    left = [] if how == "its host says so" else [lease("r1")]
    assert list((await connection.next("host_ended")).leases) == [lease("r2"), *left]


async def test_of_a_dropped_run_in_a_shared_host_that_goes_on_nothing_is_told(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    connection.send(stop=Stop(lease=lease("r1"), mode=StopMode.STOP_MODE_DROP))
    await host.got("stop")
    assert not host.killed
    host.say(lease("r1"), 1, gate=Gate(nonce="too late"))
    other = await running(connection, zygotes, "r2")
    other.say(lease("r2"), 1, gate=Gate(nonce="next"))
    heard: list[str | None] = []
    async with asyncio.timeout(10):
        while not heard or heard[-1] != "host":
            heard.append((await connection.received.get()).WhichOneof("body"))
    assert set(heard) <= {"heartbeat", "host"}


async def test_how_a_started_step_ended_is_told_even_after_the_lease_is_lost(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    connection.send(stop=Stop(lease=lease("r1"), mode=StopMode.STOP_MODE_DROP))
    assert (await host.got("stop")).mode == StopMode.STOP_MODE_DROP
    host.say(lease("r1"), 1, gate=Gate(nonce="too late"))
    host.say(lease("r1"), 2, step_closed=StepClosed(step="s1"))
    assert (await connection.next("host")).step_closed.step == "s1"


async def test_a_host_that_dies_is_reported_with_its_last_words_and_replaced(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    host.die(-11, "Segmentation fault")
    ended = await connection.next("host_ended")
    assert (list(ended.leases), ended.exit_code, ended.stderr) == ([lease("r1")], -11, "Segmentation fault")
    connection.send(assign=assign("r2"))
    replacement = await zygotes.host(1)
    assert (await replacement.got("assign")).lease == lease("r2")
    assert len(zygotes.started) == 1


async def test_messages_that_come_before_the_host_is_there_wait_for_it_in_order(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    connection.send(assign=assign("r1"))
    connection.send(stop=Stop(lease=lease("r1"), mode=StopMode.STOP_MODE_HOLD))
    host = await zygotes.host(0)
    await host.got("stop")
    assert [message.WhichOneof("body") for message in host.sent] == ["assign"]


async def test_a_graph_that_cannot_be_loaded_fails_the_run(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    zygotes.error = GraphNotLoadedError("GRAPH_INVALID", "no module named shop", "Traceback ...")
    connection = await server.connection()
    connection.send(assign=assign("r1"))
    message = await connection.next("host")
    assert message.finish.error.reason == "GRAPH_INVALID"
    assert message.finish.error.detail == "Traceback ..."
    connection.send(host_reply=HostReply(lease=lease("r1"), id=message.id, ack=Ack()))
    connection.send(stop=halt("r1"))
    assert (await connection.next("stop_report")).killed
    assert not worker.leases


async def test_a_pack_is_fetched_once_and_unzipped_for_the_zygote(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as pack:
        pack.writestr("shop/graph.py", "graph = 1")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    server.packs[digest] = buffer.getvalue()
    connection = await server.connection()
    for number in (1, 2):
        spec = AgentSpec(graph="shop/graph.py:graph", pack_digest=digest, instructions=str(number))
        connection.send(inspect=Inspect(id=number, spec=spec))
    for _ in (1, 2):
        result = await connection.next("inspect_result")
        assert list(result.report.nodes) == ["think", "act"]
    folder = zygotes.started[0][1]
    assert folder is not None
    assert (folder / "shop/graph.py").read_text() == "graph = 1"
    assert server.pack_requests == 1


async def test_a_pack_that_the_server_does_not_have_is_an_error_of_the_inspection(
    server: FakeServer, worker: Worker
) -> None:
    connection = await server.connection()
    connection.send(inspect=Inspect(id=3, spec=AgentSpec(graph="a:b", pack_digest="0" * 64)))
    assert (await connection.next("inspect_result")).error.reason == "PACK_UNAVAILABLE"


async def test_texts_are_embedded_for_hosts_and_for_the_server(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    connection.send(embed=Embed(id=11, texts=["four", "sixsix"]))
    result = await connection.next("embed_result")
    assert (result.id, result.count) == (11, 2)
    assert np.frombuffer(result.vectors, "<f4").reshape(2, 2).tolist() == [[4, 1], [6, 1]]
    host = await running(connection, zygotes, "r1")
    host.say(lease("r1"), 6, embed=Embed(texts=["ab"]))
    reply = await host.got("host_reply")
    assert (reply.id, reply.embed.count) == (6, 1)


async def test_texts_are_read_for_hosts(server: FakeServer, worker: Worker, zygotes: FakeZygotes) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    pairs = [
        ReadPairs.Pair(text=[7, 8, 9], tool=[1, 2, 3, 4], markers=[1, 3]),
        ReadPairs.Pair(text=[5], tool=[6], markers=[]),
    ]
    host.say(lease("r1"), 6, read=ReadPairs(pairs=pairs))
    reply = await host.got("host_reply")
    assert reply.id == 6
    first, second = reply.read.readings
    assert np.frombuffer(first.kind, "<f4").tolist() == [4, 0, 0, 1]
    assert np.frombuffer(first.tags, "<f4").reshape(3, 4)[:, 0].tolist() == [7, 8, 9]
    assert np.frombuffer(first.present, "<f4").tolist() == [1, 3]
    assert np.frombuffer(first.match, "<f4").reshape(2, 3)[1].tolist() == pytest.approx([3.07, 3.08, 3.09])
    assert (second.present, second.match) == (b"", b"")


async def test_a_reader_that_is_gone_is_an_answer_to_the_host(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    host.say(lease("r1"), 6, read=ReadPairs(pairs=[ReadPairs.Pair(text=[UNREADABLE], tool=[1])]))
    assert (await host.got("host_reply")).read.error.reason == "EMBEDDER_UNAVAILABLE"


async def test_an_embedder_that_is_gone_is_an_answer_and_not_a_crash(
    server: FakeServer, worker: Worker
) -> None:
    connection = await server.connection()
    connection.send(embed=Embed(id=1, texts=["unembeddable"]))
    assert (await connection.next("embed_result")).error.reason == "EMBEDDER_UNAVAILABLE"


async def test_what_is_queued_while_a_write_is_in_flight_goes_as_one_frame(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    server.heartbeat_seconds = 0
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    for number in range(1, 101):
        host.say(lease("r1"), number, gate=Gate(step=str(number)))
    for number in range(1, 101):
        assert (await connection.next("host")).id == number
    assert connection.frames < 50


async def test_what_a_stopped_host_still_had_to_commit_is_sent_on(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1")
    connection.send(stop=halt("r1"))
    await host.got("stop")
    host.say(lease("r1"), stopped=HostStopped(), commit=Commit())
    message = await connection.next("host")
    assert message.HasField("commit")
    assert message.WhichOneof("body") is None


async def test_a_worker_that_ends_leaves_no_zygote(server: FakeServer, tmp_path: Path) -> None:
    zygotes = FakeZygotes()
    worker = Worker(server.target, cache=tmp_path, start_zygote=zygotes, embed=embed, read=read)
    task = asyncio.create_task(worker.run())
    connection = await server.connection()
    await running(connection, zygotes, "r1")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert zygotes.closed == 1


@pytest.mark.parametrize("shared", [True, False])
async def test_a_run_whose_epoch_is_stale_is_dropped(
    server: FakeServer, worker: Worker, zygotes: FakeZygotes, shared: bool
) -> None:
    connection = await server.connection()
    host = await running(connection, zygotes, "r1", shared=shared)
    host.say(lease("r1"), 5, gate=Gate(step="s", nonce="n"))
    await connection.next("host")
    refused = RunError(reason="STALE_EPOCH", message="Worker 'w' does not hold r1 at epoch 1.")
    connection.send(host_reply=HostReply(lease=lease("r1"), id=5, error=refused))
    assert (await host.got("host_reply")).error == refused
    if shared:
        stop = await host.got("stop")
        assert (stop.mode, stop.lease) == (StopMode.STOP_MODE_DROP, lease("r1"))
        assert not host.killed
    else:
        await asyncio.wait_for(host.ended(), 5)
        assert host.killed
    assert worker.leases == []
    host.say(lease("r1"), 6, finish=Finish(answer="late"))
    host.say(lease("r1"), 0, step_closed=StepClosed(step="s", nonce="n"))
    if shared:
        assert (await connection.next("host")).WhichOneof("body") == "step_closed", (
            "nothing but outcomes is told"
        )
