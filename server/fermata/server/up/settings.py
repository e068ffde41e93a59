"""What ``fermata up`` can be told, and by whom: flags, then the environment (``FERMATA_*``), then the TOML
file, then defaults.

The four are merged here in ten lines, so that an error can name the place where its value came from.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fermata.server.up.errors import StartError

ENVIRONMENT_PREFIX = "FERMATA_"
CONFIG_NAME = "fermata.toml"
DEFAULT_PORT = 7433
DEFAULT_DATA = Path("~/.local/share/fermata")


class UpSettings(BaseModel):
    """Settings of a control plane on this machine. Each field is a flag (``--tls-cert``), a variable
    (``FERMATA_TLS_CERT``) and a key of the TOML file (``tls_cert``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(DEFAULT_DATA, description="data folder; made where missing")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    tls_cert: Path | None = Field(None, description="certificate chain of the server, PEM")
    tls_key: Path | None = Field(None, description="its private key, PEM")
    tls_client_ca: Path | None = Field(
        None, description="root certificates that clients must be signed by, PEM"
    )
    tls_ca: Path | None = Field(
        None, description="root certificates by which workers know the server; default: --tls-cert"
    )
    tls_server_name: str = Field("", description="the name in the certificate, for workers on this machine")
    worker_tls_cert: Path | None = Field(
        None, description="the workers' own certificate, needed with --tls-client-ca"
    )
    worker_tls_key: Path | None = Field(None, description="its private key")
    ray_address: str = Field("", description="host:port of a Ray cluster; empty starts one here")
    chroma_address: str = Field("", description="http://host:port of a Chroma server; empty starts one here")
    workers: int = Field(
        default_factory=lambda: min(2, os.cpu_count() or 1), ge=1, le=256, description="worker processes"
    )
    capacity: int = Field(64, ge=1, description="runs that each worker takes at once")
    max_queued_runs: int = Field(100_000, ge=0, description="runs that may wait; 0 for no bound")
    max_queued_runs_per_tenant: int = Field(10_000, ge=0, description="the same for each tenant")
    max_running_runs_per_tenant: int = Field(
        0, ge=0, description="runs of a tenant that are at work at once; 0 for no bound"
    )
    keep_checkpoints: int = Field(
        100, ge=0, description="checkpoints of a thread that are kept, in each namespace; 0 keeps all"
    )
    drain_seconds: float = Field(
        10.0, ge=0, description="how long the server may take to end what it is doing"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="of every process")

    @property
    def is_loopback(self) -> bool:
        """True where only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def has_tls(self) -> bool:
        """True where the server speaks TLS."""
        return self.tls_cert is not None


def load_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], config: Path | None
) -> UpSettings:
    """Settings by their precedence: flags, environment, TOML file, defaults.

    :param flags: only what was given, by field name.
    :param environment: the process's; ``FERMATA_DATA`` also decides where the default file is.
    :param config: the TOML file; without it ``fermata.toml`` in the data folder, if there is one.
    :raises StartError: CONFIG_INVALID: a value or a key is wrong, or the file can't be read; names each.
    """
    given = {name: value for name, value in _from_environment(environment).items() if name not in flags}
    upper = {**given, **flags}
    folder = Path(upper.get("data") or DEFAULT_DATA).expanduser()
    path = config or folder / CONFIG_NAME
    lower = _from_file(path) if config or path.exists() else {}
    try:
        settings = UpSettings.model_validate({**lower, **upper})
    except ValidationError as error:
        problems = [_problem(issue, flags, given, path) for issue in error.errors()]
        raise StartError("CONFIG_INVALID", "; ".join(problems) + ".") from error
    return settings.model_copy(update={"data": settings.data.expanduser().absolute()})


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting. One that is not given leaves nothing behind in the parsed namespace."""
    for name, field in UpSettings.model_fields.items():
        parser.add_argument(
            "--" + name.replace("_", "-"),
            dest=name,
            default=argparse.SUPPRESS,
            metavar=name.split("_")[-1].upper(),
            help=field.description,
        )


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Our variables that say something. Others with our prefix belong to other commands."""
    values = {
        name: environment.get(ENVIRONMENT_PREFIX + name.upper(), "") for name in UpSettings.model_fields
    }
    return {name: value for name, value in values.items() if value}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StartError(
            "CONFIG_INVALID", f"The configuration file {path} can't be read: {error}.", file=str(path)
        ) from error


def _problem(issue: Any, flags: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> str:
    name = str(issue["loc"][0]) if issue["loc"] else ""
    if name in flags:
        place = f"the flag --{name.replace('_', '-')}"
    elif name in given:
        place = f"the variable {ENVIRONMENT_PREFIX}{name.upper()}"
    else:
        place = f"{name!r} in {path}"
    if issue["type"] == "extra_forbidden":
        return f"{place} is not a setting; there are {', '.join(UpSettings.model_fields)}"
    return f"{place} is {issue['input']!r}: {issue['msg']}"
