"""Properties of policy, tried on random policies, calls and texts."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fermata.server.policy import (
    Call,
    Outcome,
    Policy,
    PolicyError,
    covers,
    evaluate,
    evaluate_all,
    explain,
    parse_policy,
    stricter,
)

usual = settings(deadline=None, max_examples=150)
many = settings(deadline=None, max_examples=500)

# Each condition with what it says of the arguments: True, False, or None where it fails.
CONDITIONS: dict[str, Callable[[Any], bool | None]] = {
    "args.n > 2": lambda a: a["n"] > 2 if isinstance(a.get("n"), int) else None,
    "has(args.n)": lambda a: "n" in a,
    "has(args.s) && args.s == 'x'": lambda a: a.get("s") == "x",
    "args.s.startsWith('x')": lambda a: a["s"].startswith("x") if "s" in a else None,
    "args.s + 1 == 2": lambda a: None,
}
TOOLS = ("set_speed", "set_mode", "stop", "read")
PATTERNS = (*TOOLS, "set_*", "*", "?top", "re*")
EFFECTS = ("READ", "IDEMPOTENT", "UNSAFE")

rule_bodies = st.fixed_dictionaries(
    {"decide": st.sampled_from(["ALLOW", "DENY", "REQUIRE_APPROVAL"])},
    optional={
        "match": st.fixed_dictionaries(
            {"tool": st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3)},
            optional={"effect": st.sampled_from(EFFECTS), "agent": st.sampled_from(["a*", "b", "*"])},
        ),
        "when": st.sampled_from(sorted(CONDITIONS)),
    },
)
rule_lists = st.lists(rule_bodies, max_size=6).map(
    lambda bodies: [{"id": f"r{i}", **body} for i, body in enumerate(bodies)]
)
arguments = st.fixed_dictionaries(
    {}, optional={"n": st.integers(0, 5) | st.just("3"), "s": st.sampled_from(["x", "xy", ""])}
)
calls = st.builds(
    Call,
    tool=st.sampled_from(TOOLS),
    args=arguments,
    agent=st.sampled_from(["a", "ab", "b", ""]),
    effect=st.sampled_from([None, *EFFECTS]),
)
policies = rule_lists.map(lambda rules: parsed(rules))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def parsed(rules: list[dict[str, Any]]) -> Policy:
    return parse_policy(yaml.safe_dump({"version": 1, "rules": rules}))


def fault(text: str | bytes) -> PolicyError | None:
    """What the parser has against ``text``; anything else that it raises is a failure of the test."""
    try:
        parse_policy(text)
    except PolicyError as error:
        return error
    return None


def reference(rules: list[dict[str, Any]], call: Call) -> tuple[str, str]:
    """First match wins, as naively as it can be written."""
    for rule in rules:
        match = rule.get("match", {})
        if "tool" in match and not any(fnmatchcase(call.tool, p) for p in match["tool"]):
            continue
        if "effect" in match and (call.effect or "UNSAFE") != match["effect"]:
            continue
        if "agent" in match and not fnmatchcase(call.agent, match["agent"]):
            continue
        holds = CONDITIONS[rule["when"]](call.args) if "when" in rule else True
        if holds is None:
            return "DENY", rule["id"]
        if holds:
            return rule["decide"], rule["id"]
    return ("ALLOW", "default:read") if call.effect == "READ" else ("REQUIRE_APPROVAL", "default:ask")


@usual
@given(rule_lists, calls)
def test_the_first_match_wins_as_in_the_naive_reference(rules: list[dict[str, Any]], call: Call) -> None:
    verdict = evaluate(parsed(rules), call)
    assert (verdict.outcome, verdict.rule_id) == reference(rules, call)
    assert (verdict.requirement is not None) is (verdict.outcome is Outcome.REQUIRE_APPROVAL)
    assert bool(verdict.code) is (verdict.outcome is Outcome.DENY)


@usual
@given(rule_lists, rule_bodies, calls)
def test_a_rule_added_below_changes_no_decision_of_the_rules_above(
    rules: list[dict[str, Any]], added: dict[str, Any], call: Call
) -> None:
    before = evaluate(parsed(rules), call)
    after = evaluate(parsed([*rules, {"id": "added", **added}]), call)
    if not before.rule_id.startswith("default:"):
        assert (after.outcome, after.rule_id) == (before.outcome, before.rule_id)
    if before.outcome is Outcome.DENY:
        assert after.outcome is Outcome.DENY


@usual
@given(rule_lists, rule_lists, calls)
def test_policies_in_a_row_are_one_policy(
    first: list[dict[str, Any]], second: list[dict[str, Any]], call: Call
) -> None:
    second = [{**rule, "id": "s" + rule["id"]} for rule in second]
    together = evaluate(parsed(first + second), call)
    in_a_row = evaluate_all([parsed(first), parsed(second)], call)
    assert (in_a_row.outcome, in_a_row.rule_id, in_a_row.trace) == (
        together.outcome,
        together.rule_id,
        together.trace,
    )


@usual
@given(policies, calls)
def test_explaining_agrees_with_judging(policy: Policy, call: Call) -> None:
    explanation = explain([policy], call)
    assert explanation.verdict == evaluate(policy, call)
    decided = [rule.rule_id for rule in explanation.rules if rule.decided]
    assert decided == [explanation.verdict.rule_id] or explanation.verdict.rule_id.startswith("default:")
    assert sum(rule.reached for rule in explanation.rules) == len(explanation.verdict.trace)
    json.dumps(explanation.as_dict())


OVERSPEED_ALLOWED = parsed([{"id": "a", "when": "args.rpm > 2800", "decide": "ALLOW"}])
ANYTHING_ALLOWED = parsed([{"id": "a", "when": "size(args) >= 0 && true", "decide": "ALLOW"}])
odd_values = json_values | st.binary(max_size=3) | st.sets(st.integers(), max_size=2) | st.complex_numbers()


def is_plain(value: object) -> bool:
    """Finite JSON with integers that a double carries, and text that UTF-8 carries."""
    if isinstance(value, dict):
        return all(is_plain(k) and is_plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(is_plain(v) for v in value)
    if isinstance(value, str):
        return not any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, int):
        return abs(value) < 2**53
    return math.isfinite(value) if isinstance(value, float) else value is None


@usual
@given(st.dictionaries(st.sampled_from(["rpm", "x", "\ud800"]), odd_values))
def test_only_a_number_above_the_threshold_is_ever_allowed(args: dict[str, object]) -> None:
    rpm = args.get("rpm")
    is_number = isinstance(rpm, (int, float)) and not isinstance(rpm, bool)
    outcome = evaluate(OVERSPEED_ALLOWED, Call("x", args)).outcome
    if not is_plain(args) or not is_number:
        assert outcome is Outcome.DENY
    else:
        assert (outcome is Outcome.ALLOW) is (rpm > 2800)  # type: ignore[operator]


@usual
@given(st.dictionaries(st.text(max_size=3), odd_values, max_size=4))
def test_arguments_that_are_not_plain_json_are_refused_and_all_others_are_read(
    args: dict[str, object],
) -> None:
    outcome = evaluate(ANYTHING_ALLOWED, Call("x", args)).outcome
    assert outcome is (Outcome.ALLOW if is_plain(args) else Outcome.DENY)


@usual
@given(st.text() | st.binary())
def test_no_text_makes_the_parser_raise_anything_but_a_policy_error(text: str | bytes) -> None:
    error = fault(text)
    assert error is not None
    assert error.reason == "POLICY_MALFORMED"
    assert error.line >= 1
    assert error.column >= 1


SEED = """\
version: 1
rules:
  - id: a
    match: { tool: [set_speed, "s*"], effect: UNSAFE, risk: high, agent: x }
    when: |
      has(args.rpm) && args.rpm > 2800 || args.l.all(x, x.matches('^a'))
    decide: REQUIRE_APPROVAL
    reason: "why"
    approval: { roles: [approver], count: 1, valid_for: 15m, on_timeout: REJECT, not_requester: false }
"""
snippets = (
    st.sampled_from(
        [
            *"[]{}:,-?&*!|>'\"#%@`\n\t \\",
            "- ",
            ": ",
            "<<: ",
            "&a ",
            "*a",
            "!!x ",
            "---\n",
            "''",
            "\x85",
            "é",
            "0",
            "(",
            "&&",
        ]
    )
    | st.characters()
)


@many
@given(st.lists(st.tuples(st.integers(0, len(SEED)), st.integers(0, 6), snippets), min_size=1, max_size=4))
def test_no_damage_to_a_policy_makes_the_parser_raise_anything_else(
    edits: list[tuple[int, int, str]],
) -> None:
    text = SEED
    for at, deleted, inserted in edits:
        text = text[:at] + inserted + text[at + deleted :]
    error = fault(text)
    assert error is None or 1 <= error.line <= len(text.splitlines())


@usual
@given(json_values | st.fixed_dictionaries({"version": json_values, "rules": st.lists(json_values)}))
def test_no_structure_makes_the_parser_raise_anything_else(value: object) -> None:
    error = fault(yaml.safe_dump(value, allow_unicode=True))
    assert error is None or str(error)


WORDS = (
    *(
        "args",
        ".",
        "tool",
        "x",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "?",
        "'a'",
        '"',
        "1",
        "2.5",
        "-",
        "!",
    ),
    *("&&", "||", "==", "<", "in", "has", "size", "matches", "true", "null", "+", "/", "//", "all", "exists"),
)


@many
@given(st.lists(st.sampled_from(WORDS), max_size=14))
def test_no_condition_makes_the_parser_or_the_judging_raise_anything_else(tokens: list[str]) -> None:
    condition = " ".join(tokens)
    try:
        policy = parsed([{"id": "a", "when": condition, "decide": "ALLOW"}])
    except PolicyError:
        return
    evaluate(policy, Call("x", {"a": 1, "x": [1, "a"]}))


@usual
@given(rule_lists, st.randoms(use_true_random=False), st.booleans())
def test_the_digest_does_not_depend_on_layout(
    rules: list[dict[str, Any]], rng: random.Random, flow: bool
) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = sorted(value)
            rng.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    document = shuffled({"version": 1, "rules": rules})
    text = "# a comment\n" + yaml.safe_dump(document, sort_keys=False, default_flow_style=flow)
    assert parse_policy(text) == parsed(rules)


@usual
@given(policies, policies, calls)
def test_the_stricter_verdict_is_at_least_as_strict_as_both(a: Policy, b: Policy, call: Call) -> None:
    given_verdict, now = evaluate(a, call), evaluate(b, call)
    both = stricter(given_verdict, now)
    rank = [Outcome.ALLOW, Outcome.REQUIRE_APPROVAL, Outcome.DENY]
    assert rank.index(both.outcome) == max(rank.index(given_verdict.outcome), rank.index(now.outcome))
    for verdict in (given_verdict, now):
        if both.requirement is not None and verdict.requirement is not None:
            assert covers(both.requirement, verdict.requirement)
