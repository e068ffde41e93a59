"""Who may call what: every RPC that there is, for every role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from fermata.server.principals.rights import RIGHTS, WORKER_METHODS, may_call
from fermata.v1 import (
    agent_pb2,
    approval_pb2,
    collection_pb2,
    latch_pb2,
    model_pb2,
    policy_pb2,
    principal_pb2,
    run_pb2,
    surface_pb2,
    thread_pb2,
    worker_pb2,
)

_MODULES = (
    agent_pb2,
    approval_pb2,
    collection_pb2,
    latch_pb2,
    model_pb2,
    policy_pb2,
    principal_pb2,
    run_pb2,
    surface_pb2,
    thread_pb2,
    worker_pb2,
)
METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}.{method.name}": method
    for module in _MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
USER = principal_pb2.PRINCIPAL_KIND_USER
WORKER = principal_pb2.PRINCIPAL_KIND_WORKER


def test_the_table_knows_every_method_and_no_other() -> None:
    assert set(RIGHTS) | WORKER_METHODS == set(METHODS)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_admin_may_call_all_but_what_is_the_workers(method: str) -> None:
    assert may_call(method, USER, [principal_pb2.ROLE_ADMIN]) == (method in RIGHTS)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_worker_may_call_its_own_service_only_whatever_roles_it_has(method: str) -> None:
    assert may_call(method, WORKER, [principal_pb2.ROLE_ADMIN]) == method.startswith("WorkerService.")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_without_a_role_nothing_may_be_called(method: str) -> None:
    assert not may_call(method, USER, [])


def test_a_viewer_may_change_nothing_but_which_accounts_are_theirs() -> None:
    may = {method for method in METHODS if may_call(method, USER, [principal_pb2.ROLE_VIEWER])}
    verbs = ("Get", "List", "Watch", "Search", "Test", "Embed")
    changing = {method for method in may if not method.split(".")[1].startswith(verbs)}
    assert changing == {"SurfaceService.RedeemLinkCode"}


def _request(method: MethodDescriptor) -> Any:
    return message_factory.GetMessageClass(method.input_type)()


async def _silence() -> AsyncIterator[Any]:
    """A stream of requests in which none ever comes."""
    await asyncio.Event().wait()
    yield


async def _code(caller: Any, method: str, refused: bool = False) -> tuple[str, str]:
    """Status and message of a call with an empty request; a stream is read once.

    Where the call should be `refused`, a stream sends nothing: grpc's client reports INTERNAL ("Internal error from
    Core") in place of the status that it got when that arrives while a request is being written.
    """
    descriptor = METHODS[method]
    service, name = method.split(".")
    start = getattr(caller.stub(service), name)
    request = _request(descriptor)
    try:
        if descriptor.server_streaming:
            requests = request
            if descriptor.client_streaming:
                requests = _silence() if refused else iter([request])
            call = start(requests, metadata=caller.metadata, timeout=5)
            await call.read()
        else:
            await start(request, metadata=caller.metadata, timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


async def test_no_method_answers_a_caller_without_a_token_or_with_a_wrong_one(admin: Any) -> None:
    for token in ("", "fmt_wrong"):
        caller = type(admin)(admin._channel, token)
        for method in METHODS:
            assert (await _code(caller, method, refused=True))[0] == "UNAUTHENTICATED", method


async def test_no_method_answers_a_caller_without_the_right(make: Any) -> None:
    nobody = await make("nobody")
    for method in METHODS:
        assert (await _code(nobody, method, refused=True))[0] == "PERMISSION_DENIED", method


async def test_every_method_is_served_and_an_empty_request_never_makes_it_fail(
    admin: Any, worker_caller: Any
) -> None:
    for method in METHODS:
        if method == "WorkerService.ReportWorkerDeath":
            continue  # an empty worker id is nobody's
        caller = worker_caller if method in WORKER_METHODS else admin
        code, details = await _code(caller, method)
        assert code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"), (method, code, details)
