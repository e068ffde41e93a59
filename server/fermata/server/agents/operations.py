"""Agents inside a transaction: applied, listed, deleted."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import and_, delete, func, not_, select
from sqlalchemy.dialects.sqlite import insert

from fermata.server.agents.revisions import revision_id
from fermata.server.errors import DomainError, ErrorKind, invalid, not_found, precondition
from fermata.server.names import Name, check_id
from fermata.server.runs.transitions import ENDED
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import agent_pb2

MAX_PACK_BYTES = 16 * 1024 * 1024


def check(agent: str, spec: agent_pb2.AgentSpec, pack: bytes) -> None:
    """Refuse what can be seen to be wrong without loading the graph.

    :raises DomainError: INVALID_ID, GRAPH_MISSING, GRAPH_REFERENCE, PACK_TOO_LARGE, PACK_DIGEST.
    """
    check_id("agent", agent)
    if not spec.graph:
        raise invalid(
            "The agent names no graph. Give `graph: module:attribute` or `graph: ./file.py:attribute`.",
            reason="GRAPH_MISSING",
            field="graph",
        )
    module, colon, attribute = spec.graph.rpartition(":")
    if not colon or not module or not attribute.isidentifier():
        raise invalid(
            f"{spec.graph!r} is not a graph reference. Write module:attribute or ./file.py:attribute.",
            reason="GRAPH_REFERENCE",
            field="graph",
        )
    if len(pack) > MAX_PACK_BYTES:
        raise invalid(
            f"The packed folder has {len(pack)} bytes; {MAX_PACK_BYTES} are the most.",
            reason="PACK_TOO_LARGE",
        )
    if pack and hashlib.sha256(pack).hexdigest() != spec.pack_digest:
        raise invalid(
            "pack_digest is not the SHA-256 of the pack that came with it.",
            reason="PACK_DIGEST",
            field="pack_digest",
        )


def keep_pack(transaction: Transaction, digest: str, pack: bytes) -> None:
    """Keep a pack by its digest, or make sure that it is there.

    :raises DomainError: PACK_MISSING.
    """
    table = schema.packs
    if pack:
        transaction.execute(insert(table).prefix_with("OR IGNORE"), {"digest": digest, "data": pack})
    elif digest and not transaction.execute(select(table.c.digest).where(table.c.digest == digest)).scalar():
        raise precondition(
            f"The server has no pack {digest[:12]}. Send it along.", reason="PACK_MISSING", digest=digest
        )


def pack(connection: Any, digest: str) -> bytes:
    """A pack by its digest.

    :raises DomainError: PACK_NOT_FOUND.
    """
    data: bytes | None = connection.execute(
        select(schema.packs.c.data).where(schema.packs.c.digest == digest)
    ).scalar()
    if data is None:
        raise not_found("pack", digest)
    return data


def require_etag(transaction: Transaction, tenant: str, agent: str, etag: str) -> None:
    """Refuse where the agent is not the one that the caller has seen.

    :raises DomainError: ETAG_MISMATCH.
    """
    if not etag:
        return
    table = schema.agents.c
    present = transaction.execute(
        select(table.etag).where(and_(table.tenant == tenant, table.id == agent))
    ).scalar()
    if present != etag:
        raise DomainError(
            f"The agent {agent!r} was changed in between. Look at it again, and apply anew.",
            reason="ETAG_MISMATCH",
            kind=ErrorKind.ABORTED,
            etag=present or "",
        )


def apply(
    transaction: Transaction,
    tenant: str,
    agent: str,
    spec: agent_pb2.AgentSpec,
    report: agent_pb2.GraphReport,
    applied_by: str,
) -> None:
    """Make an agent, or a new revision of it; what is current already is left as it is."""
    revision = revision_id(spec)
    transaction.execute(
        insert(schema.revisions).prefix_with("OR IGNORE"),
        {
            "tenant": tenant,
            "agent": agent,
            "id": revision,
            "spec": spec.SerializeToString(deterministic=True),
            "report": report.SerializeToString(),
            "created_by": applied_by,
            "created": transaction.now,
        },
    )
    table = schema.agents.c
    present = transaction.execute(
        select(schema.agents).where(and_(table.tenant == tenant, table.id == agent))
    ).first()
    if present is not None and present.revision == revision:
        return
    values = {
        "description": spec.description,
        "revision": revision,
        "etag": revision,
        "updated": transaction.now,
    }
    statement = insert(schema.agents).values(tenant=tenant, id=agent, created=transaction.now, **values)
    transaction.execute(statement.on_conflict_do_update(index_elements=["tenant", "id"], set_=values))


def remove(transaction: Transaction, tenant: str, agent: str) -> None:
    """Delete an agent that has no run going on.

    :raises DomainError: AGENT_NOT_FOUND, AGENT_BUSY.
    """
    runs, table = schema.runs.c, schema.agents.c
    busy = transaction.execute(
        select(func.count()).where(
            and_(runs.tenant == tenant, runs.agent == agent, not_(runs.state.in_(ENDED)))
        )
    ).scalar_one()
    if busy:
        raise precondition(
            f"{busy} runs of {agent!r} are going on. Wait for them, or `fermata halt --agent {agent}`.",
            reason="AGENT_BUSY",
            runs=str(busy),
        )
    gone = transaction.execute(delete(schema.agents).where(and_(table.tenant == tenant, table.id == agent)))
    if not gone.rowcount:
        raise not_found("agent", str(Name(tenant, "agents", agent)))


def get(connection: Any, tenant: str, agent: str) -> agent_pb2.Agent:
    """One agent with its current revision.

    :raises DomainError: AGENT_NOT_FOUND.
    """
    table = schema.agents.c
    row = connection.execute(
        select(schema.agents).where(and_(table.tenant == tenant, table.id == agent))
    ).first()
    if row is None:
        raise not_found("agent", str(Name(tenant, "agents", agent)), "List them with `fermata agents`.")
    return to_message(connection, row)


def to_message(connection: Any, row: Any) -> agent_pb2.Agent:
    """An agent of the API from its row."""
    table = schema.revisions.c
    revision = connection.execute(
        select(schema.revisions).where(
            and_(table.tenant == row.tenant, table.agent == row.id, table.id == row.revision)
        )
    ).first()
    message = agent_pb2.Agent(
        name=str(Name(row.tenant, "agents", row.id)),
        description=row.description,
        revision=revision_message(revision),
        etag=row.etag,
    )
    message.create_time.FromNanoseconds(int(row.created * 1e9))
    message.update_time.FromNanoseconds(int(row.updated * 1e9))
    return message


def latest_specs(connection: Any, limit: int) -> list[agent_pb2.AgentSpec]:
    """The current specs of the agents that were applied last, newest first."""
    agents, table = schema.agents.c, schema.revisions.c
    rows = connection.execute(
        select(table.spec)
        .join(
            schema.agents,
            and_(agents.tenant == table.tenant, agents.id == table.agent, agents.revision == table.id),
        )
        .order_by(agents.updated.desc())
        .limit(limit)
    )
    return [agent_pb2.AgentSpec.FromString(spec) for spec in rows.scalars()]


def revision_message(row: Any) -> agent_pb2.Revision:
    """A revision of the API from its row."""
    message = agent_pb2.Revision(
        name=str(Name(row.tenant, "agents", row.agent, "revisions", row.id)),
        spec=agent_pb2.AgentSpec.FromString(row.spec),
        report=agent_pb2.GraphReport.FromString(row.report),
        created_by=row.created_by,
    )
    message.create_time.FromNanoseconds(int(row.created * 1e9))
    return message
