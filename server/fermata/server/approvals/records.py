"""Approvals inside a transaction: made, read, cancelled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from sqlalchemy import and_, bindparam, select, update

from fermata.server.errors import invalid, not_found
from fermata.server.names import Name, new_id
from fermata.server.runs.record import RunRecord
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import approval_pb2, run_pb2

PENDING = approval_pb2.APPROVAL_STATE_PENDING
APPROVED = approval_pb2.APPROVAL_STATE_APPROVED
REJECTED = approval_pb2.APPROVAL_STATE_REJECTED
EXPIRED = approval_pb2.APPROVAL_STATE_EXPIRED
CANCELLED = approval_pb2.APPROVAL_STATE_CANCELLED
ANSWERED = approval_pb2.APPROVAL_STATE_ANSWERED

ACTION = approval_pb2.APPROVAL_KIND_ACTION
INPUT = approval_pb2.APPROVAL_KIND_INPUT
RECOVERY = approval_pb2.APPROVAL_KIND_RECOVERY
BUDGET = approval_pb2.APPROVAL_KIND_BUDGET

OTHER_CALL = "recovery:other-call"
"""The rule of a RECOVERY about a call that has not started: another one is on record in its place."""

RESTORED = "recovery:restored"
"""The rule of a RECOVERY about a whole run: the store is a backup's, and what the run did after that is unknown."""

ALLOWED_FOR_ACTION = (
    approval_pb2.DECISION_APPROVE,
    approval_pb2.DECISION_EDIT,
    approval_pb2.DECISION_REJECT,
)
ALLOWED_FOR_INPUT = (approval_pb2.DECISION_ANSWER, approval_pb2.DECISION_REJECT)


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be asked. ``args`` and ``question`` are JSON text."""

    kind: approval_pb2.ApprovalKind.ValueType
    roles: tuple[str, ...]
    valid_for_seconds: float
    allowed: tuple[approval_pb2.Decision.ValueType, ...]
    tool: str = ""
    tool_description: str = ""
    args: str = "{}"
    args_schema: str = ""
    digest: str = ""
    call_digest: str = ""
    effect: run_pb2.EffectClass.ValueType = run_pb2.EFFECT_CLASS_UNSPECIFIED
    risk: str = ""
    rationale: str = ""
    rule: str = ""
    rule_reason: str = ""
    question: str = "null"
    required_count: int = 1
    not_requester: bool = False
    on_timeout: str = "REJECT"
    step: str = ""
    interrupt: str = ""
    position: int = 0


def ask(transaction: Transaction, run: RunRecord, question: Question) -> str:
    """Put a question on record, tell the run's history, and return the approval's id.

    :raises DomainError: QUESTION_INVALID; one that can't be shown would keep all the others from being listed.
    """
    _require_showable(question)
    approval = new_id()
    transaction.execute(
        _INSERT,
        {
            "tenant": run.tenant,
            "id": approval,
            "run": run.id,
            "thread": run.thread,
            "agent": run.agent,
            "kind": question.kind,
            "state": PENDING,
            "step": question.step,
            "tool": question.tool,
            "tool_description": question.tool_description,
            "args": question.args,
            "args_schema": question.args_schema,
            "digest": question.digest,
            "call_digest": question.call_digest,
            "effect": question.effect,
            "risk": question.risk,
            "rationale": question.rationale,
            "rule": question.rule,
            "rule_reason": question.rule_reason,
            "question": question.question,
            "roles": json.dumps(question.roles),
            "required_count": question.required_count,
            "not_requester": question.not_requester,
            "on_timeout": question.on_timeout,
            "expires": transaction.now + question.valid_for_seconds,
            "created": transaction.now,
            "interrupt": question.interrupt,
            "position": question.position,
            "allowed": json.dumps(question.allowed),
        },
    )
    run.emit(
        run_pb2.EVENT_TYPE_APPROVAL_REQUESTED,
        approval=str(Name(run.tenant, "approvals", approval)),
        kind=approval_pb2.ApprovalKind.Name(question.kind).removeprefix("APPROVAL_KIND_"),
        tool=question.tool,
        args=json.loads(question.args),
        reason=question.rule_reason,
    )
    return approval


def _require_showable(question: Question) -> None:
    shown = approval_pb2.Approval()
    try:
        json_format.Parse(question.args, shown.args)
        json_format.Parse(question.args_schema or "{}", shown.args_schema)
        json_format.Parse(question.question, shown.question)
        # Where it nests too deeply it can be written and not be read.
        approval_pb2.ListApprovalsResponse.FromString(
            approval_pb2.ListApprovalsResponse(approvals=[shown]).SerializeToString()
        )
    except (json_format.ParseError, DecodeError) as error:
        raise invalid(
            f"The question about {question.tool or 'the run'} can't be shown: {error}",
            reason="QUESTION_INVALID",
        ) from error


def find(connection: Any, tenant: str, approval: str) -> Any:
    """The row of an approval.

    :raises DomainError: APPROVAL_NOT_FOUND.
    """
    row = connection.execute(_ONE, {"of_tenant": tenant, "of_id": approval}).first()
    if row is None:
        raise not_found(
            "approval", str(Name(tenant, "approvals", approval)), "List those that wait with ListApprovals."
        )
    return row


_OF_RUN = (
    select(schema.approvals)
    .where(
        and_(
            schema.approvals.c.tenant == bindparam("of_tenant"), schema.approvals.c.run == bindparam("of_run")
        )
    )
    .order_by(schema.approvals.c.n)
)
_PENDING_OF_RUN = _OF_RUN.where(schema.approvals.c.state == PENDING)
_ONE = select(schema.approvals).where(
    and_(schema.approvals.c.tenant == bindparam("of_tenant"), schema.approvals.c.id == bindparam("of_id"))
)
_UPDATE = update(schema.approvals).where(
    and_(schema.approvals.c.tenant == bindparam("of_tenant"), schema.approvals.c.id == bindparam("of_id"))
)
_INSERT = schema.approvals.insert()


def of_run(connection: Any, tenant: str, run: str, *states: int) -> list[Any]:
    """The rows of a run's approvals in order of asking; only those in ``states`` where any are given."""
    query = _PENDING_OF_RUN if states == (PENDING,) else _OF_RUN
    rows = connection.execute(query, {"of_tenant": tenant, "of_run": run}).fetchall()
    return [row for row in rows if not states or row.state in states]


def close(
    transaction: Transaction,
    run: RunRecord,
    row: Any,
    state: approval_pb2.ApprovalState.ValueType,
    **values: Any,
) -> None:
    """End a pending approval and tell the run's history."""
    transaction.execute(
        _UPDATE,
        {"of_tenant": row.tenant, "of_id": row.id, "state": state, "decided": transaction.now, **values},
    )
    edited = values.get("edited_args") or ""
    decision = values.get("decision", approval_pb2.DECISION_UNSPECIFIED)
    run.emit(
        run_pb2.EVENT_TYPE_APPROVAL_DECIDED,
        approval=str(Name(row.tenant, "approvals", row.id)),
        tool=row.tool,
        state=approval_pb2.ApprovalState.Name(state).removeprefix("APPROVAL_STATE_"),
        decision=approval_pb2.Decision.Name(decision).removeprefix("DECISION_"),
        by=values.get("on_behalf_of") or values.get("decided_by", ""),
        comment=values.get("comment", ""),
        edited_args=json.loads(edited) if edited else None,
    )


def amend(transaction: Transaction, row: Any, **values: Any) -> None:
    """Change what is known about a pending question, without a word in the run's history."""
    transaction.execute(_UPDATE, {"of_tenant": row.tenant, "of_id": row.id, **values})


def cancel_pending(transaction: Transaction, run: RunRecord) -> None:
    """End what a run still asks, because it will not need the answer. A RECOVERY stays where its effect may have happened."""
    for row in of_run(transaction, run.tenant, run.id, PENDING):
        if row.kind != RECOVERY or row.rule in (OTHER_CALL, RESTORED):
            close(transaction, run, row, CANCELLED)


def to_message(row: Any) -> approval_pb2.Approval:
    """An approval of the API from its row."""
    message = approval_pb2.Approval(
        name=str(Name(row.tenant, "approvals", row.id)),
        run=str(Name(row.tenant, "runs", row.run)),
        thread=str(Name(row.tenant, "threads", row.thread)),
        agent=str(Name(row.tenant, "agents", row.agent)),
        kind=row.kind,
        state=row.state,
        tool=row.tool,
        tool_description=row.tool_description,
        digest=row.digest,
        effect=row.effect,
        risk=row.risk,
        rationale=row.rationale,
        rule=row.rule,
        rule_reason=row.rule_reason,
        roles=json.loads(row.roles),
        decision=row.decision,
        decided_by=row.decided_by,
        on_behalf_of=row.on_behalf_of,
        comment=row.comment,
        allowed_decisions=json.loads(row.allowed),
        required_count=row.required_count,
        approved_by=json.loads(row.votes),
    )
    json_format.Parse(row.args, message.args)
    if row.args_schema:
        json_format.Parse(row.args_schema, message.args_schema)
    if row.question != "null":
        json_format.Parse(row.question, message.question)
    if row.edited_args:
        json_format.Parse(row.edited_args, message.edited_args)
    if row.value != "null":
        json_format.Parse(row.value, message.value)
    message.create_time.FromNanoseconds(int(row.created * 1e9))
    message.expire_time.FromNanoseconds(int(row.expires * 1e9))
    if row.decided:
        message.decide_time.FromNanoseconds(int(row.decided * 1e9))
    return message
