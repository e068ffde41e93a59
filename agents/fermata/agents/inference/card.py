"""A model's card, ``MODEL.toml``: what the model is, where it comes from, and the digests of its files."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fermata.agents.inference.errors import (
    ModelCardInvalidError,
    ModelDigestMismatchError,
    ModelFileMissingError,
)

CARD_NAME = "MODEL.toml"
MODELS = Path(__file__).parent / "models"
BUNDLED_MODEL = MODELS / "all-MiniLM-L6-v2"
BUNDLED_READER = MODELS / "fermata-reader"


@dataclass(frozen=True)
class ModelCard:
    """A model in a folder, as its ``MODEL.toml`` describes it."""

    folder: Path
    name: str
    source: str
    license: str
    precision: str
    dimensions: int
    """The width of an embedding."""
    max_tokens: int
    """Longer texts are cut to this many tokens, the two that mark start and end among them."""
    sha256: Mapping[str, str]
    """File name to hexadecimal digest."""

    def read_verified(self, file_name: str) -> bytes:
        """The content of one of the model's files, which is exactly what its card describes.

        :raises ModelFileMissingError: the file is not there.
        :raises ModelDigestMismatchError: the file has another digest.
        """
        path = self.folder / file_name
        content = _read(path)
        found = hashlib.sha256(content).hexdigest()
        expected = self.sha256.get(file_name, "nothing")
        if found != expected:
            raise ModelDigestMismatchError(path, expected, found)
        return content


def read_card(folder: Path) -> ModelCard:
    """The card of the model in a folder.

    :raises ModelFileMissingError: there is no card.
    :raises ModelCardInvalidError: it is not TOML, or lacks a field, or has one of the wrong type.
    """
    path = folder / CARD_NAME
    try:
        fields = tomllib.loads(_read(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelCardInvalidError(path, str(error)) from error
    text = {"name": str, "source": str, "license": str, "precision": str}
    for name, kind in {**text, "dimensions": int, "max_tokens": int, "sha256": dict}.items():
        if not isinstance(fields.get(name), kind):
            raise ModelCardInvalidError(path, f"{name!r} must be there and of type {kind.__name__}")
    return ModelCard(
        folder=folder,
        name=fields["name"],
        source=fields["source"],
        license=fields["license"],
        precision=fields["precision"],
        dimensions=fields["dimensions"],
        max_tokens=fields["max_tokens"],
        sha256={str(file): str(digest) for file, digest in fields["sha256"].items()},
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelFileMissingError(path) from error
