"""Names and page tokens: made, taken apart, refused."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fermata.server.errors import DomainError
from fermata.server.names import Name, check_id, new_id, parse, parse_tenant
from fermata.server.rpc import pages

_parts = st.from_regex(r"[A-Za-z0-9._-]{1,80}", fullmatch=True)


@given(_parts, _parts)
def test_a_name_survives_being_written(tenant: str, own: str) -> None:
    name = Name(tenant, "runs", own)
    assert parse(str(name), "runs") == name


@given(_parts, _parts, _parts)
def test_the_name_of_a_part_survives_being_written(tenant: str, own: str, part: str) -> None:
    name = Name(tenant, "runs", own, "steps", part)
    assert parse(str(name), "runs", "steps") == name


@given(st.text())
def test_what_is_no_name_is_refused_with_the_form_that_was_wanted(text: str) -> None:
    if re.fullmatch(r"tenants/[A-Za-z0-9._-]{1,80}/runs/[A-Za-z0-9._-]{1,80}", text):
        return
    with pytest.raises(DomainError) as refused:
        parse(text, "runs")
    assert refused.value.reason == "INVALID_NAME"
    assert refused.value.metadata["form"] == "tenants/{tenant}/runs/{id}"


@pytest.mark.parametrize(
    "name",
    [
        "tenants/t/threads/r",
        "tenants/t/runs/r/steps/s",
        "tenants/t/runs/",
        "tenants//runs/r",
        "tenants/t/runs/r\n",
        "tenants/t\n/runs/r",
        "/tenants/t/runs/r",
        "tenants/t/runs/" + "x" * 81,
    ],
)
def test_a_name_of_something_else_is_refused(name: str) -> None:
    with pytest.raises(DomainError):
        parse(name, "runs")


@pytest.mark.parametrize("parent", ["", "tenants", "tenants/", "tenants/a/b", "tenant/a", "tenants/a\n"])
def test_a_parent_is_a_tenant(parent: str) -> None:
    with pytest.raises(DomainError) as refused:
        parse_tenant(parent)
    assert refused.value.reason == "INVALID_NAME"


@pytest.mark.parametrize("own", ["a", "a1", "a-b", "x" * 40])
def test_an_id_that_people_may_choose(own: str) -> None:
    assert check_id("agent", own) == own


@pytest.mark.parametrize("own", ["", "A", "1a", "-a", "a-", "a_b", "x" * 41, "a\n", "é"])
def test_an_id_that_people_may_not_choose(own: str) -> None:
    with pytest.raises(DomainError) as refused:
        check_id("agent", own)
    assert refused.value.reason == "INVALID_ID"


def test_fresh_ids_differ_and_are_names() -> None:
    made = {new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(parse(f"tenants/t/runs/{one}", "runs") for one in made)


@given(st.integers(0, 2**63 - 1))
def test_a_row_number_survives_its_token(number: int) -> None:
    assert pages.position(pages.token(number), int) == number


@given(st.text())
def test_an_id_survives_its_token(own: str) -> None:
    assert pages.position(pages.token(own), str) == own


@given(st.binary(max_size=60))
def test_a_token_of_any_bytes_is_refused_or_a_row_number(raw: bytes) -> None:
    token = base64.urlsafe_b64encode(raw).decode()
    if not raw or re.fullmatch(rb"\s*[0-9]{1,18}\s*", raw):
        return
    with pytest.raises(DomainError) as refused:
        pages.position(token, int)
    assert refused.value.reason == "PAGE_TOKEN"


def test_a_token_of_another_list_is_refused() -> None:
    for token, kind in ((pages.token("ann"), int), (pages.token(7), str), (pages.token(True), int)):
        with pytest.raises(DomainError):
            pages.position(token, kind)  # type: ignore[type-var]


def test_nesting_that_exhausts_the_parser_is_refused() -> None:
    token = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    with pytest.raises(DomainError):
        pages.position(token, int)


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (500, 500), (501, 500), (2**31 - 1, 500)])
def test_a_page_has_a_size_within_bounds(asked: int, size: int) -> None:
    assert pages.size(asked) == size
