"""What a run host finds in its environment: nothing of Fermata's or Ray's, what the agent file sets, and its secrets.

Secrets are references (``env:NAME``, ``file:/path``) until this moment, on the worker's machine. Their values are never
logged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fermata.agents.runtime.errors import SecretMissingError
from fermata.v1 import agent_pb2

_WITHHELD = ("FERMATA_TOKEN", "RAY_")
"""Beginnings of variables that no host inherits."""

_DEFAULTS = {
    # Threads that a library starts at import would forbid to fork; a host is one of many on its machine.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "ORT_DISABLE_TELEMETRY": "1",
}


def host_environment(spec: agent_pb2.AgentSpec, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for the processes of a revision, without its secrets.

    :param inherited: the worker's environment; that of this process where None.
    """
    source = os.environ if inherited is None else inherited
    kept = {name: value for name, value in source.items() if not name.startswith(_WITHHELD)}
    return {**_DEFAULTS, **kept, **dict(spec.environment)}


def add_secrets(spec: agent_pb2.AgentSpec) -> None:
    """Read the revision's secrets into ``os.environ``.

    :raises SecretMissingError: names the variable and the reference.
    """
    resolved = {variable: _read(variable, reference) for variable, reference in spec.secrets.items()}
    os.environ.update(resolved)


def _read(variable: str, reference: str) -> str:
    kind, _, place = reference.partition(":")
    if kind == "env" and place:
        if place in os.environ and not place.startswith(_WITHHELD):
            return os.environ[place]
        raise SecretMissingError(variable, reference, "the worker's environment does not have it")
    if kind == "file" and place:
        try:
            return Path(place).read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SecretMissingError(
                variable,
                reference,
                f"the file can't be read ({error.strerror or error})"
                if isinstance(error, OSError)
                else "the file is not UTF-8",
            ) from None
    raise SecretMissingError(variable, reference, "a reference is env:NAME or file:/path")
