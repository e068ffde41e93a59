"""From the text of a policy to a :class:`~.rules.Policy`, or to an error that says what, where and how to
mend it.

Nothing is guessed and nothing is ignored: an unknown key, a second rule of the same id or a role that nobody
can have is an error, because each of them would be a rule that silently doesn't hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import rfc8785

from fermata.server.policy.compile import ConditionSyntaxError, compile_condition
from fermata.server.policy.conditions import Condition
from fermata.server.policy.document import DocumentError, Node, Scalar, Sequence, read_document
from fermata.server.policy.fields import (
    PolicyError,
    boolean_of,
    choice_of,
    did_you_mean,
    duration_of,
    error_at,
    fields_of,
    id_of,
    integer_of,
    text_of,
)
from fermata.server.policy.rules import (
    DEFAULT_REQUIREMENT,
    ApprovalRequirement,
    Call,
    Effect,
    Match,
    Names,
    OnExceeded,
    OnTimeout,
    Outcome,
    Policy,
    Requester,
    Risk,
    Rule,
    RunLimits,
)

VERSION = 1
SIZE_LIMIT_BYTES = 256 * 1024
RULES_LIMIT = 500
REASON_LIMIT = 500
COUNT_LIMIT = 10
LARGEST_LIMIT = 10**12
_COUNTED = ("super_steps", "tool_calls", "tokens", "repeated_calls")
"""Limits of runs that are numbers."""

ROLES = frozenset({"viewer", "operator", "approver", "admin"})
"""The roles that a principal can have."""

_SAMPLE = Call("tool", {}, "agent", "1", "READ", "low", ("user",), Requester("principal", ("operator",)))


def parse_policy(text: str | bytes, *, roles: Collection[str] = ROLES) -> Policy:
    """Read a policy from YAML, in UTF-8 if in bytes.

    The digest is SHA-256 over the RFC 8785 form of what was understood: rules in order with all defaults
    filled in and name lists sorted. Comments, layout, quoting and the order of keys don't change it; every
    change of meaning does.

    :param roles: what ``approval.roles`` may name.
    :raises PolicyError: for every text that is not a policy; nothing else is raised for any text.
    """
    source = _decoded(text)
    try:
        root = read_document(source)
    except DocumentError as error:
        # An error at the end of the text may lie on the line after the last.
        lines = source.splitlines() or [""]
        beyond = error.line > len(lines)
        line, column = (len(lines), len(lines[-1]) + 1) if beyond else (error.line, error.column)
        raise PolicyError(error.message, line, column) from error
    if root is None or (isinstance(root, Scalar) and root.is_null):
        raise PolicyError("it is empty. Begin with `version: 1` and `rules:`")
    return _Reader(source, frozenset(roles)).policy(root)


def _decoded(text: str | bytes) -> str:
    try:
        raw = text if isinstance(text, bytes) else text.encode()
        source = raw.decode()
    except UnicodeError as error:
        raise PolicyError("it is not valid UTF-8. Save the file in that encoding") from error
    if len(raw) > SIZE_LIMIT_BYTES:
        raise PolicyError(
            f"it has {len(raw)} bytes; the limit is {SIZE_LIMIT_BYTES}. Merge rules by lists and globs"
        )
    return source


class _Reader:
    """Reads nodes into rules. Each method takes the node's path for its errors."""

    def __init__(self, source: str, roles: frozenset[str]) -> None:
        self._source = source
        self._roles = roles

    def policy(self, root: Node) -> Policy:
        fields = fields_of(root, "", required=("version", "rules"), optional=("limits",))
        version = integer_of(fields["version"], "version", 1, 10**6)
        if version != VERSION:
            raise error_at(
                fields["version"],
                "version",
                f"version {version} is not known here; this server reads {VERSION}",
            )
        rules_node = fields["rules"]
        if not isinstance(rules_node, Sequence):
            raise error_at(rules_node, "rules", "a list of rules is expected; write `rules: []` for none")
        if len(rules_node.items) > RULES_LIMIT:
            raise error_at(
                rules_node, "rules", f"there are {len(rules_node.items)} rules; the limit is {RULES_LIMIT}"
            )
        rules: list[Rule] = []
        lines: dict[str, int] = {}
        for i, node in enumerate(rules_node.items):
            rule = self._rule(node, f"rules[{i}]")
            if rule.id in lines:
                raise error_at(
                    node,
                    f"rules[{i}].id",
                    f"the id {rule.id!r} is taken by the rule in line {lines[rule.id]}; choose another",
                )
            lines[rule.id] = node.line
            rules.append(rule)
        limits = self._limits(fields["limits"], "limits") if "limits" in fields else None
        return Policy(version, tuple(rules), _digest(version, rules, limits), limits)

    def _limits(self, node: Node, path: str) -> RunLimits:
        fields = fields_of(node, path, required=(), optional=(*_COUNTED, "wall_time", "on_exceeded"))
        most = [
            (name, integer_of(fields[name], f"{path}.{name}", 1, LARGEST_LIMIT))
            for name in _COUNTED
            if name in fields
        ]
        if "wall_time" in fields:
            most.append(("wall_seconds", duration_of(fields["wall_time"], f"{path}.wall_time")))
        if "on_exceeded" not in fields:
            return RunLimits(tuple(sorted(most)))
        what = choice_of(fields["on_exceeded"], f"{path}.on_exceeded", OnExceeded)
        return RunLimits(tuple(sorted(most)), what is OnExceeded.HALT)

    def _rule(self, node: Node, path: str) -> Rule:
        fields = fields_of(
            node, path, required=("id", "decide"), optional=("match", "when", "reason", "approval")
        )
        decide = choice_of(fields["decide"], f"{path}.decide", Outcome)
        approval = DEFAULT_REQUIREMENT if decide is Outcome.REQUIRE_APPROVAL else None
        if "approval" in fields:
            if decide is not Outcome.REQUIRE_APPROVAL:
                raise error_at(
                    fields["approval"],
                    f"{path}.approval",
                    f"a rule that says {decide} asks nobody; remove `approval`, or decide REQUIRE_APPROVAL",
                )
            approval = self._approval(fields["approval"], f"{path}.approval")
        return Rule(
            id=id_of(fields["id"], f"{path}.id"),
            decide=decide,
            match=self._match(fields["match"], f"{path}.match") if "match" in fields else Match(),
            when=self._when(fields["when"], f"{path}.when") if "when" in fields else None,
            approval=approval,
            reason=text_of(fields["reason"], f"{path}.reason", REASON_LIMIT) if "reason" in fields else "",
        )

    def _match(self, node: Node, path: str) -> Match:
        fields = fields_of(node, path, required=(), optional=("tool", "effect", "risk", "agent"))
        if not fields:
            raise error_at(node, path, "it says nothing; leave `match` out for a rule about every call")
        known: dict[str, list[str]] = {"effect": [e.value for e in Effect], "risk": [r.value for r in Risk]}
        return Match(
            **{key: self._names(value, f"{path}.{key}", known.get(key)) for key, value in fields.items()}
        )

    def _names(self, node: Node, path: str, known: list[str] | None) -> Names:
        items = node.items if isinstance(node, Sequence) else (node,)
        if not items:
            raise error_at(
                node, path, "the list is empty, so it would match nothing; name something, or remove it"
            )
        patterns: list[str] = []
        for i, item in enumerate(items):
            item_path = f"{path}[{i}]" if isinstance(node, Sequence) else path
            pattern = text_of(item, item_path, 256)
            if set("[]{}!") & set(pattern):
                raise error_at(
                    item, item_path, f"{pattern!r}: a pattern knows only * and ?; use a list for alternatives"
                )
            if known is not None and not any(name in Names.of((pattern,)) for name in known):
                raise error_at(
                    item,
                    item_path,
                    f"{pattern!r} is none of {', '.join(known)}{did_you_mean(pattern, known)}",
                )
            patterns.append(pattern)
        return Names.of(patterns)

    def _when(self, node: Node, path: str) -> Condition:
        text_of(node, path, None)
        assert isinstance(node, Scalar)
        try:
            return compile_condition(node.text.rstrip(), _SAMPLE)
        except ConditionSyntaxError as error:
            line, column = self._position_inside(node, error.line, error.column)
            raise PolicyError(f"the condition is not usable: {error.message}", line, column, path) from error

    def _position_inside(self, node: Scalar, line: int, column: int) -> tuple[int, int]:
        """Where in the file line and column of a scalar's text are; its start where folding or escapes blur
        that.
        """
        lines = self._source.splitlines()
        if node.style == "|":
            at = node.line + line - 1
            texts = node.text.split("\n")
            if at < len(lines) and line <= len(texts) and lines[at].endswith(texts[line - 1]):
                return at + 1, len(lines[at]) - len(texts[line - 1]) + column
        elif line == 1:
            start = node.column - 1 + (1 if node.style in ("'", '"') else 0)
            if node.line <= len(lines) and lines[node.line - 1][start:].startswith(node.text):
                return node.line, start + column
        return node.line, node.column

    def _approval(self, node: Node, path: str) -> ApprovalRequirement:
        fields = fields_of(
            node, path, required=(), optional=("roles", "count", "valid_for", "on_timeout", "not_requester")
        )
        given: dict[str, object] = {}
        if "roles" in fields:
            given["roles"] = self._approver_roles(fields["roles"], f"{path}.roles")
        if "count" in fields:
            given["count"] = integer_of(fields["count"], f"{path}.count", 1, COUNT_LIMIT)
        if "valid_for" in fields:
            given["valid_for_seconds"] = duration_of(fields["valid_for"], f"{path}.valid_for")
        if "on_timeout" in fields:
            given["on_timeout"] = choice_of(fields["on_timeout"], f"{path}.on_timeout", OnTimeout)
        if "not_requester" in fields:
            given["not_requester"] = boolean_of(fields["not_requester"], f"{path}.not_requester")
        return ApprovalRequirement(**given)  # type: ignore[arg-type]  # each was read as its field's type above

    def _approver_roles(self, node: Node, path: str) -> tuple[str, ...]:
        items = node.items if isinstance(node, Sequence) else (node,)
        if not items:
            raise error_at(
                node, path, "the list is empty, so nobody could approve; name a role, or remove it"
            )
        names = []
        for item in items:
            name = text_of(item, path, 64)
            if name not in self._roles:
                known = sorted(self._roles)
                raise error_at(
                    item,
                    path,
                    f"there is no role {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}",
                )
            names.append(name)
        return tuple(sorted(set(names)))


def _digest(version: int, rules: list[Rule], limits: RunLimits | None) -> str:
    meaning: Any = {
        "version": version,
        "rules": [
            {
                "id": rule.id,
                "match": {
                    key: list(names.patterns)
                    for key in ("tool", "effect", "risk", "agent")
                    if (names := getattr(rule.match, key)) is not None
                },
                "when": rule.when.text.strip() if rule.when else None,
                "decide": rule.decide.value,
                "approval": asdict(rule.approval) if rule.approval else None,
                "reason": rule.reason,
            }
            for rule in rules
        ],
    }
    if limits is not None:
        meaning["limits"] = {**dict(limits.most), "halts": limits.halts}
    return "sha256:" + hashlib.sha256(rfc8785.dumps(meaning)).hexdigest()
