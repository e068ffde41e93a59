"""A server from start to stop: the control plane, the services over it, and the files by which local clients find it."""

from __future__ import annotations

import json
import logging

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fermata.server.dispatch.sweeper import (
    sweep_approvals,
    sweep_checkpoints,
    sweep_deadlines,
    sweep_latches,
    sweep_workers,
)
from fermata.server.errors import DomainError, ErrorKind
from fermata.server.knowledge.chroma import ChromaStore
from fermata.server.plane import ControlPlane
from fermata.server.principals.callers import Callers
from fermata.server.principals.operations import ensure
from fermata.server.principals.records import new_token
from fermata.server.rpc.agents import AgentService
from fermata.server.rpc.approvals import ApprovalService
from fermata.server.rpc.collections import CollectionService
from fermata.server.rpc.latches import LatchService
from fermata.server.rpc.models import ModelService
from fermata.server.rpc.once import sweep_requests
from fermata.server.rpc.policy import PolicyService
from fermata.server.rpc.principals import PrincipalService
from fermata.server.rpc.runs import RunService
from fermata.server.rpc.surfaces import SurfaceService
from fermata.server.rpc.threads import ThreadService
from fermata.server.rpc.workers import WorkerService
from fermata.server.settings import ServerSettings, write_private
from fermata.server.store.database import Transaction
from fermata.v1 import (
    agent_pb2,
    agent_pb2_grpc,
    approval_pb2,
    approval_pb2_grpc,
    collection_pb2,
    collection_pb2_grpc,
    latch_pb2,
    latch_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    principal_pb2,
    principal_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    surface_pb2,
    surface_pb2_grpc,
    thread_pb2,
    thread_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)

log = logging.getLogger(__name__)

TENANT = "default"
"""The tenant that every store has."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message either way: an agent's pack, a document, a thread's state."""

DRAIN_SECONDS = 5.0
"""How long calls that are under way may take to end when the server stops."""

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two servers on one port would share its connections without a word.
    ("grpc.so_reuseport", 0),
]


class Server:
    """A running server. Make one with :meth:`start`, end it with :meth:`stop`."""

    def __init__(
        self,
        plane: ControlPlane,
        callers: Callers,
        server: grpc.aio.Server,
        chroma: ChromaStore,
        address: str,
    ) -> None:
        self.plane = plane
        self.callers = callers
        self._chroma = chroma
        self.address = address
        self._server = server

    @classmethod
    async def start(cls, settings: ServerSettings) -> Server:
        """Open the store, make the local principals, and serve.

        :raises DomainError: DATA_NOT_WRITABLE, DATA_TOO_NEW, DATA_DAMAGED, PORT_IN_USE.
        """
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        plane = await ControlPlane.open(settings.data, settings.limits, settings.retention)
        try:
            callers = Callers()
            await _ensure_local_principals(plane, settings)
            await plane.read(callers.load)
            server = grpc.aio.server(options=_OPTIONS)
            chroma = ChromaStore(settings.chroma_address)
            add_services(server, plane, callers, chroma)
            address = _listen(server, settings)
            await server.start()
        except BaseException:
            await plane.close()
            raise
        _write_client_file(settings, address)
        start_sweeps(plane)
        log.info("serving on %s", address)
        return cls(plane, callers, server, chroma, address)

    async def stop(self) -> None:
        """Take no more work, let calls end, and close the store. Workers keep their leases."""
        self.plane.draining = True
        for worker in self.plane.workers.all():
            worker.close()
        await self._server.stop(DRAIN_SECONDS)
        await self._chroma.close()
        await self.plane.close()


def start_sweeps(plane: ControlPlane) -> None:
    """Begin what time brings; it goes on until the plane is closed."""
    plane.spawn(sweep_workers(plane), "sweep workers")
    plane.spawn(sweep_approvals(plane), "sweep approvals")
    plane.spawn(sweep_deadlines(plane), "sweep deadlines")
    plane.spawn(sweep_latches(plane), "sweep latches")
    plane.spawn(sweep_requests(plane), "sweep requests")
    plane.spawn(sweep_checkpoints(plane), "sweep checkpoints")


def add_services(server: grpc.aio.Server, plane: ControlPlane, callers: Callers, chroma: ChromaStore) -> None:
    """Let a gRPC server answer for the control plane."""
    collections = CollectionService(plane, callers, chroma)
    run_pb2_grpc.add_RunServiceServicer_to_server(RunService(plane, callers), server)
    thread_pb2_grpc.add_ThreadServiceServicer_to_server(ThreadService(plane, callers), server)
    approval_pb2_grpc.add_ApprovalServiceServicer_to_server(ApprovalService(plane, callers), server)
    latch_pb2_grpc.add_LatchServiceServicer_to_server(LatchService(plane, callers), server)
    agent_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(plane, callers), server)
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(PolicyService(plane, callers), server)
    collection_pb2_grpc.add_CollectionServiceServicer_to_server(collections, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(plane, callers), server)
    principal_pb2_grpc.add_PrincipalServiceServicer_to_server(PrincipalService(plane, callers), server)
    surface_pb2_grpc.add_SurfaceServiceServicer_to_server(SurfaceService(plane, callers), server)
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(
        WorkerService(plane, callers, collections.search_for_run), server
    )
    names = [
        module.DESCRIPTOR.services_by_name[service].full_name
        for module in (
            run_pb2,
            thread_pb2,
            approval_pb2,
            latch_pb2,
            agent_pb2,
            policy_pb2,
            collection_pb2,
            model_pb2,
            principal_pb2,
            surface_pb2,
            worker_pb2,
        )
        for service in module.DESCRIPTOR.services_by_name
    ]
    checks = health.aio.HealthServicer()
    for name in ("", *names):
        checks._server_status[name] = health_pb2.HealthCheckResponse.SERVING
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)


def _listen(server: grpc.aio.Server, settings: ServerSettings) -> str:
    wanted = f"{settings.host}:{settings.port}"
    try:
        if settings.tls_cert is None or settings.tls_key is None:
            port = server.add_insecure_port(wanted)
        else:
            port = server.add_secure_port(wanted, _credentials(settings))
    except RuntimeError as error:
        raise DomainError(
            f"{wanted} is taken by another process. Choose another --port, or end that process.",
            reason="PORT_IN_USE",
            kind=ErrorKind.FAILED_PRECONDITION,
            address=wanted,
        ) from error
    return f"{settings.host}:{port}"


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials:
    assert settings.tls_key is not None
    assert settings.tls_cert is not None
    authority = settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None
    return grpc.ssl_server_credentials(
        [(settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )


async def _ensure_local_principals(plane: ControlPlane, settings: ServerSettings) -> None:
    """The person at this machine, known by a token file that only they can read, and the workers."""
    token_file = settings.data / "token"
    if not token_file.exists():
        write_private(token_file, new_token() + "\n")
    local = token_file.read_text().strip()
    worker = settings.worker_token_file.read_text().strip() if settings.worker_token_file else ""

    def operation(transaction: Transaction) -> None:
        ensure(
            transaction,
            TENANT,
            "local",
            principal_pb2.PRINCIPAL_KIND_USER,
            (principal_pb2.ROLE_ADMIN, principal_pb2.ROLE_OPERATOR, principal_pb2.ROLE_APPROVER),
            local,
        )
        if worker:
            ensure(transaction, TENANT, "worker", principal_pb2.PRINCIPAL_KIND_WORKER, (), worker)

    await plane.write(operation)


_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - compared, not bound


def _write_client_file(settings: ServerSettings, address: str) -> None:
    """For clients on this machine: where the server is, with what token, and by which certificate it is known."""
    host, _, port = address.rpartition(":")
    # Who listens everywhere is reached here by the loopback address, which is one that a certificate can name.
    content = {
        "address": f"{_LOOPBACK_OF.get(host, host)}:{port}",
        "token_file": str((settings.data / "token").absolute()),
    }
    if settings.tls_cert is not None:
        content["ca_file"] = str(settings.tls_cert.absolute())
    write_private(settings.data / "client.json", json.dumps(content) + "\n")
