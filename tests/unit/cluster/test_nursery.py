"""Which host a run gets, and how long zygotes are kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fermata.server.cluster.hosts import GraphNotLoadedError, HostProcess, ZygoteGoneError
from fermata.server.cluster.nursery import MAX_IDLE_ZYGOTES, HostNursery
from fermata.server.cluster.testing import FakeZygotes
from fermata.v1.agent_pb2 import AgentSpec


class Nest:
    """A nursery, and the hosts that were forked."""

    def __init__(self) -> None:
        self.zygotes = FakeZygotes()
        self.forked: list[HostProcess] = []
        self.nursery = HostNursery(self.zygotes, self.unpack, self.forked.append)

    async def unpack(self, digest: str) -> Path:
        return Path("/packs") / digest


@pytest.fixture
def nest() -> Nest:
    return Nest()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def spec(number: int = 0) -> AgentSpec:
    return AgentSpec(graph=f"module{number}:graph")


async def test_runs_that_may_share_get_one_host(nest: Nest) -> None:
    first, second = await asyncio.gather(*(nest.nursery.host(spec(), shared=True) for _ in range(2)))
    assert first is second
    assert len(nest.zygotes.started) == 1


async def test_a_shared_host_that_ended_is_replaced(nest: Nest) -> None:
    first = await nest.nursery.host(spec(), shared=True)
    nest.nursery.gone(first)
    assert await nest.nursery.host(spec(), shared=True) is not first


async def test_runs_that_may_not_share_get_one_each_and_the_next_is_forked_already(nest: Nest) -> None:
    first = await nest.nursery.host(spec(), shared=False)
    await settle()
    assert len(nest.forked) == 2
    second = await nest.nursery.host(spec(), shared=False)
    assert second is nest.forked[1]
    assert second is not first


async def test_a_spare_that_died_is_not_given_out(nest: Nest) -> None:
    await nest.nursery.host(spec(), shared=False)
    await settle()
    nest.nursery.gone(nest.forked[1])
    assert await nest.nursery.host(spec(), shared=False) is nest.forked[2]


async def test_the_pack_is_unzipped_before_the_zygote_starts(nest: Nest) -> None:
    await nest.nursery.host(AgentSpec(graph="a:b", pack_digest="d1"), shared=True)
    assert nest.zygotes.started[0][1] == Path("/packs/d1")


async def test_only_the_zygotes_used_last_are_kept_without_runs(nest: Nest) -> None:
    for number in range(MAX_IDLE_ZYGOTES + 2):
        nest.nursery.gone(await nest.nursery.host(spec(number), shared=True))
    await settle()
    assert nest.zygotes.closed == 2
    await nest.nursery.host(spec(MAX_IDLE_ZYGOTES + 1), shared=True)
    assert len(nest.zygotes.started) == MAX_IDLE_ZYGOTES + 2


async def test_a_zygote_with_runs_is_never_closed(nest: Nest) -> None:
    for number in range(MAX_IDLE_ZYGOTES + 3):
        await nest.nursery.host(spec(number), shared=True)
    await settle()
    assert nest.zygotes.closed == 0


async def test_a_zygote_that_ended_is_started_once_more(nest: Nest) -> None:
    host = await nest.nursery.host(spec(), shared=True)
    nest.nursery.gone(host)
    nest.zygotes.gone_once = True
    assert await nest.nursery.host(spec(), shared=True) is not host
    assert len(nest.zygotes.started) == 2


async def test_a_graph_that_cannot_be_loaded_is_tried_again_by_the_next_run(nest: Nest) -> None:
    nest.zygotes.error = GraphNotLoadedError("GRAPH_INVALID", "no such module")
    with pytest.raises(GraphNotLoadedError):
        await nest.nursery.host(spec(), shared=True)
    nest.zygotes.error = None
    await nest.nursery.host(spec(), shared=True)


async def test_a_zygote_that_cannot_even_start_is_an_error_after_the_second_time(nest: Nest) -> None:
    nest.zygotes.error = ZygoteGoneError("out of memory")
    with pytest.raises(ZygoteGoneError):
        await nest.nursery.host(spec(), shared=True)
    assert len(nest.zygotes.started) == 2


async def test_closing_ends_every_zygote(nest: Nest) -> None:
    for number in range(2):
        await nest.nursery.host(spec(number), shared=True)
    await nest.nursery.close()
    assert nest.zygotes.closed == 2
