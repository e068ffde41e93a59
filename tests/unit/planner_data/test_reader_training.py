"""What the reader is trained on says what the annotated cases say: labels stand on the quoted words, also in variants."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tokenizers import Tokenizer

from fermata.agents.inference.card import BUNDLED_MODEL
from fermata.agents.planner.tools import make_tools

READER = Path(__file__).parents[3] / "deploy" / "models" / "reader"


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Any:
    """The scripts import each other as neighbours."""
    sys.path.insert(0, str(READER))
    yield
    sys.path.remove(str(READER))


@pytest.fixture(scope="module")
def build() -> ModuleType:
    return importlib.import_module("build")


TOOLS = make_tools(
    [
        {
            "name": "set_oven",
            "description": "Sets the temperature of an oven.",
            "effect": "UNSAFE",
            "parameters": {
                "type": "object",
                "properties": {
                    "oven": {"type": "string", "description": "Oven, O-1 to O-6."},
                    "celsius": {"type": "number", "description": "Temperature in °C."},
                    "steam": {"type": "boolean", "description": "With steam."},
                },
                "required": ["oven", "celsius"],
            },
        }
    ]
)


def case(message: str, *calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"k": "direct", "m": message, "calls": list(calls), **more}


def set_oven(q: str, **args: Any) -> dict[str, Any]:
    return {"t": "set_oven", "a": args, "q": q}


def words_of(text: Any, tokens: Any) -> str:
    spans = [text.spans[t] for t in tokens]
    return " ".join(text.pieces[p][a:b] for p, a, b in spans)


def test_labels_stand_on_the_words_that_ask_and_on_those_of_each_argument(build: ModuleType) -> None:
    tokenizer = Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json"))
    encoder = build.Encoder(tokenizer)
    (tool,) = TOOLS
    encoded = {"set_oven": encoder.tool(tool)}
    call = {
        **set_oven("O-3 to 220 with steam", oven="O-3", celsius=220, steam=True),
        "s": {"steam": "with steam"},
    }
    one = case("if it is cold, O-3 to 220 with steam", {**call, "if": "if it is cold"})
    text = encoder.text([build.Said("human", "hello")], one["m"])
    labels = build.label(one, text, {"set_oven": tool}, encoded)["set_oven"]
    begins, inside, condition, _ = (labels.tags[:, i].nonzero()[0] for i in range(4))
    assert words_of(text, begins) == "O"
    assert words_of(text, inside) == "O - 3 to 220 with steam"
    assert words_of(text, condition) == "if it is cold"
    said = {name: words_of(text, sorted(labels.spans[at])) for name, at in encoded["set_oven"].params.items()}
    assert said == {"oven": "O - 3", "celsius": "220", "steam": "with steam"}
    assert encoded["set_oven"].options["steam", "yes"] in labels.present
    assert encoded["set_oven"].options["steam", "no"] not in labels.present


def test_words_that_a_message_does_not_have_are_an_error(build: ModuleType) -> None:
    encoder = build.Encoder(Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json")))
    (tool,) = TOOLS
    one = case("O-3 to 220", set_oven("O-4 to 220", oven="O-4", celsius=220))
    with pytest.raises(importlib.import_module("encode").LostQuotationError, match="O-4 to 220"):
        build.label(one, encoder.text([], one["m"]), {"set_oven": tool}, {"set_oven": encoder.tool(tool)})


def test_a_turned_order_asks_for_nothing_and_names_its_tool(build: ModuleType) -> None:
    order = case("Set O-3 to 220.", set_oven("Set O-3 to 220", oven="O-3", celsius=220))
    turned = build.turned(order, random.Random(1))
    assert turned["calls"] == []
    assert turned["mentions"] == ["set_oven"]
    assert "set O-3 to 220" in turned["m"]
    assert build.turned(case("O-3 is cold."), random.Random(1)) is None


def test_two_messages_in_one_ask_for_both_in_their_order(build: ModuleType) -> None:
    first = case("Set O-1 to 200", set_oven("Set O-1 to 200", oven="O-1", celsius=200))
    second = case("Set O-2 to 210", set_oven("Set O-2 to 210", oven="O-2", celsius=210))
    for seed in range(20):
        both = build.joined(first, second, random.Random(seed))
        assert [c["a"]["oven"] for c in both["calls"]] == ["O-1", "O-2"]
        assert all(c["q"] in both["m"] for c in both["calls"])


def test_other_numbers_are_the_same_in_message_and_arguments(build: ModuleType) -> None:
    order = case("Set O-3 to 220", set_oven("Set O-3 to 220", oven="O-3", celsius=220))
    for seed in range(20):
        (call,) = build.revalued(order, random.Random(seed))["calls"]
        assert call["q"] == f"Set {call['a']['oven']} to {call['a']['celsius']}"
