"""The agents of the simulation: plain LangGraph graphs whose input is the plan that they follow.

A plan is a list of turns, each a list of calls ``[tool, call]`` that are made at once. ``gathered`` makes them inside one node,
``fanned`` in a task each, ``alone`` has a sync node, so that each of its runs has a host of its own, ``stubborn`` swallows every
cancellation until its calls are done, and ``orphaning`` leaves them behind when it is cancelled, and nobody cancels them.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
from typing import Annotated, Any, TypedDict

from langchain_core.tools import BaseTool, tool
from langgraph.errors import GraphBubbleUp
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from tests.simulation.outside import Outside

from fermata.agents.runtime.context import idempotency_key, run_name

_outside: list[Outside] = []


def act_on(outside: Outside) -> None:
    """Let the tools act on this outside."""
    _outside[:] = [outside]


async def _act(name: str, call: str) -> str:
    outside = _outside[0]
    outside.begin(name, run_name())
    await asyncio.sleep(outside.pause_seconds())
    outside.happen(call, name, idempotency_key(), run_name())
    await asyncio.sleep(outside.pause_seconds())
    return f"{call} is done"


@tool
async def look(call: str) -> str:
    """Only reads."""
    return await _act("look", call)


@tool
async def put(call: str) -> str:
    """May be repeated."""
    return await _act("put", call)


@tool
async def fire(call: str) -> str:
    """Must not be repeated."""
    return await _act("fire", call)


@tool
async def ask(call: str) -> str:
    """Must not be repeated, and a person decides."""
    return await _act("ask", call)


TOOLS: dict[str, BaseTool] = {made.name: made for made in (look, put, fire, ask)}
EFFECTS = {"look": "READ", "put": "IDEMPOTENT", "fire": "UNSAFE", "ask": "UNSAFE"}
for _name, _tool in TOOLS.items():
    _tool.metadata = {"fermata.effect": EFFECTS[_name]}

POLICY = """version: 1
rules:
  - {id: people, match: {tool: ask}, decide: REQUIRE_APPROVAL, approval: {valid_for: 1h, on_timeout: REJECT}}
  - {id: rest, match: {tool: "*"}, decide: ALLOW}
"""


async def _call(name: str, call: str) -> str:
    """Make a call as an agent's tool node does: what refuses it is said to the agent, and the agent goes on."""
    try:
        return str(await TOOLS[name].ainvoke({"call": call}))
    except GraphBubbleUp:
        raise
    except Exception as error:
        return f"{call} was refused: {error}"


class Plan(TypedDict):
    """What is to be done, and what was."""

    turns: list[list[list[str]]]
    turn: int
    said: Annotated[list[str], operator.add]


class _Call(TypedDict):
    tool: str
    call: str


async def _gather(state: Plan) -> dict[str, Any]:
    calls = state["turns"][state["turn"]]
    said = await asyncio.gather(*(_call(name, call) for name, call in calls))
    return {"said": list(said), "turn": state["turn"] + 1}


async def _one(state: _Call) -> dict[str, Any]:
    return {"said": [await _call(state["tool"], state["call"])]}


async def _turned(state: Plan) -> dict[str, Any]:
    return {"turn": state["turn"] + 1}


def _begun(state: Plan) -> list[asyncio.Future[str]]:
    """The turn's calls, each in a task of its own, as a library might start them: to cancel who waits does not reach them."""
    return [asyncio.ensure_future(_call(name, call)) for name, call in state["turns"][state["turn"]]]


async def _orphaning(state: Plan) -> dict[str, Any]:
    work = _begun(state)
    await asyncio.wait(work)
    said = await asyncio.gather(*work)
    return {"said": list(said), "turn": state["turn"] + 1}


async def _stubborn(state: Plan) -> dict[str, Any]:
    work = _begun(state)
    while not all(task.done() for task in work):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(asyncio.wait(work))
    said = await asyncio.gather(*work)
    return {"said": list(said), "turn": state["turn"] + 1}


def _note(state: Plan) -> dict[str, Any]:
    return {"said": []}


def _left(state: Plan) -> str:
    return "act" if state["turn"] < len(state["turns"]) else END


def _fan(state: Plan) -> Any:
    if state["turn"] >= len(state["turns"]):
        return END
    return [Send("one", {"tool": name, "call": call}) for name, call in state["turns"][state["turn"]]]


GRAPHS: dict[str, Any] = {
    "gathered": StateGraph(Plan)
    .add_node("act", _gather)
    .add_conditional_edges(START, _left, ["act", END])
    .add_conditional_edges("act", _left, ["act", END])
    .compile(),
    "fanned": StateGraph(Plan)
    .add_node("one", _one)
    .add_node("turned", _turned)
    .add_conditional_edges(START, _fan, ["one", END])
    .add_edge("one", "turned")
    .add_conditional_edges("turned", _fan, ["one", END])
    .compile(),
    "stubborn": StateGraph(Plan)
    .add_node("act", _stubborn)
    .add_conditional_edges(START, _left, ["act", END])
    .add_conditional_edges("act", _left, ["act", END])
    .compile(),
    "orphaning": StateGraph(Plan)
    .add_node("act", _orphaning)
    .add_conditional_edges(START, _left, ["act", END])
    .add_conditional_edges("act", _left, ["act", END])
    .compile(),
    "alone": StateGraph(Plan)
    .add_node("note", _note)
    .add_node("act", _gather)
    .add_edge(START, "note")
    .add_conditional_edges("note", _left, ["act", END])
    .add_conditional_edges("act", _left, ["act", END])
    .compile(),
}
