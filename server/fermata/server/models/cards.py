"""Model cards, ``MODEL.toml``: what a model is, where it comes from, and the digests of its files."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fermata.v1 import model_pb2

_SERVED_FROM = "fermata.agents"
_MODELS = "inference/models"
_WEIGHTS = "model.onnx"
EMBEDDING = "sentence embedding"
"""The task of a model that gives texts their vectors."""


def bundled() -> list[model_pb2.Model]:
    """The models that come with this installation, by name. The workers serve all of them.

    :raises FileNotFoundError: the installation has none: it is not whole.
    """
    spec = importlib.util.find_spec(_SERVED_FROM)
    folders = spec.submodule_search_locations if spec is not None else None
    cards = sorted(card for folder in folders or () for card in Path(folder, _MODELS).glob("*/MODEL.toml"))
    if not cards:
        raise FileNotFoundError(
            f"There is no {_MODELS}/*/MODEL.toml beside {_SERVED_FROM}; install Fermata again."
        )
    return [_to_message(tomllib.loads(card.read_text())) for card in cards]


def embedding(models: Sequence[model_pb2.Model]) -> model_pb2.Model:
    """The one of `models` that embeds texts."""
    return next(model for model in models if model.task == EMBEDDING)


def _to_message(card: dict[str, Any]) -> model_pb2.Model:
    return model_pb2.Model(
        name=f"models/{card['name']}",
        task=card["task"],
        digest=card["sha256"][_WEIGHTS],
        precision=card["precision"],
        dimensions=card["dimensions"],
        license=card["license"],
    )
