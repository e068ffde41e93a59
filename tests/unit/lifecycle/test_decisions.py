"""What people decide: once, in time, about what they saw, and only those who may."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fermata.server.errors import DomainError
from fermata.server.lifecycle.decisions import expire_due, next_expiry
from fermata.v1 import worker_pb2

PROCEED = worker_pb2.GATE_VERDICT_PROCEED
ASK = worker_pb2.GATE_VERDICT_ASK
REFUSE = worker_pb2.GATE_VERDICT_REFUSE

TWO = """version: 1
rules:
  - id: two
    match: {tool: turn}
    decide: REQUIRE_APPROVAL
    approval: {roles: [approver], count: 2, not_requester: true}
"""
HALTING = """version: 1
rules:
  - id: halting
    match: {tool: turn}
    decide: REQUIRE_APPROVAL
    approval: {valid_for: 60s, on_timeout: HALT}
"""
SLOW = """version: 1
rules:
  - id: fast
    match: {tool: turn}
    when: args.speed + 1 > 100
    decide: DENY
    reason: Too fast.
"""
SCHEMA = {"type": "object", "properties": {"speed": {"type": "integer"}}, "required": ["speed"]}


def _asking(world: Any, **values: Any) -> tuple[str, str]:
    """A run that waits for a decision about its call of ``turn``, and the approval's id."""
    world.agent()
    run = world.started(**values)
    answer = world.gate(run, args={"speed": 10})
    assert answer.verdict == ASK
    world.park(run, "s1")
    [approval] = world.pending(run)
    assert answer.approval.endswith(approval)
    assert world.state(run) == "AWAITING"
    world.told()
    return run, approval


def _refused(world: Any, *args: Any, **values: Any) -> DomainError:
    with pytest.raises(DomainError) as refused:
        world.decide(*args, **values)
    return refused.value


def test_an_approved_call_runs_as_it_was_seen(world: Any) -> None:
    run, approval = _asking(world)
    world.decide(approval)
    assert (world.state(run), world.told()) == ("RUNNING", ["resume"])
    answer = world.gate(run, args={"speed": 10})
    assert (answer.verdict, answer.edited_args, answer.attempt) == (PROCEED, "", 1)
    assert world.events(run)[2:] == [
        "APPROVAL_REQUESTED",
        "AWAITING",
        "APPROVAL_DECIDED",
        "RESUMED",
        "STEP_STARTED",
    ]


def test_a_rejected_call_does_not_run_and_the_agent_is_told_why(world: Any) -> None:
    run, approval = _asking(world)
    world.decide(approval, "REJECT", comment="not today")
    answer = world.gate(run, args={"speed": 10})
    assert (answer.verdict, answer.reason, answer.message) == (
        REFUSE,
        "REJECTED",
        "Rejected by bob: not today",
    )


def test_the_same_decision_again_changes_nothing_and_another_one_comes_too_late(world: Any) -> None:
    run, approval = _asking(world)
    world.decide(approval)
    history = world.events(run)
    world.decide(approval)
    assert world.events(run) == history
    for values in ({"decision": "REJECT"}, {"by": "cat"}):
        refused = _refused(world, approval, **values)
        assert (refused.reason, refused.metadata["decided_by"]) == ("APPROVAL_DECIDED", "bob")


def test_a_decision_about_something_else_than_what_is_asked_is_refused(world: Any) -> None:
    run, approval = _asking(world)
    assert _refused(world, approval, digest="other").reason == "APPROVAL_DIGEST_MISMATCH"
    assert world.state(run) == "AWAITING"


@pytest.mark.parametrize("roles", [(), ("viewer",), ("operator",)])
def test_only_who_has_the_role_decides(world: Any, roles: tuple[str, ...]) -> None:
    _, approval = _asking(world)
    assert _refused(world, approval, roles=roles).reason == "NOT_APPROVER"


@pytest.mark.parametrize("decision", ["ANSWER", "IT_HAPPENED", "DO_AGAIN", "GIVE_UP"])
def test_a_decision_that_does_not_fit_the_question_is_refused(world: Any, decision: str) -> None:
    _, approval = _asking(world)
    assert _refused(world, approval, decision).reason == "DECISION_NOT_ALLOWED"


def test_silence_is_a_no(world: Any) -> None:
    run, approval = _asking(world)
    assert world.tx(next_expiry) == world.now + 900
    world.now += 899
    assert world.tx(expire_due) == 0
    world.now += 1
    assert _refused(world, approval).reason == "APPROVAL_EXPIRED"
    assert world.tx(expire_due) == 1
    assert world.state(run) == "RUNNING"
    assert _refused(world, approval).reason == "APPROVAL_EXPIRED"
    assert world.gate(run, args={"speed": 10}).reason == "APPROVAL_EXPIRED"
    assert world.tx(next_expiry) is None


def test_where_the_rule_says_so_silence_halts(world: Any) -> None:
    world.policy(HALTING)
    run, _ = _asking(world)
    world.now += 60
    world.tx(expire_due)
    assert world.state(run) == "HALTED"


def test_an_approval_expires_also_while_its_run_is_held(world: Any) -> None:
    run, _ = _asking(world)
    latch = world.latch("HOLD", "tenant")
    assert world.state(run) == "HELD"
    world.now += 900
    world.tx(expire_due)
    assert world.state(run) == "HELD"
    world.release(latch)
    assert world.state(run) == "RUNNING"
    assert world.gate(run, args={"speed": 10}).reason == "APPROVAL_EXPIRED"


def test_what_was_approved_long_ago_is_asked_again(world: Any) -> None:
    run, approval = _asking(world)
    latch = world.latch("HOLD", "tenant")
    world.decide(approval)
    world.now += 901
    world.release(latch)
    assert world.gate(run, args={"speed": 10}).verdict == ASK


def test_two_different_people_have_to_agree(world: Any) -> None:
    world.policy(TWO)
    run, approval = _asking(world)
    world.decide(approval)
    world.decide(approval)
    assert world.state(run) == "AWAITING"
    assert json.loads(world.approval(approval).votes) == ["bob"]
    world.decide(approval, by="cat")
    assert world.state(run) == "RUNNING"
    assert world.gate(run, args={"speed": 10}).verdict == PROCEED


def test_one_refusal_outweighs_a_vote(world: Any) -> None:
    world.policy(TWO)
    run, approval = _asking(world)
    world.decide(approval)
    world.decide(approval, "REJECT", by="cat")
    assert world.gate(run, args={"speed": 10}).reason == "REJECTED"


def test_a_bot_does_not_make_one_person_two(world: Any) -> None:
    world.policy(TWO)
    run, approval = _asking(world)
    world.decide(approval)
    world.decide(approval, by="chat", on_behalf_of="bob")
    assert world.state(run) == "AWAITING"


@pytest.mark.parametrize(
    ("made", "decided"),
    [
        ({"by": "ann"}, {"by": "ann"}),
        ({"by": "chat", "for_": "ann"}, {"by": "ann"}),
        ({"by": "chat", "for_": "ann"}, {"by": "chat", "on_behalf_of": "ann"}),
    ],
)
def test_whoever_asked_for_the_run_may_not_approve_where_the_rule_says_so(
    world: Any, made: dict[str, str], decided: dict[str, str]
) -> None:
    world.policy(TWO)
    _, approval = _asking(world, **made)
    assert _refused(world, approval, **decided).reason == "REQUESTER_MAY_NOT_APPROVE"


def test_edited_arguments_run_instead(world: Any) -> None:
    run, approval = _asking(world)
    world.decide(approval, "EDIT", edited_args='{"speed":5}')
    answer = world.gate(run, args={"speed": 10})
    assert (answer.verdict, json.loads(answer.edited_args)) == (PROCEED, {"speed": 5})


def test_edited_arguments_are_held_against_policy(world: Any) -> None:
    world.policy(SLOW)
    _, approval = _asking(world)
    refused = _refused(world, approval, "EDIT", edited_args='{"speed":100}')
    assert (refused.reason, refused.metadata["rule"]) == ("POLICY_DENIED", "fast")


def test_a_policy_that_becomes_stricter_wins_over_an_approval(world: Any) -> None:
    run, approval = _asking(world)
    world.decide(approval)
    world.policy(SLOW.replace("> 100", "> 10"))
    answer = world.gate(run, args={"speed": 10})
    assert (answer.verdict, answer.reason) == (REFUSE, "POLICY_DENIED")


def test_one_person_is_not_enough_once_the_policy_wants_two(world: Any) -> None:
    run, approval = _asking(world)
    world.decide(approval)
    world.policy(TWO)
    assert world.gate(run, args={"speed": 10}).verdict == ASK
    assert len(world.pending(run)) == 1


@pytest.mark.parametrize("edited", ["", "[]", "null", "1"])
def test_an_edit_gives_all_the_arguments(world: Any, edited: str) -> None:
    _, approval = _asking(world)
    assert _refused(world, approval, "EDIT", edited_args=edited).reason == "ARGS_INVALID"


def test_where_two_must_approve_nobody_edits(world: Any) -> None:
    world.policy(TWO)
    _, approval = _asking(world)
    assert _refused(world, approval, "EDIT", edited_args='{"speed":5}').reason == "DECISION_NOT_ALLOWED"


def test_edited_arguments_are_held_against_the_tools_schema(world: Any) -> None:
    world.agent()
    run = world.started()
    gate = worker_pb2.Gate(
        step="s1", nonce="n", tool="turn", args='{"speed":1}', args_schema=json.dumps(SCHEMA)
    )
    world.host(run, gate=gate)
    world.park(run, "s1")
    [approval] = world.pending(run)
    refused = _refused(world, approval, "EDIT", edited_args='{"speed":"much"}')
    assert (refused.reason, refused.metadata["field"]) == ("ARGS_INVALID", "speed")
    world.decide(approval, "EDIT", edited_args='{"speed":2}')


def test_a_question_of_an_ended_run_takes_no_answer(world: Any) -> None:
    run, approval = _asking(world)
    world.latch("HALT", "run", run)
    assert world.state(run) == "HALTED"
    assert _refused(world, approval).reason == "RUN_ENDED"


def test_a_decision_that_comes_before_the_run_has_parked_wakes_it(world: Any) -> None:
    world.agent()
    run = world.started()
    world.gate(run, args={"speed": 10})
    world.decide(world.pending(run)[0])
    assert world.park(run, "s1").WhichOneof("body") == "resume"
    assert world.state(run) == "RUNNING"


def test_an_interrupt_of_the_graph_is_answered_once(world: Any) -> None:
    world.agent()
    run = world.started()
    world.interrupted(run, "i1", {"question": "Which line?"})
    [approval] = world.pending(run)
    world.decide(approval, "ANSWER", roles=("operator",), value='"line 2"')
    assert world.state(run) == "RUNNING"
    [(_, message)] = [entry for entry in world.sent if entry[1].HasField("resume")]
    [answer] = message.resume.answers
    assert (answer.interrupt_id, answer.value.string_value) == ("i1", "line 2")
