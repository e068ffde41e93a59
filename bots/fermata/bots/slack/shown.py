"""A message as it should be: what the bot wants Slack to show under a subject."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from .blocks import MAX_FALLBACK, Block, cut, of_message

MARK_LENGTH = 16
PEOPLE = 1
"""Priority of what a person waits for: a question, or the sign that they were heard."""
STOPPING = 2
"""Priority of a hold or halt."""
_MARKER = "fermata."


@dataclass(frozen=True, slots=True)
class Shown:
    """One message.

    :param subject: the resource name of what it shows; one message each in a place.
    :param text: for notifications and for clients without blocks; of ours, or escaped.
    :param digest: of the arguments that it shows.
    :param is_final: True where it will not change any more.
    :param priority: what is greater goes first; above 0 it is urgent, and may run a little ahead of the pace.
    """

    subject: str
    text: str
    blocks: list[Block] = field(hash=False)
    digest: str = ""
    is_final: bool = False
    priority: int = 0

    @property
    def marked(self) -> list[Block]:
        """The blocks, the first of which carries the marker by which the message is found again."""
        first, *rest = of_message(self.blocks)
        return [{**first, "block_id": marker_of(self.subject)}, *rest]

    @property
    def fallback(self) -> str:
        """The text, within what Slack advises."""
        return cut(self.text, MAX_FALLBACK) if self.text.strip() else "–"

    @property
    def mark(self) -> str:
        """The same for two messages that look the same."""
        whole = json.dumps([self.fallback, self.marked, self.is_final], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:MARK_LENGTH]


def marker_of(subject: str) -> str:
    """What the first block of the message of ``subject`` is called."""
    return _MARKER + hashlib.sha256(subject.encode()).hexdigest()[:MARK_LENGTH]
