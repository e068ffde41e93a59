"""A hold holds, a halt stops, and neither says that it has settled before it is true."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from fermata.server.errors import DomainError
from fermata.server.ledger import steps
from fermata.server.store import schema
from fermata.v1 import approval_pb2, latch_pb2, worker_pb2

PROCEED = worker_pb2.GATE_VERDICT_PROCEED
ASK = worker_pb2.GATE_VERDICT_ASK
STOP = worker_pb2.GATE_VERDICT_STOP
REFUSE = worker_pb2.GATE_VERDICT_REFUSE
ALLOW = "version: 1\nrules:\n  - {id: all, decide: ALLOW}\n"


def _status(latch: latch_pb2.Latch) -> list[str]:
    return [
        latch_pb2.LatchStepStatus.Name(step.status).removeprefix("LATCH_STEP_STATUS_") for step in latch.steps
    ]


def _working(world: Any, **values: Any) -> str:
    """A run whose call of ``turn`` has passed the gate with nonce ``n``, and is not closed."""
    world.agent()
    world.policy(ALLOW)
    run = world.started(**values)
    assert world.gate(run, nonce="n").verdict == PROCEED
    world.told()
    return str(run)


def test_a_queued_run_is_halted_in_the_commit_of_the_halt(world: Any) -> None:
    world.agent()
    run = world.create()
    latch = world.latch("HALT", "run", run)
    assert (world.state(run), world.latch_state(latch)) == ("HALTED", "SETTLED")
    assert world.events(run) == ["CREATED", "HALTING", "HALTED"]
    world.room.worker = "w1"
    assert world.claim() == 0


def test_a_parked_run_is_halted_at_once_and_its_host_let_go(world: Any) -> None:
    world.agent()
    run = world.started()
    world.gate(run)
    world.park(run, "s1")
    world.told()
    latch = world.latch("HALT", "agent", "operator")
    assert (world.state(run), world.latch_state(latch), world.told()) == ("HALTED", "SETTLED", ["DROP"])
    assert world.pending(run) == []


def test_a_run_at_work_is_told_and_settles_with_its_workers_word(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HALT", "run", run)
    assert (world.state(run), world.latch_state(latch), world.told()) == ("HALTING", "LATCHED", ["HALT"])
    assert _status(world.latch_message(latch)) == ["OPEN"]
    assert world.gate(run, step="s2").verdict == STOP
    world.stop_report(run, "w1", False, "s1")
    assert (world.state(run), world.latch_state(latch)) == ("HALTED", "SETTLED")
    assert _status(world.latch_message(latch)) == ["NOT_STARTED"]


def test_a_killed_effect_is_reported_as_killed(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HALT", "run", run)
    world.stop_report(run, killed=True)
    assert _status(world.latch_message(latch)) == ["KILLED"]
    assert world.latch_state(latch) == "SETTLED"


def test_a_person_is_asked_what_became_of_an_effect_that_a_halt_has_killed(world: Any) -> None:
    run = _working(world)
    world.latch("HALT", "run", run)
    world.stop_report(run, killed=True)
    (asked,) = world.pending(run)
    row = world.approval(asked)
    assert approval_pb2.ApprovalKind.Name(row.kind) == "APPROVAL_KIND_RECOVERY"
    assert world.state(run) == "HALTED"
    world.decide(asked, "IT_HAPPENED", value='"it did"')
    (step,) = world.tx(lambda tx: tx.execute(select(schema.steps)).fetchall())
    assert step.outcome == steps.CONFIRMED


def test_an_effect_that_finishes_under_a_halt_is_on_record_as_finished(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HALT", "run", run)
    world.closed(run, "n")
    assert _status(world.latch_message(latch)) == ["FINISHED"]
    assert world.latch_state(latch) == "LATCHED"
    world.stop_report(run)
    assert world.latch_state(latch) == "SETTLED"


def test_the_report_of_another_worker_settles_nothing(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HALT", "run", run)
    world.stop_report(run, worker="w2")
    assert (world.state(run), world.latch_state(latch)) == ("HALTING", "LATCHED")


def test_a_run_that_ends_before_the_halt_reaches_it_is_halted(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HALT", "run", run)
    world.closed(run, "n")
    world.finish(run)
    assert (world.state(run), world.run(run).answer) == ("HALTED", "done")
    assert world.latch_state(latch) == "SETTLED"


def test_a_halted_run_leaves_its_thread_free(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HALT", "run", run)
    world.stop_report(run)
    thread = world.run(run).thread.rsplit("/", 1)[1]
    world.release(latch)
    assert world.state(world.create(thread=thread)) == "QUEUED"
    assert world.state(run) == "HALTED"


def test_a_second_halt_over_a_halting_run_waits_as_well(world: Any) -> None:
    run = _working(world)
    first = world.latch("HALT", "run", run)
    second = world.latch("HALT", "tenant")
    assert world.latch_state(second) == "LATCHED"
    world.stop_report(run)
    assert [world.latch_state(latch) for latch in (first, second)] == ["SETTLED", "SETTLED"]


def test_a_hold_stops_a_run_at_its_next_gate_until_it_is_released(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HOLD", "run", run)
    assert (world.state(run), world.told()) == ("RUNNING", ["HOLD"])
    stopped = world.gate(run, step="s2")
    assert stopped.verdict == STOP
    world.closed(run, "n")
    world.park(run, latch=stopped.latch)
    assert (world.state(run), world.latch_state(latch)) == ("HELD", "SETTLED")
    world.release(latch)
    assert (world.state(run), world.told()) == ("RUNNING", ["resume"])
    assert world.gate(run, step="s2").verdict == PROCEED
    assert world.events(run)[-3:] == ["HELD", "RELEASED", "STEP_STARTED"]


def test_a_hold_that_is_released_before_the_run_has_parked_lets_it_go_on(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HOLD", "run", run)
    stopped = world.gate(run, step="s2")
    world.release(latch)
    world.closed(run, "n")
    assert world.park(run, latch=stopped.latch).WhichOneof("body") == "resume"
    assert world.state(run) == "RUNNING"


def test_a_run_that_waits_is_held_where_it_waits(world: Any) -> None:
    world.agent()
    run = world.started()
    world.gate(run)
    world.park(run, "s1")
    latch = world.latch("HOLD", "thread", world.run(run).thread.rsplit("/", 1)[1])
    assert (world.state(run), world.latch_state(latch)) == ("HELD", "SETTLED")
    world.release(latch)
    assert world.state(run) == "AWAITING"


def test_two_holds_are_released_one_by_one(world: Any) -> None:
    run = _working(world)
    first, second = world.latch("HOLD", "run", run), world.latch("HOLD", "tenant")
    world.closed(run, "n")
    world.park(run, latch=world.gate(run, step="s2").latch)
    world.release(first)
    assert world.state(run) == "HELD"
    world.release(second)
    assert world.state(run) == "RUNNING"


def test_a_tools_halt_refuses_its_calls_and_lets_runs_go_on(world: Any) -> None:
    run = _working(world)
    latch = world.latch("HALT", "tool", "turn")
    assert world.state(run) == "RUNNING"
    refused = world.gate(run, step="s2")
    assert (refused.verdict, refused.reason) == (REFUSE, "HALTED")
    assert world.gate(run, tool="look", step="s3").verdict == PROCEED
    assert (world.latch_state(latch), _status(world.latch_message(latch))) == ("LATCHED", ["OPEN"])
    world.closed(run, "n")
    assert world.latch_state(latch) == "SETTLED"


def test_a_tools_hold_keeps_a_run_until_that_hold_is_released_and_no_other(world: Any) -> None:
    run = _working(world)
    world.closed(run, "n")
    tool = world.latch("HOLD", "tool", "turn")
    other = world.latch("HOLD", "tool", "another")
    world.park(run, latch=world.gate(run, step="s2").latch)
    assert world.state(run) == "HELD"
    world.release(other)
    assert world.state(run) == "HELD"
    world.release(tool)
    assert world.state(run) == "RUNNING"


def test_a_release_reaches_only_the_runs_that_were_held_by_it(world: Any) -> None:
    run = _working(world)
    world.agent("other")
    latch = world.latch("HOLD", "agent", "other")
    world.release(latch)
    assert world.told() == []
    assert world.state(run) == "RUNNING"


def test_a_second_release_changes_nothing(world: Any) -> None:
    world.agent()
    latch = world.latch("HOLD", "tenant")
    world.release(latch)
    first = world.latch_message(latch)
    world.now += 10
    world.release(latch)
    assert world.latch_message(latch) == first


@pytest.mark.parametrize("scope", ["run", "thread", "agent"])
def test_what_is_not_there_is_not_latched(world: Any, scope: str) -> None:
    with pytest.raises(DomainError) as refused:
        world.latch("HALT", scope, "none")
    assert refused.value.reason == f"{scope.upper()}_NOT_FOUND"


def test_a_halt_over_nothing_has_settled_at_once(world: Any) -> None:
    assert world.latch_state(world.latch("HALT", "tenant")) == "SETTLED"


def test_a_tool_may_be_halted_before_anybody_has_it(world: Any) -> None:
    assert world.latch_state(world.latch("HALT", "tool", "turn")) == "SETTLED"


def test_whoever_decides_under_a_hold_is_heard_when_it_is_released(world: Any) -> None:
    world.agent()
    run = world.started()
    world.gate(run)
    world.park(run, "s1")
    [approval] = world.pending(run)
    latch = world.latch("HOLD", "tenant")
    world.decide(approval)
    assert world.state(run) == "HELD"
    world.release(latch)
    assert world.state(run) == "RUNNING"
    assert world.gate(run).verdict == PROCEED


def test_the_word_of_the_present_worker_does_not_close_what_an_earlier_one_has_open(world: Any) -> None:
    run = _working(world)
    world.lose(dead=False)
    world.room.worker = "w2"
    world.claim()
    latch = world.latch("HALT", "run", run)
    assert _status(world.latch_message(latch)) == ["UNREACHABLE"]
    world.stop_report(run, worker="w2")
    assert (world.state(run), world.latch_state(latch)) == ("HALTED", "LATCHED")
    world.lose("w1", dead=True)
    assert (_status(world.latch_message(latch)), world.latch_state(latch)) == (["KILLED"], "SETTLED")
