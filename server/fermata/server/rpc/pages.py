"""Pages of lists: opaque tokens over a row number or a key."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from fermata.server.errors import invalid

DEFAULT_SIZE = 50
LARGEST_SIZE = 500

Key = TypeVar("Key", int, str)

_LARGEST_NUMBER = 2**63 - 1
"""Of a row, in SQLite."""


def size(asked: int, default: int = DEFAULT_SIZE, largest: int = LARGEST_SIZE) -> int:
    """How many rows a page holds.

    :raises DomainError: PAGE_SIZE, where a negative number is asked for.
    """
    if asked < 0:
        raise invalid(f"page_size is {asked}; it can't be negative.", reason="PAGE_SIZE", field="page_size")
    return min(asked or default, largest)


def position(token: str, kind: type[Key]) -> Key | None:
    """Where a page starts after; None for the first.

    :param kind: what the list is ordered by: a row number (int) or an id (str).
    :raises DomainError: PAGE_TOKEN, where the token is not one of ours for such a list.
    """
    if not token:
        return None
    try:
        value = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        value = None
    if type(value) is kind and (not isinstance(value, int) or 0 <= value <= _LARGEST_NUMBER):
        return value
    raise invalid(
        "page_token is not one that this server gave for this list. Start again without it.",
        reason="PAGE_TOKEN",
        field="page_token",
    )


def cut(rows: Sequence[Any], limit: int, column: str) -> tuple[Sequence[Any], str]:
    """The page, and the token of the next one, from ``limit + 1`` rows that were read; ``column`` orders them."""
    if len(rows) <= limit:
        return rows, ""
    page = rows[:limit]
    return page, token(getattr(page[-1], column))


def token(value: Any) -> str:
    """The token for a position."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
