"""Judging calls: order, defaults, and that whatever can't be judged is refused."""

from __future__ import annotations

import pytest

from fermata.server.policy import (
    DEFAULT_REQUIREMENT,
    POLICY_DENIED,
    POLICY_ERROR,
    Call,
    Effect,
    Finding,
    Outcome,
    Policy,
    Requester,
    Risk,
    Verdict,
    evaluate,
    evaluate_all,
    parse_policy,
)


def policy(*rules: str) -> Policy:
    return parse_policy("version: 1\nrules:\n" + "".join(f"- {{{rule}}}\n" for rule in rules))


def judged(when: str, call: Call, decide: str = "ALLOW") -> Verdict:
    """The verdict of a single rule with the condition ``when``."""
    text = f"version: 1\nrules:\n- id: a\n  decide: {decide}\n  when: |\n    {when}\n"
    return evaluate(parse_policy(text), call)


EMPTY = policy("id: never, match: {tool: nothing}, decide: DENY")


def test_the_first_rule_that_matches_decides() -> None:
    rules = policy(
        "id: a, match: {tool: other}, decide: DENY",
        "id: b, when: args.rpm > 2800, decide: DENY",
        "id: c, match: {tool: set_*}, decide: ALLOW",
        "id: d, match: {tool: set_speed}, decide: DENY",
    )
    verdict = evaluate(rules, Call("set_speed", {"rpm": 2600}))
    assert (verdict.outcome, verdict.rule_id, verdict.policy_digest) == (Outcome.ALLOW, "c", rules.digest)
    assert [look.finding for look in verdict.trace] == [
        Finding.OTHER_TOOL,
        Finding.WHEN_FALSE,
        Finding.MATCHED,
    ]


def test_without_a_rule_a_declared_read_passes() -> None:
    verdict = evaluate(EMPTY, Call("read", effect="READ"))
    assert (verdict.outcome, verdict.rule_id, verdict.requirement) == (Outcome.ALLOW, "default:read", None)


@pytest.mark.parametrize("effect", [None, "", "IDEMPOTENT", "UNSAFE", "read", "WRITE"])
def test_without_a_rule_everything_else_asks(effect: str | None) -> None:
    verdict = evaluate(EMPTY, Call("set_speed", effect=effect))
    assert (verdict.outcome, verdict.rule_id) == (Outcome.REQUIRE_APPROVAL, "default:ask")
    assert verdict.requirement == DEFAULT_REQUIREMENT


def test_a_denial_carries_the_authors_reason() -> None:
    verdict = evaluate(policy("id: a, decide: DENY, reason: Not on Sundays."), Call("x", effect="READ"))
    assert (verdict.outcome, verdict.reason, verdict.code) == (Outcome.DENY, "Not on Sundays.", POLICY_DENIED)


def test_a_requirement_is_handed_on() -> None:
    verdict = evaluate(policy("id: a, decide: REQUIRE_APPROVAL, approval: {count: 3}"), Call("x"))
    assert verdict.requirement is not None
    assert verdict.requirement.count == 3


def test_an_undeclared_effect_is_unsafe_and_an_undeclared_risk_follows_the_effect() -> None:
    assert (Call("x").effect_class, Call("x").risk_class) == (Effect.UNSAFE, Risk.HIGH)
    assert Call("x", effect="READ").risk_class is Risk.LOW
    assert Call("x", effect="IDEMPOTENT").risk_class is Risk.MEDIUM
    assert Call("x", effect="UNSAFE", risk="low").risk_class is Risk.LOW
    assert Call("x", effect="READ", risk="harmless").risk_class is Risk.HIGH


@pytest.mark.parametrize(
    ("part", "finding"),
    [
        ("tool: [a, 'b*']", Finding.OTHER_TOOL),
        ("agent: 'night-*'", Finding.OTHER_AGENT),
        ("effect: READ", Finding.OTHER_EFFECT),
        ("risk: [low, medium]", Finding.OTHER_RISK),
    ],
)
def test_every_part_of_a_match_has_to_hold(part: str, finding: Finding) -> None:
    verdict = evaluate(policy(f"id: a, match: {{{part}}}, decide: ALLOW"), Call("set_speed", agent="day"))
    assert verdict.rule_id == "default:ask"
    assert verdict.trace[0].finding is finding


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("set_speed", "set_speed", True),
        ("set_speed", "set_speed2", False),
        ("set_*", "set_", True),
        ("set_*", "Set_speed", False),
        ("*", "", True),
        ("?at", "cat", True),
        ("?at", "at", False),
        ("*.b", "a/x\n.b", True),
        ("a.b", "axb", False),
    ],
)
def test_globs_know_star_and_question_mark_and_case(pattern: str, name: str, fits: bool) -> None:
    verdict = evaluate(policy(f"id: a, match: {{tool: '{pattern}'}}, decide: DENY"), Call(name))
    assert (verdict.rule_id == "a") is fits


def test_a_condition_sees_the_whole_call() -> None:
    call = Call(
        "set_speed",
        {"line": "line-3", "rpm": 2600},
        agent="operator",
        revision="7",
        effect="IDEMPOTENT",
        provenance=("user", "web"),
        requested_by=Requester("users/ada", ("operator",)),
    )
    when = (
        "tool == 'set_speed' && args.line == 'line-3' && agent == 'operator' && revision == '7' && "
        "effect == 'IDEMPOTENT' && risk == 'medium' && 'web' in provenance && "
        "requested_by.name == 'users/ada' && 'operator' in requested_by.roles"
    )
    assert judged(when, call).outcome is Outcome.ALLOW


@pytest.mark.parametrize("rpm", [2801, 2800.5, 9e300])
def test_integers_and_floats_compare(rpm: float) -> None:
    assert judged("args.rpm > 2800", Call("x", {"rpm": rpm}), "DENY").code == POLICY_DENIED


@pytest.mark.parametrize(
    ("when", "args", "says"),
    [
        ("args.rpm > 2800", {"rpm": "2900"}, "types that it does not take"),
        ("args.rpm > 2800", {"rpm": True}, "types that it does not take"),
        ("args.rpm > 2800", {"rpm": None}, "types that it does not take"),
        ("args.rpm > 2800", {}, "there is no key 'rpm' (guard it with `has`)"),
        ("args.rpm > 2800", {"rpm": float("nan")}, "args.rpm is nan"),
        ("args.rpm > 2800", {"rpm": float("inf")}, "args.rpm is inf"),
        ("args.rpm > 2800", {"rpm": 2**53}, "args.rpm is an integer beyond 2^53 - 1"),
        ("args.rpm", {"rpm": 1}, "it gives a number instead of true or false"),
        ("args.rpm", {"rpm": "true"}, "it gives a text instead of true or false"),
        ("args.rpm", {"rpm": None}, "it gives null"),
        ("args.rpm / args.n > 1", {"rpm": 1, "n": 0}, "division by zero"),
        ("args.rpm * args.rpm * args.rpm > 1", {"rpm": 2**50}, "overflow"),
        ("args.l[3] > 1", {"l": [1]}, "index out of bounds"),
        ("has(args.a.b)", {}, "there is no key 'a'"),
        ("args.s.matches(args.p)", {"s": "x", "p": "("}, "not a valid regex"),
        ("timestamp(args.t) > timestamp('2026-01-01T00:00:00Z')", {"t": "soon"}, "timestamp"),
        ("args.ok", {"ok": True, "more": {"x": [1, {2}]}}, "args.more.x.1 is of type set"),
        ("args.ok", {"ok": True, "more": {1: 2}}, "args.more has the key 1"),
        ("args.ok", {"ok": True, "more": b"x"}, "args.more is of type bytes"),
        ("args.ok", {"ok": True, "more": "\ud800"}, "not valid Unicode"),
        ("args.ok", {"ok": True, "more": "x" * 65_536}, "larger than 65536"),
        ("args.ok", {"ok": True, "more": [0] * 65_536}, "larger than 65536"),
    ],
)
def test_a_condition_that_fails_refuses(when: str, args: dict[str, object], says: str) -> None:
    verdict = judged(when, Call("x", args, effect="READ"))
    assert (verdict.outcome, verdict.rule_id, verdict.code) == (Outcome.DENY, "a", POLICY_ERROR)
    assert says in verdict.reason
    assert verdict.trace[-1].finding is Finding.WHEN_FAILED


def test_a_failing_condition_ends_the_search_although_a_later_rule_would_allow() -> None:
    rules = policy("id: a, when: args.x > 1, decide: ALLOW", "id: b, decide: ALLOW")
    assert evaluate(rules, Call("x")).rule_id == "a"


def test_a_failing_condition_of_another_tools_rule_does_not_matter() -> None:
    rules = policy("id: a, match: {tool: y}, when: args.x > 1, decide: DENY", "id: b, decide: ALLOW")
    assert evaluate(rules, Call("x")).outcome is Outcome.ALLOW


def test_what_no_condition_reads_is_not_measured() -> None:
    huge = Call("x", {"text": "x" * 10_000_000})
    assert judged("tool == 'x'", huge).outcome is Outcome.ALLOW


@pytest.mark.parametrize(
    ("when", "args"),
    [
        ("!has(args.x) || args.x > 2", {}),
        ("has(args.m) && has(args.m.x) && args.m.x == 1", {"m": {"x": 1.0}}),
        ("args.x == 1 || true", {}),
        ("args.text.matches('^line-[0-9]+$')", {"text": "line-3"}),
        ("args.a in ['x', 'y']", {"a": "y"}),
        ("2.0 in args.l", {"l": [1, 2]}),
        ("args.n == null", {"n": None}),
        ("timestamp(args.t) > timestamp('2026-01-01T00:00:00Z')", {"t": "2026-02-03T04:05:06Z"}),
        ("duration(args.d) <= duration('90m')", {"d": "1h"}),
        ("args.x != 1", {"x": "1"}),
        ("args.big == 9007199254740991", {"big": 2**53 - 1}),
        ("args.l.exists_one(x, x.on)", {"l": ({"on": True}, {"on": False})}),
        ("args.l.filter(x, x > 1).size() == 2", {"l": [1, 2, 3]}),
        ("args.l.map(x, x * 2) == [2, 4]", {"l": [1, 2]}),
        ("size(args.word) == 6", {"word": "größe"[:4]}),
    ],
)
def test_conditions_that_hold(when: str, args: dict[str, object]) -> None:
    verdict = judged(when, Call("x", args))
    assert verdict.outcome is Outcome.ALLOW, verdict.reason


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_deep_and_circular_arguments_are_refused_before_they_reach_the_library() -> None:
    circle: list[object] = []
    circle.append(circle)
    for value in (nested(32), nested(200_000), circle):
        assert "nested more than 32 deep" in judged("size(args.v) > 0", Call("x", {"v": value})).reason
    assert judged("size(args.v) > 0", Call("x", {"v": nested(31)})).outcome is Outcome.ALLOW


@pytest.mark.parametrize(
    ("when", "small", "large"),
    [
        ("args.l.all(x, args.l.all(y, x + y >= 0))", 400, 600),
        ("args.l.filter(x, x > 0).size() > 3", 400, 600),
        ("args.l.all(x, args.l.all(y, args.l.all(z, x + y + z >= 0)))", 50, 70),
        ("args.l.all(x, string(x).matches('[0-9]'))", 4_000, 6_000),
        ("args . l . all ( x , args.l . all(y, x + y >= 0))", 400, 600),
        ("args.l.all(x, x >= 0)", 60_000, 70_000),
    ],
)
def test_work_grows_no_further_than_its_bound(when: str, small: int, large: int) -> None:
    assert judged(when, Call("x", {"l": list(range(small))})).outcome is Outcome.ALLOW
    verdict = judged(when, Call("x", {"l": list(range(large))}))
    assert verdict.code == POLICY_ERROR
    assert "larg" in verdict.reason


def test_the_bound_on_work_is_one_for_all_conditions_of_a_call() -> None:
    when = "'args.l.all(x, args.l.all(y, x + y < 0))'"
    rules = [f"id: r{i}, when: {when}, decide: DENY" for i in range(3)]
    args = {"l": list(range(400))}
    assert evaluate(policy(rules[0]), Call("x", args)).rule_id == "default:ask"
    verdict = evaluate(policy(*rules), Call("x", args))
    assert (verdict.rule_id, verdict.code) == ("r1", POLICY_ERROR)


def test_several_policies_are_one_list_with_the_defaults_at_its_end() -> None:
    tenant = policy("id: t, match: {tool: a}, decide: DENY")
    agent = policy("id: t, match: {tool: '*'}, decide: ALLOW")
    assert evaluate_all([tenant, agent], Call("a")).outcome is Outcome.DENY
    second = evaluate_all([tenant, agent], Call("b"))
    assert (second.outcome, second.policy_digest) == (Outcome.ALLOW, agent.digest)
    assert evaluate_all([tenant, EMPTY], Call("b")).rule_id == "default:ask"
    assert evaluate_all([], Call("b", effect="READ")).rule_id == "default:read"
