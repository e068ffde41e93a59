"""Cards: an approval as a person reads it, before any surface draws it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fermata.client.names import last_part
from fermata.client.values import JsonValue, from_struct, from_value
from fermata.v1 import agent_pb2, approval_pb2, run_pb2

from .text import clean, one_line, shown

EFFECTS = {
    run_pb2.EFFECT_CLASS_UNSPECIFIED: "not declared; treated as unsafe to repeat",
    run_pb2.EFFECT_CLASS_READ: "reads only",
    run_pb2.EFFECT_CLASS_IDEMPOTENT: "changes something; repeating it does no harm",
    run_pb2.EFFECT_CLASS_UNSAFE: "changes something; repeating it may do harm",
}
STATES = {
    approval_pb2.APPROVAL_STATE_PENDING: "pending",
    approval_pb2.APPROVAL_STATE_APPROVED: "approved",
    approval_pb2.APPROVAL_STATE_REJECTED: "rejected",
    approval_pb2.APPROVAL_STATE_EXPIRED: "expired: nobody answered in time, which counts as a no",
    approval_pb2.APPROVAL_STATE_CANCELLED: "cancelled: the run ended or was halted first",
    approval_pb2.APPROVAL_STATE_ANSWERED: "answered",
}


KINDS = {
    approval_pb2.APPROVAL_KIND_INPUT: "Question",
    approval_pb2.APPROVAL_KIND_RECOVERY: "Recovery",
    approval_pb2.APPROVAL_KIND_BUDGET: "Budget",
}
"""The word for a card of each kind; every other is an approval."""
REDACTED = "••••••"


@dataclass(frozen=True, slots=True)
class Choice:
    """Something that a person may do about a card: a button on one surface, a word to type on another.

    :param word: what is typed for it.
    :param key: a letter that is short for the word; empty where there is none.
    :param label: what a button says.
    :param decision: what it decides; unspecified for what decides nothing.
    """

    word: str
    key: str
    label: str
    decision: approval_pb2.Decision.ValueType = approval_pb2.DECISION_UNSPECIFIED


_DECIDING = (
    Choice("approve", "a", "Approve", approval_pb2.DECISION_APPROVE),
    Choice("answer", "", "Answer", approval_pb2.DECISION_ANSWER),
    Choice("edit", "e", "Edit", approval_pb2.DECISION_EDIT),
    Choice("reject", "r", "Reject", approval_pb2.DECISION_REJECT),
    Choice("happened", "", "It happened", approval_pb2.DECISION_IT_HAPPENED),
    Choice("again", "", "Do it again", approval_pb2.DECISION_DO_AGAIN),
    Choice("give up", "", "Give up", approval_pb2.DECISION_GIVE_UP),
)
DETAILS = Choice("details", "d", "Details")
HALT = Choice("halt", "h", "Halt run")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: ``text`` is its value as shown, with hidden characters exposed; ``value`` is what it
    is. ``is_secret``: the tool's schema says that its value is not for eyes, so ``text`` does not have it."""

    name: str
    text: str
    value: JsonValue
    description: str = ""
    was: str = ""
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """What a person needs to decide, made harmless.

    :param name: the approval's resource name.
    :param digest: what the decision is bound to.
    :param question: one sentence: what is asked.
    :param why: the agent's own words.
    :param rule: which rule asks, and for what reason.
    :param expires_at: seconds since 1970; 0 where it does not expire.
    :param outcome: empty while pending; then what was decided, by whom, with which comment.
    :param decided_at: seconds since 1970; 0 while pending.
    :param schema: JSON schema of the arguments.
    :param decisions: what may be decided.
    """

    name: str
    kind: approval_pb2.ApprovalKind.ValueType
    state: approval_pb2.ApprovalState.ValueType
    agent: str
    run: str
    digest: str
    question: str
    tool: str = ""
    tool_description: str = ""
    arguments: tuple[Argument, ...] = ()
    why: str = ""
    rule: str = ""
    risk: str = ""
    effect: str = ""
    roles: tuple[str, ...] = ()
    still_needed: int = 1
    expires_at: float = 0.0
    outcome: str = ""
    decided_at: float = 0.0
    schema: dict[str, Any] = field(default_factory=dict, hash=False)
    decisions: frozenset[approval_pb2.Decision.ValueType] = frozenset()

    @property
    def is_pending(self) -> bool:
        """True while a person may decide it."""
        return self.state == approval_pb2.APPROVAL_STATE_PENDING

    @property
    def title(self) -> str:
        """The card's kind in a word."""
        return KINDS.get(self.kind, "Approval")

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What may be done about it while it is pending, in the order in which it is offered."""
        if not self.is_pending:
            return ()
        deciding = tuple(choice for choice in _DECIDING if choice.decision in self.decisions)
        return (*deciding, DETAILS, HALT)

    @property
    def sentence(self) -> str:
        """What would be done, on what, by which agent."""
        if self.kind not in (approval_pb2.APPROVAL_KIND_ACTION, approval_pb2.APPROVAL_KIND_UNSPECIFIED):
            return self.question
        given = ", ".join(f"{argument.name} = {argument.text}" for argument in self.arguments)
        return f"{self.agent} wants to call {self.tool}" + (f" with {given}." if given else ".")

    @property
    def args(self) -> dict[str, JsonValue]:
        """The arguments as they are."""
        return {argument.name: argument.value for argument in self.arguments}

    @property
    def texts(self) -> dict[str, str]:
        """The arguments as they are shown."""
        return {argument.name: argument.text for argument in self.arguments}

    @property
    def shown_args(self) -> dict[str, JsonValue]:
        """The arguments as they are, but for those that are not for eyes."""
        return {
            argument.name: REDACTED if argument.is_secret else argument.value for argument in self.arguments
        }

    def seconds_left(self, now: float) -> float | None:
        """Seconds until it expires at ``now`` (since 1970); None where it does not expire."""
        return max(0.0, self.expires_at - now) if self.expires_at else None


def card_of(approval: approval_pb2.Approval) -> Card:
    """The card of an approval."""
    agent = one_line(last_part(approval.agent), 60)
    tool = one_line(approval.tool, 80)
    schema: dict[str, Any] = dict(from_struct(approval.args_schema))
    edited = from_struct(approval.edited_args) if approval.HasField("edited_args") else {}
    rule = one_line(approval.rule, 80)
    reason = one_line(approval.rule_reason, 300)
    return Card(
        name=approval.name,
        kind=approval.kind,
        state=approval.state,
        agent=agent,
        run=approval.run,
        digest=approval.digest,
        question=_question(approval, agent, tool),
        tool=tool,
        tool_description=one_line(approval.tool_description, 300),
        arguments=_arguments(from_struct(approval.args), edited, schema),
        why=clean(approval.rationale).strip(),
        rule=f"{rule}: {reason}" if rule and reason else rule or reason,
        risk=one_line(approval.risk, 20),
        effect=EFFECTS.get(approval.effect, EFFECTS[run_pb2.EFFECT_CLASS_UNSPECIFIED]) if tool else "",
        roles=tuple(one_line(role, 40) for role in approval.roles),
        still_needed=max(1, approval.required_count or 1) - len(approval.approved_by),
        expires_at=approval.expire_time.ToNanoseconds() / 1e9 if approval.HasField("expire_time") else 0.0,
        outcome=_outcome(approval),
        decided_at=approval.decide_time.ToNanoseconds() / 1e9 if approval.HasField("decide_time") else 0.0,
        schema=schema,
        decisions=frozenset(approval.allowed_decisions),
    )


def _question(approval: approval_pb2.Approval, agent: str, tool: str) -> str:
    match approval.kind:
        case approval_pb2.APPROVAL_KIND_INPUT:
            return (
                clean(question_text(from_value(approval.question))).strip() or f"{agent} asks for an answer."
            )
        case approval_pb2.APPROVAL_KIND_RECOVERY:
            known = from_value(approval.question)
            if isinstance(known, dict) and "question" in known:
                return clean(question_text(known)).strip()
            told = one_line(question_text(known), 300)
            return f"Did {tool or 'this step'} happen? Its host was lost during the call. {told}".strip()
        case approval_pb2.APPROVAL_KIND_BUDGET:
            asked = one_line(question_text(from_value(approval.question)), 300)
            return f"May {agent} spend more? {asked}".strip()
        case _:
            return f"May {agent} call {tool}?"


def question_text(question: JsonValue) -> str:
    """A graph's question as text: a text as it is, an object's own question or message, anything else as
    JSON."""
    if isinstance(question, str):
        return question
    if isinstance(question, dict):
        for key in ("question", "message", "text", "prompt"):
            found = question.get(key)
            if isinstance(found, str):
                return found
    return "" if question is None else shown(question)


def _arguments(
    values: dict[str, JsonValue], edited: dict[str, JsonValue], schema: dict[str, Any]
) -> tuple[Argument, ...]:
    properties = schema.get("properties", {})
    # A Struct has lost the order of its fields; the list of required ones still has it.
    required = schema.get("required", [])
    first = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    names = {**values, **edited}
    order = [*(name for name in first if name in names), *sorted(name for name in names if name not in first)]
    found = []
    for name in order:
        part = properties.get(name, {}) if isinstance(properties, dict) else {}
        description = part.get("description", "") if isinstance(part, dict) else ""
        value = edited.get(name, values.get(name)) if edited else values.get(name)
        was = shown(values.get(name)) if edited and values.get(name) != value else ""
        secret = isinstance(part, dict) and is_secret(part)
        found.append(
            Argument(
                one_line(name, 60),
                REDACTED if secret else shown(value),
                value,
                one_line(str(description), 120),
                REDACTED if secret and was else was,
                secret,
            )
        )
    return tuple(found)


def secrets_of(report: agent_pb2.GraphReport) -> frozenset[tuple[str, str]]:
    """(tool, argument) of an agent's arguments that are not to be shown."""
    found = set()
    for tool in report.tools:
        try:
            schema = json.loads(tool.args_schema or "{}")
        except ValueError:
            continue  # no schema says anything of its arguments
        properties = schema.get("properties") if isinstance(schema, dict) else None
        for name, part in (properties or {}).items() if isinstance(properties, dict) else ():
            if isinstance(part, dict) and is_secret(part):
                found.add((tool.name, name))
    return frozenset(found)


def is_secret(part: Mapping[str, Any]) -> bool:
    """True where a tool's schema says that an argument is not to be shown, as pydantic's ``SecretStr`` does."""
    return part.get("writeOnly") is True or part.get("format") == "password"


def _outcome(approval: approval_pb2.Approval) -> str:
    if approval.state in (approval_pb2.APPROVAL_STATE_PENDING, approval_pb2.APPROVAL_STATE_UNSPECIFIED):
        return ""
    words = STATES.get(approval.state, "closed")
    if approval.decision == approval_pb2.DECISION_EDIT:
        words = "approved with other arguments"
    who = one_line(last_part(approval.on_behalf_of or approval.decided_by), 60)
    comment = one_line(approval.comment, 300)
    return words + (f" by {who}" if who else "") + (f": {comment}" if comment else "")
