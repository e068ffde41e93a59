"""A whole server on a loopback port over a real store, with a worker and a Chroma that live in the test."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fermata.server import serving
from fermata.server.knowledge.chroma import CollectionInfo, DocumentInfo, Hit, Vectors
from fermata.server.knowledge.chunking import Chunk
from fermata.server.knowledge.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    DocumentNotFoundError,
)
from fermata.server.settings import ServerSettings
from fermata.server.store.migrate import migrate
from fermata.v1 import (
    agent_pb2,
    agent_pb2_grpc,
    approval_pb2_grpc,
    collection_pb2_grpc,
    latch_pb2_grpc,
    model_pb2_grpc,
    policy_pb2_grpc,
    principal_pb2,
    principal_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    surface_pb2_grpc,
    thread_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)

PARENT = "tenants/default"
DIMENSIONS = 16
WORKER_TOKEN = "fmt_the-worker-of-the-tests"

STUBS = {
    "AgentService": agent_pb2_grpc.AgentServiceStub,
    "ApprovalService": approval_pb2_grpc.ApprovalServiceStub,
    "CollectionService": collection_pb2_grpc.CollectionServiceStub,
    "LatchService": latch_pb2_grpc.LatchServiceStub,
    "ModelService": model_pb2_grpc.ModelServiceStub,
    "PolicyService": policy_pb2_grpc.PolicyServiceStub,
    "PrincipalService": principal_pb2_grpc.PrincipalServiceStub,
    "RunService": run_pb2_grpc.RunServiceStub,
    "SurfaceService": surface_pb2_grpc.SurfaceServiceStub,
    "ThreadService": thread_pb2_grpc.ThreadServiceStub,
    "WorkerService": worker_pb2_grpc.WorkerServiceStub,
}


class RefusedError(Exception):
    """A call that the server refused: the status code's name and the facts of its ErrorInfo."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        super().__init__(error.details())
        self.code = error.code().name
        self.message = error.details() or ""
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.field = ""
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                self.reason, self.metadata, self.domain = info.reason, dict(info.metadata), info.domain
            elif detail.Unpack(request):
                self.field = request.field_violations[0].field


class Caller:
    """Calls the server with one token."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._channel = channel
        self.token = token

    def stub(self, service: str) -> Any:
        return STUBS[service](self._channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    async def call(self, method: str, request: Any) -> Any:
        """Call ``Service.Method``; raises :class:`RefusedError`."""
        service, name = method.split(".")
        try:
            return await getattr(self.stub(service), name)(request, metadata=self.metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            raise RefusedError(error) from None

    async def refusal(self, method: str, request: Any) -> RefusedError:
        with pytest.raises(RefusedError) as caught:
            await self.call(method, request)
        return caught.value


class FakeWorker:
    """A worker at the other end of a real stream: embeds by hashing words, reports ``tools``, and keeps what it is sent."""

    def __init__(self, worker_id: str = "w1", capacity: int = 8) -> None:
        self.id = worker_id
        self.capacity = capacity
        self.tools: list[agent_pb2.ToolInfo] = []
        self.load_error: run_pb2.RunError | None = None
        self.received: asyncio.Queue[worker_pb2.ServerMessage] = asyncio.Queue()
        self.welcome: worker_pb2.Welcome | None = None
        self.silent = False
        """True: it answers no Embed."""
        self._call: Any = None
        self._task: asyncio.Task[None]

    async def connect(self, caller: Caller, leases: Sequence[worker_pb2.Lease] = ()) -> None:
        self._call = caller.stub("WorkerService").Connect(metadata=caller.metadata)
        hello = worker_pb2.WorkerHello(
            worker=self.id, node="here", pid=1, capacity=self.capacity, leases=leases, version="1"
        )
        await self.send(worker_pb2.WorkerMessage(hello=hello))
        first = await self._call.read()
        self.welcome = first.messages[0].welcome
        for message in first.messages[1:]:
            await self._take(message)
        self._task = asyncio.create_task(self._read())

    async def disconnect(self) -> None:
        self._task.cancel()
        self._call.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def ended(self) -> None:
        """Returns when the server has ended the stream."""
        await self._task

    def kinds_received(self) -> list[str]:
        """What has come and was not taken yet."""
        return [str(message.WhichOneof("body")) for message in self.received._queue]  # type: ignore[attr-defined]

    async def send(self, *messages: worker_pb2.WorkerMessage) -> None:
        await self._call.write(worker_pb2.ConnectRequest(messages=messages))

    async def next(self, body: str) -> Any:
        """The next message with this body, of those that are no host replies for others."""
        async with asyncio.timeout(5):
            while True:
                message = await self.received.get()
                if message.WhichOneof("body") == body:
                    return getattr(message, body)

    async def ask(self, lease: worker_pb2.Lease, number: int, **body: Any) -> worker_pb2.HostReply:
        """Send a host's message and wait for its reply."""
        await self.send(worker_pb2.WorkerMessage(host=worker_pb2.HostMessage(lease=lease, id=number, **body)))
        reply = await self.next("host_reply")
        assert reply.id == number
        return reply  # type: ignore[no-any-return]

    async def _read(self) -> None:
        while frame := await self._call.read():
            for message in frame.messages:
                await self._take(message)

    async def _take(self, message: worker_pb2.ServerMessage) -> None:
        match message.WhichOneof("body"):
            case "embed" if not self.silent:
                vectors = np.stack([embedding_of(text) for text in message.embed.texts])
                result = worker_pb2.EmbedResult(
                    id=message.embed.id, count=len(vectors), vectors=vectors.astype("<f4").tobytes()
                )
                await self.send(worker_pb2.WorkerMessage(embed_result=result))
            case "inspect":
                result_of = worker_pb2.InspectResult(
                    id=message.inspect.id,
                    report=agent_pb2.GraphReport(nodes=["agent"], tools=self.tools),
                    error=self.load_error,
                )
                await self.send(worker_pb2.WorkerMessage(inspect_result=result_of))
            case _:
                self.received.put_nowait(message)


def embedding_of(text: str) -> Vectors:
    """Words hashed into buckets, of unit length."""
    vector = np.full(DIMENSIONS, 1e-3, dtype=np.float32)
    for word in text.lower().split():
        vector[hashlib.sha256(word.encode()).digest()[0] % DIMENSIONS] += 1
    return vector / np.linalg.norm(vector)


class FakeChroma:
    """What ``ChromaStore`` promises, in memory."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._collections: dict[str, CollectionInfo] = {}
        self._documents: dict[tuple[str, str], tuple[DocumentInfo, list[Chunk], Vectors]] = {}

    async def close(self) -> None:
        """Nothing to close."""

    async def create_collection(
        self, collection: str, *, description: str = "", now_seconds: float, exist_ok: bool = False
    ) -> None:
        if collection in self._collections and not exist_ok:
            raise CollectionExistsError(collection)
        self._collections.setdefault(collection, CollectionInfo(collection, description, now_seconds))

    async def delete_collection(self, collection: str) -> None:
        await self.get_collection(collection)
        del self._collections[collection]
        self._documents = {key: value for key, value in self._documents.items() if key[0] != collection}

    async def get_collection(self, collection: str) -> CollectionInfo:
        if collection not in self._collections:
            raise CollectionNotFoundError(collection)
        return self._collections[collection]

    async def list_collections(self, tenant: str) -> list[CollectionInfo]:
        return [
            self._collections[name] for name in sorted(self._collections) if name.startswith(tenant + "/")
        ]

    async def put_document(
        self, collection: str, document: DocumentInfo, chunks: Sequence[Chunk], embeddings: Vectors
    ) -> None:
        self._documents[collection, document.id] = (document, list(chunks), embeddings)

    async def delete_document(self, collection: str, document_id: str) -> None:
        await self.get_collection(collection)
        if self._documents.pop((collection, document_id), None) is None:
            raise DocumentNotFoundError(collection, document_id)

    async def find_document(self, collection: str, document_id: str) -> DocumentInfo | None:
        found = self._documents.get((collection, document_id))
        return replace(found[0]) if found else None

    async def list_documents(self, collection: str) -> list[DocumentInfo]:
        await self.get_collection(collection)
        found = [entry[0] for key, entry in self._documents.items() if key[0] == collection]
        return sorted(found, key=lambda info: info.source)

    async def query(
        self,
        collection: str,
        vector: Vectors,
        k: int,
        *,
        where: Mapping[str, Any] | None = None,
        contains: str | None = None,
    ) -> list[Hit]:
        await self.get_collection(collection)
        hits = [
            Hit(
                f"{info.id}-{index}",
                info,
                chunk.heading,
                chunk.first_line,
                chunk.last_line,
                chunk.text,
                chunk.steps,
                float(embeddings[index] @ vector),
            )
            for (name, _), (info, chunks, embeddings) in self._documents.items()
            if name == collection
            for index, chunk in enumerate(chunks)
            if not contains or contains in chunk.text
        ]
        return sorted(hits, key=lambda hit: -hit.score)[:k]


Make = Callable[..., Awaitable[Caller]]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of this version, made once."""
    path = tmp_path_factory.mktemp("store") / "fermata.db"
    migrate(path)
    return path


@pytest.fixture
async def server(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[serving.Server]:
    monkeypatch.setattr(serving, "ChromaStore", FakeChroma)
    monkeypatch.setattr(serving, "DRAIN_SECONDS", 0.0)
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(empty_store, data / "fermata.db")
    (tmp_path / "worker-token").write_text(WORKER_TOKEN)
    started = await serving.Server.start(
        ServerSettings(
            data=data,
            host="127.0.0.1",
            port=0,
            chroma_address="http://127.0.0.1:1",
            worker_token_file=tmp_path / "worker-token",
            tls_cert=None,
            tls_key=None,
            tls_client_ca=None,
            ready_fd=None,
        )
    )
    yield started
    await started.stop()


@pytest.fixture
async def channel(server: serving.Server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture
def admin(channel: grpc.aio.Channel, tmp_path: Path) -> Caller:
    """The local principal: admin, operator and approver."""
    return Caller(channel, (tmp_path / "data" / "token").read_text().strip())


@pytest.fixture
def worker_caller(channel: grpc.aio.Channel) -> Caller:
    return Caller(channel, WORKER_TOKEN)


@pytest.fixture
def make(channel: grpc.aio.Channel, admin: Caller) -> Make:
    """Makes a principal and returns it as a caller: ``await make("ann", "OPERATOR", kind="USER")``."""

    async def made(principal: str, *roles: str, kind: str = "USER") -> Caller:
        response = await admin.call(
            "PrincipalService.CreatePrincipal",
            principal_pb2.CreatePrincipalRequest(
                parent=PARENT,
                principal_id=principal,
                principal=principal_pb2.Principal(
                    kind=principal_pb2.PrincipalKind.Value(f"PRINCIPAL_KIND_{kind}"),
                    roles=[principal_pb2.Role.Value(f"ROLE_{role}") for role in roles],
                ),
            ),
        )
        return Caller(channel, response.token)

    return made


@pytest.fixture
async def worker(worker_caller: Caller) -> AsyncIterator[FakeWorker]:
    """A connected worker, whose graphs have the tools ``look`` (READ) and ``turn`` (UNSAFE)."""
    fake = FakeWorker()
    fake.tools = [
        agent_pb2.ToolInfo(name="look", effect=run_pb2.EFFECT_CLASS_READ, risk="low"),
        agent_pb2.ToolInfo(name="turn", effect=run_pb2.EFFECT_CLASS_UNSAFE),
    ]
    await fake.connect(worker_caller)
    yield fake
    await fake.disconnect()


@pytest.fixture
async def agent(admin: Caller, worker: FakeWorker) -> str:
    """The name of an agent that has been applied."""
    applied = await admin.call(
        "AgentService.ApplyAgent",
        agent_pb2.ApplyAgentRequest(
            name=f"{PARENT}/agents/operator", spec=agent_pb2.AgentSpec(graph="graphs:operator")
        ),
    )
    return str(applied.name)
