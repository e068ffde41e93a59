"""The peer of every run: the same graph in bare LangGraph, in this process."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from tests.benchmarks.agents import graphs

_threads = itertools.count()


class Bare:
    """Both graphs, compiled with a checkpointer of LangGraph's."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self._plain = graphs.plain_builder.compile(checkpointer=saver)
        self._asking = graphs.calling_builder.compile(checkpointer=saver, interrupt_before=["tools"])
        self._calling = graphs.calling_builder.compile(checkpointer=saver)

    async def plain(self) -> float:
        """Seconds of one plain run."""
        began = time.perf_counter()
        await self._plain.ainvoke({"text": "two plain nodes"}, _config())
        return time.perf_counter() - began

    async def approve(self) -> float:
        """Seconds from the word to go on, for a run interrupted before its tool, to the tool's start."""
        watch = _ToolStart()
        config = _config(watch)
        await self._asking.ainvoke(cast("Any", {"messages": [("user", graphs.ASKS)]}), config)
        began = time.perf_counter()
        await self._asking.ainvoke(None, config)
        return watch.when - began

    async def cancel(self, settle_seconds: float) -> float:
        """Seconds that a task whose tool waits takes to be cancelled."""
        watch = _ToolStart()
        run = self._calling.ainvoke(cast("Any", {"messages": [("user", "60")]}), _config(watch))
        task = asyncio.create_task(run)
        await watch.started.wait()
        await asyncio.sleep(settle_seconds)
        began = time.perf_counter()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return time.perf_counter() - began


class _ToolStart(AsyncCallbackHandler):
    """Notes when a tool starts."""

    def __init__(self) -> None:
        self.when = 0.0
        self.started = asyncio.Event()

    async def on_tool_start(
        self, serialized: dict[str, Any], input_str: str, *, run_id: UUID, **kwargs: Any
    ) -> None:
        self.when = time.perf_counter()
        self.started.set()


def _config(watch: _ToolStart | None = None) -> RunnableConfig:
    return {
        "configurable": {"thread_id": f"thread-{next(_threads)}"},
        "callbacks": [watch] if watch is not None else [],
    }
