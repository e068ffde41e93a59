"""What a person is asked about effects that may have happened: who is, what they are shown, and what each answer does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from fermata.server.errors import DomainError
from fermata.server.lifecycle import leases
from fermata.server.lifecycle.stopping import expire
from fermata.server.runs.record import RunRecord, open_run
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import approval_pb2, worker_pb2

PROCEED = worker_pb2.GATE_VERDICT_PROCEED
ASK = worker_pb2.GATE_VERDICT_ASK
RECORDED = worker_pb2.GATE_VERDICT_RECORDED
REFUSE = worker_pb2.GATE_VERDICT_REFUSE

ALLOW = "version: 1\nrules:\n  - {id: all, decide: ALLOW}\n"
DENY = "version: 1\nrules:\n  - {id: never, decide: DENY}\n"


def asks(**approval: Any) -> str:
    rule = {"id": "payments", "decide": "REQUIRE_APPROVAL", "approval": approval}
    return json.dumps({"version": 1, "rules": [rule]})


def _started(world: Any, **values: Any) -> str:
    """A run whose call of ``turn`` has started."""
    world.agent()
    world.policy(ALLOW)
    run = world.started(**values)
    assert world.gate(run, nonce="n", place="p", args={"speed": 1}).verdict == PROCEED
    return str(run)


def _again(world: Any, run: str, worker: str = "w2") -> None:
    world.room.worker = worker
    assert world.claim() == 1
    world.room.worker = None
    assert world.run(run).worker == worker


def _in_doubt(world: Any, *, dead: bool = True, **values: Any) -> str:
    run = _started(world, **values)
    world.lose(dead=dead)
    _again(world, run)
    return run


def _asked(world: Any, run: str) -> Any:
    [approval] = world.pending(run)
    return world.approval(approval)


def _with_run(world: Any, run: str, act: Callable[[Transaction, RunRecord], object]) -> None:
    def acting(transaction: Transaction) -> None:
        with open_run(transaction, "default", run) as record:
            act(transaction, record)

    world.tx(acting)


def _decisions(row: Any) -> set[str]:
    return {approval_pb2.Decision.Name(value).removeprefix("DECISION_") for value in json.loads(row.allowed)}


# Who decides


def test_the_rule_that_would_ask_for_the_call_names_who_says_what_became_of_it(world: Any) -> None:
    run = _in_doubt(world)
    world.policy(asks(roles=["admin", "operator"]))
    world.gate(run, worker="w2")
    approval = _asked(world, run).id
    with pytest.raises(DomainError) as refused:
        world.decide(approval, "IT_HAPPENED", roles=("approver",))
    assert refused.value.reason == "NOT_APPROVER"
    world.decide(approval, "IT_HAPPENED", roles=("operator",))


@pytest.mark.parametrize("policy", [ALLOW, DENY, "version: 1\nrules: []\n"])
def test_where_no_rule_asks_the_default_approvers_decide(world: Any, policy: str) -> None:
    run = _in_doubt(world)
    world.policy(policy)
    world.gate(run, worker="w2")
    assert json.loads(_asked(world, run).roles) == ["approver"]


def test_a_rule_that_excludes_the_requester_excludes_them_here_too(world: Any) -> None:
    run = _in_doubt(world, by="bob")
    world.policy(asks(not_requester=True))
    world.gate(run, worker="w2")
    with pytest.raises(DomainError) as refused:
        world.decide(_asked(world, run).id, "GIVE_UP", by="bob")
    assert refused.value.reason == "REQUESTER_MAY_NOT_APPROVE"
    world.decide(_asked(world, run).id, "GIVE_UP", by="cat")


def test_the_rule_names_who_decides_also_where_the_run_ends_with_the_doubt(world: Any) -> None:
    run = _in_doubt(world)
    world.policy(asks(roles=["operator"]))
    world.finish(run, worker="w2")
    assert json.loads(_asked(world, run).roles) == ["operator"]


def test_the_rule_names_who_decides_also_where_hosts_keep_dying(world: Any) -> None:
    run = _in_doubt(world)
    world.policy(asks(roles=["operator"]))
    for _ in range(leases.MAX_HOST_DEATHS - 1):
        world.tx(lambda tx: leases.lose_host(tx, world.keeper, "default", run, "exit 9", ""))
        if world.state(run) == "RUNNING":
            _again(world, run)
    assert world.state(run) == "FAILED"
    assert json.loads(_asked(world, run).roles) == ["operator"]


@pytest.mark.parametrize("ended_by", ["a halt", "a deadline", "a later message"])
def test_the_rule_names_who_decides_also_where_the_run_is_stopped(world: Any, ended_by: str) -> None:
    run = _in_doubt(world)
    world.policy(asks(roles=["operator"]))
    match ended_by:
        case "a halt":
            world.latch("HALT", "run", run)
        case "a deadline":
            _with_run(world, run, expire)
        case _:
            world.create(thread=world.run(run).thread.rsplit("/", 1)[1], strategy="INTERRUPT")
    world.stop_report(run, worker="w2")
    assert json.loads(_asked(world, run).roles) == ["operator"]


def test_a_decision_about_a_call_that_waits_for_a_doubt_about_its_tool_does_not_wake_its_run(
    world: Any,
) -> None:
    run = _started(world)
    world.policy(asks())
    assert world.gate(run, step="s2", place="p2", args={"speed": 2}).verdict == ASK
    world.decide(_asked(world, run).id)
    world.lose(dead=True)
    _again(world, run)
    assert world.gate(run, worker="w2", place="p", args={"speed": 1}).verdict == ASK
    assert world.gate(run, worker="w2", step="s2", place="p2", args={"speed": 2}).verdict == ASK
    world.host(run, worker="w2", park=worker_pb2.Park(asking_steps=["s1", "s2"]))
    assert world.state(run) == "AWAITING"
    world.decide(_asked(world, run).id, "IT_HAPPENED")
    assert world.state(run) == "RUNNING"
    assert world.gate(run, worker="w2", step="s2", place="p2", args={"speed": 2}).verdict == PROCEED


# What is shown, and what is offered


def test_what_is_known_is_shown(world: Any) -> None:
    run = _in_doubt(world)
    world.gate(run, worker="w2", args={"speed": 1})
    row = _asked(world, run)
    assert json.loads(row.args) == {"speed": 1}
    assert json.loads(row.question) == {
        "started": world.now,
        "worker": "w1",
        "attempt": 1,
        "epoch": 1,
        "outcome": "killed",
        "host_confirmed_dead": True,
        "call_waits": True,
    }


def test_a_later_lease_of_the_same_worker_is_no_proof_that_the_earlier_host_is_dead(world: Any) -> None:
    run = _started(world)
    world.lose(dead=False)
    _again(world, run, "w1")
    world.gate(run)
    row = _asked(world, run)
    assert _decisions(row) == {"IT_HAPPENED", "GIVE_UP"}
    assert json.loads(row.question)["host_confirmed_dead"] is False


def test_to_do_it_again_is_offered_once_the_silent_worker_is_known_to_be_dead(world: Any) -> None:
    run = _in_doubt(world, dead=False)
    world.gate(run, worker="w2")
    assert _decisions(_asked(world, run)) == {"IT_HAPPENED", "GIVE_UP"}
    world.lose("w1", dead=True)
    row = _asked(world, run)
    assert _decisions(row) == {"IT_HAPPENED", "DO_AGAIN", "GIVE_UP"}
    assert json.loads(row.question)["host_confirmed_dead"] is True
    world.decide(row.id, "DO_AGAIN")
    assert world.gate(run, worker="w2").attempt == 2


def test_the_death_of_another_worker_offers_nothing(world: Any) -> None:
    run = _in_doubt(world, dead=False)
    world.gate(run, worker="w2")
    world.lose("w3", dead=True)
    assert _decisions(_asked(world, run)) == {"IT_HAPPENED", "GIVE_UP"}


def test_a_call_to_which_nothing_comes_back_is_not_done_again_whoever_is_dead(world: Any) -> None:
    run = _in_doubt(world, dead=False)
    world.finish(run, worker="w2")
    world.lose("w1", dead=True)
    row = _asked(world, run)
    assert _decisions(row) == {"IT_HAPPENED", "GIVE_UP"}
    assert json.loads(row.question)["host_confirmed_dead"] is True


# To do it again is a start like any other


def test_a_rule_that_wants_two_people_gets_two_before_an_effect_is_done_again(world: Any) -> None:
    run = _in_doubt(world)
    world.policy(asks(count=2))
    world.gate(run, worker="w2")
    world.decide(_asked(world, run).id, "DO_AGAIN", by="bob")
    assert world.gate(run, worker="w2").verdict == ASK
    row = _asked(world, run)
    assert (row.kind, row.required_count) == (approval_pb2.APPROVAL_KIND_ACTION, 2)
    world.decide(row.id, "APPROVE", by="bob")
    world.decide(row.id, "APPROVE", by="cat")
    answer = world.gate(run, worker="w2")
    assert (answer.verdict, answer.attempt) == (PROCEED, 2)


def test_a_rule_that_has_come_to_name_others_asks_them_before_an_effect_is_done_again(world: Any) -> None:
    run = _in_doubt(world)
    world.gate(run, worker="w2")
    world.decide(_asked(world, run).id, "DO_AGAIN")
    world.policy(asks(roles=["admin"]))
    assert world.gate(run, worker="w2").verdict == ASK
    assert _asked(world, run).kind == approval_pb2.APPROVAL_KIND_ACTION


def test_leave_to_do_it_again_becomes_stale_as_an_approval_does(world: Any) -> None:
    run = _in_doubt(world)
    world.policy(asks(valid_for="60s"))
    world.gate(run, worker="w2")
    world.decide(_asked(world, run).id, "DO_AGAIN")
    world.now += 61
    assert world.gate(run, worker="w2").verdict == ASK


# Idempotency keys


def test_every_attempt_at_a_step_has_one_idempotency_key_and_no_other_step_has_it(world: Any) -> None:
    world.agent()
    world.policy(ALLOW)
    runs = [world.started(), world.started()]
    keys = [world.gate(run, effect="IDEMPOTENT", step=step).idempotency_key for run in runs for step in "ab"]
    assert len(set(keys)) == 4
    world.lose(dead=True)
    world.room.worker = "w2"
    assert world.claim() == 2
    again = [world.gate(run, effect="IDEMPOTENT", step=step, worker="w2") for run in runs for step in "ab"]
    assert [answer.idempotency_key for answer in again] == keys
    assert {answer.attempt for answer in again} == {2}


# Another call in the place of one that is on record


def _other(world: Any, run: str, **values: Any) -> worker_pb2.GateAnswer:
    wanted: dict[str, Any] = {"step": "s2", "place": "p", "args": {"speed": 2}} | values
    return world.gate(run, **wanted)  # type: ignore[no-any-return]


def _done(world: Any) -> str:
    """A run whose call of ``turn`` has ended well."""
    run = _started(world)
    world.closed(run, "n")
    return run


def test_another_digest_in_a_recorded_place_is_a_question_and_no_new_call(world: Any) -> None:
    run = _done(world)
    assert _other(world, run).verdict == ASK
    row = _asked(world, run)
    assert row.kind == approval_pb2.APPROVAL_KIND_RECOVERY
    assert json.loads(row.args) == {"speed": 2}
    known = json.loads(row.question)
    assert (known["recorded_args"], known["recorded_result"], known["outcome"]) == (
        {"speed": 1},
        "done",
        "finished",
    )
    assert "Is that this call?" in known["question"]
    assert _other(world, run).verdict == ASK, "asked once"
    assert len(world.pending(run)) == 1


def test_the_same_call_in_its_place_is_answered_from_the_record(world: Any) -> None:
    run = _done(world)
    assert world.gate(run, place="p").verdict == RECORDED


def test_it_happened_gives_the_other_call_the_recorded_result_and_goes_on_doing_so(world: Any) -> None:
    run = _done(world)
    world.tx(lambda tx: tx.execute(update(schema.steps).values(result_type="json", result=b'"of the first"')))
    _other(world, run)
    world.host(run, park=worker_pb2.Park(asking_steps=["s2"]))
    world.decide(_asked(world, run).id, "IT_HAPPENED")
    assert world.state(run) == "RUNNING"
    for _ in range(2):
        answer = _other(world, run)
        assert (answer.verdict, answer.result.data) == (RECORDED, b'"of the first"')
    world.host(run, park=worker_pb2.Park(asking_steps=["s9"]))
    assert world.state(run) == "AWAITING", "what was said wakes the run once"


def test_it_happened_gives_the_other_call_the_result_that_a_person_gives(world: Any) -> None:
    run = _done(world)
    _other(world, run)
    world.decide(_asked(world, run).id, "IT_HAPPENED", value='"receipt 17"')
    assert _other(world, run).result.data == b'"receipt 17"'


def test_giving_the_other_call_up_refuses_it(world: Any) -> None:
    run = _done(world)
    _other(world, run)
    world.decide(_asked(world, run).id, "GIVE_UP")
    answer = _other(world, run)
    assert (answer.verdict, answer.reason) == (REFUSE, "ABANDONED")


def test_the_other_call_that_a_person_lets_go_starts_as_far_as_policy_does(world: Any) -> None:
    run = _done(world)
    _other(world, run)
    world.decide(_asked(world, run).id, "DO_AGAIN")
    world.policy(asks(count=1))
    assert _other(world, run).verdict == ASK
    world.decide(_asked(world, run).id, "APPROVE")
    answer = _other(world, run)
    assert (answer.verdict, answer.attempt) == (PROCEED, 1)
    world.closed(run, "n")
    assert world.gate(run, place="p").verdict == RECORDED


def test_while_the_recorded_call_may_be_at_work_the_other_can_not_be_let_go(world: Any) -> None:
    run = _started(world)
    _other(world, run)
    assert _decisions(_asked(world, run)) == {"IT_HAPPENED", "GIVE_UP"}


def test_a_doubt_about_the_recorded_call_is_asked_about_first(world: Any) -> None:
    run = _in_doubt(world)
    _other(world, run, worker="w2")
    row = _asked(world, run)
    assert (row.step, row.rule) == ("s1", "recovery")
    world.decide(row.id, "IT_HAPPENED")
    assert _other(world, run, worker="w2").verdict == ASK
    assert _asked(world, run).rule == "recovery:other-call"


@pytest.mark.parametrize(("effect", "verdict"), [("READ", PROCEED), ("IDEMPOTENT", ASK), ("UNSAFE", ASK)])
def test_what_only_reads_may_differ_each_time(world: Any, effect: str, verdict: int) -> None:
    world.agent()
    world.policy(ALLOW)
    run = world.started()
    world.gate(run, nonce="n", place="p", effect=effect)
    world.closed(run, "n")
    assert _other(world, run, effect=effect).verdict == verdict


def test_a_call_that_never_started_has_had_no_turn(world: Any) -> None:
    run = _started(world)
    world.closed(run, "n", outcome="NOT_STARTED")
    assert _other(world, run).verdict == PROCEED


def test_calls_in_other_places_and_of_other_runs_are_nobodys_concern(world: Any) -> None:
    run = _done(world)
    assert _other(world, run, place="q").verdict == PROCEED
    assert _other(world, run, place="", step="s3").verdict == PROCEED
    assert _other(world, world.started()).verdict == PROCEED


def test_another_digest_under_the_very_key_is_a_question_too(world: Any) -> None:
    run = _done(world)
    assert world.gate(run, digest="another", args={"speed": 2}).verdict == ASK
    row = _asked(world, run)
    assert (row.digest, row.rule) == ("another", "recovery:other-call")
    world.decide(row.id, "DO_AGAIN")
    answer = world.gate(run, digest="another", nonce="m", args={"speed": 2})
    assert (answer.verdict, answer.attempt) == (PROCEED, 2)
    world.closed(run, "m")
    assert world.gate(run, digest="another", args={"speed": 2}).verdict == RECORDED


def test_a_question_about_a_call_that_never_started_ends_with_its_run(world: Any) -> None:
    run = _done(world)
    _other(world, run)
    world.latch("HALT", "run", run)
    world.stop_report(run)
    assert world.state(run) == "HALTED"
    assert world.pending(run) == []


def test_a_read_with_another_digest_under_the_very_key_is_read_anew(world: Any) -> None:
    world.agent()
    run = world.started()
    assert world.gate(run, nonce="n", effect="READ").verdict == PROCEED
    world.closed(run, "n")
    assert world.gate(run, digest="another", effect="READ").verdict == PROCEED
