"""Documents are cut by their structure: nothing lost, nothing doubled, steps whole, lines exact."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fermata.server.knowledge.chunking import (
    MAX_STEPS_CHARACTERS,
    TARGET_CHARACTERS,
    Chunk,
    Document,
    read_document,
)
from fermata.server.knowledge.errors import RunbookMalformedError

FACTORY = Path(__file__).parents[3] / "agents/fermata/agents/factory"


def read(text: str, source: str = "a.md") -> Document:
    return read_document(source, text.encode())


def assert_whole(document: Document, text: str, body_start: int = 0) -> None:
    """Every line that isn't blank is in exactly one chunk, and every chunk is just its lines."""
    lines = text.split("\n")
    times = [0] * len(lines)
    for chunk in document.chunks:
        assert chunk.text == "\n".join(lines[chunk.first_line - 1 : chunk.last_line])
        for number in range(chunk.first_line, chunk.last_line + 1):
            times[number - 1] += 1
    for index, line in enumerate(lines):
        wanted = 1 if line.strip() and index >= body_start else 0
        assert times[index] == wanted or not line.strip()


RUNBOOK = """---
kind: runbook
title: High vibration
applies_to: [line-1, line-3]
---

# High vibration

Use this when a line vibrates badly.

## Steps

Do this in order:

1. Read the vibration.
2. If it is above 7.1 mm/s, set the speed to 1200 rpm.

   Wait five minutes.
3. Read it again.

## Afterwards

- Tell the shift lead.
- Write it down.
"""


def test_a_runbook_becomes_its_sections_with_headings_and_lines() -> None:
    document = read(RUNBOOK, "runbooks/high-vibration.md")
    assert (document.title, document.kind) == ("High vibration", "runbook")
    assert document.metadata["applies_to"] == ["line-1", "line-3"]
    assert [(c.heading, c.first_line, c.last_line, c.steps) for c in document.chunks] == [
        ("High vibration", 7, 9, False),
        ("High vibration > Steps", 11, 19, True),
        ("High vibration > Afterwards", 21, 24, False),
    ]
    assert_whole(document, RUNBOOK, body_start=5)


def test_what_is_embedded_begins_with_the_headings() -> None:
    document = read(RUNBOOK)
    assert document.text_to_embed(document.chunks[1]).startswith("High vibration > Steps\n## Steps\n")


def steps_chunks(document: Document) -> list[Chunk]:
    return [chunk for chunk in document.chunks if chunk.steps]


def test_steps_far_beyond_the_target_stay_in_one_chunk() -> None:
    steps = "\n".join(
        f"{n}. Read the torque of line {n} and write it down with the time of day." for n in range(1, 80)
    )
    text = f"# Rounds\n\n{'Prose. ' * 100}\n\n{steps}\n\n{'More prose. ' * 50}\n"
    document = read(text)
    assert len(steps) > 4 * TARGET_CHARACTERS
    assert [steps in chunk.text for chunk in steps_chunks(document)] == [True]
    assert_whole(document, text)


def test_steps_beyond_the_hard_limit_are_cut_between_two_steps() -> None:
    steps = [f"{n}. {'Check the valve. ' * 20}" for n in range(1, 101)]
    chunks = steps_chunks(read("\n".join(steps)))
    assert len(chunks) > 1
    assert all(len(chunk.text) <= MAX_STEPS_CHARACTERS for chunk in chunks)
    assert [line for chunk in chunks for line in chunk.text.split("\n")] == steps


def test_steps_that_go_on_counting_after_a_remark_are_one_list() -> None:
    text = (
        "1. One.\n2. Two.\n\nMind the gap, for it is wide.\n\n3. Three.\n\n```\ncode\n```\n\n4. Four.\n"
        + "x" * 5000
    )
    chunks = steps_chunks(read(text))
    assert len(chunks) == 1
    assert all(word in chunks[0].text for word in ("1. One", "gap", "3. Three", "code", "4. Four"))


def test_a_list_that_starts_anew_under_another_heading_is_another() -> None:
    document = read("# A\n\n1. One.\n2. Two.\n\n# B\n\n3. Three.\n")
    assert [chunk.heading for chunk in steps_chunks(document)] == ["A", "B"]


def test_numbered_lines_of_plain_text_are_steps() -> None:
    text = "Restart\n\n1. Stop it.\n\n2) Wait.\n   A while.\n\n3. Start it.\n\nDone.\n" + "word " * 400
    document = read(text, "restart.txt")
    assert ["1. Stop" in c.text and "3. Start" in c.text for c in steps_chunks(document)] == [True]
    assert_whole(document, text)


def test_a_hash_in_plain_text_is_no_heading() -> None:
    document = read("# not a heading\n\ntext\n", "notes.txt")
    assert [chunk.heading for chunk in document.chunks] == [""]
    assert document.title == "notes"


def test_headings_nest_by_level_and_a_setext_heading_counts() -> None:
    document = read("Top\n===\n\na\n\n### Deep `x`\n\nb\n\n## Mid\n\nc\n\nOther\n=====\n\nd\n")
    assert [chunk.heading for chunk in document.chunks] == ["Top", "Top > Deep x", "Top > Mid", "Other"]


def test_a_heading_without_a_body_stays_with_what_follows() -> None:
    document = read("# A\n\n## B\n\ntext\n\n## End\n")
    assert [(c.heading, c.first_line, c.last_line) for c in document.chunks] == [
        ("A > B", 1, 5),
        ("A > End", 7, 7),
    ]


def test_hashes_in_code_are_no_headings_and_code_stays_together() -> None:
    document = read("# A\n\n```sh\n# comment\nls\n```\n")
    assert [chunk.heading for chunk in document.chunks] == ["A"]


def test_a_table_too_long_is_cut_at_rows_and_keeps_its_head_with_the_first() -> None:
    rows = [f"| E-{n} | the coolant pump number {n} reports a fault that matters |" for n in range(60)]
    text = "\n".join(["# Codes", "", "| code | meaning |", "|---|---|", *rows])
    document = read(text)
    assert len(document.chunks) > 1
    assert "|---|---|\n| E-0 |" in document.chunks[0].text
    assert all(len(chunk.text) <= TARGET_CHARACTERS + 20 for chunk in document.chunks)
    assert_whole(document, text)


def test_a_line_that_ends_in_a_colon_stays_with_what_it_announces() -> None:
    text = f"# A\n\n{'x' * 950}\n\nThe limits are:\n\n- {'y' * 900}\n"
    assert "The limits are:\n\n- yyy" in read(text).chunks[-1].text


def test_a_long_gap_in_code_is_no_chunk() -> None:
    text = "# A\n\n```\na\n" + "\n" * 5000 + "b\n```\n"
    document = read(text)
    assert all(chunk.text.strip() for chunk in document.chunks)
    assert_whole(document, text)


def test_one_endless_line_is_cut_within() -> None:
    document = read("word " * 20_000)
    assert all(len(chunk.text) <= MAX_STEPS_CHARACTERS for chunk in document.chunks)
    assert sum(chunk.text.count("word") for chunk in document.chunks) == 20_000
    assert len({chunk.id for chunk in document.chunks}) == len(document.chunks)


def test_ids_depend_on_source_heading_and_text_and_not_on_the_place() -> None:
    before, moved = read("# A\n\ntext\n"), read("# Z\n\nnew\n\n# A\n\ntext\n")
    assert before.chunks[0].id == moved.chunks[1].id
    assert before.chunks[0].id != read("# A\n\ntext\n", "b.md").chunks[0].id
    twice = read("# A\n\ntext\n\n# A\n\ntext\n")
    assert len({chunk.id for chunk in twice.chunks}) == 2


@pytest.mark.parametrize("body", ["# R\n\nNo steps here.\n", "# R\n\n- one\n- two\n"])
def test_a_runbook_without_numbered_steps_is_refused(body: str) -> None:
    with pytest.raises(RunbookMalformedError, match="numbered steps") as caught:
        read(f"---\nkind: runbook\n---\n{body}")
    assert (caught.value.reason, caught.value.line) == ("RUNBOOK_MALFORMED", 4)


@pytest.mark.parametrize("path", sorted(FACTORY.glob("*/*.md")), ids=lambda path: path.stem)
def test_the_factory_documents_keep_their_steps_whole(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    document = read_document(path.name, text.encode())
    assert_whole(document, text.replace("\r\n", "\n"), body_start=text.split("\n").index("---", 1) + 1)
    if document.kind == "runbook":
        assert len(steps_chunks(document)) == 1


line = st.one_of(
    st.sampled_from(
        ["", "", "# A", "## B *b*", "===", "---x", "1. step", "2. step", "3) step", "- item", "  - nested", "   indented",
         "| a | b |", "|---|---|", "| 1 | 2 |", "```", "~~~", "> quote", "    code", "[ref]: http://x", "<!-- c -->",
         "text ends with:", "word " * 60, "<div>", "***", "10. ten", "\ttab", "a\u2028b", "a\x0bb"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=30),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(line, min_size=1, max_size=40), st.sampled_from(["a.md", "a.txt"]))
def test_every_line_is_in_exactly_one_chunk(lines: list[str], source: str) -> None:
    text = "# Start\n" + "\n".join(lines)
    document = read(text, source)
    assert_whole(document, text)
    assert len({chunk.id for chunk in document.chunks}) == len(document.chunks)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("abc def.", min_size=1, max_size=200), min_size=1, max_size=40),
    st.lists(line, max_size=10),
    st.lists(line, max_size=10),
)
def test_the_steps_of_a_list_share_a_chunk(steps: list[str], before: list[str], after: list[str]) -> None:
    numbered = [f"{n}. s{n} {' '.join(step.split())}" for n, step in enumerate(steps, start=1)]
    section = "\n".join(["# Section", "", *numbered, "", "# Next", ""])
    text = "\n".join(
        [
            "# Before",
            *[x for x in before if "`" not in x and "~" not in x and "<" not in x],
            "",
            section,
            *after,
        ]
    )
    holding = [chunk for chunk in read(text).chunks if "\n".join(numbered) in chunk.text]
    assert len(holding) == 1
    assert holding[0].steps
