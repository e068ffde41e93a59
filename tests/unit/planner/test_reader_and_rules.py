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


def test_of_two_things_that_were_spoken_of_it_names_none() -> None:
    earlier = ("P-4 and P-6 both rattle.", "Yes, both, since six.")
    reply = ask(PlannerChatModel(), *earlier, "stop it then")
    assert reply.tool_calls == []
    assert "P-4" in str(reply.content)
    assert "P-6" in str(reply.content)
    assert made(ask(PlannerChatModel(), "P-4 rattles.", "It does, since six.", "stop it then")) == [
        ("stop_pump", {"pump": "P-4"})
    ]


class Torn:
    """A reader that is sure of two tools for the same words."""

    def read(self, pairs: Sequence[Pair], /) -> list[Reading]:
        out = current_reader().read(pairs)
        for reading in out[:2]:
            reading.kind[:] = (0, 1, 0, 0)
            reading.tags[:] = 0
        return out


def test_two_tools_that_would_act_on_the_same_words_are_asked_about() -> None:
    twins = [
        tool("open_left", "Opens a sluice.", pump=PUMP),
        tool("open_right", "Opens a sluice.", pump=PUMP),
    ]
    reply = ask(PlannerChatModel(reader=Reader(Torn())), "P-4 again", tools=twins)
    assert reply.tool_calls == []
    assert "open left" in str(reply.content)
    assert "open right" in str(reply.content)


def test_what_is_said_beside_a_ban_is_done_and_the_ban_is_kept() -> None:
    assert made(ask(PlannerChatModel(), "don't stop P-4, just set it to 700 rpm")) == [
        ("set_speed", {"pump": "P-4", "rpm": 700})
    ]


def test_a_no_to_a_question_calls_off_what_the_reader_still_hears() -> None:
    for no in ("oh, forget about it, I'll do that myself", "Then rather not.", "please don't", "that's a no"):
        reply = ask(PlannerChatModel(reader=Reader(Eager())), "stop P-4", "It feeds line 2. Shall I?", no)
        assert reply.tool_calls == [], no


def test_nothing_is_invented_for_what_a_message_does_not_give() -> None:
    note = tool(
        "send_fitter",
        "Sends a fitter to a pump.",
        pump=PUMP,
        task={"type": "string", "description": "What to do."},
    )
    reply = ask(PlannerChatModel(), "get a fitter over to P-8", tools=[note, *TOOLS])
    assert reply.tool_calls == []
    reply = ask(
        PlannerChatModel(),
        "put 5 of the spares aside for P-5",
        tools=[
            tool(
                "reserve",
                "Puts spares aside for a pump.",
                pump=PUMP,
                count={"type": "integer", "description": "How many."},
            ),
            *TOOLS,
        ],
    )
    assert made(reply) in ([], [("reserve", {"pump": "P-5", "count": 5})])
    reply = ask(
        PlannerChatModel(),
        "reserve some spares for P-5",
        tools=[
            tool(
                "reserve",
                "Puts spares aside for a pump.",
                pump=PUMP,
                count={"type": "integer", "description": "How many."},
            ),
            *TOOLS,
        ],
    )
    assert reply.tool_calls == []


def test_a_message_that_only_changes_the_last_call_is_left_to_the_rules() -> None:
    model = PlannerChatModel().bind_tools(TOOLS)
    call = {"id": "c1", "name": "set_speed", "args": {"pump": "P-3", "rpm": 800}}
    messages: list[Any] = [
        HumanMessage("set P-3 to 800"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("{}", tool_call_id="c1"),
        AIMessage("P-3 runs at 800 rpm."),
        HumanMessage("make it 950"),
    ]
    assert made(model.invoke(messages)) == [("set_speed", {"pump": "P-3", "rpm": 950})]


def test_a_question_is_never_an_order_whatever_the_reader_hears() -> None:
    model = PlannerChatModel(reader=Reader(Eager()))
    for question in ("how is P-4?", "and how is P-4 doing?", "what is the pressure behind P-4?"):
        assert [
            name for name, _ in made(ask(model, "P-4 rattles.", "Stop it, says the manual [1].", question))
        ] in (
            [],
            ["pump_pressure"],
        ), question
