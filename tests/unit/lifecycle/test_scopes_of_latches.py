"""What a latch reaches: families of runs, revisions, everything; many runs in one write; and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event as sql_event
from sqlalchemy import select

from fermata.server.errors import DomainError
from fermata.server.lifecycle import expiry, latching, releasing
from fermata.server.lifecycle.leases import bury_host
from fermata.server.store import schema
from fermata.v1 import latch_pb2, worker_pb2

PROCEED = worker_pb2.GATE_VERDICT_PROCEED
ASK = worker_pb2.GATE_VERDICT_ASK
STOP = worker_pb2.GATE_VERDICT_STOP
ALLOW = "version: 1\nrules:\n  - {id: all, decide: ALLOW}\n"
DAYS = 24 * 3600.0


@pytest.fixture
def family(world: Any) -> tuple[str, str, str]:
    """A run at work, one that it was made for, and one that was made for that."""
    world.agent()
    world.policy(ALLOW)
    eldest = world.started()
    child = world.started(parent=eldest)
    grandchild = world.started(parent=child)
    world.told()
    return eldest, child, grandchild


def status(latch: latch_pb2.Latch) -> list[str]:
    return [
        latch_pb2.LatchStepStatus.Name(step.status).removeprefix("LATCH_STEP_STATUS_") for step in latch.steps
    ]


def test_a_latch_on_a_family_covers_every_descendant_from_its_commit(
    world: Any, family: tuple[str, str, str]
) -> None:
    eldest, child, grandchild = family
    world.latch("HOLD", "run_tree", child)
    assert world.gate(eldest, step="s1").verdict == PROCEED
    assert world.gate(child, step="s2").verdict == STOP
    assert world.gate(grandchild, step="s3").verdict == STOP


def test_a_latch_on_a_run_does_not_cover_its_children(world: Any, family: tuple[str, str, str]) -> None:
    eldest, child, _ = family
    world.latch("HOLD", "run", eldest)
    assert world.gate(child).verdict == PROCEED


def test_what_is_made_for_a_halted_family_is_refused_and_for_a_held_one_waits(
    world: Any, family: tuple[str, str, str]
) -> None:
    eldest, child, _ = family
    hold = world.latch("HOLD", "run_tree", eldest)
    world.room.worker = "w1"
    late = world.create(parent=child)
    assert (world.state(late), world.claim()) == ("QUEUED", 0)
    world.release(hold)
    assert world.claim() == 1
    world.latch("HALT", "run_tree", eldest)
    with pytest.raises(DomainError) as refused:
        world.create(parent=child)
    assert refused.value.reason == "PARENT_RUN_ENDED"


def test_nothing_is_made_for_a_run_that_has_ended(world: Any, family: tuple[str, str, str]) -> None:
    world.finish(family[2])
    with pytest.raises(DomainError) as refused:
        world.create(parent=family[2])
    assert refused.value.reason == "PARENT_RUN_ENDED"


def test_children_are_halted_before_the_run_that_they_were_made_for(
    world: Any, family: tuple[str, str, str]
) -> None:
    eldest, child, grandchild = family
    latch = world.latch("HALT", "run_tree", eldest)
    world.stop_report(eldest)
    world.stop_report(child)
    assert [world.state(run) for run in family] == ["HALTING"] * 3
    world.stop_report(grandchild)
    assert [world.state(run) for run in family] == ["HALTED"] * 3
    ended = [event.run.rsplit("/", 1)[1] for event in world.published if event.type == 16]
    assert ended == [grandchild, child, eldest]
    assert world.latch_state(latch) == "SETTLED"


def test_a_latch_on_a_revision_leaves_the_agents_others_alone(world: Any) -> None:
    world.agent()
    world.policy(ALLOW)
    old = world.started()
    revision = world.run(old).revision.rsplit("/", 1)[1]
    world.agent(policy=ALLOW)
    new = world.started()
    world.latch("HOLD", "revision", f"operator/{revision}")
    assert world.gate(old).verdict == STOP
    assert world.gate(new).verdict == PROCEED


def test_an_unknown_revision_is_not_latched(world: Any) -> None:
    world.agent()
    with pytest.raises(DomainError) as refused:
        world.latch("HOLD", "revision", "operator/none")
    assert refused.value.reason == "REVISION_NOT_FOUND"


def test_a_latch_on_everything_covers_other_tenants(world: Any) -> None:
    world.agent()
    run = world.started()
    wanted = latching.NewLatch(latch_pb2.LATCH_KIND_HOLD, "everything", "*", "", "root")
    latch = world.tx(lambda tx: latching.set_latch(tx, "another", wanted))
    stopped = world.gate(run)
    assert (stopped.verdict, stopped.latch) == (STOP, f"tenants/another/latches/{latch}")
    world.park(run, latch=stopped.latch)
    assert world.state(run) == "HELD"
    world.tx(lambda tx: releasing.release(tx, "another", latch, "root"))
    assert world.state(run) == "RUNNING"


def test_one_latch_over_a_thousand_runs_is_one_write_and_its_report_fills_in(world: Any) -> None:
    world.agent()
    world.policy(ALLOW)
    world.room.worker, world.room.left = "w1", 3
    runs = [world.create() for _ in range(1000)]
    assert world.gate(runs[0]).verdict == PROCEED
    statements: list[str] = []
    sql_event.listen(
        world.engine, "before_cursor_execute", lambda *facts: statements.append(facts[2]), named=False
    )
    latch = world.latch("HALT", "agent", "operator")
    # However many runs there are, no more of them than a few are moved in the commit that latches.
    assert len(statements) < 10 + 12 * latching.STOPPED_AT_ONCE
    message = world.latch_message(latch)
    assert (len(message.runs), status(message), world.latch_state(latch)) == (1000, ["OPEN"], "LATCHED")
    assert message.stopped_runs < 100
    assert all(world.gate(run, step="s2").verdict == STOP for run in runs[:3])
    assert world.stop_the_rest() >= 1000 / latching.STOPPED_AT_ONCE - 2
    for run in runs[:3]:
        world.stop_report(run)
    assert (world.latch_state(latch), world.latch_message(latch).stopped_runs) == ("SETTLED", 1000)
    assert {world.state(run) for run in runs} == {"HALTED"}


def test_a_run_that_comes_to_its_gate_before_a_halt_has_come_to_it_is_halted_all_the_same(world: Any) -> None:
    world.agent()
    world.policy(ALLOW)
    world.room.worker, world.room.left = "w1", 40
    runs = [world.create() for _ in range(40)]
    latch = world.latch("HALT", "tenant")
    last = runs[-1]
    assert world.state(last) == "RUNNING"
    stopped = world.gate(last)
    world.park(last, latch=stopped.latch)
    assert world.state(last) == "HELD"
    world.stop_the_rest()
    assert world.state(last) == "HALTED"
    for run in runs[:-1]:
        world.stop_report(run)
    assert world.latch_state(latch) == "SETTLED"


def test_a_latch_that_is_lifted_before_it_has_come_to_all_runs_leaves_the_rest_alone(world: Any) -> None:
    world.agent()
    world.room.worker, world.room.left = "w1", 40
    runs = [world.create() for _ in range(40)]
    latch = world.latch("HALT", "tenant")
    stopped = world.gate(runs[-1])
    world.park(runs[-1], latch=stopped.latch)
    world.release(latch)
    world.stop_the_rest()
    assert [world.state(run) for run in runs[-2:]] == ["RUNNING", "RUNNING"]


def test_an_effect_of_a_run_that_has_ended_is_on_the_list_of_a_later_halt(world: Any) -> None:
    world.agent()
    world.policy(ALLOW)
    run = world.started()
    assert world.gate(run, nonce="n").verdict == PROCEED
    world.lose(dead=False)
    world.room.worker = "w2"
    world.claim()
    world.finish(run, worker="w2")
    assert world.state(run) == "SUCCEEDED"
    latch = world.latch("HALT", "tenant")
    assert (status(world.latch_message(latch)), world.latch_state(latch)) == (["UNREACHABLE"], "LATCHED")
    world.lose("w1", dead=True)
    assert (status(world.latch_message(latch)), world.latch_state(latch)) == (["KILLED"], "SETTLED")


@pytest.mark.parametrize("ending", ["death", "barrier", "report"])
def test_a_persons_word_about_an_effect_settles_nothing_while_its_host_may_still_act(
    world: Any, ending: str
) -> None:
    world.agent()
    world.policy(ALLOW)
    run = world.started()
    assert world.gate(run, nonce="n").verdict == PROCEED
    lease = world.lease(run)
    world.lose(dead=False)
    world.room.worker = "w2"
    world.claim()
    assert world.gate(run, worker="w2").verdict == ASK
    latch = world.latch("HALT", "run", run)
    world.stop_report(run, worker="w2")
    [asked] = world.pending(run)
    world.decide(asked, "GIVE_UP")
    assert (status(world.latch_message(latch)), world.latch_state(latch)) == (["UNREACHABLE"], "LATCHED")
    match ending:
        case "death":
            world.lose("w1", dead=True)
        case "barrier":
            world.tx(lambda tx: bury_host(tx, "w1", lease))
        case "report":
            world.closed(run, "n", epoch=lease.epoch)
    message = world.latch_message(latch)
    assert world.latch_state(latch) == "SETTLED"
    assert status(message) == ["FINISHED" if ending == "report" else "KILLED"]
    assert message.steps[0].outcome == 6, "what the ledger says is the person's word"


def test_a_killed_effect_of_unknown_outcome_is_told_from_one_that_is_known_by_now(world: Any) -> None:
    world.agent()
    world.policy(ALLOW)
    run = world.started()
    world.gate(run, nonce="n")
    latch = world.latch("HALT", "run", run)
    world.stop_report(run, killed=True)
    assert (status(world.latch_message(latch)), world.latch_message(latch).steps[0].outcome) == (
        ["KILLED"],
        4,
    )
    [asked] = world.pending(run)
    world.decide(asked, "IT_HAPPENED")
    assert (status(world.latch_message(latch)), world.latch_message(latch).steps[0].outcome) == (
        ["KILLED"],
        5,
    )


def test_a_hold_of_a_run_whose_worker_is_silent_says_that_its_effect_is_out_of_reach(world: Any) -> None:
    world.agent()
    world.policy(ALLOW)
    run = world.started()
    world.gate(run, nonce="n")
    latch = world.latch("HOLD", "run", run)
    world.lose(dead=False)
    assert (status(world.latch_message(latch)), world.latch_state(latch)) == (["UNREACHABLE"], "LATCHED")
    world.lose("w1", dead=True)
    assert world.latch_state(latch) == "SETTLED"


def test_what_was_approved_before_a_long_hold_is_asked_again_when_that_is_lifted(world: Any) -> None:
    world.agent()
    run = world.started()
    assert world.gate(run).verdict == ASK
    world.park(run, "s1")
    [first] = world.pending(run)
    latch = world.latch("HOLD", "tenant")
    world.decide(first)
    world.now += 3 * DAYS
    world.release(latch)
    assert world.state(run) == "RUNNING"
    asked = world.gate(run)
    assert asked.verdict == ASK
    assert asked.approval.rsplit("/", 1)[1] != first


def test_a_hold_whose_time_is_over_stays_and_says_so_once(world: Any) -> None:
    world.agent()
    run = world.started()
    latch = world.latch("HOLD", "run", run, expires_in=60)
    world.park(run, latch=world.gate(run).latch)
    assert world.tx(expiry.next_due) == world.now + 60
    world.now += 61
    assert world.tx(expiry.expire_due) == 1
    assert world.tx(expiry.expire_due) == 0
    assert (world.state(run), world.events(run)[-1]) == ("HELD", "HOLD_EXPIRED")
    assert world.latch_state(latch) == "SETTLED"


def test_a_hold_that_was_set_with_release_is_lifted_when_its_time_is_over(world: Any) -> None:
    world.agent()
    run = world.started()
    latch = world.latch("HOLD", "run", run, expires_in=60, on_expiry="RELEASE")
    world.park(run, latch=world.gate(run).latch)
    world.now += 59
    assert world.tx(expiry.expire_due) == 0
    world.now += 2
    assert world.tx(expiry.expire_due) == 1
    assert (world.state(run), world.latch_state(latch)) == ("RUNNING", "RELEASED")
    assert world.tx(expiry.next_due) is None


@pytest.mark.parametrize(("kind", "seconds"), [("HALT", 60.0), ("HOLD", -1.0)])
def test_a_halt_has_no_expiry_and_a_holds_lies_ahead(world: Any, kind: str, seconds: float) -> None:
    with pytest.raises(DomainError) as refused:
        world.latch(kind, "tenant", expires_in=seconds)
    assert refused.value.reason == "LATCH_EXPIRY"


def test_gates_find_latches_by_an_index_however_many_were_lifted(world: Any) -> None:
    world.agent()
    run = world.started()
    plans: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "FROM latches" in statement:
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[-1] for row in rows)

    sql_event.listen(world.engine, "before_cursor_execute", explain)
    world.gate(run)
    sql_event.remove(world.engine, "before_cursor_execute", explain)
    assert any("latches_in_force" in plan for plan in plans), plans
    assert world.tx(lambda tx: tx.execute(select(schema.latches)).fetchall()) == []


@pytest.mark.parametrize("ending", ["death", "report"])
def test_the_permit_of_an_earlier_start_is_on_the_list_until_its_host_has_told_or_is_dead(
    world: Any, ending: str
) -> None:
    world.agent()
    world.policy(ALLOW)
    run = world.started()
    assert world.gate(run, effect="IDEMPOTENT", nonce="first").verdict == PROCEED
    epoch = world.lease(run).epoch
    world.lose(dead=False)
    world.room.worker = "w2"
    world.claim()
    assert world.gate(run, effect="IDEMPOTENT", nonce="second", worker="w2").verdict == PROCEED
    latch = world.latch("HALT", "run", run)
    assert sorted(status(world.latch_message(latch))) == ["OPEN", "UNREACHABLE"]
    world.stop_report(run, worker="w2", killed=True)
    assert (world.state(run), world.latch_state(latch)) == ("HALTED", "LATCHED")
    if ending == "death":
        world.lose("w1", dead=True)
    else:
        world.closed(run, "first", epoch=epoch)
    assert world.latch_state(latch) == "SETTLED"


def test_what_a_person_said_of_before_the_latch_is_on_its_list_while_its_host_may_still_act(
    world: Any,
) -> None:
    world.agent()
    world.policy(ALLOW)
    run = world.started()
    assert world.gate(run, nonce="n").verdict == PROCEED
    world.lose(dead=False)
    world.room.worker = "w2"
    world.claim()
    assert world.gate(run, worker="w2").verdict == ASK
    [asked] = world.pending(run)
    world.decide(asked, "GIVE_UP")
    latch = world.latch("HALT", "tenant")
    world.stop_report(run, worker="w2")
    assert (status(world.latch_message(latch)), world.latch_state(latch)) == (["UNREACHABLE"], "LATCHED")
    world.lose("w1", dead=True)
    assert (status(world.latch_message(latch)), world.latch_state(latch)) == (["KILLED"], "SETTLED")
