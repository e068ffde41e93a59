"""Untrusted text, made harmless.

Terminals obey escape sequences; people are misled by characters that they cannot see or that turn the
direction of writing. Prose loses such characters (``clean``). What a person is asked to approve shows them
instead (``exposed``): to hide a part of it would be to approve something else.
"""

from __future__ import annotations

import json
import re
import unicodedata

from fermata.client.names import last_part
from fermata.client.values import JsonValue

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"  # all other escapes
)
_LINE_ENDS = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_JOINERS = frozenset("\u200c\u200d")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_INVISIBLE_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")
"""Letters by category that have no shape."""
MAX_MARKS = 4
"""Combining marks on one character; more of them draw over other lines."""


def clean(text: str) -> str:
    """``text`` without escape sequences, control and invisible characters; lines and tabs stay."""
    text = _ESCAPES.sub("", _LINE_ENDS.sub("\n", text))
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if character in "\n\t" or (not _is_hidden(character) and marks <= MAX_MARKS):
            kept.append(character)
    return "".join(kept)


def exposed(text: str) -> str:
    """``text`` with every control or invisible character written out as ``\\u{...}``; line ends and tabs
    too."""
    return "".join(
        f"\\u{{{ord(character):x}}}" if _is_hidden(character, strict=True) else character
        for character in text
    )


def one_line(text: str, limit: int = 160) -> str:
    """``text`` cleaned, as one line of at most ``limit`` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def short_name(name: str) -> str:
    """The ID at the end of a resource name, cleaned."""
    return one_line(last_part(name), 80)


def shown(value: JsonValue) -> str:
    """A JSON value as a person reads it: a text in quotes only where it would be taken for something else."""
    if isinstance(value, str):
        plain = value != "" and value == value.strip() and not _reads_as_other(value)
        return exposed(value) if plain else exposed(json.dumps(value, ensure_ascii=False))
    return exposed(json.dumps(value, ensure_ascii=False))


def _reads_as_other(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return text.startswith(('"', "{", "["))
    return True


def _is_hidden(character: str, *, strict: bool = False) -> bool:
    if character in _JOINERS:
        return strict
    return (
        unicodedata.category(character) in _HIDDEN_CATEGORIES
        or character in "\u2028\u2029"
        or character in _INVISIBLE_LETTERS
        or 0xFE00 <= ord(character) <= 0xFE0E
        or 0xE0100 <= ord(character) <= 0xE01EF
    )
