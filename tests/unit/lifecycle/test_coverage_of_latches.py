"""What a latch covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fermata.server.errors import DomainError
from fermata.server.latches.coverage import ActiveLatch, Subject, covers, strictest, target_of, to_scope
from fermata.v1 import latch_pb2

HOLD, HALT = latch_pb2.LATCH_KIND_HOLD, latch_pb2.LATCH_KIND_HALT
_ids = st.sampled_from(["a", "b", "c"])
_tenants = st.sampled_from(["x", "y"])
_scopes = st.sampled_from(["run", "run_tree", "thread", "agent", "revision", "tool", "tenant", "everything"])
_subjects = st.builds(
    Subject,
    _tenants,
    *[_ids] * 4,
    st.lists(_ids, max_size=2).map(tuple),
    st.sampled_from(["", "a", "b"]),
)
_latches = st.builds(
    ActiveLatch, _tenants, _ids, st.sampled_from([HOLD, HALT]), _scopes, _ids, st.just(""), st.just("eve")
)


@given(_latches, _subjects)
def test_a_latch_covers_what_it_names_and_nothing_else(latch: ActiveLatch, subject: Subject) -> None:
    named = {
        "run": [subject.run],
        "run_tree": [subject.run, *subject.ancestors],
        "thread": [subject.thread],
        "agent": [subject.agent],
        "revision": [f"{subject.agent}/{subject.revision}"],
        "tool": [subject.tool],
        "tenant": [latch.target],
        "everything": [latch.target],
    }[latch.scope]
    ours = latch.tenant == subject.tenant or latch.scope == "everything"
    assert covers(latch, subject) == (ours and latch.target in named)


@given(st.lists(_latches, max_size=6), _subjects)
def test_the_strictest_is_the_oldest_halt_and_without_one_the_oldest_hold(
    latches: list[ActiveLatch], subject: Subject
) -> None:
    covering = [latch for latch in latches if covers(latch, subject)]
    halts = [latch for latch in covering if latch.kind == HALT]
    assert strictest(latches, subject) == next(iter(halts or covering), None)


@given(st.lists(_latches, max_size=6), _latches, _subjects)
def test_one_more_latch_never_loosens(
    latches: list[ActiveLatch], more: ActiveLatch, subject: Subject
) -> None:
    before, now = strictest(latches, subject), strictest([*latches, more], subject)
    if before is not None:
        assert now is not None
        assert now.kind == HALT or before.kind == HOLD


def test_a_tools_latch_covers_no_run_as_such() -> None:
    latch = ActiveLatch("x", "l", HALT, "tool", "turn", "", "eve")
    assert not covers(latch, Subject("x", "r", "t", "a", "v"))
    assert covers(latch, Subject("x", "r", "t", "a", "v", tool="turn"))


@pytest.mark.parametrize(
    "scope",
    [
        latch_pb2.LatchScope(run="tenants/default/runs/r"),
        latch_pb2.LatchScope(thread="tenants/default/threads/t"),
        latch_pb2.LatchScope(agent="tenants/default/agents/a"),
        latch_pb2.LatchScope(tool="turn"),
        latch_pb2.LatchScope(tenant=True),
        latch_pb2.LatchScope(run_tree="tenants/default/runs/r"),
        latch_pb2.LatchScope(revision="tenants/default/agents/a/revisions/v"),
        latch_pb2.LatchScope(everything=True),
    ],
)
def test_a_scope_survives_the_store(scope: latch_pb2.LatchScope) -> None:
    assert to_scope("default", *target_of("default", scope)) == scope


@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        (latch_pb2.LatchScope(), "LATCH_SCOPE"),
        (latch_pb2.LatchScope(tool=""), "LATCH_SCOPE"),
        (latch_pb2.LatchScope(tenant=False), "LATCH_SCOPE"),
        (latch_pb2.LatchScope(run="tenants/other/runs/r"), "LATCH_SCOPE"),
        (latch_pb2.LatchScope(run="r"), "INVALID_NAME"),
    ],
)
def test_a_scope_that_names_nothing_of_ours_is_refused(scope: latch_pb2.LatchScope, reason: str) -> None:
    with pytest.raises(DomainError) as refused:
        target_of("default", scope)
    assert refused.value.reason == reason
