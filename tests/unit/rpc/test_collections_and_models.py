"""Knowledge and models over gRPC, with a worker that embeds and a Chroma in memory."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from fermata.v1 import collection_pb2, model_pb2

PARENT = "tenants/default"
MANUALS = f"{PARENT}/collections/manuals"
TEXT = b"# Pump\n\nThe pump P-101 moves water.\n\n## Alarm E-217\n\nClose the valve first.\n"


def _create(collection: str = "manuals", request_id: str = "", description: str = "Manuals.") -> Any:
    return collection_pb2.CreateCollectionRequest(
        parent=PARENT,
        collection_id=collection,
        collection=collection_pb2.Collection(description=description),
        request_id=request_id,
    )


def _ingest(
    content: bytes = TEXT, source: str = "pump.md", request_id: str = "", parent: str = MANUALS
) -> collection_pb2.IngestDocumentRequest:
    return collection_pb2.IngestDocumentRequest(
        parent=parent, source=source, content=content, request_id=request_id
    )


def _search(query: str = "alarm E-217", **values: Any) -> collection_pb2.SearchDocumentsRequest:
    return collection_pb2.SearchDocumentsRequest(parent=PARENT, query=query, **values)


async def test_a_collection_is_made_once(admin: Any) -> None:
    made = await admin.call("CollectionService.CreateCollection", _create(request_id="c1"))
    assert (made.name, made.description, made.document_count) == (MANUALS, "Manuals.", 0)
    assert await admin.call("CollectionService.CreateCollection", _create(request_id="c1")) == made
    other = await admin.refusal("CollectionService.CreateCollection", _create("other", request_id="c1"))
    assert other.reason == "REQUEST_ID_REUSED"
    again = await admin.refusal("CollectionService.CreateCollection", _create())
    assert (again.code, again.reason) == ("ALREADY_EXISTS", "COLLECTION_EXISTS")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (_create("ab"), "INVALID_ID"),
        (_create("../../x"), "INVALID_ID"),
        (_create(description="x" * 501), "DESCRIPTION_TOO_LONG"),
    ],
)
async def test_a_collection_that_makes_no_sense_is_refused(admin: Any, request_: Any, reason: str) -> None:
    assert (await admin.refusal("CollectionService.CreateCollection", request_)).reason == reason


async def test_collections_are_listed_by_name_in_pages(admin: Any) -> None:
    for name in ("manuals", "alarms", "rules"):
        await admin.call("CollectionService.CreateCollection", _create(name))
    request = collection_pb2.ListCollectionsRequest(parent=PARENT, page_size=2)
    first = await admin.call("CollectionService.ListCollections", request)
    request.page_token = first.next_page_token
    second = await admin.call("CollectionService.ListCollections", request)
    names = [entry.name.rsplit("/", 1)[1] for page in (first, second) for entry in page.collections]
    assert (names, second.next_page_token) == (["alarms", "manuals", "rules"], "")


async def test_a_document_is_taken_in_and_the_same_again_changes_nothing(admin: Any, worker: Any) -> None:
    document = await admin.call("CollectionService.IngestDocument", _ingest())
    assert (document.source, document.title, document.version) == ("pump.md", "Pump", 1)
    assert document.digest == hashlib.sha256(TEXT).hexdigest()
    assert document.chunk_count > 0
    assert not document.unchanged
    again = await admin.call("CollectionService.IngestDocument", _ingest())
    assert again.unchanged
    assert (again.name, again.version) == (document.name, 1)
    changed = await admin.call("CollectionService.IngestDocument", _ingest(TEXT + b"\nMore.\n"))
    assert (changed.name, changed.version, changed.unchanged) == (document.name, 2, False)
    request = collection_pb2.GetCollectionRequest(name=MANUALS)
    found = await admin.call("CollectionService.GetCollection", request)
    assert found.document_count == 1


async def test_a_repeated_ingest_gets_the_first_answer(admin: Any, worker: Any) -> None:
    first = await admin.call("CollectionService.IngestDocument", _ingest(request_id="i1"))
    assert await admin.call("CollectionService.IngestDocument", _ingest(request_id="i1")) == first
    refused = await admin.refusal("CollectionService.IngestDocument", _ingest(b"other", request_id="i1"))
    assert refused.reason == "REQUEST_ID_REUSED"
    listed = await admin.call(
        "CollectionService.ListDocuments", collection_pb2.ListDocumentsRequest(parent=MANUALS)
    )
    assert [document.digest for document in listed.documents] == [first.digest]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (_ingest(b""), "DOCUMENT_EMPTY"),
        (_ingest(b" \n"), "DOCUMENT_EMPTY"),
        (_ingest(b"x" * 4_000_001), "DOCUMENT_TOO_LARGE"),
        (_ingest(b"\xff\xfe"), "DOCUMENT_NOT_TEXT"),
        (_ingest(source="pump.pdf"), "DOCUMENT_TYPE_UNSUPPORTED"),
        (_ingest(source=""), "DOCUMENT_SOURCE_INVALID"),
        (_ingest(b"---\na: [\n---\ntext\n"), "DOCUMENT_MALFORMED"),
        (_ingest(parent=f"{PARENT}/collections/AB"), "INVALID_ID"),
        (_ingest(parent=PARENT), "INVALID_NAME"),
        (_ingest(parent="tenants/other/collections/manuals"), "OTHER_TENANT"),
    ],
)
async def test_a_document_that_cannot_be_taken_in_says_why(
    admin: Any, worker: Any, request_: Any, reason: str
) -> None:
    refused = await admin.refusal("CollectionService.IngestDocument", request_)
    assert refused.reason == reason
    collections = await admin.call(
        "CollectionService.ListCollections", collection_pb2.ListCollectionsRequest(parent=PARENT)
    )
    assert not collections.collections


async def test_documents_are_listed_by_source_in_pages_and_deleted_once(admin: Any, worker: Any) -> None:
    for source in ("b.md", "a.md", "c.txt"):
        await admin.call("CollectionService.IngestDocument", _ingest(source=source))
    request = collection_pb2.ListDocumentsRequest(parent=MANUALS, page_size=2)
    first = await admin.call("CollectionService.ListDocuments", request)
    request.page_token = first.next_page_token
    second = await admin.call("CollectionService.ListDocuments", request)
    documents = [*first.documents, *second.documents]
    assert [document.source for document in documents] == ["a.md", "b.md", "c.txt"]
    deletion = collection_pb2.DeleteDocumentRequest(name=documents[0].name)
    await admin.call("CollectionService.DeleteDocument", deletion)
    again = await admin.refusal("CollectionService.DeleteDocument", deletion)
    assert (again.code, again.reason) == ("NOT_FOUND", "DOCUMENT_NOT_FOUND")


async def test_a_collection_is_deleted_once_by_an_admin(admin: Any, make: Any) -> None:
    await admin.call("CollectionService.CreateCollection", _create())
    request = collection_pb2.DeleteCollectionRequest(name=MANUALS)
    operator = await make("ann", "OPERATOR")
    refused = await operator.refusal("CollectionService.DeleteCollection", request)
    assert refused.reason == "PERMISSION_DENIED"
    await admin.call("CollectionService.DeleteCollection", request)
    again = await admin.refusal("CollectionService.DeleteCollection", request)
    assert (again.code, again.reason) == ("NOT_FOUND", "COLLECTION_NOT_FOUND")


async def test_a_search_finds_passages_with_their_place(admin: Any, worker: Any) -> None:
    document = await admin.call("CollectionService.IngestDocument", _ingest())
    found = await admin.call("CollectionService.SearchDocuments", _search(collections=[MANUALS]))
    best = found.passages[0]
    assert (best.document, best.source) == (document.name, "pump.md")
    lines = TEXT.decode().splitlines()[best.first_line - 1 : best.last_line]
    assert "E-217" in best.text
    assert best.text.strip() == "\n".join(lines).strip()
    assert 0 <= best.score <= 1
    everywhere = await admin.call("CollectionService.SearchDocuments", _search(limit=1))
    assert len(everywhere.passages) == 1


async def test_a_search_without_any_collection_finds_nothing(admin: Any, worker: Any) -> None:
    assert not (await admin.call("CollectionService.SearchDocuments", _search())).passages


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (_search(""), "QUERY_INVALID"),
        (_search("x" * 10_001), "QUERY_INVALID"),
        (_search(limit=-1), "QUERY_INVALID"),
        (_search(collections=[f"{PARENT}/collections/none"]), "COLLECTION_NOT_FOUND"),
        (_search(collections=["tenants/other/collections/none"]), "OTHER_TENANT"),
        (_search(collections=["none"]), "INVALID_NAME"),
    ],
)
async def test_a_search_that_makes_no_sense_is_refused(
    admin: Any, worker: Any, request_: Any, reason: str
) -> None:
    assert (await admin.refusal("CollectionService.SearchDocuments", request_)).reason == reason


async def test_a_limit_beyond_the_most_is_cut(admin: Any, worker: Any) -> None:
    await admin.call("CollectionService.IngestDocument", _ingest())
    found = await admin.call("CollectionService.SearchDocuments", _search(limit=9_999))
    assert 1 <= len(found.passages) <= 50


async def test_the_served_models_are_those_on_the_cards(admin: Any) -> None:
    listed = await admin.call("ModelService.ListModels", model_pb2.ListModelsRequest(parent=PARENT))
    model, reader = listed.models
    assert (model.name, model.dimensions, model.license) == ("models/all-MiniLM-L6-v2", 384, "Apache-2.0")
    assert (reader.name, reader.license) == ("models/fermata-reader", "Apache-2.0")
    assert all(len(m.digest) == 64 for m in listed.models)


async def test_texts_become_vectors_in_their_order(admin: Any, worker: Any) -> None:
    request = model_pb2.EmbedTextsRequest(parent=PARENT, texts=["red", "blue"], model="all-MiniLM-L6-v2")
    both = await admin.call("ModelService.EmbedTexts", request)
    one = await admin.call(
        "ModelService.EmbedTexts", model_pb2.EmbedTextsRequest(parent=PARENT, texts=["blue"])
    )
    assert len(both.embeddings) == 2
    assert both.embeddings[1] == one.embeddings[0]
    assert sum(value * value for value in one.embeddings[0].values) == pytest.approx(1.0, abs=1e-5)
    assert both.model == "models/all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("texts", "model", "reason", "field"),
    [
        ([], "", "TEXTS_COUNT", "texts"),
        (["a"] * 513, "", "TEXTS_COUNT", "texts"),
        (["a", " "], "", "TEXT_EMPTY", "texts[1]"),
        (["a" * 20_001], "", "TEXT_TOO_LONG", "texts[0]"),
        (["a"], "models/other", "MODEL_NOT_FOUND", ""),
    ],
)
async def test_texts_that_cannot_be_embedded_are_refused(
    admin: Any, worker: Any, texts: list[str], model: str, reason: str, field: str
) -> None:
    request = model_pb2.EmbedTextsRequest(parent=PARENT, texts=texts, model=model)
    refused = await admin.refusal("ModelService.EmbedTexts", request)
    assert (refused.reason, refused.field) == (reason, field)
