"""What every measurement gets: the control plane, a client with an open watch, the peers, and how often to measure."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from tests.benchmarks.figures.bare import Bare
from tests.benchmarks.figures.feed import Feed
from tests.benchmarks.figures.plane import Plane
from tests.benchmarks.figures.series import Figure

from fermata.client import Client, Connection
from fermata.client.bundle import read

AGENTS = Path(__file__).parent.parent / "agents"
PLAIN, CALLING = "bench-plain", "bench-calling"
SOAK_RUNS = 2_000
"""A first look; leaks of a few kilobytes a run show at 20,000."""
MEMORY, SQLITE = "LangGraph, InMemorySaver", "LangGraph, AsyncSqliteSaver"


@dataclass(frozen=True, slots=True)
class Bench:
    """The things that measurements share.

    :param quick: measure a tenth as often, for a first look.
    :param soak: how many runs the soak takes.
    """

    plane: Plane
    client: Client
    feed: Feed
    memory: Bare
    sqlite: Bare
    quick: bool
    soak: int

    def times(self, count: int) -> int:
        """How often to do what is done ``count`` times in a whole measurement."""
        return max(count // 10, 2) if self.quick else count


Measure = Callable[[Bench], Awaitable[Sequence[Figure]]]


@asynccontextmanager
async def bench(plane: Plane, folder: Path, *, quick: bool, soak: int) -> AsyncGenerator[Bench, None]:
    """Connect, apply the benchmark's agents, open the watch and the peers' stores.

    :param folder: takes the file of LangGraph's SQLite checkpointer.
    """
    async with (
        Client(Connection.discover(data=plane.data)) as client,
        AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.sqlite")) as sqlite,
    ):
        for name in ("plain.yaml", "calling.yaml"):
            (bundle,) = read(AGENTS / name, os.environ)
            await client.agents.apply(bundle.name, bundle.spec, pack=bundle.pack)
        feed = Feed(client)
        try:
            await feed.open(PLAIN)
            yield Bench(plane, client, feed, Bare(InMemorySaver()), Bare(sqlite), quick, soak)
        finally:
            await feed.close()
