"""From a bearer token to who calls, and to the end of what they have open when the token counts no more.

A stream is judged when it begins, and again after every change of a principal: a look into a dictionary for each open stream, and
nothing for each item.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.names import Name, parse
from fermata.server.principals.records import hash_of, role_names
from fermata.server.principals.rights import may_call
from fermata.server.store import schema
from fermata.v1 import principal_pb2


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and for whom."""

    tenant: str
    name: str
    kind: principal_pb2.PrincipalKind.ValueType
    roles: tuple[principal_pb2.Role.ValueType, ...]
    on_behalf_of: str = ""
    acting_roles: tuple[str, ...] = ()
    """Roles that count for what is decided: those of the person for whom a bot acts, else the caller's own."""

    @property
    def person(self) -> str:
        """Who answers for the call."""
        return self.on_behalf_of or self.name


class OpenStream:
    """A stream that a principal has open; made by :meth:`Callers.open_stream`."""

    def __init__(self, authorization: str, method: str) -> None:
        self.authorization = authorization
        self.method = method
        self.ended_by: DomainError | None = None
        """Why it may not go on."""
        self.waits = False
        """True while it waits for its next item, and not for its reader to take the last one."""
        self._task = asyncio.current_task()

    def end(self, reason: DomainError) -> None:
        """Have it end: at once where it waits, else with the item that its reader is about to take."""
        if self.ended_by is None:
            self.ended_by = reason
            if self.waits and self._task is not None:
                self._task.cancel()

    def check(self) -> None:
        """
        :raises DomainError: TOKEN_REVOKED, PERMISSION_DENIED.
        """
        if self.ended_by is not None:
            raise self.ended_by

    def was_ended(self) -> bool:
        """To be called where it was cancelled: True where it was by :meth:`end`, and by nobody else."""
        return self.ended_by is not None and self._task is not None and not self._task.uncancel()


class Callers:
    """Knows principals by their tokens' hashes. Filled from the store, and again after every change of a principal."""

    def __init__(self) -> None:
        self._by_hash: dict[str, Caller] = {}
        self._streams: set[OpenStream] = set()

    def load(self, connection: Connection) -> None:
        """Read all principals that may call."""
        rows = connection.execute(select(schema.principals).where(schema.principals.c.disabled.is_(False)))
        self._by_hash = {row.token_hash: _caller(row) for row in rows if row.token_hash}

    @contextmanager
    def open_stream(self, authorization: str, method: str) -> Iterator[OpenStream]:
        """Keep a stream of the running task among those that :meth:`look_again` judges."""
        stream = OpenStream(authorization, method)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def look_again(self) -> None:
        """Judge all open streams anew, and end those whose token or right is gone. For the event loop, after :meth:`load`."""
        for stream in tuple(self._streams):
            try:
                authorize(self.authenticate(stream.authorization), stream.method)
            except DomainError as refused:
                stream.end(_revoked() if refused.kind is ErrorKind.UNAUTHENTICATED else refused)

    def authenticate(self, authorization: str) -> Caller:
        """Who sent the ``authorization`` metadata.

        :raises DomainError: TOKEN_MISSING, TOKEN_INVALID.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise DomainError(
                "The call carries no bearer token. Set FERMATA_TOKEN, or --token-file.",
                reason="TOKEN_MISSING",
                kind=ErrorKind.UNAUTHENTICATED,
            )
        caller = self._by_hash.get(hash_of(token))
        if caller is None:
            raise DomainError(
                "The bearer token is not known here, or its principal is disabled.",
                reason="TOKEN_INVALID",
                kind=ErrorKind.UNAUTHENTICATED,
            )
        return caller


def _revoked() -> DomainError:
    return DomainError(
        "The token with which this stream was opened was replaced, or its principal was disabled or removed.",
        reason="TOKEN_REVOKED",
        kind=ErrorKind.UNAUTHENTICATED,
    )


def authorize(caller: Caller, method: str) -> None:
    """Refuse a caller who may not call ``Service.Method``.

    :raises DomainError: PERMISSION_DENIED.
    """
    if not may_call(method, caller.kind, caller.roles):
        held = ", ".join(principal_pb2.Role.Name(role).removeprefix("ROLE_").lower() for role in caller.roles)
        raise DomainError(
            f"{caller.name} ({held or 'no role'}) may not call {method}.",
            reason="PERMISSION_DENIED",
            kind=ErrorKind.PERMISSION_DENIED,
            method=method,
        )


def acting_for(read: Callable[[str], Any | None], caller: Caller, on_behalf_of: str, method: str) -> Caller:
    """The caller as it acts for a person: only a bot may, and only within that person's rights.

    :param read: gives the row of a principal by its name.
    :raises DomainError: NOT_A_BOT, PRINCIPAL_NOT_FOUND, PERMISSION_DENIED.
    """
    if not on_behalf_of:
        return caller
    if caller.kind != principal_pb2.PRINCIPAL_KIND_BOT:
        raise DomainError(
            f"{caller.name} is not a bot and can't act for somebody else.",
            reason="NOT_A_BOT",
            kind=ErrorKind.PERMISSION_DENIED,
        )
    name = parse(on_behalf_of, "principals")
    row = read(on_behalf_of)
    if row is None or row.disabled or name.tenant != caller.tenant:
        raise DomainError(
            f"There is no principal {on_behalf_of!r} to act for.",
            reason="PRINCIPAL_NOT_FOUND",
            kind=ErrorKind.NOT_FOUND,
        )
    person = _caller(row)
    authorize(person, method)
    return Caller(caller.tenant, caller.name, caller.kind, caller.roles, on_behalf_of, role_names(row.roles))


def _caller(row: Any) -> Caller:
    return Caller(
        row.tenant,
        str(Name(row.tenant, "principals", row.id)),
        row.kind,
        tuple(json.loads(row.roles)),
        acting_roles=role_names(row.roles),
    )
