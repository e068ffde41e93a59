"""Holds and halts: set in one commit, filled in as runs stop, lifted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, not_, select, update

from fermata.server.errors import not_found
from fermata.server.latches import records as latch_records
from fermata.server.latches.coverage import ActiveLatch, Subject, covers
from fermata.server.ledger import steps
from fermata.server.lifecycle.resumption import go_on, is_covered, resume_if_possible
from fermata.server.lifecycle.stopping import Cause, settle, stop, tell
from fermata.server.names import Name, new_id, parse
from fermata.server.runs.record import RunRecord, last_event, open_run
from fermata.server.runs.transitions import AWAITING, ENDED, HALTING, HELD, RUNNING, Move
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import latch_pb2, run_pb2, worker_pb2


@dataclass(frozen=True, slots=True)
class NewLatch:
    """A latch to be set; ``scope`` and ``target`` are those of ``coverage.target_of``."""

    kind: latch_pb2.LatchKind.ValueType
    scope: str
    target: str
    reason: str
    created_by: str
    on_behalf_of: str = ""


def set_latch(transaction: Transaction, tenant: str, wanted: NewLatch) -> str:
    """Commit a latch and return its id. From this commit on no covered gate lets an effect through.

    Every effect that is open goes on its list. Runs without open effects stop here and now; the others are told after the commit,
    and the report fills in as they stop.

    :raises DomainError: RUN_NOT_FOUND, THREAD_NOT_FOUND, AGENT_NOT_FOUND.
    """
    _require_target(transaction, tenant, wanted)
    latch = new_id()
    transaction.execute(
        schema.latches.insert(),
        {
            "tenant": tenant,
            "id": latch,
            "kind": wanted.kind,
            "scope": wanted.scope,
            "target": wanted.target,
            "reason": wanted.reason,
            "state": latch_records.LATCHED,
            "created_by": wanted.created_by,
            "on_behalf_of": wanted.on_behalf_of,
            "created": transaction.now,
        },
    )
    for run_id in _covered_runs(transaction, tenant, wanted):
        with open_run(transaction, tenant, run_id) as run:
            _list_open_effects(transaction, run, latch, wanted)
            if wanted.scope != "tool":
                stopped = _stop(transaction, run, latch, wanted)
                _list_run(transaction, run, latch, stopped=stopped)
    latch_records.settle(transaction, tenant, latch)
    return latch


def release(transaction: Transaction, tenant: str, latch: str, released_by: str) -> None:
    """Lift a latch: held runs that nothing else covers go on from where they stopped. A second release changes nothing.

    :raises DomainError: LATCH_NOT_FOUND.
    """
    row = latch_records.find(transaction, tenant, latch)
    if row.state == latch_records.RELEASED:
        return
    table, runs = schema.latches.c, schema.runs.c
    transaction.execute(
        update(schema.latches)
        .where(and_(table.tenant == tenant, table.id == latch))
        .values(state=latch_records.RELEASED, released=transaction.now, released_by=released_by)
    )
    transaction.publication.latches.append(latch)
    transaction.publication.work_available = True
    lifted = ActiveLatch(row.id, row.kind, row.scope, row.target, row.reason, row.created_by)
    waiting = transaction.execute(
        select(runs.id).where(and_(runs.tenant == tenant, runs.state.in_((HELD, RUNNING))))
    ).scalars()
    for run_id in waiting.all():
        with open_run(transaction, tenant, run_id) as run:
            if is_covered(transaction, run):
                continue
            if run.state == HELD and _is_held_still(transaction, run):
                continue
            if run.state == HELD:
                run.move(Move.RELEASE)
                run.emit(run_pb2.EVENT_TYPE_RELEASED, latch=str(Name(tenant, "latches", latch)))
                if run.state == AWAITING:
                    resume_if_possible(transaction, run, "released")
                else:
                    go_on(transaction, run)
            elif (
                run.worker
                and row.kind == latch_records.HOLD
                and covers(lifted, Subject(run.id, run.thread, run.agent))
            ):
                tell(transaction, run, worker_pb2.STOP_MODE_CONTINUE, str(Name(tenant, "latches", latch)))


def stop_report(transaction: Transaction, worker: str, report: worker_pb2.StopReport) -> None:
    """Take a worker's word that a halted run has stopped: close what it had open, and end the run.

    A report of an epoch that is over changes nothing.
    """
    name = parse(report.lease.run, "runs")
    with open_run(transaction, name.tenant, name.id) as run:
        if not run.is_leased_to(worker, report.lease.epoch) or run.state != HALTING:
            return
        given_back = set(report.not_started)
        # Of an earlier lease the report says nothing.
        for row in steps.open_under_lease(transaction, run):
            if row.key in given_back:
                steps.close(transaction, run, row, steps.NOT_STARTED)
            else:
                steps.close(
                    transaction, run, row, steps.KILLED, error="halted while it ran; the outcome is unknown"
                )
        settle(transaction, run, killed=report.killed)


def mark_unreachable(transaction: Transaction, tenant: str, run: str) -> None:
    """Say in the reports of the latches that wait for this run that its host is out of reach."""
    table = schema.latch_steps.c
    mine = and_(
        table.tenant == tenant,
        table.run == run,
        table.status == latch_pb2.LATCH_STEP_STATUS_OPEN,
    )
    touched = transaction.execute(select(table.latch).where(mine)).scalars().all()
    if touched:
        transaction.execute(
            update(schema.latch_steps).where(mine).values(status=latch_pb2.LATCH_STEP_STATUS_UNREACHABLE)
        )
        transaction.publication.latches.extend(touched)


def _is_held_still(transaction: Transaction, run: RunRecord) -> bool:
    """True where the latch that the run was held by has not been lifted: a tool's hold covers a call, not its run."""
    held_by = last_event(transaction, run, run_pb2.EVENT_TYPE_HELD).get("latch", "")
    active = latch_records.active(transaction, run.tenant)
    return any(str(Name(run.tenant, "latches", latch.id)) == held_by for latch in active)


def _require_target(transaction: Transaction, tenant: str, wanted: NewLatch) -> None:
    tables: dict[str, Any] = {
        "run": schema.runs,
        "thread": schema.threads,
        "agent": schema.agents,
    }
    table = tables.get(wanted.scope)
    if table is None:
        return
    there = transaction.execute(
        select(table.c.id).where(and_(table.c.tenant == tenant, table.c.id == wanted.target))
    ).scalar()
    if there is None:
        raise not_found(wanted.scope, str(Name(tenant, f"{wanted.scope}s", wanted.target)))


def _covered_runs(transaction: Transaction, tenant: str, wanted: NewLatch) -> list[str]:
    """Runs that have not ended and that the latch covers; for a tool, those in which a call of it is open."""
    runs, table = schema.runs.c, schema.steps.c
    where = [runs.tenant == tenant, not_(runs.state.in_(ENDED))]
    match wanted.scope:
        case "run":
            where.append(runs.id == wanted.target)
        case "thread":
            where.append(runs.thread == wanted.target)
        case "agent":
            where.append(runs.agent == wanted.target)
        case "tool":
            calling = select(table.run).where(
                and_(table.tenant == tenant, table.tool == wanted.target, table.outcome == steps.OPEN)
            )
            where.append(runs.id.in_(calling))
    return list(transaction.execute(select(runs.id).where(and_(*where)).order_by(runs.n)).scalars())


def _list_open_effects(transaction: Transaction, run: RunRecord, latch: str, wanted: NewLatch) -> None:
    rows = [
        {
            "tenant": run.tenant,
            "latch": latch,
            "run": run.id,
            "key": row.key,
            "step": row.id,
            "tool": row.tool,
            # What an earlier lease's worker has open is out of reach until it reports or is known to be dead.
            "status": latch_pb2.LATCH_STEP_STATUS_OPEN
            if row.worker == run.worker
            else latch_pb2.LATCH_STEP_STATUS_UNREACHABLE,
        }
        for row in steps.open_steps(transaction, run.tenant, run.id)
        if wanted.scope != "tool" or row.tool == wanted.target
    ]
    if rows:
        transaction.execute(schema.latch_steps.insert(), rows)


def _list_run(transaction: Transaction, run: RunRecord, latch: str, *, stopped: bool) -> None:
    transaction.execute(
        schema.latch_runs.insert(),
        {"tenant": run.tenant, "latch": latch, "run": run.id, "stopped": stopped},
    )


def _stop(transaction: Transaction, run: RunRecord, latch: str, wanted: NewLatch) -> bool:
    """Stop a run or begin to; True where nothing of it can start any more."""
    name = str(Name(run.tenant, "latches", latch))
    if wanted.kind == latch_records.HOLD:
        return _hold(transaction, run, name)
    return stop(transaction, run, Cause(wanted.reason, wanted.on_behalf_of or wanted.created_by, latch=name))


def _hold(transaction: Transaction, run: RunRecord, name: str) -> bool:
    if run.state == RUNNING and run.worker:
        tell(transaction, run, worker_pb2.STOP_MODE_HOLD, name)
        return False
    if run.state == AWAITING:
        run.move(Move.HOLD)
        run.emit(run_pb2.EVENT_TYPE_HELD, latch=name)
    return run.state != HALTING
