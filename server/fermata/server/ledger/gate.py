"""The gate: the one transaction in which a tool call may start.

It asks, in this order: does a latch cover the call, has it run already, is an earlier start of it, or of its tool, in doubt, what did
people decide, what does policy say? Each question has a function of its own below, which answers or passes on (None). The caller has
checked the lease. Setting a latch is a transaction of the same writer, so a gate either sees a latch or is on the list of effects that
the latch found open; there is no third case.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, select, update

from fermata.server.agents.revisions import Revision, Revisions
from fermata.server.approvals import records as approvals
from fermata.server.latches import records as latch_records
from fermata.server.latches.coverage import Subject, strictest
from fermata.server.ledger import steps
from fermata.server.ledger.recovery import REPEATABLE, ask_recovery, doubts, question_about
from fermata.server.names import Name
from fermata.server.policy.book import PolicyBook
from fermata.server.policy.evaluate import evaluate_all
from fermata.server.policy.rules import ApprovalRequirement, Call, Outcome, Requester, Verdict
from fermata.server.policy.strictness import covers
from fermata.server.principals.records import roles_of
from fermata.server.runs.record import RunRecord
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.values import plain
from fermata.v1 import run_pb2, worker_pb2

PROCEED = worker_pb2.GATE_VERDICT_PROCEED
ASK = worker_pb2.GATE_VERDICT_ASK
REFUSE = worker_pb2.GATE_VERDICT_REFUSE
STOP = worker_pb2.GATE_VERDICT_STOP
RECORDED = worker_pb2.GATE_VERDICT_RECORDED

_CLOSED = (steps.FINISHED, steps.FAILED, steps.CONFIRMED)

_KNOWN_ANSWER = select(schema.gates.c.answer).where(
    and_(
        schema.gates.c.tenant == bindparam("of_tenant"),
        schema.gates.c.run == bindparam("of_run"),
        schema.gates.c.nonce == bindparam("of_nonce"),
    )
)
_KEEP_ANSWER = schema.gates.insert()
_MARK_USED = (
    update(schema.approvals)
    .where(
        and_(schema.approvals.c.tenant == bindparam("of_tenant"), schema.approvals.c.id == bindparam("of_id"))
    )
    .values(used_by=bindparam("used_by_step"))
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A call at the gate, with what is known about it."""

    run: RunRecord
    revision: Revision
    gate: worker_pb2.Gate
    effect: run_pb2.EffectClass.ValueType
    risk: str
    earlier: Any | None
    """The row of an earlier start under the same key."""


class GateKeeper:
    """Decides calls. Holds nothing but caches of immutable things."""

    def __init__(self, revisions: Revisions, policies: PolicyBook) -> None:
        self._revisions = revisions
        self._policies = policies

    def pass_gate(
        self, transaction: Transaction, run: RunRecord, gate: worker_pb2.Gate
    ) -> worker_pb2.GateAnswer:
        """Decide whether a call may start, and put its start on record if so. The same nonce gets the same answer.

        :raises DomainError: REVISION_NOT_FOUND.
        """
        known = transaction.execute(
            _KNOWN_ANSWER, {"of_tenant": run.tenant, "of_run": run.id, "of_nonce": gate.nonce}
        ).scalar()
        if known is not None:
            return worker_pb2.GateAnswer.FromString(known)
        revision = self._revisions.get(transaction, run.tenant, run.agent, run.revision)
        effect, risk = revision.declared(gate.tool, gate.effect, gate.risk)
        earlier = steps.find(transaction, run.tenant, run.id, gate.step)
        asked = Asked(run, revision, gate, effect, risk, earlier)
        answer = (
            _stopped_by_latch(transaction, asked)
            or _already_run(transaction, asked)
            or self._in_doubt(transaction, asked)
            or _another_in_doubt(transaction, asked)
            or self._decided(transaction, asked)
        )
        transaction.execute(
            _KEEP_ANSWER,
            {
                "tenant": run.tenant,
                "run": run.id,
                "nonce": gate.nonce,
                "answer": answer.SerializeToString(),
            },
        )
        return answer

    def _in_doubt(self, transaction: Transaction, asked: Asked) -> worker_pb2.GateAnswer | None:
        """A start without an end: what may be repeated goes on; about all else a person is asked."""
        row = asked.earlier
        if row is None or row.outcome not in (steps.OPEN, steps.KILLED) or asked.effect in REPEATABLE:
            return None
        question = question_about(transaction, asked.run, asked.gate.step)
        if question is None:
            return _ask(asked, ask_recovery(transaction, asked.run, row, asked.gate))
        if question.state == approvals.PENDING:
            return _ask(asked, question.id)
        verdict = self._judge(transaction, asked, json.loads(row.args))
        if verdict.outcome is Outcome.DENY:
            # To do it again is a start like any other.
            return _refuse(asked, verdict.rule_id, verdict.code, f"Refused by policy: {verdict.reason}")
        return _proceed(transaction, asked, row.args, None, question)

    def _decided(self, transaction: Transaction, asked: Asked) -> worker_pb2.GateAnswer:
        """What people said, under what policy says now: of the two, the stricter holds."""
        row = _decision_of_person(transaction, asked)
        args_text = asked.gate.args
        if row is not None:
            if row.state == approvals.PENDING:
                return _ask(asked, row.id)
            if row.state != approvals.APPROVED:
                return _refused_by_person(transaction, asked, row)
            args_text = (row.edited_args if not row.interrupt else "") or args_text
        verdict = self._judge(transaction, asked, json.loads(args_text))
        if verdict.outcome is Outcome.DENY:
            return _refuse(asked, verdict.rule_id, verdict.code, f"Refused by policy: {verdict.reason}")
        if verdict.outcome is Outcome.REQUIRE_APPROVAL and not _satisfies(row, verdict, transaction.now):
            return _ask(asked, approvals.ask(transaction, asked.run, _question(asked, verdict)))
        return _proceed(transaction, asked, args_text, verdict, row)

    def _judge(self, transaction: Transaction, asked: Asked, args: dict[str, Any]) -> Verdict:
        gate = asked.gate
        return self.judge(
            transaction, asked.run, gate.tool, args, asked.effect, asked.risk, tuple(gate.provenance)
        )

    def judge(
        self,
        transaction: Transaction,
        run: RunRecord,
        tool: str,
        args: dict[str, Any],
        effect: run_pb2.EffectClass.ValueType,
        risk: str,
        provenance: tuple[str, ...] = (),
    ) -> Verdict:
        """What the policies in force say about a call of this run: the tenant's first, then the agent's."""
        requester = run.on_behalf_of or run.requested_by
        call = Call(
            tool=tool,
            args=args,
            agent=run.agent,
            revision=run.revision,
            effect=run_pb2.EffectClass.Name(effect).removeprefix("EFFECT_CLASS_"),
            risk=risk or None,
            provenance=provenance,
            requested_by=Requester(requester, roles_of(transaction, requester)),
        )
        revision = self._revisions.get(transaction, run.tenant, run.agent, run.revision)
        in_force = (self._policies.in_force(transaction, run.tenant), revision.policy)
        return evaluate_all([policy for policy in in_force if policy is not None], call)

    def question_of_middleware(
        self,
        transaction: Transaction,
        run: RunRecord,
        interrupt: str,
        position: int,
        action: worker_pb2.MiddlewareAction,
    ) -> approvals.Question:
        """The question for a call that LangChain's human-in-the-loop middleware asks about.

        The middleware asks whatever policy says; who may decide, and for how long, is policy's all the same.
        """
        revision = self._revisions.get(transaction, run.tenant, run.agent, run.revision)
        info = next((tool for tool in revision.report.tools if tool.name == action.tool), None)
        effect, risk = revision.declared(
            action.tool, info.effect if info else run_pb2.EFFECT_CLASS_UNSPECIFIED, info.risk if info else ""
        )
        args = plain(action.args, "args")
        verdict = self.judge(transaction, run, action.tool, args, effect, risk)
        wanted = verdict.requirement or ApprovalRequirement()
        allowed = tuple(action.allowed_decisions) or approvals.ALLOWED_FOR_ACTION
        return approvals.Question(
            kind=approvals.ACTION,
            roles=wanted.roles,
            valid_for_seconds=wanted.valid_for_seconds,
            allowed=allowed,
            required_count=wanted.count,
            not_requester=wanted.not_requester,
            on_timeout=wanted.on_timeout.value,
            tool=action.tool,
            tool_description=info.description if info else "",
            args=json.dumps(args),
            args_schema=info.args_schema if info else "",
            digest=action.call_digest,
            call_digest=action.call_digest,
            effect=effect,
            risk=risk,
            rationale=action.description,
            rule=verdict.rule_id,
            rule_reason=verdict.reason,
            interrupt=interrupt,
            position=position,
        )


def _stopped_by_latch(transaction: Transaction, asked: Asked) -> worker_pb2.GateAnswer | None:
    run = asked.run
    subject = Subject(run.id, run.thread, run.agent, asked.gate.tool)
    latch = strictest(latch_records.active(transaction, run.tenant), subject)
    if latch is None and run.state == run_pb2.RUN_STATE_RUNNING:
        return None
    if latch is None:
        # A halt that was lifted while the run was still stopping, or a host that goes on although it has parked.
        return worker_pb2.GateAnswer(verdict=STOP, message="The run is not running.")
    name = str(Name(run.tenant, "latches", latch.id))
    kind = "halt" if latch.kind == latch_records.HALT else "hold"
    because = f" ({latch.reason})" if latch.reason else ""
    if latch.scope == "tool" and latch.kind == latch_records.HALT:
        # The run itself is not covered: it goes on without this tool.
        return _refuse(
            asked, "", "HALTED", f"Refused: {asked.gate.tool} is halted by {latch.created_by}{because}."
        )
    return worker_pb2.GateAnswer(
        verdict=STOP, latch=name, message=f"A {kind} by {latch.created_by} covers this{because}."
    )


def _already_run(transaction: Transaction, asked: Asked) -> worker_pb2.GateAnswer | None:
    row = asked.earlier
    if row is None:
        return None
    if row.outcome in (*_CLOSED, steps.ABANDONED):
        # What was said about the call has now reached it.
        table = schema.approvals.c
        transaction.execute(
            update(schema.approvals)
            .where(
                and_(
                    table.tenant == asked.run.tenant,
                    table.run == asked.run.id,
                    table.step == row.key,
                    table.state != approvals.PENDING,
                    table.used_by == "",
                )
            )
            .values(used_by=row.key)
        )
    if row.outcome in _CLOSED:
        return worker_pb2.GateAnswer(
            verdict=RECORDED,
            outcome=row.outcome,
            result=worker_pb2.Blob(type=row.result_type, data=row.result),
            message=row.error or row.text,
            attempt=row.attempt,
        )
    if row.outcome == steps.ABANDONED:
        return worker_pb2.GateAnswer(
            verdict=REFUSE,
            reason="ABANDONED",
            message=f"A person gave this call of {asked.gate.tool} up; whether it happened is unknown.",
        )
    return None


def _another_in_doubt(transaction: Transaction, asked: Asked) -> worker_pb2.GateAnswer | None:
    """Before the first start of a call that can't be repeated: it may be one that is in doubt, with other arguments this time."""
    if asked.earlier is not None or asked.effect in REPEATABLE or asked.run.epoch <= 1:
        return None
    for row in doubts(transaction, asked.run):
        if row.tool != asked.gate.tool:
            continue
        question = question_about(transaction, asked.run, row.key)
        if question is None:
            return _ask(asked, ask_recovery(transaction, asked.run, row, asked.gate))
        if question.state == approvals.PENDING:
            return _ask(asked, question.id)
    return None


def _decision_of_person(transaction: Transaction, asked: Asked) -> Any | None:
    """The latest approval that speaks about this call: asked by this gate, or decided in LangChain's middleware for the same call."""
    mine, from_middleware = None, None
    for row in approvals.of_run(transaction, asked.run.tenant, asked.run.id):
        if row.kind != approvals.ACTION:
            continue
        if row.step == asked.gate.step and not row.interrupt:
            mine = row
        elif (
            row.interrupt
            and row.state == approvals.APPROVED
            and row.call_digest == asked.gate.call_digest
            and row.used_by in ("", asked.gate.step)
        ):
            from_middleware = from_middleware or row
    return mine or from_middleware


def _mark_used(transaction: Transaction, asked: Asked, row: Any) -> None:
    transaction.execute(
        _MARK_USED, {"of_tenant": row.tenant, "of_id": row.id, "used_by_step": asked.gate.step}
    )


def _satisfies(row: Any | None, verdict: Verdict, now: float) -> bool:
    """True where what a person approved is all that the verdict wants, and has not become stale."""
    if row is None or row.expires < now or verdict.requirement is None:
        return False
    given = ApprovalRequirement(
        roles=tuple(json.loads(row.roles)),
        count=row.required_count,
        valid_for_seconds=int(row.expires - row.created),
        not_requester=row.not_requester,
    )
    return covers(given, verdict.requirement)


def _question(asked: Asked, verdict: Verdict) -> approvals.Question:
    gate, wanted = asked.gate, verdict.requirement
    assert wanted is not None
    return approvals.Question(
        kind=approvals.ACTION,
        roles=wanted.roles,
        valid_for_seconds=wanted.valid_for_seconds,
        allowed=approvals.ALLOWED_FOR_ACTION,
        required_count=wanted.count,
        not_requester=wanted.not_requester,
        on_timeout=wanted.on_timeout.value,
        tool=gate.tool,
        tool_description=gate.tool_description,
        args=gate.args,
        args_schema=gate.args_schema,
        digest=gate.digest,
        call_digest=gate.call_digest,
        effect=asked.effect,
        risk=asked.risk,
        rationale=gate.rationale,
        rule=verdict.rule_id,
        rule_reason=verdict.reason,
        step=gate.step,
    )


def _ask(asked: Asked, approval: str) -> worker_pb2.GateAnswer:
    return worker_pb2.GateAnswer(verdict=ASK, approval=str(Name(asked.run.tenant, "approvals", approval)))


def _refused_by_person(transaction: Transaction, asked: Asked, row: Any) -> worker_pb2.GateAnswer:
    if row.state == approvals.REJECTED:
        comment = row.comment.strip() or "no reason given"
        by = (row.on_behalf_of or row.decided_by).rsplit("/", 1)[-1]
        message, reason = f"Rejected by {by}: {comment}", "REJECTED"
    elif row.state == approvals.EXPIRED:
        message, reason = "Rejected: nobody approved it in time.", "APPROVAL_EXPIRED"
    else:
        message, reason = "Rejected: the question was withdrawn.", "APPROVAL_CANCELLED"
    if row.used_by:
        # The task is executed again for the sake of another call; the history has this refusal already.
        return worker_pb2.GateAnswer(verdict=REFUSE, reason=reason, message=message)
    _mark_used(transaction, asked, row)
    return _refuse(asked, row.rule, reason, message)


def _refuse(asked: Asked, rule: str, reason: str, message: str) -> worker_pb2.GateAnswer:
    asked.run.emit(
        run_pb2.EVENT_TYPE_STEP_REFUSED,
        key=asked.gate.step,
        tool=asked.gate.tool,
        args=json.loads(asked.gate.args),
        rule=rule,
        reason=reason,
        message=message,
    )
    return worker_pb2.GateAnswer(verdict=REFUSE, reason=reason, message=message)


def _proceed(
    transaction: Transaction, asked: Asked, args: str, verdict: Verdict | None, approval: Any | None
) -> worker_pb2.GateAnswer:
    if approval is not None and not approval.used_by:
        _mark_used(transaction, asked, approval)
    attempt = steps.begin(
        transaction,
        asked.run,
        asked.gate,
        asked.effect,
        args=args,
        rule=verdict.rule_id if verdict else "recovery",
        approval=approval.id if approval is not None else "",
        earlier=asked.earlier,
    )
    return worker_pb2.GateAnswer(
        verdict=PROCEED,
        edited_args=args if args != asked.gate.args else "",
        attempt=attempt,
        idempotency_key=f"{asked.run.id}-{asked.gate.step}",
    )
