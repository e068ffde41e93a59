"""What a report says of a graph."""

from __future__ import annotations

import json
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from typing_extensions import TypedDict

from fermata.agents.runtime.inspection import inspect_graph
from fermata.v1 import agent_pb2, run_pb2


@tool
async def aread(name: str) -> str:
    """Reads."""
    return name


aread.metadata = {"fermata.effect": "READ", "fermata.risk": "low"}


@tool
def swrite(name: str) -> str:
    """Writes."""
    return name


class AsyncModel(BaseChatModel):
    """Answers at once."""

    @property
    def _llm_type(self) -> str:
        return "async"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[])

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("hi"))])

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return self._generate()


class SyncModel(AsyncModel):
    """Has no async of its own."""

    _agenerate = BaseChatModel._agenerate


async def anode(state: MessagesState) -> dict[str, Any]:
    return {}


def snode(state: MessagesState) -> dict[str, Any]:
    return {}


def graph_of(*nodes: Any, state: Any = MessagesState) -> Any:
    graph = StateGraph(state)
    before = START
    for number, node in enumerate(nodes):
        graph.add_node(f"n{number}", node)
        graph.add_edge(before, f"n{number}")
        before = f"n{number}"
    return graph.compile()


def report(graph: Any, **spec: Any) -> agent_pb2.GraphReport:
    return inspect_graph(graph, agent_pb2.AgentSpec(**spec))


def test_an_all_async_graph_has_no_sync_code() -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("think", anode)
    graph.add_node("tools", ToolNode([aread]))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", lambda state: "tools", ["tools"])
    found = report(graph.compile())
    assert not found.has_sync_code
    assert found.nodes == ["think", "tools"]
    assert found.conversational
    assert "think" in found.mermaid
    assert [(info.name, info.effect, info.risk) for info in found.tools] == [
        ("aread", run_pb2.EFFECT_CLASS_READ, "low")
    ]
    assert set(json.loads(found.tools[0].args_schema)["properties"]) == {"name"}


def test_a_sync_node_or_tool_makes_a_graph_sync() -> None:
    assert report(graph_of(anode, snode)).has_sync_code
    assert report(graph_of(anode, ToolNode([aread, swrite]))).has_sync_code


def test_an_agent_is_as_sync_as_its_tools_and_its_model() -> None:
    assert not report(create_agent(AsyncModel(), [aread])).has_sync_code
    assert report(create_agent(AsyncModel(), [aread, swrite])).has_sync_code
    assert report(create_agent(SyncModel(), [aread])).has_sync_code
    assert [info.name for info in report(create_agent(AsyncModel(), [aread, swrite])).tools] == [
        "aread",
        "swrite",
    ]


def test_tools_that_a_node_calls_by_itself_and_those_of_a_graph_inside_are_found() -> None:
    async def helper() -> Any:
        return await aread.ainvoke({"name": "a"})

    async def node(state: MessagesState) -> dict[str, Any]:
        await helper()
        return {}

    inner = graph_of(ToolNode([swrite]))
    found = report(graph_of(node, inner))
    assert [info.name for info in found.tools] == ["aread", "swrite"]
    assert found.has_sync_code


def test_declarations_of_the_agent_file_win_over_the_tools_own() -> None:
    declared = {"aread": agent_pb2.ToolDeclaration(effect=run_pb2.EFFECT_CLASS_IDEMPOTENT, risk="high")}
    found = report(
        graph_of(ToolNode([aread, swrite])),
        tool_declarations={**declared, "nowhere": agent_pb2.ToolDeclaration(risk="low")},
    )
    assert [(info.effect, info.risk) for info in found.tools] == [
        (run_pb2.EFFECT_CLASS_IDEMPOTENT, "high"),
        (run_pb2.EFFECT_CLASS_UNSAFE, ""),
    ]
    assert any("nowhere" in note for note in found.notes)


def test_notes_say_what_the_gate_does_not_cover() -> None:
    notes = " ".join(report(graph_of(anode)).notes)
    assert "n0" in notes
    assert "ends only with its process" in notes


class Plain(TypedDict):
    number: int


def test_a_graph_without_messages_is_not_conversational() -> None:
    async def node(state: Plain) -> dict[str, Any]:
        return {}

    assert not report(graph_of(node, state=Plain)).conversational
