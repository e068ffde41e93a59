"""What is leased next, and what may wait: turns between tenants, priorities within one, limits, and a bound for the queue.

The queue is the table of runs; nothing of it is kept in memory but whose turn it was last. An index has the waiting runs of each
tenant in their order, and tenants are found in it by leaps, so that ten thousand waiting runs of one cost another one nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, select, text

from fermata.server.agents.revisions import Revisions
from fermata.server.errors import DomainError, ErrorKind
from fermata.server.latches import records as latch_records
from fermata.server.latches.coverage import ActiveLatch, strictest
from fermata.server.runs.record import RunRecord, subject_of
from fermata.server.runs.transitions import HALTING, QUEUED, RUNNING
from fermata.server.store import schema
from fermata.server.store.database import Transaction

PAGE = 64
"""Waiting runs of a tenant that are read at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what runs and of what waits; 0 for none.

    :param queued_runs: runs of all tenants that may wait.
    :param queued_runs_per_tenant: the same for each tenant.
    :param running_runs_per_tenant: runs of a tenant that are at work at once; what waits for people does not count.
    """

    queued_runs: int = 100_000
    queued_runs_per_tenant: int = 10_000
    running_runs_per_tenant: int = 0


_FREE = and_(schema.runs.c.state == QUEUED, schema.runs.c.worker == "", schema.runs.c.in_line.is_(False))
"""Runs that anybody with room may have. The index ``runs_to_lease`` begins with these three."""

_ORDER = (schema.runs.c.rank, schema.runs.c.n)
_COLUMNS = (
    schema.runs.c.n,
    schema.runs.c.tenant,
    schema.runs.c.id,
    schema.runs.c.thread,
    schema.runs.c.agent,
    schema.runs.c.revision,
    schema.runs.c.ancestors,
)
_LOST = (
    select(*_COLUMNS)
    .where(and_(schema.runs.c.state == RUNNING, schema.runs.c.worker == ""))
    .order_by(schema.runs.c.n)
    .limit(PAGE)
)
_NEXT_TENANT = select(func.min(schema.runs.c.tenant)).where(_FREE, schema.runs.c.tenant > bindparam("after"))
_OF_TENANT = (
    select(*_COLUMNS)
    .where(_FREE, schema.runs.c.tenant == bindparam("of_tenant"))
    .order_by(*_ORDER)
    .limit(PAGE)
)
_ANOTHER_FREE = select(text("1")).where(_FREE, schema.runs.c.id != bindparam("of_run")).limit(1)
_AT_WORK = (
    select(schema.runs.c.tenant, schema.runs.c.agent, func.count())
    .where(and_(schema.runs.c.state.in_((RUNNING, HALTING)), schema.runs.c.worker != ""))
    .group_by(schema.runs.c.tenant, schema.runs.c.agent)
)


class Schedule:
    """Chooses inside transactions.

    :param limits: see :class:`Limits`.
    """

    def __init__(self, revisions: Revisions, limits: Limits) -> None:
        self._revisions = revisions
        self._limits = limits
        self._last = ""
        """The tenant that had the last turn."""

    def waiting(self, transaction: Transaction) -> Iterator[Any]:
        """Rows of runs that may be leased now, in the order in which they should be: first those that lost their lease, then one
        of each tenant in turn. A row that was not leased is not given again.
        """
        latches = _Latches(transaction)
        yield from (row for row in transaction.execute(_LOST).fetchall() if not latches.cover(row))
        at_work = _AtWork(transaction, self._revisions, self._limits)
        queues = deque(
            (tenant, self._of_tenant(transaction, tenant, latches, at_work))
            for tenant in self._tenants(transaction)
        )
        while queues:
            tenant, queue = queues.popleft()
            row = next(queue, None)
            if row is None:
                continue
            at_work.count(row)
            yield row
            queues.append((tenant, queue))

    def served(self, tenant: str) -> None:
        """A run of this tenant was leased: the next turn is another one's."""
        self._last = tenant

    def may_start_at_once(self, transaction: Transaction, run: RunRecord) -> bool:
        """True where a run that has just been made overtakes nobody, and its limits leave room."""
        if transaction.execute(_ANOTHER_FREE, {"of_run": run.id}).first() is not None:
            transaction.publication.work_available = True
            return False
        return not _AtWork(transaction, self._revisions, self._limits).is_full(
            run.tenant, run.agent, run.revision
        )

    def admit(self, transaction: Transaction, tenant: str) -> None:
        """Let one more run wait, or refuse it.

        :raises DomainError: QUEUE_FULL.
        """
        runs = schema.runs.c
        queued = runs.state == QUEUED
        for scope, limit, where in (
            ("of this tenant ", self._limits.queued_runs_per_tenant, and_(queued, runs.tenant == tenant)),
            ("", self._limits.queued_runs, queued),
        ):
            if limit and _reaches(transaction, select(text("1")).where(where, runs.worker == ""), limit + 1):
                raise DomainError(
                    f"{limit} runs {scope}are waiting, and no more may. Try again when some have started.",
                    reason="QUEUE_FULL",
                    kind=ErrorKind.RESOURCE_EXHAUSTED,
                    limit=str(limit),
                )

    def _tenants(self, transaction: Transaction) -> list[str]:
        """Tenants with waiting runs, from the one whose turn it is."""
        found: list[str] = []
        after = ""
        while (tenant := transaction.execute(_NEXT_TENANT, {"after": after}).scalar()) is not None:
            found.append(tenant)
            after = tenant
        return [t for t in found if t > self._last] + [t for t in found if t <= self._last]

    def _of_tenant(
        self, transaction: Transaction, tenant: str, latches: _Latches, at_work: _AtWork
    ) -> Iterator[Any]:
        """A tenant's waiting runs that nothing keeps back. What is kept back is left out by the query where it is many."""
        passed: list[str] = []
        full: set[str] = set()
        while True:
            query: Select[Any] = _OF_TENANT
            if passed:
                query = query.where(schema.runs.c.id.not_in(passed))
            if full := full | latches.agents(tenant):
                query = query.where(schema.runs.c.agent.not_in(full))
            rows = transaction.execute(query, {"of_tenant": tenant}).fetchall()
            for row in rows:
                passed.append(row.id)
                if at_work.is_full(tenant, row.agent, row.revision):
                    if at_work.is_full(tenant):
                        return
                    full.add(row.agent)
                elif not latches.cover(row):
                    yield row
            if len(rows) < PAGE or latches.cover_all(tenant):
                return


class _Latches:
    """What covers whom, read once."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._active: dict[str, list[ActiveLatch]] = {}

    def _of(self, tenant: str) -> list[ActiveLatch]:
        if tenant not in self._active:
            self._active[tenant] = latch_records.active(self._transaction, tenant)
        return self._active[tenant]

    def cover(self, row: Any) -> bool:
        return strictest(self._of(row.tenant), subject_of(row)) is not None

    def agents(self, tenant: str) -> set[str]:
        return {latch.target for latch in self._of(tenant) if latch.scope == "agent"}

    def cover_all(self, tenant: str) -> bool:
        return any(latch.scope in ("tenant", "everything") for latch in self._of(tenant))


class _AtWork:
    """How many runs are at work, counted once and only where a limit asks for it."""

    def __init__(self, transaction: Transaction, revisions: Revisions, limits: Limits) -> None:
        self._transaction = transaction
        self._revisions = revisions
        self._per_tenant = limits.running_runs_per_tenant
        self._counts: Counter[tuple[str, str]] | None = None

    def count(self, row: Any) -> None:
        if self._counts is not None:
            self._counts[row.tenant, row.agent] += 1
            self._counts[row.tenant, ""] += 1

    def is_full(self, tenant: str, agent: str = "", revision: str = "") -> bool:
        """True where the tenant's limit is reached, or the agent's, where one is named."""
        if self._per_tenant and self._of(tenant, "") >= self._per_tenant:
            return True
        if not agent:
            return False
        spec = self._revisions.get(self._transaction, tenant, agent, revision).spec
        limit = spec.limits.concurrent_runs
        return bool(limit) and self._of(tenant, agent) >= limit

    def _of(self, tenant: str, agent: str) -> int:
        if self._counts is None:
            self._counts = Counter()
            for of_tenant, of_agent, number in self._transaction.execute(_AT_WORK):
                self._counts[of_tenant, of_agent] += number
                self._counts[of_tenant, ""] += number
        return self._counts[tenant, agent]


def _reaches(transaction: Transaction, query: Select[Any], number: int) -> bool:
    """True where a query has so many rows; looks at no more."""
    found = transaction.execute(select(func.count()).select_from(query.limit(number).subquery())).scalar_one()
    return bool(found >= number)
