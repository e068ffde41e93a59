"""Text that models are writing, on its way to one watcher: what it has not taken yet grows together, and is bounded.

Of each message there is one piece at the most, however many deltas came; who reads as fast as models write gets each as it comes.
Where the watcher is too slow, the text of the messages that have waited longest is left out, and the piece after it says how much
that was. Nothing is lost by it that lasts: the message's event has the whole text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fermata.v1 import run_pb2

WAITING_CHARACTERS = 64 * 1024
"""Text that may wait for one watcher."""

WAITING_MESSAGES = 1024
"""Messages of which something may wait for one watcher."""


@dataclass(slots=True)
class _Waiting:
    pieces: list[str] = field(default_factory=list)
    characters: int = 0
    skipped: int = 0


class Deltas:
    """What waits for one watcher.

    :param tenant: whose runs it watches.
    :param run: the name of the one run that it watches; empty for all.
    """

    def __init__(self, tenant: str, run: str = "") -> None:
        self._prefix = f"tenants/{tenant}/runs/"
        self._run = run
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._characters = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, delta: run_pb2.TokenDelta) -> bool:
        """Add a delta; False where it is of no run that is watched."""
        if delta.run != self._run if self._run else not delta.run.startswith(self._prefix):
            return False
        waiting = self._waiting.setdefault((delta.run, delta.message_id), _Waiting())
        waiting.pieces.append(delta.text)
        waiting.characters += len(delta.text)
        self._characters += len(delta.text)
        if self._characters > WAITING_CHARACTERS:
            self._leave_out()
        if len(self._waiting) > WAITING_MESSAGES:
            oldest = self._waiting.pop(next(iter(self._waiting)))
            self._characters -= oldest.characters
        return True

    def take(self) -> run_pb2.TokenDelta | None:
        """The text of the message that has waited longest, or None."""
        if not self._waiting:
            return None
        run, message = next(iter(self._waiting))
        waiting = self._waiting.pop((run, message))
        self._characters -= waiting.characters
        return run_pb2.TokenDelta(
            run=run, message_id=message, text="".join(waiting.pieces), skipped=waiting.skipped
        )

    def _leave_out(self) -> None:
        for waiting in self._waiting.values():
            self._characters -= waiting.characters
            waiting.skipped += waiting.characters
            waiting.characters = 0
            waiting.pieces.clear()
            if self._characters <= WAITING_CHARACTERS // 2:
                return
