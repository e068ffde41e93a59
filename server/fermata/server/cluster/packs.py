"""Agents' packed folders on this machine: fetched by digest, verified, unzipped once, and shared by every
host.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath

MAX_UNPACKED_BYTES = 512 * 1024 * 1024
MAX_FILES = 20_000

Fetch = Callable[[str], Awaitable[bytes]]
"""Digest to the zip file's bytes."""


class PackError(Exception):
    """A pack that must not be used. ``reason`` is a stable code."""

    def __init__(self, reason: str, message: str, digest: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.digest = digest


class PackCache:
    """Unzipped packs under one folder, each in a sub-folder named by its digest. Several processes may share
    the folder.

    :param fetch: asked only for what is not here yet.
    """

    def __init__(self, folder: Path, fetch: Fetch) -> None:
        self._folder = folder
        self._fetch = fetch
        self._underway: dict[str, asyncio.Task[Path]] = {}

    async def get(self, digest: str) -> Path:
        """The folder with the pack's files. Concurrent calls for one digest share one fetch.

        :raises PackError: the digest is malformed (PACK_DIGEST_INVALID) or another than the content's
            (PACK_DIGEST_MISMATCH), or the zip file is broken or reaches outside its folder (PACK_INVALID) or
            is too large (PACK_TOO_LARGE).
        """
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise PackError("PACK_DIGEST_INVALID", f"{digest!r} is not a SHA-256 in lower-case hex.", digest)
        place = self._folder / digest
        if place.is_dir():
            return place
        task = self._underway.get(digest)
        if task is None:
            task = asyncio.create_task(self._bring(digest, place))
            self._underway[digest] = task
            task.add_done_callback(lambda _: self._underway.pop(digest, None))
        return await asyncio.shield(task)

    async def _bring(self, digest: str, place: Path) -> Path:
        content = await self._fetch(digest)
        await asyncio.to_thread(unpack, content, digest, place)
        return place


def unpack(content: bytes, digest: str, place: Path) -> None:
    """Unzips a pack into ``place``, which is there complete or not at all.

    :raises PackError: as ``PackCache.get`` says.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise PackError(
            "PACK_DIGEST_MISMATCH", f"The pack has digest {found}, and should have {digest}.", digest
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{digest[:12]}-", dir=place.parent))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as pack:
            for member in _checked(pack, digest):
                pack.extract(member, scratch)
        try:
            scratch.rename(place)
        except OSError:
            # Another process was faster; by their digest the two are the same.
            if not place.is_dir():
                raise
    except zipfile.BadZipFile as error:
        raise PackError(
            "PACK_INVALID", f"The pack {digest} is not a readable zip file: {error}.", digest
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _checked(pack: zipfile.ZipFile, digest: str) -> list[zipfile.ZipInfo]:
    members = pack.infolist()
    size = sum(member.file_size for member in members)
    if len(members) > MAX_FILES or size > MAX_UNPACKED_BYTES:
        raise PackError(
            "PACK_TOO_LARGE",
            f"The pack {digest} holds {len(members)} files of {size} bytes; at most {MAX_FILES} and {MAX_UNPACKED_BYTES} are allowed.",
            digest,
        )
    for member in members:
        path = PurePosixPath(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        outside = (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in member.filename
            or os.path.isabs(member.filename)
        )
        if outside or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise PackError(
                "PACK_INVALID",
                f"The pack {digest} holds {member.filename!r}, which is no plain file inside it.",
                digest,
            )
    return members
