"""The store fails for a while: what waited for it goes on by itself once it is back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from fermata.server import plane as plane_module
from fermata.server.dispatch import sweeper
from fermata.server.errors import DomainError, ErrorKind
from fermata.server.lifecycle import decisions
from fermata.v1 import run_pb2


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
    monkeypatch.setattr(plane.leases, "grant_now", lambda *_: False)
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
    server.plane.approvals_changed.set()
    await asyncio.wait_for(looking.went_well.wait(), 5)


async def test_a_read_that_the_disk_fails_says_that_the_store_is_unavailable(server: Any) -> None:
    with pytest.raises(DomainError) as refused:
        await server.plane.read(lambda connection: connection.execute(text("SELECT 1 FROM gone")))
    assert refused.value.reason == "STORE_UNAVAILABLE"
