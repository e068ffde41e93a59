"""Policy: rules in YAML that say what an agent's call may do, ask, or never do. Judging is pure: no I/O, no
clock, no randomness; only ``book``, which finds the policies in force, and ``records``, which keeps the
tenant's, know the store.

*Chosen*: an ordered list of rules of which the first that matches decides, because a person can read it from
top to bottom and see why (``explain``); names and classes matched by globs, and everything else said in CEL,
the small expression language that Kubernetes and Google's APIs use for the same purpose: it always ends, has
no I/O, keeps text and numbers apart, and a missing key is an error instead of an empty value. What fails to
evaluate refuses the call (POLICY_ERROR): silence is a no. Several policies are one list, the tenant's first.
No rule: what is declared READ passes, all else asks a person.

*Refused*: OPA with Rego, a server or a WebAssembly runtime and a logic language to learn, for rules that are
one line each; and its undefined values make a misspelled field a condition that silently doesn't hold. Python
expressions, however restricted: a sandbox inside the process that holds the ledger is a promise that nobody
has kept yet, and nothing bounds their time. ``cel-python``: the same language, interpreted in Python on top
of a parser generator, where the Rust crate compares in 0.2 µs and its regular expressions are linear by
construction. Strictest rule wins, instead of first: safer at first sight, but an exception ("except on the
test line") could then not be said, and people would write broader ALLOWs.
"""

from fermata.server.policy.evaluate import evaluate, evaluate_all
from fermata.server.policy.explain import Explanation, RuleExplanation, explain
from fermata.server.policy.fields import PolicyError
from fermata.server.policy.parse import parse_policy
from fermata.server.policy.rules import (
    DEFAULT_REQUIREMENT,
    POLICY_DENIED,
    POLICY_ERROR,
    ApprovalRequirement,
    Call,
    Effect,
    Finding,
    Look,
    Match,
    Names,
    OnTimeout,
    Outcome,
    Policy,
    Requester,
    Risk,
    Rule,
    Verdict,
)
from fermata.server.policy.strictness import covers, stricter

__all__ = [
    "DEFAULT_REQUIREMENT",
    "POLICY_DENIED",
    "POLICY_ERROR",
    "ApprovalRequirement",
    "Call",
    "Effect",
    "Explanation",
    "Finding",
    "Look",
    "Match",
    "Names",
    "OnTimeout",
    "Outcome",
    "Policy",
    "PolicyError",
    "Requester",
    "Risk",
    "Rule",
    "RuleExplanation",
    "Verdict",
    "covers",
    "evaluate",
    "evaluate_all",
    "explain",
    "parse_policy",
    "stricter",
]
