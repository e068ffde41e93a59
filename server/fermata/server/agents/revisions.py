"""Revisions by digest: immutable, so read once and kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, select

from fermata.server.errors import not_found
from fermata.server.names import Name
from fermata.server.policy.parse import parse_policy
from fermata.server.policy.rules import Policy
from fermata.server.store import schema
from fermata.v1 import agent_pb2, run_pb2

KEPT_REVISIONS = 512


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision with its policy parsed."""

    tenant: str
    agent: str
    id: str
    spec: agent_pb2.AgentSpec
    report: agent_pb2.GraphReport
    policy: Policy | None

    @property
    def name(self) -> str:
        """The resource name."""
        return str(Name(self.tenant, "agents", self.agent, "revisions", self.id))

    def declared(
        self, tool: str, effect: run_pb2.EffectClass.ValueType, risk: str
    ) -> tuple[run_pb2.EffectClass.ValueType, str]:
        """Effect class and risk of a tool: the agent file's word over the tool's own; UNSAFE where neither has one."""
        declaration = self.spec.tool_declarations.get(tool)
        if declaration is not None:
            effect = declaration.effect or effect
            risk = declaration.risk or risk
        return effect or run_pb2.EFFECT_CLASS_UNSAFE, risk


class Revisions:
    """Reads revisions inside a transaction or a read, and keeps them."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], Revision] = {}

    def get(self, connection: Any, tenant: str, agent: str, revision: str) -> Revision:
        """The revision with this id.

        :param connection: a Transaction or a Connection.
        :raises DomainError: REVISION_NOT_FOUND.
        """
        key = (tenant, agent, revision)
        if found := self._kept.get(key):
            return found
        table = schema.revisions.c
        row = connection.execute(
            select(schema.revisions).where(
                and_(table.tenant == tenant, table.agent == agent, table.id == revision)
            )
        ).first()
        if row is None:
            raise not_found("revision", str(Name(tenant, "agents", agent, "revisions", revision)))
        spec = agent_pb2.AgentSpec.FromString(row.spec)
        made = Revision(
            tenant,
            agent,
            revision,
            spec,
            agent_pb2.GraphReport.FromString(row.report),
            parse_policy(spec.policy) if spec.policy else None,
        )
        while len(self._kept) >= KEPT_REVISIONS:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = made
        return made


def of_run(connection: Any, revisions: Revisions, run: Name) -> Revision:
    """The revision that a run is pinned to.

    :raises DomainError: RUN_NOT_FOUND, REVISION_NOT_FOUND.
    """
    table = schema.runs.c
    row = connection.execute(
        select(table.agent, table.revision).where(and_(table.tenant == run.tenant, table.id == run.id))
    ).first()
    if row is None:
        raise not_found("run", str(run))
    return revisions.get(connection, run.tenant, row.agent, row.revision)


def revision_id(spec: agent_pb2.AgentSpec) -> str:
    """The id of a spec: the first 16 hex digits of the SHA-256 of its deterministic encoding."""
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()[:16]
