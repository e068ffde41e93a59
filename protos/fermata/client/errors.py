"""Errors that a caller meets, with the server's facts decoded.

The server sends ``google.rpc`` details beside each status. They become attributes here, so that a program
looks at ``reason`` and ``metadata`` and never at a message's words. Whatever this side finds wrong by
itself (a token file that others can read, a malformed agent file) is a ``LocalError`` of the same family,
so one ``except FermataError`` is enough.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

STATUS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that the server refused: its path in the request, and what is wrong with it."""

    field: str
    description: str


class FermataError(Exception):
    """A call that did not succeed.

    :ivar message: one sentence for people.
    :ivar reason: stable UPPER_SNAKE code for programs; the status code's name where the server gave no
        reason.
    :ivar code: the gRPC status.
    :ivar metadata: facts as strings, such as ids, states and limits.
    :ivar violations: fields that were refused, for an invalid argument.
    :ivar retry_after_seconds: how long the server asks to wait, or None.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        code: grpc.StatusCode | None = None,
        metadata: dict[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.reason = reason or self.code.name
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_after_seconds = retry_after_seconds

    @property
    def retryable(self) -> bool:
        """True where the same call may succeed later without any change by the caller."""
        return self.code is grpc.StatusCode.UNAVAILABLE or (
            self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and self.retry_after_seconds is not None
        )

    def __str__(self) -> str:
        return f"[{self.reason}] {self.message}"


class LocalError(FermataError):
    """Something on this side is wrong: configuration, a file, an argument. Nothing was sent."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class InvalidArgumentError(FermataError):
    """An argument can never be right; see ``violations``."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFoundError(FermataError):
    """What was named is not there."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExistsError(FermataError):
    """What should be made is there already, or a request_id was used with another body."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPreconditionError(FermataError):
    """The present state does not allow the call."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class AbortedError(FermataError):
    """Somebody else changed it in between (a stale etag): read it again and decide anew."""

    code = grpc.StatusCode.ABORTED


class PermissionDeniedError(FermataError):
    """The caller's roles do not allow the call."""

    code = grpc.StatusCode.PERMISSION_DENIED


class UnauthenticatedError(FermataError):
    """The call carried no token, or one that the server does not know."""

    code = grpc.StatusCode.UNAUTHENTICATED


class ResourceExhaustedError(FermataError):
    """A limit was reached, such as a message's size or a rate."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class UnavailableError(FermataError):
    """The server, or what it needs for this call, is out of reach."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceededError(FermataError):
    """The answer did not come in time; whether the call had its effect is unknown unless it carries a
    request_id."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class CancelledError(FermataError):
    """The peer ended the call."""

    code = grpc.StatusCode.CANCELLED


class UnimplementedError(FermataError):
    """The server does not have this method; it may be older than this client."""

    code = grpc.StatusCode.UNIMPLEMENTED


class InternalError(FermataError):
    """The server met a fault of its own."""

    code = grpc.StatusCode.INTERNAL


_KINDS: dict[grpc.StatusCode, type[FermataError]] = {
    kind.code: kind
    for kind in (
        InvalidArgumentError,
        NotFoundError,
        AlreadyExistsError,
        FailedPreconditionError,
        AbortedError,
        PermissionDeniedError,
        UnauthenticatedError,
        ResourceExhaustedError,
        UnavailableError,
        DeadlineExceededError,
        CancelledError,
        UnimplementedError,
        InternalError,
    )
}


def error(code: grpc.StatusCode, message: str, *, reason: str = "") -> FermataError:
    """An error of the subclass that belongs to ``code``, made on this side."""
    return _KINDS.get(code, FermataError)(message, reason=reason, code=code)


def from_rpc(rpc: grpc.aio.AioRpcError) -> FermataError:
    """Decode a failed call. Details that cannot be read are left out rather than hiding the error itself."""
    code = rpc.code()
    message = rpc.details() or code.name
    reason = ""
    metadata: dict[str, str] = {}
    violations: tuple[Violation, ...] = ()
    retry_after_seconds: float | None = None
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    with contextlib.suppress(DecodeError):
        for detail in _details(rpc):
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad_request):
                violations = tuple(Violation(v.field, v.description) for v in bad_request.field_violations)
            elif detail.Unpack(retry):
                retry_after_seconds = retry.retry_delay.ToNanoseconds() / 1e9
    return _KINDS.get(code, FermataError)(
        message,
        reason=reason,
        code=code,
        metadata=metadata,
        violations=violations,
        retry_after_seconds=retry_after_seconds,
    )


def _details(rpc: grpc.aio.AioRpcError) -> list[Any]:
    for key, value in rpc.trailing_metadata() or ():
        if key == STATUS_KEY and isinstance(value, bytes):
            status = status_pb2.Status()
            status.ParseFromString(value)
            return list(status.details)
    return []
