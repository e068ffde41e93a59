"""CollectionService.

Collections and documents are what Chroma holds, and nothing else: there is no second record of them that could disagree. What is
remembered here is only the answer to a call with a request_id, after the work was done; a call that was cut short in between is
safe to repeat, for the same content again changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fermata.server.errors import invalid
from fermata.server.knowledge.chroma import ChromaStore, CollectionInfo, DocumentInfo
from fermata.server.knowledge.ingest import Ingestor
from fermata.server.knowledge.search import DEFAULT_PASSAGES, MAX_PASSAGES, Passage, Searcher
from fermata.server.names import Name, check_id, parse
from fermata.server.plane import ControlPlane
from fermata.server.principals.callers import Caller, Callers
from fermata.server.rpc import pages
from fermata.server.rpc.method import Service, unary
from fermata.server.rpc.once import once, recall
from fermata.v1 import collection_pb2, collection_pb2_grpc

SHORTEST_ID = 3
MAX_DESCRIPTION = 500
"""Characters."""


class CollectionService(Service, collection_pb2_grpc.CollectionServiceServicer):
    """See protos/fermata/v1/collection.proto.

    :param chroma: where the knowledge is.
    """

    NAME = "CollectionService"

    def __init__(self, plane: ControlPlane, callers: Callers, chroma: ChromaStore) -> None:
        super().__init__(plane, callers)
        self._chroma = chroma
        self._ingestor = Ingestor(chroma, plane.workers.embed, plane.clock)
        self._searcher = Searcher(chroma, plane.workers.embed)
        self._creating = asyncio.Lock()

    @unary
    async def CreateCollection(
        self, request: collection_pb2.CreateCollectionRequest, caller: Caller
    ) -> collection_pb2.Collection:
        tenant = self.tenant_of(caller, request.parent)
        collection = _collection(tenant, request.collection_id)
        description = request.collection.description
        if len(description) > MAX_DESCRIPTION:
            raise invalid(
                f"The description has {len(description)} characters; {MAX_DESCRIPTION} are the most.",
                reason="DESCRIPTION_TOO_LONG",
                field="collection.description",
            )
        kind = collection_pb2.Collection
        # A repeat that comes while the first call is at work waits for it, and gets its answer.
        async with self._creating:
            earlier = await self.plane.read(
                lambda connection: recall(connection, caller, "CreateCollection", request, kind)
            )
            if earlier is not None:
                return earlier
            await self._chroma.create_collection(
                collection, description=description, now_seconds=self.plane.clock.now()
            )
            made = _to_collection(await self._chroma.get_collection(collection), 0)
            return await self.plane.write(
                lambda tx: once(tx, caller, "CreateCollection", request, lambda: made, kind)
            )

    @unary
    async def GetCollection(
        self, request: collection_pb2.GetCollectionRequest, caller: Caller
    ) -> collection_pb2.Collection:
        name = parse(request.name, "collections")
        self.require_tenant(caller, name.tenant)
        return await self._counted(await self._chroma.get_collection(str(name)))

    @unary
    async def ListCollections(
        self, request: collection_pb2.ListCollectionsRequest, caller: Caller
    ) -> collection_pb2.ListCollectionsResponse:
        tenant = self.tenant_of(caller, request.parent)
        limit = pages.size(request.page_size)
        after = pages.position(request.page_token, str) or ""
        infos = [info for info in await self._all(tenant) if info.name > after]
        page, token = pages.cut(infos, limit, "name")
        return collection_pb2.ListCollectionsResponse(
            collections=[await self._counted(info) for info in page], next_page_token=token
        )

    @unary
    async def DeleteCollection(
        self, request: collection_pb2.DeleteCollectionRequest, caller: Caller
    ) -> collection_pb2.DeleteCollectionResponse:
        name = parse(request.name, "collections")
        self.require_tenant(caller, name.tenant)
        await self._chroma.delete_collection(str(name))
        return collection_pb2.DeleteCollectionResponse()

    @unary
    async def IngestDocument(
        self, request: collection_pb2.IngestDocumentRequest, caller: Caller
    ) -> collection_pb2.Document:
        name = parse(request.parent, "collections")
        tenant = self.require_tenant(caller, name.tenant)
        collection = _collection(tenant, name.id)
        kind = collection_pb2.Document
        earlier = await self.plane.read(
            lambda connection: recall(connection, caller, "IngestDocument", request, kind)
        )
        if earlier is not None:
            return earlier
        [ingested] = await self._ingestor.ingest(collection, [(request.source, request.content)])
        document = _to_document(collection, ingested.document, unchanged=ingested.unchanged)
        return await self.plane.write(
            lambda tx: once(tx, caller, "IngestDocument", request, lambda: document, kind)
        )

    @unary
    async def ListDocuments(
        self, request: collection_pb2.ListDocumentsRequest, caller: Caller
    ) -> collection_pb2.ListDocumentsResponse:
        name = parse(request.parent, "collections")
        self.require_tenant(caller, name.tenant)
        limit = pages.size(request.page_size)
        after = pages.position(request.page_token, str) or ""
        infos = [info for info in await self._chroma.list_documents(str(name)) if info.source > after]
        page, token = pages.cut(infos, limit, "source")
        return collection_pb2.ListDocumentsResponse(
            documents=[_to_document(str(name), info) for info in page], next_page_token=token
        )

    @unary
    async def DeleteDocument(
        self, request: collection_pb2.DeleteDocumentRequest, caller: Caller
    ) -> collection_pb2.DeleteDocumentResponse:
        name = parse(request.name, "collections", "documents")
        tenant = self.require_tenant(caller, name.tenant)
        await self._chroma.delete_document(str(Name(tenant, "collections", name.id)), name.part_id)
        return collection_pb2.DeleteDocumentResponse()

    @unary
    async def SearchDocuments(
        self, request: collection_pb2.SearchDocumentsRequest, caller: Caller
    ) -> collection_pb2.SearchDocumentsResponse:
        tenant = self.tenant_of(caller, request.parent)
        for name in request.collections:
            self.require_tenant(caller, parse(name, "collections").tenant)
        collections = list(request.collections) or [info.name for info in await self._all(tenant)]
        return await self._search(collections, request)

    async def search_for_run(
        self, request: collection_pb2.SearchDocumentsRequest, tenant: str
    ) -> collection_pb2.SearchDocumentsResponse:
        """Search for a run of ``tenant``, in exactly the collections that ``request`` names: none give nothing.

        Which of them its agent may read is the caller's to see to.

        :raises DomainError: COLLECTION_NOT_FOUND, also for those of other tenants; QUERY_INVALID, INVALID_NAME, NO_WORKER,
            CHROMA_UNAVAILABLE.
        """
        if not request.collections:
            return collection_pb2.SearchDocumentsResponse()
        return await self._search(
            [str(Name(tenant, "collections", parse(name, "collections").id)) for name in request.collections],
            request,
        )

    async def _search(
        self, collections: Sequence[str], request: collection_pb2.SearchDocumentsRequest
    ) -> collection_pb2.SearchDocumentsResponse:
        passages = await self._searcher.search(
            list(dict.fromkeys(collections)),
            request.query,
            min(request.limit or DEFAULT_PASSAGES, MAX_PASSAGES),
        )
        return collection_pb2.SearchDocumentsResponse(passages=[_to_passage(found) for found in passages])

    async def _all(self, tenant: str) -> list[CollectionInfo]:
        return await self._chroma.list_collections(f"tenants/{tenant}")

    async def _counted(self, info: CollectionInfo) -> collection_pb2.Collection:
        return _to_collection(info, len(await self._chroma.list_documents(info.name)))


def _collection(tenant: str, collection: str) -> str:
    """The resource name of a collection that may be made.

    :raises DomainError: INVALID_ID.
    """
    return str(Name(tenant, "collections", check_id("collection", collection, shortest=SHORTEST_ID)))


def _to_collection(info: CollectionInfo, document_count: int) -> collection_pb2.Collection:
    message = collection_pb2.Collection(
        name=info.name, description=info.description, document_count=document_count
    )
    message.create_time.FromNanoseconds(int(info.created_seconds * 1e9))
    return message


def _to_document(collection: str, info: DocumentInfo, *, unchanged: bool = False) -> collection_pb2.Document:
    message = collection_pb2.Document(
        name=f"{collection}/documents/{info.id}",
        source=info.source,
        title=info.title,
        kind=info.kind,
        digest=info.digest,
        version=info.version,
        chunk_count=info.chunk_count,
        unchanged=unchanged,
    )
    message.update_time.FromNanoseconds(int(info.updated_seconds * 1e9))
    return message


def _to_passage(passage: Passage) -> collection_pb2.Passage:
    hit = passage.hit
    return collection_pb2.Passage(
        document=f"{passage.collection}/documents/{hit.document.id}",
        source=hit.document.source,
        heading=hit.heading,
        first_line=hit.first_line,
        last_line=hit.last_line,
        text=hit.text,
        score=passage.score,
        kind=hit.document.kind,
    )
