"""Principals inside a transaction."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

from sqlalchemy import and_, bindparam, select

from fermata.server.names import Name
from fermata.server.store import schema
from fermata.v1 import principal_pb2

TOKEN_PREFIX = "fmt_"  # noqa: S105 - what all tokens begin with is no secret


_ONE = select(schema.principals).where(
    and_(schema.principals.c.tenant == bindparam("of_tenant"), schema.principals.c.id == bindparam("of_id"))
)


def new_token() -> str:
    """A fresh bearer token of 256 random bits; its prefix lets secret scanners find it."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def role_names(roles: str) -> tuple[str, ...]:
    """Roles as policies write them (viewer, operator, approver, admin), from their stored form."""
    return tuple(principal_pb2.Role.Name(role).removeprefix("ROLE_").lower() for role in json.loads(roles))


def by_name(connection: Any, name: str) -> Any | None:
    """The row of ``tenants/{tenant}/principals/{id}``, or None."""
    pieces = name.split("/")
    if len(pieces) != 4:
        return None
    return connection.execute(_ONE, {"of_tenant": pieces[1], "of_id": pieces[3]}).first()


def roles_of(connection: Any, name: str) -> tuple[str, ...]:
    """The roles of a principal by its name, as policies write them; none where it is gone or disabled."""
    row = by_name(connection, name)
    return () if row is None or row.disabled else role_names(row.roles)


def to_message(row: Any) -> principal_pb2.Principal:
    """A principal of the API from its row."""
    message = principal_pb2.Principal(
        name=str(Name(row.tenant, "principals", row.id)),
        kind=row.kind,
        display_name=row.display_name,
        roles=json.loads(row.roles),
        disabled=row.disabled,
        etag=row.etag,
    )
    message.create_time.FromNanoseconds(int(row.created * 1e9))
    return message
