"""Bad documents are refused with what is wrong, where, and how to mend it."""

from __future__ import annotations

import pytest

from fermata.server.errors import ErrorKind
from fermata.server.knowledge.documents import MAX_DOCUMENT_BYTES, read_source
from fermata.server.knowledge.errors import DocumentError


def refusal(source: str, content: bytes) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        read_source(source, content)
    assert caught.value.kind is ErrorKind.INVALID_ARGUMENT
    assert not caught.value.retryable
    return caught.value


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n ", b"\xef\xbb\xbf", b"---\nkind: manual\n---\n\n"])
def test_an_empty_document_is_refused(content: bytes) -> None:
    assert refusal("a.md", content).reason == "DOCUMENT_EMPTY"


def test_a_document_of_50_mb_is_refused_with_its_size_and_the_limit() -> None:
    error = refusal("a.md", b"x" * 50_000_000)
    assert error.reason == "DOCUMENT_TOO_LARGE"
    assert error.metadata["limit_bytes"] == str(MAX_DOCUMENT_BYTES)
    assert "50,000,000" in str(error)


@pytest.mark.parametrize(
    ("content", "offset"), [(b"ab\xff", "2"), ("Müll".encode("latin-1"), "1"), (b"a\0b", "1")]
)
def test_what_is_not_utf_8_text_is_refused_with_the_byte(content: bytes, offset: str) -> None:
    error = refusal("a.md", content)
    assert (error.reason, error.metadata["offset"]) == ("DOCUMENT_NOT_TEXT", offset)


@pytest.mark.parametrize("source", ["a.pdf", "a.docx", "README", "a.md.gz"])
def test_an_unknown_type_is_refused_with_those_that_are_known(source: str) -> None:
    error = refusal(source, b"text")
    assert error.reason == "DOCUMENT_TYPE_UNSUPPORTED"
    assert ".md" in str(error)


@pytest.mark.parametrize(
    ("front", "line"),
    [
        ("---\nkind: runbook\ntitle: [a\n---\ntext", "3"),
        ("---\na: b\n c: : d\n---\ntext", "3"),
        ("---\n- a\n- b\n---\ntext", "2"),
        ("---\nkind: runbook\ntext without an end", "1"),
        ("---\nkind: [runbook]\n---\ntext", "2"),
        ("---\nwhen: 2024-99-99\n---\ntext", "2"),
        ("---\na: *unknown\n---\ntext", "2"),
    ],
)
def test_malformed_front_matter_is_refused_with_its_line(front: str, line: str) -> None:
    error = refusal("a.md", front.encode())
    assert (error.reason, error.metadata["line"]) == ("DOCUMENT_MALFORMED", line)


@pytest.mark.parametrize("source", ["", "x" * 513 + ".md", "a\nb.md", '"a".md', "<a>.md"])
def test_a_source_that_a_citation_cannot_carry_is_refused(source: str) -> None:
    assert refusal(source, b"text").reason == "DOCUMENT_SOURCE_INVALID"


def test_line_ends_and_a_byte_order_mark_do_not_matter() -> None:
    read = read_source("a.MD", b"\xef\xbb\xbf---\r\nkind: manual\r\n---\r\n# A\rtext")
    assert read.kind == "manual"
    assert read.lines[read.body_start :] == ["# A", "text"]


def test_empty_front_matter_is_none() -> None:
    assert read_source("a.md", b"---\n---\ntext").metadata == {}
