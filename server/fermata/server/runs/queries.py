"""Reading runs: rows to the API's messages, with what waits and what covers them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format
from sqlalchemy import and_, bindparam, select

from fermata.server.errors import not_found
from fermata.server.latches import records as latch_records
from fermata.server.latches.coverage import covers
from fermata.server.names import Name
from fermata.server.runs.record import subject_of
from fermata.server.runs.transitions import ENDED
from fermata.server.store import schema
from fermata.v1 import approval_pb2, run_pb2

_ONE = select(schema.runs).where(
    and_(schema.runs.c.tenant == bindparam("of_tenant"), schema.runs.c.id == bindparam("of_run"))
)
_PENDING = (
    select(schema.approvals.c.run, schema.approvals.c.id)
    .where(
        and_(
            schema.approvals.c.tenant == bindparam("of_tenant"),
            schema.approvals.c.run.in_(bindparam("of_runs", expanding=True)),
            schema.approvals.c.state == approval_pb2.APPROVAL_STATE_PENDING,
        )
    )
    .order_by(schema.approvals.c.n)
)


def get(connection: Any, tenant: str, run: str) -> run_pb2.Run:
    """One run.

    :raises DomainError: RUN_NOT_FOUND.
    """
    row = connection.execute(_ONE, {"of_tenant": tenant, "of_run": run}).first()
    if row is None:
        raise not_found("run", str(Name(tenant, "runs", run)), "List them with ListRuns.")
    return to_messages(connection, tenant, [row])[0]


def to_messages(connection: Any, tenant: str, rows: Sequence[Any]) -> list[run_pb2.Run]:
    """Runs of one tenant from their rows."""
    alive = [row.id for row in rows if row.state not in ENDED]
    pending: dict[str, list[str]] = defaultdict(list)
    latches = []
    if alive:
        for run, approval in connection.execute(_PENDING, {"of_tenant": tenant, "of_runs": alive}):
            pending[run].append(str(Name(tenant, "approvals", approval)))
        latches = latch_records.active(connection, tenant)
    messages = []
    for row in rows:
        message = _to_message(row)
        message.pending_approvals.extend(pending[row.id])
        if row.state not in ENDED:
            subject = subject_of(row)
            message.latches.extend(
                str(Name(latch.tenant, "latches", latch.id)) for latch in latches if covers(latch, subject)
            )
        messages.append(message)
    return messages


def _to_message(row: Any) -> run_pb2.Run:
    message = run_pb2.Run(
        name=str(Name(row.tenant, "runs", row.id)),
        agent=str(Name(row.tenant, "agents", row.agent)),
        revision=str(Name(row.tenant, "agents", row.agent, "revisions", row.revision)),
        thread=str(Name(row.tenant, "threads", row.thread)),
        state=row.state,
        held_from=row.held_from,
        answer=row.answer,
        requested_by=row.requested_by,
        on_behalf_of=row.on_behalf_of,
        epoch=row.epoch,
        worker=row.worker,
        last_sequence=row.sequence,
        etag=str(row.version),
        priority=-row.rank,
        in_line=row.in_line,
        successor=str(Name(row.tenant, "runs", row.successor)) if row.successor else "",
        parent_run=str(Name(row.tenant, "runs", row.parent)) if row.parent else "",
    )
    if row.deadline:
        message.deadline.FromNanoseconds(int(row.deadline * 1e9))
    json_format.Parse(row.input, message.input)
    if row.output:
        json_format.Parse(row.output, message.output)
    if row.error:
        json_format.Parse(row.error, message.error)
    message.create_time.FromNanoseconds(int(row.created * 1e9))
    if row.ended:
        message.end_time.FromNanoseconds(int(row.ended * 1e9))
    return message
