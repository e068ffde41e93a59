"""Collections and documents in a Chroma server, over its HTTP API.

Chosen: the documented v2 API by httpx, in the one place that knows of Chroma. Refused: the chromadb package
as a client, which costs the server 70 MB and 1.2 s to import, waits for ever where Chroma hangs, raises bare
``Exception``, and brings an embedding function that downloads a model; here every chunk comes with its
embedding.

A document's facts lie with each of its chunks. A new version is written before the older one is deleted, so a
search always finds the document; until then ``query`` leaves out the older chunks. A put that was cut short
is mended by putting again.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray

from fermata.server.errors import invalid
from fermata.server.knowledge.chunking import Chunk
from fermata.server.knowledge.errors import (
    ChromaRefusedError,
    ChromaUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    DocumentNotFoundError,
)

TIMEOUT_SECONDS = 10.0
BATCH_CHUNKS = 500
"""Chunks of one request; Chroma takes at most a few thousand."""
PAGE_ROWS = 1_000
_ROOT: Final = "/api/v2/tenants/default_tenant/databases/default_database/collections"
_SAFE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{1,198}[A-Za-z0-9]$")

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class CollectionInfo:
    """A collection; ``name`` is the resource name ``tenants/{t}/collections/{c}``."""

    name: str
    description: str
    created_seconds: float


@dataclass(frozen=True)
class DocumentInfo:
    """What is known of a document in a collection."""

    id: str
    source: str
    title: str
    kind: str
    digest: str
    version: int
    """Counts from 1 with every change of content."""
    chunk_count: int
    updated_seconds: float


@dataclass(frozen=True)
class Hit:
    """A chunk that was found, with where it stands."""

    id: str
    document: DocumentInfo
    heading: str
    first_line: int
    last_line: int
    text: str
    steps: bool
    score: float
    """Cosine similarity to the vector that was asked for; 1 where none was."""


class ChromaStore:
    """Knowledge in one Chroma server. All methods raise ``ChromaUnavailableError`` where none answers in
    time, and, if they name a collection, ``CollectionNotFoundError``; reading and deleting may be repeated at
    will.

    :param url: such as ``http://127.0.0.1:8000``.
    :param headers: sent with every request, such as a token that a remote Chroma asks for.
    """

    def __init__(
        self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise invalid(
                f"{url!r} is not the address of a Chroma server: write it as http://HOST:PORT.",
                reason="CHROMA_URL_INVALID",
                url=url,
            )
        self.url = url.rstrip("/")
        loopback = parts.hostname in ("127.0.0.1", "::1", "localhost")
        self._http = httpx.AsyncClient(
            base_url=self.url, timeout=timeout_seconds, headers=dict(headers or {}), trust_env=not loopback
        )
        self._ids: dict[str, str] = {}

    async def close(self) -> None:
        """Close the connections. Twice is once."""
        await self._http.aclose()

    async def check_health(self) -> str:
        """Chroma's version, if it answers and says that all of its parts are ready."""
        parts = await self._ask("GET", "/api/v2/healthcheck")
        if not isinstance(parts, dict) or not all(parts.values()):
            raise ChromaUnavailableError(self.url, f"it is not ready: {parts}")
        return str(await self._ask("GET", "/api/v2/version"))

    async def create_collection(
        self, collection: str, *, description: str = "", now_seconds: float, exist_ok: bool = False
    ) -> None:
        """Make an empty collection. A second call: ``CollectionExistsError``, or nothing with
        ``exist_ok``."""
        body = {
            "name": chroma_name(collection),
            "get_or_create": exist_ok,
            "configuration": {"hnsw": {"space": "cosine"}},
            "metadata": {"name": collection, "description": description, "created": now_seconds},
        }
        answer = await self._http_request("POST", _ROOT, body)
        if answer.status_code == httpx.codes.CONFLICT:
            raise CollectionExistsError(collection)
        self._ids[collection] = str(self._json(answer)["id"])

    async def delete_collection(self, collection: str) -> None:
        """Remove a collection with all its documents. A second call: ``CollectionNotFoundError``."""
        self._ids.pop(collection, None)
        answer = await self._http_request("DELETE", f"{_ROOT}/{quote(chroma_name(collection))}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise CollectionNotFoundError(collection)
        self._json(answer)

    async def get_collection(self, collection: str) -> CollectionInfo:
        """One collection."""
        answer = await self._http_request("GET", f"{_ROOT}/{quote(chroma_name(collection))}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise CollectionNotFoundError(collection)
        found = self._json(answer)
        self._ids[collection] = str(found["id"])
        return _collection_info(found["metadata"])

    async def list_collections(self, tenant: str) -> list[CollectionInfo]:
        """The collections of ``tenants/{t}``, by name. What else lives in that Chroma is left out."""
        found: list[CollectionInfo] = []
        offset = 0
        while True:
            page = await self._ask("GET", f"{_ROOT}?limit={PAGE_ROWS}&offset={offset}")
            metadatas = [entry.get("metadata") or {} for entry in page]
            found += [
                _collection_info(m) for m in metadatas if str(m.get("name", "")).startswith(f"{tenant}/")
            ]
            if len(page) < PAGE_ROWS:
                return sorted(found, key=lambda info: info.name)
            offset += PAGE_ROWS

    async def put_document(
        self, collection: str, document: DocumentInfo, chunks: Sequence[Chunk], embeddings: Vectors
    ) -> None:
        """Store a version of a document, then delete its older ones. The same again leaves the same.

        :param embeddings: float32 (len(chunks), dimensions), L2-normalised.
        """
        facts = _facts(document)
        for start in range(0, len(chunks), BATCH_CHUNKS):
            batch = range(start, min(start + BATCH_CHUNKS, len(chunks)))
            body = {
                "ids": [f"{document.id}-{chunks[i].id}" for i in batch],
                "documents": [chunks[i].text for i in batch],
                "embeddings": [_base64(embeddings[i]) for i in batch],
                "metadatas": [{**facts, **_place(chunks[i], ordinal=i)} for i in batch],
            }
            await self._ask_collection(collection, "upsert", body)
        older = {"$and": [{"document": document.id}, {"version": {"$lt": document.version}}]}
        await self._ask_collection(collection, "delete", {"where": older})

    async def delete_document(self, collection: str, document_id: str) -> None:
        """Remove a document. A second call: ``DocumentNotFoundError``."""
        await self.get_document(collection, document_id)
        await self._ask_collection(collection, "delete", {"where": {"document": document_id}})

    async def get_document(self, collection: str, document_id: str) -> DocumentInfo:
        """One document, in its newest version.

        :raises DocumentNotFoundError: the collection has none of this id.
        """
        found = await self.find_document(collection, document_id)
        if found is None:
            raise DocumentNotFoundError(collection, document_id)
        return found

    async def find_document(self, collection: str, document_id: str) -> DocumentInfo | None:
        """One document in its newest version, or ``None``. ``chunk_count`` is 0 where a put was cut short."""
        rows = await self._get(collection, {"document": document_id}, ["metadatas"])
        metadatas = [metadata for _, metadata, _ in rows]
        if not metadatas:
            return None
        newest = max(metadatas, key=lambda metadata: int(metadata["version"]))
        info = _document_info(newest)
        complete = sum(int(m["version"]) == info.version for m in metadatas) == info.chunk_count
        return info if complete and len(metadatas) == info.chunk_count else _without_chunks(info)

    async def list_documents(self, collection: str) -> list[DocumentInfo]:
        """The documents of a collection in their newest versions, by source."""
        rows = await self._get(collection, {"ordinal": 0}, ["metadatas"])
        newest: dict[str, DocumentInfo] = {}
        for _, metadata, _ in rows:
            info = _document_info(metadata)
            if info.id not in newest or newest[info.id].version < info.version:
                newest[info.id] = info
        return sorted(newest.values(), key=lambda info: info.source)

    async def read_document(self, collection: str, document_id: str) -> list[Hit]:
        """All chunks of a document's newest version, in order; none where there is no such document."""
        rows = await self._get(collection, {"document": document_id}, ["metadatas", "documents"])
        return sorted(_newest(_hit(*row, 1.0) for row in rows), key=lambda hit: hit.first_line)

    async def query(
        self,
        collection: str,
        vector: Vectors,
        k: int,
        *,
        where: Mapping[str, Any] | None = None,
        contains: str | None = None,
    ) -> list[Hit]:
        """The ``k`` chunks next to a vector, nearest first.

        :param where: Chroma's filter over ``document``, ``source``, ``kind``, ``steps`` and the other facts.
        :param contains: only chunks whose text holds this, letter for letter.
        """
        body: dict[str, Any] = {
            "query_embeddings": [vector.tolist()],
            "n_results": k,
            "include": ["metadatas", "documents", "distances"],
        }
        if where:
            body["where"] = dict(where)
        if contains:
            body["where_document"] = {"$contains": contains}
        answer = await self._ask_collection(collection, "query", body)
        columns = (answer[name][0] for name in ("ids", "metadatas", "documents", "distances"))
        rows = zip(*columns, strict=True)
        return _newest(_hit(key, facts, text, 1.0 - distance) for key, facts, text, distance in rows)

    async def _get(
        self, collection: str, where: Mapping[str, Any], include: list[str]
    ) -> list[tuple[str, dict[str, Any], str]]:
        rows: list[tuple[str, dict[str, Any], str]] = []
        while True:
            body = {"where": where, "include": include, "limit": PAGE_ROWS, "offset": len(rows)}
            page = await self._ask_collection(collection, "get", body)
            texts = page.get("documents") or [""] * len(page["ids"])
            rows += zip(page["ids"], page["metadatas"], texts, strict=True)
            if len(page["ids"]) < PAGE_ROWS:
                return rows

    async def _ask_collection(self, collection: str, verb: str, body: Mapping[str, Any]) -> Any:
        for fresh in (False, True):
            if fresh or collection not in self._ids:
                await self.get_collection(collection)
            answer = await self._http_request("POST", f"{_ROOT}/{self._ids[collection]}/{verb}", body)
            # The id that we remember may be that of a collection that was deleted and made again.
            if answer.status_code != httpx.codes.NOT_FOUND:
                return self._json(answer)
        raise CollectionNotFoundError(collection)

    async def _ask(self, method: str, path: str) -> Any:
        return self._json(await self._http_request(method, path))

    async def _http_request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        try:
            return await self._http.request(method, path, json=body)
        except httpx.TimeoutException as error:
            raise ChromaUnavailableError(self.url, "no answer in time") from error
        except httpx.TransportError as error:
            raise ChromaUnavailableError(self.url, str(error) or type(error).__name__) from error

    def _json(self, answer: httpx.Response) -> Any:
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ChromaUnavailableError(self.url, f"status {answer.status_code}: {answer.text[:200]}")
        if answer.is_error:
            raise ChromaRefusedError(self.url, answer.status_code, answer.text[:500])
        try:
            return answer.json()
        except ValueError as error:
            raise ChromaUnavailableError(self.url, "what answers there is not Chroma") from error


def chroma_name(collection: str) -> str:
    """The name in Chroma of ``tenants/{t}/collections/{c}``: ``{t}.{c}``, or a digest where that can't be one
    of Chroma's names or would not be the only one with this name. The resource name itself is in the
    collection's metadata."""
    parts = collection.split("/")
    if len(parts) == 4 and "." not in parts[3]:
        name = f"{parts[1]}.{parts[3]}"
        if _SAFE_NAME.match(name) and ".." not in name:
            return name
    return f"x{hashlib.sha256(collection.encode()).hexdigest()[:40]}"


def _facts(document: DocumentInfo) -> dict[str, Any]:
    return {
        "document": document.id,
        "source": document.source,
        "title": document.title,
        "kind": document.kind,
        "digest": document.digest,
        "version": document.version,
        "chunk_count": document.chunk_count,
        "updated": document.updated_seconds,
    }


def _place(chunk: Chunk, *, ordinal: int) -> dict[str, Any]:
    return {
        "ordinal": ordinal,
        "heading": chunk.heading,
        "first_line": chunk.first_line,
        "last_line": chunk.last_line,
        "steps": chunk.steps,
    }


def _document_info(facts: Mapping[str, Any]) -> DocumentInfo:
    return DocumentInfo(
        id=str(facts["document"]),
        source=str(facts["source"]),
        title=str(facts["title"]),
        kind=str(facts["kind"]),
        digest=str(facts["digest"]),
        version=int(facts["version"]),
        chunk_count=int(facts["chunk_count"]),
        updated_seconds=float(facts["updated"]),
    )


def _without_chunks(info: DocumentInfo) -> DocumentInfo:
    return DocumentInfo(
        info.id, info.source, info.title, info.kind, info.digest, info.version, 0, info.updated_seconds
    )


def _collection_info(metadata: Mapping[str, Any]) -> CollectionInfo:
    return CollectionInfo(
        name=str(metadata["name"]),
        description=str(metadata.get("description", "")),
        created_seconds=float(metadata.get("created", 0)),
    )


def _hit(key: str, facts: Mapping[str, Any], text: str, score: float) -> Hit:
    return Hit(
        id=key,
        document=_document_info(facts),
        heading=str(facts["heading"]),
        first_line=int(facts["first_line"]),
        last_line=int(facts["last_line"]),
        text=text,
        steps=bool(facts["steps"]),
        score=score,
    )


def _newest(hits: Any) -> list[Hit]:
    """Without chunks of a version that is being replaced."""
    kept = list(hits)
    newest: dict[str, int] = {}
    for hit in kept:
        newest[hit.document.id] = max(hit.document.version, newest.get(hit.document.id, 0))
    return [hit for hit in kept if hit.document.version == newest[hit.document.id]]


def _base64(vector: Vectors) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode("ascii")
