"""The bundled model: close to fp32, indifferent to the batch, loaded only if it is what its card says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fermata.agents.inference.card import BUNDLED_MODEL
from fermata.agents.inference.embedder import (
    MAX_CHARACTERS,
    OnnxEmbedder,
    batches_by_tokens,
)
from fermata.agents.inference.errors import (
    EmbeddingInputError,
    ModelCardInvalidError,
    ModelDigestMismatchError,
    ModelFileMissingError,
)

HERE = Path(__file__).parent
TEXTS: list[str] = json.loads((HERE / "reference_sentences.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def embedder() -> OnnxEmbedder:
    return OnnxEmbedder(threads=1, cache_texts=0)


@pytest.fixture(scope="module")
def alone(embedder: OnnxEmbedder) -> Any:
    return np.stack([embedder.embed([text])[0] for text in TEXTS])


def test_embeddings_are_close_to_the_fp32_model(alone: Any) -> None:
    fp32 = np.load(HERE / "reference_embeddings.npz")["fp32"].astype(np.float32)
    cosine = (alone * fp32).sum(axis=1)
    assert cosine.mean() >= 0.999
    assert cosine.min() >= 0.995


def test_the_neighbours_are_those_of_the_fp32_model(alone: Any) -> None:
    fp32 = np.load(HERE / "reference_embeddings.npz")["fp32"].astype(np.float32)
    found, expected = (np.argsort(-(rows @ rows.T), axis=1)[:, :10] for rows in (alone, fp32))
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, expected, strict=True)])
    assert overlap >= 0.95


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=24), st.sampled_from([64, 512, 4096]))
def test_an_embedding_does_not_depend_on_its_batch(alone: Any, indices: list[int], budget: int) -> None:
    together = _with_budget(budget).embed([TEXTS[index] for index in indices])
    assert (together * alone[indices]).sum(axis=1).min() >= 0.9999


_by_budget: dict[int, OnnxEmbedder] = {}


def _with_budget(budget: int) -> OnnxEmbedder:
    if budget not in _by_budget:
        _by_budget[budget] = OnnxEmbedder(threads=1, cache_texts=0, max_batch_tokens=budget)
    return _by_budget[budget]


def test_rows_have_length_one_and_the_order_of_the_texts(embedder: OnnxEmbedder) -> None:
    rows = embedder.embed(["short", "a rather longer sentence about a press", "short"])
    assert rows.shape == (3, 384)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(rows[0], rows[2])


def test_no_texts_give_no_rows(embedder: OnnxEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_an_empty_text_has_an_embedding(embedder: OnnxEmbedder) -> None:
    assert np.isfinite(embedder.embed([""])).all()


def test_text_beyond_the_last_token_changes_nothing(embedder: OnnxEmbedder) -> None:
    start = "bearing " * 300
    assert embedder.count_tokens(start) == 256
    np.testing.assert_array_equal(embedder.embed([start]), embedder.embed([start + "and something else"]))


def test_of_a_huge_text_only_the_start_is_read(embedder: OnnxEmbedder) -> None:
    huge = "bearing " * 2_000_000
    np.testing.assert_array_equal(embedder.embed([huge]), embedder.embed([huge[:MAX_CHARACTERS]]))


@pytest.mark.parametrize("bad", [None, 3, b"bytes", ["nested"]])
def test_what_is_not_a_string_is_refused_by_its_place(embedder: OnnxEmbedder, bad: Any) -> None:
    with pytest.raises(EmbeddingInputError, match=r"texts\[1\] is of type") as caught:
        embedder.embed(["fine", bad])
    assert caught.value.index == 1
    assert caught.value.reason == "EMBEDDING_INPUT_INVALID"


def test_a_lone_surrogate_is_refused(embedder: OnnxEmbedder) -> None:
    with pytest.raises(EmbeddingInputError, match="not valid Unicode"):
        embedder.embed(["\ud800"])


def test_recent_texts_come_from_the_cache_and_the_cache_is_bounded() -> None:
    embedder = OnnxEmbedder(threads=1, cache_texts=2)
    first = embedder.embed(["a", "b", "c"])
    np.testing.assert_array_equal(embedder.embed(["c", "b", "a"]), first[::-1])
    assert len(embedder._cache._rows) == 2


async def test_embedding_from_an_event_loop_gives_the_same(embedder: OnnxEmbedder) -> None:
    np.testing.assert_array_equal(await embedder.aembed(["line 3"]), embedder.embed(["line 3"]))


@pytest.fixture
def copied_model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED_MODEL, tmp_path / "model"))


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_changed_file_is_not_loaded(copied_model: Path, name: str) -> None:
    with (copied_model / name).open("r+b") as file:
        file.seek(100)
        file.write(b"\x00")
    with pytest.raises(ModelDigestMismatchError, match=name) as caught:
        OnnxEmbedder(copied_model)
    assert caught.value.reason == "MODEL_DIGEST_MISMATCH"


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "MODEL.toml"])
def test_a_missing_file_is_named(copied_model: Path, name: str) -> None:
    (copied_model / name).unlink()
    with pytest.raises(ModelFileMissingError, match=name):
        OnnxEmbedder(copied_model)


@pytest.mark.parametrize("content", ["name = ", 'name = "x"'])
def test_a_bad_card_is_refused(copied_model: Path, content: str) -> None:
    (copied_model / "MODEL.toml").write_text(content)
    with pytest.raises(ModelCardInvalidError):
        OnnxEmbedder(copied_model)


@given(st.lists(st.integers(1, 256), max_size=60), st.integers(1, 4096))
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    items = [(index, [0] * length) for index, length in enumerate(lengths)]
    batches = list(batches_by_tokens(items, budget))
    assert sorted(index for batch in batches for index, _ in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(ids) for _, ids in batch) <= budget


def test_embedding_leaves_no_trace_of_telemetry_in_the_home_folder(tmp_path: Path) -> None:
    code = "from fermata.agents.inference.embedder import OnnxEmbedder; OnnxEmbedder().embed(['a text'])"
    inherited = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    subprocess.run([sys.executable, "-c", code], env={**inherited, "HOME": str(tmp_path)}, check=True)
    assert [str(p) for p in tmp_path.rglob("*") if p.is_file()] == []
