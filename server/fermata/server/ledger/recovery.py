"""Effects in doubt: started, and their process gone before anybody learned how they ended.

What may be repeated is repeated. About all else a person is asked, whether or not the task that made the call comes back to it: a
task that is executed again may make its call with other arguments, and so under another key, or not at all. So a call that can't be
repeated waits for the doubts about earlier calls of its tool, and a run does not end with a doubt that nobody was asked about.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select

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


def question_about(transaction: Transaction, run: RunRecord, step: str) -> Any | None:
    """The row of the RECOVERY about a step that is still to be decided, or lets it be done again and was not used; else None."""
    for row in reversed(approvals.of_run(transaction, run.tenant, run.id)):
        if row.kind == approvals.RECOVERY and row.step == step:
            again = row.decision == approval_pb2.DECISION_DO_AGAIN and not row.used_by
            return row if again or row.state == approvals.PENDING else None
    return None


def doubts(transaction: Transaction, run: RunRecord) -> list[Any]:
    """The run's calls in doubt that can't be repeated, oldest first, without those that are open under the lease of now."""
    return [
        row
        for row in steps.unfinished(transaction, run.tenant, run.id)
        if row.effect not in REPEATABLE and (row.outcome == steps.KILLED or row.epoch < run.epoch)
    ]


def ask_about_doubts(transaction: Transaction, run: RunRecord) -> None:
    """Ask about every call in doubt about which nobody was asked: nothing of the run will come back to it."""
    for row in doubts(transaction, run):
        if question_about(transaction, run, row.key) is None:
            ask_recovery(transaction, run, row)


def ask_recovery(
    transaction: Transaction, run: RunRecord, row: Any, gate: worker_pb2.Gate | None = None
) -> str:
    """Ask a person what became of a start without an end; return the approval's id.

    Doing it again is offered only where the earlier process is known to be dead.
    """
    worker_state = transaction.execute(
        select(schema.workers.c.state).where(schema.workers.c.id == row.worker)
    ).scalar()
    is_dead = worker_state == worker_pb2.WORKER_STATE_DEAD or row.outcome == steps.KILLED
    allowed = [approval_pb2.DECISION_IT_HAPPENED, approval_pb2.DECISION_GIVE_UP]
    if is_dead and gate is not None:
        allowed.insert(1, approval_pb2.DECISION_DO_AGAIN)
    return approvals.ask(
        transaction,
        run,
        approvals.Question(
            kind=approvals.RECOVERY,
            roles=ApprovalRequirement().roles,
            valid_for_seconds=VALID_SECONDS,
            allowed=tuple(allowed),
            tool=row.tool,
            tool_description=gate.tool_description if gate else "",
            args=row.args,
            digest=row.digest,
            call_digest=row.call_digest,
            effect=row.effect,
            rule="recovery",
            rule_reason="The call was started, and its process ended before the outcome was known.",
            question=json.dumps(
                {
                    "started": row.started,
                    "worker": row.worker,
                    "attempt": row.attempt,
                    "epoch": row.epoch,
                    "host_confirmed_dead": is_dead,
                }
            ),
            step=row.key,
        ),
    )
