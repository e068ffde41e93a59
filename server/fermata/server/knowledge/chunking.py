"""A document in chunks, each a range of its lines under one heading.

Blocks under one heading share a chunk up to ``TARGET_CHARACTERS``, which is about what the embedding model
reads. A longer paragraph, list, table or piece of code is cut at its lines, items and rows. **The numbered
steps of one list stay whole**, up to ``MAX_STEPS_CHARACTERS``, beyond which they are cut between two steps:
half a procedure is worse than a long chunk. Every line that isn't blank is in exactly one chunk; only a
single line beyond ``MAX_STEPS_CHARACTERS`` is cut within.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fermata.server.knowledge.blocks import Block, BlockKind, markdown_blocks, text_blocks
from fermata.server.knowledge.documents import SourceText, read_source
from fermata.server.knowledge.errors import RunbookMalformedError

TARGET_CHARACTERS = 1_000
MAX_STEPS_CHARACTERS = 16_000
MAX_HEADING_CHARACTERS = 300
MAX_LEAD_IN_CHARACTERS = 400
HEADING_SEPARATOR = " > "
RUNBOOK = "runbook"


@dataclass(frozen=True)
class Chunk:
    """Lines ``first_line`` to ``last_line`` of a document, counted from 1."""

    id: str
    """The same for the same text under the same heading of the same source, wherever it stands."""
    source: str
    heading: str
    """The headings above it, outermost first: ``A > B``. Empty before the first."""
    first_line: int
    last_line: int
    text: str
    steps: bool
    """Whether it holds a numbered list."""


@dataclass(frozen=True)
class Document:
    """A document that was read and cut."""

    source: str
    digest: str
    title: str
    kind: str
    metadata: Mapping[str, Any]
    chunks: tuple[Chunk, ...]

    def text_to_embed(self, chunk: Chunk) -> str:
        """What a chunk is found by: the headings that it stands under, and its text."""
        return f"{chunk.heading or self.title}\n{chunk.text}"


def read_document(source: str, content: bytes) -> Document:
    """Read and cut a document. Its suffix says what it is; ``documents.read_source`` says what it refuses.

    :raises RunbookMalformedError: the front matter says ``kind: runbook``, and there are no numbered steps.
    """
    text = read_source(source, content)
    body = text.lines[text.body_start :]
    blocks = markdown_blocks(body) if text.markdown else text_blocks(body)
    if text.kind == RUNBOOK and not any(block.kind is BlockKind.STEPS for block in blocks):
        raise RunbookMalformedError(
            source,
            text.body_start + 1,
            "a runbook needs numbered steps (1. …), and there are none below this line.",
        )
    headings = [block.title for block in blocks if block.kind is BlockKind.HEADING and block.title]
    title = str(text.metadata.get("title") or "") or next(iter(headings), PurePosixPath(source).stem)
    return Document(
        source=source,
        digest=text.digest,
        title=_short(title, MAX_HEADING_CHARACTERS),
        kind=text.kind,
        metadata=text.metadata,
        chunks=tuple(_chunks(text, body, blocks)),
    )


@dataclass(frozen=True)
class _Piece:
    """Part of a chunk: whole lines, or a part of one line where ``text`` is given."""

    first: int
    end: int
    steps: bool
    size: int
    announces: bool
    """Whether it is a heading or leads in to what follows."""
    text: str | None = None


def _chunks(source: SourceText, body: list[str], blocks: list[Block]) -> Iterator[Chunk]:
    seen: dict[str, int] = {}
    for path, section in _sections(_cover(body, blocks)):
        heading = _short(HEADING_SEPARATOR.join(path), MAX_HEADING_CHARACTERS)
        for group in _pack(body, section):
            first, end = _trim(body, group[0].first, group[-1].end)
            text = group[0].text if group[0].text is not None else "\n".join(body[first:end])
            key = _digest(source.source, heading, text)
            seen[key] = seen.get(key, 0) + 1
            yield Chunk(
                id=key if seen[key] == 1 else _digest(key, str(seen[key])),
                source=source.source,
                heading=heading,
                first_line=source.body_start + first + 1,
                last_line=source.body_start + end,
                text=text,
                steps=any(piece.steps for piece in group),
            )


def _cover(body: list[str], blocks: list[Block]) -> list[Block]:
    """The blocks, with prose for every line that isn't blank and that no block has (link definitions)."""
    covered: list[Block] = []
    position = 0
    for block in [*blocks, Block(BlockKind.PROSE, len(body), len(body))]:
        if any(line.strip() for line in body[position : block.first]):
            covered.append(
                Block(BlockKind.PROSE, position, block.first, seams=tuple(range(position, block.first)))
            )
        if block.end > block.first:
            covered.append(block)
        position = max(position, block.end)
    return covered


def _sections(blocks: list[Block]) -> Iterator[tuple[list[str], list[Block]]]:
    """(heading path, blocks) for each heading that has something below it before the next. Headings that have
    nothing stay with what follows."""
    path: list[tuple[int, str]] = []
    section: list[Block] = []
    for block in blocks:
        if block.kind is BlockKind.HEADING:
            # Seen from the end: a section is headings first, then what stands under them.
            if section and section[-1].kind is not BlockKind.HEADING:
                yield [title for _, title in path], section
                section = []
            path = [(level, title) for level, title in path if level < block.level]
            if block.title:
                path.append((block.level, block.title))
        section.append(block)
    if section:
        yield [title for _, title in path], section


def _pack(body: list[str], section: list[Block]) -> Iterator[list[_Piece]]:
    """The section's pieces, together up to the target. What announces goes with what follows."""
    group: list[_Piece] = []
    size = 0
    for piece in (piece for block in section for piece in _pieces(body, block)):
        if group and (piece.text is not None or size + piece.size > TARGET_CHARACTERS):
            kept = _announcing(group) if piece.text is None else 0
            if kept < len(group):
                yield group[: len(group) - kept]
                group = group[len(group) - kept :]
                size = sum(other.size for other in group)
        if piece.text is not None:
            yield [piece]
            continue
        group.append(piece)
        size += piece.size
    if group:
        yield group


def _announcing(group: list[_Piece]) -> int:
    """How many pieces at the end of the group belong to what follows."""
    count = size = 0
    for piece in reversed(group):
        size += piece.size
        if not piece.announces or size > MAX_LEAD_IN_CHARACTERS:
            break
        count += 1
    return count


def _pieces(body: list[str], block: Block) -> Iterator[_Piece]:
    """The block in pieces within its limit, cut at its seams, within those at lines, and within lines at
    blanks."""
    steps = block.kind is BlockKind.STEPS
    limit = MAX_STEPS_CHARACTERS if steps else TARGET_CHARACTERS
    announces = block.kind is BlockKind.HEADING or _is_lead_in(body, block)
    for first, end in _fit(body, block.first, block.end, block.seams, limit):
        for start, stop in _fit(body, first, end, range(first, end), limit):
            if not any(line.strip() for line in body[start:stop]):
                continue
            size = _size(body, start, stop)
            if stop - start > 1 or size <= MAX_STEPS_CHARACTERS:
                yield _Piece(start, stop, steps, size, announces)
                continue
            for text in _split_line(body[start]):
                yield _Piece(start, stop, steps, len(text), False, text)


def _is_lead_in(body: list[str], block: Block) -> bool:
    """Whether it is a short paragraph that ends in a colon."""
    text = "\n".join(body[block.first : block.end]).rstrip()
    return block.kind is BlockKind.PROSE and len(text) <= MAX_LEAD_IN_CHARACTERS and text.endswith(":")


def _fit(
    body: list[str], first: int, end: int, seams: Sequence[int], limit: int
) -> Iterator[tuple[int, int]]:
    """Ranges of at most ``limit`` characters where the seams allow it."""
    start = cut = first
    size = 0  # of the lines from start to cut
    for seam in [*(seam for seam in seams if first < seam < end), end]:
        more = _size(body, cut, seam)
        if cut > start and size + more > limit:
            yield start, cut
            start, size = cut, 0
        cut = seam
        size += more
    if end > start:
        yield start, end


def _size(body: list[str], first: int, end: int) -> int:
    return sum(len(line) + 1 for line in body[first:end])


def _split_line(line: str) -> Iterator[str]:
    while len(line) > MAX_STEPS_CHARACTERS:
        cut = line.rfind(" ", 1, MAX_STEPS_CHARACTERS)
        cut = cut if cut > 0 else MAX_STEPS_CHARACTERS
        if line[:cut].strip():
            yield line[:cut]
        line = line[cut:]
    if line.strip():
        yield line


def _trim(body: list[str], first: int, end: int) -> tuple[int, int]:
    """Without the blank lines at either end."""
    while not body[first].strip():
        first += 1
    while not body[end - 1].strip():
        end -= 1
    return first, end


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
