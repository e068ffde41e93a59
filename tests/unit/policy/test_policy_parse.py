"""Reading a policy: what is understood, and that every fault is named with its place and its remedy."""

from __future__ import annotations

import textwrap

import pytest

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.policy import (
    DEFAULT_REQUIREMENT,
    ApprovalRequirement,
    OnTimeout,
    Outcome,
    PolicyError,
    parse_policy,
)
from fermata.server.policy.parse import SIZE_LIMIT_BYTES

FULL = """\
# The factory's rules.
version: 1
rules:
  - id: never-overspeed
    match: { tool: set_speed, effect: [IDEMPOTENT, UNSAFE], risk: "*", agent: [operator, "night-*"] }
    when: args.rpm > 2800
    decide: DENY
    reason: The bearings do not survive it.
  - id: ask
    decide: REQUIRE_APPROVAL
    approval:
      roles: [operator, approver]
      count: 2
      valid_for: 1h30m
      on_timeout: HALT
      not_requester: true
"""


def rule(body: str) -> str:
    """A policy of one rule with id and decision, and ``body`` below them."""
    head = "version: 1\nrules:\n  - id: a\n    decide: REQUIRE_APPROVAL\n"
    return head + textwrap.indent(textwrap.dedent(body), "    ")


def fault(text: str | bytes) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    return caught.value


def test_a_full_policy_is_understood() -> None:
    policy = parse_policy(FULL)
    deny, ask = policy.rules
    assert (deny.id, deny.decide, deny.approval) == ("never-overspeed", Outcome.DENY, None)
    assert deny.reason == "The bearings do not survive it."
    assert deny.when is not None
    assert deny.when.text == "args.rpm > 2800"
    assert deny.match.agent is not None
    assert "night-shift" in deny.match.agent
    assert "day-shift" not in deny.match.agent
    assert ask.approval == ApprovalRequirement(("approver", "operator"), 2, 5400, OnTimeout.HALT, True)


def test_an_approval_that_says_little_gets_the_defaults() -> None:
    assert parse_policy(rule("")).rules[0].approval == DEFAULT_REQUIREMENT
    assert parse_policy(rule("approval: {count: 2}")).rules[0].approval == ApprovalRequirement(count=2)
    assert ApprovalRequirement(("approver",), 1, 900, OnTimeout.REJECT, False) == DEFAULT_REQUIREMENT


def test_no_rules_is_a_policy() -> None:
    assert parse_policy("version: 1\nrules: []").rules == ()


def test_bytes_are_read_as_utf_8() -> None:
    assert parse_policy(FULL.encode()) == parse_policy(FULL)


def test_the_digest_ignores_comments_layout_quoting_and_the_order_of_keys() -> None:
    other = """
    rules:
    - {decide: "DENY", reason: 'The bearings do not survive it.', id: never-overspeed,
       when: 'args.rpm > 2800',
       match: {agent: ["night-*", operator, operator], effect: [UNSAFE, IDEMPOTENT], tool: [set_speed],
               risk: '*'}}
    - id: ask
      approval: {valid_for: 90m, count: 2, not_requester: true, on_timeout: HALT,
                 roles: [approver, operator]}
      decide: REQUIRE_APPROVAL   # two of them
    version: 1
    """
    assert parse_policy(textwrap.dedent(other)).digest == parse_policy(FULL).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2800", "2801"),
        ("DENY", "ALLOW"),
        ("count: 2", "count: 3"),
        ("set_speed", "set_*"),
        ("survive", "like"),
        ("id: ask", "id: ask2"),
    ],
)
def test_the_digest_changes_with_the_meaning(old: str, new: str) -> None:
    assert parse_policy(FULL.replace(old, new)).digest != parse_policy(FULL).digest


def test_the_digest_changes_with_the_order_of_the_rules() -> None:
    one, two = "  - {id: a, decide: DENY}\n", "  - {id: b, decide: DENY}\n"
    head = "version: 1\nrules:\n"
    assert parse_policy(head + one + two).digest != parse_policy(head + two + one).digest


def test_a_policy_error_is_a_value_error_with_facts() -> None:
    error = fault(rule("when: args.rpm >> 3"))
    assert isinstance(error, ValueError)
    assert isinstance(error, DomainError)
    assert (error.reason, error.kind) == ("POLICY_MALFORMED", ErrorKind.INVALID_ARGUMENT)
    assert (error.line, error.column, error.path) == (5, 21, "rules[0].when")
    assert error.metadata == {"line": "5", "column": "21", "path": "rules[0].when"}
    assert "line 5, column 21 (rules[0].when)" in str(error)


@pytest.mark.parametrize(
    ("text", "line", "path", "says"),
    [
        ("", 1, "", "it is empty"),
        ("# nothing\n", 1, "", "it is empty"),
        ("hello", 1, "", "keys and values are expected"),
        ("- a", 1, "", "keys and values are expected"),
        ("version: 1", 1, "", "'rules' is missing"),
        ("rules: []", 1, "", "'version' is missing"),
        ("version: 2\nrules: []", 1, "version", "this server reads 1"),
        ("version: one\nrules: []", 1, "version", "no whole number"),
        ("version: 1\nrules: {}", 2, "rules", "a list of rules is expected"),
        ("version: 1\nrules:", 2, "rules", "a list of rules is expected"),
        ("version: 1\nrules:\n- x", 3, "rules[0]", "not the text 'x'"),
        ("version: 1\nrules: []\nrule: 1", 3, "rule", "did you mean 'rules'?"),
        ("version: 1\nrules: []\nversion: 1", 3, "", "for the second time (first in line 1)"),
        ("version: 1\nrules:\n- {id: a, decide: DENY}\n- {id: a, decide: DENY}", 4, "rules[1].id", "line 3"),
        ("version: 1\nrules:\n- {id: a}", 3, "rules[0]", "'decide' is missing"),
        ("version: 1\nrules:\n- {decide: DENY}", 3, "rules[0]", "'id' is missing"),
        ("version: 1\nrules:\n- {id: a b, decide: DENY}", 3, "rules[0].id", "is no id"),
        ("version: 1\nrules:\n- {id: default:x, decide: DENY}", 3, "rules[0].id", "is no id"),
        ("version: 1\nrules:\n- {id: a, decide: deny}", 3, "rules[0].decide", "did you mean 'DENY'?"),
        ("version: 1\nrules:\n- {id: a, decide: DENY, approval: {}}", 3, "rules[0].approval", "asks nobody"),
        (rule("mach: {tool: x}"), 5, "rules[0].mach", "did you mean 'match'?"),
        (rule("match: {}"), 5, "rules[0].match", "it says nothing"),
        (rule("match:"), 5, "rules[0].match", "not nothing"),
        (rule("match: {tools: x}"), 5, "rules[0].match.tools", "did you mean 'tool'?"),
        (rule("match: {tool: []}"), 5, "rules[0].match.tool", "would match nothing"),
        (rule("match: {tool: {a: b}}"), 5, "rules[0].match.tool", "a text is expected"),
        (rule("match: {tool: [x, ]}\nreason:"), 6, "rules[0].reason", "there is none"),
        (rule("match:\n  tool:\n  - x\n  - '[ab]'"), 8, "rules[0].match.tool[1]", "only * and ?"),
        (rule("match: {effect: WRITE}"), 5, "rules[0].match.effect", "none of READ, IDEMPOTENT, UNSAFE"),
        (rule("match: {risk: hihg}"), 5, "rules[0].match.risk", "did you mean 'high'?"),
        (rule("approval: {roles: []}"), 5, "rules[0].approval.roles", "nobody could approve"),
        (rule("approval: {roles: [aprover]}"), 5, "rules[0].approval.roles", "did you mean 'approver'?"),
        (rule("approval: {count: 0}"), 5, "rules[0].approval.count", "from 1 to 10"),
        (rule("approval: {count: 1.5}"), 5, "rules[0].approval.count", "from 1 to 10"),
        (rule("approval: {valid_for: 900}"), 5, "rules[0].approval.valid_for", "90s, 15m, 2h"),
        (rule("approval: {valid_for: 0s}"), 5, "rules[0].approval.valid_for", "no duration"),
        (rule("approval: {valid_for: 31d}"), 5, "rules[0].approval.valid_for", "no duration"),
        (rule("approval: {on_timeout: ALLOW}"), 5, "rules[0].approval.on_timeout", "REJECT, HALT"),
        (rule("approval: {not_requester: yes}"), 5, "rules[0].approval.not_requester", "true nor false"),
        (rule("reason: [a]"), 5, "rules[0].reason", "a text is expected"),
        (rule(f"reason: {'x' * 501}"), 5, "rules[0].reason", "the limit is 500"),
        (rule("when: {a: b}"), 5, "rules[0].when", "quote it"),
    ],
)
def test_a_fault_is_named_with_its_place_and_its_remedy(text: str, line: int, path: str, says: str) -> None:
    error = fault(text)
    assert (error.line, error.path) == (line, path)
    assert says in str(error)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("version: 1\nrules: [", 2, "not YAML"),
        ("version: 1\n\trules: []", 2, "not YAML"),
        ("version: 1: 2", 1, "not YAML"),
        ("version: \x00", 1, "control characters"),
        ("version: &v 1\nrules: []", 1, "anchors and aliases"),
        ("version: 1\nrules: *r", 2, "anchors and aliases"),
        ("version: !!int 1\nrules: []", 1, "the tag"),
        ("!!python/object/apply:os.system [echo]", 1, "the tag"),
        ("version: 1\nrules: []\n---\nversion: 1\nrules: []", 3, "second document"),
        ("? [a]\n: b", 1, "a key has to be"),
        ("version: 1\nrules: []\n<<: {a: b}", 3, "'<<' is not known"),
    ],
)
def test_what_yaml_can_do_and_a_policy_must_not_is_refused(text: str, line: int, says: str) -> None:
    error = fault(text)
    assert error.line == line
    assert says in str(error)


def test_an_alias_bomb_is_refused_before_it_expands() -> None:
    layers = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert "anchors and aliases" in str(fault("l0: &l0 [lol]\n" + layers))


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? ", "{a: "])
def test_endless_nesting_is_refused(opening: str) -> None:
    assert "nested" in str(fault(opening * 20_000))


def test_a_text_over_the_limit_is_refused_and_one_at_the_limit_is_not() -> None:
    empty = "version: 1\nrules: []\n#"
    parse_policy(empty + "x" * (SIZE_LIMIT_BYTES - len(empty)))
    assert str(SIZE_LIMIT_BYTES) in str(fault(empty + "x" * (SIZE_LIMIT_BYTES - len(empty) + 1)))


def test_too_many_rules_are_refused() -> None:
    rules = "".join(f"- {{id: r{i}, decide: DENY}}\n" for i in range(501))
    assert "the limit is 500" in str(fault("version: 1\nrules:\n" + rules))


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"version: 1\nrules: []\n#\xc3", "\ud800"])
def test_what_is_not_utf_8_is_refused(raw: str | bytes) -> None:
    assert "UTF-8" in str(fault(raw))


@pytest.mark.parametrize(
    ("when", "line", "column", "says"),
    [
        ("when: args.rpm >> 2800", 5, 21, "extraneous input '>'"),
        ("when: 'args.rpm > 1 and true'", 5, 25, "CEL writes && for 'and'"),
        ("when: args.rpm = 3", 5, 20, "CEL compares with =="),
        ("when: args.rpm >", 5, 21, "it ends too early"),
        ("when: arg.rpm > 3", 5, 11, "did you mean 'args'?"),
        ("when: now() > 3", 5, 11, "there is no function 'now'"),
        ("when: tool.startswith('a')", 5, 16, "did you mean 'startsWith'?"),
        ("when: requested_by.role == 'x'", 5, 24, "did you mean 'roles'?"),
        ("when: args.x.matches('(')", 5, 26, "regex parse error"),
        ("when: timestamp('2026-13-01T00:00:00Z') < timestamp(args.t)", 5, 21, "is not valid"),
        ("when: tool", 5, 11, "it gives a text instead of true or false"),
        ("when: size(args)", 5, 11, "it gives a number instead of true or false"),
        ("when: 5", 5, 11, "it gives a number"),
        ("when: 1/0 == 1", 5, 11, "it can never be true or false"),
        ("when: Foo{}", 5, 11, "aren't available"),
        ("when: args.l.all(x)", 5, 18, "takes a variable and an expression"),
        ("when: args.l.all(x, y, x > 0)", 5, 18, "takes a variable and an expression"),
        ("when: args.l.exists(1, true)", 5, 25, "must be a simple name"),
        ("when: has(args)", 5, 15, "invalid argument to has"),
        ("when: true.filter(..all(x,é&&'''", 5, 24, "no viable alternative at input '..'"),
        ("when: args.a.all(w, w.all(x, x.all(y, y.all(z, z))))", 5, 11, "the limit is 3"),
        ("when: args.a.filter(w, w.filter(x, x)) == []", 5, 11, "the limit is 3"),
        (f"when: {'true && ' * 300}true", 5, 11, "the limit is 2000"),
        ("when: |\n  args.rpm > 2800 &&\n  arg.rpm > 3", 7, 7, "did you mean 'args'?"),
        ("when: >\n  args.rpm > 2800 &&\n  arg.rpm > 3", 5, 11, "did you mean 'args'?"),
        ('when: "args.x == \\"a\\" && arg"', 5, 11, "did you mean 'args'?"),
        ('when: ""', 5, 11, "there is none"),
    ],
)
def test_a_condition_that_can_not_work_is_found_at_once(when: str, line: int, column: int, says: str) -> None:
    error = fault(rule(when))
    assert (error.line, error.column, error.path) == (line, column, "rules[0].when")
    assert says in str(error)


@pytest.mark.parametrize(
    "when",
    [
        "true",
        "has(args.force) && args.force",
        "args.lines.all(l, l.speed < 10 && l.name.startsWith('line-'))",
        "args.lines.filter(l, l.on).size() > 2",
        "'web' in provenance || provenance.exists(p, p.matches('^http'))",
        "type(args.rpm) in [int, double]",
        "timestamp(args.when).getHours() < 6",
        "tool == 'a' // the comment says now() and foo",
        "args['odd key'] == r'\\d' && args.text != \"now()\"",
        "args.from in ['a', 'b'] ? args.x > 1.5 : requested_by.name == 'users/ada'",
    ],
)
def test_a_condition_that_can_work_is_accepted(when: str) -> None:
    text = rule("when: |\n" + textwrap.indent(when, "  "))
    condition = parse_policy(text).rules[0].when
    assert condition is not None
    assert condition.text == when
