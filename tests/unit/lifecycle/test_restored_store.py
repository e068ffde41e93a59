"""What a store that was restored from a backup does with the runs that it finds: nothing that may have happened since is done again
unasked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import insert, select
from tests.unit.lifecycle.conftest import World

from fermata.server.errors import DomainError
from fermata.server.lifecycle import new_life
from fermata.server.store import lives, schema
from fermata.v1 import approval_pb2, worker_pb2

ALLOW = "version: 1\nrules:\n  - {id: all, decide: ALLOW}\n"
FIRST, SECOND = "0" * 16, "00000f0000abcdef"


def restore(world: World, *, workers_stopped: bool = False) -> int:
    """Begin another life of the store, as a restore and the first start after it do; how many runs wait for a person."""
    rows = [
        {"incarnation": FIRST, "settled": True},
        {"incarnation": SECOND, "backed_up": 900_000.0, "workers_stopped": workers_stopped, "settled": False},
    ]
    for row in rows:
        world.tx(lambda tx, row=row: tx.execute(insert(schema.lives), row))  # type: ignore[misc]
    world.room.worker = "w2"
    return settle(world)


def settle(world: World) -> int:
    return world.tx(lambda tx: new_life.settle(tx, world.revisions))


def question(world: World, run: str) -> Any:
    """The one approval about the whole of a run."""
    rows = [world.approval(approval) for approval in world.pending(run)]
    (found,) = [row for row in rows if row.rule == "recovery:restored"]
    return found


def allowed(row: Any) -> list[str]:
    return [approval_pb2.Decision.Name(value).removeprefix("DECISION_") for value in json.loads(row.allowed)]


def in_every_state(world: World) -> dict[str, str]:
    """Runs that have not ended, by what they were doing when the backup was made."""
    world.agent(turn="UNSAFE")
    runs = {"running": world.started()}
    runs["awaiting"] = world.started()
    world.gate(runs["awaiting"])
    world.park(runs["awaiting"], "s1")
    thread = world.run(runs["running"]).thread.rsplit("/", 1)[1]
    runs["in line"] = world.create(thread=thread, strategy="ENQUEUE")
    runs["held"] = world.started()
    world.latch("HOLD", "run", runs["held"])
    world.park(runs["held"], latch="x")
    runs["queued"] = world.create()
    return runs


def test_every_run_that_may_have_acted_after_the_backup_waits_for_a_person(world: World) -> None:
    runs = in_every_state(world)
    assert restore(world) == 5
    assert {name: world.state(run) for name, run in runs.items()} == {
        "queued": "AWAITING",
        "running": "AWAITING",
        "awaiting": "AWAITING",
        "in line": "QUEUED",
        "held": "HELD",
    }
    for run in runs.values():
        assert question(world, run).kind == approval_pb2.APPROVAL_KIND_RECOVERY
        assert allowed(question(world, run)) == ["IT_HAPPENED", "GIVE_UP"]
    assert world.claim() == 0
    assert world.room.granted == [
        world.run(run).name for run in (runs["running"], runs["awaiting"], runs["held"])
    ]


def test_the_question_tells_what_is_known(world: World) -> None:
    runs = in_every_state(world)
    restore(world)
    told = json.loads(question(world, runs["awaiting"]).question)
    assert told["tools"] == ["turn"]
    assert "1970-01-11 10:00:00 UTC" in told["question"]
    assert "waiting for an answer about: turn" in told["question"]
    assert told["workers_stopped"] is False


def test_nothing_is_asked_twice_when_the_first_start_is_repeated(world: World) -> None:
    run = in_every_state(world)["running"]
    restore(world)
    asked = world.pending(run)
    assert settle(world) == 0
    assert world.pending(run) == asked


def test_a_pending_approval_that_is_given_does_not_let_the_run_go_on_by_itself(world: World) -> None:
    run = in_every_state(world)["awaiting"]
    restore(world, workers_stopped=True)
    (action,) = [a for a in world.pending(run) if world.approval(a).kind == approval_pb2.APPROVAL_KIND_ACTION]
    world.decide(action)
    assert (world.state(run), world.claim()) == ("AWAITING", 0)
    world.decide(question(world, run).id, "DO_AGAIN")
    assert (world.state(run), world.claim()) == ("RUNNING", 1)
    assert world.gate(run, worker="w2").verdict == worker_pb2.GATE_VERDICT_PROCEED


def test_to_do_it_again_is_offered_only_where_the_workers_of_before_are_stopped(world: World) -> None:
    run = in_every_state(world)["running"]
    restore(world)
    with pytest.raises(DomainError) as refused:
        world.decide(question(world, run).id, "DO_AGAIN")
    assert refused.value.reason == "DECISION_NOT_ALLOWED"
    assert world.state(run) == "AWAITING"


@pytest.mark.parametrize("name", ["queued", "running", "awaiting"])
def test_a_run_that_did_nothing_after_the_backup_goes_on_from_there(world: World, name: str) -> None:
    run = in_every_state(world)[name]
    restore(world, workers_stopped=True)
    world.decide(question(world, run).id, "DO_AGAIN")
    assert (world.state(run), world.claim()) == ("RUNNING", 1)
    assign = next(message.assign for to, message in world.sent if to == "w2" and message.HasField("assign"))
    assert (assign.lease.run, assign.HasField("input")) == (world.run(run).name, True)


def test_a_run_in_line_that_may_go_on_still_waits_for_its_turn(world: World) -> None:
    runs = in_every_state(world)
    restore(world, workers_stopped=True)
    world.decide(question(world, runs["in line"]).id, "DO_AGAIN")
    assert (world.state(runs["in line"]), world.claim()) == ("QUEUED", 0)
    world.decide(question(world, runs["running"]).id, "GIVE_UP")
    assert (world.state(runs["running"]), world.claim()) == ("CANCELLED", 1)
    assert world.state(runs["in line"]) == "RUNNING"


def test_a_run_in_line_about_which_nobody_has_said_anything_is_parked_when_its_turn_comes(
    world: World,
) -> None:
    runs = in_every_state(world)
    restore(world)
    world.decide(question(world, runs["running"]).id, "GIVE_UP")
    assert (world.claim(), world.state(runs["in line"])) == (0, "AWAITING")


def test_a_held_run_that_is_released_waits_for_the_person_too(world: World) -> None:
    run = in_every_state(world)["held"]
    restore(world, workers_stopped=True)
    (latch,) = world.tx(lambda tx: tx.execute(select(schema.latches.c.id)).scalars().all())
    world.release(latch)
    assert (world.claim(), world.state(run)) == (0, "AWAITING")
    world.decide(question(world, run).id, "DO_AGAIN")
    assert (world.claim(), world.state(run)) == (1, "RUNNING")


@pytest.mark.parametrize("name", ["queued", "running", "awaiting", "in line", "held"])
def test_what_happened_ends_the_run_with_the_answer_that_is_given(world: World, name: str) -> None:
    run = in_every_state(world)[name]
    restore(world)
    world.decide(question(world, run).id, "IT_HAPPENED", value='"turned by hand"')
    assert (world.state(run), world.run(run).answer) == ("SUCCEEDED", "turned by hand")
    assert world.facts(run, "SUCCEEDED")["confirmed_by"] == "bob"
    assert world.pending(run) == []


@pytest.mark.parametrize("name", ["queued", "running", "awaiting", "in line", "held"])
def test_a_run_can_be_given_up(world: World, name: str) -> None:
    run = in_every_state(world)[name]
    restore(world)
    world.decide(question(world, run).id, "GIVE_UP")
    assert world.state(run) == "CANCELLED"


def test_a_second_restore_asks_anew_and_what_the_first_one_asked_counts_no_more(world: World) -> None:
    run = in_every_state(world)["running"]
    restore(world, workers_stopped=True)
    first = question(world, run)
    third = {"incarnation": "00000f0000000003", "workers_stopped": False, "settled": False}
    world.tx(lambda tx: tx.execute(insert(schema.lives), third))
    assert settle(world) == 5
    second = question(world, run)
    assert allowed(second) == ["IT_HAPPENED", "GIVE_UP"]
    with pytest.raises(DomainError) as refused:
        world.decide(first.id, "DO_AGAIN")
    assert (refused.value.reason, world.state(run)) == ("APPROVAL_CANCELLED", "AWAITING")


def test_a_halt_withdraws_the_question(world: World) -> None:
    run = in_every_state(world)["running"]
    restore(world)
    asked = question(world, run)
    world.latch("HALT", "run", run)
    assert world.state(run) == "HALTED"
    assert world.approval(asked.id).state == approval_pb2.APPROVAL_STATE_CANCELLED


def test_an_agent_whose_tools_may_all_be_repeated_goes_on_unasked(world: World) -> None:
    world.agent(look="READ", put="IDEMPOTENT")
    run = world.started()
    assert restore(world) == 0
    assert (world.claim(), world.state(run), world.pending(run)) == (1, "RUNNING", [])


def test_a_tool_that_only_the_ledger_knows_of_counts(world: World) -> None:
    world.agent(look="READ")
    world.policy(ALLOW)
    earlier = world.started()
    world.gate(earlier, "shell", effect="UNSAFE", nonce="n")
    world.closed(earlier, "n")
    world.finish(earlier)
    run = world.started()
    assert restore(world) == 1
    assert json.loads(question(world, run).question)["tools"] == ["shell"]


def test_leases_of_the_earlier_life_are_stale_whatever_it_has_given_since(world: World) -> None:
    run = in_every_state(world)["running"]
    before = world.run(run).epoch
    restore(world)
    assert world.run(run).epoch == before + 0xF0000
    with pytest.raises(DomainError) as refused:
        world.host(run, worker="w1", epoch=before, finish=worker_pb2.Finish(answer="done"))
    assert refused.value.reason == "STALE_EPOCH"


def test_a_step_that_was_open_at_the_backup_is_asked_about_before_it_is_done_again(world: World) -> None:
    world.agent(turn="UNSAFE")
    world.policy(ALLOW)
    run = world.started()
    world.gate(run, nonce="n")
    restore(world, workers_stopped=True)
    world.decide(question(world, run).id, "DO_AGAIN")
    assert world.claim() == 1
    answer = world.gate(run, worker="w2")
    assert answer.verdict == worker_pb2.GATE_VERDICT_ASK
    (doubt,) = world.pending(run)
    assert allowed(world.approval(doubt)) == ["IT_HAPPENED", "DO_AGAIN", "GIVE_UP"]


def test_a_step_whose_earlier_host_still_tells_its_end_is_believed(world: World) -> None:
    world.agent(turn="UNSAFE")
    world.policy(ALLOW)
    run = world.started()
    world.gate(run, nonce="n")
    old = world.run(run).epoch
    restore(world)
    assert world.closed(run, "n", worker="w1", epoch=old).error.reason == "STALE_EPOCH"
    told = world.tx(lambda tx: tx.execute(select(schema.steps.c.text)).scalar())
    assert (told, world.state(run)) == ("done", "AWAITING")


@pytest.mark.parametrize(("workers_stopped", "state"), [(True, "HALTED"), (False, "HALTING")])
def test_a_halt_that_waited_for_a_worker_settles_where_that_is_stopped(
    world: World, workers_stopped: bool, state: str
) -> None:
    world.agent(turn="UNSAFE")
    world.policy(ALLOW)
    run = world.started()
    world.gate(run, nonce="n")
    latch = world.latch("HALT", "run", run)
    assert restore(world, workers_stopped=workers_stopped) == 0
    assert world.state(run) == state
    assert world.latch_state(latch) == ("SETTLED" if workers_stopped else "LATCHED")


def test_a_run_that_had_ended_is_left_as_it_is(world: World) -> None:
    world.agent(turn="UNSAFE")
    run = world.started()
    world.finish(run)
    assert restore(world) == 0
    assert world.state(run) == "SUCCEEDED"
    assert world.tx(lambda tx: lives.load(tx).present.settled) is True


def test_cursors_of_what_the_restored_store_does_not_have_are_told_from_those_of_what_it_has() -> None:
    known = lives.Lives([lives.Life("a" * 16), lives.Life("b" * 16, event=10), lives.Life("c" * 16, event=8)])
    assert known.cursor(9) == f"9.{'c' * 16}"
    good = {"8": 8, f"8.{'b' * 16}": 8, f"99.{'c' * 16}": 99, "0": 0}
    assert {cursor: known.position(cursor) for cursor in good} == good
    for gone in ("9", "11", f"9.{'b' * 16}", f"3.{'d' * 16}"):
        assert known.position(gone) is None
    for wrong in ("", "x", "1.5", "-1", "²", "1."):
        with pytest.raises(ValueError):
            known.position(wrong)


def test_what_a_person_said_about_a_run_wakes_it_once(world: World) -> None:
    run = in_every_state(world)["awaiting"]
    restore(world, workers_stopped=True)
    world.decide(question(world, run).id, "DO_AGAIN")
    assert world.claim() == 1
    world.host(run, worker="w2", park=worker_pb2.Park(asking_steps=["s1"]))
    world.release(world.latch("HOLD", "run", run))
    assert world.state(run) == "AWAITING"
