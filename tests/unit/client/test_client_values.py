"""JSON values over protobuf, and names written short."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fermata.client import LocalError
from fermata.client.names import full_name, last_part
from fermata.client.values import from_struct, from_value, to_struct, to_value

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_a_value_comes_back_as_it_went(value: Any) -> None:
    assert from_value(to_value(value)) == value


def test_whole_numbers_come_back_as_integers() -> None:
    found = from_struct(to_struct({"rpm": 900, "load": 0.5, "flag": True}))
    assert found == {"rpm": 900, "load": 0.5, "flag": True}
    assert isinstance(found["rpm"], int)
    assert found["flag"] is True


@pytest.mark.parametrize("value", [2**53 + 1, float("nan"), float("inf"), object(), b"bytes", {1, 2}])
def test_what_json_cannot_say_exactly_is_refused(value: Any) -> None:
    with pytest.raises(LocalError, match=r"args\.deep\[0\]") as caught:
        to_value({"deep": [value]}, "args")
    assert caught.value.reason == "VALUE_NOT_JSON"


def test_names_are_completed_or_left() -> None:
    assert full_name("default", "runs", "r1") == "tenants/default/runs/r1"
    assert full_name("default", "runs", "tenants/acme/runs/r1") == "tenants/acme/runs/r1"
    assert last_part("tenants/default/runs/r1") == "r1"


@pytest.mark.parametrize("name", ["", "tenants/default/agents/a", "runs/r1", "tenants//runs/r1"])
def test_names_of_other_things_are_refused(name: str) -> None:
    with pytest.raises(LocalError) as caught:
        full_name("default", "runs", name)
    assert caught.value.reason == "NAME_MALFORMED"
