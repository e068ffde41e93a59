"""Arguments that a person writes, by the tool's schema."""

from __future__ import annotations

from typing import Any

import pytest

from fermata.bots.conversation.editing import EditError, check, edited, typed

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "line": {"type": "integer", "minimum": 1, "maximum": 4},
        "rpm": {"type": "number", "exclusiveMinimum": 0},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "dry": {"type": "boolean"},
        "mode": {"$ref": "#/$defs/Mode"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "extra": {"type": "object"},
        "code": {"type": "string"},
        "any": {},
    },
    "required": ["line", "rpm"],
    "additionalProperties": False,
    "$defs": {"Mode": {"enum": ["slow", "fast", 3], "type": ["string", "integer"]}},
}
NOW = {"line": 3, "rpm": 1000}


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("line=2", 2),
        ("rpm=900", 900.0),
        ("rpm=1e3", 1000.0),
        ("note=too fast = bad", "too fast = bad"),
        ("note=null", None),
        ("dry=yes", True),
        ("dry=False", False),
        ("mode=fast", "fast"),
        ("mode=3", 3),
        ('tags=["a", "b"]', ["a", "b"]),
        ('extra={"a": 1}', {"a": 1}),
        ("code=007", "007"),
        ("code=true", "true"),
        ("any=[1]", [1]),
        ("any=text", "text"),
    ],
)
def test_values_become_what_the_schema_wants(assignment: str, value: object) -> None:
    name = assignment.partition("=")[0]
    found = edited(NOW, [assignment], SCHEMA)[name]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("assignment", "argument", "words"),
    [
        ("rpm", "", "no assignment"),
        ("=3", "", "no assignment"),
        ("speed=3", "speed", "Known: line, rpm"),
        ("line=three", "line", "integer"),
        ("line=2.5", "line", "integer"),
        ("line=9", "line", "maximum"),
        ("rpm=nan", "rpm", "number"),
        ("rpm=-1", "rpm", "minimum"),
        ("dry=perhaps", "dry", "boolean"),
        ("mode=warp", "mode", "slow"),
        ("tags=a", "tags", "array"),
        ("tags=[1]", "tags.0", "string"),
        ("line=null", "line", "integer"),
    ],
)
def test_what_the_schema_refuses_names_the_argument(assignment: str, argument: str, words: str) -> None:
    with pytest.raises(EditError, match=words) as caught:
        edited(NOW, [assignment], SCHEMA)
    if argument:
        assert caught.value.metadata["argument"] == argument
    assert caught.value.reason == "ARGUMENT_INVALID"


def test_the_present_arguments_are_left_alone() -> None:
    before = dict(NOW)
    assert edited(NOW, ["rpm=900"], SCHEMA) == {"line": 3, "rpm": 900}
    assert before == NOW


def test_a_schema_that_points_elsewhere_is_not_followed() -> None:
    schema = {"properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    with pytest.raises(EditError, match="schema"):
        check({"a": 1}, schema)


def test_a_broken_schema_is_an_error_of_the_tool() -> None:
    with pytest.raises(EditError, match="schema"):
        check({"a": 1}, {"type": "no such type"})


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"properties": {"a": {"$ref": "#/properties/a"}}}
    assert typed("a", "x", schema) == "x"


def test_without_a_schema_json_is_read_and_all_else_is_text() -> None:
    assert edited({}, ["a=1", "b=x"], {}) == {"a": 1, "b": "x"}
