"""Passages are ranked by meaning and by the words that a question names; a runbook's steps come with it."""

from __future__ import annotations

from fermata.server.knowledge.chroma import DocumentInfo, Hit, chroma_name
from fermata.server.knowledge.lexical import codes, lexical_scores, words
from fermata.server.knowledge.search import rank


def hit(source: str, text: str, score: float, *, kind: str = "", steps: bool = False, line: int = 1) -> Hit:
    document = DocumentInfo(source, source, source, kind, "", 1, 1, 0.0)
    return Hit(f"{source}-{line}", document, "", line, line, text, steps, score)


def ranked(query: str, *hits: Hit) -> list[tuple[str, int]]:
    return [(p.hit.document.source, p.hit.first_line) for p in rank(query, [("c", h) for h in hits])]


def test_a_code_decides_between_passages_that_mean_nearly_the_same() -> None:
    near = hit("e271", "Alarm E-271 means that the door interlock is open.", 0.62)
    right = hit("e217", "Alarm E-217 means that the coolant flow is low.", 0.58)
    assert ranked("what does alarm E-217 mean?", near, right)[0] == ("e217", 1)


def test_without_words_in_common_the_nearest_in_meaning_is_first() -> None:
    assert ranked("it shakes", hit("a", "vibration", 0.5), hit("b", "colour", 0.1))[0] == ("a", 1)


def test_a_score_is_between_0_and_1_also_for_what_is_unlike() -> None:
    passages = rank("line 3", [("c", hit("a", "line 3", 1.0)), ("c", hit("b", "else", -0.4))])
    assert [0 <= passage.score <= 1 for passage in passages] == [True, True]


def test_steps_of_a_runbook_count_as_much_as_its_best_section() -> None:
    about = hit("vib", "When a line vibrates badly.", 0.7, kind="runbook")
    steps = hit("vib", "1. Read. 2. Write.", 0.1, kind="runbook", steps=True, line=9)
    other = hit("hot", "When a line is too hot.", 0.5, kind="runbook")
    assert ranked("it vibrates", steps, other, about) == [("vib", 1), ("vib", 9), ("hot", 1)]


def test_steps_of_other_documents_stand_for_themselves() -> None:
    about = hit("manual", "Vibration.", 0.7, kind="manual")
    steps = hit("manual", "1. Read.", 0.1, kind="manual", steps=True, line=9)
    other = hit("other", "Else.", 0.5)
    assert ranked("unrelated", about, steps, other) == [("manual", 1), ("other", 1), ("manual", 9)]


def test_equal_scores_keep_the_order_of_source_and_line() -> None:
    hits = [hit("b", "x", 0.5), hit("a", "x", 0.5, line=7), hit("a", "x", 0.5, line=2)]
    assert ranked("y", *hits) == [("a", 2), ("a", 7), ("b", 1)]


def test_codes_are_words_with_digits_or_capitals_with_hyphens() -> None:
    assert codes("Why is E-217 next to VIB-HIGH on db-2, not well-known or NASA? E-217!") == [
        "E-217",
        "VIB-HIGH",
        "db-2",
    ]


def test_a_word_with_hyphens_is_found_whole_and_in_parts() -> None:
    assert {"vib-high", "vib", "high"} <= words("Alarm VIB-HIGH.")
    assert words("the lines") == words("a line") == {"line"}


def test_lexical_scores_are_shares_and_none_for_stop_words_alone() -> None:
    assert lexical_scores("what is it", ["it is what it is"]) == [0.0]
    full, none = lexical_scores("coolant flow", ["The coolant flow.", "Doors."])
    assert (full, none) == (1.0, 0.0)
    assert lexical_scores("anything", []) == []


def test_collection_names_are_safe_in_chroma_and_never_meet() -> None:
    assert chroma_name("tenants/default/collections/factory") == "default.factory"
    odd = [
        "tenants/a.b/collections/c",
        "tenants/a/collections/b.c",
        "tenants/-x/collections/c",
        "tenants/a/collections/" + "c" * 300,
        "tenants/a./collections/c",
        "x",
    ]
    names = [chroma_name(name) for name in odd]
    assert len(set(names)) == len(odd)
    assert all(3 <= len(name) <= 512 and name[0].isalnum() and name[-1].isalnum() for name in names)
