"""What a server process is told. The supervisor, not people, writes this command line; people's configuration is in ``up``."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.lifecycle.schedule import Limits
from fermata.server.threads.retention import Retention

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where a server keeps its data, listens, and finds the others."""

    data: Path
    host: str
    port: int
    chroma_address: str
    worker_token_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    ready_fd: int | None
    limits: Limits = field(default_factory=Limits)
    retention: Retention = field(default_factory=Retention)

    def __post_init__(self) -> None:
        """:raises DomainError: INSECURE_LISTEN, TLS_INCOMPLETE."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise DomainError(
                "TLS needs both --tls-cert and --tls-key.",
                reason="TLS_INCOMPLETE",
                kind=ErrorKind.INVALID_ARGUMENT,
            )
        if self.host not in LOOPBACK and self.tls_cert is None:
            raise DomainError(
                f"Listening on {self.host} without TLS would send tokens in the clear. "
                "Give --tls-cert and --tls-key, or listen on 127.0.0.1.",
                reason="INSECURE_LISTEN",
                kind=ErrorKind.INVALID_ARGUMENT,
                host=self.host,
            )


def parse_arguments(arguments: list[str] | None = None) -> ServerSettings:
    """The settings in a command line.

    :raises DomainError: INSECURE_LISTEN, TLS_INCOMPLETE.
    """
    parser = argparse.ArgumentParser("python -m fermata.server")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7433)
    parser.add_argument("--chroma-address", default="http://127.0.0.1:8000")
    parser.add_argument("--worker-token-file", type=Path)
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--tls-client-ca", type=Path)
    parser.add_argument("--ready-fd", type=int)
    for limit in fields(Limits):
        parser.add_argument(
            f"--max-{limit.name.replace('_', '-')}", type=int, dest=limit.name, default=limit.default
        )
    parser.add_argument("--keep-checkpoints", type=int, default=Retention().checkpoints)
    given = vars(parser.parse_args(arguments))
    limits = Limits(**{limit.name: given.pop(limit.name) for limit in fields(Limits)})
    retention = Retention(given.pop("keep_checkpoints"))
    return ServerSettings(**given, limits=limits, retention=retention)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; it is there whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.replace(path)
