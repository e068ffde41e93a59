"""How a client finds its server and proves who it is.

Precedence, for each setting by itself: what the caller passes, then the environment, then ``client.json``
in the local data folder, which a server on this machine writes. The token is only taken from
``client.json`` if the address comes from there too: a token made for one server is not sent to another. A
token file that others can read is refused, and so is sending a token in plain text to another machine.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import LocalError

DEFAULT_TENANT = "default"
CLIENT_FILE = "client.json"
_TOKEN = re.compile(r"[\x21-\x7e]+")
_TLS_SCHEMES = ("https://", "grpcs://")
_PLAIN_SCHEMES = ("http://", "grpc://")


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is, and with what to call it.

    :param target: ``host:port``, or ``unix:path``.
    :param token: bearer token; never shown by ``repr``.
    :param tls: True for TLS; implied by ``ca_file``.
    :param ca_file: PEM file of the authority that signed the server's certificate; the system's authorities
        where None.
    :param client_cert_file: PEM certificate chain of the client, with ``client_key_file``, where the server
        asks for one.
    :param tenant: the tenant that short names belong to.
    :param source: where the address was found, for messages.
    :raises LocalError: TOKEN_OVER_PLAINTEXT, TOKEN_MALFORMED, ADDRESS_MALFORMED, CLIENT_CERT_INCOMPLETE.
    """

    target: str
    token: str = field(default="", repr=False)
    tls: bool = False
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    tenant: str = DEFAULT_TENANT
    source: str = "the caller"

    def __post_init__(self) -> None:
        for scheme in _TLS_SCHEMES + _PLAIN_SCHEMES:
            if self.target.startswith(scheme):
                object.__setattr__(self, "target", self.target.removeprefix(scheme).rstrip("/"))
                object.__setattr__(self, "tls", self.tls or scheme in _TLS_SCHEMES)
        if self.ca_file is not None or self.client_cert_file is not None:
            object.__setattr__(self, "tls", True)
        if not self.target.startswith("unix:") and not re.fullmatch(
            r"(\[[^\]]+\]|[^:/\s]+):\d{1,5}", self.target
        ):
            raise LocalError(
                f"{self.target!r} from {self.source} is no address. Write HOST:PORT, such as 127.0.0.1:7433.",
                reason="ADDRESS_MALFORMED",
                metadata={"address": self.target},
            )
        if (self.client_cert_file is None) != (self.client_key_file is None):
            raise LocalError(
                "A client certificate needs its key, and a key its certificate: set both or neither.",
                reason="CLIENT_CERT_INCOMPLETE",
            )
        if self.token and not _TOKEN.fullmatch(self.token):
            raise LocalError(
                "The token holds blanks or characters that no token has. Copy it again, without line breaks.",
                reason="TOKEN_MALFORMED",
            )
        if self.token and not self.tls and not self.is_loopback:
            raise LocalError(
                f"A token would be sent in plain text to {self.target}. Use TLS: https://{self.target}, "
                "or name the authority's file with --ca-file or FERMATA_CA_FILE.",
                reason="TOKEN_OVER_PLAINTEXT",
                metadata={"address": self.target},
            )

    @property
    def is_loopback(self) -> bool:
        """True where the server is on this machine, as far as the address tells."""
        if self.target.startswith("unix:"):
            return True
        host = self.target.rsplit(":", 1)[0].strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @classmethod
    def discover(
        cls,
        *,
        address: str | None = None,
        token: str | None = None,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        client_cert_file: Path | None = None,
        client_key_file: Path | None = None,
        tenant: str | None = None,
        data: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Connection:
        """Find the server by arguments, then the environment, then the data folder's ``client.json``.

        :param environment: in place of ``os.environ``: FERMATA_ADDRESS, FERMATA_TOKEN, FERMATA_TOKEN_FILE,
            FERMATA_CA_FILE, FERMATA_CLIENT_CERT_FILE, FERMATA_CLIENT_KEY_FILE, FERMATA_TENANT,
            FERMATA_DATA.
        :raises LocalError: NO_SERVER_CONFIGURED where nothing names an address; CLIENT_FILE_MALFORMED,
            TOKEN_FILE_MISSING, TOKEN_FILE_EXPOSED, and what ``Connection`` raises.
        """
        env = os.environ if environment is None else environment
        folder = data or data_folder(env)
        source = "--address" if address else "FERMATA_ADDRESS"
        found_address = address or env.get("FERMATA_ADDRESS", "")
        found_token = token or ""
        found_file = token_file
        if not found_token and found_file is None:
            found_token = env.get("FERMATA_TOKEN", "")
            if not found_token and env.get("FERMATA_TOKEN_FILE"):
                found_file = Path(env["FERMATA_TOKEN_FILE"]).expanduser()
        found_ca = ca_file or _path(env, "FERMATA_CA_FILE")
        local = _client_file(folder) if not found_address else {}
        if not found_address:
            path = folder / CLIENT_FILE
            if "address" not in local:
                raise LocalError(
                    f"No server is named, and there is no {path}. Start one with 'fermata up', "
                    "or name one with --address or FERMATA_ADDRESS.",
                    reason="NO_SERVER_CONFIGURED",
                    metadata={"file": str(path)},
                )
            found_address, source = local["address"], str(path)
            if not found_token and found_file is None and local.get("token_file"):
                found_file = folder / local["token_file"]
            if found_ca is None and local.get("ca_file"):
                found_ca = folder / local["ca_file"]
        if not found_token and found_file is not None:
            found_token = read_token_file(found_file)
        return cls(
            target=found_address,
            token=found_token.strip(),
            ca_file=found_ca,
            client_cert_file=client_cert_file or _path(env, "FERMATA_CLIENT_CERT_FILE"),
            client_key_file=client_key_file or _path(env, "FERMATA_CLIENT_KEY_FILE"),
            tenant=tenant or env.get("FERMATA_TENANT") or DEFAULT_TENANT,
            source=source,
        )


def data_folder(environment: Mapping[str, str]) -> Path:
    """The data folder of the server on this machine: ``$FERMATA_DATA``, or ``~/.local/share/fermata``."""
    given = environment.get("FERMATA_DATA")
    return Path(given).expanduser() if given else Path.home() / ".local" / "share" / "fermata"


def read_token_file(path: Path) -> str:
    """The token in ``path``.

    :raises LocalError: TOKEN_FILE_MISSING, TOKEN_FILE_EXPOSED where its group or others may read it,
        TOKEN_FILE_EMPTY.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failure:
        raise LocalError(
            f"The token file {path} can't be read: {failure.strerror}.",
            reason="TOKEN_FILE_MISSING",
            metadata={"file": str(path)},
        ) from failure
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as opened:
        mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
        if mode & 0o077:
            raise LocalError(
                f"The token file {path} can be read by others (mode {mode:04o}). "
                f"Run: chmod 600 {path}, and rotate the token if others could have read it.",
                reason="TOKEN_FILE_EXPOSED",
                metadata={"file": str(path), "mode": f"{mode:04o}"},
            )
        token = opened.read(8192).strip()
    if not token:
        raise LocalError(
            f"The token file {path} is empty.", reason="TOKEN_FILE_EMPTY", metadata={"file": str(path)}
        )
    return token


def _path(environment: Mapping[str, str], variable: str) -> Path | None:
    value = environment.get(variable)
    return Path(value).expanduser() if value else None


def _client_file(folder: Path) -> dict[str, str]:
    path = folder / CLIENT_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as failure:
        raise LocalError(
            f"{path} can't be read: {failure}. The server writes it at its start.",
            reason="CLIENT_FILE_MALFORMED",
            metadata={"file": str(path)},
        ) from failure
    if not isinstance(content, dict) or not all(
        isinstance(value, str) for value in content.values() if value is not None
    ):
        raise LocalError(
            f"{path} should hold an object with address, token_file and ca_file as texts.",
            reason="CLIENT_FILE_MALFORMED",
            metadata={"file": str(path)},
        )
    return {key: value for key, value in content.items() if value is not None}
