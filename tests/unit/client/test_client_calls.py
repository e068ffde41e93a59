"""Unary calls: retries that are safe, deadlines, tokens and decoded errors."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import traceback
from typing import Any

import grpc
import pytest

from fermata.client import (
    AbortedError,
    Connection,
    FermataError,
    InvalidArgumentError,
    LocalError,
    NotFoundError,
    ResourceExhaustedError,
    RetryPolicy,
    SyncClient,
    UnavailableError,
    Violation,
)
from fermata.client.retry import prepare
from fermata.v1 import agent_pb2, approval_pb2, principal_pb2, run_pb2, thread_pb2

RUN = "tenants/default/runs/r1"


class Flaky:
    """Fails a number of times before it answers."""

    def __init__(self, failures: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.failures = failures
        self.code = code
        self.requests: list[Any] = []

    async def _answer(self, request: Any, context: Any, answer: Any) -> Any:
        self.requests.append(request)
        if len(self.requests) <= self.failures:
            await context.abort(self.code, "not now")
        return answer

    async def CreateRun(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, run_pb2.Run(name=RUN))

    async def CreateThread(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, thread_pb2.Thread(name="tenants/default/threads/t1"))

    async def GetRun(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, run_pb2.Run(name=request.name))

    async def DeleteAgent(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, agent_pb2.DeleteAgentResponse())

    async def RotateToken(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, principal_pb2.RotateTokenResponse(token="t"))

    async def DecideApproval(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, approval_pb2.Approval(name=request.name))


async def test_a_retried_mutation_keeps_its_request_id(serve: Any, clock: Any) -> None:
    server = Flaky(2)
    client = await serve(server)
    run = await client.runs.create("operator", "hello")
    assert run.name == RUN
    ids = {request.request_id for request in server.requests}
    assert len(server.requests) == 3
    assert len(ids) == 1
    assert len(ids.pop()) == 36


async def test_two_calls_have_two_request_ids(serve: Any) -> None:
    server = Flaky(0)
    client = await serve(server)
    await client.runs.create("operator", "hello")
    await client.runs.create("operator", "hello")
    assert len({request.request_id for request in server.requests}) == 2


async def test_a_request_id_of_the_callers_own_is_kept(serve: Any) -> None:
    server = Flaky(1)
    client = await serve(server)
    await client.runs.create("operator", "hello", request_id="mine")
    assert [request.request_id for request in server.requests] == ["mine", "mine"]


@pytest.mark.parametrize("name", [None, "reject", "enqueue", "interrupt", "rollback"])
async def test_the_strategy_for_a_busy_thread_is_sent_by_its_name(serve: Any, name: Any) -> None:
    server = Flaky(0)
    client = await serve(server)
    await client.runs.create("operator", "hello", multitask_strategy=name)
    await client.threads.create(multitask_strategy=name)
    wanted = thread_pb2.MultitaskStrategy.Value(f"MULTITASK_STRATEGY_{(name or 'unspecified').upper()}")
    run, thread = server.requests
    assert (run.multitask_strategy, thread.thread.multitask_strategy) == (wanted, wanted)


async def test_a_strategy_that_nobody_knows_is_not_sent(serve: Any) -> None:
    server = Flaky(0)
    client = await serve(server)
    with pytest.raises(LocalError) as refused:
        await client.runs.create("operator", "hello", multitask_strategy="overtake")
    assert (refused.value.reason, server.requests) == ("STRATEGY_UNKNOWN", [])


async def test_reads_are_repeated_with_growing_waits(serve: Any, clock: Any) -> None:
    server = Flaky(3)
    client = await serve(server)
    await client.runs.get("r1")
    assert clock.slept == [0.1, 0.2, 0.4]


async def test_what_has_no_request_id_is_sent_once(serve: Any) -> None:
    server = Flaky(1)
    client = await serve(server)
    with pytest.raises(UnavailableError):
        await client.agents.delete("operator")
    assert len(server.requests) == 1
    other = Flaky(1)
    client = await serve(other)
    with pytest.raises(UnavailableError):
        await client.principals.rotate_token("ann")
    assert len(other.requests) == 1


async def test_attempts_come_to_an_end(serve: Any) -> None:
    server = Flaky(99)
    client = await serve(server)
    with pytest.raises(UnavailableError, match="not now"):
        await client.runs.get("r1")
    assert len(server.requests) == 4


async def test_a_server_that_was_there_is_waited_for_longer(serve: Any, clock: Any) -> None:
    server = Flaky(99)
    client = await serve(server)
    client.transport.retry = RetryPolicy()
    with pytest.raises(UnavailableError):
        await client.runs.get("r1")
    assert len(server.requests) == RetryPolicy().attempts_before_contact
    server.failures, server.requests = 0, []
    await client.runs.get("r1")
    server.failures, server.requests, clock.slept = 99, [], []
    with pytest.raises(UnavailableError):
        await client.runs.get("r1")
    assert len(server.requests) == RetryPolicy().attempts
    assert sum(clock.slept) > 10


async def test_retries_stop_at_the_deadline(serve: Any, clock: Any) -> None:
    server = Flaky(99)
    client = await serve(server)
    client.transport.deadline_seconds = 0.25
    with pytest.raises(UnavailableError):
        await client.runs.get("r1")
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    ],
)
async def test_other_errors_are_not_repeated(serve: Any, code: Any) -> None:
    server = Flaky(1, code)
    client = await serve(server)
    with pytest.raises(FermataError) as caught:
        await client.runs.get("r1")
    assert caught.value.code is code
    assert len(server.requests) == 1


async def test_a_rate_limit_is_waited_out_as_long_as_the_server_asks(
    serve: Any, clock: Any, refusal: Any, details: Any
) -> None:
    class Limited:
        calls = 0

        async def GetRun(self, request: Any, context: Any) -> Any:
            self.calls += 1
            if self.calls == 1:
                info = details.RetryInfo()
                info.retry_delay.FromMilliseconds(2500)
                await refusal(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", info)
            return run_pb2.Run(name=request.name)

    client = await serve(Limited())
    await client.runs.get("r1")
    assert clock.slept == [2.5]


async def test_error_details_become_attributes(serve: Any, refusal: Any, details: Any) -> None:
    class Refusing:
        async def GetRun(self, request: Any, context: Any) -> None:
            await refusal(
                context,
                grpc.StatusCode.NOT_FOUND,
                "There is no run 'r1'.",
                details.ErrorInfo(reason="RUN_NOT_FOUND", domain="fermata.dev", metadata={"run": "r1"}),
            )

        async def CreateRun(self, request: Any, context: Any) -> None:
            violation = details.BadRequest.FieldViolation(field="agent", description="is empty")
            await refusal(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "No.",
                details.BadRequest(field_violations=[violation]),
            )

    client = await serve(Refusing())
    with pytest.raises(NotFoundError) as missing:
        await client.runs.get("r1")
    assert (missing.value.reason, missing.value.metadata) == ("RUN_NOT_FOUND", {"run": "r1"})
    assert str(missing.value) == "[RUN_NOT_FOUND] There is no run 'r1'."
    with pytest.raises(InvalidArgumentError) as invalid:
        await client.runs.create("operator", "hello")
    assert invalid.value.violations == (Violation("agent", "is empty"),)
    assert invalid.value.reason == "INVALID_ARGUMENT"


async def test_details_that_cannot_be_read_do_not_hide_the_error(serve: Any) -> None:
    class Odd:
        async def GetRun(self, request: Any, context: Any) -> None:
            context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff\xff"),))
            await context.abort(grpc.StatusCode.ABORTED, "changed")

    client = await serve(Odd())
    with pytest.raises(AbortedError) as caught:
        await client.runs.get("r1")
    assert caught.value.reason == "ABORTED"


async def test_the_token_goes_with_each_call_and_nowhere_else(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "tok-very-secret"
    seen: list[str] = []

    class Listening:
        async def GetRun(self, request: Any, context: Any) -> None:
            seen.append(dict(context.invocation_metadata())["authorization"])
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown")

    caplog.set_level(logging.DEBUG)
    client = await serve(Listening(), token=secret)
    with pytest.raises(FermataError) as caught:
        await client.runs.get("r1")
    assert seen == [f"Bearer {secret}"]
    told = "".join(traceback.format_exception(caught.value)) + repr(client) + repr(client.connection)
    assert secret not in told + repr(caught.value.__dict__) + caplog.text


async def test_a_call_that_is_cancelled_here_stays_cancelled(serve: Any) -> None:
    started = asyncio.Event()

    class Slow:
        async def GetRun(self, request: Any, context: Any) -> None:
            started.set()
            await asyncio.Event().wait()

    client = await serve(Slow())
    call = asyncio.create_task(client.runs.get("r1"))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_pages_are_followed_up_to_the_limit(serve: Any) -> None:
    sizes: list[int] = []

    class Paged:
        async def ListRuns(self, request: Any, context: Any) -> Any:
            sizes.append(request.page_size)
            start = int(request.page_token or 0)
            runs = [run_pb2.Run(name=f"r{index}") for index in range(start, min(start + 3, 8))]
            return run_pb2.ListRunsResponse(
                runs=runs, next_page_token=str(start + 3) if start + 3 < 8 else ""
            )

    client = await serve(Paged())
    assert [run.name for run in await client.runs.list(limit=None)] == [f"r{index}" for index in range(8)]
    sizes.clear()
    assert len(await client.runs.list(limit=5)) >= 5
    assert sizes == [5, 2]


async def test_a_closed_client_says_so(serve: Any) -> None:
    client = await serve(Flaky(0))
    await client.close()
    with pytest.raises(LocalError) as caught:
        await client.runs.get("r1")
    assert caught.value.reason == "CLIENT_CLOSED"


async def test_nothing_listens(unused_tcp_port: Any) -> None:
    from fermata.client import Client

    connection = Connection(f"127.0.0.1:{unused_tcp_port}")
    async with Client(connection, retry=RetryPolicy(attempts=2, initial_seconds=0.001)) as client:
        with pytest.raises(UnavailableError):
            await client.runs.get("r1")


async def test_the_sync_client_does_the_same_from_plain_code(serve: Any) -> None:
    server = Flaky(1)
    client = await serve(server)

    def plain() -> str:
        with SyncClient(client.connection, retry=RetryPolicy(initial_seconds=0.001)) as sync:
            assert "SyncClient" in repr(sync)
            return sync.runs.create("operator", "hello").name

    assert await asyncio.to_thread(plain) == RUN
    assert len({request.request_id for request in server.requests}) == 1


def test_a_sync_client_closes_twice() -> None:
    client = SyncClient(Connection("127.0.0.1:1"))
    client.close()
    client.close()
    with pytest.raises(LocalError) as caught:
        client.runs.get("r1")
    assert caught.value.reason == "CLIENT_CLOSED"


@pytest.mark.parametrize(("request_", "method", "safe"), [
    (run_pb2.CreateRunRequest(), "CreateRun", True),
    (run_pb2.GetRunRequest(), "GetRun", True),
    (agent_pb2.DeleteAgentRequest(), "DeleteAgent", False),
    (principal_pb2.RotateTokenRequest(), "RotateToken", False),
    (principal_pb2.UpdatePrincipalRequest(), "UpdatePrincipal", True),
])  # fmt: skip
def test_what_may_be_repeated(request_: Any, method: Any, safe: Any) -> None:
    assert prepare(method, request_) is safe


def test_backoff_grows_to_its_bound_and_is_spread() -> None:
    policy = RetryPolicy(initial_seconds=0.1, max_seconds=5)
    assert policy.wait_seconds(1, lambda: 0.0) == 0.05
    assert policy.wait_seconds(1, lambda: 1.0) == 0.1
    assert policy.wait_seconds(100_000, lambda: 1.0) == 5
    limited = ResourceExhaustedError("x", retry_after_seconds=9)
    assert policy.wait_after(limited, 1, lambda: 1.0) == 9


def test_errors_can_be_copied() -> None:
    failure = NotFoundError("gone", reason="RUN_NOT_FOUND", metadata={"run": "r1"})
    assert copy.copy(failure).reason == "RUN_NOT_FOUND"
    assert pickle.loads(pickle.dumps(failure)).metadata == {"run": "r1"}
