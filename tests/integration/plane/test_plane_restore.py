"""A whole control plane goes back to a backup that was made while it ran."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.plane.harness import Driver, Effects, Plane, eventually

from fermata.client import Client, FermataError
from fermata.v1 import approval_pb2, run_pb2

pytestmark = pytest.mark.ray


def fermata(*words: str | Path) -> None:
    done = subprocess.run([Path(sys.executable).with_name("fermata"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def test_what_was_paid_after_the_backup_is_not_paid_again_after_the_restore(
    tmp_path: Path,
) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy.db"
    paid, other = Effects(tmp_path / "paid"), Effects(tmp_path / "other")
    before = await asyncio.to_thread(Plane, data, "--workers", "1")
    try:
        async with Client(before.connection(), deadline_seconds=60) as client:
            driver = Driver(before, client)
            run = await driver.talk("asynchronous", [("pay", {"mark": str(paid), "amount": 5})])
            (asked,) = await run.asked()
            again = await driver.talk("asynchronous", [("pay", {"mark": str(other), "amount": 7})])
            await again.asked()
            await asyncio.to_thread(fermata, "--data", data, "backup", copy)
            await client.approvals.decide(asked.name, approval_pb2.DECISION_APPROVE, digest=asked.digest)
            await run.succeeded()
            await run.until("ends", lambda event: event.type == run_pb2.EVENT_TYPE_SUCCEEDED)
    finally:
        assert await asyncio.to_thread(before.stop) == 0, before.tail()
    assert len(paid.lines()) == 1
    await asyncio.to_thread(fermata, "restore", "--data", data, "--force", "--workers-stopped", copy)

    after = await asyncio.to_thread(Plane, data, "--workers", "1")
    try:
        async with Client(after.connection(), deadline_seconds=60) as client:
            run.client = again.client = client
            with pytest.raises(FermataError) as refused:
                await run.until("anything", lambda _: True)
            assert refused.value.reason == "STORE_RESTORED"
            for one, decision in (
                (run, approval_pb2.DECISION_IT_HAPPENED),
                (again, approval_pb2.DECISION_DO_AGAIN),
            ):
                found = {item.kind: item for item in await client.approvals.list(run=one.name)}
                action = found[approval_pb2.APPROVAL_KIND_ACTION]
                await client.approvals.decide(
                    action.name, approval_pb2.DECISION_APPROVE, digest=action.digest
                )
                about = found[approval_pb2.APPROVAL_KIND_RECOVERY]
                assert set(about.allowed_decisions) >= {decision}
                assert (await client.runs.get(one.name)).state == run_pb2.RUN_STATE_AWAITING
                value = "paid before" if one is run else None
                await client.approvals.decide(about.name, decision, digest=about.digest, value=value)
            assert (await client.runs.get(run.name)).answer == "paid before"

            async def done() -> bool:
                return (await client.runs.get(again.name)).state == run_pb2.RUN_STATE_SUCCEEDED

            await eventually("the other run goes on and ends", done)
    finally:
        assert await asyncio.to_thread(after.stop) == 0, after.tail()
    assert (len(paid.lines()), len(other.lines())) == (1, 1)
