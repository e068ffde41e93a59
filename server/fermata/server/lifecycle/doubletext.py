"""Double text: what becomes of a run that is asked for while another run of its thread is going on.

A thread has one active run. Runs that wait behind it are QUEUED and ``in_line``; nobody leases them. Whatever ends the active run
makes the oldest of them the active one in the same transaction, so there is never an instant in which a thread with runs in line has
no active run, and a server that starts finds the line as it was.

A message that interrupts or rolls back takes the place of all that came before it: the active run is stopped as a halt stops it, and
the runs in line, of which nothing has begun, are cancelled. So the latest message wins: of two that interrupt the same run the second
cancels the first, which was waiting for its turn.

Refused: to let an interrupting message overtake the line and leave it standing, for those messages were written about a conversation
that went on otherwise; to begin the new run while the old one stops, for both would act on the same things.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, bindparam, func, select

from fermata.server.errors import DomainError, ErrorKind, invalid, precondition
from fermata.server.lifecycle.ending import end
from fermata.server.lifecycle.stopping import Cause, stop
from fermata.server.names import Name
from fermata.server.runs.record import RunRecord, open_run
from fermata.server.runs.transitions import Move
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import run_pb2, thread_pb2

Strategy = thread_pb2.MultitaskStrategy

REJECT = thread_pb2.MULTITASK_STRATEGY_REJECT
ENQUEUE = thread_pb2.MULTITASK_STRATEGY_ENQUEUE
INTERRUPT = thread_pb2.MULTITASK_STRATEGY_INTERRUPT
ROLLBACK = thread_pb2.MULTITASK_STRATEGY_ROLLBACK

MAX_IN_LINE = 100
"""Runs that may wait on one thread."""

_IN_LINE = and_(
    schema.runs.c.tenant == bindparam("of_tenant"),
    schema.runs.c.thread == bindparam("of_thread"),
    schema.runs.c.in_line == True,  # noqa: E712 - as the partial index has it
)
_LINE = select(schema.runs.c.id).where(_IN_LINE).order_by(schema.runs.c.n)
_LENGTH = select(func.count()).select_from(schema.runs).where(_IN_LINE)


def require_known(strategy: Strategy.ValueType, field: str) -> None:
    """Refuse a number that is no strategy of ours: a newer client's wish must not silently become another.

    :raises DomainError: STRATEGY_UNKNOWN.
    """
    if strategy not in Strategy.values():
        raise invalid(
            f"{field} is {strategy}, which is no strategy that this server knows.",
            reason="STRATEGY_UNKNOWN",
            field=field,
        )


def admit(
    transaction: Transaction, tenant: str, thread: Any, wanted: Strategy.ValueType
) -> Strategy.ValueType:
    """Decide what becomes of a run on a thread with an active one; returns the strategy that applies.

    :param thread: the thread's row; its ``active_run`` is set.
    :param wanted: what the request asks for; the thread's own strategy where it says nothing.
    :raises DomainError: THREAD_BUSY, THREAD_QUEUE_FULL.
    """
    strategy = wanted or thread.multitask_strategy or REJECT
    active = str(Name(tenant, "runs", thread.active_run))
    if strategy == REJECT:
        raise precondition(
            f"{active} is still going on in this thread. Wait for it, halt it, or say with multitask_strategy what a second "
            "message does.",
            reason="THREAD_BUSY",
            run=active,
        )
    if strategy == ENQUEUE:
        waiting = transaction.execute(_LENGTH, {"of_tenant": tenant, "of_thread": thread.id}).scalar_one()
        if waiting >= MAX_IN_LINE:
            raise DomainError(
                f"{waiting} runs wait behind {active} in this thread; {MAX_IN_LINE} are the most. Try again when some have ended.",
                reason="THREAD_QUEUE_FULL",
                kind=ErrorKind.RESOURCE_EXHAUSTED,
                run=active,
                limit=str(MAX_IN_LINE),
            )
    return strategy


def take_place(
    transaction: Transaction, tenant: str, thread: Any, successor: str, strategy: Strategy.ValueType, by: str
) -> None:
    """Stop what is active on a thread and cancel what waits there, all but ``successor``, which waits in line for the end of it.

    :param strategy: INTERRUPT or ROLLBACK.
    :param by: the person for whom it is done.
    :raises DomainError: ROLLBACK_UNKNOWN; nothing of it is done then.
    """
    name = str(Name(tenant, "runs", successor))
    mine = {"of_tenant": tenant, "of_thread": thread.id}
    for waiting in transaction.execute(_LINE, mine).scalars().all():
        if waiting != successor:
            with open_run(transaction, tenant, waiting) as run:
                end(
                    transaction,
                    run,
                    Move.CANCEL,
                    run_pb2.EVENT_TYPE_CANCELLED,
                    reason=f"interrupted by {name}",
                    run=name,
                )
    with open_run(transaction, tenant, thread.active_run) as run:
        if not run.successor or (strategy == ROLLBACK and not run.rolls_back):
            run.successor = successor
        if strategy == ROLLBACK:
            _mark_for_rollback(run)
        stop(transaction, run, Cause(f"interrupted by {name}", by, run=name))


def _mark_for_rollback(run: RunRecord) -> None:
    """Once marked it stays so: a later message that only interrupts does not undo what an earlier one was promised."""
    if run.epoch and run.base < 0:
        raise precondition(
            f"{run.name} began under an earlier version of the server, which did not write down what it began from. Interrupt it "
            "instead.",
            reason="ROLLBACK_UNKNOWN",
            run=run.name,
        )
    run.rolls_back = True
