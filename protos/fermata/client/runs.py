"""Runs: start them, read them, watch them."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import run_pb2, run_pb2_grpc

from .names import full_name, tenant_name
from .streams import BrokenStreamError, StreamOptions, follow
from .threads import MultitaskStrategy, strategy_of
from .transport import Transport
from .values import to_struct

if TYPE_CHECKING:
    from fermata.v1.run_pb2_grpc import RunServiceAsyncStub

TERMINAL_STATES = frozenset(
    {
        run_pb2.RUN_STATE_HALTED,
        run_pb2.RUN_STATE_SUCCEEDED,
        run_pb2.RUN_STATE_FAILED,
        run_pb2.RUN_STATE_CANCELLED,
        run_pb2.RUN_STATE_EXPIRED,
    }
)
EVENTS_PAGE = 1000


class Runs:
    """``RunService``. Names may be given whole or as their last part."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> RunServiceAsyncStub:
        return run_pb2_grpc.RunServiceStub(self._transport.channel)

    async def create(
        self,
        agent: str,
        text: str | None = None,
        *,
        values: Mapping[str, object] | None = None,
        thread: str = "",
        multitask_strategy: MultitaskStrategy | None = None,
        priority: int = 0,
        deadline: datetime | None = None,
        parent: str = "",
        request_id: str = "",
        on_behalf_of: str = "",
    ) -> run_pb2.Run:
        """Start a run; it is committed when this returns.

        :param text: a message to an agent that talks; otherwise give ``values``, the graph's input.
        :param thread: the conversation to go on with; a new one where empty.
        :param multitask_strategy: what happens where another run of the thread is going on: ``reject`` this
            one, ``enqueue`` it behind those before it, ``interrupt`` them, or ``rollback`` them with what they
            have added to the conversation. What the thread says where left out.
        :param request_id: a UUID of your own, if a later process shall be able to repeat the call; one is
            made where empty.
        :raises FailedPreconditionError: HALTED, THREAD_BUSY, PARENT_RUN_ENDED.
        :param priority: from -100 to 100; of a tenant's waiting runs those with a greater number go first.
        :param deadline: when the run ends if it has not; with a time zone.
        :param parent: the run for which this one is made: a latch on that one's family covers it as well.
        :raises ResourceExhaustedError: QUEUE_FULL, THREAD_QUEUE_FULL.
        :raises NotFoundError: AGENT_NOT_FOUND, THREAD_NOT_FOUND.
        """
        tenant = self._transport.tenant
        request = run_pb2.CreateRunRequest(
            parent=tenant_name(tenant),
            agent=full_name(tenant, "agents", agent),
            thread=full_name(tenant, "threads", thread) if thread else "",
            multitask_strategy=strategy_of(multitask_strategy),
            priority=priority,
            parent_run=full_name(tenant, "runs", parent) if parent else "",
            request_id=request_id,
            on_behalf_of=on_behalf_of,
        )
        if deadline is not None:
            request.deadline.FromDatetime(deadline.astimezone(UTC))
        if values is not None:
            request.values.CopyFrom(to_struct(values))
        else:
            request.text = text or ""
        return await self._transport.unary(self._stub.CreateRun, request)

    async def get(self, run: str) -> run_pb2.Run:
        """One run. :raises NotFoundError: RUN_NOT_FOUND."""
        return await self._transport.unary(self._stub.GetRun, run_pb2.GetRunRequest(name=self._name(run)))

    async def list(
        self,
        *,
        agent: str = "",
        thread: str = "",
        states: Iterable[run_pb2.RunState.ValueType] = (),
        limit: int | None = 50,
    ) -> Sequence[run_pb2.Run]:
        """Runs, newest first, at most ``limit`` (None: all)."""
        tenant = self._transport.tenant
        request = run_pb2.ListRunsRequest(
            parent=tenant_name(tenant),
            agent=full_name(tenant, "agents", agent) if agent else "",
            thread=full_name(tenant, "threads", thread) if thread else "",
            states=states,
        )
        return await self._transport.collect(self._stub.ListRuns, request, "runs", run_pb2.Run, limit)

    async def events(self, run: str, *, after_sequence: int = 0) -> Sequence[run_pb2.Event]:
        """The durable events of a run so far, in order, without gaps."""
        events: builtins.list[run_pb2.Event] = []
        while True:
            page = await self._transport.unary(
                self._stub.ListRunEvents,
                run_pb2.ListRunEventsRequest(
                    parent=self._name(run), after_sequence=after_sequence, page_size=EVENTS_PAGE
                ),
            )
            events.extend(page.events)
            if not page.more or not page.events:
                return events
            after_sequence = page.events[-1].sequence

    async def steps(self, run: str, *, limit: int | None = None) -> Sequence[run_pb2.Step]:
        """The run's effect ledger, in order of start."""
        request = run_pb2.ListStepsRequest(parent=self._name(run))
        return await self._transport.collect(self._stub.ListSteps, request, "steps", run_pb2.Step, limit)

    async def watch(
        self,
        run: str = "",
        *,
        thread: str = "",
        cursor: str = "",
        deltas: bool = False,
        options: StreamOptions | None = None,
    ) -> AsyncGenerator[run_pb2.WatchRunsResponse, None]:
        """Stream events (and, with ``deltas``, text as it is written), over broken connections, without gap
        or duplicate.

        A watch of one run ends after that run's last event; a watch of a thread, or of everything (neither
        given), does not end.

        :param cursor: go on after an item that an earlier watch yielded, possibly of another process.
        :returns: items with ``event`` or ``delta`` set; heartbeats are left out.
        """
        tenant = self._transport.tenant
        run_name = self._name(run) if run else ""
        thread_name = full_name(tenant, "threads", thread) if thread else ""
        order = EventOrder()

        def request_from(position: str) -> run_pb2.WatchRunsRequest:
            return run_pb2.WatchRunsRequest(
                parent=tenant_name(tenant), run=run_name, thread=thread_name, cursor=position, deltas=deltas
            )

        def accept(item: run_pb2.WatchRunsResponse) -> bool:
            match item.WhichOneof("item"):
                case "event":
                    return order.take(item.event)
                case "delta":
                    return True
                case _:
                    return False

        async def is_over() -> bool:
            if not run_name:
                return False
            if order.ended:
                return True
            # A cursor behind the last event gives an empty stream: only the run itself can tell whether
            # that is all.
            now = await self.get(run_name)
            return (
                now.state in TERMINAL_STATES
                and (order.last(run_name) or now.last_sequence) >= now.last_sequence
            )

        stream = follow(
            self._transport,
            self._stub.WatchRuns,
            request_from,
            accept,
            lambda item: item.cursor,
            is_over,
            cursor=cursor,
            options=options,
        )
        async with aclosing(stream):
            async for item in stream:
                yield item

    async def wait(self, run: str, *, until: Iterable[run_pb2.RunState.ValueType] = ()) -> run_pb2.Run:
        """Wait until the run has ended, or is in one of the states ``until``, and return it."""
        wanted = TERMINAL_STATES | set(until)
        now = await self.get(run)
        if now.state in wanted:
            return now
        async with aclosing(self.watch(now.name)) as items:
            async for item in items:
                if item.event.state in wanted:
                    current = await self.get(now.name)
                    if current.state in wanted:
                        return current
        return await self.get(now.name)

    def _name(self, run: str) -> str:
        return full_name(self._transport.tenant, "runs", run)


class EventOrder:
    """Which events were seen, by run, so that a resumed stream neither repeats nor skips one."""

    REMEMBERED_RUNS = 10_000

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self.ended = False

    def last(self, run: str) -> int:
        """Sequence number of the run's last event seen; 0 before the first."""
        return self._last.get(run, 0)

    def take(self, event: run_pb2.Event) -> bool:
        """True where the event is the next of its run, False where it was seen.

        :raises BrokenStreamError: STREAM_GAP where events between were left out.
        """
        last = self._last.get(event.run)
        if last is not None and event.sequence <= last:
            return False
        if last is not None and event.sequence > last + 1:
            raise BrokenStreamError(
                f"Events {last + 1} to {event.sequence - 1} of {event.run} are missing.",
                reason="STREAM_GAP",
                metadata={"run": event.run, "after": str(last), "got": str(event.sequence)},
            )
        self._last.pop(event.run, None)
        self._last[event.run] = event.sequence
        if len(self._last) > self.REMEMBERED_RUNS:
            # A watch of everything may last for months. Forgetting the quietest run only loosens the check
            # for it.
            del self._last[next(iter(self._last))]
        self.ended = self.ended or event.state in TERMINAL_STATES
        return True
