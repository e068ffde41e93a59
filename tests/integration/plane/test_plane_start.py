"""How a plane starts, and what it refuses to start with: TLS and tokens, ports, data folders, parts that are not there."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.integration.plane.harness import (
    RAY,
    Driver,
    Effects,
    Plane,
    eventually,
)

from fermata.client import Client, Connection, FermataError
from fermata.v1 import run_pb2

pytestmark = pytest.mark.ray

EXIT_CONFIG = 78
EXIT_UNAVAILABLE = 69
AnyFacts = dict[str, str]


def refused(data: Path, *arguments: str, code: int = EXIT_CONFIG) -> AnyFacts:
    """Start a plane that must not start, and return what it said."""
    command = [sys.executable, "-m", "fermata.server.up", "--data", str(data), "--json", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, ended
    assert ended.stdout == ""
    said: AnyFacts = json.loads(ended.stderr.splitlines()[-1])
    assert said["event"] == "error"
    assert said["message"]
    return said


def test_beyond_loopback_it_does_not_start_without_tls(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert refused(data, "--host", "0.0.0.0", "--port", "0")["reason"] == "INSECURE_LISTEN"
    assert not data.exists(), "nothing was begun"


def test_half_a_certificate_is_refused(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    assert refused(tmp_path / "data", "--tls-cert", str(certificate))["reason"] == "TLS_INVALID"
    absent = str(tmp_path / "absent.pem")
    said = refused(tmp_path / "data", "--tls-cert", absent, "--tls-key", str(key))
    assert (said["reason"], said["file"]) == ("TLS_INVALID", absent)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = refused(tmp_path / "data", "--port", port)
    assert (said["reason"], said["port"]) == ("PORT_IN_USE", port)


def test_a_second_plane_on_the_same_data_is_refused(plane: Plane) -> None:
    assert refused(plane.data, "--port", "0")["reason"] == "DATA_IN_USE"


def test_a_data_folder_that_can_not_be_written(tmp_path: Path) -> None:
    # A file where the folder should be: that stops root as well.
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file" / "data", "--port", "0")["reason"] == "DATA_NOT_WRITABLE"


def test_a_data_folder_of_a_newer_version_is_left_alone(plane: Plane, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (stored,) = [path for path in plane.data.iterdir() if path.suffix in (".db", ".sqlite", ".sqlite3")]
    with sqlite3.connect(data / stored.name) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
    before = (data / stored.name).read_bytes()
    command = [sys.executable, "-m", "fermata.server.up", "--data", str(data), "--port", "0", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode in (EXIT_CONFIG, EXIT_UNAVAILABLE, 70), ended
    assert "DATA_TOO_NEW" in ended.stderr
    assert ended.stdout == ""
    assert (data / stored.name).read_bytes() == before


@pytest.mark.parametrize(
    ("flag", "address", "reason"),
    [
        ("--ray-address", "127.0.0.1:1", "RAY_UNAVAILABLE"),
        ("--chroma-address", "http://127.0.0.1:1", "CHROMA_UNAVAILABLE"),
    ],
)
def test_parts_that_are_named_and_not_there(tmp_path: Path, flag: str, address: str, reason: str) -> None:
    said = refused(tmp_path / "data", "--port", "0", flag, address, code=EXIT_UNAVAILABLE)
    assert (said["reason"], said["address"]) == (reason, address)


def test_a_setting_that_is_none_is_named_with_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "fermata.toml").write_text("port = 70000\ncolour = 'red'\n")
    said = refused(tmp_path)
    assert said["reason"] == "CONFIG_INVALID"
    assert "port" in said["message"]
    assert "colour" in said["message"]
    assert "fermata.toml" in said["message"]


def test_the_token_file_is_for_its_owner_alone(plane: Plane) -> None:
    for name in ("token", "worker-token"):
        assert (plane.data / name).stat().st_mode & 0o777 == 0o600


async def test_a_workers_token_opens_nothing_but_the_workers_service(plane: Plane) -> None:
    token = (plane.data / "worker-token").read_text().strip()
    async with Client(plane.connection(token)) as worker:
        for call in (
            worker.runs.list(),
            worker.agents.list(),
            worker.approvals.list(),
            worker.latches.list(),
        ):
            assert await _reason(call) == "PERMISSION_DENIED"


async def test_over_tls_clients_and_workers_do_their_work(tmp_path: Path, effects: Effects) -> None:
    certificate, key = self_signed(tmp_path)
    plane = Plane(
        tmp_path / "data",
        *("--host", "127.0.0.1", "--workers", "1", "--tls-cert", str(certificate), "--tls-key", str(key)),
    )
    try:
        async with Client(plane.connection()) as client:
            assert client.connection.tls
            run = await Driver(plane, client).talk(
                "asynchronous", [("pay", {"mark": str(effects), "amount": 1})]
            )
            (shown,) = await run.asked()
            await client.approvals.approve(shown)
            await run.succeeded()
            assert effects.lines() == ["pay 1 EUR"]
        token = (plane.data / "token").read_text().strip()
        async with Client(Connection(plane.address, token), deadline_seconds=3) as plain:
            assert await _reason(plain.runs.list()) in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        other, _ = self_signed(tmp_path, "other")
        distrustful = Connection(plane.address, token, ca_file=other)
        async with Client(distrustful, deadline_seconds=3) as client:
            assert await _reason(client.runs.list()) in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        await _losing_ray_is_survived(plane, effects)
    finally:
        code = plane.stop()
    assert code == 0, plane.tail()


async def _losing_ray_is_survived(plane: Plane, effects: Effects) -> None:
    """On this plane, which no other test needs: Ray is killed, and a run that waits goes on with new workers."""
    async with Client(plane.connection()) as client:
        driver = Driver(plane, client)
        await plane.agent(client, "asynchronous")
        run = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 2})])
        (shown,) = await run.asked()
        before = {worker.worker for worker in await driver.workers(1)}
        plane.kill(RAY)

        async def replaced() -> bool:
            return bool({worker.worker for worker in await driver.workers(1)} - before)

        await eventually("there is another worker", replaced, 120)
        await client.approvals.approve(shown)
        done = await run.ended(run_pb2.RUN_STATE_SUCCEEDED)
        assert done.worker not in before
        assert effects.lines() == ["pay 1 EUR", "pay 2 EUR"]


async def _reason(call: Awaitable[object]) -> str:
    with pytest.raises(FermataError) as caught:
        await call
    return caught.value.reason


def self_signed(folder: Path, name: str = "server") -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and localhost, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    paths[1].chmod(0o600)
    return paths
