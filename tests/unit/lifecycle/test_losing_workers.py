"""A worker is gone: what it held goes on elsewhere, and what it may have done is not done again unasked."""

from __future__ import annotations

from typing import Any

import pytest

from fermata.server.errors import DomainError
from fermata.server.lifecycle import leases
from fermata.v1 import latch_pb2, run_pb2, worker_pb2

PROCEED = worker_pb2.GATE_VERDICT_PROCEED
ASK = worker_pb2.GATE_VERDICT_ASK
RECORDED = worker_pb2.GATE_VERDICT_RECORDED
REFUSE = worker_pb2.GATE_VERDICT_REFUSE
ALLOW = "version: 1\nrules:\n  - {id: all, decide: ALLOW}\n"


def _working(world: Any, effect: str = "UNSAFE") -> str:
    world.agent()
    world.policy(ALLOW)
    run = world.started()
    assert world.gate(run, nonce="n", effect=effect).verdict == PROCEED
    return str(run)


def _again(world: Any, run: str, worker: str = "w2") -> None:
    world.room.worker = worker
    assert world.claim() == 1
    world.room.worker = None
    assert world.run(run).worker == worker


def test_the_run_of_a_lost_worker_is_leased_again_under_a_greater_epoch(world: Any) -> None:
    run = _working(world)
    world.lose(dead=True)
    assert (world.state(run), world.run(run).worker) == ("RUNNING", "")
    assert world.work_available
    _again(world, run)
    assert world.run(run).epoch == 2
    assert world.events(run)[-2:] == ["LEASE_LOST", "LEASED"]


def test_a_worker_that_lost_its_lease_writes_nothing_more(world: Any) -> None:
    run = _working(world)
    world.lose(dead=False)
    _again(world, run)
    for body in ({"finish": worker_pb2.Finish(answer="late")}, {"park": worker_pb2.Park()}):
        with pytest.raises(DomainError) as refused:
            world.host(run, worker="w1", epoch=1, **body)
        assert refused.value.reason == "STALE_EPOCH"
    with pytest.raises(DomainError):
        world.gate(run, step="s2", worker="w1", epoch=1)
    assert world.state(run) == "RUNNING"


def test_a_worker_that_lost_its_lease_may_still_say_how_its_step_ended(world: Any) -> None:
    run = _working(world)
    world.lose(dead=False)
    _again(world, run)
    reply = world.closed(run, "n", worker="w1", epoch=1)
    assert reply.error.reason == "STALE_EPOCH"
    answer = world.gate(run, worker="w2")
    assert (answer.verdict, answer.message) == (RECORDED, "done")


@pytest.mark.parametrize("effect", ["READ", "IDEMPOTENT"])
def test_what_may_be_repeated_is_repeated(world: Any, effect: str) -> None:
    run = _working(world, effect)
    world.lose(dead=True)
    _again(world, run)
    answer = world.gate(run, effect=effect, worker="w2")
    assert (answer.verdict, answer.attempt) == (PROCEED, 2)


@pytest.mark.parametrize(("dead", "again"), [(True, True), (False, False)])
def test_an_unsafe_effect_in_doubt_goes_to_a_person_and_again_is_offered_only_for_the_dead(
    world: Any, dead: bool, again: bool
) -> None:
    run = _working(world)
    world.lose(dead=dead)
    _again(world, run)
    answer = world.gate(run, worker="w2")
    assert answer.verdict == ASK
    [approval] = world.pending(run)
    if not again:
        with pytest.raises(DomainError) as refused:
            world.decide(approval, "DO_AGAIN")
        assert refused.value.reason == "DECISION_NOT_ALLOWED"
        return
    world.decide(approval, "DO_AGAIN")
    repeated = world.gate(run, worker="w2")
    assert (repeated.verdict, repeated.attempt) == (PROCEED, 2)


@pytest.mark.parametrize(
    ("decision", "verdict", "reason"), [("IT_HAPPENED", RECORDED, ""), ("GIVE_UP", REFUSE, "ABANDONED")]
)
def test_what_a_person_knows_about_an_effect_is_what_the_graph_gets(
    world: Any, decision: str, verdict: int, reason: str
) -> None:
    run = _working(world)
    world.lose(dead=True)
    _again(world, run)
    world.gate(run, worker="w2")
    [approval] = world.pending(run)
    world.decide(approval, decision)
    answer = world.gate(run, worker="w2")
    assert (answer.verdict, answer.reason) == (verdict, reason)


def test_a_repeated_gate_gets_the_same_answer(world: Any) -> None:
    run = _working(world)
    history = world.events(run)
    again = world.gate(run, nonce="n")
    assert (again.verdict, again.attempt) == (PROCEED, 1)
    assert world.events(run) == history


def test_a_run_whose_hosts_keep_dying_fails(world: Any) -> None:
    world.agent()
    run = world.started()
    for _ in range(leases.MAX_HOST_DEATHS - 1):
        world.tx(lambda tx: leases.lose_host(tx, world.keeper, "default", run, "exit 9", "segfault"))
        assert world.state(run) == "RUNNING"
        _again(world, run, "w1")
    world.tx(lambda tx: leases.lose_host(tx, world.keeper, "default", run, "exit 9", "segfault"))
    assert (world.state(run), world.run(run).error.reason) == ("FAILED", "HOST_DIED")


def test_a_run_that_waits_does_not_need_its_worker(world: Any) -> None:
    world.agent()
    run = world.started()
    world.gate(run)
    world.park(run, "s1")
    world.lose(dead=True)
    assert world.state(run) == "AWAITING"
    world.decide(world.pending(run)[0])
    _again(world, run)
    assert world.gate(run, worker="w2").verdict == PROCEED


def test_the_death_of_a_halting_runs_worker_settles_the_halt(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HALT", "run", run)
    world.lose(dead=True)
    assert (world.state(run), world.latch_state(latch)) == ("HALTED", "SETTLED")
    [step] = world.latch_message(latch).steps
    assert step.status == latch_pb2.LATCH_STEP_STATUS_KILLED


def test_a_hold_settles_when_the_run_that_it_waits_for_has_lost_its_worker(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HOLD", "run", run)
    world.lose(dead=True)
    assert world.latch_state(latch) == "SETTLED"
    world.room.worker = "w2"
    assert world.claim() == 0
    world.release(latch)
    assert world.claim() == 1


def test_a_halt_over_a_silent_workers_effect_settles_only_when_its_death_is_confirmed(world: Any) -> None:
    run = _working(world)
    world.lose(dead=False)
    latch = world.latch("HALT", "run", run)
    assert world.latch_state(latch) == "LATCHED"
    world.lose(dead=True)
    assert world.latch_state(latch) == "SETTLED"
    [step] = world.latch_message(latch).steps
    assert step.status == latch_pb2.LATCH_STEP_STATUS_KILLED


def test_a_second_report_of_a_death_changes_nothing(world: Any) -> None:
    run = _working(world)
    world.lose(dead=True)
    history = world.events(run)
    world.lose(dead=True)
    assert world.events(run) == history


def test_a_leases_worker_knows_what_it_does_not_hold_any_more(world: Any) -> None:
    run = _working(world)
    world.lose(dead=False)
    _again(world, run)
    believed = [world.lease(run, 1)]
    granted = world.tx(lambda tx: leases.leases_of(tx, "w1"))
    assert leases.lost(believed, granted) == believed


def _in_doubt(world: Any) -> str:
    run = _working(world)
    world.lose(dead=True)
    _again(world, run)
    return run


def test_a_call_with_other_arguments_waits_for_the_doubt_about_the_one_before_it(world: Any) -> None:
    run = _in_doubt(world)
    answer = world.gate(run, step="s2", args={"other": 1}, worker="w2")
    assert answer.verdict == ASK
    [approval] = world.pending(run)
    assert world.approval(approval).step == "s1"
    world.decide(approval, "IT_HAPPENED")
    assert world.gate(run, step="s2", args={"other": 1}, worker="w2").verdict == PROCEED


def test_a_doubt_that_another_call_waits_for_wakes_the_run_once(world: Any) -> None:
    run = _in_doubt(world)
    park = worker_pb2.Park(asking_steps=["s2"])
    world.gate(run, step="s2", worker="w2")
    world.decide(world.pending(run)[0], "GIVE_UP")
    assert world.host(run, worker="w2", park=park).HasField("resume")
    world.policy("version: 1\nrules: []\n")
    assert world.gate(run, step="s2", worker="w2").verdict == ASK
    assert not world.host(run, worker="w2", park=park).HasField("resume")
    assert world.state(run) == "AWAITING"


def test_what_may_be_repeated_and_other_tools_do_not_wait_for_a_doubt(world: Any) -> None:
    run = _in_doubt(world)
    assert world.gate(run, step="s2", effect="READ", worker="w2").verdict == PROCEED
    assert world.gate(run, tool="other", step="s3", worker="w2").verdict == PROCEED


@pytest.mark.parametrize("error", [False, True])
def test_a_run_does_not_end_with_a_doubt_that_nobody_was_asked_about(world: Any, error: bool) -> None:
    run = _in_doubt(world)
    finish = worker_pb2.Finish(answer="done")
    if error:
        finish.error.reason = "GRAPH_RAISED"
    world.host(run, worker="w2", finish=finish)
    [approval] = world.pending(run)
    assert world.approval(approval).step == "s1"
    with pytest.raises(DomainError) as refused:
        world.decide(approval, "DO_AGAIN")
    assert refused.value.reason == "DECISION_NOT_ALLOWED"
    world.decide(approval, "IT_HAPPENED")
    assert world.pending(run) == []


def test_doing_it_again_is_refused_where_policy_has_come_to_refuse_it(world: Any) -> None:
    run = _in_doubt(world)
    world.gate(run, worker="w2")
    world.decide(world.pending(run)[0], "DO_AGAIN")
    world.policy("version: 1\nrules:\n  - {id: never, decide: DENY}\n")
    assert world.gate(run, worker="w2").verdict == REFUSE


def test_a_persons_word_does_not_replace_what_the_host_has_told_in_the_meantime(world: Any) -> None:
    run = _in_doubt(world)
    world.gate(run, worker="w2")
    [approval] = world.pending(run)
    world.host(run, worker="w2", park=worker_pb2.Park(asking_steps=["s1"]))
    assert world.state(run) == "AWAITING"
    world.closed(run, "n", worker="w1", epoch=1)
    assert world.pending(run) == [], "nobody is asked what is known"
    with pytest.raises(DomainError) as refused:
        world.decide(approval, "GIVE_UP")
    assert refused.value.reason == "APPROVAL_CANCELLED"
    assert world.state(run) == "RUNNING"
    assert world.gate(run, worker="w2").verdict == RECORDED
    assert world.host(run, worker="w2", park=worker_pb2.Park(asking_steps=["s9"])).HasField("ack")


def test_a_withdrawn_question_does_not_let_a_later_start_be_repeated(world: Any) -> None:
    run = _in_doubt(world)
    world.gate(run, worker="w2")
    world.closed(run, "n", worker="w1", epoch=1, outcome="NOT_STARTED")
    assert world.gate(run, nonce="again", worker="w2").verdict == PROCEED
    world.lose("w2", dead=True)
    _again(world, run, "w3")
    assert world.gate(run, worker="w3").verdict == ASK


def _on_the_same_worker_again(world: Any, run: str) -> str:
    """The run has been at another worker, which is dead, and its first worker has it again, in another process."""
    world.lose(dead=False)
    _again(world, run)
    got_on = worker_pb2.Commit(events=[worker_pb2.HostEvent(type=run_pb2.EVENT_TYPE_NODE_FINISHED)])
    world.host(run, worker="w2", commit=got_on)
    world.lose("w2", dead=True)
    _again(world, run, "w1")
    return run


def _lose_host(world: Any, run: str) -> None:
    world.tx(lambda tx: leases.lose_host(tx, world.keeper, "default", run, "exit 9", ""))


def _bury(world: Any, run: str, epoch: int = 1) -> None:
    """The first worker says that nothing moves under a lease that it has lost."""
    lease = world.lease(run, epoch)
    world.tx(lambda tx: leases.bury_host(tx, "w1", lease))


def test_the_death_of_a_host_says_nothing_of_an_earlier_one_of_its_worker(world: Any) -> None:
    run = _on_the_same_worker_again(world, _working(world))
    _lose_host(world, run)
    _again(world, run, "w3")
    assert world.gate(run, worker="w3").verdict == ASK
    [approval] = world.pending(run)
    with pytest.raises(DomainError) as refused:
        world.decide(approval, "DO_AGAIN")
    assert refused.value.reason == "DECISION_NOT_ALLOWED", "the process that started it may be at work"
    _bury(world, run)
    world.decide(approval, "DO_AGAIN")
    assert world.gate(run, worker="w3").verdict == PROCEED


def test_a_halt_does_not_settle_over_an_effect_of_an_earlier_process_of_the_same_worker(world: Any) -> None:
    run = _on_the_same_worker_again(world, _working(world))
    latch = world.latch("HALT", "run", run)
    world.stop_report(run)
    assert (world.state(run), world.latch_state(latch)) == ("HALTED", "LATCHED")
    _bury(world, run)
    assert world.latch_state(latch) == "SETTLED"


def test_a_call_that_may_be_repeated_is_repeated_after_its_lease_was_lost(world: Any) -> None:
    run = _working(world, effect="IDEMPOTENT")
    world.lose(dead=False)
    _bury(world, run)
    _again(world, run)
    answer = world.gate(run, worker="w2", effect="IDEMPOTENT")
    assert (answer.verdict, answer.attempt) == (PROCEED, 2)
