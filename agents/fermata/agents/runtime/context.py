"""What code inside a run may ask: which run it is, and the idempotency key of the tool call that it is in.

Context variables follow ``await`` and LangGraph's threads. A thread that user code starts by itself has no context; in
a host with one run it is counted to that run, in a host with several a tool call from it is refused.
"""

from __future__ import annotations

from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fermata.v1 import agent_pb2

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from fermata.agents.runtime.calls import Call
    from fermata.agents.runtime.run import ActiveRun


@dataclass(frozen=True)
class RunningCall:
    """The tool call that the calling code runs in."""

    call: Call
    idempotency_key: str
    attempt: int
    threads: list[Future[Any]] = field(default_factory=list)
    """What it has given to the event loop's executor."""


current_run: ContextVar[ActiveRun | None] = ContextVar("fermata_run", default=None)
current_call: ContextVar[RunningCall | None] = ContextVar("fermata_call", default=None)
current_execution: ContextVar[int] = ContextVar("fermata_execution", default=0)
"""The number of the execution to which the calling code belongs; 0 where that is unknown, as in a bare thread."""
_process_spec: list[agent_pb2.AgentSpec] = []


def idempotency_key() -> str:
    """A key that stays the same for every execution of the present tool call; empty outside of one."""
    running = current_call.get()
    return running.idempotency_key if running is not None else ""


def attempt() -> int:
    """How often the present tool call has been started, counting this one; 0 outside of one."""
    running = current_call.get()
    return running.attempt if running is not None else 0


def run_name() -> str:
    """The run's resource name; empty outside of a run."""
    run = current_run.get()
    return run.name if run is not None else ""


def current_spec() -> agent_pb2.AgentSpec | None:
    """The agent file's content that this process serves; None outside of a host."""
    if _process_spec:
        return _process_spec[-1]
    return None


def tools() -> list[BaseTool]:
    """The tools that the agent file names (``tools:``), loaded; none outside of a host.

    :raises GraphInvalidError: where one can't be loaded.
    """
    from fermata.agents.runtime.loader import load_tools

    spec = current_spec()
    return load_tools(spec) if spec is not None else []


def serve_spec(spec: agent_pb2.AgentSpec | None) -> None:
    """Set what ``current_spec`` returns in this process; None takes it away."""
    _process_spec.clear()
    if spec is not None:
        _process_spec.append(spec)
