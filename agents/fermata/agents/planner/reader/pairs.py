"""What the reader model is shown: a text (history and message) and one tool, as token ids with markers.

``[CLS] history, message [SEP] tool, its parameters and their options [SEP]``. Markers are tokens that the vocabulary
keeps unused; the state of a parameter's or option's marker is what is compared with each word of the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import Tokenizer

from fermata.agents.planner.tools import Param, Tool

CLS, SEP = 101, 102
MESSAGE, HUMAN, ASSISTANT, DID, REQUIRED, OPTIONAL, OPTION, READS, ACTS = range(1, 10)
"""Markers: ids of the vocabulary's unused tokens."""

ASKED_BEGIN, ASKED_INSIDE, CONDITION, CHECK = range(4)
TAGS: Final = 4
"""What a token of the text can be for a tool: it begins or belongs to the words that ask for a call of it, to the
condition of that call, or to a condition that the tool could check."""

MAX_TEXT_TOKENS: Final = 160
MAX_TOOL_TOKENS: Final = 200
MAX_HISTORY_TOKENS: Final = 72
_MAX_OPTIONS: Final = 24
_DESCRIPTION_TOKENS: Final = 32
_PARAM_TOKENS: Final = 22
_OPTION_TOKENS: Final = 6


@dataclass(frozen=True, slots=True)
class Said:
    """One item of the history: ``who`` is "human", "ai" or "did" (a call, written as words)."""

    who: str
    text: str


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids of a text. ``pieces`` are its texts (history first, the message last); ``spans`` holds, of each
    token, the index of its piece and its characters there (-1, 0, 0 for markers)."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    spans: tuple[tuple[int, int, int], ...]

    @property
    def message(self) -> str:
        return self.pieces[-1]

    def tokens_of(self, piece: int, start: int, end: int) -> list[int]:
        """Indices of the tokens that touch the characters [start, end) of a piece."""
        return [i for i, (p, a, b) in enumerate(self.spans) if p == piece and a < end and start < b]

    def tokens_of_message(self, start: int, end: int) -> list[int]:
        return self.tokens_of(len(self.pieces) - 1, start, end)

    def locate(self, words: Sequence[str], near: tuple[int, int]) -> list[int]:
        """Tokens of the first of `words` that stands in the part `near` of the message, else in the message, else
        in the history from its end; [] if none does."""
        last = len(self.pieces) - 1
        for said in words:
            pattern = re.compile(rf"(?<![\w.]){re.escape(said)}(?!\w)", re.IGNORECASE)
            found = pattern.search(self.message, *near) or pattern.search(self.message)
            if found:
                return self.tokens_of(last, *found.span())
        for piece in range(last - 1, -1, -1):
            for said in words:
                places = list(
                    re.finditer(rf"(?<!\w){re.escape(said)}(?!\w)", self.pieces[piece], re.IGNORECASE)
                )
                if places:
                    return self.tokens_of(piece, *places[-1].span())
        for said in words:
            at = self.message.lower().find(said.lower())
            if at >= 0:
                return self.tokens_of(last, at, at + len(said))
        return []


@dataclass(frozen=True, slots=True)
class EncodedTool:
    """Token ids of a tool and where its markers are: parameter name -> index, (parameter name, option) -> index."""

    ids: tuple[int, ...]
    params: Mapping[str, int]
    options: Mapping[tuple[str, str], int]
    order: Mapping[int, int]
    """Marker index -> its row in a reading."""

    @property
    def markers(self) -> tuple[int, ...]:
        return tuple(self.order)


class Encoder:
    """Turns texts and tools into token ids.

    :param tokenizer: the embedding model's; the reader is made of the same model.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def text(self, history: Sequence[Said], message: str) -> EncodedText:
        """The message with as much of its history, newest kept, as there is room for."""
        parts: list[tuple[int, str, list[int], list[tuple[int, int]]]] = []
        room = MAX_HISTORY_TOKENS
        for said in reversed(history):
            ids, offsets = self._tokens(said.text, room - 1)
            if room < 4:
                break
            marker = {"human": HUMAN, "ai": ASSISTANT}.get(said.who, DID)
            parts.insert(0, (marker, said.text, ids, offsets))
            room -= len(ids) + 1
        ids, offsets = self._tokens(message, MAX_TEXT_TOKENS - 1)
        parts.append((MESSAGE, message, ids, offsets))
        out: list[int] = []
        spans: list[tuple[int, int, int]] = []
        for piece, (marker, _, ids, offsets) in enumerate(parts):
            out.append(marker)
            spans.append((-1, 0, 0))
            out.extend(ids)
            spans.extend((piece, a, b) for a, b in offsets)
        return EncodedText(tuple(out), tuple(text for _, text, _, _ in parts), tuple(spans))

    def tool(self, tool: Tool) -> EncodedTool:
        """The tool's name, description, parameters and their options."""
        ids = [READS if tool.reads else ACTS, *self._tokens(tool.text, _DESCRIPTION_TOKENS)[0]]
        params: dict[str, int] = {}
        options: dict[tuple[str, str], int] = {}
        for param in tool.params:
            params[param.name] = len(ids)
            ids.append(REQUIRED if param.required else OPTIONAL)
            said = f"{' '.join(param.words)}: {param.description or _kind(param)}"
            ids.extend(self._tokens(said, _PARAM_TOKENS)[0])
            for option in options_of(param)[:_MAX_OPTIONS]:
                options[param.name, option] = len(ids)
                ids.append(OPTION)
                ids.extend(self._tokens(re.sub(r"[_-]+", " ", option), _OPTION_TOKENS)[0])
        kept = sorted(m for m in (*params.values(), *options.values()) if m < MAX_TOOL_TOKENS)
        order = {marker: row for row, marker in enumerate(kept)}
        return EncodedTool(tuple(ids[:MAX_TOOL_TOKENS]), params, options, order)

    def _tokens(self, text: str, limit: int) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids[:limit], encoding.offsets[:limit]


def options_of(param: Param) -> list[str]:
    """What a parameter can be, if that is listed: its enumeration's values, or yes and no."""
    if param.kind == "boolean":
        return ["yes", "no"]
    if param.kind == "array":
        return [str(v) for v in param.item.options]
    return [str(v) for v in param.options] if param.kind == "enum" else []


def said_call(title: str, args: Mapping[str, Any]) -> str:
    """A call that was made, in words, for the history."""
    return f"{title}: " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in args.items())


def _kind(param: Param) -> str:
    return {"number": "number", "boolean": "yes or no", "text": "text"}.get(param.kind, param.kind)
