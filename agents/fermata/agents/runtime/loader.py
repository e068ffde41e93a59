"""Loading a graph and tools by name, as an agent file gives them.

A name is ``module:attribute``, or ``path/file.py:attribute`` inside the pack. The graph may be a compiled graph, a
``StateGraph``, or a function that makes one, sync or async, with the config as its only argument if it wants one: what
``langgraph.json`` allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.tools import tool as as_tool
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from fermata.agents.runtime.context import serve_spec
from fermata.agents.runtime.errors import GraphInvalidError, HostError
from fermata.agents.runtime.tracebacks import traceback_of
from fermata.v1 import agent_pb2


def load_graph(spec: agent_pb2.AgentSpec, pack: str | None = None) -> Pregel[Any, Any, Any, Any]:
    """The compiled graph of a revision.

    :param pack: folder of the unpacked pack; becomes the working folder and the first entry of the import path.
    :raises GraphInvalidError: says what was not found, what it was instead, or what was raised at import; the traceback
        is its detail.
    :raises HostError: as the graph's own factory raised it, for example MODEL_KEY_MISSING.
    """
    enter_pack(pack)
    serve_spec(spec)
    found = _load(spec.graph, "graph")
    if inspect.isroutine(found):
        found = _made(found, spec.graph)
    if isinstance(found, StateGraph):
        try:
            found = found.compile()
        except ValueError as error:
            raise GraphInvalidError(
                f"The graph {spec.graph} can't be compiled: {error}.", detail=traceback_of(error)
            ) from error
    if not isinstance(found, Pregel):
        raise GraphInvalidError(
            f"{spec.graph} is a {type(found).__name__}, and must be a compiled LangGraph graph, a StateGraph, or a "
            "function that makes one."
        )
    return found


def load_tools(spec: agent_pb2.AgentSpec) -> list[BaseTool]:
    """The tools that the agent file names; an attribute may be a tool, a plain function, or a list of them.

    :raises GraphInvalidError: says which can't be loaded.
    """
    loaded: list[BaseTool] = []
    for name in spec.tools:
        found = _load(name, "tool")
        for item in found if isinstance(found, list | tuple) else [found]:
            if isinstance(item, BaseTool):
                loaded.append(item)
            elif inspect.isroutine(item):
                loaded.append(as_tool(item))
            else:
                raise GraphInvalidError(
                    f"{name} is a {type(item).__name__}, and must be a LangChain tool or a function."
                )
    return loaded


def enter_pack(pack: str | None) -> None:
    """Make the unpacked pack the working folder and the first entry of the import path."""
    if pack:
        folder = str(Path(pack).resolve())
        os.chdir(folder)
        if folder not in sys.path:
            sys.path.insert(0, folder)


def _load(name: str, noun: str) -> Any:
    where, colon, attribute = name.rpartition(":")
    if not colon or not where or not attribute:
        raise GraphInvalidError(
            f"The {noun} {name!r} is not of the form module:attribute or path/file.py:attribute."
        )
    module = _module(where, noun)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            public = ", ".join(sorted(n for n in vars(module) if not n.startswith("_"))[:20])
            raise GraphInvalidError(
                f"The {noun} {name!r} was not found: {where} has no attribute {attribute!r}. It has: {public}."
            ) from None
    return found


def _module(where: str, noun: str) -> ModuleType:
    is_file = where.endswith(".py") or "/" in where
    try:
        return _from_file(Path(where), noun) if is_file else importlib.import_module(where)
    except HostError:
        raise
    except ModuleNotFoundError as error:
        if (
            not is_file
            and error.name is not None
            and (where == error.name or where.startswith(f"{error.name}."))
        ):
            raise GraphInvalidError(
                f"The {noun}'s module {where!r} was not found. The import path begins with {sys.path[0] or os.getcwd()}."
            ) from None
        raise GraphInvalidError(
            f"{where} imports {error.name!r}, which is not installed on the worker's machine.",
            detail=traceback_of(error),
        ) from error
    except (Exception, SystemExit) as error:
        raise GraphInvalidError(
            f"{where} raised at import: {type(error).__name__}: {error}.", detail=traceback_of(error)
        ) from error


def _from_file(path: Path, noun: str) -> ModuleType:
    full = path.resolve()
    if not full.is_file():
        raise GraphInvalidError(f"The {noun}'s file {path} was not found in {Path.cwd()}.")
    name = full.stem
    with contextlib.suppress(ValueError):
        # As a module of its folder, so that a second import of it under this name finds the same one.
        name = ".".join(full.relative_to(Path.cwd()).with_suffix("").parts)
    if (known := sys.modules.get(name)) is not None and getattr(known, "__file__", None) == str(full):
        return known
    folder = str(full.parent)
    if folder not in sys.path:
        sys.path.insert(1, folder)
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise GraphInvalidError(f"The {noun}'s file {path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _made(factory: Any, name: str) -> Any:
    """What the function makes; it is given a config where it takes an argument."""
    wanted = [
        parameter
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(wanted) > 1:
        raise GraphInvalidError(
            f"The function {name} wants {len(wanted)} arguments; a graph's factory takes none, or the config."
        )
    try:
        made = factory(*({"configurable": {}} for _ in wanted))
        return asyncio.run(_awaited(made)) if inspect.isawaitable(made) else made
    except HostError:
        raise
    except Exception as error:
        raise GraphInvalidError(
            f"The function {name} raised {type(error).__name__}: {error}.", detail=traceback_of(error)
        ) from error


async def _awaited(made: Any) -> Any:
    return await made
