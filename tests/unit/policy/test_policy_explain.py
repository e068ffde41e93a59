"""Explaining: the same verdict as judging, and one line for every rule."""

from __future__ import annotations

import json

from fermata.server.policy import Call, Finding, Requester, evaluate_all, explain, parse_policy

TENANT = parse_policy("""
version: 1
rules:
  - {id: viewers, when: "'viewer' in requested_by.roles", decide: DENY}
  - {id: reads, match: {effect: READ}, decide: ALLOW}
""")
AGENT = parse_policy("""
version: 1
rules:
  - {id: overspeed, match: {tool: set_speed}, when: args.rpm > 2800, decide: DENY, reason: too fast}
  - {id: night, match: {agent: "night-*"}, decide: DENY}
  - {id: calm, match: {risk: low}, decide: ALLOW}
  - {id: other, match: {tool: [stop, start]}, decide: ALLOW}
  - {id: broken, when: args.nothing == 1, decide: ALLOW}
""")


def call(rpm: int) -> Call:
    return Call("set_speed", {"rpm": rpm}, agent="operator", requested_by=Requester("ada", ("operator",)))


def test_the_verdict_is_that_of_evaluating() -> None:
    for rpm in (2600, 2900):
        assert explain([TENANT, AGENT], call(rpm)).verdict == evaluate_all([TENANT, AGENT], call(rpm))


def test_each_rule_says_what_kept_it_from_deciding() -> None:
    rules = explain([TENANT, AGENT], call(2600)).rules
    assert [(rule.policy, rule.rule_id, rule.finding) for rule in rules] == [
        (0, "viewers", Finding.WHEN_FALSE),
        (0, "reads", Finding.OTHER_EFFECT),
        (1, "overspeed", Finding.WHEN_FALSE),
        (1, "night", Finding.OTHER_AGENT),
        (1, "calm", Finding.OTHER_RISK),
        (1, "other", Finding.OTHER_TOOL),
        (1, "broken", Finding.WHEN_FAILED),
    ]
    assert rules[1].detail == "The effect is 'UNSAFE'; the rule is about READ."
    assert rules[2].detail == "It matches, and its condition is false: args.rpm > 2800"
    assert "there is no key 'nothing'" in rules[6].detail
    assert [rule.decided for rule in rules] == [False] * 6 + [True]
    assert all(rule.reached for rule in rules)


def test_rules_after_the_decision_say_what_would_have_come_of_them() -> None:
    rules = explain([TENANT, AGENT], call(2900)).rules
    assert [rule.rule_id for rule in rules if rule.decided] == ["overspeed"]
    assert [rule.reached for rule in rules] == [True] * 3 + [False] * 4
    assert rules[6].finding is Finding.WHEN_FAILED


def test_without_a_rule_nothing_decided_but_the_default() -> None:
    explanation = explain([TENANT], call(1))
    assert explanation.verdict.rule_id == "default:ask"
    assert not any(rule.decided for rule in explanation.rules)


def test_an_explanation_is_plain_data() -> None:
    data = json.loads(json.dumps(explain([TENANT, AGENT], call(2900)).as_dict()))
    assert data["verdict"]["outcome"] == "DENY"
    assert data["verdict"]["reason"] == "too fast"
    assert data["verdict"]["trace"][-1] == {"rule_id": "overspeed", "finding": "matched", "detail": ""}
    assert data["rules"][0]["finding"] == "when is false"
