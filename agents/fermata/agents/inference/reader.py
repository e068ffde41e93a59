"""The bundled reader: an ONNX model in this process. ``readings.py`` says what it is asked and what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from fermata.agents.inference.card import BUNDLED_READER, ModelCard, read_card
from fermata.agents.inference.readings import Pair, Reading, Scores

MAX_BATCH_TOKENS: Final = 1024
"""Tokens, padding included, of one call into the session."""
_KEY_WIDTH: Final = 128
_MATCH_BIAS: Final = 4.0
"""As in training: most words express nothing."""


class OnnxReader:
    """The reader in memory; safe to use from several threads. A pair's reading does not depend on its batch.

    :param folder: holds ``MODEL.toml`` and the files it names.
    :param threads: that one call may use.
    :raises ModelDigestMismatchError: a file differs from what the card says. Also ``ModelFileMissingError``,
        ``ModelCardInvalidError``.
    """

    def __init__(self, folder: Path = BUNDLED_READER, *, threads: int = 1) -> None:
        self.card: ModelCard = read_card(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            self.card.read_verified("model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def read(self, pairs: Sequence[Pair], /) -> list[Reading]:
        """A reading of each pair, in their order."""
        out: list[Reading | None] = [None] * len(pairs)
        waiting: list[int] = []
        longest = 0
        for index in sorted(range(len(pairs)), key=lambda i: -_length(pairs[i])):
            if waiting and longest * (len(waiting) + 1) > MAX_BATCH_TOKENS:
                self._run(pairs, waiting, out)
                waiting = []
            longest = _length(pairs[waiting[0]]) if waiting else _length(pairs[index])
            waiting.append(index)
        if waiting:
            self._run(pairs, waiting, out)
        return [r for r in out if r is not None]

    def _run(self, pairs: Sequence[Pair], indices: list[int], out: list[Reading | None]) -> None:
        width = min(self.card.max_tokens, max(_length(pairs[i]) for i in indices))
        ids = np.zeros((len(indices), width), dtype=np.int64)
        segments = np.zeros_like(ids)
        mask = np.zeros_like(ids)
        for row, index in enumerate(indices):
            text, tool = pairs[index].text, pairs[index].tool
            tokens = [*_CLS, *text, *_SEP, *tool, *_SEP][:width]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
            segments[row, len(text) + 2 : len(tokens)] = 1
        kind, tags, present, query, key = self._session.run(
            ["kind", "tags", "present", "query", "key"],
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments},
        )
        for row, index in enumerate(indices):
            n = len(pairs[index].text)
            at = [min(width - 1, n + 2 + m) for m in pairs[index].markers]
            match = key[row, at] @ query[row, 1 : n + 1].T / math.sqrt(_KEY_WIDTH) - _MATCH_BIAS
            out[index] = Reading(
                _softmax(kind[row]),
                _sigmoid(tags[row, 1 : n + 1]),
                _sigmoid(present[row, at, 0]),
                _sigmoid(match),
            )


_CLS: Final = (101,)
_SEP: Final = (102,)


def _length(pair: Pair) -> int:
    return len(pair.text) + len(pair.tool) + 3


def _sigmoid(x: Any) -> Scores:
    result: Scores = (1.0 / (1.0 + np.exp(-x))).astype(np.float32)
    return result


def _softmax(x: Any) -> Scores:
    e = np.exp(x - x.max())
    result: Scores = (e / e.sum()).astype(np.float32)
    return result
