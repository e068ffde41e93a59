"""Collections: knowledge bases, their documents, and search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import collection_pb2, collection_pb2_grpc

from .names import full_name, tenant_name
from .transport import LONG_DEADLINE_SECONDS, Transport

if TYPE_CHECKING:
    from fermata.v1.collection_pb2_grpc import CollectionServiceAsyncStub


class Collections:
    """``CollectionService``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> CollectionServiceAsyncStub:
        return collection_pb2_grpc.CollectionServiceStub(self._transport.channel)

    async def create(
        self, collection: str, *, description: str = "", request_id: str = ""
    ) -> collection_pb2.Collection:
        """Make an empty collection. :raises AlreadyExistsError: COLLECTION_EXISTS."""
        request = collection_pb2.CreateCollectionRequest(
            parent=tenant_name(self._transport.tenant),
            collection_id=collection,
            collection=collection_pb2.Collection(description=description),
            request_id=request_id,
        )
        return await self._transport.unary(self._stub.CreateCollection, request)

    async def get(self, collection: str) -> collection_pb2.Collection:
        """One collection. :raises NotFoundError: COLLECTION_NOT_FOUND."""
        request = collection_pb2.GetCollectionRequest(name=self._name(collection))
        return await self._transport.unary(self._stub.GetCollection, request)

    async def list(self, *, limit: int | None = None) -> Sequence[collection_pb2.Collection]:
        """Collections by name."""
        request = collection_pb2.ListCollectionsRequest(parent=tenant_name(self._transport.tenant))
        return await self._transport.collect(
            self._stub.ListCollections, request, "collections", collection_pb2.Collection, limit
        )

    async def delete(self, collection: str) -> None:
        """Remove a collection with all its documents; sent once, never repeated."""
        request = collection_pb2.DeleteCollectionRequest(name=self._name(collection))
        await self._transport.unary(self._stub.DeleteCollection, request)

    async def ingest(
        self, collection: str, source: str, content: bytes | str, *, request_id: str = ""
    ) -> collection_pb2.Document:
        """Store one document, in place of its earlier version; the collection is made where it is missing.

        :param source: where it came from, such as a relative path; its suffix says what it is.
        :raises FermataError: DOCUMENT_EMPTY, DOCUMENT_TOO_LARGE, DOCUMENT_NOT_TEXT and the like.
        """
        request = collection_pb2.IngestDocumentRequest(
            parent=self._name(collection),
            source=source,
            content=content.encode() if isinstance(content, str) else content,
            request_id=request_id,
        )
        return await self._transport.unary(
            self._stub.IngestDocument, request, deadline_seconds=LONG_DEADLINE_SECONDS
        )

    async def documents(
        self, collection: str, *, limit: int | None = None
    ) -> Sequence[collection_pb2.Document]:
        """A collection's documents by source."""
        request = collection_pb2.ListDocumentsRequest(parent=self._name(collection))
        return await self._transport.collect(
            self._stub.ListDocuments, request, "documents", collection_pb2.Document, limit
        )

    async def delete_document(self, document: str) -> None:
        """Remove one document by its whole resource name; sent once, never repeated."""
        request = collection_pb2.DeleteDocumentRequest(name=document)
        await self._transport.unary(self._stub.DeleteDocument, request)

    async def search(
        self, query: str, *, collections: Iterable[str] = (), limit: int = 0
    ) -> Sequence[collection_pb2.Passage]:
        """Passages that fit ``query``, best first; in all of the tenant's collections where none is named."""
        request = collection_pb2.SearchDocumentsRequest(
            parent=tenant_name(self._transport.tenant),
            collections=[self._name(collection) for collection in collections],
            query=query,
            limit=limit,
        )
        response = await self._transport.unary(self._stub.SearchDocuments, request)
        return tuple(response.passages)

    def _name(self, collection: str) -> str:
        return full_name(self._transport.tenant, "collections", collection)
