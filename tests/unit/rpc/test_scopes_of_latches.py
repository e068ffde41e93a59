"""Latches of every scope over gRPC: who may set them, how many runs they reach at once, and for how long they last."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fermata.server.dispatch.sweeper import sweep_latches
from fermata.server.lifecycle.start import NewRun, create_run
from fermata.server.plane import ControlPlane
from fermata.server.serving import Server
from fermata.v1 import latch_pb2, run_pb2, worker_pb2

PARENT = "tenants/default"
HOLD, HALT = latch_pb2.LATCH_KIND_HOLD, latch_pb2.LATCH_KIND_HALT
LATCHED, SETTLED = latch_pb2.LATCH_STATE_LATCHED, latch_pb2.LATCH_STATE_SETTLED
RUNS = 1000


async def set_latch(caller: Any, kind: Any, expires_in: float = 0.0, **latch: Any) -> latch_pb2.Latch:
    made = latch_pb2.Latch(kind=kind, **latch)
    if expires_in:
        made.expire_time.FromNanoseconds(int((time.time() + expires_in) * 1e9))
    request = latch_pb2.CreateLatchRequest(parent=PARENT, latch=made)
    return await caller.call("LatchService.CreateLatch", request)  # type: ignore[no-any-return]


async def run(caller: Any, agent: str, **values: Any) -> run_pb2.Run:
    request = run_pb2.CreateRunRequest(parent=PARENT, agent=agent, text="turn it", **values)
    return await caller.call("RunService.CreateRun", request)  # type: ignore[no-any-return]


async def reports(caller: Any, latch: str) -> list[latch_pb2.Latch]:
    """What a watch of the latch brings until its end."""
    call = caller.stub("LatchService").WatchLatch(
        latch_pb2.WatchLatchRequest(name=latch), metadata=caller.metadata
    )
    async with asyncio.timeout(30):
        return [response.latch async for response in call if response.HasField("latch")]


async def many(plane: ControlPlane, count: int) -> None:
    wanted = NewRun("default", "operator", "", "{}", "ann", "")
    for _ in range(count // 100):
        await plane.write(lambda tx: [create_run(tx, plane.leases, wanted) for _ in range(100)])


async def test_a_halt_over_a_thousand_runs_is_one_write_and_reports_them_as_they_stop(
    admin: Any, worker: Any, agent: str, server: Server
) -> None:
    await many(server.plane, RUNS)
    begin = time.perf_counter()
    latch = await set_latch(admin, HALT, scope=latch_pb2.LatchScope(tenant=True))
    latched = time.perf_counter() - begin
    assert (latch.state, len(latch.runs)) == (LATCHED, RUNS)
    assert latch.stopped_runs < RUNS / 10, "the answer does not wait for them to stop"
    assert latched < 1.0
    watching = asyncio.create_task(reports(admin, latch.name))
    for _ in range(worker.capacity):
        stop = await worker.next("stop")
        report = worker_pb2.StopReport(lease=stop.lease, latch=latch.name)
        await worker.send(worker_pb2.WorkerMessage(stop_report=report))
    seen = await watching
    assert (seen[-1].state, seen[-1].stopped_runs) == (SETTLED, RUNS)
    stopped = [report.stopped_runs for report in seen]
    assert stopped == sorted(stopped)
    assert len(seen) < 100, "a long report is not sent anew for each of its runs"


async def test_what_a_server_did_not_come_to_the_next_one_stops(
    admin: Any, worker: Any, agent: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.disconnect()
    await many(server.plane, 100)
    stop_covered = ControlPlane.stop_covered
    monkeypatch.setattr(ControlPlane, "stop_covered", lambda plane: None)
    latch = await set_latch(admin, HALT, scope=latch_pb2.LatchScope(tenant=True))
    assert latch.state == LATCHED
    # The next server begins with what the store has; here it is the same one, looking anew.
    monkeypatch.setattr(ControlPlane, "stop_covered", stop_covered)
    server.plane.spawn(sweep_latches(server.plane), "as a server does when it starts")
    async with asyncio.timeout(30):
        # The worker had as many as it takes, if it was slow to leave.
        while latch.stopped_runs < 100 - worker.capacity:
            latch = await admin.call("LatchService.GetLatch", latch_pb2.GetLatchRequest(name=latch.name))


async def test_only_an_admin_halts_all_tenants(admin: Any, make: Any) -> None:
    operator = await make("ann", "OPERATOR")
    everything = latch_pb2.Latch(kind=HALT, scope=latch_pb2.LatchScope(everything=True))
    request = latch_pb2.CreateLatchRequest(parent=PARENT, latch=everything)
    refused = await operator.refusal("LatchService.CreateLatch", request)
    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    latch = await set_latch(admin, HALT, scope=latch_pb2.LatchScope(everything=True))
    assert latch.state == SETTLED
    assert latch.scope.everything


async def test_a_run_that_is_made_for_another_is_covered_with_it(admin: Any, worker: Any, agent: str) -> None:
    parent = await run(admin, agent)
    child = await run(admin, agent, parent_run=parent.name)
    assert child.parent_run == parent.name
    latch = await set_latch(admin, HOLD, scope=latch_pb2.LatchScope(run_tree=parent.name))
    assert sorted(latch.runs) == sorted([parent.name, child.name])
    late = await run(admin, agent, parent_run=child.name)
    assert list(late.latches) == [latch.name]
    assert late.state == run_pb2.RUN_STATE_QUEUED


async def test_a_hold_that_was_set_to_end_ends_by_itself(admin: Any, agent: str) -> None:
    scope = latch_pb2.LatchScope(agent=agent)
    latch = await set_latch(admin, HOLD, expires_in=0.3, scope=scope, on_expiry=latch_pb2.ON_EXPIRY_RELEASE)
    assert latch.on_expiry == latch_pb2.ON_EXPIRY_RELEASE
    async with asyncio.timeout(10):
        while latch.state != latch_pb2.LATCH_STATE_RELEASED:
            latch = await admin.call("LatchService.GetLatch", latch_pb2.GetLatchRequest(name=latch.name))
    assert latch.released_by == f"{latch.name}/expiry"


@pytest.mark.parametrize(
    ("kind", "expires_in", "on_expiry"), [(HALT, 60.0, 0), (HOLD, -60.0, 0), (HOLD, 60.0, 7)]
)
async def test_an_expiry_that_makes_no_sense_is_refused(
    admin: Any, kind: Any, expires_in: float, on_expiry: int
) -> None:
    latch = latch_pb2.Latch(
        kind=kind,
        scope=latch_pb2.LatchScope(tenant=True),
        on_expiry=on_expiry,  # type: ignore[arg-type]
    )
    latch.expire_time.FromNanoseconds(int((time.time() + expires_in) * 1e9))
    request = latch_pb2.CreateLatchRequest(parent=PARENT, latch=latch)
    assert (await admin.refusal("LatchService.CreateLatch", request)).reason == "LATCH_EXPIRY"
