"""Calls of a run that are under way, and when they are all over.

A run parks only when the calls beside the one that asks are closed, and a halt is answered only when nothing of the run
moves: neither a gated call nor a thread that was started for it. asyncio would forget both: an orphan of ``gather``,
and the thread behind a cancelled ``await``.

A call belongs to the execution that makes it. What an execution has left behind, a sibling of a call that asked perhaps,
comes to its gate late: its result would go nowhere, and the next execution makes the same call. So it does not begin.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 64
"""Threads for sync nodes and tools of one host. Threads that wait for a gate cost little; too few would stall sync
tools of sync tools."""


@dataclass(eq=False)
class Call:
    """A gated call from its gate to its end. ``scope`` is the LangGraph task that makes it, ``place`` where in that;
    ``parent`` the call that it is made in, ``execution`` the number of the execution that makes it, 0 where that is unknown.
    """

    step: str
    scope: str
    parent: Call | None = None
    place: str = ""
    execution: int = 0
    paused: bool = field(default=False, init=False)


class Activity:
    """What moves in one run. Thread-safe; its futures are resolved in whichever thread made them true."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[Call] = set()
        self._expected: dict[object, str] = {}
        self._is_left = False
        self.execution = 0
        """The number of the present execution, from 1."""
        self._threads = 0
        self._pausing: list[tuple[str, Future[None]]] = []
        self._closed: list[Future[None]] = []
        self._idle: list[Future[None]] = []

    @property
    def open_steps(self) -> list[str]:
        """Keys of the calls that are not closed."""
        with self._lock:
            return sorted(call.step for call in self._calls)

    def enter(self) -> int:
        """The graph is entered; returns the number of this execution."""
        with self._lock:
            self.execution += 1
            self._is_left = False
            return self.execution

    def leave(self) -> Future[None]:
        """The present execution is over: no call of it begins any more, unless one that is open makes it.

        :returns: resolved when no call is open.
        """
        with self._lock:
            self._is_left = True
        return self.closed()

    def expect(self, scope: str) -> object:
        """A task has made a call that comes to its gate in another thread, some time later.

        :returns: what ``begin`` and ``forget`` are told.
        """
        expected = object()
        with self._lock:
            self._expected[expected] = scope
        return expected

    def forget(self, expected: object) -> None:
        """A call that was expected has come or comes no more. A second time changes nothing."""
        with self._lock:
            self._expected.pop(expected, None)
            done = self._settle()
        _resolve(done)

    def begin(self, call: Call, expected: object = None) -> bool:
        """A call comes to its gate. False, and it must not go on, where its execution has been left."""
        with self._lock:
            is_of_open = call.parent is not None and call.parent in self._calls
            is_left = self._is_left or call.execution not in (0, self.execution)
            if is_left and not is_of_open:
                return False
            self._calls.add(call)
            self._expected.pop(expected, None)
            return True

    def end(self, call: Call) -> None:
        """A call is closed. A second time changes nothing."""
        with self._lock:
            self._calls.discard(call)
            done = self._settle()
        _resolve(done)

    def pause(self, call: Call) -> Future[None]:
        """A call waits for a person, and so do the calls that it is made in.

        :returns: resolved when every call of the same task is closed or waits as well, those included that are expected,
            as long as there are threads for them to come in: then the task may be left.
        """
        paused: Future[None] = Future()
        with self._lock:
            waiting: Call | None = call
            while waiting is not None:
                waiting.paused = True
                waiting = waiting.parent
            self._pausing.append((call.scope, paused))
            done = self._settle()
        _resolve(done)
        return paused

    def closed(self) -> Future[None]:
        """Resolved when no call is open."""
        closed: Future[None] = Future()
        with self._lock:
            self._closed.append(closed)
            done = self._settle()
        _resolve(done)
        return closed

    def idle(self) -> Future[None]:
        """Resolved when no call is open and no thread of the run is running."""
        idle: Future[None] = Future()
        with self._lock:
            self._idle.append(idle)
            done = self._settle()
        _resolve(done)
        return idle

    def thread_begins(self) -> None:
        """A thread starts to work for the run."""
        with self._lock:
            self._threads += 1
            done = self._settle()
        _resolve(done)

    def thread_ends(self) -> None:
        """A thread has ended its work for the run."""
        with self._lock:
            self._threads -= 1
            done = self._settle()
        _resolve(done)

    def _settle(self) -> list[Future[None]]:
        """Take out the futures that have come true; called with the lock held, resolved without it."""
        moving = {call.scope for call in self._calls if not call.paused}
        if self._threads <= MAX_THREADS:
            # With more, calls that wait may hold the very threads in which the expected ones would come.
            moving.update(self._expected.values())
        done = [future for scope, future in self._pausing if scope not in moving]
        self._pausing = [(scope, future) for scope, future in self._pausing if scope in moving]
        if not self._calls:
            done += self._closed
            self._closed = []
            if not self._threads:
                done += self._idle
                self._idle = []
        return done


class TrackedExecutor(ThreadPoolExecutor):
    """The event loop's default executor: tells of work, from the moment it is submitted until it is done.

    :param began: called in the submitting context, before the work begins; may return what is to be called with the
        work's future.
    """

    def __init__(self, began: Callable[[], Callable[[Future[Any]], None] | None]) -> None:
        super().__init__(MAX_THREADS, thread_name_prefix="fermata-run")
        self._began = began

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As ``ThreadPoolExecutor.submit``."""
        follow = self._began()
        future = super().submit(fn, *args, **kwargs)
        if follow is not None:
            follow(future)
        return future


def _resolve(futures: list[Future[Any]]) -> None:
    for future in futures:
        if future.set_running_or_notify_cancel():
            future.set_result(None)
