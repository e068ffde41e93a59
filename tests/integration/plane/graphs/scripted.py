"""Agents for the tests of the whole plane. Nothing of Fermata is imported here: these are plain LangGraph graphs.

What an agent does is written in the message that it gets: ``{"turns": [[{"tool": ..., "args": {...}}, ...], ...]}``, one
list of calls for each of the model's turns. Every tool appends what it does to the file ``mark``, from which the tests
count from outside of the process what has happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, tools_condition
from langgraph.types import interrupt


class Scripted(BaseChatModel):
    """Calls what the latest message of the person lists, turn by turn, and ends with what the tools answered."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Scripted:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        start = max(i for i, message in enumerate(messages) if isinstance(message, HumanMessage))
        since = messages[start + 1 :]
        turn = sum(isinstance(message, AIMessage) for message in since)
        turns = json.loads(str(messages[start].content))["turns"]
        if turn < len(turns):
            calls = [
                {"name": call["tool"], "args": call["args"], "id": f"call-{turn}-{i}", "type": "tool_call"}
                for i, call in enumerate(turns[turn])
            ]
            return AIMessage(content=f"turn {turn}", tool_calls=calls)
        answers = [
            {"tool": message.name, "status": message.status, "content": message.content}
            for message in since
            if isinstance(message, ToolMessage)
        ]
        return AIMessage(content=json.dumps(answers))


def note(mark: str, line: str) -> None:
    """Append a line in one write."""
    with open(mark, "ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


async def let_go(mark: str) -> None:
    """Wait until the test says so. It is another process, so there is nothing to wait for but a file."""
    while not os.access(f"{mark}.go", os.F_OK):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@tool
async def look(mark: str) -> str:
    """Read a value."""
    note(mark, "look")
    return "42"


@tool
async def slow_look(mark: str) -> str:
    """Read a value, slowly."""
    note(mark, f"start {os.getpid()}")
    await let_go(mark)
    note(mark, "end")
    return "42"


@tool
async def slow_put(mark: str, value: int = 1) -> str:
    """Set a value, slowly; twice is as once."""
    note(mark, f"start {os.getpid()}")
    await let_go(mark)
    note(mark, f"end {value}")
    return f"is {value}"


@tool
async def slow_pay(mark: str) -> str:
    """Pay, slowly, and without being asked."""
    note(mark, f"start {os.getpid()}")
    await let_go(mark)
    note(mark, "end")
    return "paid"


@tool
async def pay(mark: str, amount: int, currency: str = "EUR") -> str:
    """Pay an amount."""
    note(mark, f"pay {amount} {currency}")
    return f"paid {amount} {currency}"


@tool
def pay_sync(mark: str, amount: int) -> str:
    """Pay an amount."""
    note(mark, f"pay_sync {amount}")
    return f"paid {amount}"


@tool
async def pay_soon(mark: str) -> str:
    """Pay, if somebody says so very soon."""
    note(mark, "pay_soon")
    return "paid"


@tool
async def pay_twice_signed(mark: str) -> str:
    """Pay, if two people say so."""
    note(mark, "pay_twice_signed")
    return "paid"


@tool
async def free(mark: str, name: str = "free") -> str:
    """Do something, unasked."""
    note(mark, name)
    return name


@tool
async def paint(mark: str) -> str:
    """Ask for a colour, and paint."""
    colour = interrupt({"question": "Which colour?"})
    note(mark, f"paint {colour}")
    return f"painted {colour}"


class Shop(MessagesState):
    """A state with something that tools are given without the model's doing."""

    customer: str


@tool
async def charge(mark: str, customer: Annotated[str, InjectedState("customer")]) -> str:
    """Charge whoever the state names."""
    note(mark, f"charge {customer}")
    return f"charged {customer}"


@tool
async def typed(mark: str, count: int, unit: Literal["mm", "cm"]) -> str:
    """Takes a number and one of two units."""
    note(mark, f"typed {count} {unit}")
    return "ok"


@tool
async def broken(mark: str) -> str:
    """Raises."""
    note(mark, "broken")
    raise ValueError("the pump is on fire")


@tool
async def big(mark: str, size: int) -> str:
    """Returns a text of this size."""
    note(mark, f"big {size}")
    return "x" * size


@tool
async def hang(mark: str) -> str:
    """Never returns."""
    note(mark, "start")
    try:
        await asyncio.Event().wait()
    finally:
        note(mark, "cancelled")
    return ""


@tool
def hang_sync(mark: str) -> str:
    """Sleeps for ever."""
    note(mark, "start")
    time.sleep(3600)
    note(mark, "end")
    return ""


@tool
def spin(mark: str) -> str:
    """Turns in Python for ever."""
    note(mark, "start")
    while True:
        pass


@tool
def grind(mark: str) -> str:
    """Turns inside one call of C that never lets go of the interpreter."""
    note(mark, "start")
    sum(range(10**15))
    note(mark, "end")
    return ""


_EFFECTS = {
    "look": "READ",
    "slow_look": "READ",
    "slow_put": "IDEMPOTENT",
    "big": "READ",
    "broken": "READ",
    "typed": "READ",
}
_ASYNC: list[BaseTool] = [
    *(
        look,
        slow_look,
        slow_put,
        slow_pay,
        pay,
        pay_soon,
        pay_twice_signed,
        free,
        paint,
        charge,
        typed,
        broken,
        big,
        hang,
    ),
]
_ALL: list[BaseTool] = [*_ASYNC, pay_sync, hang_sync, spin, grind]
for _tool in _ALL:
    _tool.metadata = {"fermata.effect": _EFFECTS.get(_tool.name, "UNSAFE")}
_model = Scripted()


async def _think(state: Shop) -> dict[str, Any]:
    return {"messages": [await _model.ainvoke(state["messages"])]}


def _loop(tools: Sequence[BaseTool]) -> Any:
    return (
        StateGraph(Shop)
        .add_node("think", _think)
        .add_node("tools", ToolNode(tools))
        .add_edge(START, "think")
        .add_conditional_edges("think", tools_condition)
        .add_edge("tools", "think")
        .compile()
    )


asynchronous = _loop(_ASYNC)
"""All async: many runs share a process."""
mixed = _loop(_ALL)
"""With sync tools: a process for each run."""


class Inside(MessagesState):
    """How the call is made, and what came of it."""

    how: str
    mark: str
    result: str


def _call(name: str, mark: str, **args: Any) -> AIMessage:
    return AIMessage(
        content="",
        tool_calls=[{"name": name, "args": {"mark": mark, **args}, "id": "own", "type": "tool_call"}],
    )


async def _inner_node(state: Inside) -> dict[str, Any]:
    return {"result": f"inner {await pay.ainvoke({'mark': state['mark'], 'amount': 7})}"}


def _nested() -> Any:
    return (
        StateGraph(Inside)
        .add_node("inner", _inner_node)
        .add_edge(START, "inner")
        .add_edge("inner", END)
        .compile()
    )


async def _work(state: Inside) -> dict[str, Any]:
    how, mark = state["how"], state["mark"]
    note(mark, "node")
    if how == "tool":
        return {"result": await pay.ainvoke({"mark": mark, "amount": 5})}
    if how == "tool_node":
        answer = await ToolNode([pay]).ainvoke({"messages": [_call("pay", mark, amount=6)]})
        return {"result": answer["messages"][-1].content}
    if how == "graph":
        return {"result": (await _nested().ainvoke({"mark": mark}))["result"]}
    if how == "two":
        first = await pay.ainvoke({"mark": mark, "amount": 1})
        second = await pay.ainvoke({"mark": mark, "amount": 2})
        return {"result": f"{first}, {second}"}
    raise ValueError(how)


def _work_sync(state: Inside) -> dict[str, Any]:
    note(state["mark"], "node")
    return {"result": pay_sync.invoke({"mark": state["mark"], "amount": 8})}


inside = (
    StateGraph(Inside)
    .add_node("work", _work)
    .add_node("work_sync", _work_sync)
    .add_conditional_edges(START, lambda state: "work_sync" if state["how"] == "sync" else "work")
    .add_edge("work", END)
    .add_edge("work_sync", END)
    .compile()
)


async def _misbehave(state: Inside) -> dict[str, Any]:
    match state["how"]:
        case "raise":
            raise RuntimeError("the graph has had enough")
        case "sleep":
            await asyncio.sleep(3600)
        case "opaque":
            return {"result": object()}
        case "not json":
            return {"result": float("nan")}
        case "die":
            os._exit(9)
    return {"result": "again"}


def _again(state: Inside) -> str:
    return "misbehave" if state["how"] == "loop" else END


misbehaving = (
    StateGraph(Inside)
    .add_node("misbehave", _misbehave)
    .add_edge(START, "misbehave")
    .add_conditional_edges("misbehave", _again, ["misbehave", END])
    .compile()
)
