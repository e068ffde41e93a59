"""What a latch covers, decided from facts alone."""

from __future__ import annotations

from dataclasses import dataclass

from fermata.server.errors import invalid
from fermata.server.names import Name, parse
from fermata.v1 import latch_pb2


@dataclass(frozen=True, slots=True)
class ActiveLatch:
    """A latch that has not been lifted. ``target`` is an id, a tool's name, or empty for the tenant."""

    id: str
    kind: latch_pb2.LatchKind.ValueType
    scope: str
    target: str
    reason: str
    created_by: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What may be covered: a run, and at a gate the tool that it is about to call."""

    run: str
    thread: str
    agent: str
    tool: str = ""


def covers(latch: ActiveLatch, subject: Subject) -> bool:
    """True where ``latch`` covers ``subject``."""
    match latch.scope:
        case "tenant":
            return True
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


def target_of(tenant: str, scope: latch_pb2.LatchScope) -> tuple[str, str]:
    """The scope's kind and target id.

    :raises DomainError: INVALID_NAME, or LATCH_SCOPE where nothing, or another tenant's thing, is named.
    """
    kind = scope.WhichOneof("target")
    if kind is None or (kind == "tenant" and not scope.tenant) or (kind == "tool" and not scope.tool):
        raise invalid("A latch needs one scope: run, thread, agent, tool or tenant.", reason="LATCH_SCOPE")
    if kind == "tenant":
        return kind, ""
    if kind == "tool":
        return kind, scope.tool
    name = parse(getattr(scope, kind), f"{kind}s")
    if name.tenant != tenant:
        raise invalid(f"{name} is not in tenants/{tenant}.", reason="LATCH_SCOPE", name=str(name))
    return kind, name.id


def to_scope(tenant: str, kind: str, target: str) -> latch_pb2.LatchScope:
    """The scope of the API from its stored form."""
    if kind == "tenant":
        return latch_pb2.LatchScope(tenant=True)
    if kind == "tool":
        return latch_pb2.LatchScope(tool=target)
    scope = latch_pb2.LatchScope()
    setattr(scope, kind, str(Name(tenant, f"{kind}s", target)))
    return scope
