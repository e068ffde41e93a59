"""Documents into a collection: read, cut, embed, store; the same content again changes nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fermata.server.clock import Clock
from fermata.server.knowledge.chroma import ChromaStore, DocumentInfo, Vectors
from fermata.server.knowledge.chunking import Document, read_document

EMBED_CHUNKS = 32
"""Chunks of one embedding call: progress is told after each."""

Embed = Callable[[list[str]], Awaitable[Vectors]]
"""Texts to float32 (n, dimensions), L2-normalised."""


@dataclass(frozen=True)
class Progress:
    """How far the ingestion of one document is."""

    source: str
    done_chunks: int
    total_chunks: int


@dataclass(frozen=True)
class Ingested:
    """A document as it is now stored."""

    document: DocumentInfo
    unchanged: bool
    """Whether it was stored before with the same content, so that nothing was done."""


class Ingestor:
    """Takes documents into collections of one Chroma store. A collection that is missing is made."""

    def __init__(self, store: ChromaStore, embed: Embed, clock: Clock) -> None:
        self._store = store
        self._embed = embed
        self._clock = clock
        # Two puts of one document at a time would mix their chunks; a put is short beside embedding.
        self._writing = asyncio.Lock()

    async def ingest(
        self,
        collection: str,
        documents: Sequence[tuple[str, bytes]],
        progress: Callable[[Progress], None] | None = None,
    ) -> list[Ingested]:
        """Take in (source, content) pairs, each in place of its earlier version. The same content again:
        ``unchanged``.

        All documents are read before the first is stored, so a bad one among them changes nothing.

        :param collection: ``tenants/{t}/collections/{c}``.
        :raises DocumentError: a document is bad; see ``documents.read_source`` and
            ``chunking.read_document``.
        :raises ChromaUnavailableError: those that were stored by then stay; call again.
        """
        read = [await asyncio.to_thread(read_document, source, content) for source, content in documents]
        await self._store.create_collection(collection, now_seconds=self._clock.now(), exist_ok=True)
        return [await self._ingest_one(collection, document, progress) for document in read]

    async def _ingest_one(
        self, collection: str, document: Document, progress: Callable[[Progress], None] | None
    ) -> Ingested:
        key = document_id(document.source)
        if known := await self._same(collection, key, document):
            return Ingested(known, unchanged=True)
        embeddings = await self._embed_chunks(document, progress)
        async with self._writing:
            before = await self._store.find_document(collection, key)
            if before and _is_same(before, document):  # by another call, meanwhile
                return Ingested(before, unchanged=True)
            info = DocumentInfo(
                id=key,
                source=document.source,
                title=document.title,
                kind=document.kind,
                digest=document.digest,
                version=before.version + 1 if before else 1,
                chunk_count=len(document.chunks),
                updated_seconds=self._clock.now(),
            )
            await self._store.put_document(collection, info, document.chunks, embeddings)
        return Ingested(info, unchanged=False)

    async def _same(self, collection: str, key: str, document: Document) -> DocumentInfo | None:
        known = await self._store.find_document(collection, key)
        return known if known and _is_same(known, document) else None

    async def _embed_chunks(self, document: Document, progress: Callable[[Progress], None] | None) -> Vectors:
        total = len(document.chunks)
        parts: list[Vectors] = []
        for start in range(0, total, EMBED_CHUNKS):
            batch = document.chunks[start : start + EMBED_CHUNKS]
            parts.append(await self._embed([document.text_to_embed(chunk) for chunk in batch]))
            if progress is not None:
                progress(Progress(document.source, start + len(batch), total))
        return np.concatenate(parts)


def document_id(source: str) -> str:
    """The id of the document with this source, the same in every collection."""
    return hashlib.sha256(source.encode()).hexdigest()[:20]


def _is_same(known: DocumentInfo, document: Document) -> bool:
    return known.digest == document.digest and known.chunk_count == len(document.chunks)
