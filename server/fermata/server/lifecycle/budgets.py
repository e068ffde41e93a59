"""A run that would go beyond its limits: it is held, by a latch like any other, and a person is asked; or it is halted.

The question is a BUDGET approval. Yes grants as much again and lifts the hold, no halts the run, and silence is a no. Whoever lifts
the hold by hand withdraws the question; the run is held again at its next call, and asked about anew. Refused: to end the run with an
error, as a limit of LangGraph's does. What it has done is worth more than that, and it is a person's to say whether it goes on.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import and_, select, text

from fermata.server.approvals import records as approvals
from fermata.server.latches import records as latch_records
from fermata.server.ledger import limits
from fermata.server.ledger.digests import call_digest
from fermata.server.ledger.gate import GateKeeper
from fermata.server.ledger.limits import Exceeded
from fermata.server.lifecycle.latching import NewLatch, latch_run, set_latch
from fermata.server.lifecycle.releasing import release
from fermata.server.names import Name, parse
from fermata.server.policy.rules import DEFAULT_REQUIREMENT
from fermata.server.runs.record import RunRecord, open_run
from fermata.server.runs.transitions import RUNNING
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import approval_pb2, latch_pb2

RULE = "limit:"
"""Begins the rule of a BUDGET approval; the limit's name follows."""

ALLOWED = (approval_pb2.DECISION_APPROVE, approval_pb2.DECISION_REJECT)

EXCEEDED_AT_ONCE = 50
"""Runs whose time is over that one transaction looks at the most."""

_DUE = text("work_due > 0")
"""Written out, as the partial index has it."""


def stop_at_limit(transaction: Transaction, run: RunRecord, exceeded: Exceeded) -> None:
    """Hold a run that is open in this transaction and ask, or halt it. One that is held for a limit already is left to that."""
    author = str(Name(run.tenant, "policy", f"{RULE}{exceeded.limit}"))
    reason = f"It {exceeded.sentence}."
    if exceeded.halts:
        latch_run(transaction, run, NewLatch(latch_pb2.LATCH_KIND_HALT, "run", run.id, reason, author))
        return
    if any(_is_budget(row) for row in approvals.of_run(transaction, run.tenant, run.id, approvals.PENDING)):
        return
    latch = latch_run(transaction, run, NewLatch(latch_pb2.LATCH_KIND_HOLD, "run", run.id, reason, author))
    args = {
        "limit": exceeded.limit,
        "used": exceeded.used,
        "allowed": exceeded.allowed,
        "more": exceeded.more,
    }
    sentence = f"{run.name} {exceeded.sentence}. Yes lets it go on with {exceeded.more:g} more, no halts it."
    approvals.ask(
        transaction,
        run,
        approvals.Question(
            kind=approvals.BUDGET,
            roles=DEFAULT_REQUIREMENT.roles,
            valid_for_seconds=DEFAULT_REQUIREMENT.valid_for_seconds,
            allowed=ALLOWED,
            on_timeout="HALT",
            args=json.dumps(args),
            digest=call_digest(f"{RULE}{exceeded.limit}", {**args, "run": run.name, "latch": latch}),
            rule=f"{RULE}{exceeded.limit}",
            rule_reason=reason,
            question=json.dumps({"question": sentence, "latch": str(Name(run.tenant, "latches", latch))}),
        ),
    )


def decided(transaction: Transaction, run: RunRecord, row: Any, decision: int) -> None:
    """Grant what a person has said yes to. What follows from a decision for the latch is :func:`follow`'s.

    :param row: of the approval, which is closed.
    """
    if decision == approval_pb2.DECISION_APPROVE:
        args = json.loads(row.args)
        limits.grant(run, args["limit"], float(args["more"]))
        if args["limit"] == limits.WALL_SECONDS:
            run.wall_limit += float(args["more"])


def follow(transaction: Transaction, row: Any, *, goes_on: bool, by: str) -> None:
    """After a decision, or after none in time: lift the hold, and where the run is not to go on, halt it first.

    :param row: of the approval, which is closed. Its run is not open in this transaction.
    """
    latch = parse(json.loads(row.question)["latch"], "latches").id
    if not goes_on:
        wanted = NewLatch(
            latch_pb2.LATCH_KIND_HALT, "run", row.run, f"No more was granted: {row.rule_reason}", by
        )
        set_latch(transaction, row.tenant, wanted)
    release(transaction, row.tenant, latch, by)


def withdraw(transaction: Transaction, tenant: str, latch: str) -> None:
    """Withdraw the question that a hold stands for which somebody lifts by hand."""
    row = latch_records.find(transaction, tenant, latch)
    if row.scope != "run" or RULE not in row.created_by:
        return
    with open_run(transaction, tenant, row.target) as run:
        for asked in approvals.of_run(transaction, tenant, run.id, approvals.PENDING):
            if _is_budget(asked) and json.loads(asked.question)["latch"].endswith(latch):
                approvals.close(
                    transaction, run, asked, approvals.CANCELLED, comment="The hold was lifted by hand."
                )


def stop_overdue(transaction: Transaction, keeper: GateKeeper) -> int:
    """Stop runs that have been at work for as long as they may, and return how many were looked at."""
    runs = schema.runs.c
    due = transaction.execute(
        select(runs.tenant, runs.id)
        .where(and_(_DUE, runs.work_due <= transaction.now))
        .order_by(runs.work_due)
        .limit(EXCEEDED_AT_ONCE)
    ).fetchall()
    for row in due:
        with open_run(transaction, row.tenant, row.id) as run:
            # It has had its effect; the next time that it begins to work it is set anew.
            run.work_due = 0.0
            exceeded = limits.exceeded_by_time(keeper.bounds(transaction, run), run, transaction.now)
            if exceeded is not None and run.state == RUNNING:
                stop_at_limit(transaction, run, exceeded)
    return len(due)


def next_overdue(connection: Any) -> float | None:
    """When the next run has been at work for as long as it may, in seconds since the epoch; None where no run has a bound."""
    runs = schema.runs.c
    value: float | None = connection.execute(
        select(runs.work_due).where(_DUE).order_by(runs.work_due).limit(1)
    ).scalar()
    return value


def _is_budget(row: Any) -> bool:
    return bool(row.kind == approvals.BUDGET)
