"""The tenant's policy inside a transaction: read, and replaced."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import policy_pb2


def get(connection: Any, tenant: str) -> policy_pb2.Policy:
    """The tenant's policy; text and etag are empty where none was ever set."""
    message = policy_pb2.Policy(name=f"tenants/{tenant}/policy")
    row = connection.execute(select(schema.policies).where(schema.policies.c.tenant == tenant)).first()
    if row is not None:
        message.text, message.etag, message.updated_by = row.text, row.etag, row.updated_by
        message.update_time.FromNanoseconds(int(row.updated * 1e9))
    return message


def replace(
    transaction: Transaction, tenant: str, text: str, etag: str, updated_by: str
) -> policy_pb2.Policy:
    """Put ``text``, which can be parsed, in force from the next gate on. The same text again changes nothing.

    :param etag: of the policy that the caller has seen; empty for whatever is there.
    :raises DomainError: ETAG_MISMATCH.
    """
    present = get(transaction, tenant)
    if etag and etag != present.etag:
        raise DomainError(
            "The policy was changed in between. Look at it again, and change it anew.",
            reason="ETAG_MISMATCH",
            kind=ErrorKind.ABORTED,
            etag=present.etag,
        )
    if present.etag and present.text == text:
        return present
    values = {
        "text": text,
        # Of the text alone: the book of parsed policies goes by it.
        "etag": hashlib.sha256(text.encode()).hexdigest()[:32],
        "updated_by": updated_by,
        "updated": transaction.now,
    }
    statement = insert(schema.policies).values(tenant=tenant, **values)
    transaction.execute(statement.on_conflict_do_update(index_elements=["tenant"], set_=values))
    return get(transaction, tenant)
