"""A document's blocks: headings, paragraphs, lists, tables, code, each a range of lines.

Markdown is read by markdown-it-py (CommonMark and tables), of which only the block rules run. In plain text a
block is a paragraph, and one whose lines are numbered counts as steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from markdown_it import MarkdownIt
from markdown_it.token import Token

_NUMBERED = re.compile(r"^\s{0,3}(\d{1,9})[.)]\s")


class BlockKind(Enum):
    HEADING = "heading"
    STEPS = "steps"
    """A numbered list."""
    LIST = "list"
    TABLE = "table"
    CODE = "code"
    PROSE = "prose"


@dataclass(frozen=True)
class Block:
    """Lines ``first`` up to, not including, ``end``, counted from 0 in the list that was parsed."""

    kind: BlockKind
    first: int
    end: int
    seams: tuple[int, ...] = field(default=(), repr=False)
    """The lines before which it may be cut if it must be."""
    title: str = ""
    """Of a heading: its text."""
    level: int = 0
    """Of a heading: 1 to 6."""
    numbers: tuple[int, int] = (0, 0)
    """Of steps: the first number and the last."""


def markdown_blocks(lines: list[str]) -> list[Block]:
    """The top-level blocks of Markdown lines, in order. They leave out blank lines and link definitions
    only."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    tokens = parser.parse("\n".join(lines))
    return _join_steps([_block(tokens, place, token) for place, token in _top_level(tokens)])


def text_blocks(lines: list[str]) -> list[Block]:
    """The paragraphs of plain lines, in order."""
    blocks: list[Block] = []
    first: int | None = None
    for index, line in enumerate([*lines, ""]):
        if line.strip():
            first = index if first is None else first
        elif first is not None:
            blocks.append(_paragraph(lines, first, index))
            first = None
    return _join_steps(blocks)


def _top_level(tokens: list[Token]) -> Iterator[tuple[int, Token]]:
    for place, token in enumerate(tokens):
        if token.level == 0 and token.nesting >= 0 and token.map is not None:
            yield place, token


_KINDS = {
    "heading_open": BlockKind.HEADING,
    "ordered_list_open": BlockKind.STEPS,
    "bullet_list_open": BlockKind.LIST,
    "table_open": BlockKind.TABLE,
    "fence": BlockKind.CODE,
    "code_block": BlockKind.CODE,
}


def _block(tokens: list[Token], place: int, token: Token) -> Block:
    first, end = token.map or (0, 0)
    kind = _KINDS.get(token.type, BlockKind.PROSE)
    if kind is BlockKind.HEADING:
        title = re.sub(r"[*`]+", "", tokens[place + 1].content).strip()
        return Block(kind, first, end, title=" ".join(title.split()), level=int(token.tag[1:]))
    if kind in (BlockKind.STEPS, BlockKind.LIST):
        items = list(_items(tokens, place, token))
        start = int(token.attrs.get("start", 1))
        return Block(kind, first, end, seams=tuple(items), numbers=(start, start + len(items) - 1))
    if kind is BlockKind.TABLE:
        # The head and the rule under it stay with the first row.
        return Block(kind, first, end, seams=tuple(range(min(first + 3, end), end)))
    return Block(kind, first, end, seams=tuple(range(first, end)))


def _items(tokens: list[Token], place: int, opening: Token) -> Iterator[int]:
    for index in range(place + 1, len(tokens)):  # a slice would copy what is left, once for each list
        token = tokens[index]
        if token.level == opening.level and token.nesting < 0:
            return
        if token.type == "list_item_open" and token.level == opening.level + 1 and token.map is not None:
            yield token.map[0]


def _paragraph(lines: list[str], first: int, end: int) -> Block:
    numbered = [(index, match) for index in range(first, end) if (match := _NUMBERED.match(lines[index]))]
    if numbered and numbered[0][0] == first:
        seams = tuple(index for index, _ in numbered)
        numbers = (int(numbered[0][1][1]), int(numbered[-1][1][1]))
        return Block(BlockKind.STEPS, first, end, seams=seams, numbers=numbers)
    return Block(BlockKind.PROSE, first, end, seams=tuple(range(first, end)))


def _join_steps(blocks: list[Block]) -> list[Block]:
    """Make one block of steps that go on counting after a remark, a table or code between them."""
    joined: list[Block] = []
    run: list[Block] = []  # the lists that are one; the first of them lies in joined at run_at
    run_at = 0
    for block in blocks:
        if block.kind is BlockKind.STEPS and run and block.numbers[0] == run[-1].numbers[1] + 1:
            run.append(block)
            del joined[run_at + 1 :]
            continue
        if block.kind in (BlockKind.STEPS, BlockKind.HEADING):
            _close(joined, run, run_at)
            run, run_at = ([block], len(joined)) if block.kind is BlockKind.STEPS else ([], 0)
        joined.append(block)
    _close(joined, run, run_at)
    return joined


def _close(joined: list[Block], run: list[Block], run_at: int) -> None:
    if len(run) > 1:
        joined[run_at] = Block(
            BlockKind.STEPS,
            run[0].first,
            run[-1].end,
            seams=tuple(seam for block in run for seam in block.seams),
            numbers=(run[0].numbers[0], run[-1].numbers[1]),
        )
