"""Domain errors as gRPC statuses with ``google.rpc`` details: the one table."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from fermata.server.errors import ERROR_DOMAIN, DomainError, ErrorKind

_CODES = {kind: code_pb2.Code.Value(kind.value) for kind in ErrorKind}

RETRY_SECONDS = 1
"""What a caller is told to wait where trying again can help."""


def to_status(error: DomainError) -> grpc.Status:
    """The status of an error: ErrorInfo always, BadRequest where a field is named, RetryInfo where a retry can help."""
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata)]
    status = status_pb2.Status(code=_CODES[error.kind], message=error.message)
    for detail in details:
        _pack(status, detail)
    if field := error.metadata.get("field"):
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=error.message)
        _pack(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retryable:
        delay = duration_pb2.Duration(seconds=RETRY_SECONDS)
        _pack(status, error_details_pb2.RetryInfo(retry_delay=delay))
    converted: grpc.Status = rpc_status.to_status(status)
    return converted


def _pack(status: status_pb2.Status, detail: object) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)  # type: ignore[arg-type]
    status.details.append(packed)
