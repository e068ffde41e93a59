"""From the bytes of a document to its text, its front matter and what it says it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from fermata.server.knowledge.errors import (
    DocumentEmptyError,
    DocumentMalformedError,
    DocumentNotTextError,
    DocumentTooLargeError,
    DocumentTypeUnsupportedError,
    SourceInvalidError,
)

MARKDOWN_SUFFIXES = (".md", ".markdown")
TEXT_SUFFIXES = (".txt", ".text")

MAX_DOCUMENT_BYTES = 2_000_000
"""About 700 pages: parsed in seconds, and it fits a gRPC message of default size."""
MAX_FRONT_MATTER_LINES = 200
MAX_SOURCE_CHARACTERS = 512
_FENCE = "---"


@dataclass(frozen=True)
class SourceText:
    """A document as text, before it is chunked."""

    source: str
    """Where it came from, such as a relative path; names it within its collection."""
    digest: str
    """SHA-256 of its bytes, in hex."""
    markdown: bool
    lines: list[str] = field(repr=False)
    """All of its lines without their ends, front matter included; line numbers count from 1."""
    body_start: int
    """How many of the lines are front matter."""
    metadata: Mapping[str, Any]
    """The front matter; empty where there is none."""

    @property
    def kind(self) -> str:
        """``runbook``, ``manual``, whatever else the front matter says, or empty."""
        return str(self.metadata.get("kind") or "")


def read_source(source: str, content: bytes) -> SourceText:
    """Decode a document and read its front matter.

    :raises SourceInvalidError: the source is empty, too long, or has characters that a citation can't carry.
    :raises DocumentTooLargeError: more than ``MAX_DOCUMENT_BYTES``.
    :raises DocumentTypeUnsupportedError: by its suffix neither Markdown nor plain text.
    :raises DocumentNotTextError: not UTF-8, or with NUL characters.
    :raises DocumentMalformedError: front matter that isn't closed, or isn't a YAML mapping.
    :raises DocumentEmptyError: no text, or none beside the front matter.
    """
    _check_source(source)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise DocumentTooLargeError(source, len(content), MAX_DOCUMENT_BYTES)
    suffix = PurePosixPath(source).suffix.lower()
    if suffix not in MARKDOWN_SUFFIXES + TEXT_SUFFIXES:
        raise DocumentTypeUnsupportedError(source, suffix, MARKDOWN_SUFFIXES + TEXT_SUFFIXES)
    lines = _decode(source, content).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    metadata, body_start = _front_matter(source, lines)
    if not any(line.strip() for line in lines[body_start:]):
        raise DocumentEmptyError(source)
    return SourceText(
        source=source,
        digest=hashlib.sha256(content).hexdigest(),
        markdown=suffix in MARKDOWN_SUFFIXES,
        lines=lines,
        body_start=body_start,
        metadata=metadata,
    )


def _check_source(source: str) -> None:
    if not source or len(source) > MAX_SOURCE_CHARACTERS:
        raise SourceInvalidError(source, f"a source has 1 to {MAX_SOURCE_CHARACTERS} characters.")
    if not source.isprintable() or any(character in '<>"' for character in source):
        raise SourceInvalidError(source, 'a source has printable characters only, and none of <, > and ".')


def _decode(source: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentNotTextError(source, error.start) from error
    nul = content.find(b"\0")
    if nul >= 0:
        raise DocumentNotTextError(source, nul)
    return text


def _front_matter(source: str, lines: list[str]) -> tuple[dict[str, Any], int]:
    """(mapping, number of lines that it takes, fences included); nothing and 0 where the document has
    none."""
    if lines[0].rstrip() != _FENCE:
        return {}, 0
    closing = (
        index
        for index, line in enumerate(lines[: MAX_FRONT_MATTER_LINES + 1])
        if index and line.rstrip() == _FENCE
    )
    end = next(closing, None)
    if end is None:
        limit = MAX_FRONT_MATTER_LINES
        problem = f"the front matter that begins here is not closed by {_FENCE} within {limit} lines."
        raise DocumentMalformedError(source, 1, problem)
    try:
        metadata = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.MarkedYAMLError as error:
        line_in_yaml = error.problem_mark.line if error.problem_mark is not None else 0
        raise DocumentMalformedError(
            source, line_in_yaml + 2, f"the front matter is not YAML: {error.problem}."
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise DocumentMalformedError(source, 2, f"the front matter is not YAML: {error}.") from error
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise DocumentMalformedError(source, 2, "the front matter must be a mapping (key: value).")
    for key in ("kind", "title"):
        if not isinstance(metadata.get(key, ""), str):
            raise DocumentMalformedError(source, 2, f"{key!r} in the front matter must be text.")
    return metadata, end + 1
