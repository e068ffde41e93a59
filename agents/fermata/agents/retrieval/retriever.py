"""A LangChain retriever over the collections of the run's agent."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from fermata.agents.runtime.services import asearch_documents, search_documents
from fermata.v1 import collection_pb2


class FermataRetriever(BaseRetriever):
    """Finds passages in the knowledge base; works inside a run.

    Each document's metadata has ``source``, ``heading``, ``line`` (the first, from 1), ``kind`` (``runbook``, ``manual`` or empty)
    and ``score`` (0 to 1).
    """

    collections: list[str] = Field(default_factory=list)
    """Collections to look in, by id; all of the agent's where empty."""
    k: int = 5
    """How many passages to return at the most."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return _documents(search_documents(self._request(query)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        """
        :raises OutsideOfRunError: outside of a run.
        :raises ServerRefusedError: where the knowledge base is out of reach, with the server's reason.
        """
        return _documents(await asearch_documents(self._request(query)))

    def _request(self, query: str) -> collection_pb2.SearchDocumentsRequest:
        return collection_pb2.SearchDocumentsRequest(collections=self.collections, query=query, limit=self.k)


def _documents(found: collection_pb2.SearchDocumentsResponse) -> list[Document]:
    documents = []
    for passage in found.passages:
        metadata: dict[str, Any] = {
            "source": passage.source,
            "heading": passage.heading,
            "line": passage.first_line,
            "kind": passage.kind,
            "score": passage.score,
        }
        documents.append(Document(page_content=passage.text, metadata=metadata))
    return documents
