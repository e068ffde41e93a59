"""A server is stopped, its store goes back to a backup, and those who have dealt with it since come again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.unit.rpc.conftest import PARENT, WORKER_TOKEN, Caller, FakeChroma

from fermata.server import serving
from fermata.server.cluster.target import ServerTarget
from fermata.server.cluster.testing import FakeZygotes
from fermata.server.cluster.worker import Worker
from fermata.server.settings import ServerSettings
from fermata.server.store import backup
from fermata.v1 import agent_pb2, approval_pb2, run_pb2, worker_pb2


class Place:
    """A data folder with a server, which is started and stopped, on one port."""

    def __init__(self, folder: Path) -> None:
        self.data, self.copy, self.worker_token = folder / "data", folder / "copy.db", folder / "worker-token"
        self.worker_token.write_text(WORKER_TOKEN)
        self.port = 0
        self.server: serving.Server | None = None
        self.channel: grpc.aio.Channel

    async def start(self) -> None:
        settings = ServerSettings(
            self.data, "127.0.0.1", self.port, "http://127.0.0.1:1", self.worker_token, None, None, None, None
        )
        self.server = await serving.Server.start(settings)
        self.port = int(self.server.address.rpartition(":")[2])
        self.channel = grpc.aio.insecure_channel(self.server.address)

    async def stop(self) -> None:
        if self.server is not None:
            await self.channel.close()
            await self.server.stop()
            self.server = None

    @property
    def admin(self) -> Caller:
        return Caller(self.channel, (self.data / "token").read_text().strip())

    async def pending(self) -> list[approval_pb2.Approval]:
        listed = await self.admin.call(
            "ApprovalService.ListApprovals", approval_pb2.ListApprovalsRequest(parent=PARENT)
        )
        return [item for item in listed.approvals if item.state == approval_pb2.APPROVAL_STATE_PENDING]

    async def decide(self, item: approval_pb2.Approval, decision: approval_pb2.Decision.ValueType) -> None:
        request = approval_pb2.DecideApprovalRequest(name=item.name, decision=decision, digest=item.digest)
        await self.admin.call("ApprovalService.DecideApproval", request)

    async def watched(self, count: int, **asked: Any) -> list[run_pb2.WatchRunsResponse]:
        """The first events of a watch."""
        call = self.admin.stub("RunService").WatchRuns(
            run_pb2.WatchRunsRequest(parent=PARENT, **asked), metadata=self.admin.metadata
        )
        try:
            async with asyncio.timeout(5):
                return [await anext(aiter(call)) for _ in range(count)]
        finally:
            call.cancel()


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(serving, "ChromaStore", FakeChroma)
    monkeypatch.setattr(serving, "DRAIN_SECONDS", 0.0)
    made = Place(tmp_path)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def zygotes() -> FakeZygotes:
    return FakeZygotes()


@pytest.fixture
async def worker(place: Place, zygotes: FakeZygotes, tmp_path: Path) -> AsyncIterator[Worker]:
    async def embed(asked: list[Any]) -> Any:
        raise AssertionError(f"nobody embeds or reads here: {asked}")

    target = ServerTarget(f"127.0.0.1:{place.port}", place.worker_token)
    made = Worker(
        target, cache=tmp_path / "packs", start_zygote=zygotes, embed=embed, read=embed, worker_id="w1"
    )
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_was_approved_and_done_after_the_backup_is_not_done_again(
    place: Place, worker: Worker, zygotes: FakeZygotes
) -> None:
    await worker.wait_connected()
    await place.admin.call(
        "AgentService.ApplyAgent",
        agent_pb2.ApplyAgentRequest(
            name=f"{PARENT}/agents/operator",
            spec=agent_pb2.AgentSpec(
                graph="graphs:operator",
                tool_declarations={
                    "turn": agent_pb2.ToolDeclaration(effect=run_pb2.EFFECT_CLASS_UNSAFE),
                },
            ),
        ),
    )
    created = run_pb2.CreateRunRequest(parent=PARENT, agent=f"{PARENT}/agents/operator", text="go")
    run = await place.admin.call("RunService.CreateRun", created)
    host = await zygotes.host(0)
    lease = (await host.got("assign")).lease
    gate = worker_pb2.Gate(step="s1", tool="turn", args="{}", digest="d", call_digest="c")
    host.say(lease, 1, gate=_with(gate, "n1"))
    assert (await host.got("host_reply")).gate.verdict == worker_pb2.GATE_VERDICT_ASK
    host.say(lease, 2, park=worker_pb2.Park(asking_steps=["s1"]))
    await host.got("host_reply")

    await asyncio.to_thread(backup.back_up, place.data, place.copy)
    (action,) = await place.pending()
    await place.decide(action, approval_pb2.DECISION_APPROVE)
    await host.got("resume")
    host.say(lease, 3, gate=_with(gate, "n2"))
    assert (await host.got("host_reply")).gate.verdict == worker_pb2.GATE_VERDICT_PROCEED
    cursor = (await place.watched(6, run=run.name))[-1].cursor
    shared = (await place.watched(1, run=run.name))[0].cursor

    await place.stop()
    await asyncio.to_thread(backup.restore, place.copy, place.data, force=True)
    await place.start()

    async with asyncio.timeout(10):
        while not (host.killed and worker.connected):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
    assert (await place.admin.call("RunService.GetRun", run_pb2.GetRunRequest(name=run.name))).state == (
        run_pb2.RUN_STATE_AWAITING
    )
    asked = {item.kind: item for item in await place.pending()}
    assert set(asked) == {approval_pb2.APPROVAL_KIND_ACTION, approval_pb2.APPROVAL_KIND_RECOVERY}
    await place.decide(asked[approval_pb2.APPROVAL_KIND_ACTION], approval_pb2.DECISION_APPROVE)
    await place.decide(asked[approval_pb2.APPROVAL_KIND_RECOVERY], approval_pb2.DECISION_IT_HAPPENED)
    ended = await place.admin.call("RunService.GetRun", run_pb2.GetRunRequest(name=run.name))
    assert ended.state == run_pb2.RUN_STATE_SUCCEEDED
    assert not [
        message for other in zygotes.hosts[1:] for message in other.sent if message.HasField("assign")
    ]

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await place.watched(1, run=run.name, cursor=cursor)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "STORE_RESTORED" in str(refused.value.trailing_metadata())
    again = await place.watched(1, run=run.name, cursor=shared)
    assert (again[0].event.sequence, again[0].cursor.count(".")) == (2, 1)


async def test_a_worker_of_another_life_is_refused_by_name_and_one_that_is_new_is_not(place: Place) -> None:
    assert place.server is not None
    present = place.server.plane.lives.present.incarnation
    channel = Caller(place.channel, WORKER_TOKEN)
    for incarnation, welcome in (
        ("", True),
        (present, True),
        ("f" * 16, False),
    ):
        call = channel.stub("WorkerService").Connect(metadata=channel.metadata)
        hello = worker_pb2.WorkerHello(worker="w9", incarnation=incarnation)
        await call.write(worker_pb2.ConnectRequest(messages=[worker_pb2.WorkerMessage(hello=hello)]))
        if welcome:
            first = await call.read()
            assert first.messages[0].welcome.incarnation == present
        else:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert "STORE_RESTORED" in str(refused.value.trailing_metadata())
        call.cancel()


def _with(gate: worker_pb2.Gate, nonce: str) -> worker_pb2.Gate:
    given = worker_pb2.Gate()
    given.CopyFrom(gate)
    given.nonce = nonce
    return given
