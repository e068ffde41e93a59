"""Where the server is, and how to open a channel to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
KEEPALIVE_SECONDS = 10.0
KEEPALIVE_TIMEOUT_SECONDS = 5.0
MAX_CONNECT_BACKOFF_SECONDS = 1.0


@dataclass(frozen=True)
class ServerTarget:
    """A server's address and what it takes to be let in. Picklable, for it travels to the workers."""

    address: str
    """``host:port``."""
    token_file: Path
    """Holds the worker token. Read at every connection, so that a new token needs no restart."""
    tls_ca: Path | None = None
    """Root certificates in PEM; ``None`` speaks without TLS."""
    tls_certificate: Path | None = None
    """Our own certificate chain in PEM, where the server asks for one; with ``tls_key``."""
    tls_key: Path | None = None
    tls_server_name: str = ""
    """The name in the server's certificate, where it isn't the host of ``address``."""

    def open_channel(self) -> grpc.aio.Channel:
        """A channel to the server. It reconnects by itself; nothing is sent yet.

        :raises OSError: a TLS file can't be read.
        """
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", int(KEEPALIVE_SECONDS * 1000)),
            ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_SECONDS * 1000)),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", int(MAX_CONNECT_BACKOFF_SECONDS * 1000)),
            # Each worker has its own connection even where several live in one process.
            ("grpc.use_local_subchannel_pool", 1),
            # A proxy from the environment is for the way out of the machine, not for our own processes.
            ("grpc.enable_http_proxy", 0),
        ]
        if self.tls_ca is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        if self.tls_server_name:
            options.append(("grpc.ssl_target_name_override", self.tls_server_name))
        credentials = grpc.ssl_channel_credentials(
            root_certificates=self.tls_ca.read_bytes(),
            private_key=self.tls_key.read_bytes() if self.tls_key else None,
            certificate_chain=self.tls_certificate.read_bytes() if self.tls_certificate else None,
        )
        return grpc.aio.secure_channel(self.address, credentials, options=options)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Call metadata with the bearer token.

        :raises OSError: the token file can't be read.
        """
        return (("authorization", f"Bearer {self.token_file.read_text().strip()}"),)
