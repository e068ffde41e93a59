"""Cards and intents: what is asked, and what a person means."""

from __future__ import annotations

from typing import Any

import pytest

from fermata.bots.conversation.cards import card_of
from fermata.bots.conversation.intents import (
    Command,
    Decide,
    Details,
    Say,
    Unclear,
    intent_of,
    split_assignments,
)
from fermata.bots.conversation.reducer import apply
from fermata.bots.conversation.view import CardEntry, Conversation
from fermata.client.values import to_struct, to_value
from fermata.v1 import approval_pb2, run_pb2

ACTION = approval_pb2.APPROVAL_KIND_ACTION
RUNNING = Conversation(run="r", state=run_pb2.RUN_STATE_RUNNING)


def approval(kind: Any = ACTION, name: str = "a1", **fields: Any) -> approval_pb2.Approval:
    return approval_pb2.Approval(
        name=f"tenants/default/approvals/{name}",
        kind=kind,
        state=fields.pop("state", approval_pb2.APPROVAL_STATE_PENDING),
        agent="tenants/default/agents/operator",
        **fields,
    )


def view_with(*approvals: approval_pb2.Approval) -> Conversation:
    entries = tuple(CardEntry(found.name, card_of(found)) for found in approvals)
    return Conversation(run="r", state=run_pb2.RUN_STATE_AWAITING, entries=entries)


def test_an_action_shows_what_on_what_and_why() -> None:
    found = approval(
        tool="set_speed",
        args=to_struct({"rpm": 1000, "line": 3}),
        args_schema=to_struct(
            {"properties": {"rpm": {"description": "per minute"}}, "required": ["line", "rpm"]}
        ),
        rationale="It vibrates [1].",
        rule="plant",
        rule_reason="changes the plant",
        effect=run_pb2.EFFECT_CLASS_UNSAFE,
        risk="high",
        digest="d",
        required_count=2,
        approved_by=["ann"],
    )
    found.expire_time.FromSeconds(1000)
    card = card_of(found)
    assert card.question == "May operator call set_speed?"
    assert [(argument.name, argument.text, argument.description) for argument in card.arguments] == [
        ("line", "3", ""),
        ("rpm", "1000", "per minute"),
    ]
    assert (card.why, card.rule) == ("It vibrates [1].", "plant: changes the plant")
    assert card.effect == "changes something; repeating it may do harm"
    assert card.still_needed == 1
    assert (card.seconds_left(400), card.seconds_left(2000)) == (600, 0)
    assert card.args == {"line": 3, "rpm": 1000}


def test_hidden_characters_in_arguments_are_exposed_and_kept() -> None:
    card = card_of(approval(tool="send", args=to_struct({"to": "ann\u200b@x\x1b[2K"})))
    assert card.arguments[0].text == "ann\\u{200b}@x\\u{1b}[2K"
    assert card.args == {"to": "ann\u200b@x\x1b[2K"}


def test_an_edit_shows_what_was() -> None:
    found = approval(
        tool="t",
        state=approval_pb2.APPROVAL_STATE_APPROVED,
        decision=approval_pb2.DECISION_EDIT,
        decided_by="tenants/default/principals/bot",
        on_behalf_of="tenants/default/principals/ann",
        comment="slower",
        args=to_struct({"rpm": 1000, "line": 3}),
        edited_args=to_struct({"rpm": 900, "line": 3}),
    )
    card = card_of(found)
    assert [(argument.text, argument.was) for argument in card.arguments] == [("3", ""), ("900", "1000")]
    assert card.outcome == "approved with other arguments by ann: slower"


@pytest.mark.parametrize(
    ("kind", "question", "words"),
    [
        (approval_pb2.APPROVAL_KIND_INPUT, "Which line?", "Which line?"),
        (approval_pb2.APPROVAL_KIND_INPUT, {"question": "Which?", "x": 1}, "Which?"),
        (approval_pb2.APPROVAL_KIND_INPUT, None, "asks for an answer"),
        (approval_pb2.APPROVAL_KIND_RECOVERY, "started at 12:00", "Did"),
        (approval_pb2.APPROVAL_KIND_BUDGET, "10 more calls", "spend more"),
    ],
)
def test_questions_of_each_kind(kind: Any, question: object, words: str) -> None:
    assert words in card_of(approval(kind, question=to_value(question))).question


@pytest.mark.parametrize(
    ("line", "decision", "comment"),
    [
        ("a", approval_pb2.DECISION_APPROVE, ""),
        ("Approve", approval_pb2.DECISION_APPROVE, ""),
        ("a 2", approval_pb2.DECISION_APPROVE, ""),
        ("r", approval_pb2.DECISION_REJECT, ""),
        ("r too risky", approval_pb2.DECISION_REJECT, "too risky"),
        ("no: wait for Bob", approval_pb2.DECISION_REJECT, "wait for Bob"),
        ("reject 5 rpm is too slow", approval_pb2.DECISION_REJECT, "5 rpm is too slow"),
        ("e", approval_pb2.DECISION_EDIT, ""),
    ],
)
def test_words_about_a_waiting_card(line: str, decision: Any, comment: str) -> None:
    view = view_with(approval(tool="one"), approval(name="a2", tool="two"))
    intent = intent_of(line, view)
    assert isinstance(intent, Decide)
    assert (intent.decision, intent.comment) == (decision, comment)
    assert intent.card.tool == ("two" if "2" in line else "one")


def test_an_edit_on_one_line() -> None:
    intent = intent_of("e rpm=900 note=slow and steady", view_with(approval()))
    assert isinstance(intent, Decide)
    assert intent.assignments == ("rpm=900", "note=slow and steady")
    assert split_assignments("a=1, b=x=y") == ("a=1", "b=x=y")
    assert split_assignments("") == ()


@pytest.mark.parametrize("line", ["a", "r", "d", "e", "approve", "ok", "yes"])
def test_without_a_card_the_same_words_are_messages(line: str) -> None:
    assert intent_of(line, Conversation()) == Say(line)


@pytest.mark.parametrize(
    "line", ["ok", "yes", "y", "sure, go on", "approve the plan for line 2", "edit the runbook"]
)
def test_only_clear_words_decide(line: str) -> None:
    assert intent_of(line, view_with(approval())) == Say(line)


@pytest.mark.parametrize("line", ["stop", "Stop!", "STOP.", "please stop", "halt", "stop it!"])
def test_stop_halts_a_run_that_is_going_on(line: str) -> None:
    assert intent_of(line, RUNNING) == Command("halt")
    assert intent_of(line, view_with(approval(approval_pb2.APPROVAL_KIND_INPUT))) == Command("halt")
    assert intent_of(line, Conversation()) == Say(line)


def test_stop_inside_a_sentence_is_a_message() -> None:
    assert intent_of("stop line 3", RUNNING) == Say("stop line 3")


@pytest.mark.parametrize(
    ("line", "intent"),
    [
        ("/halt", Command("halt")),
        ("/halt all", Command("halt", "all")),
        ("/release l1", Command("release", "l1")),
        ("/exit", Command("quit")),
        ("  ", None),
    ],
)
def test_commands(line: str, intent: object) -> None:
    assert intent_of(line, Conversation()) == intent


def test_an_unknown_command_is_not_sent_to_the_agent() -> None:
    intent = intent_of("/approve", Conversation())
    assert isinstance(intent, Unclear)
    assert "/halt" in intent.message


def test_text_answers_a_question() -> None:
    view = view_with(approval(approval_pb2.APPROVAL_KIND_INPUT, question=to_value("Which line?")))
    intent = intent_of("line 3, please", view)
    assert isinstance(intent, Decide)
    assert (intent.decision, intent.value) == (approval_pb2.DECISION_ANSWER, "line 3, please")
    assert isinstance(intent_of("d", view), Details)


@pytest.mark.parametrize(
    ("line", "decision"),
    [
        ("happened", approval_pb2.DECISION_IT_HAPPENED),
        ("do it again", approval_pb2.DECISION_DO_AGAIN),
        ("give up", approval_pb2.DECISION_GIVE_UP),
    ],
)
def test_a_recovery_takes_its_own_words(line: str, decision: Any) -> None:
    intent = intent_of(line, view_with(approval(approval_pb2.APPROVAL_KIND_RECOVERY)))
    assert isinstance(intent, Decide)
    assert intent.decision == decision


def test_a_recovery_is_never_approved() -> None:
    intent = intent_of("a", view_with(approval(approval_pb2.APPROVAL_KIND_RECOVERY)))
    assert not isinstance(intent, Decide)


def test_a_decided_card_takes_no_words() -> None:
    view = apply(view_with(approval()), approval(state=approval_pb2.APPROVAL_STATE_REJECTED))
    assert intent_of("a", view) == Say("a")
