"""An agent's folder as one zip file: the same bytes for the same content, on any machine and at any time.

Files are stored, not compressed: another zlib would give other bytes, and with them another digest. What a
folder holds besides its agent stays out: version control, caches, environments, and ``.env`` files, which
are where secrets lie. A symbolic link is refused rather than followed: it may lead out of the folder, and
what it leads to is not what the reader of the folder sees.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .errors import LocalError

MAX_PACK_BYTES = 16 * 1024 * 1024
IGNORED_FOLDERS = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "__pycache__",
        ".venv",
        "venv",
        "node_modules",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".ipynb_checkpoints",
        ".langgraph_api",
    }
)
IGNORED_SUFFIXES = (".pyc", ".pyo", ".swp", "~")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack_folder(folder: Path) -> bytes:
    """The folder as a zip file with sorted entries, fixed times and two file modes.

    :raises LocalError: PACK_TOO_LARGE, PACK_LINK, PACK_FILE_UNREADABLE, PACK_FOLDER_MISSING.
    """
    if not folder.is_dir():
        raise LocalError(
            f"There is no folder {folder} to pack.",
            reason="PACK_FOLDER_MISSING",
            metadata={"folder": str(folder)},
        )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(_files(folder), key=lambda found: found.relative_to(folder).as_posix()):
            try:
                executable = bool(path.stat().st_mode & stat.S_IXUSR)
                content = path.read_bytes()
            except OSError as failure:
                raise LocalError(
                    f"{path} can't be read: {failure.strerror}. Make it readable, or move it out.",
                    reason="PACK_FILE_UNREADABLE",
                    metadata={"file": str(path)},
                ) from failure
            if out.tell() + len(content) > MAX_PACK_BYTES:
                raise LocalError(
                    f"The folder {folder} is larger than {MAX_PACK_BYTES // 2**20} MiB when packed; "
                    f"{path} is where it goes over. Move data and models out, or name a smaller folder.",
                    reason="PACK_TOO_LARGE",
                    metadata={"folder": str(folder), "file": str(path), "limit_bytes": str(MAX_PACK_BYTES)},
                )
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            archive.writestr(entry, content)
    return out.getvalue()


def digest_of(pack: bytes) -> str:
    """SHA-256 in hex: the name under which hosts ask for a pack."""
    return hashlib.sha256(pack).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in IGNORED_FOLDERS]
        for name in (*folders, *files):
            path = Path(root) / name
            if _is_ignored(name):
                continue
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                raise LocalError(
                    f"{path} is {kind}, which can't be packed. Put the file itself there, or move it out.",
                    reason="PACK_LINK",
                    metadata={"file": str(path)},
                )
            if stat.S_ISREG(mode):
                yield path


def _is_ignored(name: str) -> bool:
    return name == ".env" or name.startswith(".env.") or name.endswith(IGNORED_SUFFIXES)
