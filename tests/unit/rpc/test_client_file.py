"""What the server leaves for clients on its machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fermata.client import Connection
from fermata.server import serving
from fermata.server.settings import ServerSettings


def _settings(data: Path, certificate: Path | None = None) -> ServerSettings:
    return ServerSettings(
        data=data,
        host="127.0.0.1",
        port=0,
        chroma_address="http://127.0.0.1:1",
        worker_token_file=None,
        tls_cert=certificate,
        tls_key=certificate,
        tls_client_ca=None,
        ready_fd=None,
    )


@pytest.mark.parametrize(
    ("listening", "reached"),
    [
        ("127.0.0.1:7433", "127.0.0.1:7433"),
        ("0.0.0.0:7433", "127.0.0.1:7433"),
        ("[::]:7433", "[::1]:7433"),
        ("10.0.0.5:7433", "10.0.0.5:7433"),
    ],
)
def test_a_server_that_listens_everywhere_is_reached_on_loopback(
    tmp_path: Path, listening: str, reached: str
) -> None:
    serving._write_client_file(_settings(tmp_path), listening)
    assert json.loads((tmp_path / "client.json").read_text())["address"] == reached


def test_a_relative_certificate_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server.pem").touch()
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.chdir(tmp_path)
    serving._write_client_file(_settings(data, Path("server.pem")), "0.0.0.0:7433")
    (data / "token").write_text("fmt_token")
    (data / "token").chmod(0o600)
    monkeypatch.chdir("/")
    found = Connection.discover(data=data, environment={})
    assert (found.target, found.ca_file, found.tls) == ("127.0.0.1:7433", tmp_path / "server.pem", True)
