"""What a run of a restored store waits for: a person's word on what it did after the backup.

The ledger of a restored store ends with the backup. A run that had not ended then may have gone on: it may have started calls that
are nowhere on record, an approval that was pending may have been given and used. If it simply went on, it would do all of that again.
So it is *unsure*: nobody leases it until a person has decided a RECOVERY about the whole of it. *It happened*: what it was to do is
done, and it ends with the answer that the person gives. *Do it again*: nothing of it happened after the backup, and it goes on from
there. *Give up*: it ends. A run whose agent has nothing but tools that may be repeated goes on by itself.

*Do it again* is offered only where nothing that the run set going in its earlier life can still be at work. The store can't know that:
a lease may have moved, after the backup, to a worker that it has never heard of. So it is the word of whoever restores it.

Refused: to ask about the calls on record and their approvals one by one. What was done after the backup is a call that nobody here has
heard of, more often than one that was just being asked about.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import and_, select, update

from fermata.server.agents.revisions import Revisions
from fermata.server.approvals import records as approvals
from fermata.server.ledger import steps
from fermata.server.ledger.gate import GateKeeper
from fermata.server.ledger.recovery import REPEATABLE, VALID_SECONDS
from fermata.server.lifecycle.ending import end
from fermata.server.policy.rules import DEFAULT_REQUIREMENT
from fermata.server.runs.record import RunRecord
from fermata.server.runs.transitions import QUEUED, RUNNING, Move
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.store.lives import Life
from fermata.v1 import approval_pb2, run_pb2

SHOWN_CALLS = 5
"""Of the calls on record the last ones are shown."""

SHOWN_ARGS = 200
"""Characters of a call's arguments that the question shows."""


def unsafe_tools(
    transaction: Transaction, revisions: Revisions, tenant: str, agent: str, revision: str
) -> set[str]:
    """The tools of a revision that can't be repeated: of those that were found in its graph, or are declared, or have been called."""
    known = revisions.get(transaction, tenant, agent, revision)
    found = {tool.name: tool.effect for tool in known.report.tools}
    found |= {
        name: found.get(name, run_pb2.EFFECT_CLASS_UNSPECIFIED) for name in known.spec.tool_declarations
    }
    unsafe = {name for name, effect in found.items() if known.declared(name, effect, "")[0] not in REPEATABLE}
    runs, table = schema.runs.c, schema.steps.c
    called = transaction.execute(
        select(table.tool)
        .where(
            and_(
                runs.tenant == tenant,
                runs.agent == agent,
                runs.revision == revision,
                table.tenant == runs.tenant,
                table.run == runs.id,
                table.effect.not_in(REPEATABLE),
            )
        )
        .distinct()
    ).scalars()
    return unsafe | set(called)


def ask(transaction: Transaction, run: RunRecord, life: Life, tools: set[str]) -> None:
    """Make a run unsure, and ask a person what it did. Where it was at work or waited for a worker it is now AWAITING; where it waits
    for its turn on its thread, or is held, it stays there, and is parked when it would go on.

    :param life: the store's life that begins.
    :param tools: what it may have called.
    """
    _withdraw_earlier(transaction, run)
    run.unsure = True
    allowed = [approval_pb2.DECISION_IT_HAPPENED, approval_pb2.DECISION_GIVE_UP]
    if life.workers_stopped:
        allowed.insert(1, approval_pb2.DECISION_DO_AGAIN)
    calls = steps.of_run(transaction, run.tenant, run.id)[-SHOWN_CALLS:]
    waiting = approvals.of_run(transaction, run.tenant, run.id, approvals.PENDING)
    approvals.ask(
        transaction,
        run,
        approvals.Question(
            kind=approvals.RECOVERY,
            roles=DEFAULT_REQUIREMENT.roles,
            not_requester=DEFAULT_REQUIREMENT.not_requester,
            valid_for_seconds=VALID_SECONDS,
            allowed=tuple(allowed),
            rule=approvals.RESTORED,
            rule_reason="The store was restored from a backup, and what the run did after that is not on record.",
            question=json.dumps(_known(life, tools, calls, waiting)),
        ),
    )
    if run.state in (QUEUED, RUNNING) and not run.in_line:
        wait_for_person(transaction, run)


def _withdraw_earlier(transaction: Transaction, run: RunRecord) -> None:
    """What was asked in an earlier life knows less than what is asked now, and may offer more."""
    for row in approvals.of_run(transaction, run.tenant, run.id, approvals.PENDING):
        if row.rule == approvals.RESTORED:
            approvals.close(
                transaction,
                run,
                row,
                approvals.CANCELLED,
                comment="The store was restored once more; this is asked again.",
            )


def wait_for_person(transaction: Transaction, run: RunRecord) -> None:
    """Park a run that nobody may lease before a person has said what it did."""
    run.move(Move.PARK)
    pending = approvals.of_run(transaction, run.tenant, run.id, approvals.PENDING)
    run.emit(run_pb2.EVENT_TYPE_AWAITING, approvals=[row.id for row in pending])


def decided(
    transaction: Transaction,
    keeper: GateKeeper,
    run: RunRecord,
    row: Any,
    decision: int,
    *,
    by: str,
    value: str,
) -> None:
    """Do what a person says about an unsure run: end it, or let it go on.

    :param row: of the approval, which is closed.
    :param value: with *it happened* the run's answer, as JSON text; empty where none is given.
    """
    run.unsure = False
    if decision == approval_pb2.DECISION_DO_AGAIN:
        # Nothing of the run comes back to it: without this it would be news for ever.
        table = schema.approvals.c
        transaction.execute(
            update(schema.approvals)
            .where(and_(table.tenant == row.tenant, table.id == row.id))
            .values(used_by=approvals.RESTORED)
        )
        transaction.publication.work_available = True
        return
    keeper.ask_about_doubts(transaction, run)
    if decision == approval_pb2.DECISION_GIVE_UP:
        end(
            transaction,
            run,
            Move.CANCEL,
            run_pb2.EVENT_TYPE_CANCELLED,
            reason="given up after the store was restored",
            by=by,
        )
        return
    answer = json.loads(value or '""')
    run.answer = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    end(transaction, run, Move.CONFIRM, run_pb2.EVENT_TYPE_SUCCEEDED, answer=run.answer, confirmed_by=by)


def _known(life: Life, tools: set[str], calls: list[Any], waiting: list[Any]) -> dict[str, Any]:
    made = _when(life.backed_up) if life.backed_up else "an unknown time"
    text = [
        f"This store was restored from a backup of {made}. After that the run may have gone on, and may have called "
        f"{', '.join(sorted(tools))}. What did it do?",
        f"On record by then: {'; '.join(_call(row) for row in calls) or 'no call'}.",
    ]
    if waiting:
        asked = "; ".join(_call(row) if row.tool else "a question of the agent's own" for row in waiting)
        text.append(f"It was waiting for an answer about: {asked}. That may have been given and done since.")
    text.append(
        "It happened: what it was to do is done, and the run ends with the answer that you give. Give up: it ends here."
    )
    text.append(
        "Do it again: nothing of it happened after the backup, and it goes on from there."
        if life.workers_stopped
        else "To do it again is not offered: nobody has said that the workers of before are stopped "
        "(`fermata restore --workers-stopped`)."
    )
    return {
        "question": " ".join(text),
        "backed_up": life.backed_up,
        "restored": life.began,
        "tools": sorted(tools),
        "recorded_calls": [{"tool": row.tool, "outcome": steps.outcome_word(row.outcome)} for row in calls],
        "pending_approvals": [row.id for row in waiting],
        "workers_stopped": life.workers_stopped,
    }


def _call(row: Any) -> str:
    args = row.args if len(row.args) <= SHOWN_ARGS else f"{row.args[:SHOWN_ARGS]}…"
    outcome = f" {steps.outcome_word(row.outcome)}" if "outcome" in row._fields else ""
    return f"{row.tool} {args}{outcome}"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
