"""Digests over calls (RFC 8785, SHA-256)."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785


def call_digest(tool: str, args: dict[str, Any]) -> str:
    """Digest of a call as a model or a person writes it, in hex: the tool and the arguments, nothing that is injected."""
    return hashlib.sha256(rfc8785.dumps({"tool": tool, "args": args})).hexdigest()
