"""What is asked where the ledger and the world may differ.

*In doubt* is an effect that was started, and whose process was gone before anybody learned how it ended. What may be repeated is
repeated. About all else a person is asked, whether or not the task that made the call comes back to it: a task that is executed again
may make its call with other arguments, and so under another key, or not at all. So a call that can't be repeated waits for the doubts
about earlier calls of its tool, and a run does not end with a doubt that nobody was asked about.

*Another call* is one that a task makes when it is executed again, in the place in which the ledger has one with another digest: the
effect has had its turn, and a second one with a fresh time stamp or a fresh number in it would be the same effect twice.

Who may decide is what policy says of the call: whom the rule names that asks for it, else the default approvers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import and_, bindparam, select

from fermata.server.approvals import records as approvals
from fermata.server.ledger import steps
from fermata.server.policy.rules import ApprovalRequirement
from fermata.server.runs.record import RunRecord
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import approval_pb2, run_pb2, worker_pb2

REPEATABLE = (run_pb2.EFFECT_CLASS_READ, run_pb2.EFFECT_CLASS_IDEMPOTENT)

VALID_SECONDS = 10 * 365 * 24 * 3600.0
"""A RECOVERY does not expire: what happened does not become known by waiting."""

DOUBT = "recovery"
"""The rule of a RECOVERY about an effect in doubt."""

WhoDecides = Callable[[Any], ApprovalRequirement]
"""From the row of a step to whom policy names for a call like it."""

_STATE_OF_WORKER = select(schema.workers.c.state).where(schema.workers.c.id == bindparam("of_worker"))
_ASKED_ABOUT = select(schema.approvals, schema.steps.c.epoch).where(
    and_(
        schema.approvals.c.state == approvals.PENDING,
        schema.approvals.c.kind == approvals.RECOVERY,
        schema.approvals.c.rule == DOUBT,
        schema.steps.c.tenant == schema.approvals.c.tenant,
        schema.steps.c.run == schema.approvals.c.run,
        schema.steps.c.key == schema.approvals.c.step,
        schema.steps.c.worker == bindparam("of_worker"),
    )
)


def question_about(transaction: Transaction, run: RunRecord, step: str) -> Any | None:
    """The row of the RECOVERY about a step in doubt that is still to be decided, or lets it be done again and was not used."""
    row = _latest(transaction, run, step, DOUBT)
    if row is None:
        return None
    again = row.decision == approval_pb2.DECISION_DO_AGAIN and not row.used_by
    return row if again or row.state == approvals.PENDING else None


def question_about_other_call(transaction: Transaction, run: RunRecord, gate: worker_pb2.Gate) -> Any | None:
    """The row of the RECOVERY about a call that differs from the one on record in its place, if a person was asked."""
    row = _latest(transaction, run, gate.step, approvals.OTHER_CALL)
    return row if row is not None and row.digest == gate.digest else None


def _latest(transaction: Transaction, run: RunRecord, step: str, rule: str) -> Any | None:
    for row in reversed(approvals.of_run(transaction, run.tenant, run.id)):
        if row.kind == approvals.RECOVERY and row.step == step and row.rule == rule:
            return row
    return None


def doubts(transaction: Transaction, run: RunRecord) -> list[Any]:
    """The run's calls in doubt that can't be repeated, oldest first, without those that are open under the lease of now."""
    return [
        row
        for row in _unknown(transaction, run)
        if row.outcome == steps.KILLED or row.epoch < run.epoch or not run.worker
    ]


def _unknown(transaction: Transaction, run: RunRecord) -> list[Any]:
    return [row for row in steps.unfinished(transaction, run.tenant, run.id) if row.effect not in REPEATABLE]


def ask_about_doubts(transaction: Transaction, run: RunRecord, who: WhoDecides) -> None:
    """Ask, when a run ends, about every call of which nobody knows how it ended and about which nobody was asked: nothing of the run
    will come back to it.
    """
    for row in _unknown(transaction, run):
        if question_about(transaction, run, row.key) is None:
            ask_recovery(transaction, run, row, who(row))


def ask_recovery(
    transaction: Transaction,
    run: RunRecord,
    row: Any,
    wanted: ApprovalRequirement,
    gate: worker_pb2.Gate | None = None,
) -> str:
    """Ask a person what became of a start without an end; return the approval's id.

    Doing it again is offered only where the earlier process is known to be dead.

    :param wanted: who may decide.
    :param gate: the call that waits for the answer; None where nothing of the run comes back to it.
    """
    is_dead = _host_is_dead(transaction, row)
    allowed = [approval_pb2.DECISION_IT_HAPPENED, approval_pb2.DECISION_GIVE_UP]
    if is_dead and gate is not None:
        allowed.insert(1, approval_pb2.DECISION_DO_AGAIN)
    return approvals.ask(
        transaction,
        run,
        approvals.Question(
            kind=approvals.RECOVERY,
            roles=wanted.roles,
            not_requester=wanted.not_requester,
            valid_for_seconds=VALID_SECONDS,
            allowed=tuple(allowed),
            tool=row.tool,
            tool_description=gate.tool_description if gate else "",
            args=row.args,
            digest=row.digest,
            call_digest=row.call_digest,
            effect=row.effect,
            rule=DOUBT,
            rule_reason="The call was started, and its process ended before the outcome was known.",
            question=json.dumps({**_known(row, is_dead), WAITING: gate is not None}),
            step=row.key,
        ),
    )


def ask_about_other_call(
    transaction: Transaction,
    run: RunRecord,
    row: Any,
    wanted: ApprovalRequirement,
    gate: worker_pb2.Gate,
    effect: run_pb2.EffectClass.ValueType,
) -> str:
    """Ask a person about a call in whose place another is on record: is it the same effect? Return the approval's id.

    *It happened* gives it the result of the one on record, or the one that the person gives. *Do it again* lets it start, as far as
    policy does, and is offered only where nothing of the earlier one can be at work any more.

    :param row: the step on record.
    """
    is_dead = _host_is_dead(transaction, row)
    allowed = [approval_pb2.DECISION_IT_HAPPENED, approval_pb2.DECISION_GIVE_UP]
    if is_dead or row.outcome not in (steps.OPEN, steps.KILLED):
        allowed.insert(1, approval_pb2.DECISION_DO_AGAIN)
    known = {
        "question": f"A task was executed again and wants another call of {gate.tool} than the one on record in its place. "
        f"On record: {row.args[: steps.SHOWN_TEXT]}, {steps.outcome_word(row.outcome)}. Is that this call?",
        "recorded_args": json.loads(row.args),
        "recorded_result": row.text,
        **_known(row, is_dead),
    }
    return approvals.ask(
        transaction,
        run,
        approvals.Question(
            kind=approvals.RECOVERY,
            roles=wanted.roles,
            not_requester=wanted.not_requester,
            valid_for_seconds=VALID_SECONDS,
            allowed=tuple(allowed),
            tool=gate.tool,
            tool_description=gate.tool_description,
            args=gate.args,
            digest=gate.digest,
            call_digest=gate.call_digest,
            effect=effect,
            rationale=gate.rationale,
            rule=approvals.OTHER_CALL,
            rule_reason="In the place of this call another one is on record.",
            question=json.dumps(known),
            step=gate.step,
        ),
    )


WAITING = "call_waits"
"""Of what is known: True where the call itself waits for the answer, and can be done again."""


def offer_again(transaction: Transaction, worker: str, run: str = "", epoch: int = 0) -> None:
    """A worker, and with it every host of its, is now known to be dead: who is asked about an effect that was in doubt there may let
    it be done again.

    :param run: where it is but the host that a run had at ``epoch``.
    """
    for row in transaction.execute(_ASKED_ABOUT, {"of_worker": worker}).fetchall():
        if run and (row.run, row.epoch) != (run, epoch):
            continue
        known, allowed = json.loads(row.question), json.loads(row.allowed)
        known["host_confirmed_dead"] = True
        if known.get(WAITING) and approval_pb2.DECISION_DO_AGAIN not in allowed:
            allowed.insert(1, approval_pb2.DECISION_DO_AGAIN)
        approvals.amend(transaction, row, question=json.dumps(known), allowed=json.dumps(allowed))


def _host_is_dead(transaction: Transaction, row: Any) -> bool:
    """True where no process can still be at work on a step: KILLED says so of the very process that started it, and with a worker
    all of its hosts are dead. That the worker has lost the lease, or has a later one of the same run, says nothing.
    """
    if row.outcome == steps.KILLED:
        return True
    state = transaction.execute(_STATE_OF_WORKER, {"of_worker": row.worker}).scalar()
    return bool(state == worker_pb2.WORKER_STATE_DEAD)


def _known(row: Any, is_dead: bool) -> dict[str, Any]:
    return {
        "started": row.started,
        "worker": row.worker,
        "attempt": row.attempt,
        "epoch": row.epoch,
        "outcome": steps.outcome_word(row.outcome),
        "host_confirmed_dead": is_dead,
    }
