"""Who is leased next: turns between tenants, priorities, limits; and how much may wait."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, select

from fermata.server.agents import operations as agents
from fermata.server.errors import DomainError
from fermata.server.lifecycle.deadlines import expire_due, next_due
from fermata.server.lifecycle.leases import Leases
from fermata.server.lifecycle.schedule import Limits, Schedule
from fermata.server.lifecycle.start import NewRun, create_run
from fermata.server.live.workers import ConnectedWorker, Workers
from fermata.server.policy.book import PolicyBook
from fermata.server.store import schema
from fermata.v1 import agent_pb2, approval_pb2, run_pb2

OTHER = "other"


def _limit(world: Any, **values: int) -> None:
    world.leases = Leases(
        world.revisions, PolicyBook(), world.room, Schedule(world.revisions, Limits(**values))
    )


def _want(world: Any, tenant: str = "default", agent: str = "operator", **values: Any) -> str:
    wanted = NewRun(tenant, agent, "", "{}", "ann", "", **values)
    return str(world.tx(lambda tx: create_run(tx, world.leases, wanted)))


def _apply(world: Any, tenant: str, agent: str = "operator", concurrent_runs: int = 0) -> None:
    spec = agent_pb2.AgentSpec(
        graph=f"graphs:{agent}", limits=agent_pb2.RunLimits(concurrent_runs=concurrent_runs)
    )
    world.tx(lambda tx: agents.apply(tx, tenant, agent, spec, agent_pb2.GraphReport(), "somebody"))


def _leased(world: Any, room: int) -> list[str]:
    """Ids of the runs that are leased where there is so much room, in order."""
    world.room.worker, world.room.left = "w1", room
    world.room.granted.clear()
    world.claim()
    return [name.rsplit("/", 1)[1] for name in world.room.granted]


def test_runs_with_a_greater_priority_go_first_and_equal_ones_in_order(world: Any) -> None:
    world.agent()
    low, first, second, high = (
        _want(world, priority=-1), _want(world), _want(world), _want(world, priority=5)
    )  # fmt: skip
    assert _leased(world, 10) == [high, first, second, low]


def test_tenants_take_turns_however_much_one_of_them_wants(world: Any) -> None:
    world.agent()
    _apply(world, OTHER)
    mine = [_want(world) for _ in range(6)]
    theirs = [_want(world, OTHER, priority=-5) for _ in range(2)]
    assert _leased(world, 5) == [mine[0], theirs[0], mine[1], theirs[1], mine[2]]


def test_turns_go_on_from_the_tenant_that_had_the_last_one(world: Any) -> None:
    world.agent()
    _apply(world, OTHER)
    mine = [_want(world) for _ in range(3)]
    theirs = [_want(world, OTHER) for _ in range(3)]
    assert _leased(world, 1) == [mine[0]]
    assert _leased(world, 1) == [theirs[0]]
    assert _leased(world, 1) == [mine[1]]


def test_what_has_lost_its_lease_goes_before_what_never_had_one(world: Any) -> None:
    world.agent()
    begun = world.started()
    waiting = _want(world, priority=100)
    world.lose("w1", dead=True)
    assert _leased(world, 2) == [begun, waiting]


def test_a_new_run_overtakes_nobody(world: Any) -> None:
    world.agent()
    waiting = _want(world)
    world.room.worker, world.room.left = "w1", 1
    new = _want(world)
    assert (world.state(new), world.work_available) == ("QUEUED", True)
    assert _leased(world, 1) == [waiting]


def test_an_agents_limit_keeps_its_runs_back_and_nobody_elses(world: Any) -> None:
    _apply(world, "default", "narrow", concurrent_runs=1)
    world.agent()
    narrow = [_want(world, agent="narrow") for _ in range(3)]
    wide = [_want(world) for _ in range(2)]
    assert _leased(world, 10) == [narrow[0], *wide]
    assert world.state(narrow[1]) == "QUEUED"
    world.finish(narrow[0])
    assert _leased(world, 10) == [narrow[1]]


def test_a_tenants_limit_keeps_its_runs_back_and_nobody_elses(world: Any) -> None:
    world.agent()
    _apply(world, OTHER)
    _limit(world, running_runs_per_tenant=2)
    mine = [_want(world) for _ in range(3)]
    theirs = [_want(world, OTHER)]
    assert _leased(world, 10) == [mine[0], theirs[0], mine[1]]
    world.finish(mine[0])
    assert _leased(world, 10) == [mine[2]]


def test_a_run_that_is_made_beyond_a_limit_waits_also_where_there_is_room(world: Any) -> None:
    _apply(world, "default", concurrent_runs=1)
    world.room.worker, world.room.left = "w1", 5
    assert [world.state(_want(world)) for _ in range(2)] == ["RUNNING", "QUEUED"]


def test_what_waits_for_people_does_not_count(world: Any) -> None:
    _apply(world, "default", concurrent_runs=1)
    run = world.started()
    world.interrupted(run, "i", "which?")
    assert _leased(world, 5) == []
    assert world.state(_want(world)) == "RUNNING"


def test_a_full_queue_refuses_and_says_that_later_is_better(world: Any) -> None:
    world.agent()
    _apply(world, OTHER)
    _limit(world, queued_runs_per_tenant=2, queued_runs=3)
    for _ in range(2):
        _want(world)
    with pytest.raises(DomainError) as mine:
        _want(world)
    assert (mine.value.reason, mine.value.retryable, mine.value.metadata) == (
        "QUEUE_FULL",
        True,
        {"limit": "2"},
    )
    _want(world, OTHER)
    with pytest.raises(DomainError) as all_of_us:
        _want(world, OTHER)
    assert all_of_us.value.metadata == {"limit": "3"}
    assert len(world.tx(lambda tx: tx.execute(select(schema.runs)).fetchall())) == 3


def test_a_full_queue_does_not_refuse_what_need_not_wait(world: Any) -> None:
    world.agent()
    _limit(world, queued_runs=0, queued_runs_per_tenant=1)
    world.room.worker, world.room.left = "w1", 3
    assert [world.state(_want(world)) for _ in range(3)] == ["RUNNING"] * 3


def test_the_claim_at_the_head_of_ten_thousand_runs_looks_at_as_much_as_at_the_head_of_two(
    world: Any,
) -> None:
    world.agent()
    _apply(world, OTHER)
    for tenant in ("default", OTHER, "default", OTHER):
        _want(world, tenant)
    _looked_at(world)
    few = _looked_at(world)
    row = dict(world.tx(lambda tx: tx.execute(select(schema.runs).limit(1)).mappings().one()))
    del row["n"]
    many = [
        {**row, "id": f"r{number}", "state": run_pb2.RUN_STATE_QUEUED, "worker": ""}
        for number in range(10_000)
    ]
    world.tx(lambda tx: tx.execute(schema.runs.insert(), many))
    assert _looked_at(world) <= few
    plan = world.tx(
        lambda tx: tx.connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT id FROM runs WHERE state = 1 AND worker = '' AND in_line = 0 AND tenant = 'default' "
            "ORDER BY rank, n LIMIT 64"
        ).fetchall()
    )
    assert [row.detail for row in plan] == [
        "SEARCH runs USING INDEX runs_to_lease (state=? AND worker=? AND in_line=? AND tenant=?)"
    ]


def _looked_at(world: Any) -> int:
    """How many statements a claim takes that finds room for two."""
    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(world._connection.engine, "before_cursor_execute", note)
    try:
        assert len(_leased(world, 2)) == 2
    finally:
        event.remove(world._connection.engine, "before_cursor_execute", note)
    return len(statements)


def test_the_less_busy_worker_is_chosen_and_of_equals_the_one_that_has_the_revision_warm() -> None:
    workers = Workers()
    for name, runs, warm in (("a", {"r1"}, {"rev"}), ("b", set(), set()), ("c", set(), {"rev"})):
        worker = ConnectedWorker(name, "here", 1, 2, 0.0)
        worker.runs, worker.warm = set(runs), set(warm)
        workers.add(worker)
    assert workers.choose("rev") == "c"
    workers.taken("c", "r2")
    assert workers.choose("rev") == "b"
    workers.taken("b", "r3")
    assert workers.choose("rev") in ("a", "c")


# Deadlines


def _expire(world: Any) -> int:
    return int(world.tx(expire_due))


def test_a_queued_run_whose_deadline_passes_is_never_leased(world: Any) -> None:
    world.agent()
    run = _want(world, deadline=world.now + 10)
    assert world.tx(next_due) == world.now + 10
    assert _expire(world) == 0
    world.now += 10
    assert _expire(world) == 1
    assert (world.state(run), world.events(run)[-1]) == ("EXPIRED", "EXPIRED")
    assert _leased(world, 5) == []
    assert world.tx(next_due) is None


def test_a_run_at_work_is_stopped_and_expires_when_it_has_stopped(world: Any) -> None:
    world.agent()
    world.policy("version: 1\nrules:\n  - {id: all, decide: ALLOW}\n")
    world.room.worker, world.room.left = "w1", 1
    run = _want(world, deadline=world.now + 10)
    world.gate(run, nonce="n")
    world.told()
    world.now += 11
    assert _expire(world) == 1
    assert (world.state(run), world.told()) == ("HALTING", ["HALT"])
    assert _expire(world) == 0
    world.stop_report(run, killed=True)
    assert world.state(run) == "EXPIRED"
    (asked,) = world.pending(run)
    assert world.approval(asked).kind == approval_pb2.APPROVAL_KIND_RECOVERY


@pytest.mark.parametrize("held", [False, True])
def test_a_run_that_waits_expires_and_its_questions_with_it(world: Any, held: bool) -> None:
    world.agent()
    world.room.worker, world.room.left = "w1", 1
    run = _want(world, deadline=world.now + 10)
    world.gate(run)
    world.park(run, "s1")
    if held:
        world.latch("HOLD", "run", run)
    world.now += 11
    _expire(world)
    assert (world.state(run), world.pending(run)) == ("EXPIRED", [])


def test_of_a_halt_and_a_deadline_the_one_that_came_first_says_how_a_run_ends(world: Any) -> None:
    world.agent()
    world.room.worker, world.room.left = "w1", 1
    run = _want(world, deadline=world.now + 10)
    latch = world.latch("HALT", "run", run)
    world.now += 11
    _expire(world)
    world.stop_report(run)
    assert (world.state(run), world.latch_state(latch)) == ("HALTED", "SETTLED")


def test_a_run_that_ends_in_time_is_not_due_any_more(world: Any) -> None:
    world.agent()
    world.room.worker, world.room.left = "w1", 1
    run = _want(world, deadline=world.now + 10)
    world.finish(run)
    world.now += 11
    assert (world.tx(next_due), _expire(world), world.state(run)) == (None, 0, "SUCCEEDED")


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"deadline": 1.0}, "DEADLINE_PASSED"), ({"priority": 101}, "PRIORITY_OUT_OF_RANGE")],
)
def test_what_can_not_be_is_refused(world: Any, values: dict[str, Any], reason: str) -> None:
    world.agent()
    with pytest.raises(DomainError) as refused:
        _want(world, **values)
    assert refused.value.reason == reason
