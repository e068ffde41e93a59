"""Judging a call: the first rule that matches decides; where none does, what is declared READ passes and all
else asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from fermata.server.policy.conditions import ConditionError, Scope
from fermata.server.policy.rules import (
    DEFAULT_ASK_RULE,
    DEFAULT_READ_RULE,
    DEFAULT_REQUIREMENT,
    POLICY_DENIED,
    POLICY_ERROR,
    Call,
    Effect,
    Finding,
    Look,
    Outcome,
    Policy,
    Rule,
    Verdict,
)


def evaluate(policy: Policy, call: Call) -> Verdict:
    """Judge ``call`` by one policy and the defaults. Pure: the same arguments give the same verdict; never
    raises for a call.
    """
    return evaluate_all((policy,), call)


def evaluate_all(policies: Sequence[Policy], call: Call) -> Verdict:
    """Judge ``call`` by several policies as if their rules stood in one list, in this order, with the
    defaults at the end.

    Give the tenant's policy before the agent's: what the tenant decides, an agent's author can't undo.
    """
    scope = Scope(call)
    trace: list[Look] = []
    for policy in policies:
        for rule in policy.rules:
            look = examine(rule, call, scope)
            trace.append(look)
            if look.finding is Finding.MATCHED:
                return _decided(rule, policy, call, tuple(trace))
            if look.finding is Finding.WHEN_FAILED:
                return Verdict(
                    Outcome.DENY,
                    rule.id,
                    f"The condition of rule {rule.id} could not be evaluated for {call.tool}, so the call is "
                    f"refused: {look.detail}.",
                    code=POLICY_ERROR,
                    policy_digest=policy.digest,
                    trace=tuple(trace),
                )
    if call.effect_class is Effect.READ:
        reason = f"No rule applies to this call of {call.tool}, and the tool is declared to read only."
        return Verdict(Outcome.ALLOW, DEFAULT_READ_RULE, reason, trace=tuple(trace))
    reason = f"No rule applies to this call of {call.tool}, and it may change something, so a person decides."
    return Verdict(
        Outcome.REQUIRE_APPROVAL, DEFAULT_ASK_RULE, reason, DEFAULT_REQUIREMENT, trace=tuple(trace)
    )


def examine(rule: Rule, call: Call, scope: Scope) -> Look:
    """Hold one rule against ``call``. ``scope`` is that of the call, and shared between its rules."""
    match = rule.match
    if match.tool is not None and call.tool not in match.tool:
        return Look(rule.id, Finding.OTHER_TOOL)
    if match.agent is not None and call.agent not in match.agent:
        return Look(rule.id, Finding.OTHER_AGENT)
    if match.effect is not None and call.effect_class not in match.effect:
        return Look(rule.id, Finding.OTHER_EFFECT)
    if match.risk is not None and call.risk_class not in match.risk:
        return Look(rule.id, Finding.OTHER_RISK)
    if rule.when is None:
        return Look(rule.id, Finding.MATCHED)
    try:
        holds = rule.when.holds(scope)
    except ConditionError as failed:
        return Look(rule.id, Finding.WHEN_FAILED, str(failed))
    return Look(rule.id, Finding.MATCHED if holds else Finding.WHEN_FALSE)


_VERBS = {
    Outcome.ALLOW: "allows",
    Outcome.DENY: "denies",
    Outcome.REQUIRE_APPROVAL: "reserves for a person",
}


def _decided(rule: Rule, policy: Policy, call: Call, trace: tuple[Look, ...]) -> Verdict:
    return Verdict(
        rule.decide,
        rule.id,
        rule.reason or f"Rule {rule.id} {_VERBS[rule.decide]} {call.tool}.",
        rule.approval,
        POLICY_DENIED if rule.decide is Outcome.DENY else "",
        policy.digest,
        trace,
    )
