"""What people decide, once, bound to exactly what they saw."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable
from sqlalchemy import and_, bindparam, select, update

from fermata.server.approvals import records as approvals
from fermata.server.errors import DomainError, ErrorKind, invalid, precondition
from fermata.server.ledger import steps
from fermata.server.ledger.digests import call_digest
from fermata.server.ledger.gate import GateKeeper
from fermata.server.lifecycle import budgets, restoration
from fermata.server.lifecycle.latching import NewLatch, set_latch
from fermata.server.lifecycle.resumption import resume_if_possible
from fermata.server.lifecycle.stopping import step_ended
from fermata.server.names import Name
from fermata.server.policy.rules import Outcome
from fermata.server.runs.record import RunRecord, open_run
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import approval_pb2, latch_pb2, worker_pb2

_STATE_AFTER = {
    approval_pb2.DECISION_APPROVE: approvals.APPROVED,
    approval_pb2.DECISION_EDIT: approvals.APPROVED,
    approval_pb2.DECISION_REJECT: approvals.REJECTED,
    approval_pb2.DECISION_ANSWER: approvals.ANSWERED,
    approval_pb2.DECISION_IT_HAPPENED: approvals.ANSWERED,
    approval_pb2.DECISION_DO_AGAIN: approvals.ANSWERED,
    approval_pb2.DECISION_GIVE_UP: approvals.ANSWERED,
}

EXPIRED_AT_ONCE = 200
"""Approvals that one sweep ends at the most."""

_COUNT = update(schema.approvals).where(
    and_(schema.approvals.c.tenant == bindparam("of_tenant"), schema.approvals.c.id == bindparam("of_id"))
)


@dataclass(frozen=True, slots=True)
class Decided:
    """A person's decision. ``edited_args`` and ``value`` are JSON text, empty where not given."""

    approval: str
    decision: approval_pb2.Decision.ValueType
    digest: str
    by: str
    on_behalf_of: str = ""
    roles: tuple[str, ...] = ()
    comment: str = ""
    edited_args: str = ""
    value: str = ""

    @property
    def person(self) -> str:
        """Who answers for it."""
        return self.on_behalf_of or self.by


def decide(transaction: Transaction, keeper: GateKeeper, tenant: str, decided: Decided) -> None:
    """Put a decision on record and let its run go on. The same decision by the same person again changes nothing.

    :raises DomainError: APPROVAL_NOT_FOUND, APPROVAL_DECIDED, APPROVAL_EXPIRED, APPROVAL_CANCELLED, RUN_ENDED,
        APPROVAL_DIGEST_MISMATCH, NOT_APPROVER, REQUESTER_MAY_NOT_APPROVE, DECISION_NOT_ALLOWED, ARGS_INVALID, POLICY_DENIED.
    """
    row = approvals.find(transaction, tenant, decided.approval)
    if row.state != approvals.PENDING:
        if _is_repeat(row, decided):
            return
        raise _too_late(row)
    with open_run(transaction, tenant, row.run) as run:
        _check(transaction, row, run, decided)
        values: dict[str, Any] = {
            "decision": decided.decision,
            "decided_by": decided.by,
            "on_behalf_of": decided.on_behalf_of,
            "comment": decided.comment,
            "value": decided.value or "null",
        }
        if decided.decision == approval_pb2.DECISION_EDIT:
            values |= _edit(transaction, keeper, row, run, decided)
        if decided.decision == approval_pb2.DECISION_APPROVE and not _quorum(transaction, row, decided):
            return
        approvals.close(transaction, run, row, _STATE_AFTER[decided.decision], **values)
        if row.rule == approvals.RESTORED:
            restoration.decided(
                transaction, keeper, run, row, decided.decision, by=decided.person, value=decided.value
            )
        elif row.kind == approvals.RECOVERY:
            _recover(transaction, row, run, decided)
            step_ended(transaction, run)
        elif row.kind == approvals.BUDGET:
            budgets.decided(transaction, run, row, decided.decision)
        resume_if_possible(transaction, run, "decided")
    if row.kind == approvals.BUDGET:
        goes_on = decided.decision == approval_pb2.DECISION_APPROVE
        budgets.follow(transaction, row, goes_on=goes_on, by=decided.person)


def expire_due(transaction: Transaction) -> int:
    """End approvals that nobody answered in time: silence is a no. Returns how many were ended."""
    table = schema.approvals.c
    due = transaction.execute(
        select(schema.approvals)
        .where(and_(table.state == approvals.PENDING, table.expires <= transaction.now))
        .limit(EXPIRED_AT_ONCE)
    ).fetchall()
    for row in due:
        with open_run(transaction, row.tenant, row.run) as run:
            approvals.close(transaction, run, row, approvals.EXPIRED, comment="Nobody answered in time.")
            if row.on_timeout != "HALT":
                resume_if_possible(transaction, run, "expired")
        if row.kind == approvals.BUDGET:
            budgets.follow(transaction, row, goes_on=False, by=str(Name(row.tenant, "policy", row.rule)))
        elif row.on_timeout == "HALT":
            set_latch(
                transaction,
                row.tenant,
                NewLatch(
                    latch_pb2.LATCH_KIND_HALT,
                    "run",
                    row.run,
                    reason=f"Nobody answered {row.id} in time; rule {row.rule} halts then.",
                    created_by=str(Name(row.tenant, "policy", row.rule)),
                ),
            )
    return len(due)


def next_expiry(connection: Any) -> float | None:
    """When the next pending approval expires, in seconds since the epoch; None where none is pending."""
    table = schema.approvals.c
    value: float | None = connection.execute(
        select(table.expires).where(table.state == approvals.PENDING).order_by(table.expires).limit(1)
    ).scalar()
    return value


def _is_repeat(row: Any, decided: Decided) -> bool:
    return bool(
        row.decision == decided.decision
        and (row.on_behalf_of or row.decided_by) == decided.person
        and row.digest == decided.digest
        and row.edited_args == decided.edited_args
        and row.value == (decided.value or "null")
    )


def _too_late(row: Any) -> DomainError:
    name = str(Name(row.tenant, "approvals", row.id))
    if row.state == approvals.EXPIRED:
        return precondition(
            f"{name} has expired; the agent was told no.", reason="APPROVAL_EXPIRED", approval=name
        )
    if row.state == approvals.CANCELLED and row.rule == approvals.RESTORED:
        return precondition(
            f"{name} was withdrawn: its run has ended by itself, or the store was restored once more and another one asks.",
            reason="APPROVAL_CANCELLED",
            approval=name,
        )
    if row.state == approvals.CANCELLED and row.kind == approvals.RECOVERY:
        return precondition(
            f"{name} was withdrawn: the call's host has told how it ended.",
            reason="APPROVAL_CANCELLED",
            approval=name,
        )
    if row.state == approvals.CANCELLED:
        return precondition(
            f"The run of {name} has ended; nothing is waiting for this decision.",
            reason="RUN_ENDED",
            approval=name,
        )
    said = approval_pb2.Decision.Name(row.decision).removeprefix("DECISION_")
    by = row.on_behalf_of or row.decided_by
    return precondition(
        f"{name} was decided already: {said} by {by}.",
        reason="APPROVAL_DECIDED",
        approval=name,
        decision=said,
        decided_by=by,
    )


def _check(transaction: Transaction, row: Any, run: RunRecord, decided: Decided) -> None:
    name = str(Name(row.tenant, "approvals", row.id))
    if run.has_ended and row.kind != approvals.RECOVERY:
        raise precondition(f"{run.name} has ended.", reason="RUN_ENDED", run=run.name)
    if row.expires <= transaction.now:
        raise precondition(
            f"{name} has expired; the agent is told no.", reason="APPROVAL_EXPIRED", approval=name
        )
    wanted = set(json.loads(row.roles))
    if not wanted & set(decided.roles) and "admin" not in decided.roles:
        raise DomainError(
            f"{name} is decided by {' or '.join(sorted(wanted))}; {decided.person} is "
            f"{', '.join(decided.roles) or 'without a role'}.",
            reason="NOT_APPROVER",
            kind=ErrorKind.PERMISSION_DENIED,
            approval=name,
        )
    if row.not_requester and decided.person == (run.on_behalf_of or run.requested_by):
        raise DomainError(
            f"Rule {row.rule} wants somebody else than the person who asked for the run.",
            reason="REQUESTER_MAY_NOT_APPROVE",
            kind=ErrorKind.PERMISSION_DENIED,
            approval=name,
        )
    if row.digest != decided.digest:
        raise precondition(
            f"{name} is about something else than what was shown to you. Look at it again.",
            reason="APPROVAL_DIGEST_MISMATCH",
            approval=name,
            digest=row.digest,
        )
    if decided.decision not in json.loads(row.allowed):
        allowed = ", ".join(
            approval_pb2.Decision.Name(value).removeprefix("DECISION_") for value in json.loads(row.allowed)
        )
        raise invalid(f"{name} can be decided by {allowed}.", reason="DECISION_NOT_ALLOWED", approval=name)


def _refuse_unknown(args: dict[str, Any], schema: dict[str, Any]) -> None:
    """A tool drops arguments that it does not know, so a misspelt one would be approved and then not be there."""
    if "properties" not in schema or schema.get("additionalProperties") or "patternProperties" in schema:
        return
    for name in sorted(args.keys() - schema["properties"].keys()):
        known = ", ".join(schema["properties"]) or "none"
        raise invalid(
            f"The tool has no argument {name!r}. Its arguments: {known}.", reason="ARGS_INVALID", field=name
        )


def _edit(
    transaction: Transaction, keeper: GateKeeper, row: Any, run: RunRecord, decided: Decided
) -> dict[str, Any]:
    """Hold edited arguments against the tool's schema and against policy; return what goes on record with them."""
    if row.required_count > 1:
        raise invalid(
            f"{row.required_count} people must approve the same call: reject this one with what should change.",
            reason="DECISION_NOT_ALLOWED",
        )
    try:
        args = json.loads(decided.edited_args or "null")
        if not isinstance(args, dict):
            raise invalid("An edit gives all the arguments, as an object.", reason="ARGS_INVALID")
        if row.args_schema:
            # A registry of its own: a schema that comes from a tool must not make the server fetch what it refers to.
            schema = json.loads(row.args_schema)
            jsonschema.Draft202012Validator(schema, registry=Registry()).validate(args)
            _refuse_unknown(args, schema)
    except (jsonschema.SchemaError, Unresolvable) as error:
        raise invalid(
            f"The tool's own schema can't be used to check an edit: {error}. Approve or reject it as it is.",
            reason="ARGS_SCHEMA_INVALID",
        ) from None
    except jsonschema.ValidationError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "the arguments"
        raise invalid(f"{where}: {error.message}", reason="ARGS_INVALID", field=where) from None
    verdict = keeper.judge(transaction, run, row.tool, args, row.effect, row.risk)
    if verdict.outcome is Outcome.DENY:
        raise DomainError(
            f"Policy refuses the edited call: {verdict.reason}",
            reason=verdict.code,
            kind=ErrorKind.FAILED_PRECONDITION,
            rule=verdict.rule_id,
        )
    return {"edited_args": decided.edited_args, "call_digest": call_digest(row.tool, args)}


def _quorum(transaction: Transaction, row: Any, decided: Decided) -> bool:
    """Count a yes; True where enough different people have said it."""
    votes = json.loads(row.votes)
    if decided.person not in votes:
        votes.append(decided.person)
    transaction.execute(_COUNT, {"of_tenant": row.tenant, "of_id": row.id, "votes": json.dumps(votes)})
    return len(votes) >= int(row.required_count)


def _recover(transaction: Transaction, row: Any, run: RunRecord, decided: Decided) -> None:
    """Write what a person knows about an effect into the ledger, unless its host has told how it ended in the meantime."""
    step = steps.find(transaction, row.tenant, row.run, row.step)
    if step is None or step.outcome not in (steps.OPEN, steps.KILLED):
        return
    if decided.decision == approval_pb2.DECISION_DO_AGAIN:
        return
    if decided.decision == approval_pb2.DECISION_IT_HAPPENED:
        result = worker_pb2.Blob(type="json", data=(decided.value or "null").encode())
        steps.close(transaction, run, step, steps.CONFIRMED, result=result, text=decided.value)
    else:
        steps.close(transaction, run, step, steps.ABANDONED, error=decided.comment)
