"""What may become of a run: one table, one pure function. Whatever is not in the table is refused."""

from __future__ import annotations

from enum import Enum, auto

from fermata.server.errors import precondition
from fermata.v1 import run_pb2

State = run_pb2.RunState

QUEUED = run_pb2.RUN_STATE_QUEUED
RUNNING = run_pb2.RUN_STATE_RUNNING
AWAITING = run_pb2.RUN_STATE_AWAITING
HELD = run_pb2.RUN_STATE_HELD
HALTING = run_pb2.RUN_STATE_HALTING
HALTED = run_pb2.RUN_STATE_HALTED
SUCCEEDED = run_pb2.RUN_STATE_SUCCEEDED
FAILED = run_pb2.RUN_STATE_FAILED
CANCELLED = run_pb2.RUN_STATE_CANCELLED
EXPIRED = run_pb2.RUN_STATE_EXPIRED

ENDED = frozenset({HALTED, SUCCEEDED, FAILED, CANCELLED, EXPIRED})


class Move(Enum):
    """What can happen to a run."""

    LEASE = auto()
    PARK = auto()
    RESUME = auto()
    HOLD = auto()
    RELEASE = auto()
    HALT = auto()
    SETTLE = auto()
    SUCCEED = auto()
    CONFIRM = auto()
    FAIL = auto()
    CANCEL = auto()
    EXPIRE = auto()


_TABLE: dict[tuple[State.ValueType, Move], State.ValueType] = {
    (QUEUED, Move.LEASE): RUNNING,
    # A run whose worker was lost stays RUNNING and is leased again.
    (RUNNING, Move.LEASE): RUNNING,
    (RUNNING, Move.PARK): AWAITING,
    (AWAITING, Move.RESUME): RUNNING,
    (RUNNING, Move.HOLD): HELD,
    (AWAITING, Move.HOLD): HELD,
    (RUNNING, Move.SUCCEED): SUCCEEDED,
    (RUNNING, Move.FAIL): FAILED,
    # In a restored store a run waits for a person before it goes on, or ends as that person says.
    (QUEUED, Move.PARK): AWAITING,
    (QUEUED, Move.CONFIRM): SUCCEEDED,
    (RUNNING, Move.CONFIRM): SUCCEEDED,
    (AWAITING, Move.CONFIRM): SUCCEEDED,
    (HELD, Move.CONFIRM): SUCCEEDED,
    (QUEUED, Move.HALT): HALTING,
    (RUNNING, Move.HALT): HALTING,
    (AWAITING, Move.HALT): HALTING,
    (HELD, Move.HALT): HALTING,
    (HALTING, Move.SETTLE): HALTED,
    (HALTING, Move.CANCEL): CANCELLED,
    (HALTING, Move.EXPIRE): EXPIRED,
    (QUEUED, Move.FAIL): FAILED,
    (QUEUED, Move.CANCEL): CANCELLED,
    (RUNNING, Move.CANCEL): CANCELLED,
    (AWAITING, Move.CANCEL): CANCELLED,
    (HELD, Move.CANCEL): CANCELLED,
}


def after(state: State.ValueType, held_from: State.ValueType, move: Move) -> State.ValueType:
    """The state of a run in ``state`` after ``move``.

    :param held_from: where a held run returns to when it is released.
    :raises DomainError: RUN_STATE, naming both, where the table has no such move.
    """
    if (state, move) == (HELD, Move.RELEASE):
        return held_from
    try:
        return _TABLE[state, move]
    except KeyError:
        name = State.Name(state).removeprefix("RUN_STATE_")
        raise precondition(
            f"A run that is {name} can't {move.name.lower()}.", reason="RUN_STATE", state=name, move=move.name
        ) from None
