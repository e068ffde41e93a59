"""CreateRun: what is committed, and what refuses it."""

from __future__ import annotations

from typing import Any

import pytest

from fermata.server.errors import DomainError
from fermata.server.lifecycle.start import MAX_INPUT_BYTES, NewRun, create_run


def _thread(world: Any, run: str) -> str:
    return str(world.run(run).thread.rsplit("/", 1)[1])


def test_a_run_waits_where_no_worker_has_room(world: Any) -> None:
    world.agent()
    run = world.create()
    assert (world.state(run), world.events(run)) == ("QUEUED", ["CREATED"])
    assert world.claim() == 0


def test_a_run_is_leased_in_the_commit_that_makes_it_where_a_worker_has_room(world: Any) -> None:
    world.agent()
    run = world.started()
    assert world.events(run) == ["CREATED", "LEASED"]
    assert world.run(run).epoch == 1
    assert world.told() == ["assign"]


def test_a_thread_has_one_run_at_a_time(world: Any) -> None:
    world.agent()
    run = world.started()
    thread = _thread(world, run)
    with pytest.raises(DomainError) as refused:
        world.create(thread=thread)
    assert (refused.value.reason, refused.value.metadata["run"]) == ("THREAD_BUSY", world.run(run).name)
    world.finish(run)
    assert world.state(world.create(thread=thread)) == "QUEUED"


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"agent": "none"}, "AGENT_NOT_FOUND"), ({"thread": "none"}, "THREAD_NOT_FOUND")],
)
def test_what_is_not_there_is_named(world: Any, values: dict[str, str], reason: str) -> None:
    world.agent()
    with pytest.raises(DomainError) as refused:
        world.create(**values)
    assert refused.value.reason == reason


def test_an_input_is_bounded(world: Any) -> None:
    world.agent()
    wanted = NewRun("default", "operator", "", "x" * (MAX_INPUT_BYTES + 1), "ann", "")
    with pytest.raises(DomainError) as refused:
        world.tx(lambda tx: create_run(tx, world.leases, wanted))
    assert refused.value.reason == "INPUT_TOO_LARGE"


@pytest.mark.parametrize(("scope", "target"), [("tenant", ""), ("agent", "operator")])
def test_a_halt_refuses_new_runs_until_it_is_lifted(world: Any, scope: str, target: str) -> None:
    world.agent()
    latch = world.latch("HALT", scope, target, reason="smoke")
    with pytest.raises(DomainError) as refused:
        world.create()
    assert refused.value.reason == "HALTED"
    assert refused.value.metadata["latch"].endswith(latch)
    assert "smoke" in refused.value.message
    world.release(latch)
    assert world.state(world.create()) == "QUEUED"


def test_a_refused_run_leaves_its_thread_free(world: Any) -> None:
    world.agent()
    first = world.started()
    thread = _thread(world, first)
    world.finish(first)
    latch = world.latch("HALT", "thread", thread)
    with pytest.raises(DomainError):
        world.create(thread=thread)
    world.release(latch)
    assert world.state(world.create(thread=thread)) == "QUEUED"


def test_a_hold_keeps_new_runs_waiting_until_it_is_released(world: Any) -> None:
    world.agent()
    latch = world.latch("HOLD", "agent", "operator")
    world.room.worker = "w1"
    run = world.create()
    assert world.state(run) == "QUEUED"
    assert world.claim() == 0
    world.release(latch)
    assert world.work_available
    assert world.claim() == 1
    assert world.state(run) == "RUNNING"


def test_runs_that_a_hold_covers_do_not_keep_others_from_being_leased(world: Any) -> None:
    world.agent("held")
    world.agent("free")
    world.latch("HOLD", "agent", "held")
    for _ in range(100):
        world.create("held")
    free = world.create("free")
    world.room.worker = "w1"
    assert world.claim() == 1
    assert world.state(free) == "RUNNING"


def test_runs_are_leased_oldest_first_as_long_as_there_is_room(world: Any) -> None:
    world.agent()
    runs = [world.create() for _ in range(4)]
    world.room.worker, world.room.left = "w1", 3
    assert world.claim() == 3
    assert [world.state(run) for run in runs] == ["RUNNING"] * 3 + ["QUEUED"]


def test_a_run_that_could_not_be_written_takes_no_room(world: Any) -> None:
    world.agent()
    world.room.worker, world.room.left = "w1", 1
    wanted = NewRun("default", "operator", "", "{}", "ann", "")

    def fails_after_the_grant(transaction: Any) -> None:
        create_run(transaction, world.leases, wanted)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        world.tx(fails_after_the_grant)
    assert world.room.left == 1
    assert world.state(world.create()) == "RUNNING"
