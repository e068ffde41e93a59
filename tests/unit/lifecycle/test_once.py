"""A repeated request_id: the same answer, and the work done once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from fermata.server.errors import DomainError, invalid
from fermata.server.principals.callers import Caller
from fermata.server.rpc.once import KEPT_SECONDS, once, recall, sweep_requests
from fermata.server.store import schema
from fermata.v1 import principal_pb2, thread_pb2

ANN = Caller("default", "tenants/default/principals/ann", principal_pb2.PRINCIPAL_KIND_USER, ())


class Work:
    """Makes threads, and counts them."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self) -> thread_pb2.Thread:
        self.done += 1
        return thread_pb2.Thread(name=f"thread {self.done}")


def _once(world: Any, work: Any, request_id: str, method: str = "CreateThread", parent: str = "p") -> str:
    request = thread_pb2.CreateThreadRequest(parent=parent, request_id=request_id)
    return str(world.tx(lambda tx: once(tx, ANN, method, request, work, thread_pb2.Thread)).name)


def test_a_repeat_gets_the_first_answer_and_does_nothing(world: Any) -> None:
    work = Work()
    assert [_once(world, work, "r1") for _ in range(3)] == ["thread 1"] * 3
    assert work.done == 1


def test_without_a_request_id_each_call_does_its_work(world: Any) -> None:
    work = Work()
    assert [_once(world, work, "") for _ in range(2)] == ["thread 1", "thread 2"]


@pytest.mark.parametrize("other", [{"parent": "q"}, {"method": "CreateRun"}])
def test_another_call_with_the_same_id_is_refused(world: Any, other: dict[str, str]) -> None:
    work = Work()
    _once(world, work, "r1")
    with pytest.raises(DomainError) as refused:
        _once(world, work, "r1", **other)
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert work.done == 1


def test_a_call_that_failed_may_be_repeated(world: Any) -> None:
    def fail() -> thread_pb2.Thread:
        raise invalid("no")

    with pytest.raises(DomainError):
        _once(world, fail, "r1")
    assert _once(world, Work(), "r1") == "thread 1"


class Sweeping:
    """A control plane for one look: its second write is the end of it."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._wrote = False

    async def write(self, operation: Any) -> None:
        if self._wrote:
            raise asyncio.CancelledError
        self._wrote = True
        self._world.tx(operation)


async def test_an_answer_is_forgotten_when_it_is_too_old_to_be_asked_for(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fermata.server.rpc.once.SWEEP_SECONDS", 0.0)
    _once(world, Work(), "old")
    world.now += KEPT_SECONDS / 2
    _once(world, Work(), "new")
    world.now += KEPT_SECONDS / 2 + 1
    sweeping: Any = Sweeping(world)
    with pytest.raises(asyncio.CancelledError):
        await sweep_requests(sweeping)
    kept = world.tx(lambda tx: tx.execute(select(schema.requests.c.request)).scalars().all())
    assert kept == ["new"]


def test_an_answer_can_be_asked_for_without_work(world: Any) -> None:
    request = thread_pb2.CreateThreadRequest(parent="p", request_id="r1")
    ask = lambda tx: recall(tx, ANN, "CreateThread", request, thread_pb2.Thread)  # noqa: E731
    assert world.tx(ask) is None
    _once(world, Work(), "r1")
    assert world.tx(ask).name == "thread 1"
