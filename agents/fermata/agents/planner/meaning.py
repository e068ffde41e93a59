"""Similarity of meaning, with a bounded cache: the only place that calls the embedding model.

Embeddings are deterministic for a text (see the embedding model's own promise), so caching them changes nothing but
the time a call takes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

_CACHED_TEXTS: Final = 8192


class Meaning:
    """Cosine similarities between texts, over a LangChain `Embeddings`."""

    def __init__(self, embeddings: Embeddings, cached_texts: int = _CACHED_TEXTS) -> None:
        self._embeddings = embeddings
        self._cached_texts = cached_texts
        self._cache: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """L2-normalised float32 (len(texts), dimensions); what is not cached is embedded in one batch."""
        with self._lock:
            missing = [t for t in dict.fromkeys(texts) if t not in self._cache]
        fresh: dict[str, NDArray[np.float32]] = {}
        if missing:
            for text, vector in zip(missing, self._embeddings.embed_documents(missing), strict=True):
                array = np.asarray(vector, dtype=np.float32)
                fresh[text] = array / max(float(np.linalg.norm(array)), 1e-9)
        with self._lock:
            self._cache.update(fresh)
            rows = [fresh[t] if t in fresh else self._cache.get(t) for t in texts]
            for text in texts:
                if text in self._cache:
                    self._cache.move_to_end(text)
            while len(self._cache) > self._cached_texts:
                self._cache.popitem(last=False)
        if any(r is None for r in rows):  # another thread pushed one out between the two locks
            return self.embed(texts)
        return np.stack([r for r in rows if r is not None])

    def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        """Cosine of `text` to each of `others`."""
        if not others:
            return []
        matrix = self.embed([text, *others])
        return [float(x) for x in matrix[1:] @ matrix[0]]

    def warm(self, texts: Iterable[str]) -> None:
        """Embed `texts` in one batch, so that later look-ups are cached."""
        wanted = list(dict.fromkeys(texts))
        if wanted:
            self.embed(wanted)
