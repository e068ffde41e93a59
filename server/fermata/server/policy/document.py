"""A strict reading of YAML: mappings, lists and scalars with their positions, and nothing else.

Built on the parser's events instead of on its loader, because what a loader does for convenience is what a
policy must not have: anchors and aliases (they expand), tags (they build objects), merge keys, a second value
for a key (it would win silently), a second document, and ``yes`` or ``1_000`` turned into something that the
author didn't write. Scalars stay text; the reader of a field decides what it has to be. Positions count from
1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

DEPTH_LIMIT = 16
"""Collections inside of each other; a policy needs five."""

# The C parser is 15 times as fast; both give the same events and errors.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(ValueError):
    """The text is not YAML, or uses what is refused here. Says where, and how to mend it."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text as written, without its quotes. ``style`` is None for a plain one, else ``'``, ``"``, ``|`` or
    ``>``.
    """

    text: str
    style: str | None
    line: int
    column: int

    @property
    def is_null(self) -> bool:
        return self.style is None and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Mapping:
    entries: dict[str, tuple[Scalar, Node]]
    """By key: the key itself, for its position, and the value."""
    line: int
    column: int


Node: TypeAlias = Scalar | Sequence | Mapping


def read_document(text: str) -> Node | None:
    """The one document in ``text``, or None if it holds none.

    :raises DocumentError: see the module.
    """
    try:
        return _read(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise DocumentError(
            f"this is not YAML: {what}. Check indentation, quotes and brackets there", line, column
        ) from error
    except yaml.YAMLError as error:
        what = str(error).splitlines()[0]
        raise DocumentError(f"this is not YAML: {what}. Remove control characters", 1, 1) from error


def _read(events: Iterator[Any]) -> Node | None:
    root: Node | None = None
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _refused(event, "a second document starts here; keep one policy in a file")
        elif isinstance(event, yaml.NodeEvent):
            root = _node(event, events, depth=0)
    return root


def _node(event: Any, events: Iterator[Any], depth: int) -> Node:
    line, column = event.start_mark.line + 1, event.start_mark.column + 1
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise _refused(
            event, "anchors and aliases (& and *) are not allowed; write the value out, or quote a text"
        )
    if event.tag is not None:
        raise _refused(
            event, f"the tag {event.tag!r} is not allowed; remove it, or quote a text that starts with !"
        )
    if isinstance(event, yaml.ScalarEvent):
        return Scalar(event.value, event.style or None, line, column)
    if depth >= DEPTH_LIMIT:
        raise _refused(event, f"this is nested more than {DEPTH_LIMIT} deep")
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Node] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events, depth + 1))
        return Sequence(tuple(items), line, column)
    entries: dict[str, tuple[Scalar, Node]] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _node(event, events, depth + 1)
        if not isinstance(key, Scalar):
            raise _refused(event, "a key has to be a plain text")
        value = _node(next(events), events, depth + 1)
        if key.text in entries:
            first = entries[key.text][0].line
            raise _refused(
                event,
                f"the key {key.text!r} stands here for the second time (first in line {first}); keep one",
            )
        entries[key.text] = (key, value)
    return Mapping(entries, line, column)


def _refused(event: Any, message: str) -> DocumentError:
    return DocumentError(message, event.start_mark.line + 1, event.start_mark.column + 1)
