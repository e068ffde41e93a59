"""What fermata up refuses before it starts anything."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from fermata.server.up.errors import UNAVAILABLE_EXIT_CODE, StartError, UnavailableError
from fermata.server.up.preflight import (
    check_chroma,
    check_listening,
    check_ray,
    ensure_token,
    lock_data,
    take_port,
)
from fermata.server.up.settings import UpSettings


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(1)
        yield busy.getsockname()[1]


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "some.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    return path


def settings(**values: Any) -> UpSettings:
    return UpSettings.model_validate(values)


def reason_of(values: dict[str, Any]) -> str:
    with pytest.raises(StartError) as caught:
        check_listening(settings(**values))
    return caught.value.reason


def test_beyond_loopback_without_tls_is_refused() -> None:
    assert reason_of({"host": "0.0.0.0"}) == "INSECURE_LISTEN"
    assert reason_of({"host": "example.com"}) == "INSECURE_LISTEN"


def test_beyond_loopback_with_tls_is_fine(pem: Path) -> None:
    check_listening(settings(host="0.0.0.0", tls_cert=pem, tls_key=pem))


def test_loopback_needs_no_tls() -> None:
    check_listening(settings())


def test_half_of_a_pair_of_tls_files_is_refused(pem: Path) -> None:
    assert reason_of({"tls_key": pem}) == "TLS_INVALID"
    assert reason_of({"tls_cert": pem}) == "TLS_INVALID"


def test_clients_with_certificates_need_workers_with_certificates(pem: Path) -> None:
    assert reason_of({"tls_cert": pem, "tls_key": pem, "tls_client_ca": pem}) == "TLS_INVALID"


def test_a_tls_file_that_is_not_there_is_named(tmp_path: Path, pem: Path) -> None:
    with pytest.raises(StartError) as caught:
        check_listening(settings(tls_cert=tmp_path / "none.pem", tls_key=pem))
    assert "--tls-cert" in caught.value.message
    assert "none.pem" in caught.value.message


def test_a_port_in_use_is_named(busy_port: int) -> None:
    with pytest.raises(StartError) as caught:
        take_port("127.0.0.1", busy_port)
    assert caught.value.reason == "PORT_IN_USE"
    assert str(busy_port) in caught.value.message


def test_port_0_takes_a_free_one() -> None:
    assert take_port("127.0.0.1", 0) > 1023


def test_a_host_that_is_no_address_is_refused() -> None:
    with pytest.raises(StartError) as caught:
        take_port("not an address", 1)
    assert caught.value.reason == "HOST_INVALID"


def test_a_second_owner_of_a_data_folder_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    first = lock_data(tmp_path / "data")
    with pytest.raises(StartError) as caught:
        lock_data(tmp_path / "data")
    assert caught.value.reason == "DATA_IN_USE"
    assert caught.value.facts["pid"] == str(os.getpid())
    first.close()
    lock_data(tmp_path / "data").close()


def test_a_data_folder_that_is_a_file_or_in_one_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(StartError) as caught:
            lock_data(place)
        assert caught.value.reason == "DATA_NOT_WRITABLE"
        assert str(place) in caught.value.message


def test_a_new_data_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    lock_data(tmp_path / "a" / "data").close()
    assert stat.S_IMODE((tmp_path / "a" / "data").stat().st_mode) == 0o700


def test_a_token_is_private_and_kept(tmp_path: Path) -> None:
    ensure_token(tmp_path / "token")
    first = (tmp_path / "token").read_text()
    assert len(first.strip()) >= 32
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    ensure_token(tmp_path / "token")
    assert (tmp_path / "token").read_text() == first


def test_a_token_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "token").chmod(0o644)
    ensure_token(tmp_path / "token")
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


@pytest.mark.parametrize("address", ["nowhere", "host:", ":1", "127.0.0.1:x"])
def test_a_malformed_ray_address_is_unavailable(address: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        check_ray(address)
    assert caught.value.reason == "RAY_UNAVAILABLE"
    assert caught.value.exit_code == UNAVAILABLE_EXIT_CODE


def test_a_ray_address_where_nobody_listens_is_unavailable_with_how_to_mend() -> None:
    port = take_port("127.0.0.1", 0)
    with pytest.raises(UnavailableError) as caught:
        check_ray(f"127.0.0.1:{port}")
    assert "ray start --head" in caught.value.message


def test_a_ray_address_where_somebody_listens_is_fine(busy_port: int) -> None:
    check_ray(f"127.0.0.1:{busy_port}")


class _Heartbeat(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/v2/heartbeat" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def test_a_chroma_server_that_answers_is_fine() -> None:
    with HTTPServer(("127.0.0.1", 0), _Heartbeat) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        check_chroma(f"http://127.0.0.1:{server.server_port}/")
        thread.join()


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://127.0.0.1:1", "http://", "http://127.0.0.1:1"])
def test_a_chroma_server_that_is_not_there_is_unavailable_with_how_to_mend(address: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        check_chroma(address)
    assert caught.value.reason == "CHROMA_UNAVAILABLE"
    assert "chroma run" in caught.value.message
