"""An event loop that owns time, and processes that share it: every interleaving is a seed's, and any of them comes again.

Each callback belongs to the process in whose context it was scheduled. The loop runs a few callbacks of one process, then of
another chosen by the seed, and moves time on only when nobody has anything to do. So a killed process stops between two
callbacks and never runs again, not even its ``finally`` blocks; a frozen one stands still while time passes, and goes on later.
What a process runs stays in order, as in a loop of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

TURN_SECONDS = 0.000_05
"""What a process's turn costs: time that never moves would hide every timeout."""

MOST_CALLBACKS_IN_A_TURN = 6

MOST_TURNS = 50_000
"""A history takes two thousand, and one in which somebody waits for minutes ten thousand."""

START = 1_000_000.0


@dataclass(eq=False)
class Process:
    """A process of the simulation. ``context`` is the one in which its callbacks run."""

    name: str
    alive: bool = True
    frozen: bool = False
    ready: deque[asyncio.Handle] = field(default_factory=deque)
    on_death: list[Callable[[], None]] = field(default_factory=list)
    """Called, in the world's context, at the moment of its death: sockets that close, a parent that is told."""
    context: contextvars.Context = field(init=False)

    def __post_init__(self) -> None:
        self.context = contextvars.copy_context()
        self.context.run(_current.set, self)


_current: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


def current_process() -> Process:
    """The process whose code is running."""
    return _current.get()


class StandstillError(Exception):
    """Nobody has anything to do, nor ever will have; or somebody always has, and nothing comes of it."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module. ``world`` is the process of everything outside: the network, the people, the faults."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._now = START
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._processes: list[Process] = []
        self.turns = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self.follow: Callable[[], Callable[[concurrent.futures.Future[Any]], None] | None] | None = None
        """As the argument of ``TrackedExecutor``: told of what would run in a thread."""
        self.world = self.process("world")
        self.set_task_factory(self._task)
        _current.set(self.world)

    def process(self, name: str) -> Process:
        """A new process."""
        process = Process(name)
        self._processes.append(process)
        return process

    def run_in(self, process: Process, callback: Callable[..., object], *args: Any) -> None:
        """Have a process run something, as soon as it gets its turn."""
        self.call_soon(callback, *args, context=process.context.copy())

    def spawn(self, process: Process, coroutine: Any) -> asyncio.Task[Any]:
        """Start a task of a process."""
        return self.create_task(coroutine, context=process.context.copy())

    def kill(self, process: Process) -> None:
        """End a process between two of its callbacks. A second time changes nothing."""
        if not process.alive:
            return
        process.alive = False
        process.ready.clear()
        self._processes.remove(process)
        told, process.on_death = process.on_death, []
        for tell in told:
            self.run_in(self.world, tell)

    def freeze(self, process: Process) -> None:
        """Let a process stand still."""
        process.frozen = True

    def wake(self, process: Process) -> None:
        """Let a frozen process go on."""
        process.frozen = False

    def forget(self) -> None:
        """Let go of all tasks, at the end: nobody is told that they were pending."""
        for task in self.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.tasks.clear()
        self._timers.clear()
        for process in self._processes:
            process.ready.clear()

    # what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._queue(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def run_in_executor(
        self, executor: Any, func: Callable[[*Arguments], T], *args: *Arguments
    ) -> asyncio.Future[T]:
        """What would run in a thread runs as a callback of its own, a little later."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        if self.follow is not None and (tell := self.follow()) is not None:
            tell(done)

        def work() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(func(*args))
            except Exception as error:
                done.set_exception(error)

        self.call_later(self._rng.random() * 0.002, work)
        return asyncio.wrap_future(done, loop=self)

    def _queue(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(_current, self.world)  # type: ignore[attr-defined]
        if process.alive:
            process.ready.append(handle)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when they are due."""

    def _task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, context: Any = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, context=context)
        self.tasks.append(task)
        return task

    def _run_once(self) -> None:
        while self._timers and (self._timers[0][0] <= self._now or self._timers[0][2].cancelled()):
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled():
                self._queue(timer)
        able = [process for process in self._processes if process.ready and not process.frozen]
        if not able:
            if not self._timers:
                raise StandstillError("Nothing is left to happen.")
            self._now = self._timers[0][0]
            return
        process = self._rng.choice(able)
        self.turns += 1
        if self.turns > MOST_TURNS:
            raise StandstillError(f"It has not come to rest in {MOST_TURNS} turns.")
        self._now += TURN_SECONDS
        for _ in range(self._rng.randint(1, MOST_CALLBACKS_IN_A_TURN)):
            if not process.ready or process.frozen:
                break
            handle = process.ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _write_to_self(self) -> None:
        """There is nothing to wake."""

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""
