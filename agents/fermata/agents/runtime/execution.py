"""One run in a host: from its input to Park or Finish, and on from a Resume.

A graph is entered once per execution: with its input, with ``Command(resume=...)`` where a person answered the graph's
own interrupts, else with None. What our gate asks is never answered by a resume value: the next execution comes upon
the same step and reads its decision there.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.errors import GraphRecursionError
from langgraph.pregel import Pregel
from langgraph.pregel._loop import PregelLoop
from langgraph.types import Command, Durability, Interrupt

from fermata.agents.runtime.breakpoint import HoldPoint
from fermata.agents.runtime.canonical import NotJsonError, jsonable
from fermata.agents.runtime.checkpointer import ChannelCheckpointSaver
from fermata.agents.runtime.context import current_execution
from fermata.agents.runtime.errors import HostError, OutputNotSerializableError, RunStopped
from fermata.agents.runtime.gate import LATCH_ID, serving
from fermata.agents.runtime.messages import (
    closing_messages,
    last_answer,
    message_json,
    new_messages,
    output_json,
)
from fermata.agents.runtime.questions import (
    BREAKPOINT_ID,
    asks_for_one_call,
    breakpoint_question,
    question_of,
)
from fermata.agents.runtime.run import FLUSH_SECONDS, ActiveRun, answer_of
from fermata.agents.runtime.tracebacks import traceback_of
from fermata.v1 import agent_pb2, run_pb2, worker_pb2

_logger = logging.getLogger(__name__)

MESSAGES = "messages"
"""The channel of a graph that one can talk to."""

STUCK_SECONDS = 5.0
"""How long a run that ends with an error waits for calls that can't be cancelled, before it leaves them to the end of
the process."""

DEFAULT_SUPER_STEPS = 100
"""Super-steps of a run where the revision sets no limit."""


_DURABILITY: dict[int, Durability] = {
    agent_pb2.DURABILITY_UNSPECIFIED: "sync",
    agent_pb2.DURABILITY_SYNC: "sync",
    agent_pb2.DURABILITY_ASYNC: "async",
    agent_pb2.DURABILITY_EXIT: "exit",
}


@dataclass
class _Seen:
    """What an execution has come to."""

    values: Any = None
    super_steps: int = 0
    interrupts: dict[str, Interrupt] | None = None


class _Written:
    """A checkpoint that was written already: what awaits it goes on at once."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()

    def result(self) -> None:
        """As a future's."""


# LangGraph 1.2 hands durability "sync" on to nested graphs and then waits for a checkpoint that one compiled with
# checkpointer=False never writes (AttributeError: _put_checkpoint_fut). Such a graph finds this one instead; every
# other loop sets its own.
PregelLoop._put_checkpoint_fut = _Written()  # type: ignore[assignment]


class Execution:
    """A run from its assignment to its end.

    :param run: its state.
    :param graph: the compiled graph of its revision; used by several runs at once.
    """

    def __init__(self, run: ActiveRun, graph: Pregel[Any, Any, Any, Any]) -> None:
        self._run = run
        self._saver = ChannelCheckpointSaver(run, fresh=not run.may_be_recorded)
        self._graph = copy.copy(graph)
        self._graph.checkpointer = self._saver
        self._loop = asyncio.get_running_loop()
        self._work: asyncio.Task[bool] | None = None
        self._resume: asyncio.Queue[worker_pb2.Resume] = asyncio.Queue()
        self._gone_on_by = 0
        self._flush: asyncio.TimerHandle | None = None
        self._reported: set[str] = set()
        self._per_call: set[str] = set()
        self.parked = False
        """True while the run waits for a Resume."""
        self.stuck = False
        """True where a thread of the run could not be stopped: only the end of the process ends it."""
        run.loop_thread = threading.get_ident()
        run.keeps = self._saver.knows
        run.on_stop = self._stopped
        run.on_buffered = self._buffered

    async def serve(self, assign: worker_pb2.Assign) -> None:
        """Run until the end, through every park; reports each. Returns when the run is over or its lease is lost."""
        with serving(self._run):
            try:
                going_on = await self._first_input(assign)
                while not await self._supervise(going_on):
                    resume = await self._resume.get()
                    self.parked = False
                    going_on = await self._resumed(resume)
            except RunStopped:
                pass
            except HostError as error:
                await self._finish_failed(error.reason, error.message, error.detail)
            finally:
                if self._work is not None:
                    self._work.cancel()
                if self._flush is not None:
                    self._flush.cancel()

    def resume(self, resume: worker_pb2.Resume) -> None:
        """Let a parked run go on. A repeat changes nothing: an answer that was taken must not meet a later question."""
        if resume.number and resume.number <= self._gone_on_by:
            return
        self._gone_on_by = resume.number
        self._resume.put_nowait(resume)

    async def halted(self) -> bool:
        """After a stop: True when nothing of the run moves any more and all that it did is sent, so that it is committed
        before whatever is sent after it; never returns while something still moves."""
        if self._work is not None:
            await asyncio.wait([self._work])
        await asyncio.wrap_future(self._run.activity.idle())
        if self._run.has_uncommitted and not self._run.silent:
            self._run.send()
        return True

    # one execution

    async def _supervise(self, going_on: Any) -> bool:
        """Enter the graph once and report what came of it. True where the run is over."""
        number = self._run.new_execution()
        self._run.check()
        self._work = asyncio.create_task(self._enter(going_on, number))
        await asyncio.wait([self._work])
        if self._run.failure is not None:
            await self._settled()
            await self._finish_failed(self._run.failure.reason, self._run.failure.message, "")
            return True
        if self._work.cancelled():
            if self._run.refusal is not None and not self._run.silent:
                await self._settled()
                await self._finish_failed(self._run.refusal.reason, self._run.refusal.message, "")
            return True
        return self._work.result()

    async def _enter(self, going_on: Any, number: int) -> bool:
        current_execution.set(number)
        seen = _Seen()
        hold = HoldPoint(self._run, self._graph.interrupt_before_nodes)
        try:
            async for mode, chunk in self._graph.astream(
                going_on,
                self._config(),
                stream_mode=["updates", "values", "custom"],
                durability=_DURABILITY[self._run.spec.durability],
                interrupt_before=hold,
            ):
                self._look_at(seen, mode, chunk)
        except Exception as error:  # noqa: BLE001 - whatever the graph raises is the run's error
            if isinstance(error, GraphRecursionError) and self._may_ask_for_steps(seen):
                return await self._ask_for_steps()
            return await self._raised(error)
        # Orphans of a gather, and tasks that a node left behind: their calls have an end, and the run waits for it.
        if seen.interrupts is not None:
            # Those that have yet to come to their gate are made by the next execution.
            await asyncio.wrap_future(self._run.activity.leave())
            return await self._park(seen, hold)
        await asyncio.wrap_future(self._run.activity.closed())
        await self._settled()
        return await self._finish(seen.values)

    def _look_at(self, seen: _Seen, mode: str, chunk: Any) -> None:
        if mode == "values":
            seen.values = chunk
            seen.super_steps += 1
            if isinstance(chunk, Mapping):
                self._reported.update(
                    message.id for message in new_messages(chunk.get(MESSAGES)) if message.id
                )
        elif mode == "custom":
            self._run.event(run_pb2.EVENT_TYPE_CUSTOM, {"value": jsonable(chunk)})
        elif isinstance(chunk, Mapping):
            cached = bool((chunk.get("__metadata__") or {}).get("cached"))
            for node, update in chunk.items():
                if node == "__interrupt__":
                    seen.interrupts = seen.interrupts or {}
                    seen.interrupts.update({interrupt.id: interrupt for interrupt in update})
                elif node != "__metadata__":
                    self._report(node, update, cached=cached)

    def _report(self, node: str, update: Any, *, cached: bool) -> None:
        for part in update if isinstance(update, list) else [update]:
            if not isinstance(part, Mapping):
                continue
            for message in new_messages(part.get(MESSAGES)):
                if message.id is None or message.id not in self._reported:
                    self._run.event(run_pb2.EVENT_TYPE_MESSAGE, message_json(message))
                if message.id is not None:
                    self._reported.add(message.id)
        if not cached:
            self._run.event(run_pb2.EVENT_TYPE_NODE_FINISHED, {"node": node})

    # how it ends

    async def _park(self, seen: _Seen, hold: HoldPoint) -> bool:
        run = self._run
        park = worker_pb2.Park(asking_steps=list(run.asked), latch=run.held_by or hold.held_by)
        own = {**run.interrupts, **(seen.interrupts or {})}
        for key, interrupt in own.items():
            if key in run.asked.values() or key.startswith(LATCH_ID):
                continue
            if asks_for_one_call(interrupt):
                self._per_call.add(interrupt.id)
            park.interrupts.append(question_of(interrupt))
        if not (park.asking_steps or park.latch or park.interrupts or run.gate_stopped):
            park.interrupts.append(breakpoint_question())
        # A Resume may come as the answer, or at once after it.
        self.parked = True
        reply = answer_of(await asyncio.wrap_future(run.send(park=park)))
        if reply.WhichOneof("body") == "resume":
            self.resume(reply.resume)
        return False

    def _may_ask_for_steps(self, seen: _Seen) -> bool:
        """True where it is this graph, and none inside of it, that has come to the end of its super-steps, and can go on later."""
        written = self._run.spec.durability != agent_pb2.DURABILITY_EXIT
        return written and seen.super_steps >= self._most_steps() and not self._run.stop_cause

    async def _ask_for_steps(self) -> bool:
        """Park at the limit of super-steps. The server holds the run and asks a person, or halts it; or it knows of more steps."""
        self.parked = True
        reply = answer_of(await asyncio.wrap_future(self._run.send(park=worker_pb2.Park())))
        if reply.WhichOneof("body") == "resume":
            self.resume(reply.resume)
        return False

    async def _finish(self, values: Any) -> bool:
        try:
            output = output_json(values if isinstance(values, Mapping) else {"output": values})
        except NotJsonError as error:
            failure = OutputNotSerializableError(f"The graph's output can't be given as JSON: {error}.")
            await self._finish_failed(failure.reason, failure.message, "")
            return True
        finish = worker_pb2.Finish(answer=last_answer(values))
        finish.output.update(output)  # type: ignore[arg-type]
        await self._send_finish(finish)
        return True

    async def _raised(self, error: Exception) -> bool:
        reason = (
            "RECURSION_LIMIT"
            if isinstance(error, GraphRecursionError)
            else str(getattr(error, "reason", "") or "GRAPH_RAISED")
        )
        message = f"{type(error).__name__}: {error}" if reason == "GRAPH_RAISED" else str(error)
        await self._settled()
        await self._finish_failed(reason, message, traceback_of(error))
        return True

    async def _finish_failed(self, reason: str, message: str, detail: str) -> None:
        if self._run.silent or (
            self._run.stop_cause and self._run.failure is None and self._run.refusal is None
        ):
            return
        error = run_pb2.RunError(reason=reason, message=message, detail=detail)
        await self._send_finish(worker_pb2.Finish(error=error))

    async def _send_finish(self, finish: worker_pb2.Finish) -> None:
        answer_of(await asyncio.wrap_future(self._run.send(finish=finish)))

    async def _settled(self) -> None:
        """Wait for what still moves; threads that can't be stopped are left to the end of the process."""
        _, pending = await asyncio.wait(
            [asyncio.wrap_future(self._run.activity.idle())], timeout=STUCK_SECONDS
        )
        self.stuck = bool(pending)

    # input

    async def _first_input(self, assign: worker_pb2.Assign) -> Any:
        latest = await self._saver.aget_tuple({"configurable": {"thread_id": self._run.thread}})
        begun = latest is not None and latest.metadata.get("run_id") == self._run.name
        if begun:
            return await self._resumed(assign.resume)
        if not assign.HasField("input"):
            raise HostError(
                f"The run {self._run.name} has no checkpoint and came without an input, so it can't go on.",
                reason="RUN_INPUT_MISSING",
            )
        given: dict[str, Any] = json_format.MessageToDict(assign.input)
        if latest is not None and MESSAGES in given:
            pending = [value for _, channel, value in latest.pending_writes or [] if channel == MESSAGES]
            closing = closing_messages(latest.checkpoint["channel_values"].get(MESSAGES), pending)
            if closing:
                new = given[MESSAGES]
                given[MESSAGES] = [*closing, *(new if isinstance(new, list) else [new])]
        return _whole_numbers(given)

    async def _resumed(self, resume: worker_pb2.Resume) -> Any:
        if resume.answers:
            self._per_call |= await self._asked_per_call()
        answers = {
            answer.interrupt_id: self._answer(answer.interrupt_id, json_format.MessageToDict(answer.value))
            for answer in resume.answers
            if answer.interrupt_id != BREAKPOINT_ID
        }
        return Command(resume=answers) if answers else None

    async def _asked_per_call(self) -> set[str]:
        """Pending questions of a middleware that asks for each call, as the checkpoint tells: this host may not have
        asked them."""
        latest = await self._saver.aget_tuple({"configurable": {"thread_id": self._run.thread}})
        return {
            interrupt.id
            for _, channel, value in (latest.pending_writes or [] if latest is not None else [])
            if channel == INTERRUPT
            for interrupt in (value if isinstance(value, list | tuple) else [value])
            if isinstance(interrupt, Interrupt) and asks_for_one_call(interrupt)
        }

    def _answer(self, interrupt_id: str, value: Any) -> Any:
        """An answer as the graph expects it: a middleware that asks for each call takes one decision instead of a list."""
        decisions = value.get("decisions") if isinstance(value, dict) else None
        if interrupt_id in self._per_call and isinstance(decisions, list) and len(decisions) == 1:
            return decisions[0]
        return _whole_numbers(value)

    # around it

    def _config(self) -> RunnableConfig:
        return {
            "configurable": {"thread_id": self._run.thread},
            "metadata": {"run_id": self._run.name},
            "recursion_limit": self._most_steps(),
        }

    def _most_steps(self) -> int:
        """LangGraph's own bound, for one execution."""
        return self._run.spec.limits.super_steps or DEFAULT_SUPER_STEPS

    def _stopped(self) -> None:
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._work is not None and not self._work.done():
            self._work.cancel()

    def _buffered(self) -> None:
        if self._flush is None:
            self._loop.call_soon_threadsafe(self._arm)

    def _arm(self) -> None:
        if self._flush is None:
            self._flush = self._loop.call_later(FLUSH_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        if self._run.has_uncommitted and not self._run.silent:
            self._run.send()


def _whole_numbers(value: Any) -> Any:
    """Protobuf's Struct has only doubles: what is whole becomes an int again, as it was in the caller's JSON."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return value
