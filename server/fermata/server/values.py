"""``google.protobuf.Struct`` as JSON, and back to what the person who wrote it meant.

A Struct has doubles only, so the 90 of a client arrives as 90.0. RFC 8785 writes both as ``90``, and so do gates: whatever is held
against a policy or a schema, or handed to a tool, has to be read from that form, or a condition would see another type than at
the gate.
"""

from __future__ import annotations

import json
from typing import Any

import rfc8785
from google.protobuf import json_format, struct_pb2

from fermata.server.errors import invalid


def canonical(value: struct_pb2.Struct | struct_pb2.Value, field: str) -> str:
    """A Struct, or a Value, as canonical JSON text (RFC 8785).

    :param field: where it stands in the request.
    :raises DomainError: VALUE_INVALID, where a number is not finite.
    """
    try:
        return rfc8785.dumps(json_format.MessageToDict(value)).decode()
    except (json_format.Error, rfc8785.CanonicalizationError, ValueError) as error:
        raise invalid(f"{field} is not JSON: {error}", reason="VALUE_INVALID", field=field) from error


def plain(struct: struct_pb2.Struct, field: str) -> dict[str, Any]:
    """A Struct as JSON values, with whole numbers as ints.

    :raises DomainError: VALUE_INVALID.
    """
    values: dict[str, Any] = json.loads(canonical(struct, field))
    return values
