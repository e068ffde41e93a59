"""Block Kit's pieces, each within Slack's limits whatever it is given.

Limits are those of https://docs.slack.dev/reference/block-kit/blocks and of the composition objects. They count characters; an
astral one counts as two here, so that no way of counting finds more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

Block = dict[str, Any]

MAX_BLOCKS = 50
MAX_VIEW_BLOCKS = 100
MAX_TEXT = 3000
MAX_FIELD = 2000
MAX_FIELDS = 10
MAX_HEADER = 150
MAX_BUTTON = 75
MAX_VALUE = 2000
MAX_TITLE = 24
MAX_ELEMENTS = 25
MAX_CONTEXT = 10
MAX_FALLBACK = 3500
"""Of a message's own text, which notifications show; Slack advises to stay below 4,000."""


def length(text: str) -> int:
    """Characters as Slack may count them: UTF-16 units."""
    return len(text) + sum(1 for character in text if ord(character) > 0xFFFF)


def cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters, with an ellipsis where something is missing."""
    if length(text) <= limit:
        return text
    kept = text[: limit - 1]
    while length(kept) > limit - 1:
        kept = kept[:-1]
    return kept + "…"


def pieces(text: str, limit: int = MAX_TEXT) -> list[str]:
    """``text`` in pieces of at most ``limit`` characters, split at lines where that is possible; nothing is lost but the line
    ends in between."""
    found: list[str] = []
    rest = text
    while length(rest) > limit:
        end = limit
        while length(rest[:end]) > limit:
            end -= 1
        line = rest.rfind("\n", 1, end)
        end = line if line > 0 else end
        found.append(rest[:end])
        rest = rest[end:].removeprefix("\n")
    return [*found, rest]


def escape(text: str) -> str:
    """Text for ``mrkdwn``: without mentions, links and entities of its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """A name for ``mrkdwn``, in the type of code, so that nothing in it formats."""
    return f"`{escape(text.replace('`', chr(0x2CB)))}`"


def plain(text: str, limit: int = MAX_TEXT) -> Block:
    """Text that Slack shows as it is."""
    # Slack refuses an empty text, and one of blanks alone.
    return {"type": "plain_text", "text": cut(text, limit) if text.strip() else "–", "emoji": False}


def mrkdwn(text: str, limit: int = MAX_TEXT) -> Block:
    """Text of ours with formatting; what is put into it must be escaped. Nothing in it becomes a link by itself."""
    return {"type": "mrkdwn", "text": cut(text, limit), "verbatim": True}


def section(text: Block, *, accessory: Block | None = None) -> Block:
    """A paragraph."""
    return {"type": "section", "text": text} | ({"accessory": accessory} if accessory else {})


def prose(text: str, *, most: int = MAX_BLOCKS) -> list[Block]:
    """Untrusted text as paragraphs, at the most so many."""
    parts = pieces(text)
    if len(parts) > most:
        parts = [*parts[: most - 1], cut(parts[most - 1] + "…", MAX_TEXT)]
    return [section(plain(part)) for part in parts]


def fields(pairs: Iterable[tuple[str, str]]) -> list[Block]:
    """Names and values side by side, as plain text; a value may be cut."""
    texts = [plain(f"{name}: {value}", MAX_FIELD) for name, value in pairs]
    return [
        {"type": "section", "fields": texts[start : start + MAX_FIELDS]}
        for start in range(0, len(texts), MAX_FIELDS)
    ]


def header(text: str) -> Block:
    """A headline."""
    return {"type": "header", "text": plain(text, MAX_HEADER)}


def context(*texts: Block) -> Block:
    """Small print."""
    return {"type": "context", "elements": list(texts[:MAX_CONTEXT])}


def divider() -> Block:
    """A line."""
    return {"type": "divider"}


def button(label: str, action: str, value: str, *, style: str = "", confirm: Block | None = None) -> Block:
    """A button. ``value`` comes back with the click."""
    found: Block = {
        "type": "button",
        "text": plain(label, MAX_BUTTON),
        "action_id": action,
        "value": cut(value, MAX_VALUE),
    }
    if style:
        found["style"] = style
    if confirm:
        found["confirm"] = confirm
    return found


def confirm(title: str, text: str, yes: str) -> Block:
    """What a button asks before it counts."""
    return {
        "title": plain(title, 100),
        "text": plain(text, 300),
        "confirm": plain(yes, 30),
        "deny": plain("No", 30),
        "style": "danger",
    }


def actions(buttons: Sequence[Block]) -> Block:
    """A row of buttons."""
    return {"type": "actions", "elements": list(buttons[:MAX_ELEMENTS])}


def until(seconds: float) -> str:
    """A moment (seconds since 1970) for ``mrkdwn``, in each reader's own time zone."""
    plainly = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"<!date^{int(seconds)}^{{time_secs}}|{plainly}>"


def of_message(blocks: list[Block]) -> list[Block]:
    """What a message may hold; the last block stays, for that is where the buttons are."""
    if len(blocks) <= MAX_BLOCKS:
        return blocks
    return [*blocks[: MAX_BLOCKS - 2], context(plain("… more than a message can hold.")), blocks[-1]]
