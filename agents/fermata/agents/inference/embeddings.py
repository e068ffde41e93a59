"""LangChain ``Embeddings`` for agents: the same class alone on a laptop, inside a run host, and on a cluster.

Chosen: one process-wide backend, which a run host installs before it runs a graph. Refused: a context
variable, since user code that embeds from a thread of its own would miss it and silently load a second model.
The model in the process is imported only when it is asked for: onnxruntime starts a thread at import, and a zygote must not have one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fermata.agents.inference.embedder import OnnxEmbedder


class EmbeddingBackend(Protocol):
    """Something that embeds texts: the model in this process, or a shared one elsewhere."""

    def embed(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """float32 (len(texts), dimensions), L2-normalised, in the order of the texts."""
        ...

    async def aembed(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """As ``embed``, without blocking the event loop."""
        ...


_lock = threading.Lock()
_installed: EmbeddingBackend | None = None
_in_process: OnnxEmbedder | None = None


def use_backend(backend: EmbeddingBackend | None) -> EmbeddingBackend | None:
    """Make every ``FermataEmbeddings`` without a backend of its own use this one, from now on, in this
    process and those forked from it. ``None`` goes back to the model in this process.

    :returns: what was installed before.
    """
    global _installed
    with _lock:
        previous, _installed = _installed, backend
    return previous


def current_backend() -> EmbeddingBackend:
    """What was installed with ``use_backend``, else the bundled model in this process, loaded at the first
    call."""
    global _in_process
    with _lock:
        if _installed is not None:
            return _installed
        if _in_process is None:
            # Not before it is needed: onnxruntime starts a thread when it is imported, and a process with threads can't be
            # forked, which is how run hosts start. They use a backend of their worker's.
            from fermata.agents.inference.embedder import OnnxEmbedder

            _in_process = OnnxEmbedder()
        return _in_process


class FermataEmbeddings(Embeddings):
    """LangChain ``Embeddings`` over a backend: the given one, else whatever ``current_backend()`` is at the
    time of the call."""

    def __init__(self, backend: EmbeddingBackend | None = None) -> None:
        self._backend = backend

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One embedding for each text, of length one; none for none."""
        return _as_lists(self._resolve().embed(texts))

    def embed_query(self, text: str) -> list[float]:
        """The embedding of one text; queries and documents are embedded alike."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As ``embed_documents``, without blocking the event loop."""
        return _as_lists(await self._resolve().aembed(texts))

    async def aembed_query(self, text: str) -> list[float]:
        """As ``embed_query``, without blocking the event loop."""
        return (await self.aembed_documents([text]))[0]

    def _resolve(self) -> EmbeddingBackend:
        return self._backend if self._backend is not None else current_backend()


def _as_lists(rows: NDArray[np.float32]) -> list[list[float]]:
    lists: list[list[float]] = rows.tolist()
    return lists


def _after_fork() -> None:
    """Another thread of the parent may have held the lock at the fork; nobody would ever let go of it in the
    child."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
