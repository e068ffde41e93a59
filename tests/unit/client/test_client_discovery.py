"""How a client finds its server, and what it refuses to do with a token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fermata.client import Connection, LocalError
from fermata.client.config import read_token_file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    token = folder / "token"
    token.write_text("from-data\n")
    token.chmod(0o600)
    (folder / "client.json").write_text(
        json.dumps({"address": "127.0.0.1:1111", "token_file": "token", "ca_file": None})
    )
    return folder


def token_file(folder: Path, content: str, mode: int = 0o600) -> Path:
    path = folder / "given"
    path.write_text(content)
    path.chmod(mode)
    return path


def test_the_data_folder_is_found_through_the_environment(data: Path) -> None:
    found = Connection.discover(environment={"FERMATA_DATA": str(data)})
    assert (found.target, found.token, found.tls) == ("127.0.0.1:1111", "from-data", False)


def test_the_environment_goes_before_the_data_folder(data: Path) -> None:
    found = Connection.discover(
        environment={
            "FERMATA_DATA": str(data),
            "FERMATA_ADDRESS": "127.0.0.1:2222",
            "FERMATA_TOKEN": "from-env",
        }
    )
    assert (found.target, found.token) == ("127.0.0.1:2222", "from-env")


def test_arguments_go_before_the_environment(data: Path, tmp_path: Path) -> None:
    found = Connection.discover(
        address="127.0.0.1:3333",
        token_file=token_file(tmp_path, "from-file"),
        tenant="acme",
        environment={
            "FERMATA_ADDRESS": "127.0.0.1:2222",
            "FERMATA_TOKEN": "from-env",
            "FERMATA_TENANT": "other",
        },
    )
    assert (found.target, found.token, found.tenant) == ("127.0.0.1:3333", "from-file", "acme")


def test_a_token_in_the_environment_goes_with_the_data_folders_address(data: Path) -> None:
    found = Connection.discover(environment={"FERMATA_DATA": str(data), "FERMATA_TOKEN": "from-env"})
    assert (found.target, found.token) == ("127.0.0.1:1111", "from-env")


def test_the_data_folders_token_is_not_sent_to_another_server(data: Path) -> None:
    found = Connection.discover(environment={"FERMATA_DATA": str(data), "FERMATA_ADDRESS": "127.0.0.1:9"})
    assert found.token == ""


def test_no_server_is_named_anywhere(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="fermata up") as caught:
        Connection.discover(environment={"FERMATA_DATA": str(tmp_path)})
    assert caught.value.reason == "NO_SERVER_CONFIGURED"


@pytest.mark.parametrize("content", ["{", "[]", '{"address": 3}'])
def test_a_malformed_client_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "client.json").write_text(content)
    with pytest.raises(LocalError, match=r"client\.json") as caught:
        Connection.discover(environment={"FERMATA_DATA": str(tmp_path)})
    assert caught.value.reason == "CLIENT_FILE_MALFORMED"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(LocalError, match="chmod 600") as caught:
        read_token_file(token_file(tmp_path, "secret", mode))
    assert caught.value.reason == "TOKEN_FILE_EXPOSED"
    assert "secret" not in str(caught.value)


def test_a_missing_and_an_empty_token_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError) as missing:
        read_token_file(tmp_path / "none")
    assert missing.value.reason == "TOKEN_FILE_MISSING"
    with pytest.raises(LocalError) as empty:
        read_token_file(token_file(tmp_path, "\n"))
    assert empty.value.reason == "TOKEN_FILE_EMPTY"


@pytest.mark.parametrize(
    "address", ["10.0.0.5:7480", "fermata.example.com:7480", "http://10.0.0.5:7480", "[fd00::1]:7480"]
)
def test_a_token_is_not_sent_in_plain_text_to_another_machine(address: str) -> None:
    with pytest.raises(LocalError) as caught:
        Connection(address, token="secret")
    assert caught.value.reason == "TOKEN_OVER_PLAINTEXT"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:7480", "127.8.8.8:7480", "localhost:7480", "[::1]:7480", "unix:/run/f.sock"]
)
def test_loopback_needs_no_tls(address: str) -> None:
    assert Connection(address, token="secret").is_loopback


def test_tls_is_asked_for_by_scheme_or_by_an_authority(tmp_path: Path) -> None:
    assert Connection("https://fermata.example.com:443", token="t").tls
    assert Connection("fermata.example.com:443", token="t", ca_file=tmp_path / "ca.pem").tls
    assert Connection("https://fermata.example.com:443/").target == "fermata.example.com:443"


@pytest.mark.parametrize("address", ["", "localhost", "host:port", "a b:1", "::1:3"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(LocalError) as caught:
        Connection(address)
    assert caught.value.reason == "ADDRESS_MALFORMED"


@pytest.mark.parametrize("token", ["a b", "a\nb", "é"])
def test_what_is_no_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(LocalError) as caught:
        Connection("127.0.0.1:1", token=token)
    assert caught.value.reason == "TOKEN_MALFORMED"
    assert token not in str(caught.value)


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    with pytest.raises(LocalError) as caught:
        Connection("127.0.0.1:1", client_cert_file=tmp_path / "c.pem")
    assert caught.value.reason == "CLIENT_CERT_INCOMPLETE"


def test_the_token_is_never_shown() -> None:
    assert "secret" not in repr(Connection("127.0.0.1:1", token="secret"))
