"""Reading one value of a policy, or saying where it is, what is wrong with it and how to mend it.

Each function takes a node and its path, such as ``rules[2].when``, and returns the value or raises a
:class:`PolicyError`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from enum import StrEnum
from typing import TypeVar

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.policy.document import Mapping, Node, Scalar, Sequence

VALID_FOR_LIMIT_SECONDS = 30 * 24 * 3600
"""The longest that a question may stand: 30 days."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DURATION = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")
_StrEnum = TypeVar("_StrEnum", bound=StrEnum)


class PolicyError(DomainError, ValueError):
    """A text that is no policy.

    :param message: what is wrong and how to mend it, without the position.
    :param line: where, from 1. ``column`` as well.
    :param path: which part, such as ``rules[2].when``; empty for the whole text.
    """

    def __init__(self, message: str, line: int = 1, column: int = 1, path: str = "") -> None:
        place = f"line {line}, column {column}" + (f" ({path})" if path else "")
        end = "" if message.endswith("?") else "."
        super().__init__(
            f"The policy can't be read at {place}: {message}{end}",
            reason="POLICY_MALFORMED",
            kind=ErrorKind.INVALID_ARGUMENT,
            line=str(line),
            column=str(column),
            path=path,
        )
        self.line = line
        self.column = column
        self.path = path


def fields_of(
    node: Node, path: str, *, required: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, Node]:
    """A mapping's values by key: all of ``required``, any of ``optional``, nothing else."""
    if not isinstance(node, Mapping):
        what = "nothing" if isinstance(node, Scalar) and node.is_null else kind_of(node)
        known = ", ".join((*required, *optional))
        raise error_at(node, path, f"keys and values are expected here ({known}), not {what}")
    known_keys = (*required, *optional)
    fields: dict[str, Node] = {}
    for key, (key_node, value) in node.entries.items():
        if key not in known_keys:
            hint = did_you_mean(key, known_keys)
            where = f"{path}.{key}" if path else key
            raise error_at(
                key_node,
                where,
                f"the key {key!r} is not known here; there are {', '.join(known_keys)}{hint}",
            )
        fields[key] = value
    for key in required:
        if key not in fields:
            raise error_at(node, path, f"the key {key!r} is missing; add it")
    return fields


def text_of(node: Node, path: str, limit: int | None) -> str:
    """A text that is not blank, stripped, and written with at most ``limit`` characters."""
    if not isinstance(node, Scalar):
        raise error_at(
            node, path, f"a text is expected, not {kind_of(node)}; quote it if it contains {{ or ["
        )
    if node.is_null or not node.text.strip():
        raise error_at(node, path, "a text is expected, and there is none; write one, or remove the key")
    if limit is not None and len(node.text) > limit:
        raise error_at(node, path, f"it has {len(node.text)} characters; the limit is {limit}")
    return node.text.strip()


def id_of(node: Node, path: str) -> str:
    """A rule's id. It has no colon, so that none looks like a default rule."""
    text = text_of(node, path, None)
    if not _ID.fullmatch(text):
        raise error_at(
            node,
            path,
            f"{text[:80]!r} is no id; use 1 to 64 letters, digits, dots, dashes and underscores",
        )
    return text


def choice_of(node: Node, path: str, choices: type[_StrEnum]) -> _StrEnum:
    """One of ``choices``, exactly as it is written there."""
    text = text_of(node, path, None)
    known = [choice.value for choice in choices]
    if text not in known:
        raise error_at(node, path, f"{text[:80]!r} is none of {', '.join(known)}{did_you_mean(text, known)}")
    return choices(text)


def integer_of(node: Node, path: str, least: int, most: int) -> int:
    """A whole number in digits, from ``least`` to ``most``."""
    text = text_of(node, path, None)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise error_at(node, path, f"{text[:80]!r} is no whole number from {least} to {most}")
    return int(text)


def boolean_of(node: Node, path: str) -> bool:
    """``true`` or ``false``; YAML's other words for them are refused."""
    text = text_of(node, path, None)
    if text not in ("true", "false"):
        raise error_at(node, path, f"{text[:80]!r} is neither true nor false; write one of these")
    return text == "true"


def duration_of(node: Node, path: str) -> int:
    """Seconds, written such as ``90s``, ``15m`` or ``1h30m``."""
    text = text_of(node, path, None)
    found = _DURATION.fullmatch(text)
    parts = [int(part or 0) for part in found.groups()] if found else []
    seconds = sum(n * unit for n, unit in zip(parts, (86400, 3600, 60, 1), strict=True)) if parts else 0
    if not 1 <= seconds <= VALID_FOR_LIMIT_SECONDS:
        raise error_at(
            node,
            path,
            f"{text[:80]!r} is no duration from 1s to 30d; write it as 90s, 15m, 2h, 1d or 1h30m",
        )
    return seconds


def error_at(node: Node, path: str, message: str) -> PolicyError:
    """The error for ``node``, which is where the mistake is."""
    return PolicyError(message, node.line, node.column, path)


def kind_of(node: Node) -> str:
    """What ``node`` is, in words for people."""
    if isinstance(node, Scalar):
        return f"the text {node.text[:40]!r}"
    return "a list" if isinstance(node, Sequence) else "keys and values"


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A hint at the name that was probably meant, for the end of a message; may be empty."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower()[:80], by_lower, n=1, cutoff=0.5)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
