"""The nouns of policy: what a policy consists of, what it is asked, and what it answers.

Everything here is immutable data. Reading it from YAML is :mod:`.parse`, judging a call by it is
:mod:`.evaluate`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from fermata.server.policy.conditions import Condition

POLICY_DENIED = "POLICY_DENIED"
"""``Verdict.code`` where a rule said DENY."""
POLICY_ERROR = "POLICY_ERROR"
"""``Verdict.code`` where a condition could not be evaluated, and the call is refused for that."""

DEFAULT_READ_RULE = "default:read"
DEFAULT_ASK_RULE = "default:ask"


class Outcome(StrEnum):
    """What becomes of a call."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    REQUIRE_APPROVAL = "REQUIRE_APPROVAL"


class Effect(StrEnum):
    """What a tool does to the world. What is undeclared, or unreadable, is UNSAFE."""

    READ = "READ"
    IDEMPOTENT = "IDEMPOTENT"
    UNSAFE = "UNSAFE"


class Risk(StrEnum):
    """How bad a mistake with a tool would be, as its author declared it."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


RISK_OF_EFFECT = {Effect.READ: Risk.LOW, Effect.IDEMPOTENT: Risk.MEDIUM, Effect.UNSAFE: Risk.HIGH}
"""The risk of a tool that declares none: that of its effect class."""


class OnTimeout(StrEnum):
    """What happens when nobody decided in time: the call is rejected, or its run is halted."""

    REJECT = "REJECT"
    HALT = "HALT"


@dataclass(frozen=True, slots=True)
class ApprovalRequirement:
    """Who has to agree, how many, and for how long the question stands."""

    roles: tuple[str, ...] = ("approver",)
    """A person may decide who holds at least one of these; sorted, not empty."""
    count: int = 1
    """So many different people have to agree; one refusal is enough to refuse."""
    valid_for_seconds: int = 15 * 60
    on_timeout: OnTimeout = OnTimeout.REJECT
    not_requester: bool = False
    """True: the person on whose behalf the run was made does not count."""


DEFAULT_REQUIREMENT = ApprovalRequirement()


@dataclass(frozen=True, slots=True)
class Names:
    """A set of names, in which ``*`` stands for any text and ``?`` for any one character. Case matters."""

    patterns: tuple[str, ...]
    _exact: frozenset[str] = field(repr=False, compare=False)
    _globs: tuple[re.Pattern[str], ...] = field(repr=False, compare=False)

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Names:
        """The set that ``patterns`` describe. They must not contain brackets: ``parse`` refuses those by
        name.
        """
        kept = tuple(sorted(set(patterns)))
        globs = tuple(p for p in kept if "*" in p or "?" in p)
        return cls(
            kept,
            frozenset(kept).difference(globs),
            tuple(re.compile(fnmatch.translate(p)) for p in globs),
        )

    def __contains__(self, name: str) -> bool:
        if name in self._exact:
            return True
        for glob in self._globs:  # noqa: SIM110  a generator would cost more than the match, for each rule
            if glob.match(name):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Match:
    """Which calls a rule is about. A part that is None says nothing; all the others have to hold."""

    tool: Names | None = None
    effect: Names | None = None
    risk: Names | None = None
    agent: Names | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a policy: for calls that ``match`` and for which ``when`` is true, ``decide``."""

    id: str
    decide: Outcome
    match: Match = Match()
    when: Condition | None = None
    approval: ApprovalRequirement | None = None
    """What to ask for; set exactly where ``decide`` is REQUIRE_APPROVAL."""
    reason: str = ""
    """The author's words, shown to the person who is asked or refused."""


class OnExceeded(StrEnum):
    """What becomes of a run that would go beyond a limit: it is held and a person is asked, or it is halted."""

    ASK = "ASK"
    HALT = "HALT"


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What each run may use, by the name of the limit."""

    most: tuple[tuple[str, int], ...]
    halts: bool = False
    """True where a run is halted at a limit, and nobody is asked."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in order. ``digest`` names their meaning: see :func:`.parse.parse_policy`."""

    version: int
    rules: tuple[Rule, ...]
    digest: str
    limits: RunLimits | None = None


@dataclass(frozen=True, slots=True)
class Requester:
    """The principal for whom the run is made, as conditions see it (``requested_by``)."""

    name: str = ""
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that asks to pass. ``effect`` and ``risk`` are what the tool declares, or None."""

    tool: str
    args: Mapping[str, object] = field(default_factory=dict)
    """The validated arguments with their defaults, as JSON values."""
    agent: str = ""
    revision: str = ""
    effect: str | None = None
    risk: str | None = None
    provenance: tuple[str, ...] = ()
    """Where the texts that led to this call came from: ``user``, a collection's name, a tool's name."""
    requested_by: Requester = Requester()

    @property
    def effect_class(self) -> Effect:
        """The declared effect; UNSAFE where there is none, or none that we know."""
        return _EFFECTS.get(self.effect or "", Effect.UNSAFE)

    @property
    def risk_class(self) -> Risk:
        """The declared risk; without one that of the effect class; HIGH where it is none that we know."""
        if not self.risk:
            return RISK_OF_EFFECT[self.effect_class]
        return _RISKS.get(self.risk, Risk.HIGH)


_EFFECTS = {effect.value: effect for effect in Effect}
_RISKS = {risk.value: risk for risk in Risk}


class Finding(StrEnum):
    """What came of holding one rule against a call: it decides, or what kept it from deciding."""

    MATCHED = "matched"
    OTHER_TOOL = "other tool"
    OTHER_EFFECT = "other effect"
    OTHER_RISK = "other risk"
    OTHER_AGENT = "other agent"
    WHEN_FALSE = "when is false"
    WHEN_FAILED = "when failed"


class Look(NamedTuple):
    """One rule held against one call."""

    rule_id: str
    finding: Finding
    detail: str = ""
    """Why the condition failed; empty otherwise."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a call."""

    outcome: Outcome
    rule_id: str
    """The rule that decided, or one of the two ``default:`` rules."""
    reason: str
    """One sentence for people."""
    requirement: ApprovalRequirement | None = None
    """Set exactly where ``outcome`` is REQUIRE_APPROVAL."""
    code: str = ""
    """POLICY_DENIED or POLICY_ERROR on a DENY, else empty."""
    policy_digest: str = ""
    """The policy that holds the rule; empty for a default."""
    trace: tuple[Look, ...] = ()
    """Every rule looked at, in order; the last one decided unless a default did."""
