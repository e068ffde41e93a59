"""When a call may be repeated, and how long to wait before.

A repeat must never be a second effect. Reads may be repeated, and so may whatever carries a ``request_id``;
the client fills that in once per call and keeps it over all attempts. Deletions and token rotations have
none, so they are sent once. gRPC's own retries by service config were refused: they know nothing of request
ids, nor of ``RetryInfo``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from .errors import FermataError

READS = ("Get", "List", "Search", "Test", "Embed", "Watch")
"""First words of the methods that change nothing."""

IDEMPOTENT = ("Open",)
"""First words of the methods that say in the API that doing them twice is as doing them once."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    :param attempts: how often a call is sent at most, the first time included; enough for a server that restarts.
    :param attempts_before_contact: the same while the server has never answered. It is more likely not there than
        restarting, and a person waits.
    :param initial_seconds: upper bound of the first wait.
    :param multiplier: growth of the bound.
    :param max_seconds: largest bound.
    """

    attempts: int = 8
    attempts_before_contact: int = 4
    initial_seconds: float = 0.1
    multiplier: float = 2.0
    max_seconds: float = 5.0

    def wait_seconds(self, failures: int, random: Callable[[], float]) -> float:
        """How long to wait after so many failures (from 1). ``random`` returns 0 to 1.

        Half of the bound is fixed, so that a storm of clients spreads out and none of them comes back at
        once.
        """
        exponent = min(failures - 1, 32)
        bound = min(self.max_seconds, self.initial_seconds * self.multiplier**exponent)
        return bound * (0.5 + 0.5 * random())

    def wait_after(self, failure: FermataError, failures: int, random: Callable[[], float]) -> float:
        """As ``wait_seconds``, but never less than what the server asked for."""
        return max(self.wait_seconds(failures, random), failure.retry_after_seconds or 0.0)


def prepare(method: str, request: Message) -> bool:
    """Fill in the request's ``request_id`` if it has such a field and the caller left it empty.

    :returns: True where the request may be sent more than once.
    """
    if "request_id" in request.DESCRIPTOR.fields_by_name:
        if not getattr(request, "request_id", ""):
            setattr(request, "request_id", str(uuid.uuid4()))  # noqa: B010 - not every Message has the field
        return True
    return method.startswith((*READS, *IDEMPOTENT))
