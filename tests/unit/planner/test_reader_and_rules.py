"""How the learned reader and the planner's rules share a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from fermata.agents.inference.readings import Pair, Reading, current_reader
from fermata.agents.planner import PlannerChatModel
from fermata.agents.planner.reader.asked import MOST_TOOLS
from fermata.agents.planner.reader.shared import Reader


def tool(name: str, description: str, effect: str = "UNSAFE", **params: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": name,
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": params, "required": list(params)},
        "metadata": {"fermata.effect": effect},
    }


PUMP = {"type": "string", "description": "Pump, P-1 to P-9.", "pattern": "^P-[1-9]$"}
TOOLS = [
    tool("stop_pump", "Stops a pump.", pump=PUMP),
    tool("set_speed", "Sets the speed of a pump.", pump=PUMP, rpm={"type": "number", "description": "rpm"}),
    tool("pump_pressure", "Reads the pressure behind a pump.", "READ", pump=PUMP),
]


class Counting:
    """The bundled reader, which counts what it is asked."""

    def __init__(self) -> None:
        self.pairs = 0

    def read(self, pairs: Sequence[Pair], /) -> list[Reading]:
        self.pairs += len(pairs)
        return current_reader().read(pairs)


class Deaf:
    """A reader that hears no request anywhere."""

    def read(self, pairs: Sequence[Pair], /) -> list[Reading]:
        out = current_reader().read(pairs)
        for reading in out:
            reading.kind[:] = (1, 0, 0, 0)
        return out


def ask(model: PlannerChatModel, *said: str, tools: Sequence[dict[str, Any]] = TOOLS) -> AIMessage:
    messages: list[Any] = [SystemMessage("Pumps P-1 to P-9.")]
    for number, text in enumerate(said):
        messages.append(AIMessage(text) if number % 2 else HumanMessage(text))
    reply = model.bind_tools(tools).invoke(messages)
    assert isinstance(reply, AIMessage)
    return reply


def made(reply: AIMessage) -> list[tuple[str, dict[str, Any]]]:
    return [(c["name"], c["args"]) for c in reply.tool_calls]


def test_a_request_in_other_words_than_the_tools_is_understood() -> None:
    assert made(ask(PlannerChatModel(), "P-4 is rattling like mad, kill it")) == [
        ("stop_pump", {"pump": "P-4"})
    ]


def test_two_requests_of_one_tool_each_have_their_own_words() -> None:
    model = PlannerChatModel().bind_tools(TOOLS)
    messages: list[Any] = [HumanMessage("P-2 to 900 rpm please, and P-7 to 1100")]
    calls: list[tuple[str, dict[str, Any]]] = []
    while (reply := model.invoke(messages)).tool_calls:
        calls.extend(made(reply))
        messages += [reply, *(ToolMessage("{}", tool_call_id=c["id"]) for c in reply.tool_calls)]
    assert calls == [
        ("set_speed", {"pump": "P-2", "rpm": 900}),
        ("set_speed", {"pump": "P-7", "rpm": 1100}),
    ]


def test_what_only_the_rules_would_act_on_is_asked_about_and_done_after_a_yes() -> None:
    model = PlannerChatModel(reader=Reader(Deaf()))
    said = "P-4 off"
    doubted = ask(model, said)
    assert doubted.tool_calls == []
    if "not sure that you asked" in str(doubted.content):
        assert made(ask(model, said, str(doubted.content), "yes")) == [("stop_pump", {"pump": "P-4"})]
    assert made(ask(model, "Please stop P-4.")) == [("stop_pump", {"pump": "P-4"})]


def test_a_replayed_plan_reads_nothing_twice() -> None:
    counting = Counting()
    model = PlannerChatModel(reader=Reader(counting))
    ask(model, "stop P-4")
    ask(model, "stop P-4")
    assert counting.pairs == len(TOOLS)


def test_of_very_many_tools_only_those_that_come_close_are_read() -> None:
    counting = Counting()
    many = [*TOOLS, *(tool(f"paint_room_{n}", f"Paints room {n}.") for n in range(40))]
    reply = ask(PlannerChatModel(reader=Reader(counting)), "stop P-4", tools=many)
    assert made(reply) == [("stop_pump", {"pump": "P-4"})]
    assert counting.pairs == MOST_TOOLS


def test_without_a_reader_the_rules_decide_alone() -> None:
    assert made(ask(PlannerChatModel(reader=None), "stop P-4")) == [("stop_pump", {"pump": "P-4"})]


class Eager:
    """A reader that takes everything for an order to stop a pump."""

    def read(self, pairs: Sequence[Pair], /) -> list[Reading]:
        out = current_reader().read(pairs)
        for number, reading in enumerate(out):
            reading.kind[:] = (0, 1, 0, 0) if number == 0 else (1, 0, 0, 0)
        return out


def test_a_ban_wins_over_a_reader_that_hears_an_order() -> None:
    reply = ask(PlannerChatModel(reader=Reader(Eager())), "Don't stop P-4 under any circumstances.")
    assert reply.tool_calls == []
    assert made(ask(PlannerChatModel(reader=Reader(Eager())), "P-4 has done its share")) == [
        ("stop_pump", {"pump": "P-4"})
    ]
