"""The store fails for a while: what waited for it goes on by itself once it is back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from fermata.server import plane as plane_module
from fermata.server.dispatch import sweeper
from fermata.server.dispatch.channel import Channel
from fermata.server.errors import DomainError, ErrorKind
from fermata.server.lifecycle import decisions
from fermata.server.plane import ControlPlane
from fermata.server.store.database import StoreTroubleError
from fermata.v1 import run_pb2, worker_pb2


class Failing:
    """Fails so many times, and then does what it stands for."""

    def __init__(self, does: Any, times: int) -> None:
        self.does, self.left = does, times
        self.went_well = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, *args: Any) -> Any:
        if self.left:
            self.left -= 1
            raise DomainError("The disk is full.", reason="STORE_UNAVAILABLE", kind=ErrorKind.UNAVAILABLE)
        self._loop.call_soon_threadsafe(self.went_well.set)
        return self.does(*args)


async def test_work_that_could_not_be_handed_out_is_handed_out_later(
    server: Any, admin: Any, worker: Any, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = server.plane
    monkeypatch.setattr(plane_module, "CLAIM_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(plane.leases, "grant_at_once", lambda *_: False)
    run = await admin.call(
        "RunService.CreateRun", run_pb2.CreateRunRequest(parent="tenants/default", agent=agent, text="go")
    )
    monkeypatch.undo()
    monkeypatch.setattr(plane_module, "CLAIM_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(plane.leases, "claim", Failing(plane.leases.claim, 3))
    plane.claim_work()
    assert (await worker.next("assign")).lease.run == run.name


async def test_approvals_expire_also_after_a_while_in_which_nothing_could_be_read(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = Failing(decisions.next_expiry, 2)
    monkeypatch.setattr(decisions, "next_expiry", looking)
    monkeypatch.setattr(sweeper, "LOOK_SECONDS", 0.0)
    server.plane.spawn(sweeper.sweep_approvals(server.plane), "another sweep")
    await asyncio.wait_for(looking.went_well.wait(), 5)


async def test_a_read_that_the_disk_fails_says_that_the_store_is_unavailable(server: Any) -> None:
    with pytest.raises(DomainError) as refused:
        await server.plane.read(lambda connection: connection.execute(text("SELECT 1 FROM gone")))
    assert refused.value.reason == "STORE_UNAVAILABLE"


async def test_a_worker_is_not_refused_for_want_of_a_disk_but_comes_again(
    server: Any, admin: Any, worker: Any, worker_caller: Any, agent: str
) -> None:
    run = await admin.call(
        "RunService.CreateRun", run_pb2.CreateRunRequest(parent="tenants/default", agent=agent, text="go")
    )
    lease = (await worker.next("assign")).lease
    await _fail_once(server.plane)
    finish = worker_pb2.Finish(answer="done")
    await worker.send(worker_pb2.WorkerMessage(host=worker_pb2.HostMessage(lease=lease, id=1, finish=finish)))
    await asyncio.wait_for(worker.ended(), 5)
    assert "host_reply" not in worker.kinds_received()
    await worker.connect(worker_caller, [lease])
    assert not (await worker.ask(lease, 1, finish=finish)).HasField("error")
    ended = await admin.call("RunService.GetRun", run_pb2.GetRunRequest(name=run.name))
    assert ended.state == run_pb2.RUN_STATE_SUCCEEDED


async def test_what_a_worker_said_before_a_fault_is_not_written_after_it(server: Any) -> None:
    done: list[str] = []
    channel = Channel(server.plane, None)  # type: ignore[arg-type]
    await channel._submit(lambda _: done.append("before"), urgent=False)
    await _fail_once(server.plane)
    with pytest.raises(StoreTroubleError):
        await channel._submit(lambda _: done.append("after"), urgent=False)
    assert done == ["before"]


async def _fail_once(plane: ControlPlane) -> None:
    """Let the disk fail one batch."""
    with pytest.raises(StoreTroubleError):
        await plane.write(lambda tx: tx.execute(text("SELECT 1 FROM gone")))
