"""What may become of a run, exhaustively."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fermata.server.errors import DomainError
from fermata.server.runs.transitions import ENDED, Move, after
from fermata.v1 import run_pb2

NOWHERE = run_pb2.RUN_STATE_UNSPECIFIED
S = {name.removeprefix("RUN_STATE_"): value for name, value in run_pb2.RunState.items()}
ALLOWED = {
    "QUEUED": {"LEASE": "RUNNING", "PARK": "AWAITING", "HALT": "HALTING", "FAIL": "FAILED"},
    "RUNNING": {
        "LEASE": "RUNNING",
        "PARK": "AWAITING",
        "HOLD": "HELD",
        "HALT": "HALTING",
        "SUCCEED": "SUCCEEDED",
        "FAIL": "FAILED",
    },
    "AWAITING": {"RESUME": "RUNNING", "HOLD": "HELD", "HALT": "HALTING"},
    "HELD": {"HALT": "HALTING"},
    "HALTING": {"SETTLE": "HALTED", "CANCEL": "CANCELLED", "EXPIRE": "EXPIRED"},
}
STOPPABLE = ("QUEUED", "RUNNING", "AWAITING", "HELD")
for _state in STOPPABLE:
    ALLOWED[_state]["CANCEL"] = "CANCELLED"
    ALLOWED[_state]["CONFIRM"] = "SUCCEEDED"


EVERY = [pair for pair in itertools.product(S, Move) if pair != ("HELD", Move.RELEASE)]


@pytest.mark.parametrize(("state", "move"), EVERY)
def test_what_is_not_in_the_table_is_refused_by_name(state: str, move: Move) -> None:
    wanted = ALLOWED.get(state, {}).get(move.name)
    if wanted is not None:
        assert after(S[state], NOWHERE, move) == S[wanted]
        return
    with pytest.raises(DomainError) as refused:
        after(S[state], NOWHERE, move)
    assert refused.value.reason == "RUN_STATE"
    assert refused.value.metadata == {"state": state, "move": move.name}


@pytest.mark.parametrize("held_from", ["RUNNING", "AWAITING"])
def test_a_held_run_goes_back_to_where_it_was_held(held_from: str) -> None:
    assert after(S["HELD"], S[held_from], Move.RELEASE) == S[held_from]


@given(st.lists(st.sampled_from(list(Move)), max_size=40))
def test_an_ended_run_stays_as_it_ended_whatever_comes(moves: list[Move]) -> None:
    state, held_from = S["QUEUED"], NOWHERE
    for move in moves:
        before = state
        try:
            state = after(state, held_from, move)
        except DomainError:
            continue
        assert before not in ENDED
        held_from = before if state == S["HELD"] else NOWHERE
        assert state != NOWHERE
