"""Passages as text: marked so that a model can cite them, and escaped so that a document can't pretend to be anything else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document

_CITED = re.compile(r"\[(\d{1,3})\]")
_TAG = re.compile(r"<(?=/?\s*passage\b)", re.IGNORECASE)


def as_system_text(documents: Sequence[Document]) -> str:
    """The documents as ``<passage>`` blocks, numbered from 1, for a system message.

    A document's text can't close its block or open another one: the ``<`` of anything that looks like a passage tag is escaped.
    """
    blocks = []
    for number, document in enumerate(documents, start=1):
        facts = document.metadata
        attributes = {
            "id": number,
            "source": facts.get("source", ""),
            "heading": facts.get("heading", ""),
            "line": facts.get("line", 0),
            "kind": facts.get("kind", ""),
        }
        tag = " ".join(f'{name}="{_quoted(str(value))}"' for name, value in attributes.items())
        blocks.append(f"<passage {tag}>\n{_TAG.sub('&lt;', document.page_content)}\n</passage>")
    return "\n".join(blocks)


def citations(answer: str, documents: Sequence[Document]) -> list[dict[str, Any]]:
    """What an answer cites, in order of first mention: id, source, heading and line of each passage whose ``[id]`` is in it."""
    cited: dict[int, dict[str, Any]] = {}
    for match in _CITED.finditer(answer):
        number = int(match[1])
        if 1 <= number <= len(documents) and number not in cited:
            facts = documents[number - 1].metadata
            cited[number] = {
                "id": str(number),
                "source": facts.get("source", ""),
                "heading": facts.get("heading", ""),
                "line": facts.get("line", 0),
            }
    return list(cited.values())


def _quoted(value: str) -> str:
    """An attribute's value that can't end its quotes or its tag's line; everything else stays as people read it."""
    return " ".join(value.replace('"', "'").replace("<", "(").split())
