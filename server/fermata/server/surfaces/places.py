"""Places inside a transaction: a conversation's thread, found again by where it goes on."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from sqlalchemy import and_, select

from fermata.server.errors import invalid, not_found
from fermata.server.names import Name
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import surface_pb2

MAX_PART = 200
"""Characters of a team, a channel or a message."""

_SURFACE = re.compile(r"[a-z]{1,20}")


def check(place: surface_pb2.Place) -> str:
    """The id of a place, which follows from where it is.

    :raises DomainError: PLACE_INVALID.
    """
    parts = (place.surface, place.team, place.channel, place.message)
    if not _SURFACE.fullmatch(place.surface) or not place.channel or max(map(len, parts)) > MAX_PART:
        raise invalid(
            "A place has a surface (a to z), a team, a channel, and the message that it hangs on if there is one.",
            reason="PLACE_INVALID",
            field="place",
        )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def find(connection: Any, tenant: str, place: str) -> surface_pb2.Place | None:
    """A place by its id, or None."""
    table = schema.places.c
    return _one(connection, and_(table.tenant == tenant, table.id == place))


def of_thread(connection: Any, tenant: str, thread: str) -> surface_pb2.Place | None:
    """The place of a thread, or None."""
    table = schema.places.c
    return _one(connection, and_(table.tenant == tenant, table.thread == thread))


def require(found: surface_pb2.Place | None, name: str) -> surface_pb2.Place:
    """
    :raises DomainError: PLACE_NOT_FOUND.
    """
    if found is None:
        raise not_found("place", name, "OpenPlace makes one.")
    return found


def make(
    transaction: Transaction, tenant: str, place: str, wanted: surface_pb2.Place, thread: str
) -> surface_pb2.Place:
    """Make a place.

    :param thread: the id of its thread.
    """
    transaction.execute(
        schema.places.insert(),
        {
            "tenant": tenant,
            "id": place,
            "surface": wanted.surface,
            "team": wanted.team,
            "channel": wanted.channel,
            "message": wanted.message,
            "thread": thread,
            "agent": wanted.agent,
        },
    )
    return require(find(transaction, tenant, place), place)


def _one(connection: Any, where: Any) -> surface_pb2.Place | None:
    row = connection.execute(select(schema.places).where(where)).first()
    if row is None:
        return None
    return surface_pb2.Place(
        name=str(Name(row.tenant, "places", row.id)),
        surface=row.surface,
        team=row.team,
        channel=row.channel,
        message=row.message,
        thread=str(Name(row.tenant, "threads", row.thread)),
        agent=row.agent,
    )
