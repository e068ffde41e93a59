"""The gate: no tool call of a run starts before the server has said so, and the start is on record by then.

It sits at ``BaseTool.run`` and ``BaseTool.arun``, and at every override of them, so ToolNodes, tools called inside a
node and nested graphs all pass it. It is installed once per process; outside of a run tools behave as ever.

- A call is identified by a step key: thread, checkpoint namespace and task, tool, digest, and an ordinal among the
  calls of this tool with this digest in the task. The digest is over revision, tool, validated arguments with defaults,
  and injected state. What LangGraph would number anew after a crash (a nested graph without a checkpointer) and the
  model's tool_call_id are left out of the key. Its place is the same without the digest, by which the ledger sees that a
  task that is executed again makes another call than the one on record.
- PROCEED: the latch of this process is looked at and the call dispatched without a point in between at which the event
  loop could turn.
- ASK raises LangGraph's ``GraphInterrupt`` once the task's other calls are closed, so that none is left behind as an
  orphan of ``gather``. One of a sync tool is waited for from its ``ainvoke`` on: it comes to its gate in a thread, later.
- A call of an execution that has been left all the same, since the node awaits something else before it, does not begin.
- A call that interrupts by itself (``interrupt()`` in a tool) is given back as NOT_STARTED: LangGraph executes it again
  from its beginning.
- A time limit cancels async tools. A sync tool can't be cancelled: the agent gets TOOL_TIMEOUT, the step is on record
  as FAILED, and the thread keeps the host from answering a halt, so its process is killed at a halt and, at the latest,
  when the run ends.
- A default that is made anew for every validation (``default_factory``) gives every execution another digest: such a
  call can't be approved ahead. Give the value in the call instead.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.types import Interrupt

from fermata.agents.runtime.context import RunningCall, current_call, current_run
from fermata.agents.runtime.errors import CallRefused, HostError, RunStopped
from fermata.agents.runtime.gated import GatedCall, prepare
from fermata.agents.runtime.place import task_of
from fermata.agents.runtime.run import ActiveRun, answer_of
from fermata.v1 import worker_pb2

_inner: contextvars.ContextVar[BaseTool | None] = contextvars.ContextVar("fermata_inner_tool", default=None)
"""The tool whose overridden ``run`` has passed the gate and may call its parent's."""

_expected: contextvars.ContextVar[object] = contextvars.ContextVar("fermata_expected_call", default=None)
"""The call that the calling code is to bring to its gate, as the run's activity knows it."""

_installed = threading.Event()
_only_in_runs = threading.Event()
_active: dict[str, ActiveRun] = {}
_MARK = "__fermata_gated__"


def install() -> None:
    """Put the gate before every tool of this process, of classes that exist and of classes to come. A second call
    changes nothing."""
    if _installed.is_set():
        return
    _installed.set()
    for cls in _with_subclasses(BaseTool):  # type: ignore[type-abstract]
        _gate_class(cls)
    original = BaseTool.__dict__["__init_subclass__"].__func__

    def gate_new(cls: type[BaseTool], **kwargs: Any) -> None:
        original(cls, **kwargs)
        _gate_class(cls)

    BaseTool.__init_subclass__ = classmethod(gate_new)  # type: ignore[assignment, arg-type]


@contextmanager
def only_in_runs() -> Iterator[None]:
    """Refuse calls outside of any run: in a host, those come from threads that have outlived theirs."""
    _only_in_runs.set()
    try:
        yield
    finally:
        _only_in_runs.clear()


@contextmanager
def serving(run: ActiveRun) -> Iterator[None]:
    """Make ``run`` the run of the calling context, and one of this process's runs."""
    _active[run.name] = run
    token = current_run.set(run)
    try:
        yield
    finally:
        current_run.reset(token)
        if _active.get(run.name) is run:
            del _active[run.name]


def run_of_context(tool: str) -> ActiveRun | None:
    """The run to which a call from the present context belongs; None outside of any.

    :raises CallRefused: RUN_UNKNOWN, where the context, that of a bare thread, belongs to none, and the process has
        several runs, or is a host that has none: its run may have been halted.
    """
    if (run := current_run.get()) is not None:
        return run
    others = list(_active.values())
    if len(others) > 1 or (not others and _only_in_runs.is_set()):
        raise CallRefused(
            "RUN_UNKNOWN",
            f"{tool} was called in a thread that belongs to no run. Start threads with the context of the node: "
            "contextvars.copy_context().run(...).",
        )
    return others[0] if others else None


def _with_subclasses(cls: type[BaseTool]) -> Iterator[type[BaseTool]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _with_subclasses(sub)


def _gate_class(cls: type[BaseTool]) -> None:
    if (run := cls.__dict__.get("run")) is not None and not hasattr(run, _MARK):
        cls.run = _gated_run(cls, run)  # type: ignore[method-assign]
    if (arun := cls.__dict__.get("arun")) is not None and not hasattr(arun, _MARK):
        cls.arun = _gated_arun(cls, arun)  # type: ignore[method-assign, assignment]
    ainvoke = cls.__dict__.get("ainvoke")
    if cls is not BaseTool and ainvoke is not None and not hasattr(ainvoke, _MARK):
        cls.ainvoke = _expected_ainvoke(ainvoke)  # type: ignore[method-assign, assignment]


def _gated_run(cls: type[BaseTool], original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        owner = run_of_context(self.name)
        if owner is None:
            return original(self, tool_input, *args, **kwargs)
        if _inner.get() is self:
            with _passing(self, cls):
                return original(self, tool_input, *args, **kwargs)
        return _call_sync(owner, cls, original, self, tool_input, args, kwargs)

    setattr(run, _MARK, True)
    return run


def _gated_arun(
    cls: type[BaseTool], original: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        owner = run_of_context(self.name)
        if owner is None:
            return await original(self, tool_input, *args, **kwargs)
        if _inner.get() is self:
            with _passing(self, cls):
                return await original(self, tool_input, *args, **kwargs)
        return await _call_async(owner, cls, original, self, tool_input, args, kwargs)

    setattr(arun, _MARK, True)
    return arun


def _expected_ainvoke(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """An override of ``ainvoke`` that may have a sync tool called in a thread; BaseTool's own calls ``arun`` at once."""

    @functools.wraps(original)
    async def ainvoke(
        self: BaseTool,
        input: Any,  # noqa: A002 - as LangChain's
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        owner = current_run.get()
        if owner is None or getattr(self, "coroutine", None) is not None:
            return await original(self, input, config, **kwargs)
        expected = owner.activity.expect(task_of(config))
        token = _expected.set(expected)
        try:
            return await original(self, input, config, **kwargs)
        finally:
            _expected.reset(token)
            owner.activity.forget(expected)

    setattr(ainvoke, _MARK, True)
    return ainvoke


def _begin(owner: ActiveRun, call: GatedCall) -> None:
    """
    :raises RunStopped: where the execution that makes the call has been left.
    """
    if not owner.activity.begin(call.moving, _expected.get()):
        raise RunStopped(
            f"{call.tool.name} comes from an execution that has ended; the next one makes the call."
        )


@contextmanager
def _passing(tool: BaseTool, cls: type[BaseTool]) -> Iterator[None]:
    """Let an override call its parent's method, and nothing further: what ``BaseTool``'s own body calls meets the gate
    again."""
    token = _inner.set(None if cls is BaseTool else tool)
    try:
        yield
    finally:
        _inner.reset(token)


def _plain(gated: Callable[..., Any]) -> Callable[..., Any]:
    """The method without the gate."""
    plain: Callable[..., Any] = gated.__wrapped__  # type: ignore[attr-defined]
    return plain


def _call_sync(
    owner: ActiveRun,
    cls: type[BaseTool],
    original: Callable[..., Any],
    tool: BaseTool,
    tool_input: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    owner.check()
    call = prepare(owner, tool, tool_input, kwargs)
    if not isinstance(call, GatedCall):
        # LangChain's own method, whatever overrides it: it reads the input first, and this copy of the tool refuses it.
        return _plain(BaseTool.run)(call.tool, tool_input, *args, **kwargs)
    _begin(owner, call)
    asking = owner.send(gate=call.gate)
    try:
        answer = granted(owner, asking).gate
        if answer.verdict == worker_pb2.GATE_VERDICT_ASK and not owner.on_loop_thread:
            owner.asked[call.moving.step] = answer.approval
            owner.activity.pause(call.moving).result()
        if answer.verdict != worker_pb2.GATE_VERDICT_PROCEED:
            return _without_call(owner, call, answer)
        given = call.input_for(answer)
    except BaseException:
        asking.add_done_callback(call.give_back_unused)
        raise
    if owner.stop_cause:
        call.give_back(owner.stop_cause)
        raise RunStopped(owner.stop_cause)
    # No point at which this thread could be told of a latch lies between the line above and the call.
    running = RunningCall(call.moving, answer.idempotency_key, answer.attempt)
    token = current_call.set(running)
    try:
        with _passing(tool, cls):
            result = _limited(owner, call, lambda: original(tool, given, *args, **kwargs))
    except GraphBubbleUp as signal:
        call.interrupted(signal)
        raise
    except BaseException as error:
        granted(owner, call.failed(error))
        raise
    finally:
        current_call.reset(token)
    granted(owner, call.finished(result))
    return call.checked(result)


async def _call_async(
    owner: ActiveRun,
    cls: type[BaseTool],
    original: Callable[..., Awaitable[Any]],
    tool: BaseTool,
    tool_input: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    owner.check()
    call = prepare(owner, tool, tool_input, kwargs)
    if not isinstance(call, GatedCall):
        return await _plain(BaseTool.arun)(call.tool, tool_input, *args, **kwargs)
    _begin(owner, call)
    asking = owner.send(gate=call.gate)
    try:
        await done(asking)
        answer = granted(owner, asking).gate
        if answer.verdict == worker_pb2.GATE_VERDICT_ASK:
            owner.asked[call.moving.step] = answer.approval
            await done(owner.activity.pause(call.moving))
        if answer.verdict != worker_pb2.GATE_VERDICT_PROCEED:
            return _without_call(owner, call, answer)
        given = call.input_for(answer)
    except BaseException:
        # Cancelled, perhaps: the answer may still come, and be a permit that nobody uses.
        asking.add_done_callback(call.give_back_unused)
        raise
    if owner.stop_cause:
        call.give_back(owner.stop_cause)
        raise RunStopped(owner.stop_cause)
    # No await between the line above and the call; a cancellation from here on reaches the tool.
    running = RunningCall(call.moving, answer.idempotency_key, answer.attempt)
    token = current_call.set(running)
    try:
        with _passing(tool, cls):
            result = await _within(call, original(tool, given, *args, **kwargs))
    except GraphBubbleUp as signal:
        call.interrupted(signal)
        raise
    except asyncio.CancelledError as error:
        _close_with_threads(call, running, error)
        raise
    except BaseException as error:
        failed = call.failed(error)
        await done(failed)
        granted(owner, failed)
        raise
    finally:
        current_call.reset(token)
    finished = call.finished(result)
    await done(finished)
    granted(owner, finished)
    return call.checked(result)


def _close_with_threads(call: GatedCall, running: RunningCall, error: asyncio.CancelledError) -> None:
    """Report a cancelled call: now, or when the thread is done in which its work goes on all the same. Whoever waits
    for the run to be idle waits for that."""
    threads = [thread for thread in running.threads if not thread.done()]
    if not threads:
        call.cancelled(error)
        return

    def close(thread: concurrent.futures.Future[Any]) -> None:
        if thread.cancelled():
            call.cancelled(error)
        elif (late := thread.exception()) is not None:
            call.failed(late)
        else:
            call.finished(thread.result())

    threads[-1].add_done_callback(close)


def _without_call(owner: ActiveRun, call: GatedCall, answer: worker_pb2.GateAnswer) -> Any:
    """What a call comes to that does not start."""
    try:
        return _instead_of_call(owner, call, answer)
    finally:
        # Last: a run that parks when all is closed tells what its calls have come upon.
        owner.activity.end(call.moving)


def _instead_of_call(owner: ActiveRun, call: GatedCall, answer: worker_pb2.GateAnswer) -> Any:
    verdict = answer.verdict
    if verdict == worker_pb2.GATE_VERDICT_RECORDED:
        return call.recorded(answer)
    if verdict == worker_pb2.GATE_VERDICT_REFUSE:
        return call.refused(answer.reason or "REFUSED", answer.message)
    if verdict == worker_pb2.GATE_VERDICT_ASK:
        owner.asked[call.moving.step] = answer.approval
        value = {"approval": answer.approval, "tool": call.tool.name, "args": call.gate.args}
        raise GraphInterrupt((Interrupt(value=value, id=answer.approval),))
    if verdict == worker_pb2.GATE_VERDICT_STOP and answer.reason != HALTED:
        owner.gate_stopped, owner.held_by = True, answer.latch
        raise GraphInterrupt((Interrupt(value={"latch": answer.latch}, id=f"{LATCH_ID}{answer.latch}"),))
    owner.stop(answer.message or f"halted by {answer.latch}")
    raise RunStopped(owner.stop_cause)


HALTED = "HALTED"
"""The reason of a STOP that ends the run here and now. Every other STOP parks it; under a halt the stop itself is under
way."""

LATCH_ID = "latch:"
"""Begins the ids of interrupts that are holds."""


def granted(
    owner: ActiveRun, asking: concurrent.futures.Future[worker_pb2.HostReply]
) -> worker_pb2.HostReply:
    """The server's answer. A refusal, or a worker that is gone, stops the run and is no error that an agent could
    handle."""
    try:
        return answer_of(asking.result())
    except HostError as error:
        owner.stop(str(error))
        raise RunStopped(str(error)) from error


async def done(future: concurrent.futures.Future[Any]) -> None:
    """Wait for the future. Unlike with ``asyncio.wrap_future``, a cancelled wait leaves it as it is, for others to look
    at."""
    if future.done():
        return
    loop = asyncio.get_running_loop()
    waiting = loop.create_future()

    def wake(_: concurrent.futures.Future[Any]) -> None:
        loop.call_soon_threadsafe(lambda: None if waiting.done() else waiting.set_result(None))

    future.add_done_callback(wake)
    await waiting


def follow_threads() -> Callable[[concurrent.futures.Future[Any]], None] | None:
    """For ``TrackedExecutor``: counts work for the run, and notes it for the tool call, in whose context it is
    submitted."""
    run = current_run.get()
    if run is None:
        return None
    run.activity.thread_begins()
    running = current_call.get()

    def follow(future: concurrent.futures.Future[Any]) -> None:
        if running is not None:
            running.threads.append(future)
        future.add_done_callback(lambda _: run.activity.thread_ends())

    return follow


async def _within(call: GatedCall, work: Awaitable[Any]) -> Any:
    """The call with its time limit."""
    limit = call.time_limit_seconds
    if not limit:
        return await work
    try:
        async with asyncio.timeout(limit) as scope:
            return await work
    except TimeoutError:
        if not scope.expired():
            raise
        raise call.timed_out() from None


def _limited(owner: ActiveRun, call: GatedCall, work: Callable[[], Any]) -> Any:
    """The call with its time limit: in a thread of its own where there is one, since nothing else lets its caller go."""
    limit = call.time_limit_seconds
    if not limit:
        return work()
    result: concurrent.futures.Future[Any] = concurrent.futures.Future()
    context = contextvars.copy_context()

    def target() -> None:
        try:
            result.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            result.set_exception(error)
        finally:
            owner.activity.thread_ends()

    owner.activity.thread_begins()
    threading.Thread(target=target, name=f"fermata-tool-{call.tool.name}", daemon=True).start()
    try:
        return result.result(timeout=limit)
    except concurrent.futures.TimeoutError:
        if result.done():
            return result.result()
        raise call.timed_out() from None
