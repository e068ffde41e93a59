"""Texts to embeddings, in this process, on an ONNX model whose digest is checked before it is loaded."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# From 1.31 on onnxruntime reports to its makers as soon as it is imported, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tokenizers import Tokenizer

from fermata.agents.inference.card import BUNDLED_MODEL, ModelCard, read_card
from fermata.agents.inference.errors import EmbeddingInputError

MAX_BATCH_TOKENS = 512
"""Tokens, padding included, of one call into the session: tokens per second are the same from 16 tokens on,
and a small call bounds memory and delay."""
MAX_PADDING_SHARE = 1 / 8
"""A text goes into a batch only if it fills at least 7/8 of its row: padding costs as much as text does."""
MAX_CHARACTERS = 32_768
"""No more of a text is looked at: 256 tokens end long before, and a tokenizer reads all that it is given."""
DEFAULT_CACHE_TEXTS = 1024
"""Embeddings kept (1.5 KiB each): tool descriptions and questions come again and again."""

Embeddings = NDArray[np.float32]


class OnnxEmbedder:
    """A sentence embedding model in memory; safe to use from several threads.

    A text's embedding does not depend on the texts that it is embedded with (cosine to its own alone at least
    0.9999), so a replay finds the same neighbours. Texts beyond ``card.max_tokens`` tokens are cut there,
    silently, as the model was trained.

    With one thread it has none of its own, so a process may load it and then fork: the children use it and
    share its memory. With more it must not be carried over a fork: in the child those threads are missing,
    and even dropping it would wait for them.

    :param folder: holds ``MODEL.toml`` and the files it names.
    :param threads: that one call may use.
    :param cache_texts: how many recent embeddings to keep; 0 keeps none.
    :raises ModelDigestMismatchError: a file differs from what the card says. Also ``ModelFileMissingError``,
        ``ModelCardInvalidError``.
    """

    def __init__(
        self,
        folder: Path = BUNDLED_MODEL,
        *,
        threads: int = 1,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        cache_texts: int = DEFAULT_CACHE_TEXTS,
    ) -> None:
        self.card: ModelCard = read_card(folder)
        self._tokenizer = Tokenizer.from_str(self.card.read_verified("tokenizer.json").decode("utf-8"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.card.max_tokens)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin between calls cost an idle process whole percents of a core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            self.card.read_verified("model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._max_batch_tokens = max_batch_tokens
        self._cache = _RecentEmbeddings(cache_texts)

    @property
    def dimensions(self) -> int:
        """The width of an embedding."""
        return self.card.dimensions

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Embeddings of the texts, in their order.

        :returns: float32 (len(texts), dimensions), each row of length one; (0, dimensions) for no texts.
        :raises EmbeddingInputError: an element is not a string, or not valid Unicode.
        """
        result = np.empty((len(texts), self.dimensions), dtype=np.float32)
        missing: list[tuple[int, list[int]]] = []
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise EmbeddingInputError(index, f"is of type {type(text).__name__}, and must be a string")
            known = self._cache.get(text)
            if known is None:
                missing.append((index, self._token_ids(index, text)))
            else:
                result[index] = known
        for batch in batches_by_tokens(missing, self._max_batch_tokens):
            indices = [index for index, _ in batch]
            result[indices] = self._run([ids for _, ids in batch])
        for index, _ in missing:
            self._cache.put(texts[index], result[index])
        return result

    async def aembed(self, texts: Sequence[str]) -> Embeddings:
        """``embed`` in a thread, so that the event loop goes on; the session releases the GIL."""
        return await asyncio.to_thread(self.embed, texts)

    def count_tokens(self, text: str) -> int:
        """How many tokens of the model the text is, cut at ``card.max_tokens``."""
        return len(self._token_ids(0, text))

    def _token_ids(self, index: int, text: str) -> list[int]:
        try:
            # One by one: encode_batch starts a thread pool that does not survive a fork.
            ids: list[int] = self._tokenizer.encode(text[:MAX_CHARACTERS]).ids
        except TypeError as error:  # what tokenizers raises for a str with a lone surrogate
            raise EmbeddingInputError(index, "is not valid Unicode") from error
        return ids

    def _run(self, rows: list[list[int]]) -> Any:
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return self._session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]


def batches_by_tokens(
    items: Sequence[tuple[int, list[int]]], max_batch_tokens: int
) -> Iterator[list[tuple[int, list[int]]]]:
    """The items (index, token ids), longest first, in batches of at most ``max_batch_tokens`` with their
    padding, of which none has much; a longer item is a batch of its own."""
    batch: list[tuple[int, list[int]]] = []
    for item in sorted(items, key=lambda entry: (-len(entry[1]), entry[0])):
        longest = len(batch[0][1]) if batch else 0
        full = longest * (len(batch) + 1) > max_batch_tokens
        if batch and (full or len(item[1]) < longest * (1 - MAX_PADDING_SHARE)):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


class _RecentEmbeddings:
    """The embeddings of the texts used last. Keyed by digest, so that long texts cost no more than short
    ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: OrderedDict[bytes, Embeddings] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> Embeddings | None:
        key = _digest(text)
        with self._lock:
            row = self._rows.get(key)
            if row is not None:
                self._rows.move_to_end(key)
            return row

    def put(self, text: str, row: Embeddings) -> None:
        if self._limit <= 0:
            return
        with self._lock:
            self._rows[_digest(text)] = row.copy()
            while len(self._rows) > self._limit:
                self._rows.popitem(last=False)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
