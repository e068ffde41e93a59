"""Principals inside a transaction: made, changed, given new tokens, removed. A tenant always keeps an admin who can call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import and_, delete, select, update

from fermata.server.errors import DomainError, ErrorKind, invalid, not_found, precondition
from fermata.server.names import Name, check_id, new_id
from fermata.server.principals.records import hash_of, new_token, to_message
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import principal_pb2

SHORTEST_ID = 3
MAX_DISPLAY_NAME = 200
"""Characters."""

WORKER = principal_pb2.PRINCIPAL_KIND_WORKER


def ensure(
    transaction: Transaction,
    tenant: str,
    principal: str,
    kind: principal_pb2.PrincipalKind.ValueType,
    roles: Iterable[principal_pb2.Role.ValueType],
    token: str,
) -> None:
    """Make a principal with this token where there is none of the name; else see to it that this token is the one that counts.

    What people have changed about one that is there, such as its roles, stays.
    """
    row = _row(transaction, tenant, principal)
    if row is None:
        _insert(transaction, tenant, principal, kind, "", sorted(set(roles)), token)
    elif row.token_hash != hash_of(token):
        _change(transaction, row, token_hash=hash_of(token))


def create(
    transaction: Transaction, tenant: str, principal: str, wanted: principal_pb2.Principal
) -> tuple[principal_pb2.Principal, str]:
    """Make a principal; returns it and its token, of which only a hash is kept.

    :raises DomainError: INVALID_ID, PRINCIPAL_EXISTS, KIND_INVALID, ROLE_INVALID, DISPLAY_NAME_TOO_LONG.
    """
    check_id("principal", principal, shortest=SHORTEST_ID)
    if wanted.kind not in principal_pb2.PrincipalKind.values() or not wanted.kind:
        raise invalid(
            "Say what the principal is: USER, SERVICE, BOT or WORKER.",
            reason="KIND_INVALID",
            field="principal.kind",
        )
    roles = _roles(wanted.kind, wanted.roles)
    _check_display_name(wanted.display_name)
    if _row(transaction, tenant, principal) is not None:
        name = str(Name(tenant, "principals", principal))
        raise DomainError(
            f"There is a principal {name!r} already. Choose another id, or rotate its token.",
            reason="PRINCIPAL_EXISTS",
            kind=ErrorKind.ALREADY_EXISTS,
            principal=name,
        )
    token = new_token()
    _insert(
        transaction,
        tenant,
        principal,
        wanted.kind,
        wanted.display_name,
        roles,
        token,
        disabled=wanted.disabled,
    )
    return get(transaction, tenant, principal), token


def get(connection: Any, tenant: str, principal: str) -> principal_pb2.Principal:
    """One principal.

    :raises DomainError: PRINCIPAL_NOT_FOUND.
    """
    return to_message(_require(connection, tenant, principal))


def by_id(connection: Any, tenant: str, after: str | None, limit: int) -> Sequence[Any]:
    """Up to ``limit`` rows in the order of their ids; those after ``after`` where it is given."""
    table = schema.principals.c
    where = [table.tenant == tenant]
    if after is not None:
        where.append(table.id > after)
    rows: Sequence[Any] = connection.execute(
        select(schema.principals).where(and_(*where)).order_by(table.id).limit(limit)
    ).fetchall()
    return rows


def replace(
    transaction: Transaction, tenant: str, principal: str, wanted: principal_pb2.Principal
) -> principal_pb2.Principal:
    """Replace roles, display name and the disabled flag. The same values again change nothing.

    :raises DomainError: PRINCIPAL_NOT_FOUND, ETAG_MISMATCH, KIND_FIXED, ROLE_INVALID, DISPLAY_NAME_TOO_LONG, LAST_ADMIN.
    """
    row = _require(transaction, tenant, principal)
    name = str(Name(tenant, "principals", principal))
    if wanted.etag and wanted.etag != row.etag:
        raise DomainError(
            f"{name} was changed in between. Look at it again, and change it anew.",
            reason="ETAG_MISMATCH",
            kind=ErrorKind.ABORTED,
            principal=name,
            etag=row.etag,
        )
    if wanted.kind not in (principal_pb2.PRINCIPAL_KIND_UNSPECIFIED, row.kind):
        raise invalid(
            f"{name} stays what it is; make another principal for another kind.",
            reason="KIND_FIXED",
            field="principal.kind",
        )
    roles = _roles(row.kind, wanted.roles)
    _check_display_name(wanted.display_name)
    if wanted.disabled or principal_pb2.ROLE_ADMIN not in roles:
        _require_another_admin(transaction, row)
    values = {
        "roles": json.dumps(roles),
        "display_name": wanted.display_name,
        "disabled": wanted.disabled,
    }
    if any(getattr(row, key) != value for key, value in values.items()):
        _change(transaction, row, etag=new_id(), **values)
    return get(transaction, tenant, principal)


def rotate(transaction: Transaction, tenant: str, principal: str) -> str:
    """Give a principal a new token and return it; the old one ends.

    :raises DomainError: PRINCIPAL_NOT_FOUND.
    """
    row = _require(transaction, tenant, principal)
    token = new_token()
    _change(transaction, row, token_hash=hash_of(token))
    return token


def remove(transaction: Transaction, tenant: str, principal: str) -> None:
    """Remove a principal.

    :raises DomainError: PRINCIPAL_NOT_FOUND, LAST_ADMIN.
    """
    row = _require(transaction, tenant, principal)
    _require_another_admin(transaction, row)
    table = schema.principals.c
    transaction.execute(delete(schema.principals).where(and_(table.tenant == tenant, table.id == principal)))


def _row(connection: Any, tenant: str, principal: str) -> Any | None:
    table = schema.principals.c
    return connection.execute(
        select(schema.principals).where(and_(table.tenant == tenant, table.id == principal))
    ).first()


def _require(connection: Any, tenant: str, principal: str) -> Any:
    row = _row(connection, tenant, principal)
    if row is None:
        raise not_found(
            "principal", str(Name(tenant, "principals", principal)), "List them with ListPrincipals."
        )
    return row


def _insert(
    transaction: Transaction,
    tenant: str,
    principal: str,
    kind: principal_pb2.PrincipalKind.ValueType,
    display_name: str,
    roles: Sequence[principal_pb2.Role.ValueType],
    token: str,
    *,
    disabled: bool = False,
) -> None:
    transaction.execute(
        schema.principals.insert(),
        {
            "tenant": tenant,
            "id": principal,
            "kind": kind,
            "display_name": display_name,
            "roles": json.dumps(roles),
            "token_hash": hash_of(token),
            "disabled": disabled,
            "etag": new_id(),
            "created": transaction.now,
        },
    )


def _change(transaction: Transaction, row: Any, **values: Any) -> None:
    table = schema.principals.c
    transaction.execute(
        update(schema.principals).where(and_(table.tenant == row.tenant, table.id == row.id)).values(values)
    )


def _roles(
    kind: principal_pb2.PrincipalKind.ValueType, roles: Iterable[principal_pb2.Role.ValueType]
) -> list[principal_pb2.Role.ValueType]:
    wanted = sorted(set(roles))
    if any(not role or role not in principal_pb2.Role.values() for role in wanted):
        raise invalid(
            "A role is VIEWER, OPERATOR, APPROVER or ADMIN.", reason="ROLE_INVALID", field="principal.roles"
        )
    if kind == WORKER and wanted:
        raise invalid(
            "A worker reaches WorkerService only; give it no roles.",
            reason="ROLE_INVALID",
            field="principal.roles",
        )
    return wanted


def _check_display_name(name: str) -> None:
    if len(name) > MAX_DISPLAY_NAME:
        raise invalid(
            f"The display name has {len(name)} characters; {MAX_DISPLAY_NAME} are the most.",
            reason="DISPLAY_NAME_TOO_LONG",
            field="principal.display_name",
        )


def _require_another_admin(transaction: Transaction, row: Any) -> None:
    """Refuse to take the admin in ``row`` away if no other could call."""
    if row.disabled or not _is_admin(row):
        return
    table = schema.principals.c
    others = transaction.execute(
        select(schema.principals).where(
            and_(table.tenant == row.tenant, table.id != row.id, table.disabled.is_(False))
        )
    )
    if not any(_is_admin(other) for other in others):
        name = str(Name(row.tenant, "principals", row.id))
        raise precondition(
            f"{name} is the last admin who can call. Make another one first.",
            reason="LAST_ADMIN",
            principal=name,
        )


def _is_admin(row: Any) -> bool:
    return principal_pb2.ROLE_ADMIN in json.loads(row.roles)
