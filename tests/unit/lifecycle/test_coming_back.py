"""A worker comes back after a break: what it may have missed is said again, and saying it twice does no harm."""

from __future__ import annotations

from typing import Any

from fermata.server.lifecycle import reconnection
from fermata.v1 import run_pb2, worker_pb2

PROCEED = worker_pb2.GATE_VERDICT_PROCEED
ASK = worker_pb2.GATE_VERDICT_ASK
STOP = worker_pb2.GATE_VERDICT_STOP
ALLOW = "version: 1\nrules:\n  - {id: all, decide: ALLOW}\n"


def _parked(world: Any) -> tuple[str, str]:
    world.agent()
    run = world.started()
    world.gate(run)
    world.park(run, "s1")
    [approval] = world.pending(run)
    return run, approval


def test_a_worker_that_has_what_it_should_is_told_nothing(world: Any) -> None:
    parked, _ = _parked(world)
    world.policy(ALLOW)
    run = world.started()
    world.gate(run)
    assert world.come_back("w1", world.lease(run), world.lease(parked)) == []


def test_an_assignment_that_never_arrived_is_made_again_under_the_same_epoch(world: Any) -> None:
    world.agent()
    run = world.started()
    assert world.come_back() == ["assign"]
    assert world.run(run).epoch == 1
    assert world.gate(run).verdict == ASK


def test_a_decision_that_was_made_during_the_break_reaches_the_host(world: Any) -> None:
    run, approval = _parked(world)
    world.decide(approval)
    assert world.come_back("w1", world.lease(run)) == ["resume"]
    assert world.gate(run).verdict == PROCEED


def test_a_decision_is_not_hidden_from_the_host_by_one_that_came_after_it(world: Any) -> None:
    world.agent()
    run = world.started()
    assert world.gate(run).verdict == ASK
    assert world.gate(run, step="s2").verdict == ASK
    world.park(run, "s1", "s2")
    first, second = world.pending(run)
    world.decide(first)
    told = world.sent[-1]
    world.decide(second)
    world.sent.clear()
    held = world.lease(run)
    world.tx(lambda tx: reconnection.catch_up(tx, world.leases, "w1", [held]))
    # By its number a host that has had it leaves the repeat alone.
    assert world.sent == [told]


def test_a_new_lease_takes_what_was_decided_with_it_and_is_told_nothing_again(world: Any) -> None:
    run, approval = _parked(world)
    world.decide(approval)
    world.lose("w1", dead=True)
    world.room.worker = "w2"
    assert world.claim() == 1
    assert world.come_back("w2", world.lease(run)) == []


def test_a_host_that_was_told_twice_to_go_on_parks_twice(world: Any) -> None:
    run, approval = _parked(world)
    world.decide(approval)
    answer = world.gate(run, nonce="n")
    assert answer.verdict == PROCEED
    world.closed(run, "n")
    assert world.gate(run, step="s2").verdict == ASK
    world.park(run, "s2")
    history = world.events(run)
    assert world.gate(run, step="s2").verdict == STOP
    world.park(run, "s2")
    assert (world.state(run), world.events(run)) == ("AWAITING", history)
    latch = world.latch("HOLD", "run", run)
    world.park(run, "s2", latch=f"tenants/default/latches/{latch}")
    assert world.state(run) == "HELD"


def test_a_halt_that_was_set_during_the_break_reaches_the_worker(world: Any) -> None:
    world.agent()
    run = world.started()
    latch = world.latch("HALT", "run", run)
    world.sent.clear()
    world.come_back("w1", world.lease(run))
    run_again = world.latch("HOLD", "tenant")
    assert world.latch_state(run_again) == "LATCHED"
    assert world.come_back("w1", world.lease(run)) == ["HALT"]
    assert world.come_back("w1") == ["HALT"]
    world.stop_report(run)
    assert world.latch_state(latch) == "SETTLED"
    assert world.come_back("w1") == []


def test_a_hold_that_was_set_during_the_break_reaches_the_worker(world: Any) -> None:
    world.agent()
    run = world.started()
    world.latch("HOLD", "agent", "operator")
    assert world.come_back("w1", world.lease(run)) == ["HOLD"]


def test_a_run_that_waits_is_not_kept_for_a_worker_that_does_not_have_it(world: Any) -> None:
    run, approval = _parked(world)
    assert world.come_back() == []
    assert (world.state(run), world.run(run).worker) == ("AWAITING", "")
    world.decide(approval)
    world.room.worker = "w2"
    assert world.claim() == 1
    assert world.gate(run, worker="w2").verdict == PROCEED


def test_what_is_said_again_carries_the_number_that_it_had(world: Any) -> None:
    run, approval = _parked(world)

    def resumed() -> Any:
        message = world.sent[-1][1]
        world.sent.clear()
        return message.resume

    world.decide(approval)
    first = resumed()
    held = world.lease(run)
    world.tx(lambda tx: reconnection.catch_up(tx, world.leases, "w1", [held]))
    assert first.number == resumed().number > 0
    assert world.gate(run, nonce="n").verdict == PROCEED
    world.closed(run, "n")
    assert world.gate(run, step="s2").verdict == ASK
    world.park(run, "s2")
    world.decide(world.pending(run)[0])
    assert resumed().number > first.number


def test_a_message_that_comes_again_tells_its_events_once(world: Any) -> None:
    world.agent()
    run = world.started()
    event = worker_pb2.HostEvent(type=run_pb2.EVENT_TYPE_NODE_FINISHED)

    def say(number: int) -> None:
        message = worker_pb2.HostMessage(
            lease=world.lease(run), id=number, commit=worker_pb2.Commit(events=[event])
        )
        world.receive("w1", message)

    say(1)
    say(2)
    before = world.events(run)
    say(1)
    say(2)
    assert world.events(run) == before
    say(3)
    assert world.events(run) == [*before, "NODE_FINISHED"]
    world.lose(dead=True)
    world.room.worker = "w1"
    world.claim()
    say(1)
    assert world.events(run)[-1] == "NODE_FINISHED"
