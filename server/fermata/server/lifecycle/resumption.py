"""Whether a parked run goes on, and with which answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from typing import Any

from google.protobuf import json_format, struct_pb2
from sqlalchemy import and_, update

from fermata.server.approvals import records as approvals
from fermata.server.latches import records as latch_records
from fermata.server.ledger.recovery import DOUBT
from fermata.server.runs.record import RunRecord, last_event
from fermata.server.runs.transitions import AWAITING, Move
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import approval_pb2, run_pb2, worker_pb2

UNSENT, SENT, TAKEN = 0, 1, 2
"""How far an answer has come. What was sent to an interrupt and not taken is sent again to the next host; what was said about an
effect in doubt wakes its run once, since the call that waited for it may have been another one."""

_GOES_ON = (run_pb2.EVENT_TYPE_RESUMED, run_pb2.EVENT_TYPE_RELEASED)

_MIDDLEWARE_DECISION = {
    approval_pb2.DECISION_APPROVE: "approve",
    approval_pb2.DECISION_EDIT: "edit",
    approval_pb2.DECISION_REJECT: "reject",
}


def resume_if_possible(transaction: Transaction, run: RunRecord, reason: str) -> None:
    """Let an AWAITING run go on if something it waits for was decided and no latch covers it.

    Where its worker still holds the lease, that worker is told after the commit; elsewhere the run is there to be leased.
    """
    if run.state != AWAITING or run.unsure or is_covered(transaction, run) or not has_news(transaction, run):
        return
    run.move(Move.RESUME)
    note_news(transaction, run)
    run.emit(run_pb2.EVENT_TYPE_RESUMED, reason=reason)
    go_on(transaction, run)


def go_on(transaction: Transaction, run: RunRecord) -> None:
    """Tell the worker that holds the lease to go on, or have the run leased."""
    if run.worker:
        message = worker_pb2.ServerMessage(resume=build_resume(transaction, run))
        transaction.publication.to_workers.append((run.worker, message))
    else:
        transaction.publication.work_available = True


def build_resume(transaction: Transaction, run: RunRecord) -> worker_pb2.Resume:
    """What a host needs to go on: the answers to the graph's own interrupts that it has not had yet.

    Decisions about gated calls are not among them: the gate reads those from the ledger.
    """
    resume = worker_pb2.Resume(lease=worker_pb2.Lease(run=run.name, epoch=run.epoch), number=run.sequence)
    for interrupt, rows in _interrupts(approvals.of_run(transaction, run.tenant, run.id)).items():
        if _all_decided(rows) and rows[0].delivered != TAKEN:
            resume.answers.add(interrupt_id=interrupt, value=_answer(rows))
            _mark(transaction, [row.id for row in rows], run, SENT)
    return resume


def repeated_resume(transaction: Transaction, run: RunRecord) -> worker_pb2.Resume | None:
    """The last resume of this lease as it was sent, for a host that may not have had it; None where there was none.

    It has the number that it had, by which a host that had it leaves it alone; so what was decided since is not in it, and stays
    to be told.
    """
    last = last_event(transaction, run, run_pb2.EVENT_TYPE_LEASED, *_GOES_ON)
    if last.get("type") not in _GOES_ON:
        return None
    resume = worker_pb2.Resume(lease=worker_pb2.Lease(run=run.name, epoch=run.epoch), number=last["sequence"])
    for interrupt, rows in _interrupts(approvals.of_run(transaction, run.tenant, run.id)).items():
        if _all_decided(rows) and rows[0].delivered == SENT:
            resume.answers.add(interrupt_id=interrupt, value=_answer(rows))
    return resume


def mark_taken(transaction: Transaction, run: RunRecord) -> None:
    """Remember that the host has taken the answers that were sent to it: what it sends now was made after it had them."""
    sent = [row.id for row in approvals.of_run(transaction, run.tenant, run.id) if row.delivered == SENT]
    if sent:
        _mark(transaction, sent, run, TAKEN)


def _mark(transaction: Transaction, ids: list[str], run: RunRecord, delivered: int) -> None:
    table = schema.approvals.c
    transaction.execute(
        update(schema.approvals)
        .where(and_(table.tenant == run.tenant, table.id.in_(ids)))
        .values(delivered=delivered)
    )


def is_covered(transaction: Transaction, run: RunRecord) -> bool:
    """True where a latch covers the run."""
    return latch_records.on(transaction, run.subject()) is not None


def has_news(transaction: Transaction, run: RunRecord, asking: Collection[str] | None = None) -> bool:
    """True where a gated call has its decision and has not used it, or an interrupt has all of its answers.

    :param asking: only gated calls with these step keys. A run that parks names the calls it waits for, so that a decision which
        no call comes back for can't wake it again and again. Neither does one whose call is not made before a person has said what
        became of an earlier call of its tool.
    """
    all_rows = approvals.of_run(transaction, run.tenant, run.id)
    gated = [row for row in all_rows if not row.interrupt]
    latest = {row.step: row for row in gated if asking is None or row.step in asking}
    in_doubt = {row.tool for row in gated if row.rule == DOUBT and row.state == approvals.PENDING}
    if any(
        row.state != approvals.PENDING and not row.used_by and row.tool not in in_doubt
        for row in latest.values()
    ):
        return True
    if any(_is_news_of_doubt(row) for row in gated):
        return True
    return any(_all_decided(rows) and rows[0].delivered == UNSENT for rows in _interrupts(all_rows).values())


def note_news(transaction: Transaction, run: RunRecord) -> None:
    """Remember that the run goes on with what was said about effects in doubt."""
    told = [row.id for row in approvals.of_run(transaction, run.tenant, run.id) if _is_news_of_doubt(row)]
    if told:
        _mark(transaction, told, run, TAKEN)


def _is_news_of_doubt(row: Any) -> bool:
    return bool(row.kind == approvals.RECOVERY and row.state != approvals.PENDING and row.delivered == UNSENT)


def _all_decided(rows: list[Any]) -> bool:
    return all(row.state != approvals.PENDING for row in rows)


def _interrupts(of_run: list[Any]) -> dict[str, list[Any]]:
    """Those of a run's approvals that stand for the graph's own interrupts, by interrupt, in order; of each only the last asking."""
    rounds: dict[str, list[Any]] = defaultdict(list)
    for row in of_run:
        if not row.interrupt:
            continue
        rows = rounds[row.interrupt]
        if rows and row.position <= rows[-1].position:
            rows.clear()
        rows.append(row)
    return rounds


def _answer(rows: list[Any]) -> struct_pb2.Value:
    value = struct_pb2.Value()
    if rows[0].kind == approvals.INPUT:
        row = rows[0]
        if row.state == approvals.ANSWERED:
            json_format.Parse(row.value, value)
        else:
            json_format.ParseDict({"decision": "reject", "comment": row.comment}, value)
        return value
    json_format.ParseDict({"decisions": [_middleware_decision(row) for row in rows]}, value)
    return value


def _middleware_decision(row: Any) -> dict[str, Any]:
    """A decision as LangChain's HumanInTheLoopMiddleware reads it."""
    kind = _MIDDLEWARE_DECISION.get(row.decision, "reject")
    if kind == "edit":
        return {"type": "edit", "edited_action": {"name": row.tool, "args": json.loads(row.edited_args)}}
    if kind == "reject":
        return {"type": "reject", "message": row.comment or "Nobody approved it."}
    return {"type": "approve"}
