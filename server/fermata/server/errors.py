"""Errors of the domain, as data.

A domain error names its facts: a stable ``reason`` (UPPER_SNAKE, part of the API), a ``kind`` that says what a caller may do
about it, and the ids involved as ``metadata``. One table in ``rpc/errors.py`` turns kinds into gRPC statuses; nothing below it
knows of gRPC.
"""

from __future__ import annotations

from enum import Enum

ERROR_DOMAIN = "fermata.dev"
"""The ``domain`` of every ``google.rpc.ErrorInfo`` that the server sends."""


class ErrorKind(Enum):
    """What went wrong, seen from the caller. The names are those of the canonical gRPC codes that they become."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    UNIMPLEMENTED = "UNIMPLEMENTED"


class DomainError(Exception):
    """A refusal that the caller can understand and mend.

    :param message: one sentence that says what was wrong, where, and how to mend it.
    :param reason: stable UPPER_SNAKE code, for programs.
    :param kind: decides the gRPC status and whether a retry can help.
    :param metadata: the facts (ids, states, limits) as strings.
    """

    def __init__(self, message: str, *, reason: str, kind: ErrorKind, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.kind = kind
        self.metadata = metadata

    @property
    def retryable(self) -> bool:
        """True where the same call may succeed later without any change by the caller."""
        return self.kind in (ErrorKind.UNAVAILABLE, ErrorKind.RESOURCE_EXHAUSTED)


def not_found(noun: str, name: str, hint: str = "") -> DomainError:
    """The error for a resource that is not there; ``hint`` says where to look."""
    tail = f" {hint}" if hint else ""
    return DomainError(
        f"There is no {noun} {name!r}.{tail}",
        reason=f"{noun.upper().replace(' ', '_')}_NOT_FOUND",
        kind=ErrorKind.NOT_FOUND,
        **{noun.replace(" ", "_"): name},
    )


def invalid(message: str, *, reason: str = "INVALID_ARGUMENT", **metadata: str) -> DomainError:
    """The error for an argument that can never be right."""
    return DomainError(message, reason=reason, kind=ErrorKind.INVALID_ARGUMENT, **metadata)


def precondition(message: str, *, reason: str, **metadata: str) -> DomainError:
    """The error for a call that the present state of the resource does not allow."""
    return DomainError(message, reason=reason, kind=ErrorKind.FAILED_PRECONDITION, **metadata)
