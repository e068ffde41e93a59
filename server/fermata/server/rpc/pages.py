"""Pages of lists: opaque tokens over a row number or a key."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from fermata.server.errors import invalid

DEFAULT_SIZE = 50
LARGEST_SIZE = 500


def size(asked: int, default: int = DEFAULT_SIZE, largest: int = LARGEST_SIZE) -> int:
    """How many rows a page holds.

    :raises DomainError: PAGE_SIZE, where a negative number is asked for.
    """
    if asked < 0:
        raise invalid(f"page_size is {asked}; it can't be negative.", reason="PAGE_SIZE", field="page_size")
    return min(asked or default, largest)


def position(token: str) -> Any:
    """Where a page starts after; None for the first.

    :raises DomainError: PAGE_TOKEN, where the token is not one of ours.
    """
    if not token:
        return None
    try:
        return json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error):
        raise invalid(
            "page_token is not one that this server gave. Start again without it.",
            reason="PAGE_TOKEN",
            field="page_token",
        ) from None


def cut(rows: Sequence[Any], limit: int, column: str) -> tuple[Sequence[Any], str]:
    """The page, and the token of the next one, from ``limit + 1`` rows that were read; ``column`` orders them."""
    if len(rows) <= limit:
        return rows, ""
    page = rows[:limit]
    return page, token(getattr(page[-1], column))


def token(value: Any) -> str:
    """The token for a position."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
