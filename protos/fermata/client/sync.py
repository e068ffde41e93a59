"""The same client for code without an event loop.

``SyncClient`` runs an async ``Client`` on a private loop in a thread of its own. Its methods are made from
the async ones, so that signatures, types and docstrings cannot drift apart. It may be used from several
threads at once, and not inside a coroutine.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast

from .agents import Agents
from .approvals import Approvals
from .client import Client
from .collections import Collections
from .config import Connection
from .errors import LocalError
from .latches import Latches
from .models import Models
from .policies import Policies
from .principals import Principals
from .retry import RetryPolicy
from .runs import Runs
from .surfaces import Surfaces
from .threads import Threads
from .transport import DEADLINE_SECONDS
from .workers import Workers

_Noun = TypeVar("_Noun")
_Result = TypeVar("_Result")
_Parameters = ParamSpec("_Parameters")
_END = object()


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fermata-client", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run ``work`` on the loop and wait. An interrupt of the waiting thread cancels it, whenever it comes.

        :raises LocalError: CLIENT_CLOSED after ``stop``.
        """
        if self.is_stopped:
            work.close()
            raise LocalError("The client is closed.", reason="CLIENT_CLOSED")
        call = _Call(work)
        try:
            return asyncio.run_coroutine_threadsafe(call.run(), self._loop).result()
        except BaseException:
            # An interrupt may come before there is a future to cancel.
            self._loop.call_soon_threadsafe(call.abandon)
            raise

    @property
    def is_stopped(self) -> bool:
        """True after ``stop``."""
        return self._loop.is_closed()

    def stop(self) -> None:
        """End the loop and its thread."""
        self.wait(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Call(Generic[_Result]):
    """One piece of work on the loop, which its waiter may abandon at any moment. All methods run on the loop."""

    def __init__(self, work: Coroutine[Any, Any, _Result]) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._abandoned = False

    async def run(self) -> _Result:
        """Do the work. :raises asyncio.CancelledError: where it was abandoned."""
        self._task = asyncio.current_task()
        if self._abandoned:
            self._work.close()
            raise asyncio.CancelledError
        return await self._work

    def abandon(self) -> None:
        """Stop it, or keep it from starting."""
        self._abandoned = True
        if self._task is not None:
            self._task.cancel()


class _Blocking(Generic[_Noun]):
    """A noun of the async client, with the loop that it lives on."""

    def __init__(self, noun: _Noun, loop: _Loop) -> None:
        self._noun = noun
        self._loop = loop


def _call(
    method: Callable[Concatenate[_Noun, _Parameters], Coroutine[Any, Any, _Result]],
) -> Callable[Concatenate[_Blocking[_Noun], _Parameters], _Result]:
    @functools.wraps(method)
    def blocking(self: _Blocking[_Noun], *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        return self._loop.wait(method(self._noun, *args, **kwargs))

    return cast("Callable[Concatenate[_Blocking[_Noun], _Parameters], _Result]", blocking)


def _stream(
    method: Callable[Concatenate[_Noun, _Parameters], AsyncGenerator[_Result, None]],
) -> Callable[Concatenate[_Blocking[_Noun], _Parameters], Generator[_Result, None, None]]:
    @functools.wraps(method)
    def blocking(
        self: _Blocking[_Noun], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> Generator[_Result, None, None]:
        items = method(self._noun, *args, **kwargs)
        turn = asyncio.Lock()

        async def following() -> object:
            async with turn:
                return await anext(items, _END)

        async def closing() -> None:
            # After an interrupt the last step may still be unwinding; a generator can't be closed before it
            # has.
            async with turn:
                await items.aclose()

        try:
            while (item := self._loop.wait(following())) is not _END:
                yield cast("_Result", item)
        finally:
            if not self._loop.is_stopped:
                self._loop.wait(closing())

    return cast(
        "Callable[Concatenate[_Blocking[_Noun], _Parameters], Generator[_Result, None, None]]", blocking
    )


class SyncAgents(_Blocking[Agents]):
    """``Agents``, blocking."""

    apply = _call(Agents.apply)
    get = _call(Agents.get)
    list = _call(Agents.list)
    revisions = _call(Agents.revisions)
    delete = _call(Agents.delete)


class SyncThreads(_Blocking[Threads]):
    """``Threads``, blocking."""

    create = _call(Threads.create)
    get = _call(Threads.get)
    list = _call(Threads.list)


class SyncRuns(_Blocking[Runs]):
    """``Runs``, blocking."""

    create = _call(Runs.create)
    get = _call(Runs.get)
    list = _call(Runs.list)
    events = _call(Runs.events)
    steps = _call(Runs.steps)
    watch = _stream(Runs.watch)
    wait = _call(Runs.wait)


class SyncApprovals(_Blocking[Approvals]):
    """``Approvals``, blocking."""

    get = _call(Approvals.get)
    list = _call(Approvals.list)
    decide = _call(Approvals.decide)
    approve = _call(Approvals.approve)
    edit = _call(Approvals.edit)
    reject = _call(Approvals.reject)
    answer = _call(Approvals.answer)
    watch = _stream(Approvals.watch)


class SyncLatches(_Blocking[Latches]):
    """``Latches``, blocking."""

    hold = _call(Latches.hold)
    halt = _call(Latches.halt)
    release = _call(Latches.release)
    get = _call(Latches.get)
    list = _call(Latches.list)
    watch = _stream(Latches.watch)
    settle = _call(Latches.settle)


class SyncPolicies(_Blocking[Policies]):
    """``Policies``, blocking."""

    get = _call(Policies.get)
    update = _call(Policies.update)
    test = _call(Policies.test)


class SyncCollections(_Blocking[Collections]):
    """``Collections``, blocking."""

    create = _call(Collections.create)
    get = _call(Collections.get)
    list = _call(Collections.list)
    delete = _call(Collections.delete)
    ingest = _call(Collections.ingest)
    documents = _call(Collections.documents)
    delete_document = _call(Collections.delete_document)
    search = _call(Collections.search)


class SyncModels(_Blocking[Models]):
    """``Models``, blocking."""

    list = _call(Models.list)
    embed = _call(Models.embed)


class SyncPrincipals(_Blocking[Principals]):
    """``Principals``, blocking."""

    caller = _call(Principals.caller)
    create = _call(Principals.create)
    get = _call(Principals.get)
    list = _call(Principals.list)
    update = _call(Principals.update)
    rotate_token = _call(Principals.rotate_token)
    delete = _call(Principals.delete)


class SyncSurfaces(_Blocking[Surfaces]):
    """``Surfaces``, blocking."""

    open_place = _call(Surfaces.open_place)
    place = _call(Surfaces.place)
    place_at = _call(Surfaces.place_at)
    link = _call(Surfaces.link)
    get_link = _call(Surfaces.get_link)
    links = _call(Surfaces.links)
    unlink = _call(Surfaces.unlink)
    link_code = _call(Surfaces.link_code)
    redeem = _call(Surfaces.redeem)
    put_card = _call(Surfaces.put_card)
    cards = _call(Surfaces.cards)


class SyncWorkers(_Blocking[Workers]):
    """``Workers``, blocking."""

    list = _call(Workers.list)


class SyncClient:
    """A connection to a Fermata server, for code without an event loop.

    ::

        with SyncClient() as client:
            run = client.runs.create("operator", "how is line 3?")
            print(client.runs.wait(run.name).answer)

    Its parameters are those of ``Client``.
    """

    def __init__(
        self,
        connection: Connection | None = None,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        retry: RetryPolicy | None = None,
    ) -> None:
        client = Client(connection, deadline_seconds=deadline_seconds, retry=retry)
        loop = _Loop()
        self._client = client
        self._loop = loop
        self.agents = SyncAgents(client.agents, loop)
        self.threads = SyncThreads(client.threads, loop)
        self.runs = SyncRuns(client.runs, loop)
        self.approvals = SyncApprovals(client.approvals, loop)
        self.latches = SyncLatches(client.latches, loop)
        self.policies = SyncPolicies(client.policies, loop)
        self.collections = SyncCollections(client.collections, loop)
        self.models = SyncModels(client.models, loop)
        self.principals = SyncPrincipals(client.principals, loop)
        self.surfaces = SyncSurfaces(client.surfaces, loop)
        self.workers = SyncWorkers(client.workers, loop)

    @property
    def connection(self) -> Connection:
        """The server that this client calls."""
        return self._client.connection

    def close(self) -> None:
        """Close the connection and end the loop's thread; a second call does nothing."""
        if not self._loop.is_stopped:
            self._loop.wait(self._client.close())
            self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SyncClient({self.connection!r})"
