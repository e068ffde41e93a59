"""What is in a loaded graph: nodes, tools, sync code, a diagram, and what the gate does not cover.

Whatever can't be seen counts as sync: a host that carries one run too many is dear, a run that stops its neighbours is
worse.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding, RunnableSequence
from langchain_core.tools import BaseTool
from langgraph._internal._runnable import RunnableCallable, RunnableSeq
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from fermata.agents.runtime.execution import MESSAGES
from fermata.agents.runtime.gated import args_schema, effect_after
from fermata.agents.runtime.loader import load_tools
from fermata.v1 import agent_pb2, run_pb2

_DEPTH = 4
"""How many functions deep a node's references are followed."""

_HIDDEN = {"__start__", "__end__"}


def inspect_graph(graph: Pregel[Any, Any, Any, Any], spec: agent_pb2.AgentSpec) -> agent_pb2.GraphReport:
    """The report that ``apply`` shows and the scheduler reads.

    :raises GraphInvalidError: where a tool that the agent file names can't be loaded.
    """
    seen = _Seen()
    seen.graph(graph)
    for tool in load_tools(spec):
        seen.tool(tool)
    report = agent_pb2.GraphReport(
        nodes=[name for name in graph.nodes if name not in _HIDDEN],
        has_sync_code=seen.sync,
        mermaid=_mermaid(graph),
        conversational=MESSAGES in graph.channels,
    )
    for name, tool in sorted(seen.tools.items()):
        effect, risk = effect_after(tool, spec.tool_declarations)
        report.tools.append(
            agent_pb2.ToolInfo(
                name=name,
                description=tool.description,
                effect=effect,
                risk=risk,
                args_schema=args_schema(tool),
            )
        )
    report.notes.extend(_notes(seen, spec))
    return report


class _Seen:
    """What a walk through a graph and its subgraphs came upon."""

    def __init__(self) -> None:
        self.tools: dict[str, BaseTool] = {}
        self.sync = False
        self.plain_nodes: list[str] = []
        self._done: set[int] = set()

    def graph(self, graph: Pregel[Any, Any, Any, Any], prefix: str = "") -> None:
        if id(graph) in self._done:
            return
        self._done.add(id(graph))
        for name, node in graph.nodes.items():
            if name in _HIDDEN:
                continue
            had = len(self.tools)
            parts = list(_parts(node.bound))
            for part in parts:
                self._part(part, f"{prefix}{name}.")
            only_tools = any(isinstance(part, ToolNode) for part in parts)
            if not only_tools and len(self.tools) == had and not any(isinstance(p, Pregel) for p in parts):
                self.plain_nodes.append(f"{prefix}{name}")

    def tool(self, tool: BaseTool) -> None:
        self.tools[tool.name] = tool
        if (getattr(tool, "coroutine", None) is None and type(tool)._arun is BaseTool._arun) or (
            hasattr(tool, "coroutine") and tool.coroutine is None
        ):
            self.sync = True

    def _model(self, model: BaseChatModel) -> None:
        """A model that is sync holds a thread for as long as it takes; ours take milliseconds."""
        kind = type(model)
        own_async = (
            kind._agenerate is not BaseChatModel._agenerate or kind._astream is not BaseChatModel._astream
        )
        if not own_async and not kind.__module__.startswith("fermata."):
            self.sync = True

    def _part(self, part: Any, prefix: str) -> None:
        if isinstance(part, ToolNode):
            for tool in part.tools_by_name.values():
                self.tool(tool)
        elif isinstance(part, Pregel):
            self.graph(part, prefix)
        elif isinstance(part, RunnableCallable):
            if part.afunc is None or not inspect.iscoroutinefunction(_unwrapped(part.afunc)):
                self.sync = True
            for found in _captured(_unwrapped(part.afunc or part.func)):
                self._part(found, prefix)
        elif isinstance(part, BaseChatModel):
            self._model(part)
        elif isinstance(part, BaseTool):
            self.tool(part)
        else:
            self.sync = True


def _parts(bound: Runnable[Any, Any]) -> Iterator[Any]:
    """The runnables that a node is made of; LangGraph's own channel writers left out."""
    if isinstance(bound, RunnableSeq | RunnableSequence):
        for step in bound.steps:
            yield from _parts(step)
    elif not type(bound).__module__.startswith("langgraph.pregel._"):
        yield bound


def _captured(function: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """Tools, ToolNodes, graphs and chat models that a function refers to by a global name or in its closure, or that
    functions do to which it refers."""
    code = getattr(function, "__code__", None)
    if code is None:
        return
    names = getattr(function, "__globals__", {})
    values = [names[name] for name in code.co_names if name in names]
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # a cell that is not filled yet
            values.append(cell.cell_contents)
    for value in values:
        if isinstance(value, BaseTool | ToolNode | Pregel | BaseChatModel):
            yield value
        elif isinstance(value, RunnableBinding):
            yield value.bound
        elif depth and inspect.isfunction(value) and value.__module__ == function.__module__:
            yield from _captured(value, depth - 1)


def _unwrapped(function: Any) -> Any:
    # A partial of run_in_executor is how LangGraph makes a sync function async; its ``__wrapped__`` is the sync
    # function.
    while True:
        if (inner := getattr(function, "__wrapped__", None)) is not None or (
            (inner := getattr(function, "func", None)) is not None and not inspect.ismethod(function)
        ):
            function = inner
        else:
            return getattr(function, "__func__", function)


def _mermaid(graph: Pregel[Any, Any, Any, Any]) -> str:
    try:
        return str(graph.get_graph().draw_mermaid())
    except (ValueError, TypeError, KeyError):
        # A graph whose edges can't be drawn still runs.
        return ""


def _notes(seen: _Seen, spec: agent_pb2.AgentSpec) -> Iterator[str]:
    yield "The gate covers tool calls. Other I/O inside a node is not asked about, and ends only with its process."
    if seen.plain_nodes:
        yield f"Nodes whose own code is not gated: {', '.join(seen.plain_nodes)}."
    if unsafe := [
        name
        for name, tool in sorted(seen.tools.items())
        if effect_after(tool, spec.tool_declarations)[0] == run_pb2.EFFECT_CLASS_UNSAFE
    ]:
        yield f"Tools that count as UNSAFE, by declaration or for lack of one: {', '.join(unsafe)}."
    if seen.sync:
        yield "There is sync code: each run gets a process of its own, and a halt that finds it busy kills it."
    for name, tool in sorted(seen.tools.items()):
        if overridden := [method for method in ("invoke", "ainvoke") if _overrides(type(tool), method)]:
            yield f"The tool {name} overrides {' and '.join(overridden)}: calls that do not go on to run or arun are not gated."
    if unknown := sorted(set(spec.tool_declarations) - set(seen.tools)):
        yield f"Declared, but not found in the graph: {', '.join(unknown)}."


def _overrides(cls: type[BaseTool], method: str) -> bool:
    owner = next(base for base in cls.__mro__ if method in base.__dict__)
    return not owner.__module__.startswith("langchain_core.")
