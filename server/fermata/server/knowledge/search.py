"""A question to cited passages: near in meaning, and with the words that it names letter for letter.

Chosen: the nearest chunks by cosine, joined by the nearest of those that hold a code of the question, ranked
by a weighted sum of cosine and lexical score. Refused: rank fusion, which forgets how near the best is, and
callers want a score that means something.

The steps of a runbook rarely name the trouble that they are for, its other sections do. So its steps count for as much as the
best of its sections, and come along even where they alone would not have been found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from fermata.server.knowledge.chroma import ChromaStore, Hit, Vectors
from fermata.server.knowledge.chunking import RUNBOOK
from fermata.server.knowledge.errors import QueryInvalidError
from fermata.server.knowledge.ingest import Embed
from fermata.server.knowledge.lexical import codes, lexical_scores

CANDIDATES = 40
CANDIDATES_PER_CODE = 10
MAX_CODES = 4
LEXICAL_WEIGHT = 0.3
DEFAULT_PASSAGES = 5
MAX_PASSAGES = 50
MAX_QUERY_CHARACTERS = 10_000


@dataclass(frozen=True)
class Passage:
    """A piece of a document that answers a question, with what a citation needs."""

    collection: str
    hit: Hit
    score: float
    """0 to 1."""


class Searcher:
    """Looks for passages in collections of one Chroma store."""

    def __init__(self, store: ChromaStore, embed: Embed) -> None:
        self._store = store
        self._embed = embed

    async def search(
        self, collections: Sequence[str], query: str, limit: int = DEFAULT_PASSAGES, *, kind: str = ""
    ) -> list[Passage]:
        """The passages that fit best, best first; at most ``limit``.

        :param collections: ``tenants/{t}/collections/{c}``; none give nothing.
        :param kind: only documents of this kind, such as ``runbook``.
        :raises QueryInvalidError: the question is empty or too long, or ``limit`` isn't 1 to 50.
        :raises CollectionNotFoundError: one of the collections is missing.
        """
        if not query.strip() or len(query) > MAX_QUERY_CHARACTERS:
            raise QueryInvalidError(f"A question has 1 to {MAX_QUERY_CHARACTERS:,} characters.")
        if not 1 <= limit <= MAX_PASSAGES:
            raise QueryInvalidError(f"The limit is {limit}, and must be 1 to {MAX_PASSAGES}.")
        vector = (await self._embed([query]))[0]
        found = await asyncio.gather(*(self._candidates(name, query, vector, kind) for name in collections))
        candidates = [(name, hit) for name, hits in zip(collections, found, strict=True) for hit in hits]
        best = rank(query, candidates)[:limit]
        steps = await asyncio.gather(
            *(self._steps(*which, vector) for which in _without_steps(best, candidates))
        )
        return rank(query, [*candidates, *(entry for entries in steps for entry in entries)])[:limit]

    async def _steps(self, collection: str, document: str, vector: Vectors) -> list[tuple[str, Hit]]:
        where = {"$and": [{"document": document}, {"steps": True}]}
        return [
            (collection, hit)
            for hit in await self._store.query(collection, vector, MAX_PASSAGES, where=where)
        ]

    async def _candidates(self, collection: str, query: str, vector: Vectors, kind: str) -> list[Hit]:
        where = {"kind": kind} if kind else None
        lists = await asyncio.gather(
            self._store.query(collection, vector, CANDIDATES, where=where),
            *(
                self._store.query(collection, vector, CANDIDATES_PER_CODE, where=where, contains=code)
                for code in codes(query)[:MAX_CODES]
            ),
        )
        return list({hit.id: hit for hits in lists for hit in hits}.values())


def rank(query: str, candidates: Sequence[tuple[str, Hit]]) -> list[Passage]:
    """(collection, hit) pairs as passages, best first; equal ones in the order of source and line."""
    shares = lexical_scores(query, [f"{hit.heading}\n{hit.text}" for _, hit in candidates])
    scores = [
        (1 - LEXICAL_WEIGHT) * max(hit.score, 0.0) + LEXICAL_WEIGHT * share
        for (_, hit), share in zip(candidates, shares, strict=True)
    ]
    best: dict[tuple[str, str], float] = {}
    for (name, hit), score in zip(candidates, scores, strict=True):
        best[name, hit.document.id] = max(score, best.get((name, hit.document.id), 0.0))
    ranked = [
        (Passage(name, hit, best[name, hit.document.id] if _is_procedure(hit) else score), score)
        for (name, hit), score in zip(candidates, scores, strict=True)
    ]
    ranked.sort(key=lambda pair: (-pair[0].score, -pair[1], pair[0].collection, *_position(pair[0].hit)))
    return [passage for passage, _ in ranked]


def _position(hit: Hit) -> tuple[str, int]:
    return hit.document.source, hit.first_line


def _without_steps(best: Sequence[Passage], candidates: Sequence[tuple[str, Hit]]) -> list[tuple[str, str]]:
    """(collection, document id) of the runbooks that were found without their steps."""
    have = {(name, hit.document.id) for name, hit in candidates if _is_procedure(hit)}
    found = [(p.collection, p.hit.document.id) for p in best if p.hit.document.kind == RUNBOOK]
    return [which for which in dict.fromkeys(found) if which not in have]


def _is_procedure(hit: Hit) -> bool:
    return hit.steps and hit.document.kind == RUNBOOK
