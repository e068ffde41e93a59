"""What can go wrong between a text and its embedding. Each error has a stable ``reason`` and its facts as
attributes."""

from __future__ import annotations

from pathlib import Path


class InferenceError(Exception):
    """Base of this package's errors; ``reason`` is a stable UPPER_SNAKE code."""

    reason = "INFERENCE_FAILED"


class ModelFileMissingError(InferenceError):
    """A file that a model's card names, or the card itself, is not there."""

    reason = "MODEL_FILE_MISSING"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is missing: install the package again, or give the folder of a complete model."
        )
        self.path = path


class ModelCardInvalidError(InferenceError):
    """A model's card can't be read, or lacks a field."""

    reason = "MODEL_CARD_INVALID"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} is not a usable model card: {problem}.")
        self.path = path
        self.problem = problem


class ModelDigestMismatchError(InferenceError):
    """A model file is not the one that its card describes, so it is not loaded."""

    reason = "MODEL_DIGEST_MISMATCH"

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(
            f"{path} has SHA-256 {found}, but its MODEL.toml says {expected}: "
            "the file was changed or cut short. Install the package again, or make the file again "
            "with deploy/models/export_minilm.py."
        )
        self.path = path
        self.expected = expected
        self.found = found


class EmbeddingInputError(InferenceError):
    """One of the texts can't be embedded at all."""

    reason = "EMBEDDING_INPUT_INVALID"

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"texts[{index}] {problem}.")
        self.index = index
        self.problem = problem


class EmbedderOverloadedError(InferenceError):
    """The queue of waiting texts is full. Nothing was queued; the same call may succeed later."""

    reason = "EMBEDDER_OVERLOADED"

    def __init__(self, waiting_texts: int, limit: int) -> None:
        super().__init__(
            f"The embedder has {waiting_texts} texts waiting and takes at most {limit}: "
            "try again later, or send fewer at once."
        )
        self.waiting_texts = waiting_texts
        self.limit = limit


class EmbedderClosedError(InferenceError):
    """The embedder was closed before it came to these texts."""

    reason = "EMBEDDER_CLOSED"

    def __init__(self) -> None:
        super().__init__("The embedder is closed.")
