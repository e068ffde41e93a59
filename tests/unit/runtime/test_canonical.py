"""Canonical JSON and digests."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

from fermata.agents.runtime.canonical import NotJsonError, canonical, digest, jsonable
from fermata.v1 import run_pb2, worker_pb2


class Colour(Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    when: datetime.date


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (Colour.RED, "red"),
        (Point(x=1, when=datetime.date(2030, 1, 2)), {"x": 1, "when": "2030-01-02"}),
        (Pair(b"ab", {3, 1}), {"left": "YWI=", "right": [1, 3]}),
        (2**60, str(2**60)),
        (float("inf"), "inf"),
        ((1, [2.5, None, True]), [1, [2.5, None, True]]),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_values_have_one_json_form(value: Any, wanted: Any) -> None:
    assert jsonable(value) == wanted


def test_what_has_no_content_counts_by_its_type() -> None:
    assert jsonable(object()) == jsonable(object()) == {"$opaque": "builtins.object"}
    with pytest.raises(NotJsonError, match=r"a\.b is a builtins.object"):
        jsonable({"a": {"b": object()}}, strict=True)


def test_a_message_counts_with_its_content() -> None:
    assert digest(jsonable(HumanMessage("a", id="1"))) == digest(jsonable(HumanMessage("a", id="1")))
    assert digest(jsonable(HumanMessage("a", id="1"))) != digest(jsonable(HumanMessage("b", id="1")))


def test_endless_nesting_is_an_error() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotJsonError, match="nests deeper"):
        jsonable(loop)


def test_the_digest_is_sha256_over_rfc_8785() -> None:
    assert canonical({"b": 1.0, "a": "é"}) == '{"a":"é","b":1}'
    assert digest({"b": 1.0, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_json)
def test_every_json_value_has_a_digest_that_does_not_change(value: Any) -> None:
    once = jsonable(value)
    assert digest(once) == digest(jsonable(once))


def test_what_is_taken_for_json_can_be_read_from_an_event() -> None:
    def nested(levels: int) -> Any:
        return {"a": nested(levels - 1)} if levels else 1

    deepest = max(levels for levels in range(100) if _is_json(nested(levels)))
    response = run_pb2.WatchRunsResponse()
    call = {"name": "turn", "args": jsonable(nested(deepest))}
    response.event.data.update({"messages": [{"tool_calls": [call]}]})
    frame = worker_pb2.WorkerMessage()
    frame.host.commit.events.add(data=response.event.data)
    for message in (response, worker_pb2.ConnectRequest(messages=[frame])):
        assert type(message).FromString(message.SerializeToString()) == message


def _is_json(value: Any) -> bool:
    try:
        jsonable(value)
    except NotJsonError:
        return False
    return True
