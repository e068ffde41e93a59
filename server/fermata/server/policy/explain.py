"""Why a call gets the verdict that it gets: every rule held against it, also those that the decision never
reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fermata.server.policy.conditions import Scope
from fermata.server.policy.evaluate import evaluate_all, examine
from fermata.server.policy.rules import Call, Finding, Look, Policy, Rule, Verdict


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """One rule and what came of it. ``policy`` counts the policies as they were given, from 0."""

    policy: int
    rule_id: str
    decide: str
    finding: Finding
    detail: str
    """One sentence: which part didn't fit and what it wanted, or why the condition failed."""
    reached: bool
    """False where an earlier rule had decided already; the finding then says what would have come of it."""
    decided: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    verdict: Verdict
    rules: tuple[RuleExplanation, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        verdict = asdict(self.verdict)
        verdict["trace"] = [look._asdict() for look in self.verdict.trace]
        return {"verdict": verdict, "rules": [asdict(rule) for rule in self.rules]}


def explain(policies: Sequence[Policy], call: Call) -> Explanation:
    """The verdict of :func:`.evaluate.evaluate_all`, and what came of every rule. Pure; never raises for a
    call.
    """
    verdict = evaluate_all(policies, call)
    scope = Scope(call)
    explanations: list[RuleExplanation] = []
    open_question = True
    for i, policy in enumerate(policies):
        for rule in policy.rules:
            look = examine(rule, call, scope)
            decides = open_question and look.finding in (Finding.MATCHED, Finding.WHEN_FAILED)
            detail = _detail(rule, call, look)
            explanations.append(
                RuleExplanation(i, rule.id, rule.decide.value, look.finding, detail, open_question, decides)
            )
            open_question = open_question and not decides
    return Explanation(verdict, tuple(explanations))


def _detail(rule: Rule, call: Call, look: Look) -> str:
    when = rule.when.text if rule.when else ""
    match look.finding:
        case Finding.MATCHED:
            return f"It matches, and its condition is true: {when}" if when else "It matches."
        case Finding.WHEN_FALSE:
            return f"It matches, and its condition is false: {when}"
        case Finding.WHEN_FAILED:
            return f"It matches, and its condition could not be evaluated: {look.detail}: {when}"
        case Finding.OTHER_TOOL:
            return _differs("tool", call.tool, rule)
        case Finding.OTHER_AGENT:
            return _differs("agent", call.agent, rule)
        case Finding.OTHER_EFFECT:
            return _differs("effect", call.effect_class.value, rule)
        case Finding.OTHER_RISK:
            return _differs("risk", call.risk_class.value, rule)


def _differs(part: str, value: str, rule: Rule) -> str:
    wanted = getattr(rule.match, part).patterns
    return f"The {part} is {value!r}; the rule is about {', '.join(wanted)}."
