"""Untrusted text: whatever goes in, nothing comes out that a terminal obeys or a person can't see."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from fermata.bots.conversation.text import clean, exposed, one_line, shown
from fermata.bots.conversation.view import Citation, Message, Note, ToolStep
from fermata.bots.terminal import drawing

HOSTILE = st.text(
    alphabet=st.one_of(
        st.sampled_from(
            "\x1b\x9b\x9d\x07\x08\r\n\t[]0;31mABCDHJK?$()\\/\u202e\u2066\u200b\u200d\U000e0041\u0301"
        ),
        st.characters(),
    ),
    max_size=60,
)


@given(HOSTILE)
@example("\x1b[2J\x1b[Hgone")
@example("\x1b]0;title\x07x")
@example("\x1b]52;c;cGFzdGU=\x1b\\x")
@example("\x1b\x1b[31m[31m")
@example("\x9b31mred")
@example("a\rb")
@example("\x1bP+q\x1b\\")
def test_clean_text_has_nothing_to_obey(text: str) -> None:
    cleaned = clean(text)
    for character in cleaned:
        assert character in "\n\t\u200c\u200d" or unicodedata.category(character) not in (
            "Cc",
            "Cf",
            "Cs",
            "Co",
            "Cn",
        )
    assert clean(cleaned) == cleaned
    assert "\n" not in one_line(text)


@given(HOSTILE)
def test_exposed_text_is_all_visible_and_on_one_line(text: str) -> None:
    for character in exposed(text):
        assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@given(HOSTILE)
def test_two_values_that_differ_are_shown_differently(text: str) -> None:
    assert shown(text + "\u200b") != shown(text)


@given(HOSTILE, HOSTILE)
def test_no_renderable_emits_an_escape_of_a_texts_own(first: str, second: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, markup=False, emoji=False, highlight=False, width=80, color_system=None)
    for entry in (
        Message("k", "agent", clean(first), (Citation("1", one_line(second), one_line(first), 3),)),
        ToolStep("k", one_line(first), ((one_line(second), shown(first)),), "finished", clean(second), 1.0),
        Note("k", one_line(second), "error"),
    ):
        console.print(drawing.entry(entry))
    assert not set(stream.getvalue()) & set("\x1b\x9b\x07\x08\r\u202e")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain ünïcode 🙂", "plain ünïcode 🙂"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;http://evil\x07link\x1b]8;;\x07", "link"),
        ("safe\u202etxt.exe", "safetxt.exe"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
        ("tag\U000e0068\U000e0069", "tag"),
    ],
)
def test_examples(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (900, "900"),
        ("900", '"900"'),
        ("true", '"true"'),
        (True, "true"),
        (None, "null"),
        ("", '""'),
        ("line 3", "line 3"),
        (" padded", '" padded"'),
        ("a\nb", "a\\u{a}b"),
        (["a", 1], '["a", 1]'),
    ],
)
def test_values_are_shown_so_that_their_type_can_be_seen(value: object, text: str) -> None:
    assert shown(value) == text  # type: ignore[arg-type]


def test_marks_do_not_pile_up() -> None:
    assert len(clean("a" + "\u0301" * 100)) == 5
