"""Knowledge in a real Chroma server: stored, replaced, found with citations, gone, and Chroma gone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fermata.agents.inference.embedder import OnnxEmbedder
from fermata.server.errors import DomainError, ErrorKind
from fermata.server.knowledge.chroma import ChromaStore
from fermata.server.knowledge.errors import (
    ChromaUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    DocumentError,
    DocumentNotFoundError,
    QueryInvalidError,
)
from fermata.server.knowledge.ingest import Ingestor, Progress, document_id
from fermata.server.knowledge.search import Searcher

FACTORY = Path(__file__).parents[3] / "agents/fermata/agents/factory"
PLANT = "tenants/default/collections/plant"
READY_SECONDS = 60


class FixedClock:
    def now(self) -> float:
        return 1_700_000_000.0

    def monotonic(self) -> float:
        return 0.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_chroma(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(folder)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "ANONYMIZED_TELEMETRY": "False", "ORT_DISABLE_TELEMETRY": "1"},
    )
    for _ in range(READY_SECONDS * 10):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/heartbeat", timeout=1):
                return process
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "chroma ended by itself"
            time.sleep(0.1)
    process.kill()
    raise AssertionError("chroma did not get ready")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def chroma_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    process = start_chroma(tmp_path_factory.mktemp("chroma"), port)
    yield f"http://127.0.0.1:{port}"
    stop(process)


@pytest.fixture(scope="module")
def model() -> OnnxEmbedder:
    return OnnxEmbedder()


@pytest.fixture
async def store(chroma_url: str) -> AsyncIterator[ChromaStore]:
    store = ChromaStore(chroma_url)
    for info in await store.list_collections("tenants/default"):
        await store.delete_collection(info.name)
    yield store
    await store.close()


@pytest.fixture
def ingestor(store: ChromaStore, model: OnnxEmbedder) -> Ingestor:
    return Ingestor(store, model.aembed, FixedClock())


@pytest.fixture
def searcher(store: ChromaStore, model: OnnxEmbedder) -> Searcher:
    return Searcher(store, model.aembed)


def factory_documents() -> list[tuple[str, bytes]]:
    return [(str(path.relative_to(FACTORY)), path.read_bytes()) for path in sorted(FACTORY.glob("*/*.md"))]


async def test_chroma_is_healthy(store: ChromaStore) -> None:
    assert await store.check_health()


async def test_the_right_passage_is_found_and_cited_to_its_line(
    ingestor: Ingestor, searcher: Searcher
) -> None:
    await ingestor.ingest(PLANT, factory_documents())
    best = (await searcher.search([PLANT], "line 3 vibrates badly, what should be done?"))[0].hit
    assert best.document.source == "runbooks/high-vibration.md"
    assert best.document.kind == "runbook"
    lines = (FACTORY / best.document.source).read_text(encoding="utf-8").split("\n")
    assert best.text == "\n".join(lines[best.first_line - 1 : best.last_line])
    assert best.heading.startswith("High vibration")


QUESTIONS = [
    ("line 3 vibrates badly, deal with it", "high-vibration"),
    ("the spindle is far too hot", "heat-dissipation"),
    ("the cutter is blunt", "tool-wear"),
    ("somebody is in danger at line 2", "emergency-stop"),
    ("how do I hand over to the next shift", "shift-handover"),
    ("the sensor shows nonsense values", "sensor-fault"),
    ("start the line again after it tripped", "restart-after-trip"),
    ("stop the line for the weekend", "planned-stop"),
    ("coolant filter blocked", "heat-dissipation"),
]


async def test_a_situation_brings_the_steps_of_the_runbook_for_it(
    ingestor: Ingestor, searcher: Searcher
) -> None:
    await ingestor.ingest(PLANT, factory_documents())
    right = 0
    for question, wanted in QUESTIONS:
        passages = await searcher.search([PLANT], question, 5, kind="runbook")
        first = next(passage.hit for passage in passages if passage.hit.steps)
        right += first.document.source == f"runbooks/{wanted}.md"
    assert right >= len(QUESTIONS) - 1


async def test_a_code_is_found_among_a_thousand_alike(ingestor: Ingestor, searcher: Searcher) -> None:
    alarms = "\n\n".join(
        f"## Alarm E-{n}\n\nThe pump {n % 7} reports fault {n % 5}: look at it soon."
        for n in range(1000, 1300)
    )
    await ingestor.ingest(PLANT, [("alarms.md", alarms.encode())])
    for code in ("E-1017", "E-1171", "E-1299"):
        best = (await searcher.search([PLANT], f"what should I do about alarm {code}?"))[0].hit
        assert best.heading == f"Alarm {code}"


async def test_the_same_content_again_changes_nothing(ingestor: Ingestor, store: ChromaStore) -> None:
    (first,) = await ingestor.ingest(PLANT, [("a.md", b"# A\n\ntext\n")])
    seen: list[Progress] = []
    (again,) = await ingestor.ingest(PLANT, [("a.md", b"# A\n\ntext\n")], seen.append)
    assert (first.unchanged, again.unchanged) == (False, True)
    assert again.document == first.document
    assert seen == []
    assert await store.list_documents(PLANT) == [first.document]


async def test_a_new_version_takes_the_place_of_the_old(
    ingestor: Ingestor, store: ChromaStore, searcher: Searcher
) -> None:
    await ingestor.ingest(PLANT, [("a.md", b"# Kept\n\nsame\n\n# Gone\n\nThe limit is 5 bar.\n")])
    (new,) = await ingestor.ingest(PLANT, [("a.md", b"# New\n\nThe limit is 7 bar.\n\n# Kept\n\nsame\n")])
    assert (new.document.version, new.document.chunk_count) == (2, 2)
    chunks = await store.read_document(PLANT, new.document.id)
    assert [(hit.heading, hit.first_line) for hit in chunks] == [("New", 1), ("Kept", 5)]
    assert all("5 bar" not in p.hit.text for p in await searcher.search([PLANT], "what is the limit in bar"))
    assert [info.version for info in await store.list_documents(PLANT)] == [2]


async def test_a_put_that_was_cut_short_is_mended_by_the_next(ingestor: Ingestor, store: ChromaStore) -> None:
    content = b"# A\n\none\n\n# B\n\ntwo\n"
    (whole,) = await ingestor.ingest(PLANT, [("a.md", content)])
    await store._ask_collection(PLANT, "delete", {"where": {"ordinal": 1}})
    (mended,) = await ingestor.ingest(PLANT, [("a.md", content)])
    assert not mended.unchanged
    assert len(await store.read_document(PLANT, whole.document.id)) == 2


async def test_concurrent_puts_of_one_document_leave_one_version(
    ingestor: Ingestor, store: ChromaStore
) -> None:
    versions = [f"# A\n\ntext {n}\n\n# B\n\nmore {n}\n".encode() for n in range(6)]
    await asyncio.gather(*(ingestor.ingest(PLANT, [("a.md", content)]) for content in versions))
    (info,) = await store.list_documents(PLANT)
    chunks = await store.read_document(PLANT, info.id)
    assert info.version == 6
    assert len({hit.text.split()[-1] for hit in chunks}) == 1
    assert len(chunks) == 2


async def test_a_bad_document_among_good_ones_changes_nothing(ingestor: Ingestor, store: ChromaStore) -> None:
    with pytest.raises(DocumentError, match=r"b\.pdf"):
        await ingestor.ingest(PLANT, [("a.md", b"text"), ("b.pdf", b"text")])
    with pytest.raises(CollectionNotFoundError):
        await store.get_collection(PLANT)


async def test_progress_is_told_chunk_by_chunk(ingestor: Ingestor) -> None:
    content = "".join(f"# Section {n}\n\ntext {n}\n\n" for n in range(70)).encode()
    seen: list[Progress] = []
    await ingestor.ingest(PLANT, [("a.md", content)], seen.append)
    assert [(step.done_chunks, step.total_chunks) for step in seen] == [(32, 70), (64, 70), (70, 70)]


async def test_a_deleted_document_is_gone_and_deleting_again_says_so(
    ingestor: Ingestor, store: ChromaStore, searcher: Searcher
) -> None:
    await ingestor.ingest(PLANT, [("a.md", b"alpha"), ("b.md", b"beta")])
    await store.delete_document(PLANT, document_id("a.md"))
    assert [p.hit.document.source for p in await searcher.search([PLANT], "alpha")] == ["b.md"]
    with pytest.raises(DocumentNotFoundError) as caught:
        await store.delete_document(PLANT, document_id("a.md"))
    assert caught.value.reason == "DOCUMENT_NOT_FOUND"


async def test_collections_are_made_listed_by_tenant_and_deleted(store: ChromaStore) -> None:
    other = "tenants/other/collections/plant"
    await store.create_collection(PLANT, description="The plant.", now_seconds=5.0)
    await store.create_collection(other, now_seconds=5.0)
    with pytest.raises(CollectionExistsError):
        await store.create_collection(PLANT, now_seconds=6.0)
    await store.create_collection(PLANT, now_seconds=7.0, exist_ok=True)
    (info,) = await store.list_collections("tenants/default")
    assert (info.name, info.description, info.created_seconds) == (PLANT, "The plant.", 5.0)
    await store.delete_collection(PLANT)
    await store.delete_collection(other)
    with pytest.raises(CollectionNotFoundError):
        await store.delete_collection(PLANT)


async def test_a_collection_made_anew_elsewhere_is_found_again(
    ingestor: Ingestor, searcher: Searcher, chroma_url: str
) -> None:
    await ingestor.ingest(PLANT, [("a.md", b"alpha")])
    elsewhere = ChromaStore(chroma_url)
    await elsewhere.delete_collection(PLANT)
    with pytest.raises(CollectionNotFoundError):
        await searcher.search([PLANT], "alpha")
    await elsewhere.create_collection(PLANT, now_seconds=0.0)
    assert await searcher.search([PLANT], "alpha") == []
    await elsewhere.close()


async def test_several_collections_are_searched_as_one(ingestor: Ingestor, searcher: Searcher) -> None:
    office = "tenants/default/collections/office"
    await ingestor.ingest(PLANT, [("a.md", b"The pump is blue.")])
    await ingestor.ingest(office, [("a.md", b"The printer is on the second floor.")])
    found = await searcher.search([PLANT, office], "where is the printer?")
    assert [passage.collection for passage in found] == [office, PLANT]
    assert await searcher.search([], "anything") == []


@pytest.mark.parametrize(("query", "limit"), [("", 5), (" \n", 5), ("x" * 10_001, 5), ("x", 0), ("x", 51)])
async def test_a_question_that_is_none_is_refused(searcher: Searcher, query: str, limit: int) -> None:
    with pytest.raises(QueryInvalidError) as caught:
        await searcher.search([PLANT], query, limit)
    assert caught.value.reason == "QUERY_INVALID"


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(DomainError) as caught:
        ChromaStore(url)
    assert caught.value.reason == "CHROMA_URL_INVALID"


def assert_unavailable(error: ChromaUnavailableError, url: str) -> None:
    assert (error.reason, error.kind, error.url) == ("CHROMA_UNAVAILABLE", ErrorKind.UNAVAILABLE, url)
    assert error.retryable
    assert "chroma run" in str(error)


async def test_a_chroma_that_goes_and_comes_back(tmp_path: Path, model: OnnxEmbedder) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = start_chroma(tmp_path, port)
    store = ChromaStore(url, timeout_seconds=1)
    searcher = Searcher(store, model.aembed)
    try:
        await Ingestor(store, model.aembed, FixedClock()).ingest(PLANT, [("a.md", b"alpha")])
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(ChromaUnavailableError, match="no answer in time"):
            await searcher.search([PLANT], "alpha")
        process.send_signal(signal.SIGCONT)
        stop(process)
        with pytest.raises(ChromaUnavailableError) as caught:
            await searcher.search([PLANT], "alpha")
        assert_unavailable(caught.value, url)
        process = start_chroma(tmp_path, port)
        assert [p.hit.document.source for p in await searcher.search([PLANT], "alpha")] == ["a.md"]
    finally:
        process.send_signal(signal.SIGCONT)
        stop(process)
        await store.close()


async def test_what_is_not_chroma_is_told_from_it() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        store = ChromaStore(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(ChromaUnavailableError, match="not Chroma"):
            await store.check_health()
        await store.close()


def test_the_chroma_client_is_not_imported_by_the_server() -> None:
    """It would bring an embedding function that downloads a model, and 70 MB."""
    code = "import sys, fermata.server.knowledge.search; sys.exit('chromadb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
