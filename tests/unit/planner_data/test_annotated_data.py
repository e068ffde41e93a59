"""The annotated development set says what it means: its quotations are quotations, and its arguments fit the schemas."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.benchmarks.planner.annotated import annotated_domains
from tests.benchmarks.planner.notation import NotationError, read_domains

FOLDER = Path(__file__).parents[2] / "benchmarks" / "planner"


DOMAINS = list(annotated_domains())


def test_domains_have_names_of_their_own_and_share_none_with_the_other_sets() -> None:
    names = [d.name for d in DOMAINS]
    assert len(names) == len(set(names)) >= 56
    assert not {p.stem for p in (FOLDER / "domains").glob("*.json")} & set(names)


def test_no_message_is_one_of_the_held_out_set() -> None:
    held_out = {
        json.loads(line)["messages"][-1]["content"].lower()
        for line in (FOLDER / "heldout.jsonl").read_text().splitlines()
    }
    assert not held_out & {case["m"].lower() for d in DOMAINS for case in d.cases}


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.name)
def test_every_quotation_stands_in_its_message_and_every_argument_fits_its_schema(domain: Any) -> None:
    tools = {t["name"]: t for t in domain.tools}
    for case in domain.cases:
        history = "\n".join(str(x) for item in case.get("h", ()) for x in item[1:])
        assert all(item[0] in ("human", "ai") or item[1] in tools for item in case.get("h", ())), case
        assert {*case.get("mentions", ()), *case.get("either", ())} <= set(tools), case
        assert case.get("mq", "") in case["m"], case
        for call in case["calls"]:
            tool = tools[call["t"]]
            assert call["q"], case
            assert call["q"] in case["m"], case
            assert call.get("if", "") in case["m"], case
            assert all(s in case["m"] + "\n" + history for s in call.get("s", {}).values()), case
            schema = {"type": "object", "properties": tool["params"], "additionalProperties": False}
            problems = [e.message for e in Draft202012Validator(schema).iter_errors(call["a"])]
            assert not problems, (case, problems)
            missing = {p for p in tool.get("required", ()) if p not in call["a"]}
            assert missing <= set(case.get("missing", {}).get(tool["name"], ())), case


def test_the_short_notation_gives_words_arguments_conditions_and_history(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(
        "# bakery | Ovens O-1 to O-6.\n"
        "T heat_of How hot an oven is. | oven:id Oven.\n"
        "T set_oven! Sets an oven. | oven:id Oven. | celsius:num In °C. | steam?:bool With steam.\n"
        "i {if <?heat_of|[oven O-3] is above 230>}, <set_oven|take it to [celsius=200|two hundred]>\n"
        "r H: set [oven O-1] to 200 || D: set_oven oven=O-1 >> <set_oven|now [celsius 210], [steam=yes|with steam]>\n"
    )
    (domain,) = read_domains(tmp_path / "x.txt")
    conditional, reference = domain.cases
    assert conditional["m"] == "if O-3 is above 230, take it to two hundred"
    assert [c["t"] for c in conditional["calls"]] == ["heat_of", "set_oven"]
    assert conditional["calls"][1]["a"] == {"celsius": 200, "oven": "O-3"}
    assert conditional["calls"][1]["if"] == "if O-3 is above 230"
    assert reference["h"][1] == ["did", "set_oven", {"oven": "O-1"}]
    assert reference["calls"][0]["a"] == {"celsius": 210, "steam": True, "oven": "O-1"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("d <bake|now>", "no tool"),
        ("d <heat_of|how hot>", "lacks"),
        ("d <heat_of|[size 3]>", "no parameter"),
        ("y anything", "no category"),
        ("d <heat_of|[oven O-1]", "not closed"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_its_reason(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "x.txt").write_text(f"# b | c\nT heat_of How hot. | oven:id Oven.\n{line}\n")
    with pytest.raises(NotationError, match=rf"x.txt:3: .*{said}"):
        list(read_domains(tmp_path / "x.txt"))
