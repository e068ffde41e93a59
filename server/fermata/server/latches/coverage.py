"""What a latch covers, decided from facts alone."""

from __future__ import annotations

from dataclasses import dataclass

from fermata.server.errors import invalid
from fermata.server.names import Name, parse
from fermata.v1 import latch_pb2

EVERYTHING = "*"
"""The target of a latch on everything."""


@dataclass(frozen=True, slots=True)
class ActiveLatch:
    """A latch that has not been lifted. ``target`` is an id, an agent's and a revision's with a slash between, a tool's name, empty
    for the tenant, or ``EVERYTHING``; ``tenant`` is that of whoever set it.
    """

    tenant: str
    id: str
    kind: latch_pb2.LatchKind.ValueType
    scope: str
    target: str
    reason: str
    created_by: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What may be covered: a run, and at a gate the tool that it is about to call."""

    tenant: str
    run: str
    thread: str
    agent: str
    revision: str
    ancestors: tuple[str, ...] = ()
    """Ids of the run that it was made for, of that one's, and so on; the eldest first."""
    tool: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that a latch which covers this can have."""
        return (
            EVERYTHING,
            "",
            self.run,
            self.thread,
            self.agent,
            f"{self.agent}/{self.revision}",
            self.tool or EVERYTHING,
            *self.ancestors,
        )


def covers(latch: ActiveLatch, subject: Subject) -> bool:
    """True where ``latch`` covers ``subject``."""
    if latch.scope == "everything":
        return True
    if latch.tenant != subject.tenant:
        return False
    match latch.scope:
        case "tenant":
            return True
        case "run_tree":
            return latch.target == subject.run or latch.target in subject.ancestors
        case "revision":
            return latch.target == f"{subject.agent}/{subject.revision}"
        case "run":
            return latch.target == subject.run
        case "thread":
            return latch.target == subject.thread
        case "agent":
            return latch.target == subject.agent
        case "tool":
            return bool(subject.tool) and latch.target == subject.tool
    raise AssertionError(f"unknown latch scope {latch.scope!r}")


def strictest(latches: list[ActiveLatch], subject: Subject) -> ActiveLatch | None:
    """The latch that decides about ``subject``: a halt before a hold, the older before the newer; None where none covers it."""
    covering = [latch for latch in latches if covers(latch, subject)]
    covering.sort(key=lambda latch: latch.kind != latch_pb2.LATCH_KIND_HALT)
    return covering[0] if covering else None


_WHOLE = {"tenant": "", "everything": EVERYTHING}
_NOUNS = {"run": "runs", "run_tree": "runs", "thread": "threads", "agent": "agents"}


def target_of(tenant: str, scope: latch_pb2.LatchScope) -> tuple[str, str]:
    """The scope's kind and target id.

    :raises DomainError: INVALID_NAME, or LATCH_SCOPE where nothing, or another tenant's thing, is named.
    """
    kind = scope.WhichOneof("target")
    if kind is None or not getattr(scope, kind):
        raise invalid(
            "A latch needs one scope: run, run_tree, thread, agent, revision, tool, tenant or everything.",
            reason="LATCH_SCOPE",
        )
    if kind in _WHOLE:
        return kind, _WHOLE[kind]
    if kind == "tool":
        return kind, scope.tool
    if kind == "revision":
        revision = parse(scope.revision, "agents", "revisions")
        _require_own(tenant, revision)
        return kind, f"{revision.id}/{revision.part_id}"
    name = parse(getattr(scope, kind), _NOUNS[kind])
    _require_own(tenant, name)
    return kind, name.id


def _require_own(tenant: str, name: Name) -> None:
    if name.tenant != tenant:
        raise invalid(f"{name} is not in tenants/{tenant}.", reason="LATCH_SCOPE", name=str(name))


def to_scope(tenant: str, kind: str, target: str) -> latch_pb2.LatchScope:
    """The scope of the API from its stored form."""
    scope = latch_pb2.LatchScope()
    if kind in _WHOLE:
        setattr(scope, kind, True)
    elif kind == "tool":
        scope.tool = target
    elif kind == "revision":
        agent, _, revision = target.partition("/")
        scope.revision = str(Name(tenant, "agents", agent, "revisions", revision))
    else:
        setattr(scope, kind, str(Name(tenant, _NOUNS[kind], target)))
    return scope
