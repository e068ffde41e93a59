"""Shell completion that asks the server, briefly: a shell must not wait for one that is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer

from fermata.bots.conversation.text import short_name
from fermata.client import Connection, FermataError, RetryPolicy, SyncClient

DEADLINE_SECONDS = 1.0
LIMIT = 50


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """IDs of runs."""
    return _ask(context, incomplete, lambda client: (run.name for run in client.runs.list(limit=LIMIT)))


def approvals(context: typer.Context, incomplete: str) -> list[str]:
    """IDs of pending approvals."""
    return _ask(
        context, incomplete, lambda client: (found.name for found in client.approvals.list(limit=LIMIT))
    )


def agents(context: typer.Context, incomplete: str) -> list[str]:
    """Names of agents."""
    return _ask(context, incomplete, lambda client: (agent.name for agent in client.agents.list(limit=LIMIT)))


def latches(context: typer.Context, incomplete: str) -> list[str]:
    """IDs of latches in force."""
    return _ask(
        context, incomplete, lambda client: (latch.name for latch in client.latches.list(limit=LIMIT))
    )


def collections(context: typer.Context, incomplete: str) -> list[str]:
    """Names of collections."""
    return _ask(
        context, incomplete, lambda client: (found.name for found in client.collections.list(limit=LIMIT))
    )


def _ask(context: typer.Context, incomplete: str, names: Callable[[SyncClient], Iterable[str]]) -> list[str]:
    options = context.find_root().params
    try:
        connection = Connection.discover(
            address=options.get("address"), token_file=options.get("token_file"), data=options.get("data")
        )
        with SyncClient(
            connection, deadline_seconds=DEADLINE_SECONDS, retry=RetryPolicy(attempts=1)
        ) as client:
            return [found for name in names(client) if (found := short_name(name)).startswith(incomplete)]
    except FermataError:
        return []
