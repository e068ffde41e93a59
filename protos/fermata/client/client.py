"""The async client: one object with one attribute per noun."""

from __future__ import annotations

from typing import Self

from .agents import Agents
from .approvals import Approvals
from .collections import Collections
from .config import Connection
from .latches import Latches
from .models import Models
from .policies import Policies
from .principals import Principals
from .retry import RetryPolicy
from .runs import Runs
from .surfaces import Surfaces
from .threads import Threads
from .transport import DEADLINE_SECONDS, Transport
from .workers import Workers


class Client:
    """A connection to a Fermata server, for one event loop.

    ::

        async with Client() as client:
            run = await client.runs.create("operator", "line 3 vibrates badly, deal with it")
            async for item in client.runs.watch(run.name):
                ...

    :param connection: the server; found by ``Connection.discover()`` where None.
    :param deadline_seconds: longest time of a call that is not a stream, retries included.
    :param retry: how calls that may be repeated are repeated.
    :param transport: in place of the three above.
    """

    def __init__(
        self,
        connection: Connection | None = None,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        retry: RetryPolicy | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.transport = transport or Transport(
            connection or Connection.discover(), deadline_seconds=deadline_seconds, retry=retry
        )
        self.agents = Agents(self.transport)
        self.threads = Threads(self.transport)
        self.runs = Runs(self.transport)
        self.approvals = Approvals(self.transport)
        self.latches = Latches(self.transport)
        self.policies = Policies(self.transport)
        self.collections = Collections(self.transport)
        self.models = Models(self.transport)
        self.principals = Principals(self.transport)
        self.surfaces = Surfaces(self.transport)
        self.workers = Workers(self.transport)

    @property
    def connection(self) -> Connection:
        """The server that this client calls."""
        return self.transport.connection

    async def close(self) -> None:
        """Close the connection; further calls raise CLIENT_CLOSED."""
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Client({self.connection!r})"
