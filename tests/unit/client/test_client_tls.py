"""TLS, with and without a client's certificate."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc import aio

from fermata.client import Client, Connection, LocalError, RetryPolicy, UnavailableError
from fermata.v1 import principal_pb2

PRINCIPAL = "tenants/default/principals/ann"


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""

    certificate: Path
    key: Path


def pair(folder: Path, name: str) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    found = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    found.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return found


async def start(server: Pair, client: Pair | None = None) -> tuple[aio.Server, str]:
    async def caller(request: principal_pb2.GetCallerRequest, context: Any) -> principal_pb2.Principal:
        return principal_pb2.Principal(name=PRINCIPAL)

    handler = grpc.unary_unary_rpc_method_handler(
        caller,
        request_deserializer=principal_pb2.GetCallerRequest.FromString,
        response_serializer=principal_pb2.Principal.SerializeToString,
    )
    grpc_server = aio.server()
    grpc_server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("fermata.v1.PrincipalService", {"GetCaller": handler}),)
    )
    credentials = grpc.ssl_server_credentials(
        [(server.key.read_bytes(), server.certificate.read_bytes())],
        root_certificates=client.certificate.read_bytes() if client else None,
        require_client_auth=client is not None,
    )
    port = grpc_server.add_secure_port("127.0.0.1:0", credentials)
    await grpc_server.start()
    return grpc_server, f"127.0.0.1:{port}"


async def caller_of(connection: Connection) -> str:
    async with Client(connection, retry=RetryPolicy(attempts=1)) as client:
        return (await client.principals.caller()).name


async def test_a_server_is_known_by_its_authority(tmp_path: Path) -> None:
    server = pair(tmp_path, "server")
    running, address = await start(server)
    assert await caller_of(Connection(address, token="t", ca_file=server.certificate)) == PRINCIPAL
    stranger = pair(tmp_path, "stranger")
    with pytest.raises(UnavailableError):
        await caller_of(Connection(address, token="t", ca_file=stranger.certificate))
    await running.stop(None)


async def test_a_client_shows_its_certificate_where_the_server_asks(tmp_path: Path) -> None:
    server, ours = pair(tmp_path, "server"), pair(tmp_path, "ours")
    running, address = await start(server, ours)
    connection = Connection(
        address,
        ca_file=server.certificate,
        client_cert_file=ours.certificate,
        client_key_file=ours.key,
    )
    assert await caller_of(connection) == PRINCIPAL
    with pytest.raises(UnavailableError):
        await caller_of(Connection(address, ca_file=server.certificate))
    await running.stop(None)


async def test_an_authority_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LocalError) as caught:
        await caller_of(Connection("127.0.0.1:1", ca_file=tmp_path / "none.pem"))
    assert caught.value.reason == "CA_FILE_UNREADABLE"
