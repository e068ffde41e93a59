"""What a reader is asked and what it says, and where the one that is used comes from.

A reader is a small model that reads a text with a tool: whether a call of the tool is asked for, which tokens say so, and
how much each token expresses each parameter and option of the tool. It gives scores and no words.
The model in the process is imported only when it is asked for, as the embedding model is.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fermata.agents.inference.reader import OnnxReader

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and a tool as token ids; ``markers`` are the tool's ids that stand for its parameters and options."""

    text: tuple[int, ...]
    tool: tuple[int, ...]
    markers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model says of one pair; all values are between 0 and 1.

    ``kind`` (4): nothing, a call is asked for, a call is spoken of, this tool or another. ``tags`` (text tokens, 4).
    ``present`` (markers): whether the text gives it. ``match`` (markers, text tokens): whether the token expresses it.
    """

    kind: Scores
    tags: Scores
    present: Scores
    match: Scores


class ReaderBackend(Protocol):
    """Something that reads pairs: the model in this process, or a shared one elsewhere."""

    def read(self, pairs: Sequence[Pair], /) -> list[Reading]:
        """A reading of each pair, in their order."""
        ...


_lock = threading.Lock()
_installed: ReaderBackend | None = None
_in_process: OnnxReader | None = None


def use_reader(backend: ReaderBackend | None) -> ReaderBackend | None:
    """Make everything that reads use this backend, from now on, in this process and those forked from it. ``None`` goes
    back to the model in this process.

    :returns: what was installed before.
    """
    global _installed
    with _lock:
        previous, _installed = _installed, backend
    return previous


def current_reader() -> ReaderBackend:
    """What was installed with ``use_reader``, else the bundled model in this process, loaded at the first call."""
    global _in_process
    with _lock:
        if _installed is not None:
            return _installed
        if _in_process is None:
            from fermata.agents.inference.reader import OnnxReader

            _in_process = OnnxReader()
        return _in_process
