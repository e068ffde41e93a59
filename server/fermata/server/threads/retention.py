"""How much of a thread's history is kept: in each namespace the newest checkpoints, and all that somebody still needs.

Never pruned, whatever the settings say: the two newest checkpoints of a namespace, from which the active run goes on, whose tasks it
may execute again and by which its steps are keyed; and what a rollback puts back, which is the newest checkpoint that each namespace
had when the active run began. With a checkpoint go its writes and what nothing else refers to.

A task's own namespace (``node:task``) goes whole when the checkpoint that its task belongs to is gone.

Chosen: to prune beside the runs, a thread at a time. Refused: in the transaction that ends a run or writes a checkpoint, for a run of
a thousand super-steps would end too late, and every commit would pay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, select

from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.threads.beside import among, owner
from fermata.server.threads.forgetting import forget_numbers

LEAST_KEPT = 2
"""The newest checkpoint, and its parent while its tasks still write."""

LOOKED_AT_ONCE = 1000
"""New checkpoints that are looked at in one go."""

REMOVED_AT_ONCE = 500
"""Checkpoints that one transaction removes at the most: everybody else waits for it."""

_TASK = ":"
"""Between a node and its task's id, in the namespace of a task."""

_checkpoints, _runs, _threads = schema.checkpoints.c, schema.runs.c, schema.threads.c

_SINCE = (
    select(_checkpoints.n, _checkpoints.tenant, _checkpoints.thread)
    .where(_checkpoints.n > bindparam("after"))
    .order_by(_checkpoints.n)
    .limit(LOOKED_AT_ONCE)
)
_ROWS = (
    select(_checkpoints.n, _checkpoints.thread, _checkpoints.namespace)
    .where(
        and_(
            _checkpoints.tenant == bindparam("of_tenant"), among(_checkpoints.thread, bindparam("of_thread"))
        )
    )
    .order_by(_checkpoints.id.desc())
)
_BASE = (
    select(_runs.base)
    .join(
        schema.threads,
        and_(
            _threads.tenant == _runs.tenant,
            _threads.id == bindparam("of_thread"),
            _threads.active_run == _runs.id,
        ),
    )
    .where(_runs.tenant == bindparam("of_tenant"))
)


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept.

    :param checkpoints: of each namespace of a thread the newest so many, and never fewer than two; 0 keeps all.
    """

    checkpoints: int = 100


def threads_since(connection: Any, after: int) -> tuple[set[tuple[str, str]], int]:
    """Tenant and thread of what was stored after this number, and how far that is; the same number where there is nothing new."""
    rows = connection.execute(_SINCE, {"after": after}).fetchall()
    return {(row.tenant, owner(row.thread)) for row in rows}, rows[-1].n if rows else after


def prune(transaction: Transaction, tenant: str, thread: str, retention: Retention) -> int:
    """Remove what need not be kept of a thread and those beside it; return how many checkpoints that was.

    So many are removed that nothing is left to do, or ``REMOVED_AT_ONCE``; then another call goes on.
    """
    if not retention.checkpoints:
        return 0
    here = {"of_tenant": tenant, "of_thread": thread}
    base = transaction.execute(_BASE, here).scalar()
    if base is not None and base < 0:
        # The active run has not begun, or nobody has written down from what: it may need all.
        return 0
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in transaction.execute(_ROWS, here):
        places[row.thread, row.namespace].append(row.n)
    gone = _not_needed(places, max(retention.checkpoints, LEAST_KEPT), base)
    removed = 0
    for place, numbers in gone.items():
        removed += forget_numbers(transaction, tenant, *place, set(numbers[: REMOVED_AT_ONCE - removed]))
        if removed >= REMOVED_AT_ONCE:
            break
    return removed


def _not_needed(
    places: dict[tuple[str, str], list[int]], kept: int, base: int | None
) -> dict[tuple[str, str], Sequence[int]]:
    """Numbers of the checkpoints that go, oldest first, by thread and namespace.

    :param places: numbers of all checkpoints, newest first.
    :param base: number of the last checkpoint before the active run; None where no run is active.
    """
    gone: dict[tuple[str, str], Sequence[int]] = {}
    for (thread, namespace), numbers in places.items():
        roots = places.get((thread, ""), [])
        root_before = _newest_until(roots, base)
        before = _newest_until(numbers, base)
        if _TASK in namespace and roots:
            # A task's checkpoints come after the one that it belongs to.
            needed = {number for number in numbers[:kept] if number > min(roots[:kept])}
            if before is not None and root_before is not None and before > root_before:
                needed.add(before)
        else:
            needed = {*numbers[:kept], *([before] if before is not None else [])}
        if unneeded := [number for number in reversed(numbers) if number not in needed]:
            gone[thread, namespace] = unneeded
    return gone


def _newest_until(numbers: Sequence[int], base: int | None) -> int | None:
    if base is None:
        return None
    return next((number for number in numbers if number <= base), None)
