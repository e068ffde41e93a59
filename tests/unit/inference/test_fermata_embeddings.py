"""``FermataEmbeddings`` takes its own backend, else the installed one, else the model in the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from fermata.agents.inference import embeddings as module
from fermata.agents.inference.embedder import OnnxEmbedder
from fermata.agents.inference.embeddings import FermataEmbeddings, current_backend, use_backend


class Constant:
    """Embeds every text as one number, and remembers what it was asked."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.asked: list[list[str]] = []

    def embed(self, texts: Sequence[str], /) -> Any:
        self.asked.append(list(texts))
        return np.full((len(texts), 2), self.value, dtype=np.float32)

    async def aembed(self, texts: Sequence[str], /) -> Any:
        return self.embed(texts)


@pytest.fixture(autouse=True)
def nothing_installed() -> Iterator[None]:
    previous = use_backend(None)
    yield
    use_backend(previous)


async def test_the_given_backend_comes_first() -> None:
    use_backend(Constant(1))
    own = Constant(2)
    assert FermataEmbeddings(own).embed_query("x") == [2, 2]
    assert await FermataEmbeddings(own).aembed_documents(["x", "y"]) == [[2, 2], [2, 2]]
    assert own.asked == [["x"], ["x", "y"]]


async def test_an_installed_backend_serves_objects_made_before_it() -> None:
    embeddings = FermataEmbeddings()
    assert use_backend(Constant(3)) is None
    assert embeddings.embed_documents(["x"]) == [[3, 3]]
    assert await embeddings.aembed_query("x") == [3, 3]


def test_without_any_the_bundled_model_is_loaded_once() -> None:
    backend = current_backend()
    assert isinstance(backend, OnnxEmbedder)
    assert current_backend() is backend
    assert len(FermataEmbeddings().embed_query("line 3")) == 384


def test_a_forked_child_embeds_with_the_model_of_its_parent() -> None:
    parent = current_backend()
    expected = parent.embed(["before the fork"])
    with module._lock:  # as if another thread held it at that moment
        child = os.fork()
        if child == 0:  # nothing but the exit status may leave the child
            signal.alarm(20)
            same = current_backend() is parent and np.allclose(parent.embed(["before the fork"]), expected)
            fresh = parent.embed(["after the fork"]).shape == (1, 384)
            os._exit(0 if same and fresh else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_no_documents_give_no_embeddings() -> None:
    assert FermataEmbeddings().embed_documents([]) == []
