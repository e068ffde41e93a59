"""Arguments that a person writes, typed and checked by the tool's JSON schema.

The schema comes from a tool and is untrusted as well: references are resolved inside of it only, never over
a network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

from fermata.client import LocalError
from fermata.client.values import JsonValue

from .text import one_line, shown

_TRUE = frozenset({"true", "yes", "on"})
_FALSE = frozenset({"false", "no", "off"})
_DEPTH = 16


class EditError(LocalError):
    """An argument that the schema does not take. ``metadata["argument"]`` names it."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message, reason="ARGUMENT_INVALID", metadata={"argument": argument})


def edited(
    current: Mapping[str, JsonValue], assignments: Iterable[str], schema: Mapping[str, Any]
) -> dict[str, JsonValue]:
    """``current`` with ``name=value`` assignments applied.

    :raises EditError: for what is no assignment, an unknown argument, or a value that the schema refuses.
    """
    arguments = dict(current)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals or not name:
            raise EditError(name, f"{assignment!r} is no assignment: write name=value, such as rpm=900.")
        arguments[name] = typed(name, text.strip(), schema)
    check(arguments, schema)
    return arguments


def typed(name: str, text: str, schema: Mapping[str, Any]) -> JsonValue:
    """``text`` as the type that the schema wants for the argument ``name``.

    :raises EditError: where it can't be read as that, or the argument is not known.
    """
    known = schema.get("properties", {})
    if name not in known and schema.get("additionalProperties") is not True and known:
        raise EditError(name, f"There is no argument {name!r}. Known: {', '.join(known)}.")
    types, options = _wanted(known.get(name, {}), schema)
    for option in options:
        if text == option or text == json.dumps(option):
            return cast("JsonValue", option)
    if "null" in types and text.lower() in ("null", "none", ""):
        return None
    for kind in ("boolean", "integer", "number", "array", "object", "string"):
        if kind in types:
            value, fits = _read(kind, text)
            if fits:
                return value
    if options:
        raise EditError(
            name, f"{name} takes one of {', '.join(str(option) for option in options)}, not {text!r}."
        )
    if types:
        raise EditError(name, f"{name} takes {' or '.join(sorted(types))}, not {text!r}.")
    try:
        return cast("JsonValue", json.loads(text))
    except ValueError:
        return text


def check(arguments: Mapping[str, JsonValue], schema: Mapping[str, Any]) -> None:
    """Check all arguments. :raises EditError: for the first that the schema refuses, or where the schema
    itself can't be used."""
    if not schema:
        return
    try:
        Draft202012Validator.check_schema(schema)
        problem = next(
            iter(Draft202012Validator(schema, registry=Registry()).iter_errors(dict(arguments))), None
        )
    except (SchemaError, Unresolvable, RecursionError) as failure:
        raise EditError("", f"The tool's own schema can't be used: {one_line(str(failure))}") from failure
    if problem is not None:
        where = ".".join(str(part) for part in problem.absolute_path)
        raise EditError(where, f"{where + ': ' if where else ''}{one_line(problem.message)}")


def options_of(name: str, schema: Mapping[str, Any]) -> list[str]:
    """The values among which the argument ``name`` is chosen, as they are shown; none where it is free."""
    known = schema.get("properties", {})
    types, options = _wanted(known.get(name, {}) if isinstance(known, Mapping) else {}, schema)
    if not options and types == {"boolean"}:
        options = [True, False]
    if options and types - {"null"} and len(types - {"null"}) > 1:
        return []  # an enum beside other types does not list all that may be said
    return [shown(cast("JsonValue", option)) for option in options]


def _wanted(part: object, root: Mapping[str, Any], depth: int = 0) -> tuple[set[str], list[object]]:
    """Types and listed values that a part of the schema takes; references and alternatives are followed."""
    types: set[str] = set()
    options: list[object] = []
    if not isinstance(part, Mapping) or depth > _DEPTH:
        return types, options
    said = part.get("type")
    types |= {said} if isinstance(said, str) else set(said) if isinstance(said, list) else set()
    if "const" in part:
        options.append(part["const"])
    options += part.get("enum", [])
    reference = part.get("$ref")
    parts = [*part.get("anyOf", []), *part.get("oneOf", []), *part.get("allOf", [])]
    if isinstance(reference, str) and reference.startswith("#/"):
        target: object = root
        for key in reference[2:].split("/"):
            target = target.get(key) if isinstance(target, Mapping) else None
        parts.append(target)
    for inner in parts:
        more_types, more_options = _wanted(inner, root, depth + 1)
        types |= more_types
        options += more_options
    return types, options


def _read(kind: str, text: str) -> tuple[JsonValue, bool]:
    match kind:
        case "boolean":
            word = text.lower()
            return word in _TRUE, word in _TRUE or word in _FALSE
        case "integer":
            try:
                return int(text), True
            except ValueError:
                return None, False
        case "number":
            try:
                number = float(text)
            except ValueError:
                return None, False
            return number, number == number and abs(number) != float("inf")
        case "array" | "object":
            try:
                value = json.loads(text)
            except ValueError:
                return None, False
            return value, isinstance(value, list if kind == "array" else dict)
        case _:
            return text, True
