"""What hosts send. Each message is one transaction: what the graph has done since the last one, and the step that it wants to take."""

from __future__ import annotations

import json

from google.protobuf import json_format

from fermata.server.approvals import records as approvals
from fermata.server.errors import precondition
from fermata.server.latches import records as latch_records
from fermata.server.ledger import models, steps
from fermata.server.ledger.gate import GateKeeper
from fermata.server.ledger.limits import exceeded_by_step
from fermata.server.lifecycle.ending import end
from fermata.server.lifecycle.resumption import (
    TAKEN,
    build_resume,
    has_news,
    is_covered,
    mark_taken,
    note_news,
    resume_if_possible,
)
from fermata.server.lifecycle.stopping import settle, step_ended
from fermata.server.names import parse
from fermata.server.policy.rules import ApprovalRequirement
from fermata.server.runs.record import RunRecord, open_run
from fermata.server.runs.transitions import AWAITING, HALTING, HELD, RUNNING, Move
from fermata.server.store.database import Transaction
from fermata.server.threads import beside, checkpoints
from fermata.v1 import run_pb2, worker_pb2

_REPORTED_BY_HOSTS = (
    run_pb2.EVENT_TYPE_NODE_FINISHED,
    run_pb2.EVENT_TYPE_MESSAGE,
    run_pb2.EVENT_TYPE_CUSTOM,
)
"""Events that a host may put into the history. All others are the server's own word."""

RESUME_CHANNEL = "__resume__"
"""Where LangGraph keeps the answer that an interrupt has taken."""


def receive(
    transaction: Transaction, keeper: GateKeeper, worker: str, message: worker_pb2.HostMessage
) -> worker_pb2.HostReply:
    """Take one message of a host and return the answer.

    :raises DomainError: STALE_EPOCH where the worker does not hold the lease; RUN_STATE, REVISION_NOT_FOUND, INVALID_EVENT.
    """
    name = parse(message.lease.run, "runs")
    reply = worker_pb2.HostReply(lease=message.lease, id=message.id)
    with open_run(transaction, name.tenant, name.id) as run:
        body = message.WhichOneof("body")
        if body == "step_closed":
            # Facts are not thrown away: the nonce shows that this host started the step, whatever the lease says now.
            steps.report(transaction, run, message.step_closed)
            if not run.is_leased_to(worker, message.lease.epoch):
                _withdraw_doubt(transaction, run, message.step_closed.step)
                step_ended(transaction, run)
                reply.error.reason = "STALE_EPOCH"
                return reply
        run.require_lease(worker, message.lease.epoch)
        if _commit(transaction, run, message.id, message.commit) and body != "finish":
            _stop_at_limit(transaction, keeper, run)
        match body:
            case "gate":
                reply.gate.CopyFrom(keeper.pass_gate(transaction, run, message.gate))
            case "park":
                if not (message.park.asking_steps or message.park.interrupts or message.park.latch):
                    # It has come to the end of its super-steps, and has nothing else to say.
                    _stop_at_limit(transaction, keeper, run)
                resume = _park(transaction, keeper, run, message.park)
                if resume is not None:
                    reply.resume.CopyFrom(resume)
                else:
                    reply.ack.SetInParent()
            case "finish":
                _finish(transaction, keeper, run, message.finish)
                reply.ack.SetInParent()
            case "checkpoint_edit":
                beside.edit(transaction, run.tenant, run.thread, message.checkpoint_edit)
                reply.ack.SetInParent()
            case "model_query":
                reply.model.CopyFrom(models.recall(transaction, run, message.model_query))
            case _:
                reply.ack.SetInParent()
    return reply


def _withdraw_doubt(transaction: Transaction, run: RunRecord, key: str) -> None:
    """Ask nobody any more what became of a step whose earlier host has told it after all, and let the run go on with that."""
    step = steps.find(transaction, run.tenant, run.id, key)
    if step is None or step.outcome in (steps.OPEN, steps.KILLED):
        return
    for row in approvals.of_run(transaction, run.tenant, run.id, approvals.PENDING):
        if row.kind == approvals.RECOVERY and row.step == key:
            approvals.close(
                transaction, run, row, approvals.CANCELLED, comment="Its host has told how it ended."
            )
    resume_if_possible(transaction, run, "its outcome is known")


def _stop_at_limit(transaction: Transaction, keeper: GateKeeper, run: RunRecord) -> None:
    """Stop a run that has come to the end of what it may use between two super-steps."""
    if run.state != RUNNING:
        return
    exceeded = exceeded_by_step(keeper.bounds(transaction, run), run)
    if exceeded is not None:
        keeper.stop_at_limit(transaction, run, exceeded)


def _commit(transaction: Transaction, run: RunRecord, number: int, commit: worker_pb2.Commit) -> bool:
    """Store what a message brings along; True where the run has used more of what it may by that.

    :param number: the message's; those of a run come in order, and again after a break. 0 where it has none.
    """
    checkpoints.apply(transaction, run.tenant, run.thread, run.id, commit)
    models.keep(transaction, run, commit.models)
    is_new = not 0 < number <= run.told
    own = sum(not put.namespace and not put.thread for put in commit.checkpoints)
    if own and is_new:
        # The first one has the input, and no step is behind it.
        run.super_steps += own if run.input_committed else own - 1
    if is_new:
        run.tokens += sum(record.tokens for record in commit.models)
    if commit.checkpoints:
        run.input_committed = True
    if any(write.channel == RESUME_CHANNEL for task in commit.writes for write in task.writes):
        mark_taken(transaction, run)
    if not is_new or not (commit.events or commit.checkpoints or commit.models):
        return False
    run.told = max(run.told, number)
    for event in commit.events:
        if event.type not in _REPORTED_BY_HOSTS:
            raise precondition(
                f"A host may not report {run_pb2.EventType.Name(event.type)}.", reason="INVALID_EVENT"
            )
        run.emit(event.type, **json_format.MessageToDict(event.data))
    return bool(own or commit.models)


def _park(
    transaction: Transaction, keeper: GateKeeper, run: RunRecord, park: worker_pb2.Park
) -> worker_pb2.Resume | None:
    """Park a run; or return how it goes on at once, where what it waits for has happened in the meantime."""
    if run.state in (HALTING, HELD):
        # A host that was told twice to go on parks twice; a held run goes on when its latch is lifted.
        return None
    mark_taken(transaction, run)
    _ask_about_interrupts(transaction, keeper, run, park)
    covered = is_covered(transaction, run) or bool(
        park.latch and _still_latched(transaction, run, park.latch)
    )
    waits = bool(park.asking_steps or park.interrupts)
    if waits and run.state == RUNNING:
        run.move(Move.PARK)
        run.emit(
            run_pb2.EVENT_TYPE_AWAITING,
            approvals=[
                row.id for row in approvals.of_run(transaction, run.tenant, run.id, approvals.PENDING)
            ],
        )
    if covered:
        run.move(Move.HOLD)
        run.emit(run_pb2.EVENT_TYPE_HELD, latch=park.latch)
        latch_records.run_stopped(transaction, run.tenant, run.id)
        return None
    if waits and not has_news(transaction, run, park.asking_steps):
        return None
    if run.state == AWAITING:
        run.move(Move.RESUME)
    note_news(transaction, run)
    run.emit(run_pb2.EVENT_TYPE_RESUMED, reason="decided meanwhile" if waits else "released meanwhile")
    return build_resume(transaction, run)


def _still_latched(transaction: Transaction, run: RunRecord, latch: str) -> bool:
    """True where the latch that stopped the run at a gate has not been lifted: a tool's latch covers the call, not the run."""
    wanted = parse(latch, "latches").id
    return any(active.id == wanted for active in latch_records.active(transaction, run.tenant))


def _ask_about_interrupts(
    transaction: Transaction, keeper: GateKeeper, run: RunRecord, park: worker_pb2.Park
) -> None:
    """Put the graph's own interrupts to people; those that are asked already are not asked twice."""
    if not park.interrupts:
        return
    asked = {
        row.interrupt
        for row in approvals.of_run(transaction, run.tenant, run.id)
        if row.interrupt and row.delivered != TAKEN
    }
    for interrupt in park.interrupts:
        if interrupt.interrupt_id in asked:
            continue
        if interrupt.actions:
            for position, action in enumerate(interrupt.actions):
                approvals.ask(
                    transaction,
                    run,
                    keeper.question_of_middleware(transaction, run, interrupt.interrupt_id, position, action),
                )
            continue
        wanted = ApprovalRequirement()
        approvals.ask(
            transaction,
            run,
            approvals.Question(
                kind=approvals.INPUT,
                roles=("operator", "approver"),
                valid_for_seconds=wanted.valid_for_seconds,
                allowed=approvals.ALLOWED_FOR_INPUT,
                rule_reason="The agent asks.",
                question=json.dumps(json_format.MessageToDict(interrupt.value)),
                interrupt=interrupt.interrupt_id,
            ),
        )


def _finish(transaction: Transaction, keeper: GateKeeper, run: RunRecord, finish: worker_pb2.Finish) -> None:
    if run.state == HALTING:
        # It came to its end before the halt reached it; what it has done stays on record.
        run.answer = finish.answer
        if not steps.open_under_lease(transaction, run):
            settle(transaction, run, killed=False)
        # Else a thread of it that can't be stopped is in a call: the worker reports when its process has ended.
        return
    keeper.ask_about_doubts(transaction, run)
    if finish.HasField("error"):
        run.error = json_format.MessageToJson(finish.error, indent=None)
        end(
            transaction,
            run,
            Move.FAIL,
            run_pb2.EVENT_TYPE_FAILED,
            reason=finish.error.reason,
            message=finish.error.message,
        )
        return
    run.output = json_format.MessageToJson(finish.output, indent=None)
    run.answer = finish.answer
    end(transaction, run, Move.SUCCEED, run_pb2.EVENT_TYPE_SUCCEEDED, answer=finish.answer)
