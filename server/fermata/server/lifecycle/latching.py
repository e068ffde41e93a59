"""Holds and halts: set in one commit, filled in as runs stop, lifted.

The commit of a latch is the same few statements whatever it covers: its row, by which every gate and every lease asks, and its
report, that is which effects are open and which runs are going on. What then has to be done to each run, to move it and to tell its
worker, is done in that commit for the first few and in further ones for the rest, descendants first: ``go_on_stopping``. A server
that ends in between finds them in the report. Refused: all of it in one transaction, in which every gate would wait for a thousand
runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, case, func, literal, literal_column, or_, select, text, update

from fermata.server.errors import invalid, not_found
from fermata.server.latches import permits
from fermata.server.latches import records as latch_records
from fermata.server.ledger import steps
from fermata.server.lifecycle.stopping import Cause, settle, stop, tell
from fermata.server.names import Name, new_id, parse
from fermata.server.runs.record import RunRecord, open_run
from fermata.server.runs.transitions import AWAITING, ENDED, HALTING, RUNNING, Move, State
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import latch_pb2, run_pb2, worker_pb2

STOPPED_AT_ONCE = 16
"""Runs that one transaction stops at the most."""

STOPPED_IN_COMMIT = 4
"""The same, for the one that sets the latch: whoever sets it waits for that."""

ON_EXPIRY = (
    latch_pb2.ON_EXPIRY_UNSPECIFIED,
    latch_pb2.ON_EXPIRY_REMIND,
    latch_pb2.ON_EXPIRY_RELEASE,
)

_GOING_ON = [state for state in State.values() if state and state not in ENDED]


@dataclass(frozen=True, slots=True)
class NewLatch:
    """A latch to be set; ``scope`` and ``target`` are those of ``coverage.target_of``."""

    kind: latch_pb2.LatchKind.ValueType
    scope: str
    target: str
    reason: str
    created_by: str
    on_behalf_of: str = ""
    expires: float = 0.0
    """When a hold's time is over, in seconds since the epoch; 0 for never."""
    on_expiry: latch_pb2.OnExpiry.ValueType = latch_pb2.ON_EXPIRY_UNSPECIFIED


def set_latch(transaction: Transaction, tenant: str, wanted: NewLatch) -> str:
    """Commit a latch and return its id. From this commit on no covered gate lets an effect through.

    Every effect that is open goes on its list. Runs without open effects stop here and now, or in one of the next commits where they
    are many; the others are told after the commit, and the report fills in as they stop.

    :raises DomainError: RUN_NOT_FOUND, THREAD_NOT_FOUND, AGENT_NOT_FOUND, REVISION_NOT_FOUND, LATCH_EXPIRY.
    """
    _require_target(transaction, tenant, wanted)
    _require_expiry(wanted, transaction.now)
    latch = _insert(transaction, tenant, wanted)
    _list_open_effects(transaction, latch, tenant, wanted)
    if wanted.scope != "tool":
        _list_runs(transaction, latch, tenant, wanted)
        go_on_stopping(transaction, STOPPED_IN_COMMIT)
    latch_records.settle(transaction, latch)
    return latch


def latch_run(transaction: Transaction, run: RunRecord, wanted: NewLatch) -> str:
    """Set a latch on a run that is open in this transaction; else as :func:`set_latch`. The run is not moved: whoever has it open
    does that, or tells its worker.
    """
    latch = _insert(transaction, run.tenant, wanted)
    _list_open_effects(transaction, latch, run.tenant, wanted)
    transaction.execute(
        schema.latch_runs.insert(),
        {"tenant": run.tenant, "latch": latch, "run": run.id, "stopped": False, "told": True},
    )
    _stop(transaction, run, latch, wanted)
    latch_records.settle(transaction, latch)
    return latch


def go_on_stopping(transaction: Transaction, at_once: int = STOPPED_AT_ONCE) -> int:
    """Stop runs that latches cover and that nobody has stopped or told yet, or begin to; return how many."""
    waiting = transaction.execute(_TO_TELL, {"at_once": at_once}).fetchall()
    for row in waiting:
        stopped = True
        if not row.released:
            wanted = NewLatch(row.kind, row.scope, row.target, row.reason, row.created_by, row.on_behalf_of)
            with open_run(transaction, row.tenant, row.run) as run:
                stopped = run.has_ended or _stop(transaction, run, row.latch, wanted, row.of_tenant)
        transaction.execute(
            _TOLD, {"of_tenant": row.tenant, "of_latch": row.latch, "of_run": row.run, "stops": stopped}
        )
    for latch in dict.fromkeys(row.latch for row in waiting):
        latch_records.settle(transaction, latch)
    if len(waiting) == at_once:
        transaction.publication.runs_to_stop = True
    return len(waiting)


_TO_TELL = (
    select(
        schema.latch_runs.c.tenant,
        schema.latch_runs.c.latch,
        schema.latch_runs.c.run,
        schema.latches.c.tenant.label("of_tenant"),
        schema.latches.c.kind,
        schema.latches.c.scope,
        schema.latches.c.target,
        schema.latches.c.reason,
        schema.latches.c.created_by,
        schema.latches.c.on_behalf_of,
        schema.latches.c.released,
    )
    .join(schema.latches, schema.latches.c.id == schema.latch_runs.c.latch)
    # Written out, as the partial index has it; rows are in the order in which their latch has put them there.
    .where(text("latch_runs.told = 0"))
    .order_by(text("latch_runs.rowid"))
    .limit(bindparam("at_once"))
)
_TOLD = (
    update(schema.latch_runs)
    .where(
        and_(
            schema.latch_runs.c.tenant == bindparam("of_tenant"),
            schema.latch_runs.c.latch == bindparam("of_latch"),
            schema.latch_runs.c.run == bindparam("of_run"),
        )
    )
    .values(told=True, stopped=or_(schema.latch_runs.c.stopped, bindparam("stops")))
)


def stop_report(transaction: Transaction, worker: str, report: worker_pb2.StopReport) -> None:
    """Take a worker's word that a halted run has stopped: close what it had open, and end the run.

    A report of an epoch that is over changes nothing.
    """
    name = parse(report.lease.run, "runs")
    with open_run(transaction, name.tenant, name.id) as run:
        if not run.is_leased_to(worker, report.lease.epoch) or run.state != HALTING:
            return
        _host_stopped(transaction, run, set(report.not_started), killed=report.killed)


def halted_by_file(
    transaction: Transaction, worker: str, node: str, lease: worker_pb2.Lease, reason: str
) -> None:
    """Halt a run whose host was killed because a latch file on its machine says so; the worker holds its lease."""
    name = parse(lease.run, "runs")
    with open_run(transaction, name.tenant, name.id) as run:
        by = f"the latch file of {node}"
        latch_run(transaction, run, NewLatch(latch_records.HALT, "run", run.id, reason, by))
        # One that was parked has ended with that.
        if run.is_leased_to(worker, lease.epoch) and run.state == HALTING:
            _host_stopped(transaction, run, set(), killed=True)


def _host_stopped(transaction: Transaction, run: RunRecord, given_back: set[str], *, killed: bool) -> None:
    """Close what a run that is being stopped had open under its lease, and end the run. Of an earlier lease this says nothing.

    :param given_back: keys of the steps that were let through, and not started.
    """
    for row in steps.open_under_lease(transaction, run):
        if row.key in given_back:
            steps.close(transaction, run, row, steps.NOT_STARTED)
        else:
            steps.close(
                transaction, run, row, steps.KILLED, error="halted while it ran; the outcome is unknown"
            )
    permits.host_is_dead(transaction, run.worker, run.id, run.epoch)
    settle(transaction, run, killed=killed)


def _require_target(transaction: Transaction, tenant: str, wanted: NewLatch) -> None:
    tables: dict[str, Any] = {
        "run": schema.runs,
        "run_tree": schema.runs,
        "thread": schema.threads,
        "agent": schema.agents,
    }
    if wanted.scope == "revision":
        agent, _, revision = wanted.target.partition("/")
        table: Any = schema.revisions
        mine = and_(table.c.tenant == tenant, table.c.agent == agent, table.c.id == revision)
        name = Name(tenant, "agents", agent, "revisions", revision)
    elif wanted.scope in tables:
        table = tables[wanted.scope]
        mine = and_(table.c.tenant == tenant, table.c.id == wanted.target)
        name = Name(tenant, f"{table.name}", wanted.target)
    else:
        return
    if transaction.execute(select(table.c.id).where(mine)).scalar() is None:
        raise not_found(table.name.removesuffix("s"), str(name))


def _require_expiry(wanted: NewLatch, now: float) -> None:
    if not wanted.expires:
        return
    if wanted.kind == latch_records.HALT:
        raise invalid(
            "A halt holds until it is lifted. Set an expiry on a hold only.",
            reason="LATCH_EXPIRY",
            field="latch.expire_time",
        )
    if wanted.expires <= now:
        raise invalid(
            "The hold's time would be over already; give one that lies ahead.",
            reason="LATCH_EXPIRY",
            field="latch.expire_time",
        )


def _insert(transaction: Transaction, tenant: str, wanted: NewLatch) -> str:
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
            "expires": wanted.expires,
            "on_expiry": wanted.on_expiry,
        },
    )
    if wanted.expires:
        transaction.publication.latch_expiry_set = True
    return latch


def covered(tenant: str, wanted: NewLatch) -> Any:
    """The condition on ``runs`` under which the latch covers one."""
    runs = schema.runs.c
    # With the plus SQLite takes the index of states, which has few rows that go on, and not the one that has all of a tenant.
    mine = literal_column("+runs.tenant") == tenant
    match wanted.scope:
        case "run":
            return and_(runs.tenant == tenant, runs.id == wanted.target)
        case "run_tree":
            family = select(literal(wanted.target).label("id")).cte("family", recursive=True)
            child = schema.runs.alias("child")
            family = family.union(
                select(child.c.id).where(
                    and_(child.c.tenant == tenant, child.c.parent == family.c.id, text("child.parent != ''"))
                )
            )
            return and_(runs.tenant == tenant, runs.id.in_(select(family.c.id)))
        case "thread":
            return and_(runs.tenant == tenant, runs.thread == wanted.target)
        case "agent":
            return and_(mine, runs.agent == wanted.target)
        case "revision":
            agent, _, revision = wanted.target.partition("/")
            return and_(mine, runs.agent == agent, runs.revision == revision)
        case "everything":
            return literal_column("1") == 1
    return mine


def _list_open_effects(transaction: Transaction, latch: str, tenant: str, wanted: NewLatch) -> None:
    """Put every effect on the latch's list whose gate is passed and whose end is not known: also those of runs that have ended, which
    a host out of reach may still let happen.
    """
    runs, table = schema.runs.c, schema.steps.c
    where = [table.outcome == steps.OPEN, covered(tenant, wanted)]
    if wanted.scope != "everything":
        where.append(table.tenant == tenant)
    if wanted.scope == "tool":
        where.append(table.tool == wanted.target)
    status = case(
        (table.worker == runs.worker, literal(latch_pb2.LATCH_STEP_STATUS_OPEN)),
        # What an earlier lease's worker has open is out of reach until it reports or is known to be dead.
        else_=literal(latch_pb2.LATCH_STEP_STATUS_UNREACHABLE),
    )
    found = (
        select(table.tenant, literal(latch), table.run, table.key, table.id, table.tool, status, literal(0.0))
        .join(schema.runs, and_(runs.tenant == table.tenant, runs.id == table.run))
        .where(and_(*where))
    )
    names = ["tenant", "latch", "run", "key", "step", "tool", "status", "milliseconds"]
    transaction.execute(schema.latch_steps.insert().from_select(names, found, include_defaults=False))
    _list_permits(transaction, latch, tenant, wanted)


def _list_permits(transaction: Transaction, latch: str, tenant: str, wanted: NewLatch) -> None:
    """Put the permits on the latch's list that are out and that no step shows any more."""
    runs, table = schema.runs.c, schema.permits.c
    where = [covered(tenant, wanted)]
    if wanted.scope == "tool":
        where.append(table.tool == wanted.target)
    unreachable = literal(latch_pb2.LATCH_STEP_STATUS_UNREACHABLE)
    found = (
        select(
            table.tenant,
            literal(latch),
            table.run,
            table.nonce,
            table.step,
            table.tool,
            unreachable,
            literal(0.0),
        )
        .join(schema.runs, and_(runs.tenant == table.tenant, runs.id == table.run))
        .where(and_(*where))
    )
    names = ["tenant", "latch", "run", "key", "step", "tool", "status", "milliseconds"]
    transaction.execute(schema.latch_steps.insert().from_select(names, found, include_defaults=False))


def _list_runs(transaction: Transaction, latch: str, tenant: str, wanted: NewLatch) -> None:
    """Put the runs on the latch's list that are going on; descendants before the runs that they were made for."""
    runs = schema.runs.c
    found = (
        select(runs.tenant, literal(latch), runs.id, literal(0), literal(0))
        .where(and_(runs.state.in_(_GOING_ON), covered(tenant, wanted)))
        .order_by(func.length(runs.ancestors).desc(), runs.n)
    )
    names = ["tenant", "latch", "run", "stopped", "told"]
    transaction.execute(schema.latch_runs.insert().from_select(names, found, include_defaults=False))


def _stop(
    transaction: Transaction, run: RunRecord, latch: str, wanted: NewLatch, of_tenant: str = ""
) -> bool:
    """Stop a run or begin to; True where nothing of it can start any more.

    :param of_tenant: the latch's, where it is not the run's.
    """
    name = str(Name(of_tenant or run.tenant, "latches", latch))
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
