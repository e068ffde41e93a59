"""Double text, end to end: a message while another run of its thread is going on, on real hosts, counted by what tools have done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.plane.harness import SERVER, Driver, Effects, Watched, eventually, out_of_reach

from fermata.client import Client
from fermata.client.values import from_struct
from fermata.v1 import approval_pb2, run_pb2

pytestmark = pytest.mark.ray

SILENT_SECONDS = 13.0
"""Longer than a lease and the look that finds it expired."""


async def _conversation(run: Watched) -> list[tuple[str, str]]:
    """The thread's messages at the end of a run, as (type, text); of the model's only those with an answer."""
    output = from_struct((await run.succeeded()).output)
    messages: Any = output["messages"]
    return [(m["type"], m["content"]) for m in messages if m["type"] != "ai"]


def _texts(conversation: list[tuple[str, str]], kind: str) -> list[str]:
    return [text for found, text in conversation if found == kind]


async def test_an_interrupted_run_stops_and_the_conversation_goes_on_from_where_it_was(
    driver: Driver, client: Client, effects: Effects, more_effects: Callable[[], Effects]
) -> None:
    mark, other = str(effects), more_effects()
    first = await driver.talk(
        "asynchronous", [("free", {"mark": mark})], [("hang", {"mark": mark})], [("free", {"mark": mark})]
    )
    await effects.wait_for("start")
    second = await driver.talk(
        "asynchronous",
        [("free", {"mark": str(other), "name": "second"})],
        thread=first.run.thread,
        on_busy="interrupt",
    )
    assert second.run.in_line
    ended = await first.ended(run_pb2.RUN_STATE_CANCELLED)
    assert ended.successor == second.name
    assert effects.lines() == ["free", "start", "cancelled"]
    told = await _conversation(second)
    assert _texts(told, "tool")[0] == "free", "what was done stays in the conversation"
    assert "cancelled" in _texts(told, "tool")[1], "the call that was cut off is closed"
    assert _texts(told, "tool")[2:] == ["second"]
    assert len(_texts(told, "human")) == 2
    assert other.lines() == ["second"]
    steps = await client.runs.steps(first.name)
    assert [step.tool for step in steps] == ["free", "hang"]


async def test_a_rolled_back_run_is_out_of_the_conversation_and_stays_in_the_ledger(
    driver: Driver, client: Client, effects: Effects, more_effects: Callable[[], Effects]
) -> None:
    mark, before, after = str(effects), more_effects(), more_effects()
    first = await driver.talk("mixed", [("free", {"mark": str(before), "name": "first"})])
    thread = first.run.thread
    told = await _conversation(first)
    second = await driver.talk(
        "mixed", [("free", {"mark": mark, "name": "gone"})], [("hang_sync", {"mark": mark})], thread=thread
    )
    await effects.wait_for("start")
    third = await driver.talk(
        "mixed", [("free", {"mark": str(after), "name": "third"})], thread=thread, on_busy="rollback"
    )
    await second.ended(run_pb2.RUN_STATE_CANCELLED)
    told_after = await _conversation(third)
    assert told_after[: len(told)] == told
    assert _texts(told_after, "tool") == ["first", "third"]
    assert len(_texts(told_after, "human")) == 2
    # What has happened has happened: the ledger has it, and of the call that was killed a person is asked.
    steps = await client.runs.steps(second.name)
    assert [(step.tool, step.outcome) for step in steps] == [
        ("free", run_pb2.STEP_OUTCOME_FINISHED),
        ("hang_sync", run_pb2.STEP_OUTCOME_KILLED),
    ]
    [asked] = await client.approvals.list(run=second.name)
    assert asked.kind == approval_pb2.APPROVAL_KIND_RECOVERY
    assert "CANCELLED" in await second.history()
    assert effects.lines() == ["gone", "start"]
    assert after.lines() == ["third"]


async def test_a_question_of_an_interrupted_run_is_withdrawn_and_the_new_run_begins_at_once(
    driver: Driver, client: Client, effects: Effects, more_effects: Callable[[], Effects]
) -> None:
    first = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 1})])
    (shown,) = await first.asked()
    other = more_effects()
    second = await driver.talk(
        "asynchronous", [("free", {"mark": str(other)})], thread=first.run.thread, on_busy="interrupt"
    )
    assert not second.run.in_line
    assert (await client.approvals.get(shown.name)).state == approval_pb2.APPROVAL_STATE_CANCELLED
    assert "cancelled" in _texts(await _conversation(second), "tool")[0]
    assert effects.lines() == []


async def test_messages_in_line_are_answered_in_order_over_a_server_that_is_killed(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    first = await driver.talk("asynchronous", [("slow_pay", {"mark": mark})])
    await effects.pid()
    line = [
        await driver.talk(
            "asynchronous",
            [("free", {"mark": mark, "name": f"message {number}"})],
            thread=first.run.thread,
            on_busy="enqueue",
        )
        for number in range(3)
    ]
    assert all(run.run.in_line for run in line)
    driver.plane.kill(SERVER)
    effects.let_go()
    await first.succeeded()
    told = await _conversation(line[-1])
    assert _texts(told, "tool") == ["paid", "message 0", "message 1", "message 2"]
    assert effects.lines()[1:] == ["end", "message 0", "message 1", "message 2"]


async def test_a_message_does_not_begin_while_a_worker_out_of_reach_may_still_act(
    driver: Driver, client: Client, effects: Effects, more_effects: Callable[[], Effects]
) -> None:
    first = await driver.talk("asynchronous", [("slow_pay", {"mark": str(effects)})])
    await effects.pid()
    worker = (await driver.worker_of(first.name)).pid
    other = more_effects()
    with out_of_reach(worker):
        second = await driver.talk(
            "asynchronous", [("free", {"mark": str(other)})], thread=first.run.thread, on_busy="interrupt"
        )
        # Nothing tells that nothing happens: the lease has to run out while somebody looks.
        await asyncio.sleep(SILENT_SECONDS)
        assert (await client.runs.get(first.name)).state == run_pb2.RUN_STATE_HALTING
        assert (await client.runs.get(second.name)).in_line
        assert other.lines() == []
    await first.ended(run_pb2.RUN_STATE_CANCELLED)
    await second.succeeded()
    assert [line.split()[0] for line in effects.lines()] == ["start"]

    async def connected() -> bool:
        return len(await driver.workers()) >= 2

    await eventually("both workers are there for the next test", connected)
