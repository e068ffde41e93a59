"""request_id: the same call again gives the same answer, in the same transaction that did the work."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy import and_, bindparam, delete, select

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.plane import ControlPlane
from fermata.server.principals.callers import Caller
from fermata.server.store import schema
from fermata.server.store.database import Transaction

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

SWEEP_SECONDS = 3600.0

KEPT_SECONDS = 7 * 24 * 3600.0
"""How long a repeated request is recognised."""

_EARLIER = select(schema.requests.c.digest, schema.requests.c.response).where(
    and_(
        schema.requests.c.principal == bindparam("of_principal"),
        schema.requests.c.request == bindparam("of_request"),
    )
)
_INSERT = schema.requests.insert()


def once(
    transaction: Transaction,
    caller: Caller,
    method: str,
    request: Any,
    produce: Callable[[], M],
    kind: type[M],
) -> M:
    """Do the work of ``request``, or return the answer that an earlier call with the same request_id got.

    :raises DomainError: REQUEST_ID_REUSED, where the earlier call had another body; and what ``produce`` raises, in which case
        nothing is remembered.
    """
    if not request.request_id:
        return produce()
    earlier = recall(transaction, caller, method, request, kind)
    if earlier is not None:
        return earlier
    response = produce()
    transaction.execute(
        _INSERT,
        {
            "principal": caller.name,
            "request": request.request_id,
            "method": method,
            "digest": _digest(method, request),
            "response": response.SerializeToString(),
            "created": transaction.now,
        },
    )
    return response


def recall(connection: Any, caller: Caller, method: str, request: Any, kind: type[M]) -> M | None:
    """The answer that an earlier call with this request_id got, or None. For work outside of the store, which ``once`` then
    remembers.

    :raises DomainError: REQUEST_ID_REUSED.
    """
    if not request.request_id:
        return None
    row = connection.execute(
        _EARLIER, {"of_principal": caller.name, "of_request": request.request_id}
    ).first()
    if row is None:
        return None
    if row.digest != _digest(method, request):
        raise DomainError(
            f"request_id {request.request_id!r} was used for another call. Use a fresh one for each call.",
            reason="REQUEST_ID_REUSED",
            kind=ErrorKind.ALREADY_EXISTS,
            request_id=request.request_id,
        )
    return kind.FromString(row.response)


def _digest(method: str, request: Any) -> str:
    return hashlib.sha256(method.encode() + b"\0" + request.SerializeToString(deterministic=True)).hexdigest()


async def sweep_requests(plane: ControlPlane) -> None:
    """Forget, every hour, what is too old to be repeated. Runs until cancelled."""
    while True:
        try:
            await plane.write(_forget_old)
        except DomainError as error:
            log.warning("old requests can't be forgotten: %s", error)
        await asyncio.sleep(SWEEP_SECONDS)


def _forget_old(transaction: Transaction) -> None:
    transaction.execute(
        delete(schema.requests).where(schema.requests.c.created < transaction.now - KEPT_SECONDS)
    )
