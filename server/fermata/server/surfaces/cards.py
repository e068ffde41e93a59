"""Cards inside a transaction: which message shows what, compared and set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, select, update

from fermata.server.errors import DomainError, ErrorKind, invalid
from fermata.server.names import new_id
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import surface_pb2

MAX_FIELD = 400
"""Characters of each field."""


def put(transaction: Transaction, tenant: str, wanted: surface_pb2.Card) -> surface_pb2.Card:
    """Make a card where there is none, or replace the one that has the etag.

    :raises DomainError: CARD_INVALID, ETAG_MISMATCH.
    """
    fields = (wanted.surface, wanted.subject, wanted.place, wanted.message, wanted.digest, wanted.shown)
    if not (wanted.surface and wanted.subject and wanted.place) or max(map(len, fields)) > MAX_FIELD:
        raise invalid(
            f"A card has a surface, a subject and a place; no field is longer than {MAX_FIELD} characters.",
            reason="CARD_INVALID",
            field="card",
        )
    table = schema.cards.c
    same = and_(
        table.tenant == tenant,
        table.surface == wanted.surface,
        table.subject == wanted.subject,
        table.place == wanted.place,
    )
    row = transaction.execute(select(schema.cards).where(same)).first()
    if (row.etag if row else "") != wanted.etag:
        raise DomainError(
            f"The card of {wanted.subject} was changed in between, or there is none."
            if wanted.etag
            else f"There is a card of {wanted.subject} already.",
            reason="ETAG_MISMATCH",
            kind=ErrorKind.ABORTED,
            subject=wanted.subject,
        )
    values = {
        "message": wanted.message,
        "digest": wanted.digest,
        "shown": wanted.shown,
        "final": wanted.final,
        "etag": new_id(),
        "updated": transaction.now,
    }
    if row is None:
        transaction.execute(
            schema.cards.insert(),
            {
                "tenant": tenant,
                "surface": wanted.surface,
                "subject": wanted.subject,
                "place": wanted.place,
                **values,
            },
        )
    else:
        transaction.execute(update(schema.cards).where(same).values(values))
    return to_message(transaction.execute(select(schema.cards).where(same)).one())


def page(
    connection: Any, tenant: str, request: surface_pb2.ListCardsRequest, after: int | None, limit: int
) -> Sequence[Any]:
    """Up to ``limit`` rows, oldest first; those after row number ``after`` where it is given."""
    table = schema.cards.c
    where = [table.tenant == tenant]
    where += [
        column == wanted
        for column, wanted in (
            (table.surface, request.surface),
            (table.place, request.place),
            (table.subject, request.subject),
        )
        if wanted
    ]
    if request.open_only:
        where.append(table.final.is_(False))
    if after is not None:
        where.append(table.n > after)
    rows: Sequence[Any] = connection.execute(
        select(schema.cards).where(and_(*where)).order_by(table.n).limit(limit)
    ).fetchall()
    return rows


def to_message(row: Any) -> surface_pb2.Card:
    """A card of the API from its row."""
    message = surface_pb2.Card(
        surface=row.surface,
        subject=row.subject,
        place=row.place,
        message=row.message,
        digest=row.digest,
        shown=row.shown,
        final=row.final,
        etag=row.etag,
    )
    message.update_time.FromNanoseconds(int(row.updated * 1e9))
    return message
