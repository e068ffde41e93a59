"""Double text: what becomes of a run that is asked for while another of its thread is going on."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.ledger import steps
from fermata.server.lifecycle import leases
from fermata.server.lifecycle.decisions import expire_due
from fermata.server.lifecycle.doubletext import MAX_IN_LINE
from fermata.server.store import schema
from fermata.v1 import latch_pb2, run_pb2, worker_pb2

PROCEED = worker_pb2.GATE_VERDICT_PROCEED
STOP = worker_pb2.GATE_VERDICT_STOP
ALLOW = "version: 1\nrules:\n  - {id: all, decide: ALLOW}\n"


def _thread(world: Any, run: str) -> str:
    return str(world.run(run).thread.rsplit("/", 1)[1])


def _busy(world: Any) -> tuple[str, str]:
    """A run at work, and its thread."""
    world.agent()
    run = world.started()
    world.told()
    return run, _thread(world, run)


def _in_a_call(world: Any, **values: Any) -> tuple[str, str]:
    """A run whose call of ``turn`` has passed the gate with nonce ``n`` and is not closed, and its thread."""
    run, thread = _busy(world)
    world.policy(ALLOW)
    assert world.gate(run, nonce="n", **values).verdict == PROCEED
    world.told()
    return run, thread


def _asking(world: Any) -> tuple[str, str, str]:
    """A parked run, its thread, and the approval that it waits for."""
    run, thread = _busy(world)
    world.gate(run)
    world.park(run, "s1")
    world.told()
    [approval] = world.pending(run)
    return run, thread, approval


def _refused(world: Any, **values: Any) -> DomainError:
    with pytest.raises(DomainError) as refused:
        world.create(**values)
    return refused.value


def _claimed(world: Any, worker: str = "w1") -> int:
    world.room.worker = worker
    try:
        return int(world.claim())
    finally:
        world.room.worker = None


# which strategy applies


def test_a_second_message_is_refused_where_nobody_says_otherwise(world: Any) -> None:
    run, thread = _busy(world)
    for strategy in ("UNSPECIFIED", "REJECT"):
        refused = _refused(world, thread=thread, strategy=strategy)
        assert (refused.reason, refused.metadata["run"]) == ("THREAD_BUSY", world.run(run).name)
    assert world.state(run) == "RUNNING"


def test_a_thread_has_a_strategy_and_a_request_may_say_another(world: Any) -> None:
    world.agent()
    thread = world.thread("ENQUEUE")
    first = world.started(thread=thread)
    second = world.create(thread=thread)
    assert world.run(second).in_line
    assert _refused(world, thread=thread, strategy="REJECT").reason == "THREAD_BUSY"
    third = world.create(thread=thread, strategy="INTERRUPT")
    assert [world.state(run) for run in (first, second, third)] == ["HALTING", "CANCELLED", "QUEUED"]


@pytest.mark.parametrize("strategy", ["REJECT", "ENQUEUE", "INTERRUPT", "ROLLBACK"])
def test_on_a_free_thread_every_strategy_lets_a_run_begin(world: Any, strategy: str) -> None:
    world.agent()
    run = world.started(thread=world.thread(), strategy=strategy)
    assert not world.run(run).in_line
    assert world.events(run) == ["CREATED", "LEASED"]


# enqueue


def test_runs_in_line_start_in_the_order_of_their_arrival(world: Any) -> None:
    first, thread = _busy(world)
    world.room.worker = "w1"
    line = [world.create(thread=thread, strategy="ENQUEUE") for _ in range(3)]
    assert world.facts(line[0], "CREATED")["behind"] == world.run(first).name
    for run in line:
        assert world.state(run) == "QUEUED"
        assert world.run(run).in_line
        assert world.claim() == 0, "nothing is leased behind a run that goes on"
        world.finish(world.active_run(thread))
        assert world.active_run(thread) == run
        assert not world.run(run).in_line
        assert world.work_available
        assert world.claim() == 1
        assert world.state(run) == "RUNNING"
    world.finish(line[-1])
    assert world.active_run(thread) == ""


def _fails(world: Any, run: str) -> None:
    finish = worker_pb2.Finish()
    finish.error.reason = "GRAPH_RAISED"
    world.host(run, finish=finish)


def _is_halted(world: Any, run: str) -> None:
    world.latch("HALT", "run", run)
    world.stop_report(run)


def _loses_its_hosts(world: Any, run: str) -> None:
    for _ in range(leases.MAX_HOST_DEATHS):
        world.tx(lambda tx: leases.lose_host(tx, world.keeper, "default", run, "exit 9", ""))
        if world.state(run) == "RUNNING":
            assert _claimed(world) == 1


@pytest.mark.parametrize("ending", [_fails, _is_halted, _loses_its_hosts])
def test_however_a_run_ends_the_next_in_line_has_the_thread(world: Any, ending: Any) -> None:
    first, thread = _busy(world)
    second = world.create(thread=thread, strategy="ENQUEUE")
    ending(world, first)
    assert world.active_run(thread) == second
    assert _claimed(world) == 1


def test_a_run_that_waits_for_a_person_keeps_its_thread(world: Any) -> None:
    first, thread, approval = _asking(world)
    second = world.create(thread=thread, strategy="ENQUEUE")
    assert _claimed(world) == 0
    world.decide(approval)
    assert world.state(first) == "RUNNING"
    assert world.active_run(thread) == first
    assert world.state(second) == "QUEUED"


def test_halting_a_run_in_line_does_not_disturb_the_order(world: Any) -> None:
    first, thread = _busy(world)
    second, third, fourth = [world.create(thread=thread, strategy="ENQUEUE") for _ in range(3)]
    latch = world.latch("HALT", "run", third)
    assert (world.state(third), world.latch_state(latch)) == ("HALTED", "SETTLED")
    assert not world.run(third).in_line
    assert (world.active_run(thread), world.state(first)) == (first, "RUNNING")
    world.finish(first)
    assert world.active_run(thread) == second
    assert _claimed(world) == 1
    world.finish(second)
    assert world.active_run(thread) == fourth


def test_a_halt_of_the_thread_ends_its_whole_line(world: Any) -> None:
    first, thread = _busy(world)
    line = [world.create(thread=thread, strategy="ENQUEUE") for _ in range(2)]
    latch = world.latch("HALT", "thread", thread)
    assert [world.state(run) for run in (first, *line)] == ["HALTING", "HALTED", "HALTED"]
    assert _refused(world, thread=thread, strategy="ENQUEUE").reason == "HALTED"
    world.stop_report(first)
    assert (world.latch_state(latch), world.active_run(thread)) == ("SETTLED", "")


def test_a_halt_of_a_thread_whose_run_ends_at_once_ends_those_that_become_active_by_it(world: Any) -> None:
    first, thread, _ = _asking(world)
    line = [world.create(thread=thread, strategy="ENQUEUE") for _ in range(2)]
    latch = world.latch("HALT", "thread", thread)
    assert [world.state(run) for run in (first, *line)] == ["HALTED"] * 3
    assert (world.latch_state(latch), world.active_run(thread)) == ("SETTLED", "")


def test_a_hold_of_the_thread_holds_whoever_becomes_active(world: Any) -> None:
    first, thread = _busy(world)
    second = world.create(thread=thread, strategy="ENQUEUE")
    latch = world.latch("HOLD", "thread", thread)
    world.finish(first)
    assert (world.active_run(thread), _claimed(world)) == (second, 0)
    world.release(latch)
    assert _claimed(world) == 1


def test_a_held_run_in_line_keeps_its_place(world: Any) -> None:
    first, thread = _busy(world)
    second, third = [world.create(thread=thread, strategy="ENQUEUE") for _ in range(2)]
    latch = world.latch("HOLD", "run", second)
    world.finish(first)
    assert _claimed(world) == 0, "the third does not overtake the one that is held"
    world.release(latch)
    assert _claimed(world) == 1
    assert (world.state(second), world.state(third)) == ("RUNNING", "QUEUED")


def test_the_line_of_a_thread_is_bounded(world: Any) -> None:
    first, thread = _busy(world)
    for _ in range(MAX_IN_LINE):
        world.create(thread=thread, strategy="ENQUEUE")
    refused = _refused(world, thread=thread, strategy="ENQUEUE")
    assert (refused.reason, refused.kind) == ("THREAD_QUEUE_FULL", ErrorKind.RESOURCE_EXHAUSTED)
    world.finish(first)
    world.create(thread=thread, strategy="ENQUEUE")


# interrupt


def test_an_interrupted_run_is_stopped_as_a_halt_stops_it_and_the_new_one_waits_for_that(world: Any) -> None:
    first, thread = _in_a_call(world)
    second = world.create(thread=thread, strategy="INTERRUPT", by="ann")
    assert (world.state(first), world.told()) == ("HALTING", ["HALT"])
    assert world.facts(first, "HALTING") == {
        "type": run_pb2.EVENT_TYPE_HALTING,
        "reason": f"interrupted by {world.run(second).name}",
        "run": world.run(second).name,
        "by": "ann",
    }
    assert world.gate(first, step="s2").verdict == STOP
    assert (world.state(second), world.run(second).in_line, _claimed(world)) == ("QUEUED", True, 0)
    world.closed(first, "n")
    assert world.state(first) == "HALTING", "its worker has not said that nothing moves any more"
    world.stop_report(first)
    assert world.state(first) == "CANCELLED"
    assert world.run(first).successor == world.run(second).name
    assert world.facts(first, "CANCELLED")["reason"] == f"interrupted by {world.run(second).name}"
    assert world.active_run(thread) == second
    assert _claimed(world, "w2") == 1


def test_a_call_that_had_to_be_killed_is_asked_about_and_keeps_nobody_waiting(world: Any) -> None:
    first, thread = _in_a_call(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    world.stop_report(first, killed=True)
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", second)
    [recovery] = world.pending(first)
    assert world.approval(recovery).step == "s1"
    world.decide(recovery, "IT_HAPPENED")
    assert world.pending(first) == []


def test_a_parked_run_is_interrupted_at_once_and_its_question_withdrawn(world: Any) -> None:
    first, thread, approval = _asking(world)
    world.room.worker = "w2"
    second = world.create(thread=thread, strategy="INTERRUPT")
    assert (world.state(first), world.state(second)) == ("CANCELLED", "RUNNING")
    assert world.pending(first) == []
    assert (world.told("w1"), world.active_run(thread)) == (["DROP"], second)
    assert "behind" not in world.facts(second, "CREATED")
    with pytest.raises(DomainError) as refused:
        world.decide(approval)
    assert refused.value.reason == "RUN_ENDED"


@pytest.mark.parametrize("strategy", ["INTERRUPT", "ROLLBACK"])
def test_a_run_that_no_worker_has_yet_gives_way_at_once(world: Any, strategy: str) -> None:
    world.agent()
    first = world.create()
    thread = _thread(world, first)
    second = world.create(thread=thread, strategy=strategy)
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", second)
    assert world.events(first) == ["CREATED", "HALTING", "CANCELLED"]
    assert _claimed(world) == 1
    assert world.state(second) == "RUNNING"


def test_a_held_run_is_interrupted_and_the_new_one_waits_for_the_release(world: Any) -> None:
    first, thread, _ = _asking(world)
    latch = world.latch("HOLD", "thread", thread)
    assert world.state(first) == "HELD"
    second = world.create(thread=thread, strategy="INTERRUPT")
    assert (world.state(first), world.active_run(thread), _claimed(world)) == ("CANCELLED", second, 0)
    world.release(latch)
    assert _claimed(world) == 1


def test_of_two_messages_that_interrupt_one_run_the_later_one_wins(world: Any) -> None:
    first, thread = _in_a_call(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    third = world.create(thread=thread, strategy="INTERRUPT")
    assert [world.state(run) for run in (first, second, third)] == ["HALTING", "CANCELLED", "QUEUED"]
    assert world.facts(second, "CANCELLED")["run"] == world.run(third).name
    assert world.told() == ["HALT"], "it is stopped once"
    world.closed(first, "n")
    world.stop_report(first)
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", third)
    assert world.events(first).count("HALTING") == 1


def test_what_waits_in_line_is_interrupted_as_well(world: Any) -> None:
    _, thread, _ = _asking(world)
    line = [world.create(thread=thread, strategy="ENQUEUE") for _ in range(2)]
    last = world.create(thread=thread, strategy="INTERRUPT")
    assert [world.state(run) for run in line] == ["CANCELLED"] * 2
    assert world.active_run(thread) == last


def test_a_run_that_ends_before_the_message_comes_is_not_interrupted(world: Any) -> None:
    first, thread = _busy(world)
    world.finish(first)
    second = world.create(thread=thread, strategy="INTERRUPT")
    assert (world.state(first), world.active_run(thread)) == ("SUCCEEDED", second)


def test_a_run_that_ends_before_the_stop_reaches_it_is_cancelled_and_its_answer_kept(world: Any) -> None:
    first, thread = _in_a_call(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    world.closed(first, "n")
    world.finish(first)
    assert (world.state(first), world.run(first).answer) == ("CANCELLED", "done")
    assert world.active_run(thread) == second
    history = world.events(first)
    world.stop_report(first)
    assert world.events(first) == history


def test_a_run_that_ends_with_a_call_that_cannot_be_stopped_waits_for_its_process(world: Any) -> None:
    first, thread = _in_a_call(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    _fails(world, first)
    assert (world.state(first), world.run(second).in_line) == ("HALTING", True)
    world.stop_report(first, killed=True)
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", second)


def test_an_approval_that_halts_when_nobody_answers_ends_with_its_interrupted_run(world: Any) -> None:
    world.policy(
        "version: 1\nrules:\n  - {id: ask, decide: REQUIRE_APPROVAL, approval: {valid_for: 60s, on_timeout: HALT}}\n"
    )
    first, thread, _ = _asking(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    world.now += 61
    assert world.tx(expire_due) == 0
    assert (world.state(first), world.state(second)) == ("CANCELLED", "QUEUED")


# interrupt and halt


def test_a_run_that_a_person_has_halted_stays_halted(world: Any) -> None:
    first, thread = _in_a_call(world)
    latch = world.latch("HALT", "run", first)
    second = world.create(thread=thread, strategy="INTERRUPT")
    world.stop_report(first)
    assert (world.state(first), world.latch_state(latch)) == ("HALTED", "SETTLED")
    assert world.active_run(thread) == second


def test_a_halt_over_an_interrupted_run_settles_with_it(world: Any) -> None:
    first, thread = _in_a_call(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    latch = world.latch("HALT", "run", first)
    assert world.latch_state(latch) == "LATCHED"
    world.stop_report(first, killed=True)
    assert (world.state(first), world.latch_state(latch)) == ("CANCELLED", "SETTLED")
    assert world.active_run(thread) == second


def test_a_halt_of_the_thread_reaches_the_run_that_waits_to_take_its_place(world: Any) -> None:
    first, thread = _in_a_call(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    latch = world.latch("HALT", "thread", thread)
    assert (world.state(first), world.state(second)) == ("HALTING", "HALTED")
    world.stop_report(first)
    assert (world.latch_state(latch), world.active_run(thread)) == ("SETTLED", "")


# interrupt and workers out of reach


def _silent(world: Any, worker: str = "w1") -> None:
    """The sweep finds that a worker's lease has expired."""
    from fermata.server.dispatch.sweeper import _silence

    world.tx(lambda tx: _silence(tx, worker))


def test_a_silent_worker_with_a_call_open_keeps_the_new_run_waiting(world: Any) -> None:
    first, thread = _in_a_call(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    _silent(world)
    assert (world.state(first), world.run(second).in_line, _claimed(world)) == ("HALTING", True, 0)
    assert world.come_back("w1", world.lease(first)) == ["HALT"]
    world.closed(first, "n")
    world.stop_report(first)
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", second)


def test_the_confirmed_death_of_a_silent_worker_lets_the_new_run_begin(world: Any) -> None:
    first, thread = _in_a_call(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    _silent(world)
    world.lose(dead=True)
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", second)
    assert len(world.pending(first)) == 1, "what became of the call is asked"


def test_a_silent_worker_without_an_open_call_keeps_nobody_waiting(world: Any) -> None:
    first, thread = _in_a_call(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    world.closed(first, "n")
    lease = world.lease(first)
    _silent(world)
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", second)
    # What it says when it comes back counts no more, and it is told so.
    with pytest.raises(DomainError) as refused:
        world.stores(first, "late")
    assert refused.value.reason == "STALE_EPOCH"
    granted = world.tx(lambda tx: leases.leases_of(tx, "w1"))
    assert leases.lost([lease], granted) == [lease]


def test_a_silent_worker_does_not_settle_a_halt_by_way_of_an_interrupt(world: Any) -> None:
    first, thread = _in_a_call(world)
    world.create(thread=thread, strategy="INTERRUPT")
    world.closed(first, "n")
    latch = world.latch("HALT", "run", first)
    _silent(world)
    assert (world.state(first), world.latch_state(latch)) == ("HALTING", "LATCHED")
    world.lose(dead=True)
    assert (world.state(first), world.latch_state(latch)) == ("CANCELLED", "SETTLED")


def _lost_by_silence(world: Any, **values: Any) -> tuple[str, str]:
    """A run that a second worker has, with a call open that the first may still begin."""
    first, thread = _in_a_call(world, **values)
    _silent(world)
    assert _claimed(world, "w2") == 1
    world.told("w2")
    return first, thread


def test_a_permit_of_an_earlier_lease_keeps_the_new_run_waiting_until_its_host_has_told(world: Any) -> None:
    first, thread = _lost_by_silence(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    world.stop_report(first, worker="w2")
    assert (world.state(first), world.run(first).worker) == ("HALTING", "")
    assert (world.run(second).in_line, _claimed(world)) == (True, 0)
    world.closed(first, "n", worker="w1", epoch=1)
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", second)
    assert world.pending(first) == []


def test_a_permit_of_an_earlier_lease_ends_with_its_workers_confirmed_death(world: Any) -> None:
    first, thread = _lost_by_silence(world, effect="IDEMPOTENT")
    second = world.create(thread=thread, strategy="INTERRUPT")
    world.stop_report(first, worker="w2")
    assert world.state(first) == "HALTING"
    world.lose("w1", dead=True)
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", second)


def test_a_permit_of_an_earlier_lease_ends_with_its_host_when_the_worker_comes_back_and_drops_it(
    world: Any,
) -> None:
    first, thread = _lost_by_silence(world, effect="IDEMPOTENT")
    second = world.create(thread=thread, strategy="INTERRUPT")
    world.stop_report(first, worker="w2")
    other, mine = (world.lease(first, epoch) for epoch in (2, 1))
    world.tx(lambda tx: leases.bury_host(tx, "w1", other))
    assert world.state(first) == "HALTING", "the host of another lease says nothing about this one's call"
    world.tx(lambda tx: leases.bury_host(tx, "w1", mine))
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", second)


@pytest.mark.parametrize("decision", ["IT_HAPPENED", "GIVE_UP"])
def test_a_person_may_say_what_became_of_the_permit_and_the_new_run_begins(world: Any, decision: str) -> None:
    first, thread = _lost_by_silence(world)
    second = world.create(thread=thread, strategy="INTERRUPT")
    world.stop_report(first, worker="w2")
    [recovery] = world.pending(first)
    world.decide(recovery, decision)
    assert (world.state(first), world.active_run(thread)) == ("CANCELLED", second)


# rollback


def test_a_rolled_back_thread_is_what_it_was_before_the_run_and_the_ledger_is_not(world: Any) -> None:
    first, thread = _busy(world)
    world.policy(ALLOW)
    world.stores(first, "c1", "c2")
    world.stores(first, "n1", namespace="inner")
    world.finish(first)
    second = world.started(thread=thread)
    world.told()
    world.stores(second, "c3", "c4")
    world.stores(second, "n2", namespace="inner")
    world.stores(second, "m1", namespace="other")
    _writes(world, second, "c2")
    _writes(world, second, "c4")
    assert world.gate(second, nonce="n").verdict == PROCEED
    world.closed(second, "n")
    third = world.create(thread=thread, strategy="ROLLBACK")
    assert world.stored(thread) == ["c1", "c2", "c3", "c4"], "not before nothing of it writes any more"
    world.stores(second, "c5")
    world.stop_report(second)
    assert world.state(second) == "CANCELLED"
    assert world.facts(second, "CANCELLED")["reason"] == f"rolled back by {world.run(third).name}"
    assert world.facts(second, "CANCELLED")["rolled_back"] is True
    assert world.stored(thread) == ["c1", "c2"]
    assert (world.stored(thread, "inner"), world.stored(thread, "other")) == (["n1"], [])
    assert _all(world, schema.checkpoint_writes) == []
    assert {row.version for row in _all(world, schema.channel_blobs)} == {"c1", "c2", "n1"}
    [step] = world.tx(lambda tx: tx.execute(select(schema.steps)).fetchall())
    assert (step.run, step.outcome) == (second, steps.FINISHED)
    assert world.events(second)[:2] == ["CREATED", "LEASED"]
    assert _claimed(world, "w2") == 1
    world.stores(third, "c6", worker="w2")
    assert world.stored(thread) == ["c1", "c2", "c6"]


def test_an_interrupted_thread_stays_as_far_as_it_has_come(world: Any) -> None:
    first, thread = _busy(world)
    world.stores(first, "c1")
    world.create(thread=thread, strategy="INTERRUPT")
    world.stores(first, "c2")
    world.stop_report(first)
    assert world.stored(thread) == ["c1", "c2"]
    assert "rolled_back" not in world.facts(first, "CANCELLED")


def test_the_first_run_of_a_thread_is_rolled_back_to_nothing(world: Any) -> None:
    first, thread = _busy(world)
    world.stores(first, "c1")
    third = world.create(thread=thread, strategy="ROLLBACK")
    world.stop_report(first)
    assert world.stored(thread) == []
    world.room.worker = "w1"
    world.claim()
    [assign] = [message.assign for _, message in world.sent if message.HasField("assign")]
    assert (assign.lease.run, assign.thread_is_new) == (world.run(third).name, True)


def test_other_threads_keep_what_they_have_stored_meanwhile(world: Any) -> None:
    first, thread = _busy(world)
    other = world.started()
    world.stores(first, "c1")
    world.stores(other, "c1", "c2")
    world.create(thread=thread, strategy="ROLLBACK")
    world.stop_report(first)
    assert (world.stored(thread), world.stored(_thread(world, other))) == ([], ["c1", "c2"])


def test_a_run_is_rolled_back_over_all_of_its_leases(world: Any) -> None:
    first, thread = _busy(world)
    world.stores(first, "c1")
    world.finish(first)
    second = world.started(thread=thread)
    world.stores(second, "c2")
    world.lose(dead=True)
    assert _claimed(world, "w2") == 1
    world.stores(second, "c3", worker="w2")
    world.create(thread=thread, strategy="ROLLBACK")
    world.stop_report(second, worker="w2")
    assert world.stored(thread) == ["c1"]


def test_what_an_interrupted_run_has_stored_is_there_when_the_next_one_is_rolled_back(world: Any) -> None:
    first, thread = _busy(world)
    world.stores(first, "c1")
    second = world.create(thread=thread, strategy="INTERRUPT")
    world.stop_report(first)
    assert _claimed(world) == 1
    world.stores(second, "c2")
    world.create(thread=thread, strategy="ROLLBACK")
    world.stop_report(second)
    assert world.stored(thread) == ["c1"]


def test_a_later_interrupt_does_not_undo_a_rollback_that_was_promised(world: Any) -> None:
    first, thread = _busy(world)
    world.stores(first, "c1")
    second = world.create(thread=thread, strategy="ROLLBACK")
    world.create(thread=thread, strategy="INTERRUPT")
    world.stop_report(first)
    assert world.stored(thread) == []
    assert world.run(first).successor == world.run(second).name


def test_a_later_rollback_makes_one_of_an_interrupt(world: Any) -> None:
    first, thread = _busy(world)
    world.stores(first, "c1")
    world.create(thread=thread, strategy="INTERRUPT")
    third = world.create(thread=thread, strategy="ROLLBACK")
    world.stop_report(first)
    assert world.stored(thread) == []
    assert world.facts(first, "CANCELLED")["reason"] == f"rolled back by {world.run(third).name}"


def test_a_halted_run_is_rolled_back_for_the_message_that_wants_it(world: Any) -> None:
    first, thread = _busy(world)
    world.stores(first, "c1")
    world.latch("HALT", "run", first)
    world.create(thread=thread, strategy="ROLLBACK")
    world.stop_report(first)
    assert (world.state(first), world.stored(thread)) == ("HALTED", [])
    assert world.facts(first, "HALTED")["rolled_back"] is True


def test_an_approval_of_a_rolled_back_run_stays_on_record(world: Any) -> None:
    first, thread, approval = _asking(world)
    world.create(thread=thread, strategy="ROLLBACK")
    assert world.approval(approval).run == first
    assert "APPROVAL_REQUESTED" in world.events(first)


def test_a_run_of_which_nobody_knows_what_it_began_from_is_not_rolled_back(world: Any) -> None:
    first, thread = _busy(world)
    world.tx(lambda tx: tx.execute(schema.runs.update().values(base=-1)))
    assert _refused(world, thread=thread, strategy="ROLLBACK").reason == "ROLLBACK_UNKNOWN"
    assert world.state(first) == "RUNNING"


def _writes(world: Any, run: str, checkpoint: str) -> None:
    commit = worker_pb2.Commit()
    writes = commit.writes.add(checkpoint_id=checkpoint, task_id=f"task of {run}")
    writes.writes.add(channel="messages", value=worker_pb2.Blob(type="t", data=b"x"))
    world.host(run, commit=commit)


def _all(world: Any, table: Any) -> list[Any]:
    return list(world.tx(lambda tx: tx.execute(select(table)).fetchall()))


def test_a_latchs_report_counts_the_runs_in_line(world: Any) -> None:
    first, thread = _busy(world)
    second = world.create(thread=thread, strategy="ENQUEUE")
    latch = world.latch("HALT", "thread", thread)
    assert set(world.latch_message(latch).runs) == {world.run(first).name, world.run(second).name}
    assert world.latch_message(latch).state == latch_pb2.LATCH_STATE_LATCHED
