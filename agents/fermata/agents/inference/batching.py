"""Many callers, one embedding model: what a shared replica needs, on asyncio and without Ray.

Chosen: batches of bounded tokens, drawn from the waiting calls in turn, so that a question never waits for
more than the batch in flight, however much is being ingested; what arrives meanwhile shares the next one.
Measured on the bundled model, tokens per second hardly grow with the batch, so nobody is kept waiting to fill
one: only under load does a batch that isn't full wait two milliseconds for company. Refused: a queue per
caller and priorities, since taking turns already keeps the short calls short.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from fermata.agents.inference.embedder import MAX_BATCH_TOKENS
from fermata.agents.inference.errors import EmbedderClosedError, EmbedderOverloadedError, EmbeddingInputError

LINGER_SECONDS = 0.002
MAX_WAITING_TEXTS = 8192
CHARACTERS_PER_TOKEN = 4
"""Of English prose in WordPiece, about: only the size of a batch depends on it, not its result."""
MAX_TOKENS_OF_A_TEXT = 256

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class BatchingEmbedder:
    """Coalesces concurrent calls of one event loop into batches for a blocking ``embed`` that runs in a
    thread.

    :param embed: texts to float32 (len(texts), dimensions); called from one thread at a time, longest text
        first.
    :param dimensions: the width of an embedding.
    :param max_batch_tokens: estimated tokens of one call to ``embed``; a longer text goes alone.
    :param linger_seconds: how long a batch that isn't full waits for more, if the one before it had several
        callers.
    :param max_waiting_texts: more than these, over all calls, are refused.
    :param sleep: tests bring their own.
    """

    def __init__(
        self,
        embed: Embed,
        *,
        dimensions: int,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        linger_seconds: float = LINGER_SECONDS,
        max_waiting_texts: int = MAX_WAITING_TEXTS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._embed = embed
        self._dimensions = dimensions
        self._max_batch_tokens = max_batch_tokens
        self._linger_seconds = linger_seconds
        self._max_waiting_texts = max_waiting_texts
        self._sleep = sleep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
        self._calls: deque[_Call] = deque()
        self._waiting_texts = 0
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting_texts(self) -> int:
        """Texts that were accepted and are not yet in a batch."""
        return self._waiting_texts

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of the texts, in their order. Cancelling gives up what is not yet in a batch.

        :returns: float32 (len(texts), dimensions).
        :raises EmbeddingInputError: an element is not a string, or not valid Unicode; nothing was queued.
        :raises EmbedderOverloadedError: too many texts are waiting; nothing was queued.
        :raises EmbedderClosedError: it was closed before these texts were embedded.
        Whatever ``embed`` raises reaches the calls that had texts in that batch, and no others.
        """
        _check(texts)
        if self._closed:
            raise EmbedderClosedError
        if self._waiting_texts + len(texts) > self._max_waiting_texts:
            raise EmbedderOverloadedError(self._waiting_texts, self._max_waiting_texts)
        if not texts:
            return np.empty((0, self._dimensions), dtype=np.float32)
        call = _Call(texts, self._dimensions, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        self._waiting_texts += len(texts)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        try:
            return await call.done
        finally:
            self._drop(call)

    async def close(self) -> None:
        """Refuse new calls, fail those that wait, and return when the batch in flight is done. Twice is
        once."""
        self._closed = True
        for call in list(self._calls):
            call.fail(EmbedderClosedError())
            self._drop(call)
        if self._runner is not None:
            await self._runner
        self._thread.shutdown()

    async def _run(self) -> None:
        busy = False
        while self._calls:
            if busy and not self._fills_a_batch():
                await self._sleep(self._linger_seconds)
            batch = self._next_batch()
            if not batch:
                break
            busy = len({id(call) for call, _ in batch}) > 1
            batch.sort(key=lambda entry: -len(entry[0].texts[entry[1]]))
            await self._embed_batch(batch)
        self._runner = None

    async def _embed_batch(self, batch: list[tuple[_Call, int]]) -> None:
        texts = [call.texts[index] for call, index in batch]
        in_thread = asyncio.get_running_loop().run_in_executor(self._thread, self._embed, texts)
        await asyncio.wait([in_thread])
        error = in_thread.exception()
        if error is not None:
            for call, _ in batch:
                call.fail(error)
                self._drop(call)
            return
        for (call, index), row in zip(batch, in_thread.result(), strict=True):
            call.put(index, row)

    def _fills_a_batch(self) -> bool:
        tokens = 0
        for call in self._calls:
            for index in call.pending:
                tokens += estimated_tokens(call.texts[index])
                if tokens >= self._max_batch_tokens:
                    return True
        return False

    def _next_batch(self) -> list[tuple[_Call, int]]:
        """One text of each call in turn, until the batch is full or nothing waits."""
        batch: list[tuple[_Call, int]] = []
        tokens = 0
        while self._calls:
            call = self._calls[0]
            tokens += estimated_tokens(call.texts[call.pending[0]])
            if batch and tokens > self._max_batch_tokens:
                break
            batch.append((call, call.pending.popleft()))
            self._waiting_texts -= 1
            self._calls.popleft()
            if call.pending:
                self._calls.append(call)
        return batch

    def _drop(self, call: _Call) -> None:
        if call.pending:
            self._waiting_texts -= len(call.pending)
            call.pending.clear()
            self._calls.remove(call)


def estimated_tokens(text: str) -> int:
    """About how many tokens a text is, start and end included, without running the tokenizer."""
    return min(len(text) // CHARACTERS_PER_TOKEN + 2, MAX_TOKENS_OF_A_TEXT)


class _Call:
    """One caller's texts: which still wait, and the rows that are there."""

    def __init__(
        self, texts: Sequence[str], dimensions: int, done: asyncio.Future[NDArray[np.float32]]
    ) -> None:
        self.texts = texts
        self.done = done
        # By length, so that the texts which share a batch are of like length.
        self.pending = deque(sorted(range(len(texts)), key=lambda index: -len(texts[index])))
        self._rows = np.empty((len(texts), dimensions), dtype=np.float32)
        self._missing = len(texts)

    def put(self, index: int, row: NDArray[np.float32]) -> None:
        self._rows[index] = row
        self._missing -= 1
        if self._missing == 0 and not self.done.done():
            self.done.set_result(self._rows)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def _check(texts: Sequence[str]) -> None:
    """Refuse a bad text here, where its place in its own call is known and nobody else's batch fails with
    it."""
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise EmbeddingInputError(index, f"is of type {type(text).__name__}, and must be a string")
        try:
            text.isascii() or text.encode()
        except UnicodeEncodeError as error:
            raise EmbeddingInputError(index, "is not valid Unicode") from error
