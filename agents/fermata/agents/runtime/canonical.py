"""Values as canonical JSON, and digests over it (RFC 8785, SHA-256).

A digest must be the same in every execution of a task, so whatever has no stable content (a connection, a store) counts
by its type alone.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Set
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeAlias

import rfc8785
from langchain_core.messages import BaseMessage
from pydantic import BaseModel

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None

MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer that JSON's numbers carry exactly; larger ones become decimal strings."""

_MAX_DEPTH = 24
"""Protobuf reads messages that are nested 100 deep, and a level of JSON is three of them: what nests deeper could be told,
and nobody could read it."""


class NotJsonError(ValueError):
    """A value has no JSON form; ``path`` says where it is."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'the value'} {problem}")
        self.path = path


def jsonable(value: Any, *, strict: bool = False, path: str = "") -> Json:
    """The value as JSON.

    :param strict: raise instead of standing in the type's name for what has no JSON form.
    :raises NotJsonError: with ``strict``, or where the value nests too deeply.
    """
    if path.count("\x00") > _MAX_DEPTH:
        raise NotJsonError(_shown(path), f"nests deeper than {_MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return jsonable(value.value, strict=strict, path=path)
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return int(value) if abs(value) <= MAX_SAFE_INTEGER else str(int(value))
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        if strict:
            raise NotJsonError(_shown(path), f"is {value}, which JSON has no number for")
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): jsonable(v, strict=strict, path=f"{path}\x00{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v, strict=strict, path=f"{path}\x00{i}") for i, v in enumerate(value)]
    if isinstance(value, Set):
        return sorted((jsonable(v, strict=strict, path=f"{path}\x00*") for v in value), key=_sort_key)
    if isinstance(value, BaseMessage):
        return jsonable(value.model_dump(), strict=strict, path=path)
    if isinstance(value, BaseModel):
        return jsonable(
            {name: getattr(value, name) for name in type(value).model_fields}, strict=strict, path=path
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return jsonable(fields, strict=strict, path=path)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, uuid.UUID | decimal.Decimal | PurePath):
        return str(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return jsonable(value.tolist(), strict=strict, path=path)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if strict:
        raise NotJsonError(_shown(path), f"is a {kind}, which has no JSON form")
    return {"$opaque": kind}


def canonical(value: Json) -> str:
    """RFC 8785's one text for a JSON value."""
    return rfc8785.dumps(value).decode()


def digest(value: Json) -> str:
    """SHA-256 over the canonical text, in hex."""
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()


def _sort_key(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def _shown(path: str) -> str:
    return path.removeprefix("\x00").replace("\x00", ".")
