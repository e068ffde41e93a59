"""The reader with its tokenizer: tools are encoded once, readings of the last texts are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from tokenizers import Tokenizer

from fermata.agents.inference.card import BUNDLED_MODEL
from fermata.agents.inference.readings import Pair, ReaderBackend, Reading, current_reader
from fermata.agents.planner.reader.pairs import EncodedText, EncodedTool, Encoder
from fermata.agents.planner.tools import Tool

_KEPT: Final = 512


@lru_cache(maxsize=1)
def bundled_encoder() -> Encoder:
    """The encoder with the bundled tokenizer, which the embedding model shares."""
    tokenizer = Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return Encoder(tokenizer)


class Reader:
    """Reads texts with tools; what was read is kept for a while, since a plan is replayed at every call of the model.

    :param backend: the model; whatever ``current_reader()`` is at the time of the call if left out.
    """

    def __init__(self, backend: ReaderBackend | None = None) -> None:
        self.encoder = bundled_encoder()
        self._backend = backend
        self._lock = threading.Lock()
        self._readings: OrderedDict[tuple[tuple[int, ...], tuple[int, ...]], Reading] = OrderedDict()

    def read(self, text: EncodedText, tools: Sequence[Tool]) -> Iterator[tuple[Tool, EncodedTool, Reading]]:
        """The reading of `text` with each of `tools`, in their order."""
        encoded = [self.encoder.tool(t) for t in tools]
        keys = [(text.ids, e.ids) for e in encoded]
        with self._lock:
            known = {k: self._readings[k] for k in keys if k in self._readings}
        missing = [(k, e) for k, e in zip(keys, encoded, strict=True) if k not in known]
        if missing:
            backend = self._backend or current_reader()
            fresh = backend.read([Pair(text.ids, e.ids, e.markers) for _, e in missing])
            known.update({k: r for (k, _), r in zip(missing, fresh, strict=True)})
            with self._lock:
                self._readings.update({k: known[k] for k, _ in missing})
                while len(self._readings) > _KEPT:
                    self._readings.popitem(last=False)
        return iter([(t, e, known[k]) for t, e, k in zip(tools, encoded, keys, strict=True)])
