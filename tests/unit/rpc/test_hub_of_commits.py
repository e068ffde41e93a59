"""Waiting for a commit: none is slept over, also where the look before it takes a while."""

from __future__ import annotations

from fermata.server.live.hub import Hub


async def test_a_commit_during_a_look_is_not_slept_over() -> None:
    hub = Hub(start=0)
    commit = hub.next_commit()
    hub.wake()
    assert await hub.wait(0.0, commit)


async def test_without_a_commit_a_wait_ends_with_its_time() -> None:
    assert not await Hub(start=0).wait(0.0)


async def test_a_wait_is_for_the_next_commit_and_not_for_the_last() -> None:
    hub = Hub(start=0)
    hub.wake()
    assert not await hub.wait(0.0, hub.next_commit())
