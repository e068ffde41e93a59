"""Cases to token ids with labels: what the reader is trained on.

A pair is a text (history and message) and one tool. The text's tokens are labelled with which of them ask for a call
of that tool, under which condition, and which express which parameter or option; ``train.py`` has the heads.
The input format is ``pairs.py``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fermata.agents.planner.reader.pairs import (
    ASKED_BEGIN,
    ASKED_INSIDE,
    CHECK,
    CONDITION,
    TAGS,
    EncodedText,
    EncodedTool,
)
from fermata.agents.planner.tools import Tool

NONE, CALL, MENTION, EITHER = range(4)


@dataclass
class Labels:
    """Labels of one text for one tool.

    ``kind`` is NONE, CALL, MENTION or EITHER; ``tags`` (tokens, TAGS) says what each token is for the tool; ``spans`` holds
    marker index -> the tokens that express it, ``present`` the markers that the text gives, and ``unknown`` those of them
    whose words are not on record.
    """

    kind: int = NONE
    tags: np.ndarray = field(default_factory=lambda: np.zeros((0, TAGS), np.uint8))
    spans: dict[int, set[int]] = field(default_factory=dict)
    present: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)


class LostQuotationError(ValueError):
    """Words that a case quotes do not stand in its message: a variant has changed one and not the other."""


def label(
    case: Mapping[str, Any], text: EncodedText, tools: Mapping[str, Tool], encoded: Mapping[str, EncodedTool]
) -> dict[str, Labels]:
    """Labels of `text` for each tool that the case speaks of; all other tools have none.

    :param tools: the domain's tools by name.
    :param encoded: the same ones as tokens.
    :raises LostQuotationError: the case quotes words that its message does not have.
    """
    out: dict[str, Labels] = {}

    def of(name: str) -> Labels:
        if name not in out:
            out[name] = Labels(tags=np.zeros((len(text.ids), TAGS), np.uint8))
        return out[name]

    for name in case.get("mentions", ()):
        of(name).kind = MENTION
    for name in case.get("either", ()):
        of(name).kind = EITHER
    taken: dict[str, list[tuple[int, int]]] = {}
    for call in case["calls"]:
        labels = of(call["t"])
        labels.kind = CALL
        start, end = _find(case["m"], call["q"], taken.setdefault(call["q"], []))
        taken[call["q"]].append((start, end))
        tokens = text.tokens_of_message(start, end)
        if call.get("check"):
            labels.tags[tokens, CHECK] = 1
        elif tokens:
            labels.tags[tokens, ASKED_INSIDE] = 1
            labels.tags[tokens[0], ASKED_BEGIN] = 1
        if call.get("if"):
            a, b = _find(case["m"], call["if"], [])
            labels.tags[text.tokens_of_message(a, b), CONDITION] = 1
        _label_args(call, (start, end), text, tools[call["t"]], encoded[call["t"]], labels)
    return out


def _label_args(
    call: Mapping[str, Any],
    q: tuple[int, int],
    text: EncodedText,
    tool: Tool,
    enc: EncodedTool,
    labels: Labels,
) -> None:
    for param in tool.params:
        marker = enc.params[param.name]
        if param.name not in call["a"]:
            continue
        labels.present.add(marker)
        values = call["a"][param.name]
        items = values if isinstance(values, list) else [values]
        said = call.get("s", {}).get(param.name)
        for value in items:
            if isinstance(value, dict):  # free text of which only a part is known
                labels.unknown.add(marker)
                continue
            words = [said] if said is not None else list(_spellings(value))
            tokens = text.locate(words, q)
            option = enc.options.get((param.name, _key(value)))
            if option is not None:
                labels.present.add(option)
                if tokens:
                    labels.spans.setdefault(option, set()).update(tokens)
            if tokens:
                labels.spans.setdefault(marker, set()).update(tokens)
            else:
                labels.unknown.add(marker)


def _key(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _spellings(value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        plain = f"{value:g}" if abs(value) < 1e6 else str(value)
        yield plain
        if float(value).is_integer() and abs(value) >= 1000:
            yield f"{int(value):,}"
        return
    yield str(value)
    spaced = re.sub(r"[_-]+", " ", str(value))
    if spaced != value:
        yield spaced


def _find(message: str, words: str, taken: list[tuple[int, int]]) -> tuple[int, int]:
    """Where `words` stand in the message: the first place that is not taken, at word borders if there is one."""
    places = [m.span() for m in re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", message)]
    places += [m.span() for m in re.finditer(re.escape(words), message)]
    if not places:
        raise LostQuotationError(f"{words!r} does not stand in {message!r}")
    free = [p for p in places if p not in taken]
    return (free or places)[0]
