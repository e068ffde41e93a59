"""Packs: verified, unzipped once, and never outside of their folder."""

from __future__ import annotations

import asyncio
import hashlib
import io
import stat
import zipfile
from pathlib import Path

import pytest

from fermata.server.cluster import packs
from fermata.server.cluster.packs import PackCache, PackError, unpack


def zipped(**files: str) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as pack:
        for name, text in files.items():
            pack.writestr(name, text)
    return buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest()


async def test_concurrent_calls_share_one_fetch_and_later_ones_need_none(tmp_path: Path) -> None:
    content, digest = zipped(**{"a/b.py": "x = 1"})
    fetched: list[str] = []

    async def fetch(wanted: str) -> bytes:
        fetched.append(wanted)
        await asyncio.sleep(0)
        return content

    cache = PackCache(tmp_path, fetch)
    folders = await asyncio.gather(*(cache.get(digest) for _ in range(5)))
    assert {(folder / "a/b.py").read_text() for folder in folders} == {"x = 1"}
    assert fetched == [digest]
    assert await PackCache(tmp_path, fetch).get(digest) == folders[0]
    assert fetched == [digest]


async def test_a_failed_fetch_is_tried_again_by_the_next_call(tmp_path: Path) -> None:
    content, digest = zipped(a="1")
    answers: list[bytes] = [b"", content]

    async def fetch(_: str) -> bytes:
        return answers.pop(0)

    cache = PackCache(tmp_path, fetch)
    with pytest.raises(PackError):
        await cache.get(digest)
    assert (await cache.get(digest) / "a").read_text() == "1"


@pytest.mark.parametrize("digest", ["", "../../etc", "A" * 64, "0" * 63])
async def test_a_malformed_digest_is_refused_before_anything_is_fetched(tmp_path: Path, digest: str) -> None:
    async def fetch(_: str) -> bytes:
        raise AssertionError("fetched")

    with pytest.raises(PackError) as caught:
        await PackCache(tmp_path, fetch).get(digest)
    assert caught.value.reason == "PACK_DIGEST_INVALID"


def test_content_of_another_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError) as caught:
        unpack(b"something else", "0" * 64, tmp_path / "p")
    assert caught.value.reason == "PACK_DIGEST_MISMATCH"


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.py", "a/../../up.py", "c:\\x", "a\\..\\b"])
def test_a_file_outside_of_the_pack_is_refused(tmp_path: Path, name: str) -> None:
    content, digest = zipped(**{"fine.py": "", name: "evil"})
    with pytest.raises(PackError) as caught:
        unpack(content, digest, tmp_path / "packs" / digest)
    assert caught.value.reason == "PACK_INVALID"
    assert name in str(caught.value) or "\\" in name
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as pack:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        pack.writestr(link, "/etc/passwd")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    with pytest.raises(PackError) as caught:
        unpack(buffer.getvalue(), digest, tmp_path / "p")
    assert caught.value.reason == "PACK_INVALID"


def test_what_is_no_zip_file_is_refused(tmp_path: Path) -> None:
    content = b"not a zip file"
    with pytest.raises(PackError) as caught:
        unpack(content, hashlib.sha256(content).hexdigest(), tmp_path / "p")
    assert caught.value.reason == "PACK_INVALID"


def test_a_zip_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "MAX_UNPACKED_BYTES", 10)
    content, digest = zipped(big="0123456789!")
    with pytest.raises(PackError) as caught:
        unpack(content, digest, tmp_path / "p")
    assert caught.value.reason == "PACK_TOO_LARGE"


def test_a_second_process_that_unzips_the_same_pack_is_no_error(tmp_path: Path) -> None:
    content, digest = zipped(a="1")
    unpack(content, digest, tmp_path / digest)
    unpack(content, digest, tmp_path / digest)
    assert [path.name for path in tmp_path.iterdir()] == [digest]
