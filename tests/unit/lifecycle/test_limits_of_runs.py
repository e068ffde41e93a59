"""A run that would go beyond its limits is held and a person is asked, or it is halted."""

from __future__ import annotations

from typing import Any

import pytest

from fermata.server.lifecycle import budgets, decisions
from fermata.v1 import agent_pb2, approval_pb2, worker_pb2

PROCEED = worker_pb2.GATE_VERDICT_PROCEED
RECORDED = worker_pb2.GATE_VERDICT_RECORDED
STOP = worker_pb2.GATE_VERDICT_STOP
ALLOW = "version: 1\nrules:\n  - {id: all, decide: ALLOW}\n"
LIMITED = ALLOW + "limits: {tool_calls: 2, on_exceeded: HALT}\n"


def working(world: Any, policy: str = ALLOW, **limits: Any) -> str:
    world.agent(limits=agent_pb2.RunLimits(**limits))
    world.policy(policy)
    return str(world.started())


def call(world: Any, run: str, number: int, **values: Any) -> Any:
    """A call with arguments of its own, to its end."""
    answer = world.gate(run, step=f"s{number}", nonce=f"n{number}", args={"call": number}, **values)
    if answer.verdict == PROCEED:
        world.closed(run, f"n{number}", step=f"s{number}")
    return answer


def held_and_asked(world: Any, run: str, stopped: Any) -> Any:
    """Park the run that was stopped, and return the row of what a person is asked."""
    assert stopped.verdict == STOP
    world.park(run, latch=stopped.latch)
    assert world.state(run) == "HELD"
    [asked] = world.pending(run)
    row = world.approval(asked)
    assert row.kind == approval_pb2.APPROVAL_KIND_BUDGET
    return row


def test_the_call_beyond_the_limit_is_held_and_asked_about(world: Any) -> None:
    run = working(world, tool_calls=2)
    assert [call(world, run, number).verdict for number in (1, 2)] == [PROCEED, PROCEED]
    row = held_and_asked(world, run, call(world, run, 3))
    assert row.rule == "limit:tool_calls"
    assert "has made 2 of 2 tool calls" in row.question


def test_a_yes_grants_as_much_again_and_the_run_goes_on(world: Any) -> None:
    run = working(world, tool_calls=2)
    for number in (1, 2):
        call(world, run, number)
    world.decide(held_and_asked(world, run, call(world, run, 3)).id)
    assert world.state(run) == "RUNNING"
    assert [call(world, run, number).verdict for number in (4, 5)] == [PROCEED, PROCEED]
    assert held_and_asked(world, run, call(world, run, 6))


def test_a_no_halts_the_run(world: Any) -> None:
    run = working(world, tool_calls=1)
    call(world, run, 1)
    world.decide(held_and_asked(world, run, call(world, run, 2)).id, "REJECT")
    assert (world.state(run), world.pending(run)) == ("HALTED", [])


def test_silence_halts_the_run(world: Any) -> None:
    run = working(world, tool_calls=1)
    call(world, run, 1)
    held_and_asked(world, run, call(world, run, 2))
    world.now += 15 * 60 + 1
    world.tx(decisions.expire_due)
    assert world.state(run) == "HALTED"


def test_a_limit_that_halts_asks_nobody(world: Any) -> None:
    run = working(world, tool_calls=1, on_exceeded=agent_pb2.ON_EXCEEDED_HALT)
    call(world, run, 1)
    world.told()
    assert call(world, run, 2).verdict == STOP
    assert (world.state(run), world.told(), world.pending(run)) == ("HALTING", ["HALT"], [])
    world.stop_report(run)
    assert world.state(run) == "HALTED"


def test_the_tenants_policy_bounds_what_the_agents_file_allows(world: Any) -> None:
    run = working(world, LIMITED, tool_calls=10)
    for number in (1, 2):
        assert call(world, run, number).verdict == PROCEED
    assert call(world, run, 3).verdict == STOP
    assert world.state(run) == "HALTING"


def test_a_task_that_is_executed_again_meets_no_limit_with_what_is_on_record(world: Any) -> None:
    run = working(world, tool_calls=1)
    call(world, run, 1)
    assert world.gate(run, step="s1", args={"call": 1}).verdict == RECORDED


def test_what_was_used_counts_on_after_the_run_is_leased_again(world: Any) -> None:
    run = working(world, tool_calls=2)
    call(world, run, 1)
    world.lose(dead=True)
    world.room.worker = "w2"
    world.claim()
    assert call(world, run, 2, worker="w2").verdict == PROCEED
    assert call(world, run, 3, worker="w2").verdict == STOP


def test_the_same_call_over_and_over_is_held_and_shown(world: Any) -> None:
    run = working(world, repeated_calls=3)
    for number in range(3):
        assert world.gate(run, step=f"s{number}", nonce=f"n{number}", args={"a": 1}).verdict == PROCEED
        world.closed(run, f"n{number}", step=f"s{number}")
    row = held_and_asked(world, run, world.gate(run, step="s4", args={"a": 1}))
    assert row.rule == "limit:repeated_calls"
    assert "the same call with the same arguments 3 times in a row" in row.question


def test_another_call_in_between_breaks_the_row(world: Any) -> None:
    run = working(world, repeated_calls=1)
    for number in range(6):
        assert call(world, run, number % 2 + 10 * number).verdict == PROCEED


def test_there_is_a_bound_for_repeats_where_nobody_sets_one(world: Any) -> None:
    run = working(world)
    verdicts = []
    for number in range(21):
        verdicts.append(world.gate(run, step=f"s{number}", nonce=f"n{number}", args={}).verdict)
        if verdicts[-1] == PROCEED:
            world.closed(run, f"n{number}", step=f"s{number}")
    assert verdicts == [PROCEED] * 20 + [STOP]


def test_super_steps_are_counted_as_they_are_written_and_the_run_is_held_between_two(world: Any) -> None:
    run = working(world, super_steps=2)
    world.stores(run, "c0")
    assert world.told() == ["assign"]
    world.stores(run, "c1")
    assert world.told() == []
    world.stores(run, "c2")
    assert world.told() == ["HOLD"]
    [asked] = world.pending(run)
    world.park(run, latch=world.run(run).latches[0])
    assert world.state(run) == "HELD"
    world.decide(asked)
    assert (world.state(run), world.told()) == ("RUNNING", ["resume"])


def test_checkpoints_of_nested_graphs_are_no_super_steps_of_the_run(world: Any) -> None:
    run = working(world, super_steps=1)
    world.stores(run, "c0")
    world.told()
    world.stores(run, "n1", "n2", "n3", namespace="sub")
    assert world.told() == []


def test_tokens_that_models_say_they_used_are_counted_once(world: Any) -> None:
    run = working(world, tokens=100)
    record = worker_pb2.ModelRecord(key="m", digest="d", tokens=60)
    commit = worker_pb2.Commit(models=[record])
    message = worker_pb2.HostMessage(lease=world.lease(run), id=7, commit=commit)
    world.receive("w1", message)
    world.told()
    world.receive("w1", message)
    assert world.told() == []
    message.id = 8
    message.commit.models[0].key = "another"
    world.receive("w1", message)
    assert world.told() == ["HOLD"]
    row = world.approval(world.pending(run)[0])
    assert "has used 120 of 100 tokens" in row.question


def test_only_the_time_at_work_counts(world: Any) -> None:
    limits = agent_pb2.RunLimits()
    limits.wall_time.FromSeconds(100)
    world.agent(limits=limits)
    run = world.started()
    world.now += 40
    world.gate(run)
    world.park(run, "s1")
    assert world.tx(budgets.next_overdue) is None
    world.now += 500
    world.decide(world.pending(run)[0])
    assert world.tx(budgets.next_overdue) == pytest.approx(world.now + 60)
    world.now += 61
    world.told()
    assert world.tx(lambda tx: budgets.stop_overdue(tx, world.keeper)) == 1
    assert world.told() == ["HOLD"]
    [asked] = world.pending(run)
    assert world.approval(asked).rule == "limit:wall_seconds"
    world.decide(asked)
    assert world.told() == ["CONTINUE"]
    assert world.state(run) == "RUNNING"


def test_a_hold_for_a_limit_that_is_lifted_by_hand_withdraws_its_question_and_is_set_again(
    world: Any,
) -> None:
    run = working(world, tool_calls=1)
    call(world, run, 1)
    stopped = call(world, run, 2)
    first = held_and_asked(world, run, stopped)
    latch = stopped.latch.rsplit("/", 1)[1]
    world.tx(lambda tx: budgets.withdraw(tx, "default", latch))
    world.release(latch)
    assert world.state(run) == "RUNNING"
    assert world.approval(first.id).state == approval_pb2.APPROVAL_STATE_CANCELLED
    assert held_and_asked(world, run, call(world, run, 3)).id != first.id


def test_what_was_approved_for_a_call_is_not_used_up_by_the_hold_of_a_limit(world: Any) -> None:
    world.agent(limits=agent_pb2.RunLimits(tool_calls=1), look="READ")
    run = world.started()
    assert world.gate(run, tool="look", step="l", nonce="l", effect="READ").verdict == PROCEED
    world.closed(run, "l", step="l")
    world.gate(run, step="s1")
    world.park(run, "s1")
    world.decide(world.pending(run)[0])
    world.decide(held_and_asked(world, run, world.gate(run, step="s1")).id)
    assert world.gate(run, step="s1").verdict == PROCEED


def test_a_halt_withdraws_what_is_asked_about_a_limit(world: Any) -> None:
    run = working(world, tool_calls=1)
    call(world, run, 1)
    asked = held_and_asked(world, run, call(world, run, 2))
    world.latch("HALT", "run", run)
    assert (world.state(run), world.pending(run)) == ("HALTED", [])
    assert world.approval(asked.id).state == approval_pb2.APPROVAL_STATE_CANCELLED
