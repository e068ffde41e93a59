"""JSON values between Python and protobuf's ``Struct`` and ``Value``.

``Struct`` keeps every number as a double. A whole number comes back as an ``int``, since a tool that takes
an integer would refuse ``900.0``. An integer beyond 2^53 can't be kept exactly and is refused instead of
being changed silently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from google.protobuf import struct_pb2

from .errors import LocalError

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
"""What JSON can say."""

LARGEST_EXACT_INTEGER = 2**53


def to_struct(values: Mapping[str, object]) -> struct_pb2.Struct:
    """A ``Struct`` of ``values``.

    :raises LocalError: VALUE_NOT_JSON where a value has no JSON form, naming where it is.
    """
    struct = struct_pb2.Struct()
    for key, value in values.items():
        struct.fields[key].CopyFrom(to_value(value, key))
    return struct


def to_value(value: object, where: str = "value") -> struct_pb2.Value:
    """A ``Value``; ``where`` is named in errors."""
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() if abs(value) <= LARGEST_EXACT_INTEGER:
            return struct_pb2.Value(number_value=value)
        case float() if math.isfinite(value):
            return struct_pb2.Value(number_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case list() | tuple():
            items = [to_value(item, f"{where}[{index}]") for index, item in enumerate(value)]
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=items))
        case Mapping():
            fields = {str(key): to_value(item, f"{where}.{key}") for key, item in value.items()}
            return struct_pb2.Value(struct_value=struct_pb2.Struct(fields=fields))
    raise LocalError(
        f"{where} can't be sent: {type(value).__name__} {value!r:.60} has no exact JSON form.",
        reason="VALUE_NOT_JSON",
        metadata={"where": where},
    )


def from_struct(struct: struct_pb2.Struct) -> dict[str, JsonValue]:
    """The ``Struct`` as a dict."""
    return {key: from_value(value) for key, value in struct.fields.items()}


def from_value(value: struct_pb2.Value) -> JsonValue:
    """The ``Value`` as plain Python."""
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            whole = math.isfinite(number) and number.is_integer() and abs(number) <= LARGEST_EXACT_INTEGER
            return int(number) if whole else number
        case "string_value":
            return value.string_value
        case "list_value":
            return [from_value(item) for item in value.list_value.values]
        case "struct_value":
            return from_struct(value.struct_value)
        case _:
            return None
