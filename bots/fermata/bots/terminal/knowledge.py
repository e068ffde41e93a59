"""``ingest``, ``search``, ``documents``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from fermata.bots.conversation.text import one_line, short_name
from fermata.client import FermataError, LocalError
from fermata.v1 import collection_pb2

from . import completion, drawing, exits
from .output import report
from .session import Json, session

SUFFIXES = frozenset({".md", ".markdown", ".txt"})
DEFAULT_COLLECTION = "default"

CollectionOption = Annotated[
    str, typer.Option("--collection", "-c", autocompletion=completion.collections, help="The knowledge base.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("ingest")(ingest)
    app.command("search")(search)
    app.command("documents")(documents)


def ingest(
    context: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(help="Files, or folders with .md, .markdown and .txt files.")
    ],
    collection: CollectionOption = DEFAULT_COLLECTION,
    as_json: Json = False,
) -> None:
    """Put documents into a knowledge base. What is unchanged stays; failures are listed at the end."""
    files = list(_files(paths))
    stored: list[collection_pb2.Document] = []
    failures: list[tuple[Path, FermataError]] = []
    with session(context, as_json) as opened:
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=opened.output.errors,
            disable=as_json or not opened.output.errors.is_terminal,
            transient=True,
        ) as progress:
            task = progress.add_task("", total=len(files))
            for path, source in files:
                progress.update(task, description=one_line(source, 60))
                try:
                    stored.append(opened.client.collections.ingest(collection, source, _content(path)))
                except FermataError as failure:
                    failures.append((path, failure))
                    if exits.code_of(failure) in (exits.UNAVAILABLE, exits.DENIED):
                        # The next file would fail in the same way.
                        break
                progress.advance(task)
        new = sum(not document.unchanged for document in stored)
        chunks = sum(document.chunk_count for document in stored)
        summary = f"{new} stored, {len(stored) - new} unchanged, {len(failures)} failed; {chunks} passages in {collection}"
        opened.output.show(
            Text(summary, style="green" if not failures else "yellow"),
            document={
                "documents": stored,
                "errors": [
                    {"path": str(path), "reason": failed.reason, "message": failed.message}
                    for path, failed in failures
                ],
            },
        )
    for path, failed in failures:
        opened.output.errors.print(Text(f"{one_line(str(path), 300)}:"), soft_wrap=True)
        report(failed)
    if failures:
        raise typer.Exit(
            exits.code_of(failures[-1][1]) if not stored and len(failures) == 1 else exits.FAILED
        )


def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument()],
    collection: Annotated[
        list[str] | None,
        typer.Option(
            "--collection",
            "-c",
            autocompletion=completion.collections,
            help="Only in this one; may be repeated.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=50)] = 5,
    as_json: Json = False,
) -> None:
    """Find passages, best first, each with where it stands."""
    with session(context, as_json) as opened:
        found = opened.client.collections.search(query, collections=collection or [], limit=limit)
        parts: list[RenderableType] = []
        for number, passage in enumerate(found, start=1):
            place = f"{one_line(passage.source)}:{passage.first_line}"
            parts.append(
                Text.assemble(
                    (f"[{number}] ", "cyan"),
                    (place, "bold"),
                    (f"  {one_line(passage.heading)}  {passage.score:.2f}", "dim"),
                )
            )
            parts.append(Padding(drawing.body(passage.text), (0, 0, 1, 4), expand=False))
        opened.output.show(
            Group(*parts) if parts else Text("Nothing fits.", style="dim"), document={"passages": found}
        )


def documents(
    context: typer.Context,
    collection: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.collections, help="Its documents; all collections where left out."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """List collections, or the documents of one."""
    with session(context, as_json) as opened:
        if not collection:
            listed = opened.client.collections.list()
            overview = drawing.plain_table("Collection", "Documents", "Description")
            for item in listed:
                overview.add_row(
                    Text(short_name(item.name), style="bold"),
                    Text(str(item.document_count)),
                    Text(one_line(item.description)),
                )
            empty = Text("No collections. fermata ingest PATH makes one.", style="dim")
            opened.output.show(overview if listed else empty, document={"collections": listed})
            return
        found = opened.client.collections.documents(collection)
        table = drawing.plain_table("Source", "Kind", "Version", "Passages", "Updated", "Title")
        for document in found:
            table.add_row(
                Text(one_line(document.source), style="bold"),
                Text(one_line(document.kind, 20)),
                Text(str(document.version)),
                Text(str(document.chunk_count)),
                Text(drawing.ago(document.update_time)),
                Text(one_line(document.title, 100)),
            )
        opened.output.show(
            table if found else Text("No documents.", style="dim"), document={"documents": found}
        )


def _files(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Each file with its source: inside of a folder, the path from the folder's own name on."""
    for path in paths:
        if path.is_dir():
            root = path.resolve()
            found = sorted(
                item for item in root.rglob("*") if item.is_file() and item.suffix.lower() in SUFFIXES
            )
            if not found:
                raise LocalError(
                    f"The folder {path} holds no {', '.join(sorted(SUFFIXES))} file.",
                    reason="NOTHING_TO_INGEST",
                )
            for item in found:
                yield item, item.relative_to(root.parent).as_posix()
        elif path.is_file():
            yield path, path.name
        else:
            raise LocalError(
                f"There is no file or folder {path}.", reason="PATH_MISSING", metadata={"path": str(path)}
            )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise LocalError(f"{path} can't be read: {failure.strerror}.", reason="PATH_UNREADABLE") from failure
