"""The gate and approvals, end to end: what asks, what a person says, and what happens then, counted at the effects."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from tests.integration.plane.harness import Driver, Effects, Watched, script

from fermata.client import Client, FermataError
from fermata.v1 import approval_pb2, run_pb2

pytestmark = pytest.mark.ray


async def test_two_asking_calls_of_one_tool_node_are_decided_in_reverse_order(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk(
        "asynchronous", [("pay", {"mark": mark, "amount": 1}), ("pay", {"mark": mark, "amount": 2})]
    )
    first, second = sorted(await run.asked(2), key=lambda shown: str(shown.args["amount"]))
    await client.approvals.approve(second)
    await effects.wait_for("pay 2 EUR")
    assert effects.lines() == ["pay 2 EUR"], "the other one still waits"
    await client.approvals.reject(first, comment="not this one")
    answers = await run.answers()
    assert [(a["status"], "not this one" in a["content"]) for a in answers] == [
        ("error", True),
        ("success", False),
    ]
    assert effects.lines() == ["pay 2 EUR"]


async def test_both_orders_reach_the_calls_that_they_were_meant_for(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk(
        "mixed", [("pay_sync", {"mark": mark, "amount": 1}), ("pay", {"mark": mark, "amount": 2})]
    )
    for shown in reversed(await run.asked(2)):
        await client.approvals.approve(shown)
    assert [a["content"] for a in await run.answers()] == ["paid 1", "paid 2 EUR"]
    assert sorted(effects.lines()) == ["pay 2 EUR", "pay_sync 1"]


async def test_a_tool_that_interrupts_by_itself_stands_next_to_an_asking_call(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk("asynchronous", [("paint", {"mark": mark}), ("pay", {"mark": mark, "amount": 3})])
    by_kind = {shown.kind: shown for shown in await run.asked(2)}
    question = by_kind[approval_pb2.APPROVAL_KIND_INPUT]
    assert json_format.MessageToDict(question.question) == {"question": "Which colour?"}
    await client.approvals.approve(by_kind[approval_pb2.APPROVAL_KIND_ACTION])
    await effects.wait_for("pay 3 EUR")
    await client.approvals.answer(question, "blue")
    assert [a["content"] for a in await run.answers()] == ["painted blue", "paid 3 EUR"]
    assert sorted(effects.lines()) == ["paint blue", "pay 3 EUR"]


async def test_the_answer_may_come_before_the_approval(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk("asynchronous", [("paint", {"mark": mark}), ("pay", {"mark": mark, "amount": 3})])
    by_kind = {shown.kind: shown for shown in await run.asked(2)}
    await client.approvals.answer(by_kind[approval_pb2.APPROVAL_KIND_INPUT], "red")
    await effects.wait_for("paint red")
    assert effects.lines() == ["paint red"]
    await client.approvals.approve(by_kind[approval_pb2.APPROVAL_KIND_ACTION])
    await run.succeeded()
    assert sorted(effects.lines()) == ["paint red", "pay 3 EUR"]


@pytest.mark.parametrize(
    ("how", "effect", "result"),
    [
        ("tool", "pay 5 EUR", "paid 5 EUR"),
        ("tool_node", "pay 6 EUR", "paid 6 EUR"),
        ("graph", "pay 7 EUR", "inner paid 7 EUR"),
        ("sync", "pay_sync 8", "paid 8"),
    ],
)
async def test_a_call_made_inside_a_node_asks_and_runs_once(
    driver: Driver, client: Client, effects: Effects, how: str, effect: str, result: str
) -> None:
    run = await driver.start("inside", {"how": how, "mark": str(effects)})
    (shown,) = await run.asked()
    assert effect not in effects.lines()
    await client.approvals.approve(shown)
    done = await run.succeeded()
    assert done.output["result"] == result
    assert effects.lines().count(effect) == 1


@pytest.mark.parametrize("how", ["tool", "tool_node", "graph"])
async def test_a_call_made_inside_a_node_does_not_run_when_rejected(
    driver: Driver, client: Client, effects: Effects, how: str
) -> None:
    run = await driver.start("inside", {"how": how, "mark": str(effects)})
    (shown,) = await run.asked()
    await client.approvals.reject(shown, comment="no money today")
    done = await run.ended()
    assert set(effects.lines()) == {"node"}
    if how == "tool_node":
        assert "no money today" in str(done.output["result"])
    else:
        # No model asked for it: the node that made the call gets an exception, and this one lets it pass.
        assert done.error.reason == "REJECTED"
        assert "no money today" in done.error.message


async def test_a_node_that_calls_twice_asks_twice_and_repeats_nothing(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.start("inside", {"how": "two", "mark": str(effects)})
    (first,) = await run.asked()
    await client.approvals.approve(first)
    await run.until(
        "asks again",
        lambda e: e.type == run_pb2.EVENT_TYPE_APPROVAL_REQUESTED and e.data["approval"] != first.name,
    )
    (second,) = await run.asked()
    await client.approvals.approve(second)
    assert (await run.succeeded()).output["result"] == "paid 1 EUR, paid 2 EUR"
    assert [line for line in effects.lines() if line != "node"] == ["pay 1 EUR", "pay 2 EUR"]


async def test_a_sibling_of_an_asking_call_finishes_and_does_not_run_twice(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk(
        "asynchronous",
        [
            ("free", {"mark": mark}),
            ("pay", {"mark": mark, "amount": 4}),
            ("free", {"mark": mark, "name": "other"}),
        ],
    )
    (shown,) = await run.asked()
    assert sorted(effects.lines()) == ["free", "other"]
    await client.approvals.approve(shown)
    assert [a["content"] for a in await run.answers()] == ["free", "paid 4 EUR", "other"]
    assert sorted(effects.lines()) == ["free", "other", "pay 4 EUR"]


async def test_a_slow_sibling_is_waited_for_before_the_run_parks(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk(
        "asynchronous", [("slow_pay", {"mark": mark}), ("pay", {"mark": mark, "amount": 4})]
    )
    await effects.pid()
    await run.until("asks", lambda event: event.type == run_pb2.EVENT_TYPE_APPROVAL_REQUESTED)
    (shown,) = await client.approvals.list(run=run.name)
    await client.approvals.approve(shown)
    effects.let_go()
    assert [a["content"] for a in await run.answers()] == ["paid", "paid 4 EUR"]
    assert [line.split()[0] for line in effects.lines()] == ["start", "end", "pay"]


async def test_injected_state_is_part_of_what_is_shown_and_reaches_the_tool(
    driver: Driver, client: Client, effects: Effects
) -> None:
    text = script([("charge", {"mark": str(effects)})])
    values = {"customer": "Ada", "messages": [{"role": "user", "content": text}]}
    run = await driver.start("asynchronous", values)
    (shown,) = await run.asked()
    assert "customer" not in shown.args, "the model does not set it"
    await client.approvals.approve(shown)
    await run.succeeded()
    assert effects.lines() == ["charge Ada"]


async def test_edited_arguments_reach_the_tool(driver: Driver, client: Client, effects: Effects) -> None:
    run = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 900})])
    (shown,) = await run.asked()
    assert json_format.MessageToDict(shown.args) == {"mark": str(effects), "amount": 900, "currency": "EUR"}
    await client.approvals.edit(shown, {"mark": str(effects), "amount": 80, "currency": "SEK"})
    (answer,) = await run.answers()
    assert answer["content"] == "paid 80 SEK"
    assert effects.lines() == ["pay 80 SEK"]


async def test_policy_looks_again_at_edited_arguments(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 900})])
    (shown,) = await run.asked()
    with pytest.raises(FermataError) as refused:
        await client.approvals.edit(shown, {"mark": str(effects), "amount": 5000, "currency": "EUR"})
    assert refused.value.reason == "POLICY_DENIED"
    assert "More than 1000 is never paid." in refused.value.message
    await client.approvals.edit(shown, {"mark": str(effects), "amount": 1000, "currency": "EUR"})
    await run.succeeded()
    assert effects.lines() == ["pay 1000 EUR"]


async def test_what_policy_denies_is_refused_without_asking(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 1001})])
    (answer,) = await run.answers()
    assert answer["status"] == "error"
    assert "More than 1000 is never paid." in answer["content"]
    assert effects.lines() == []
    assert not await client.approvals.list(run=run.name, states=approval_pb2.ApprovalState.values()[1:])


async def test_the_reason_of_a_rejection_reaches_the_agent(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("mixed", [("pay_sync", {"mark": str(effects), "amount": 9})])
    (shown,) = await run.asked()
    await client.approvals.reject(shown, comment="the budget is gone")
    (answer,) = await run.answers()
    assert answer["status"] == "error"
    assert "the budget is gone" in answer["content"]
    assert effects.lines() == []


async def test_a_second_turn_on_the_same_thread_asks_anew(
    driver: Driver, client: Client, effects: Effects
) -> None:
    call = ("pay", {"mark": str(effects), "amount": 11})
    run = await driver.talk("asynchronous", [call])
    (shown,) = await run.asked()
    await client.approvals.approve(shown)
    await run.succeeded()
    again = await driver.talk("asynchronous", [call], thread=run.run.thread)
    (shown,) = await again.asked()
    await client.approvals.reject(shown)
    await again.succeeded()
    assert effects.lines() == ["pay 11 EUR"]


async def test_langchains_own_middleware_approves_edits_and_rejects(
    driver: Driver, client: Client, effects: Effects
) -> None:
    await driver.plane.agent(client, "clerk")
    mark = str(effects)
    text = json.dumps([{"mark": mark, "to": name} for name in ("Ada", "Bo", "Cy")])
    run = Watched(client, await client.runs.create("clerk", text))
    shown = {str(one.args["to"]): one for one in await run.asked(3)}
    assert {one.kind for one in shown.values()} == {approval_pb2.APPROVAL_KIND_ACTION}
    await client.approvals.reject(shown["Cy"], comment="Cy has moved")
    await client.approvals.edit(shown["Bo"], {"mark": mark, "to": "Bob"})
    await client.approvals.approve(shown["Ada"])
    done = await run.succeeded()
    assert sorted(effects.lines()) == ["send Ada", "send Bob"]
    assert all(part in done.answer for part in ("sent to Ada", "sent to Bob", "Cy has moved"))
