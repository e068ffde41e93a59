"""The gate: the one transaction in which a tool call may start.

It asks, in this order: does a latch cover the call, has it run already, is an earlier start of it, or of its tool, in doubt, is
another call on record in its place, what did people decide, what does policy say? Each question has a function of its own below,
which answers or passes on (None). The caller has checked the lease. Setting a latch is a transaction of the same writer, so a gate
either sees a latch or is on the list of effects that the latch found open; there is no third case.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, select, update

from fermata.server.agents import durability
from fermata.server.agents.revisions import Revision, Revisions
from fermata.server.approvals import records as approvals
from fermata.server.latches import records as latch_records
from fermata.server.ledger import limits, steps
from fermata.server.ledger.recovery import (
    REPEATABLE,
    ask_about_doubts,
    ask_about_other_call,
    ask_recovery,
    doubts,
    question_about,
    question_about_other_call,
)
from fermata.server.names import Name
from fermata.server.policy.book import PolicyBook
from fermata.server.policy.evaluate import evaluate_all
from fermata.server.policy.rules import (
    DEFAULT_REQUIREMENT,
    ApprovalRequirement,
    Call,
    Outcome,
    Policy,
    Requester,
    Verdict,
)
from fermata.server.policy.strictness import covers
from fermata.server.principals.records import roles_of
from fermata.server.runs.record import RunRecord
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.values import plain
from fermata.v1 import approval_pb2, run_pb2, worker_pb2

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
    instead: Any | None
    """The row of a call with another digest that has had its turn in the place of this one."""

    @property
    def is_same(self) -> bool:
        """True where the row under the key is of this very call."""
        return self.earlier is not None and self.earlier.digest == self.gate.digest


StopAtLimit = Callable[[Transaction, RunRecord, limits.Exceeded], None]


class GateKeeper:
    """Decides calls. Holds nothing but caches of immutable things.

    :param stop_at_limit: holds or halts a run that would go beyond a limit.
    """

    def __init__(self, revisions: Revisions, policies: PolicyBook, stop_at_limit: StopAtLimit) -> None:
        self._revisions = revisions
        self._policies = policies
        self.stop_at_limit = stop_at_limit
        self._read_in: Transaction | None = None
        self._tenants: Policy | None = None

    def bounds(self, transaction: Transaction, run: RunRecord) -> limits.Bounds:
        """What the run may use."""
        revision = self._revisions.get(transaction, run.tenant, run.agent, run.revision)
        return limits.bounds_of(revision.spec.limits, self._in_force(transaction, run, revision))

    def _in_force(self, transaction: Transaction, run: RunRecord, revision: Revision) -> list[Policy]:
        """The policies for a run, the tenant's first. Nothing changes them within a transaction, so that they are read once in it."""
        if self._read_in is not transaction:
            self._read_in, self._tenants = transaction, self._policies.in_force(transaction, run.tenant)
        return [policy for policy in (self._tenants, revision.policy) if policy is not None]

    def _proceed(
        self,
        transaction: Transaction,
        asked: Asked,
        args: str,
        verdict: Verdict | None,
        approval: Any | None,
    ) -> worker_pb2.GateAnswer:
        """Put a start on record, unless the run would go beyond a limit with it."""
        if asked.earlier is None:
            bounds = self.bounds(transaction, asked.run)
            exceeded = limits.exceeded_by_call(bounds, asked.run, asked.gate.call_digest)
            if exceeded is not None:
                self.stop_at_limit(transaction, asked.run, exceeded)
                return _stopped_by_latch(transaction, asked) or worker_pb2.GateAnswer(
                    verdict=STOP, message=f"It {exceeded.sentence}."
                )
            limits.count_call(asked.run, asked.gate.call_digest)
        return _proceed(transaction, asked, args, verdict, approval)

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
        earlier, beside = steps.find_with_place(transaction, run.tenant, run.id, gate.step, gate.place)
        asked = Asked(run, revision, gate, effect, risk, earlier, _another(gate, effect, earlier, beside))
        answer = (
            _stopped_by_latch(transaction, asked)
            or _written_too_late(asked)
            or _already_run(transaction, asked)
            or self._in_doubt(transaction, asked)
            or self._another_in_doubt(transaction, asked)
            or self._in_place_of_another(transaction, asked)
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
        if row is None or not asked.is_same or asked.effect in REPEATABLE:
            return None
        if row.outcome not in (steps.OPEN, steps.KILLED):
            return None
        question = question_about(transaction, asked.run, asked.gate.step)
        if question is None:
            return self._ask_recovery(transaction, asked, row)
        if question.state == approvals.PENDING:
            return _ask(asked, question.id)
        verdict = self._judge(transaction, asked, json.loads(row.args))
        if verdict.outcome is Outcome.DENY:
            # To do it again is a start like any other.
            return _refuse(asked, verdict.rule_id, verdict.code, f"Refused by policy: {verdict.reason}")
        if verdict.outcome is Outcome.REQUIRE_APPROVAL and not _lets_again(
            question, verdict, transaction.now
        ):
            # More people than one, or others, or it is too long ago: then it is approved as a start is.
            answer = self._decided(transaction, asked)
            if answer.verdict == PROCEED:
                _mark_used(transaction, asked, question)
            return answer
        return self._proceed(transaction, asked, row.args, None, question)

    def _another_in_doubt(self, transaction: Transaction, asked: Asked) -> worker_pb2.GateAnswer | None:
        """Before the first start of a call that can't be repeated: it may be one that is in doubt, with other arguments this time."""
        if asked.earlier is not None or asked.effect in REPEATABLE or asked.run.epoch <= 1:
            return None
        for row in doubts(transaction, asked.run):
            if row.tool != asked.gate.tool:
                continue
            question = question_about(transaction, asked.run, row.key)
            if question is None:
                return self._ask_recovery(transaction, asked, row)
            if question.state == approvals.PENDING:
                return _ask(asked, question.id)
        return None

    def _in_place_of_another(self, transaction: Transaction, asked: Asked) -> worker_pb2.GateAnswer | None:
        """Another digest than the one on record: no new call, but a question."""
        row = asked.instead
        if row is None:
            return None
        question = question_about_other_call(transaction, asked.run, asked.gate)
        if question is None:
            wanted = self._who_decides(transaction, asked.run, asked.gate.tool, asked.gate.args, asked.effect)
            question_id = ask_about_other_call(transaction, asked.run, row, wanted, asked.gate, asked.effect)
            return _ask(asked, question_id)
        if question.state == approvals.PENDING:
            return _ask(asked, question.id)
        _mark_used(transaction, asked, question)
        if question.decision == approval_pb2.DECISION_DO_AGAIN:
            return self._decided(transaction, asked)
        if question.decision == approval_pb2.DECISION_GIVE_UP:
            return _abandoned(asked)
        result = worker_pb2.Blob(type=row.result_type, data=row.result)
        if question.value != "null" or row.outcome not in (steps.FINISHED, steps.CONFIRMED):
            result = worker_pb2.Blob(type="json", data=question.value.encode())
        return worker_pb2.GateAnswer(verdict=RECORDED, outcome=steps.CONFIRMED, result=result)

    def _ask_recovery(self, transaction: Transaction, asked: Asked, row: Any) -> worker_pb2.GateAnswer:
        wanted = self._who_decides(transaction, asked.run, row.tool, row.args, row.effect)
        return _ask(asked, ask_recovery(transaction, asked.run, row, wanted, asked.gate))

    def ask_about_doubts(self, transaction: Transaction, run: RunRecord) -> None:
        """Ask about the run's calls in doubt before it ends; see :func:`recovery.ask_about_doubts`."""
        ask_about_doubts(
            transaction,
            run,
            lambda row: self._who_decides(transaction, run, row.tool, row.args, row.effect),
        )

    def _who_decides(
        self,
        transaction: Transaction,
        run: RunRecord,
        tool: str,
        args: str,
        effect: run_pb2.EffectClass.ValueType,
    ) -> ApprovalRequirement:
        """Whom the rule names that would ask for such a call; the default approvers where none asks."""
        revision = self._revisions.get(transaction, run.tenant, run.agent, run.revision)
        info = next((known for known in revision.report.tools if known.name == tool), None)
        effect, risk = revision.declared(tool, effect, info.risk if info else "")
        verdict = self.judge(transaction, run, tool, json.loads(args), effect, risk)
        return verdict.requirement or DEFAULT_REQUIREMENT

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
        return self._proceed(transaction, asked, args_text, verdict, row)

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
        return evaluate_all(self._in_force(transaction, run, revision), call)

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
    latch = latch_records.on(transaction, run.subject(asked.gate.tool))
    if latch is None and run.state == run_pb2.RUN_STATE_RUNNING:
        return None
    if latch is None:
        # A halt that was lifted while the run was still stopping, or a host that goes on although it has parked.
        return worker_pb2.GateAnswer(verdict=STOP, message="The run is not running.")
    name = str(Name(latch.tenant, "latches", latch.id))
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


def _written_too_late(asked: Asked) -> worker_pb2.GateAnswer | None:
    """Refuse a call that does more than read, where the agent's state is not written before it."""
    spec = asked.revision.spec
    if durability.allows(spec, asked.effect):
        return None
    return _refuse(asked, "", durability.REASON, durability.why_not(spec, asked.gate.tool))


def _already_run(transaction: Transaction, asked: Asked) -> worker_pb2.GateAnswer | None:
    row = asked.earlier
    if row is None or not asked.is_same:
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
        return _abandoned(asked)
    return None


def _abandoned(asked: Asked) -> worker_pb2.GateAnswer:
    return worker_pb2.GateAnswer(
        verdict=REFUSE,
        reason="ABANDONED",
        message=f"A person gave this call of {asked.gate.tool} up; whether it happened is unknown.",
    )


def _another(
    gate: worker_pb2.Gate, effect: run_pb2.EffectClass.ValueType, earlier: Any | None, beside: list[Any]
) -> Any | None:
    """The latest call with another digest that has had its turn where this one is made; what only reads may differ each time.

    :param earlier: the row under the same key.
    :param beside: rows under other keys in the same place, oldest first.
    """
    if effect == run_pb2.EFFECT_CLASS_READ or (earlier is not None and earlier.digest == gate.digest):
        return None
    rows = beside if earlier is None else [earlier]
    found = [
        row
        for row in rows
        if row.digest != gate.digest
        and row.effect != run_pb2.EFFECT_CLASS_READ
        and row.outcome != steps.NOT_STARTED
    ]
    return found[-1] if found else None


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


def _lets_again(question: Any, verdict: Verdict, now: float) -> bool:
    """True where the person who lets an effect be done again is all that the verdict wants for a start."""
    wanted = verdict.requirement
    if wanted is None or question.decided + wanted.valid_for_seconds < now:
        return False
    given = ApprovalRequirement(
        roles=tuple(json.loads(question.roles)),
        valid_for_seconds=wanted.valid_for_seconds,
        not_requester=question.not_requester,
    )
    return covers(given, wanted)


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
