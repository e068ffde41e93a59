"""A stream that is open goes on only for as long as its caller's token and rights do."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fermata.v1 import approval_pb2, principal_pb2, run_pb2

PARENT = "tenants/default"


WATCHES = {
    "RunService.WatchRuns": run_pb2.WatchRunsRequest(parent=PARENT, deltas=True),
    "ApprovalService.WatchApprovals": approval_pb2.WatchApprovalsRequest(parent=PARENT),
}


@asynccontextmanager
async def _open(caller: Any, method: str, request: Any) -> Any:
    service, name = method.split(".")
    call = getattr(caller.stub(service), name)(request, metadata=caller.metadata)
    try:
        yield call
    finally:
        call.cancel()


async def _are_open(server: Any, count: int) -> None:
    """Return once so many streams have been begun by the server."""
    callers = server.callers
    async with asyncio.timeout(5):
        while sum(stream.waits for stream in callers._streams) < count:  # noqa: ASYNC110 - they have nothing to say yet
            await asyncio.sleep(0)


async def _drain(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def _end(call: Any) -> tuple[str, str]:
    """How a stream ends, within a second."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(_drain(call), 1)
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return caught.value.code().name, info.reason


async def _disable(admin: Any, name: str) -> None:
    shown = await admin.call("PrincipalService.GetPrincipal", principal_pb2.GetPrincipalRequest(name=name))
    shown.disabled = True
    await admin.call(
        "PrincipalService.UpdatePrincipal", principal_pb2.UpdatePrincipalRequest(principal=shown)
    )


async def _rotate(admin: Any, name: str) -> None:
    await admin.call("PrincipalService.RotateToken", principal_pb2.RotateTokenRequest(name=name))


async def _delete(admin: Any, name: str) -> None:
    await admin.call("PrincipalService.DeletePrincipal", principal_pb2.DeletePrincipalRequest(name=name))


@pytest.mark.parametrize("revoke", [_disable, _rotate, _delete])
@pytest.mark.parametrize("method", WATCHES)
async def test_open_streams_end_when_their_token_counts_no_more(
    server: Any, admin: Any, make: Any, method: str, revoke: Any
) -> None:
    ann, bob = await make("ann", "OPERATOR"), await make("bob", "OPERATOR")
    request = WATCHES[method]
    async with _open(ann, method, request) as hers, _open(bob, method, request) as his:
        await _are_open(server, 2)
        await revoke(admin, f"{PARENT}/principals/ann")
        assert await _end(hers) == ("UNAUTHENTICATED", "TOKEN_REVOKED")
        assert not his.done()
    assert (
        await ann.refusal("RunService.ListRuns", run_pb2.ListRunsRequest(parent=PARENT))
    ).reason == "TOKEN_INVALID"


async def test_an_open_stream_ends_when_its_right_is_gone(server: Any, admin: Any, make: Any) -> None:
    ann = await make("ann", "OPERATOR")
    async with _open(ann, "RunService.WatchRuns", run_pb2.WatchRunsRequest(parent=PARENT)) as call:
        await _are_open(server, 1)
        changed = principal_pb2.Principal(name=f"{PARENT}/principals/ann", roles=[])
        await admin.call(
            "PrincipalService.UpdatePrincipal", principal_pb2.UpdatePrincipalRequest(principal=changed)
        )
        assert await _end(call) == ("PERMISSION_DENIED", "PERMISSION_DENIED")


async def test_changes_of_others_and_of_other_things_end_nothing(server: Any, admin: Any, make: Any) -> None:
    ann = await make("ann", "OPERATOR", "VIEWER")
    async with _open(ann, "RunService.WatchRuns", run_pb2.WatchRunsRequest(parent=PARENT)) as call:
        await _are_open(server, 1)
        await make("bob", "VIEWER")
        await _rotate(admin, f"{PARENT}/principals/bob")
        viewer = principal_pb2.Principal(
            name=f"{PARENT}/principals/ann", roles=[principal_pb2.ROLE_VIEWER], display_name="Ann"
        )
        await admin.call(
            "PrincipalService.UpdatePrincipal", principal_pb2.UpdatePrincipalRequest(principal=viewer)
        )
        assert not call.done()


async def test_a_workers_stream_ends_with_its_token(
    server: Any, admin: Any, worker: Any, worker_caller: Any
) -> None:
    await _rotate(admin, f"{PARENT}/principals/worker")
    async with asyncio.timeout(1):
        assert await worker._call.code() is grpc.StatusCode.UNAUTHENTICATED
    assert server.plane.workers.get("w1") is None


async def test_what_a_reader_has_not_taken_when_its_token_ends_is_the_last_that_it_gets(
    server: Any, admin: Any, make: Any
) -> None:
    ann = await make("ann", "OPERATOR")
    opened = server.callers.open_stream(f"Bearer {ann.token}", "RunService.WatchRuns")
    with opened as stream:
        stream.waits = False
        await _rotate(admin, f"{PARENT}/principals/ann")
        assert stream.ended_by is not None
        with pytest.raises(type(stream.ended_by), match="was replaced"):
            stream.check()


async def test_streams_that_have_ended_are_forgotten(server: Any, admin: Any) -> None:
    for _ in range(3):
        async with _open(admin, "RunService.WatchRuns", run_pb2.WatchRunsRequest(parent=PARENT)):
            await _are_open(server, 1)
        async with asyncio.timeout(5):
            while server.callers._streams:  # noqa: ASYNC110 - a call's end is told to nobody
                await asyncio.sleep(0)
