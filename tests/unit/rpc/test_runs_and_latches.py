"""Runs, approvals and latches over gRPC, with a worker at the other end of a real stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fermata.server.lifecycle import leases
from fermata.v1 import (
    agent_pb2,
    approval_pb2,
    latch_pb2,
    model_pb2,
    policy_pb2,
    run_pb2,
    thread_pb2,
    worker_pb2,
)

PARENT = "tenants/default"
PROCEED = worker_pb2.GATE_VERDICT_PROCEED
ASK = worker_pb2.GATE_VERDICT_ASK
STOP = worker_pb2.GATE_VERDICT_STOP
HOLD, HALT = latch_pb2.LATCH_KIND_HOLD, latch_pb2.LATCH_KIND_HALT
RULE = """version: 1
rules:
  - {id: fast, match: {tool: turn}, when: args.speed + 1 > 100, decide: DENY}
"""


def _gate(step: str = "s1", nonce: str = "n1", speed: int = 10) -> worker_pb2.Gate:
    return worker_pb2.Gate(
        step=step,
        nonce=nonce,
        tool="turn",
        args=json.dumps({"speed": speed}),
        digest=f"digest of {step}",
        effect=run_pb2.EFFECT_CLASS_UNSAFE,
    )


def _create(agent_: str, **values: Any) -> run_pb2.CreateRunRequest:
    wanted: dict[str, Any] = {"parent": PARENT, "agent": agent_, "text": "turn it"} | values
    return run_pb2.CreateRunRequest(**wanted)


def _decide(approval: approval_pb2.Approval, decision: str, **values: Any) -> Any:
    return approval_pb2.DecideApprovalRequest(
        name=approval.name,
        decision=approval_pb2.Decision.Value(f"DECISION_{decision}"),
        digest=approval.digest,
        **values,
    )


async def _latch(caller: Any, kind: Any, **scope: Any) -> latch_pb2.Latch:
    latch = latch_pb2.Latch(kind=kind, scope=latch_pb2.LatchScope(**scope))
    request = latch_pb2.CreateLatchRequest(parent=PARENT, latch=latch)
    return await caller.call("LatchService.CreateLatch", request)  # type: ignore[no-any-return]


async def _asking(admin: Any, worker: Any, agent: str) -> tuple[worker_pb2.Lease, approval_pb2.Approval]:
    """A parked run's lease, and the approval that it waits for."""
    await admin.call("RunService.CreateRun", _create(agent))
    assign = await worker.next("assign")
    reply = await worker.ask(assign.lease, 1, gate=_gate())
    assert reply.gate.verdict == ASK
    await worker.ask(assign.lease, 2, park=worker_pb2.Park(asking_steps=["s1"]))
    approval = await admin.call(
        "ApprovalService.GetApproval", approval_pb2.GetApprovalRequest(name=reply.gate.approval)
    )
    return assign.lease, approval


@asynccontextmanager
async def _watching(caller: Any, method: str, request: Any) -> AsyncIterator[Any]:
    service, name = method.split(".")
    call = getattr(caller.stub(service), name)(request, metadata=caller.metadata)
    try:
        yield call
    finally:
        call.cancel()


async def _read(call: Any, seconds: float = 5) -> Any:
    return await asyncio.wait_for(call.read(), seconds)


async def test_a_run_from_its_text_to_its_answer(admin: Any, worker: Any, agent: str) -> None:
    run = await admin.call("RunService.CreateRun", _create(agent, request_id="r1"))
    assert await admin.call("RunService.CreateRun", _create(agent, request_id="r1")) == run
    assign = await worker.next("assign")
    assert assign.lease.run == run.name
    assert assign.input["messages"][0]["content"] == "turn it"
    finish = worker_pb2.Finish(answer="Turned.")
    await worker.ask(assign.lease, 1, finish=finish)
    async with _watching(
        admin, "RunService.WatchRuns", run_pb2.WatchRunsRequest(parent=PARENT, run=run.name)
    ) as call:
        seen = [response.event async for response in call if response.HasField("event")]
    assert [event.sequence for event in seen] == [1, 2, 3]
    assert run_pb2.EventType.Name(seen[-1].type) == "EVENT_TYPE_SUCCEEDED"
    done = await admin.call("RunService.GetRun", run_pb2.GetRunRequest(name=run.name))
    assert (done.answer, run_pb2.RunState.Name(done.state)) == ("Turned.", "RUN_STATE_SUCCEEDED")


async def test_an_approval_is_asked_decided_and_used(admin: Any, worker: Any, agent: str, make: Any) -> None:
    lease, approval = await _asking(admin, worker, agent)
    listed = await admin.call(
        "ApprovalService.ListApprovals", approval_pb2.ListApprovalsRequest(parent=PARENT)
    )
    assert list(listed.approvals) == [approval]
    eve = await make("eve", "OPERATOR")
    refused = await eve.refusal("ApprovalService.DecideApproval", _decide(approval, "APPROVE"))
    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "NOT_APPROVER")
    bob = await make("bob", "APPROVER")
    decided = await bob.call("ApprovalService.DecideApproval", _decide(approval, "APPROVE", request_id="d"))
    assert decided.decided_by == f"{PARENT}/principals/bob"
    await worker.next("resume")
    again = await bob.call("ApprovalService.DecideApproval", _decide(approval, "APPROVE", request_id="d"))
    assert again == decided
    reply = await worker.ask(lease, 3, gate=_gate(nonce="n2"))
    assert reply.gate.verdict == PROCEED


async def test_edited_arguments_keep_their_whole_numbers(admin: Any, worker: Any, agent: str) -> None:
    lease, approval = await _asking(admin, worker, agent)
    await admin.call(
        "PolicyService.UpdatePolicy",
        policy_pb2.UpdatePolicyRequest(policy=policy_pb2.Policy(name=f"{PARENT}/policy", text=RULE)),
    )
    request = _decide(approval, "EDIT")
    request.edited_args.update({"speed": 5})
    await admin.call("ApprovalService.DecideApproval", request)
    await worker.next("resume")
    reply = await worker.ask(lease, 3, gate=_gate(nonce="n2"))
    assert (reply.gate.verdict, reply.gate.edited_args) == (PROCEED, '{"speed":5}')


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"text": " "}, "INPUT_EMPTY"),
        ({"agent": f"{PARENT}/agents/none"}, "AGENT_NOT_FOUND"),
        ({"agent": "tenants/other/agents/operator"}, "OTHER_TENANT"),
        ({"thread": f"{PARENT}/threads/none"}, "THREAD_NOT_FOUND"),
        ({"thread": "tenants/other/threads/none"}, "OTHER_TENANT"),
        ({"parent": "tenants/other"}, "OTHER_TENANT"),
        ({"parent": ""}, "INVALID_NAME"),
    ],
)
async def test_a_run_that_cannot_be_made_says_why(
    admin: Any, agent: str, values: dict[str, str], reason: str
) -> None:
    assert (await admin.refusal("RunService.CreateRun", _create(agent, **values))).reason == reason


async def test_a_run_needs_an_input_that_is_json(admin: Any, agent: str) -> None:
    request = run_pb2.CreateRunRequest(parent=PARENT, agent=agent)
    assert (await admin.refusal("RunService.CreateRun", request)).reason == "INPUT_EMPTY"
    request.values.update({"number": float("nan")})
    assert (await admin.refusal("RunService.CreateRun", request)).reason == "VALUE_INVALID"


async def test_a_filter_that_names_another_tenants_thing_is_refused(admin: Any) -> None:
    for method, request in (
        ("RunService.ListRuns", run_pb2.ListRunsRequest(parent=PARENT, agent="tenants/other/agents/a")),
        ("RunService.ListRuns", run_pb2.ListRunsRequest(parent=PARENT, thread="tenants/other/threads/a")),
        (
            "ApprovalService.ListApprovals",
            approval_pb2.ListApprovalsRequest(parent=PARENT, run="tenants/other/runs/a"),
        ),
    ):
        assert (await admin.refusal(method, request)).reason == "OTHER_TENANT"


async def test_runs_are_listed_newest_first_in_pages_and_by_state(
    admin: Any, worker: Any, agent: str
) -> None:
    made = [(await admin.call("RunService.CreateRun", _create(agent))).name for _ in range(3)]
    request = run_pb2.ListRunsRequest(parent=PARENT, page_size=2)
    first = await admin.call("RunService.ListRuns", request)
    request.page_token = first.next_page_token
    second = await admin.call("RunService.ListRuns", request)
    assert [run.name for page in (first, second) for run in page.runs] == made[::-1]
    none = run_pb2.ListRunsRequest(parent=PARENT, states=[run_pb2.RUN_STATE_FAILED])
    assert not (await admin.call("RunService.ListRuns", none)).runs


async def test_a_halt_settles_with_the_workers_word_and_every_watcher_sees_it(
    admin: Any, worker: Any, agent: str
) -> None:
    run = await admin.call("RunService.CreateRun", _create(agent))
    assign = await worker.next("assign")
    latch = await _latch(admin, HALT, run=run.name)
    assert latch.state == latch_pb2.LATCH_STATE_LATCHED
    async with _watching(
        admin, "LatchService.WatchLatch", latch_pb2.WatchLatchRequest(name=latch.name)
    ) as call:
        assert (await _read(call)).latch.state == latch_pb2.LATCH_STATE_LATCHED
        stop = await worker.next("stop")
        assert (stop.mode, stop.latch) == (worker_pb2.STOP_MODE_HALT, latch.name)
        report = worker_pb2.StopReport(lease=assign.lease, latch=latch.name)
        await worker.send(worker_pb2.WorkerMessage(stop_report=report))
        assert (await _read(call)).latch.state == latch_pb2.LATCH_STATE_SETTLED
    # The latch covers the run, not its thread.
    await admin.call("RunService.CreateRun", _create(agent, thread=run.thread))


async def test_a_stop_report_stays_behind_what_its_host_said_however_large_that_was(
    admin: Any, worker: Any, agent: str
) -> None:
    run = await admin.call("RunService.CreateRun", _create(agent))
    lease = (await worker.next("assign")).lease
    gate = _gate()
    gate.effect = run_pb2.EFFECT_CLASS_READ
    assert (await worker.ask(lease, 1, gate=gate)).gate.verdict == PROCEED
    latch = await _latch(admin, HALT, run=run.name)
    result = worker_pb2.Blob(type="json", data=b"1" * 200_000)
    closed = worker_pb2.StepClosed(
        step="s1", nonce="n1", outcome=run_pb2.STEP_OUTCOME_FINISHED, result=result
    )
    report = worker_pb2.StopReport(lease=lease, latch=latch.name)
    await worker.send(
        worker_pb2.WorkerMessage(host=worker_pb2.HostMessage(lease=lease, id=2, step_closed=closed)),
        worker_pb2.WorkerMessage(stop_report=report),
    )
    async with _watching(
        admin, "LatchService.WatchLatch", latch_pb2.WatchLatchRequest(name=latch.name)
    ) as call:
        settled = (await _read(call)).latch
        while settled.state == latch_pb2.LATCH_STATE_LATCHED:
            settled = (await _read(call)).latch
    assert [step.status for step in settled.steps] == [latch_pb2.LATCH_STEP_STATUS_FINISHED]


async def test_a_halt_during_a_workers_break_reaches_it_when_it_comes_back(
    admin: Any, worker: Any, agent: str, worker_caller: Any
) -> None:
    run = await admin.call("RunService.CreateRun", _create(agent))
    assign = await worker.next("assign")
    await worker.disconnect()
    latch = await _latch(admin, HALT, run=run.name)
    await worker.connect(worker_caller, [assign.lease])
    stop = await worker.next("stop")
    assert (stop.mode, stop.latch) == (worker_pb2.STOP_MODE_HALT, latch.name)
    assert not worker.welcome.lost


async def test_a_decision_during_a_workers_break_reaches_it_when_it_comes_back(
    admin: Any, worker: Any, agent: str, worker_caller: Any
) -> None:
    lease, approval = await _asking(admin, worker, agent)
    await worker.disconnect()
    await admin.call("ApprovalService.DecideApproval", _decide(approval, "APPROVE"))
    await worker.connect(worker_caller, [lease])
    assert (await worker.next("resume")).lease == lease


async def test_a_worker_is_told_which_leases_it_has_lost(worker: Any, worker_caller: Any) -> None:
    await worker.disconnect()
    lease = worker_pb2.Lease(run=f"{PARENT}/runs/gone", epoch=3)
    await worker.connect(worker_caller, [lease])
    assert list(worker.welcome.lost) == [lease]


@pytest.mark.parametrize("kind", [0, 77])
async def test_a_latch_is_a_hold_or_a_halt(admin: Any, kind: int) -> None:
    latch = latch_pb2.Latch(kind=kind, scope=latch_pb2.LatchScope(tenant=True))  # type: ignore[arg-type]
    request = latch_pb2.CreateLatchRequest(parent=PARENT, latch=latch)
    refused = await admin.refusal("LatchService.CreateLatch", request)
    assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "LATCH_KIND")


@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        ({}, "LATCH_SCOPE"),
        ({"run": "tenants/other/runs/r"}, "LATCH_SCOPE"),
        ({"run": f"{PARENT}/runs/none"}, "RUN_NOT_FOUND"),
        ({"agent": f"{PARENT}/agents/none"}, "AGENT_NOT_FOUND"),
    ],
)
async def test_a_latch_on_nothing_is_refused(admin: Any, scope: dict[str, Any], reason: str) -> None:
    request = latch_pb2.CreateLatchRequest(
        parent=PARENT, latch=latch_pb2.Latch(kind=HALT, scope=latch_pb2.LatchScope(**scope))
    )
    assert (await admin.refusal("LatchService.CreateLatch", request)).reason == reason


async def test_while_the_tenant_is_halted_no_run_is_made(admin: Any, agent: str) -> None:
    latch = await _latch(admin, HALT, tenant=True)
    refused = await admin.refusal("RunService.CreateRun", _create(agent))
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "HALTED")
    assert refused.metadata["latch"] == latch.name
    await admin.call("LatchService.ReleaseLatch", latch_pb2.ReleaseLatchRequest(name=latch.name))
    await admin.call("RunService.CreateRun", _create(agent))
    listed = await admin.call("LatchService.ListLatches", latch_pb2.ListLatchesRequest(parent=PARENT))
    assert not listed.latches


async def test_a_decision_is_named_and_about_what_was_shown(admin: Any, worker: Any, agent: str) -> None:
    _, approval = await _asking(admin, worker, agent)
    for decision, reason in ((0, "DECISION_MISSING"), (77, "DECISION_NOT_ALLOWED")):
        request = approval_pb2.DecideApprovalRequest(name=approval.name, digest=approval.digest)
        request.decision = decision  # type: ignore[assignment]
        assert (await admin.refusal("ApprovalService.DecideApproval", request)).reason == reason
    request = approval_pb2.DecideApprovalRequest(
        name=approval.name, digest="another", decision=approval_pb2.DECISION_APPROVE
    )
    refused = await admin.refusal("ApprovalService.DecideApproval", request)
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "APPROVAL_DIGEST_MISMATCH")


async def test_who_watches_approvals_sees_those_that_wait_and_what_becomes_of_them(
    admin: Any, worker: Any, agent: str
) -> None:
    _, approval = await _asking(admin, worker, agent)
    async with _watching(
        admin, "ApprovalService.WatchApprovals", approval_pb2.WatchApprovalsRequest(parent=PARENT)
    ) as call:
        first = await _read(call)
        assert first.approval == approval
        await admin.call("ApprovalService.DecideApproval", _decide(approval, "REJECT", comment="no"))
        second = await _read(call)
        assert (second.approval.state, second.approval.comment) == (
            approval_pb2.APPROVAL_STATE_REJECTED,
            "no",
        )
    # A stream that resumes from a cursor misses nothing and repeats nothing.
    request = approval_pb2.WatchApprovalsRequest(parent=PARENT, cursor=first.cursor)
    async with _watching(admin, "ApprovalService.WatchApprovals", request) as call:
        assert await _read(call) == second


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 30, "²"])
async def test_a_cursor_that_is_not_ours_is_refused(admin: Any, cursor: str) -> None:
    for method, request in (
        ("RunService.WatchRuns", run_pb2.WatchRunsRequest(parent=PARENT, cursor=cursor)),
        (
            "ApprovalService.WatchApprovals",
            approval_pb2.WatchApprovalsRequest(parent=PARENT, cursor=cursor),
        ),
    ):
        async with _watching(admin, method, request) as call:
            with pytest.raises(Exception, match="cursor is not one"):
                await _read(call)


async def test_text_that_a_model_writes_reaches_those_who_watch_its_thread_and_no_others(
    admin: Any, worker: Any, agent: str
) -> None:
    runs = [await admin.call("RunService.CreateRun", _create(agent)) for _ in range(2)]
    leases = {assign.lease.run: assign.lease for assign in [await worker.next("assign") for _ in runs]}
    mine, other = (leases[run.name] for run in runs)

    def delta(lease: worker_pb2.Lease, run: str, text: str) -> worker_pb2.WorkerMessage:
        written = run_pb2.TokenDelta(run=run, message_id="m", text=text)
        return worker_pb2.WorkerMessage(host=worker_pb2.HostMessage(lease=lease, delta=written))

    request = run_pb2.WatchRunsRequest(parent=PARENT, thread=runs[0].thread, deltas=True)
    async with _watching(admin, "RunService.WatchRuns", request) as call:
        while not (response := await _read(call)).HasField("event"):
            pass
        await asyncio.sleep(0)
        await worker.send(
            delta(other, other.run, "of another thread"),
            delta(other, mine.run, "in another run's name"),
            delta(mine, "tenants/other/runs/x", "mine"),
        )
        while not (response := await _read(call)).HasField("delta"):
            pass
        assert (response.delta.run, response.delta.text) == (mine.run, "mine")


async def test_a_thread_knows_its_active_run(admin: Any, worker: Any, agent: str) -> None:
    run = await admin.call("RunService.CreateRun", _create(agent))
    thread = await admin.call("ThreadService.GetThread", thread_pb2.GetThreadRequest(name=run.thread))
    assert thread.active_run == run.name
    refused = await admin.refusal("RunService.CreateRun", _create(agent, thread=run.thread))
    assert (refused.reason, refused.metadata["run"]) == ("THREAD_BUSY", run.name)


async def test_a_message_that_interrupts_does_so_once_however_often_it_is_sent(
    admin: Any, worker: Any, agent: str
) -> None:
    first = await admin.call("RunService.CreateRun", _create(agent))
    lease = (await worker.next("assign")).lease
    wanted = _create(
        agent,
        thread=first.thread,
        multitask_strategy=thread_pb2.MULTITASK_STRATEGY_INTERRUPT,
        request_id="the-same",
    )
    second = await admin.call("RunService.CreateRun", wanted)
    assert (second.state, second.in_line) == (run_pb2.RUN_STATE_QUEUED, True)
    assert await admin.call("RunService.CreateRun", wanted) == second
    assert (await worker.next("stop")).mode == worker_pb2.STOP_MODE_HALT
    await worker.send(worker_pb2.WorkerMessage(stop_report=worker_pb2.StopReport(lease=lease)))
    assert (await worker.next("assign")).lease.run == second.name
    assert await admin.call("RunService.CreateRun", wanted) == second
    ended = await admin.call("RunService.GetRun", run_pb2.GetRunRequest(name=first.name))
    assert (ended.state, ended.successor) == (run_pb2.RUN_STATE_CANCELLED, second.name)
    runs = await admin.call("RunService.ListRuns", run_pb2.ListRunsRequest(parent=PARENT))
    assert len(runs.runs) == 2


async def test_the_end_of_a_host_whose_lease_is_lost_ends_the_call_that_it_was_in(
    admin: Any, worker: Any, agent: str, server: Any
) -> None:
    run = await admin.call("RunService.CreateRun", _create(agent))
    lease = (await worker.next("assign")).lease
    call = worker_pb2.Gate(step="s1", nonce="n1", tool="look", args="{}", effect=run_pb2.EFFECT_CLASS_READ)
    assert (await worker.ask(lease, 1, gate=call)).gate.verdict == PROCEED
    id_ = run.name.rsplit("/", 1)[1]
    await server.plane.write(lambda tx: leases.lose_lease(tx, "default", id_, "silent", dead=False))
    again = (await worker.next("assign")).lease
    assert again.epoch == 2
    ended = worker_pb2.HostEnded(leases=[lease], exit_code=-9)
    await worker.send(worker_pb2.WorkerMessage(host_ended=ended))
    # What the new host asks is taken behind it.
    await worker.ask(again, 1, model_query=worker_pb2.ModelQuery(key="k"))
    steps = await admin.call("RunService.ListSteps", run_pb2.ListStepsRequest(parent=run.name))
    assert [step.outcome for step in steps.steps] == [run_pb2.STEP_OUTCOME_KILLED]


async def test_the_strategy_of_a_thread_is_set_when_it_is_made(admin: Any, worker: Any, agent: str) -> None:
    made = thread_pb2.Thread(multitask_strategy=thread_pb2.MULTITASK_STRATEGY_ENQUEUE)
    request = thread_pb2.CreateThreadRequest(parent=PARENT, thread=made)
    thread = await admin.call("ThreadService.CreateThread", request)
    assert thread.multitask_strategy == thread_pb2.MULTITASK_STRATEGY_ENQUEUE
    await admin.call("RunService.CreateRun", _create(agent, thread=thread.name))
    second = await admin.call("RunService.CreateRun", _create(agent, thread=thread.name))
    assert second.in_line
    plain = await admin.call("ThreadService.CreateThread", thread_pb2.CreateThreadRequest(parent=PARENT))
    assert plain.multitask_strategy == thread_pb2.MULTITASK_STRATEGY_REJECT


async def test_a_strategy_of_a_newer_client_is_refused(admin: Any, worker: Any, agent: str) -> None:
    refused = await admin.refusal("RunService.CreateRun", _create(agent, multitask_strategy=99))
    assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "STRATEGY_UNKNOWN")
    thread = thread_pb2.CreateThreadRequest(
        parent=PARENT,
        thread=thread_pb2.Thread(multitask_strategy=99),  # type: ignore[arg-type]
    )
    refused = await admin.refusal("ThreadService.CreateThread", thread)
    assert refused.reason == "STRATEGY_UNKNOWN"


async def test_workers_are_listed(admin: Any, worker: Any) -> None:
    listed = await admin.call("WorkerService.ListWorkers", worker_pb2.ListWorkersRequest())
    [entry] = listed.workers
    assert (entry.worker, entry.capacity, entry.state) == ("w1", 8, worker_pb2.WORKER_STATE_CONNECTED)


async def test_runs_that_wait_take_no_room_after_a_workers_break(
    admin: Any, worker: Any, agent: str, worker_caller: Any
) -> None:
    lease, _ = await _asking(admin, worker, agent)
    await worker.disconnect()
    worker.capacity = 1
    await worker.connect(worker_caller, [lease])
    run = await admin.call("RunService.CreateRun", _create(agent))
    assert (await worker.next("assign")).lease.run == run.name


async def test_a_run_that_parks_and_goes_on_at_once_keeps_its_place(
    admin: Any, worker: Any, agent: str, server: Any
) -> None:
    await admin.call("RunService.CreateRun", _create(agent))
    lease = (await worker.next("assign")).lease
    approval = (await worker.ask(lease, 1, gate=_gate())).gate.approval
    shown = await admin.call("ApprovalService.GetApproval", approval_pb2.GetApprovalRequest(name=approval))
    await admin.call("ApprovalService.DecideApproval", _decide(shown, "APPROVE"))
    reply = await worker.ask(lease, 2, park=worker_pb2.Park(asking_steps=["s1"]))
    assert reply.HasField("resume")
    assert server.plane.workers.get("w1").runs == {lease.run}


async def test_a_search_does_not_wait_for_a_worker_that_went_away(admin: Any, worker: Any) -> None:
    worker.silent = True
    request = model_pb2.EmbedTextsRequest(parent=PARENT, texts=["a"])
    asked = asyncio.create_task(admin.refusal("ModelService.EmbedTexts", request))
    await worker.next("embed")
    await worker.disconnect()
    refused = await asked
    assert (refused.code, refused.reason) == ("UNAVAILABLE", "WORKER_LOST")


async def test_a_host_gets_an_answer_whatever_fails_and_none_of_the_servers_insides(
    admin: Any, worker: Any, agent: str
) -> None:
    await admin.call("RunService.CreateRun", _create(agent))
    assign = await worker.next("assign")
    broken = worker_pb2.Gate(step="s1", nonce="n1", tool="turn", args="{", digest="d")
    elsewhere = worker_pb2.Lease(run="nonsense", epoch=1)
    search = worker_pb2.HostMessage().search
    for lease, body in ((assign.lease, {"gate": broken}), (elsewhere, {"search": search})):
        reply = await worker.ask(lease, 7, **body)
        assert reply.error.reason in ("INTERNAL", "INVALID_NAME")
        assert "Traceback" not in reply.error.message
        assert "line 1 column" not in reply.error.message


async def test_a_host_whose_lease_was_lost_is_told_to_be_dead_and_its_effect_may_be_done_again(
    admin: Any, worker: Any, agent: str, server: Any, worker_caller: Any
) -> None:
    allow = "version: 1\nrules:\n  - {id: all, decide: ALLOW}\n"
    await admin.call(
        "PolicyService.UpdatePolicy",
        policy_pb2.UpdatePolicyRequest(policy=policy_pb2.Policy(name=f"{PARENT}/policy", text=allow)),
    )
    run = await admin.call("RunService.CreateRun", _create(agent))
    first = (await worker.next("assign")).lease
    assert (await worker.ask(first, 1, gate=_gate())).gate.verdict == PROCEED
    await server.plane.write(lambda tx: leases.lose_worker(tx, "w1", "silent", dead=False))
    second = (await worker.next("assign")).lease
    assert second.epoch == 2
    asked = (await worker.ask(second, 1, gate=_gate(nonce="n2"))).gate
    assert asked.verdict == ASK
    request = approval_pb2.GetApprovalRequest(name=asked.approval)
    shown = await admin.call("ApprovalService.GetApproval", request)
    assert approval_pb2.DECISION_DO_AGAIN not in shown.allowed_decisions
    ended = worker_pb2.HostEnded(leases=[first], exit_code=-9)
    await worker.send(worker_pb2.WorkerMessage(host_ended=ended))
    await worker.ask(second, 2, commit=worker_pb2.Commit())
    shown = await admin.call("ApprovalService.GetApproval", request)
    assert approval_pb2.DECISION_DO_AGAIN in shown.allowed_decisions
    assert shown.question.struct_value["host_confirmed_dead"]
    now = await admin.call("RunService.GetRun", run_pb2.GetRunRequest(name=run.name))
    assert (now.worker, now.epoch) == ("w1", 2), "the lease of now is not touched"


@pytest.mark.parametrize("validate_only", [True, False])
async def test_an_agent_that_writes_its_state_late_and_does_more_than_read_is_refused(
    admin: Any, worker: Any, validate_only: bool
) -> None:
    spec = agent_pb2.AgentSpec(graph="graphs:operator", durability=agent_pb2.DURABILITY_ASYNC)
    request = agent_pb2.ApplyAgentRequest(
        name=f"{PARENT}/agents/late", spec=spec, validate_only=validate_only
    )
    refused = await admin.refusal("AgentService.ApplyAgent", request)
    assert (refused.reason, refused.metadata["tools"]) == ("DURABILITY_NOT_ALLOWED", "turn")
    spec.tool_declarations["turn"].effect = run_pb2.EFFECT_CLASS_READ
    request.spec.CopyFrom(spec)
    applied = await admin.call("AgentService.ApplyAgent", request)
    assert applied.revision.spec.durability == agent_pb2.DURABILITY_ASYNC
