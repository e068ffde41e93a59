"""Embeddings a second, beside bare onnxruntime on the same file; and search, beside its two calls made by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import chromadb
import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from chromadb.config import Settings
from tests.benchmarks.figures.bench import Bench
from tests.benchmarks.figures.series import Figure, Rounds
from tokenizers import Tokenizer

import fermata.agents.factory
from fermata.agents.inference.card import BUNDLED_MODEL
from fermata.agents.inference.embedder import OnnxEmbedder

FACTORY = Path(fermata.agents.factory.__file__).parent
COLLECTION = "factory"
BATCHES = (1, 32)
ROUNDS = 20
CALLS_A_ROUND = {1: 16, 32: 2}
SEARCHES = 100
PASSAGES = 5

_API, _HERE, _BARE = "over the API", "in this process", "onnxruntime and tokenizers"
_CHROMA = "embed here, ask Chroma"

_SENTENCES = (
    "Line 3 vibrates badly.",
    "What is the alarm limit for vibration, and what is the usual cause when a line is above it?",
    "Reduce the speed by a fifth and read the vibration again after one minute.",
    "The spindle bearings are not rated for more than 2800 revolutions per minute.",
    "Who has to be told before a planned stop?",
    "If the process temperature stays less than 8.6 K above the air's at low speed, heat is not carried off; "
    "stop the line, clean the heat exchanger, and check the fan before it is started again.",
    "Tool wear is counted in minutes of contact.",
    "Restart after a trip only when the alarm was acknowledged and a person stands at the line.",
)


class BareOnnx:
    """The model file as onnxruntime and tokenizers run it, with one thread as the embedder has: a batch is one call."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json"))
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(BUNDLED_MODEL / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, texts: list[str]) -> Any:
        """Texts to float32 (n, 384)."""
        encoded = self._tokenizer.encode_batch(texts)
        inputs = {
            "input_ids": np.array([text.ids for text in encoded], dtype=np.int64),
            "attention_mask": np.array([text.attention_mask for text in encoded], dtype=np.int64),
        }
        return self._session.run(["embedding"], inputs)[0]


async def embed(bench: Bench) -> Sequence[Figure]:
    """Texts that no cache has seen, one call after the other."""
    texts = _texts()
    here, bare = OnnxEmbedder(cache_texts=0), BareOnnx()
    ways: dict[str, Callable[[list[str]], Awaitable[object]]] = {
        _API: bench.client.models.embed,
        _HERE: here.aembed,
        _BARE: lambda batch: asyncio.to_thread(bare.embed, batch),
    }
    figures = []
    for size in BATCHES:
        rounds = Rounds()
        for index in range(1 + bench.times(ROUNDS)):
            for what, way in ways.items():
                batches = [[next(texts) for _ in range(size)] for _ in range(CALLS_A_ROUND[size])]
                began = time.perf_counter()
                for batch in batches:
                    await way(batch)
                if index:
                    rounds.add(what, size * len(batches) / (time.perf_counter() - began))
        for what in (_API, _HERE):
            name = f"embeddings, batch {size}, {what}"
            note = "OnnxEmbedder without its cache" if what == _HERE else ""
            figures.append(Figure(name, "/s", rounds.series(what), rounds.peers(_BARE), note=note))
    return figures


async def search(bench: Bench) -> Sequence[Figure]:
    """SearchDocuments over the factory's runbooks and manuals."""
    for folder in ("runbooks", "manuals"):
        for path in sorted((FACTORY / folder).glob("*.md")):
            await bench.client.collections.ingest(COLLECTION, f"{folder}/{path.name}", path.read_bytes())
    texts = _texts()
    model = OnnxEmbedder(cache_texts=0)
    chroma = chromadb.HttpClient(
        "127.0.0.1", bench.plane.chroma_port(), settings=Settings(anonymized_telemetry=False)
    )
    (stored,) = chroma.list_collections()

    def by_hand(query: str) -> object:
        vector = model.embed([query])
        return stored.query(query_embeddings=cast("Any", vector), n_results=PASSAGES)

    rounds = Rounds()
    for index in range(3 + bench.times(SEARCHES)):
        query = next(texts)
        began = time.perf_counter()
        await bench.client.collections.search(query, collections=[COLLECTION], limit=PASSAGES)
        found = time.perf_counter()
        await asyncio.to_thread(by_hand, next(texts))
        if index >= 3:
            rounds.add(_API, (found - began) * 1e3)
            rounds.add(_CHROMA, (time.perf_counter() - found) * 1e3)
    note = f"{stored.count()} chunks, {PASSAGES} passages, by meaning and by words"
    return (Figure("search", "ms", rounds.series(_API), rounds.peers(_CHROMA), note=note),)


def _texts() -> Iterator[str]:
    """Sentences of unequal lengths, none of them twice."""
    number = 0
    while True:
        for sentence in _SENTENCES:
            number += 1
            yield f"{sentence} ({number})"
