"""Concurrent calls share batches, take turns, and don't harm each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fermata.agents.inference.batching import BatchingEmbedder, estimated_tokens
from fermata.agents.inference.errors import (
    EmbedderClosedError,
    EmbedderOverloadedError,
    EmbeddingInputError,
)


class Model:
    """Embeds a text as (its length, its first character); waits at a gate while that is shut; remembers its
    batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, texts: Sequence[str]) -> Any:
        self.batches.append(list(texts))
        self.gate.wait(10)
        if "poison" in texts:
            raise RuntimeError("the session failed")
        return expected(texts)


def expected(texts: Sequence[str]) -> Any:
    return np.array([(len(text), ord(text[0]) if text else 0) for text in texts], np.float32).reshape(-1, 2)


def batching(model: Model, **options: Any) -> BatchingEmbedder:
    return BatchingEmbedder(model, dimensions=2, **{"linger_seconds": 0, **options})


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110  (another thread may make it true)
        await asyncio.sleep(0)


async def test_a_lone_call_goes_at_once() -> None:
    model = Model()
    embedder = batching(model, sleep=_never)
    np.testing.assert_array_equal(await embedder.embed(["line"]), expected(["line"]))
    np.testing.assert_array_equal(await embedder.embed(["lines", "x"]), expected(["lines", "x"]))
    assert model.batches == [["line"], ["lines", "x"]]


async def _never(seconds: float) -> None:
    raise AssertionError(f"slept {seconds}")


async def test_what_arrives_while_a_batch_runs_shares_the_next() -> None:
    model = Model()
    embedder = batching(model)
    model.gate.clear()
    first = asyncio.create_task(embedder.embed(["first"]))
    await until(lambda: model.batches)
    others = [asyncio.create_task(embedder.embed([text])) for text in ("a", "bbb", "cc")]
    await until(lambda: embedder.waiting_texts == 3)
    model.gate.set()
    np.testing.assert_array_equal(await first, expected(["first"]))
    np.testing.assert_array_equal(np.concatenate(await asyncio.gather(*others)), expected(["a", "bbb", "cc"]))
    assert model.batches == [["first"], ["bbb", "cc", "a"]]


async def test_a_short_call_does_not_wait_behind_a_long_one() -> None:
    model = Model()
    embedder = batching(model, max_batch_tokens=3 * estimated_tokens("x" * 40))
    model.gate.clear()
    long = asyncio.create_task(embedder.embed(["x" * 40] * 30))
    await until(lambda: model.batches)
    short = asyncio.create_task(embedder.embed(["question"]))
    await until(lambda: embedder.waiting_texts == 28)
    model.gate.set()
    await short
    assert not long.done()
    assert len(model.batches) <= 3
    assert (await long).shape == (30, 2)


async def test_under_load_a_batch_that_is_not_full_waits_for_company() -> None:
    model = Model()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        late.append(asyncio.create_task(embedder.embed(["late"])))
        await asyncio.sleep(0)

    late: list[asyncio.Task[Any]] = []
    embedder = batching(model, linger_seconds=0.002, sleep=sleep)
    model.gate.clear()
    calls = [asyncio.create_task(embedder.embed([text])) for text in ("a", "b")]
    await until(lambda: model.batches)
    calls.append(asyncio.create_task(embedder.embed(["c"])))
    await until(lambda: embedder.waiting_texts == 1)
    model.gate.set()
    await asyncio.gather(*calls)
    assert slept[0] == 0.002
    assert sorted(model.batches[1]) == ["c", "late"]
    for task in late:
        task.cancel()
    await embedder.close()


async def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    model = Model()
    embedder = batching(model, max_waiting_texts=2)
    model.gate.clear()
    first = asyncio.create_task(embedder.embed(["first"]))
    await until(lambda: model.batches)
    waiting = asyncio.create_task(embedder.embed(["a", "b"]))
    await until(lambda: embedder.waiting_texts == 2)
    with pytest.raises(EmbedderOverloadedError) as caught:
        await embedder.embed(["c"])
    assert (caught.value.reason, caught.value.waiting_texts, caught.value.limit) == (
        "EMBEDDER_OVERLOADED",
        2,
        2,
    )
    model.gate.set()
    await asyncio.gather(first, waiting)
    assert (await embedder.embed(["c"])).shape == (1, 2)


async def test_a_cancelled_call_gives_its_place_back_and_harms_nobody() -> None:
    model = Model()
    embedder = batching(model)
    model.gate.clear()
    in_flight = asyncio.create_task(embedder.embed(["in flight"]))
    await until(lambda: model.batches)
    given_up = asyncio.create_task(embedder.embed(["given up"] * 5))
    kept = asyncio.create_task(embedder.embed(["kept"]))
    await until(lambda: embedder.waiting_texts == 6)
    given_up.cancel()
    in_flight.cancel()
    await until(lambda: given_up.done() and in_flight.done())
    assert embedder.waiting_texts == 1
    model.gate.set()
    np.testing.assert_array_equal(await kept, expected(["kept"]))
    assert model.batches == [["in flight"], ["kept"]]


async def test_a_failed_batch_fails_its_calls_and_no_others() -> None:
    model = Model()
    embedder = batching(model, max_batch_tokens=1)
    bad, good = await asyncio.gather(
        embedder.embed(["poison", "x"]), embedder.embed(["fine"]), return_exceptions=True
    )
    assert isinstance(bad, RuntimeError)
    np.testing.assert_array_equal(good, expected(["fine"]))
    assert embedder.waiting_texts == 0


@pytest.mark.parametrize("bad", [None, 7, b"x", "\ud800"])
async def test_a_bad_text_is_refused_by_its_place(bad: Any) -> None:
    model = Model()
    with pytest.raises(EmbeddingInputError, match=r"texts\[1\]"):
        await batching(model).embed(["fine", bad])
    assert model.batches == []


async def test_no_texts_give_no_rows_and_no_batch() -> None:
    model = Model()
    assert (await batching(model).embed([])).shape == (0, 2)
    assert model.batches == []


async def test_closing_fails_what_waits_finishes_what_runs_and_refuses_the_rest() -> None:
    model = Model()
    embedder = batching(model)
    model.gate.clear()
    running = asyncio.create_task(embedder.embed(["running"]))
    await until(lambda: model.batches)
    waiting = asyncio.create_task(embedder.embed(["waiting"]))
    await until(lambda: embedder.waiting_texts == 1)
    closing = asyncio.create_task(embedder.close())
    with pytest.raises(EmbedderClosedError):
        await waiting
    model.gate.set()
    assert (await running).shape == (1, 2)
    await closing
    await embedder.close()
    with pytest.raises(EmbedderClosedError):
        await embedder.embed(["more"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.text("abc ", max_size=30), max_size=6), st.booleans()), max_size=8),
    st.integers(1, 40),
)
def test_every_call_gets_its_own_rows_in_any_company(
    calls: list[tuple[list[str], bool]], max_batch_tokens: int
) -> None:
    async def scenario() -> None:
        model = Model()
        embedder = batching(model, max_batch_tokens=max_batch_tokens)
        tasks = [asyncio.create_task(embedder.embed(texts)) for texts, _ in calls]
        await asyncio.sleep(0)
        for task, (_, cancelled) in zip(tasks, calls, strict=True):
            if cancelled:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for (texts, cancelled), result in zip(calls, results, strict=True):
            if isinstance(result, BaseException):
                assert cancelled
            else:
                np.testing.assert_array_equal(result, expected(texts))
        assert embedder.waiting_texts == 0
        await embedder.close()
        for batch in model.batches:
            assert len(batch) == 1 or sum(map(estimated_tokens, batch)) <= max_batch_tokens

    asyncio.run(scenario())
