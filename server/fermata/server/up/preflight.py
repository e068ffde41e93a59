"""What is refused before anything is started."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from fermata.server.up.errors import StartError, UnavailableError
from fermata.server.up.settings import UpSettings

REACH_SECONDS = 3.0
LOCK_NAME = "lock"


def check_listening(settings: UpSettings) -> None:
    """Refuses addresses and TLS settings that must not or can't work.

    :raises StartError: INSECURE_LISTEN, TLS_INVALID or PORT_IN_USE, HOST_INVALID.
    """
    if not settings.is_loopback and not settings.has_tls:
        raise StartError(
            "INSECURE_LISTEN",
            f"Listening on {settings.host} lets others reach the API, and without TLS they could read every token. Give --tls-cert "
            "and --tls-key, or listen on 127.0.0.1.",
            host=settings.host,
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise StartError("TLS_INVALID", "--tls-cert and --tls-key belong together; only one is given.")
    if settings.tls_client_ca is not None and not (settings.worker_tls_cert and settings.worker_tls_key):
        raise StartError(
            "TLS_INVALID",
            "With --tls-client-ca workers need a certificate as well: give --worker-tls-cert and --worker-tls-key.",
        )
    for name in ("tls_cert", "tls_key", "tls_client_ca", "tls_ca", "worker_tls_cert", "worker_tls_key"):
        path = getattr(settings, name)
        if path is not None and not os.access(path, os.R_OK):
            flag = "--" + name.replace("_", "-")
            raise StartError("TLS_INVALID", f"{flag} {path} can't be read.", file=str(path))


def take_port(host: str, port: int) -> int:
    """The port, or a free one for 0; nobody else listens there at this moment.

    :raises StartError: PORT_IN_USE, PORT_FORBIDDEN or HOST_INVALID.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise StartError("HOST_INVALID", f"{host!r} is no address to listen on: {error.strerror}.") from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
            probe.listen(1)
        except OSError as error:
            facts = {"host": host, "port": str(port)}
            if error.errno == errno.EADDRINUSE:
                message = f"Port {port} on {host} is in use. End what listens there, or give another --port (0 takes a free one)."
                raise StartError("PORT_IN_USE", message, **facts) from error
            if error.errno == errno.EACCES:
                message = f"Port {port} on {host} needs rights that this user does not have. Give a --port above 1023."
                raise StartError("PORT_FORBIDDEN", message, **facts) from error
            message = f"{host}:{port} can't be listened on: {error.strerror}."
            raise StartError("HOST_INVALID", message, **facts) from error
        return int(probe.getsockname()[1])


def lock_data(data: Path) -> TextIO:
    """Takes a data folder for this process, making it where missing; the lock ends with the returned file.

    :raises StartError: DATA_NOT_WRITABLE or DATA_IN_USE.
    """
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (data / LOCK_NAME).open("a+", encoding="utf-8")
    except OSError as error:
        raise StartError(
            "DATA_NOT_WRITABLE",
            f"The data folder {data} can't be written ({error.strerror}). Change its owner or its rights, or give another --data.",
            data=str(data),
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise StartError(
            "DATA_IN_USE",
            f"The data folder {data} belongs to a running control plane (process {owner}). End it, or give another --data.",
            data=str(data),
            pid=owner,
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def ensure_token(path: Path) -> None:
    """A random token in a file that only its owner can read; one that is there is kept."""
    if path.exists() and path.stat().st_size > 0:
        path.chmod(0o600)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def check_ray(address: str) -> None:
    """Whether something listens at a Ray address. Blocks for at most three seconds.

    :raises UnavailableError: RAY_UNAVAILABLE.
    """
    host, _, port = address.rpartition(":")
    problem = "it must be host:port"
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), REACH_SECONDS).close()
        except OSError as error:
            problem = str(error)
        else:
            return
    raise UnavailableError(
        "RAY_UNAVAILABLE",
        f"There is no Ray cluster at {address}: {problem}. Start it (ray start --head), mend --ray-address, or leave it out to start "
        "one here.",
        address=address,
    )


def check_chroma(address: str) -> None:
    """Whether a Chroma server answers at an address. Blocks for at most three seconds.

    :raises UnavailableError: CHROMA_UNAVAILABLE.
    """
    problem = "it must be http://host:port"
    if urlsplit(address).scheme in ("http", "https") and urlsplit(address).hostname:
        try:
            with urllib.request.urlopen(  # noqa: S310 - the scheme is checked
                f"{address.rstrip('/')}/api/v2/heartbeat", timeout=REACH_SECONDS
            ):
                return
        except (OSError, ValueError) as error:
            problem = str(error)
    raise UnavailableError(
        "CHROMA_UNAVAILABLE",
        f"There is no Chroma server at {address}: {problem}. Start it (chroma run), mend --chroma-address, or leave it out to start "
        "one here.",
        address=address,
    )
