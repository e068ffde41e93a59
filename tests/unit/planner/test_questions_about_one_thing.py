"""A question about one thing that it names is read from it, unless the documents speak of that thing."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from fermata.agents.factory.tools import TOOLS
from fermata.agents.planner import PlannerChatModel

PASSAGES = """\
<passage id="1" source="manuals/lubrication.md" heading="Lubrication manual > Schedule" line="6">
## Schedule

| part | interval |
|---|---|
| spindle bearings of a line | 500 hours |

Grease the spindle bearings of a line every 500 operating hours.
</passage>
<passage id="2" source="manuals/vibration-monitoring.md" heading="Vibration monitoring > Zones" line="15">
The warning limit of a line's vibration is 4.5 mm/s and the alarm limit is 7.1 mm/s.
</passage>
"""


@pytest.fixture(scope="module")
def model() -> PlannerChatModel:
    return PlannerChatModel()


def ask(model: PlannerChatModel, text: str) -> AIMessage:
    reply = model.bind_tools(TOOLS).invoke([SystemMessage(PASSAGES), HumanMessage(text)])
    assert isinstance(reply, AIMessage)
    return reply


@pytest.mark.parametrize(
    "question", ["how is line 3?", "what is the vibration of line 3?", "how fast is line 3 running?"]
)
def test_what_one_line_does_now_is_read(model: PlannerChatModel, question: str) -> None:
    calls = ask(model, question).tool_calls
    assert [(call["name"], call["args"]) for call in calls] == [("read_line", {"line": "line-3"})]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("what is the vibration limit of line 3?", "7.1 mm/s"),
        ("how often are the spindle bearings of line 3 greased?", "500 operating hours"),
    ],
)
def test_what_holds_for_every_line_is_answered_from_the_documents(
    model: PlannerChatModel, question: str, said: str
) -> None:
    reply = ask(model, question)
    assert not reply.tool_calls
    assert said in reply.text


def test_headings_and_table_rules_are_no_answers(model: PlannerChatModel) -> None:
    reply = ask(model, "how often are the spindle bearings greased?")
    assert "|---|" not in reply.text
    assert "Schedule. [" not in reply.text
