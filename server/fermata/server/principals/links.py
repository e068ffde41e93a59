"""Which principal an account of a chat surface is.

An account acts by its link, and the link is looked up where the act is judged, never before: who is unlinked or disabled between
two clicks is nobody at the second. A person proves both sides at once: the code was shown to the account alone, and it is redeemed
with the person's own token.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, delete, select
from sqlalchemy.dialects.sqlite import insert

from fermata.server.errors import DomainError, ErrorKind, invalid, not_found
from fermata.server.names import Name, parse
from fermata.server.principals import records
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import principal_pb2, surface_pb2

CODE_SECONDS = 600.0
"""How long a code can be redeemed."""

_CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without those that look alike."""
_CODE_LENGTH = 12
"""60 bits: nobody guesses one within its ten minutes."""

_ACCOUNT = re.compile(r"[a-z]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


def account(name: str) -> Name:
    """The name of a link taken apart.

    :raises DomainError: INVALID_NAME.
    """
    parsed = parse(name, "links")
    if not _ACCOUNT.fullmatch(parsed.id):
        form = "tenants/{tenant}/links/{surface}.{team}.{account}"
        raise invalid(
            f"{name!r} is not a name of the form {form}.", reason="INVALID_NAME", name=name, form=form
        )
    return parsed


def put(
    transaction: Transaction, tenant: str, link: str, principal: str, created_by: str
) -> surface_pb2.Link:
    """Say which principal an account is.

    :param principal: its name.
    :raises DomainError: PRINCIPAL_NOT_FOUND, NOT_A_PERSON.
    """
    row = records.by_name(transaction, principal)
    if row is None or row.tenant != tenant:
        raise not_found("principal", principal, "List them with ListPrincipals.")
    if row.kind != principal_pb2.PRINCIPAL_KIND_USER:
        raise invalid(
            f"{principal} is no person; an account of a chat is one.",
            reason="NOT_A_PERSON",
            principal=principal,
        )
    present = by_id(transaction, tenant, link)
    if present is None or present.principal != row.id:
        values = {"principal": row.id, "created_by": created_by, "created": transaction.now}
        statement = insert(schema.links).values(tenant=tenant, id=link, **values)
        transaction.execute(statement.on_conflict_do_update(index_elements=["tenant", "id"], set_=values))
    return get(transaction, tenant, link)


def get(connection: Any, tenant: str, link: str) -> surface_pb2.Link:
    """One link.

    :raises DomainError: LINK_NOT_FOUND.
    """
    row = by_id(connection, tenant, link)
    if row is None:
        raise not_found("link", str(Name(tenant, "links", link)), "Link the account with a code.")
    return to_message(row)


def page(connection: Any, tenant: str, after: str | None, limit: int) -> Sequence[Any]:
    """Up to ``limit`` rows in the order of their ids; those after ``after`` where it is given."""
    table = schema.links.c
    where = [table.tenant == tenant]
    if after is not None:
        where.append(table.id > after)
    rows: Sequence[Any] = connection.execute(
        select(schema.links).where(and_(*where)).order_by(table.id).limit(limit)
    ).fetchall()
    return rows


def remove(transaction: Transaction, tenant: str, link: str) -> None:
    """Remove a link.

    :raises DomainError: LINK_NOT_FOUND.
    """
    get(transaction, tenant, link)
    table = schema.links.c
    transaction.execute(delete(schema.links).where(and_(table.tenant == tenant, table.id == link)))


def new_code(transaction: Transaction, tenant: str, link: str) -> tuple[str, float]:
    """A code for an account, and when it expires in seconds since the epoch. The one before it ends."""
    letters = "".join(secrets.choice(_CODE_LETTERS) for _ in range(_CODE_LENGTH))
    values = {"hash": records.hash_of(letters), "expires": transaction.now + CODE_SECONDS}
    statement = insert(schema.link_codes).values(tenant=tenant, link=link, **values)
    transaction.execute(statement.on_conflict_do_update(index_elements=["tenant", "link"], set_=values))
    return "-".join(re.findall("....", letters)), transaction.now + CODE_SECONDS


def redeem(transaction: Transaction, tenant: str, code: str, principal: str) -> surface_pb2.Link:
    """Link the code's account to ``principal``, and use the code up.

    :raises DomainError: LINK_CODE_UNKNOWN, NOT_A_PERSON.
    """
    letters = re.sub(r"[\s-]", "", code).upper()
    table = schema.link_codes.c
    row = transaction.execute(
        select(schema.link_codes).where(
            and_(
                table.tenant == tenant,
                table.hash == records.hash_of(letters),
                table.expires > transaction.now,
            )
        )
    ).first()
    if row is None:
        raise DomainError(
            "That code is not known, was used, or is older than ten minutes. Ask the bot for another one.",
            reason="LINK_CODE_UNKNOWN",
            kind=ErrorKind.NOT_FOUND,
        )
    link = put(transaction, tenant, row.link, principal, principal)
    transaction.execute(delete(schema.link_codes).where(and_(table.tenant == tenant, table.link == row.link)))
    return link


def principal_of(connection: Any, name: str) -> str:
    """The name of the principal that an account is.

    :param name: the link's.
    :raises DomainError: INVALID_NAME, ACCOUNT_NOT_LINKED.
    """
    parsed = account(name)
    row = by_id(connection, parsed.tenant, parsed.id)
    if row is None:
        raise DomainError(
            f"The account {parsed.id} is linked to nobody here.",
            reason="ACCOUNT_NOT_LINKED",
            kind=ErrorKind.PERMISSION_DENIED,
            link=name,
        )
    return str(Name(row.tenant, "principals", row.principal))


def by_id(connection: Any, tenant: str, link: str) -> Any | None:
    """The row of a link, or None."""
    table = schema.links.c
    return connection.execute(
        select(schema.links).where(and_(table.tenant == tenant, table.id == link))
    ).first()


def to_message(row: Any) -> surface_pb2.Link:
    """A link of the API from its row."""
    message = surface_pb2.Link(
        name=str(Name(row.tenant, "links", row.id)),
        principal=str(Name(row.tenant, "principals", row.principal)),
        created_by=row.created_by,
    )
    message.create_time.FromNanoseconds(int(row.created * 1e9))
    return message
