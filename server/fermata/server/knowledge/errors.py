"""What can go wrong with documents, collections and Chroma, as domain errors."""

from __future__ import annotations

from fermata.server.errors import DomainError, ErrorKind


class DocumentError(DomainError):
    """A document that can't be taken in, whatever is tried again. ``source`` says which."""

    def __init__(self, source: str, message: str, *, reason: str, **metadata: str) -> None:
        super().__init__(
            f"{source}: {message}", reason=reason, kind=ErrorKind.INVALID_ARGUMENT, source=source, **metadata
        )
        self.source = source


class DocumentEmptyError(DocumentError):
    def __init__(self, source: str) -> None:
        super().__init__(source, "the document has no text.", reason="DOCUMENT_EMPTY")


class DocumentTooLargeError(DocumentError):
    def __init__(self, source: str, size: int, limit: int) -> None:
        super().__init__(
            source,
            f"the document has {size:,} bytes and may have {limit:,}. Split it by its chapters.",
            reason="DOCUMENT_TOO_LARGE",
            size_bytes=str(size),
            limit_bytes=str(limit),
        )
        self.size = size
        self.limit = limit


class DocumentNotTextError(DocumentError):
    def __init__(self, source: str, offset: int) -> None:
        super().__init__(
            source,
            f"byte {offset} is not UTF-8 text. Convert the document to UTF-8 first.",
            reason="DOCUMENT_NOT_TEXT",
            offset=str(offset),
        )
        self.offset = offset


class DocumentTypeUnsupportedError(DocumentError):
    def __init__(self, source: str, suffix: str, supported: tuple[str, ...]) -> None:
        what = f"{suffix!r} is not a type" if suffix else "without a suffix it has no type"
        super().__init__(
            source,
            f"{what} that can be read; these can: {', '.join(supported)}.",
            reason="DOCUMENT_TYPE_UNSUPPORTED",
            suffix=suffix,
        )
        self.suffix = suffix


class DocumentMalformedError(DocumentError):
    """The front matter can't be read; ``line`` counts from 1 in the document."""

    def __init__(self, source: str, line: int, problem: str) -> None:
        super().__init__(source, f"line {line}: {problem}", reason="DOCUMENT_MALFORMED", line=str(line))
        self.line = line


class RunbookMalformedError(DocumentError):
    """It says that it is a runbook, and has no steps that anybody could follow."""

    def __init__(self, source: str, line: int, problem: str) -> None:
        super().__init__(source, f"line {line}: {problem}", reason="RUNBOOK_MALFORMED", line=str(line))
        self.line = line


class SourceInvalidError(DocumentError):
    def __init__(self, source: str, problem: str) -> None:
        super().__init__(repr(source[:80]), problem, reason="DOCUMENT_SOURCE_INVALID")


class QueryInvalidError(DomainError):
    def __init__(self, problem: str) -> None:
        super().__init__(problem, reason="QUERY_INVALID", kind=ErrorKind.INVALID_ARGUMENT)


class CollectionNotFoundError(DomainError):
    def __init__(self, collection: str) -> None:
        super().__init__(
            f"There is no collection {collection!r}. Create it, or ingest a document into it.",
            reason="COLLECTION_NOT_FOUND",
            kind=ErrorKind.NOT_FOUND,
            collection=collection,
        )
        self.collection = collection


class CollectionExistsError(DomainError):
    def __init__(self, collection: str) -> None:
        super().__init__(
            f"There is a collection {collection!r} already.",
            reason="COLLECTION_EXISTS",
            kind=ErrorKind.ALREADY_EXISTS,
            collection=collection,
        )
        self.collection = collection


class DocumentNotFoundError(DomainError):
    def __init__(self, collection: str, document: str) -> None:
        super().__init__(
            f"Collection {collection!r} has no document {document!r}.",
            reason="DOCUMENT_NOT_FOUND",
            kind=ErrorKind.NOT_FOUND,
            collection=collection,
            document=document,
        )
        self.collection = collection
        self.document = document


class ChromaUnavailableError(DomainError):
    """No Chroma server answers, or what answers is none. Retrying helps once there is one."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(
            f"No Chroma server answers at {url} ({problem}). "
            "Start one (chroma run --path FOLDER --port PORT), or set the address of the one that runs.",
            reason="CHROMA_UNAVAILABLE",
            kind=ErrorKind.UNAVAILABLE,
            url=url,
        )
        self.url = url


class ChromaRefusedError(DomainError):
    """Chroma answers, and refuses what was asked; it says why."""

    def __init__(self, url: str, status: int, problem: str) -> None:
        super().__init__(
            f"Chroma at {url} refused a request with status {status}: {problem}",
            reason="CHROMA_REFUSED",
            kind=ErrorKind.FAILED_PRECONDITION,
            url=url,
            status=str(status),
        )
        self.url = url
        self.status = status
