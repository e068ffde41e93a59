"""What the server and the worker do for code inside a run: look things up in the knowledge base, embed texts, and read
what they ask for.

Each function comes in two forms, for sync and for async code; both may be called from any context that belongs to a
run.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from fermata.agents.inference.readings import Pair, Reading
from fermata.agents.runtime.errors import HostError
from fermata.agents.runtime.gate import done, granted, run_of_context
from fermata.agents.runtime.run import ActiveRun, answer_of
from fermata.v1 import collection_pb2, worker_pb2


class OutsideOfRunError(HostError):
    """The service belongs to a run, and the calling code is in none."""

    reason = "OUTSIDE_OF_RUN"


class EmbeddingFailedError(HostError):
    """The worker could not embed the texts; ``reason`` is its reason."""


def search_documents(
    request: collection_pb2.SearchDocumentsRequest,
) -> collection_pb2.SearchDocumentsResponse:
    """Look something up in the collections that the agent may search.

    :raises OutsideOfRunError: where no run is going on.
    :raises ServerRefusedError: where the server refuses, with its reason.
    """
    run = _run("search_documents")
    return answer_of(run.ask(search=request).result()).search


async def asearch_documents(
    request: collection_pb2.SearchDocumentsRequest,
) -> collection_pb2.SearchDocumentsResponse:
    """As ``search_documents``."""
    answer = _run("asearch_documents").ask(search=request)
    await done(answer)
    return answer_of(answer.result()).search


class WorkerEmbeddings:
    """The worker's embedding model, for ``fermata.agents.inference.embeddings.use_backend``: one for all hosts of a
    worker."""

    def embed(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """float32 (len(texts), dimensions), L2-normalised, in the order of the texts.

        :raises OutsideOfRunError: where no run is going on.
        :raises EmbeddingFailedError: where the worker can't embed them.
        """
        run = _run("embed")
        return _vectors(run, _ask_to_embed(run, texts))

    async def aembed(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """As ``embed``."""
        run = _run("aembed")
        answer = _ask_to_embed(run, texts)
        await done(answer)
        return _vectors(run, answer)


class ReadingFailedError(HostError):
    """The worker could not read the texts; ``reason`` is its reason."""


class WorkerReader:
    """The worker's reader, for ``fermata.agents.inference.readings.use_reader``: one for all hosts of a worker."""

    def read(self, pairs: Sequence[Pair], /) -> list[Reading]:
        """A reading of each pair, in their order.

        :raises OutsideOfRunError: where no run is going on.
        :raises ReadingFailedError: where the worker can't read them.
        """
        run = _run("read")
        asked = worker_pb2.ReadPairs(
            pairs=[worker_pb2.ReadPairs.Pair(text=p.text, tool=p.tool, markers=p.markers) for p in pairs]
        )
        result = granted(run, run.ask(read=asked)).read
        if result.HasField("error"):
            raise ReadingFailedError(result.error.message, reason=result.error.reason)
        return [
            Reading(
                _floats(r.kind),
                _floats(r.tags).reshape(len(p.text), -1),
                _floats(r.present),
                _floats(r.match).reshape(len(p.markers), len(p.text)),
            )
            for p, r in zip(pairs, result.readings, strict=True)
        ]


def _floats(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _run(what: str) -> ActiveRun:
    run = run_of_context(what)
    if run is None:
        raise OutsideOfRunError(f"{what} was called where no run is going on.")
    run.check()
    return run


def _ask_to_embed(run: ActiveRun, texts: Sequence[str]) -> Future[worker_pb2.HostReply]:
    return run.ask(embed=worker_pb2.Embed(texts=texts))


def _vectors(run: ActiveRun, answer: Future[worker_pb2.HostReply]) -> NDArray[np.float32]:
    result = granted(run, answer).embed
    if result.HasField("error"):
        raise EmbeddingFailedError(result.error.message, reason=result.error.reason)
    rows = _floats(result.vectors)
    return rows.reshape(result.count, -1) if result.count else rows.reshape(0, 0)
