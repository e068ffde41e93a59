"""Holds and halts, end to end: what is latched starts nothing, and after *settled* nothing that it covers moves."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
from tests.integration.plane.harness import (
    DEADLINE_SECONDS,
    SERVER,
    Driver,
    Effects,
    Watched,
    eventually,
    out_of_reach,
)

from fermata.client import Client, FailedPreconditionError
from fermata.server.up.proc import process_table
from fermata.v1 import approval_pb2, latch_pb2, run_pb2

pytestmark = pytest.mark.ray

SETTLE_SECONDS = 30.0
QUIET_SECONDS = 0.3
"""How long a settled run is watched from outside: slow tools look every 10 ms whether they may go on."""


@pytest.fixture(autouse=True)
async def nothing_stays_latched(client: Client) -> AsyncIterator[None]:
    yield
    for latch in await client.latches.list(limit=None):
        await client.latches.release(latch.name)


async def settled(client: Client, latch: latch_pb2.Latch) -> latch_pb2.Latch:
    async with asyncio.timeout(SETTLE_SECONDS):
        report = await client.latches.settle(latch.name)
    assert report.state == latch_pb2.LATCH_STATE_SETTLED
    assert report.settle_milliseconds > 0 or not report.steps
    assert all(step.status != latch_pb2.LATCH_STEP_STATUS_OPEN for step in report.steps)
    return report


async def stays_halted(client: Client, run: Watched, effects: Effects) -> None:
    """The run is over, its ledger closed, and its effects are those that the report knew of."""
    done = await run.ended(run_pb2.RUN_STATE_HALTED)
    before = effects.lines()
    # Whatever still waited for it would now go on at once.
    effects.let_go()
    steps = await client.runs.steps(done.name)
    assert all(step.outcome != run_pb2.STEP_OUTCOME_UNSPECIFIED for step in steps)
    end = asyncio.get_running_loop().time() + QUIET_SECONDS
    while asyncio.get_running_loop().time() < end:
        assert effects.lines() == before
        await asyncio.sleep(0.02)


async def test_a_halted_async_call_is_cancelled_and_reported(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk("asynchronous", [("hang", {"mark": mark})], [("free", {"mark": mark})])
    await effects.wait_for("start")
    latch = await client.latches.halt(run=run.name, reason="smoke")
    assert latch.state in (latch_pb2.LATCH_STATE_LATCHED, latch_pb2.LATCH_STATE_SETTLED)
    assert [step.tool for step in latch.steps] == ["hang"]
    report = await settled(client, latch)
    assert [step.status for step in report.steps] == [latch_pb2.LATCH_STEP_STATUS_FINISHED]
    assert effects.lines() == ["start", "cancelled"]
    await stays_halted(client, run, effects)


@pytest.mark.parametrize("tool", ["hang_sync", "spin", "grind"])
async def test_a_halted_sync_call_is_killed_and_reported(
    driver: Driver, client: Client, effects: Effects, tool: str
) -> None:
    mark = str(effects)
    run = await driver.talk("mixed", [(tool, {"mark": mark})], [("free", {"mark": mark})])
    await effects.wait_for("start")
    report = await settled(client, await client.latches.halt(run=run.name))
    assert [(step.tool, step.status) for step in report.steps] == [(tool, latch_pb2.LATCH_STEP_STATUS_KILLED)]
    assert effects.lines() == ["start"]
    await stays_halted(client, run, effects)


async def test_a_halt_between_two_calls_lets_no_second_one_start(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk("asynchronous", [("slow_pay", {"mark": mark})], [("free", {"mark": mark})])
    await effects.pid()
    await settled(client, await client.latches.halt(run=run.name))
    await stays_halted(client, run, effects)
    assert [line.split()[0] for line in effects.lines()] == ["start"]


async def test_halting_a_run_that_awaits_settles_at_once_and_cancels_its_questions(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 1})])
    (shown,) = await run.asked()
    latch = await client.latches.halt(run=run.name)
    assert latch.state == latch_pb2.LATCH_STATE_SETTLED
    assert not latch.steps
    assert (await client.approvals.get(shown.name)).state == approval_pb2.APPROVAL_STATE_CANCELLED
    with pytest.raises(FailedPreconditionError) as refused:
        await client.approvals.approve(shown)
    assert refused.value.reason in ("APPROVAL_DECIDED", "RUN_ENDED")
    await stays_halted(client, run, effects)
    assert effects.lines() == []


async def test_a_thread_whose_run_was_halted_can_be_used_again(
    driver: Driver, client: Client, effects: Effects, more_effects: Callable[[], Effects]
) -> None:
    run = await driver.talk("asynchronous", [("hang", {"mark": str(effects)})])
    await effects.wait_for("start")
    latch = await client.latches.halt(run=run.name)
    await settled(client, latch)
    await client.latches.release(latch.name)
    other = more_effects()
    again = await driver.talk("asynchronous", [("free", {"mark": str(other)})], thread=run.run.thread)
    assert [a["content"] for a in await again.answers()] == ["free"]


async def test_a_held_agent_queues_new_runs_and_a_halt_ends_them(
    driver: Driver, client: Client, effects: Effects
) -> None:
    await driver.plane.agent(client, "asynchronous")
    await client.latches.hold(agent="asynchronous")
    run = await driver.talk("asynchronous", [("free", {"mark": str(effects)})])
    assert run.run.state == run_pb2.RUN_STATE_QUEUED
    latch = await client.latches.halt(agent="asynchronous")
    assert latch.state == latch_pb2.LATCH_STATE_SETTLED
    assert run.name in latch.runs
    await stays_halted(client, run, effects)
    assert effects.lines() == []


async def test_a_released_hold_lets_a_queued_run_start(
    driver: Driver, client: Client, effects: Effects
) -> None:
    await driver.plane.agent(client, "asynchronous")
    latch = await client.latches.hold(agent="asynchronous")
    run = await driver.talk("asynchronous", [("free", {"mark": str(effects)})])
    assert (await client.runs.get(run.name)).state == run_pb2.RUN_STATE_QUEUED
    await client.latches.release(latch.name)
    assert [a["content"] for a in await run.answers()] == ["free"]


async def test_a_hold_lets_a_started_call_finish_and_stops_at_the_next(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk("asynchronous", [("slow_pay", {"mark": mark})], [("free", {"mark": mark})])
    await effects.pid()
    latch = await client.latches.hold(run=run.name, reason="wait a little")
    effects.let_go()
    await run.until("is held", lambda event: event.type == run_pb2.EVENT_TYPE_HELD)
    assert (await settled(client, latch)).runs == [run.name]
    assert [line.split()[0] for line in effects.lines()] == ["start", "end"]
    await client.latches.release(latch.name)
    assert [a["content"] for a in await run.answers()] == ["paid", "free"]
    assert [line.split()[0] for line in effects.lines()] == ["start", "end", "free"]


async def test_everything_is_held_and_goes_on_from_where_it_stopped(
    driver: Driver, client: Client, effects: Effects, more_effects: Callable[[], Effects]
) -> None:
    mark, other = str(effects), more_effects()
    run = await driver.talk("asynchronous", [("slow_pay", {"mark": mark})], [("free", {"mark": mark})])
    await effects.pid()
    latch = await client.latches.hold(everything=True)
    queued = await driver.talk("asynchronous", [("free", {"mark": str(other)})])
    effects.let_go()
    await run.until("is held", lambda event: event.type == run_pb2.EVENT_TYPE_HELD)
    assert (await client.runs.get(queued.name)).state == run_pb2.RUN_STATE_QUEUED
    assert other.lines() == []
    await client.latches.release(latch.name)
    await run.succeeded()
    await queued.succeeded()
    assert [line.split()[0] for line in effects.lines()] == ["start", "end", "free"]
    assert other.lines() == ["free"]


async def test_a_halt_does_not_settle_while_a_host_is_out_of_reach(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("slow_pay", {"mark": str(effects)})])
    host = await effects.pid()
    with out_of_reach((await driver.worker_of(run.name)).pid):
        latch = await client.latches.halt(run=run.name)
        assert latch.state == latch_pb2.LATCH_STATE_LATCHED
        assert [step.tool for step in latch.steps] == ["slow_pay"]
        async with asyncio.timeout(DEADLINE_SECONDS), aclosing(client.latches.watch(latch.name)) as reports:
            async for report in reports:
                assert report.state == latch_pb2.LATCH_STATE_LATCHED, "its host may still be at work"
                if report.steps[0].status == latch_pb2.LATCH_STEP_STATUS_UNREACHABLE:
                    break
        assert (await client.runs.get(run.name)).state == run_pb2.RUN_STATE_HALTING
        os.kill(host, 0)
    report = await settled(client, latch)
    assert report.steps[0].status != latch_pb2.LATCH_STEP_STATUS_UNREACHABLE
    await stays_halted(client, run, effects)


async def test_a_halt_settles_over_a_frozen_worker_and_its_other_runs_go_on_elsewhere(
    driver: Driver, client: Client, effects: Effects, more_effects: Callable[[], Effects]
) -> None:
    await driver.workers()
    other = more_effects()
    run = await driver.talk("asynchronous", [("slow_pay", {"mark": str(effects)})])
    host = await effects.pid()
    frozen = await driver.worker_of(run.name)
    beside = await driver.talk("asynchronous", [("slow_look", {"mark": str(other)})])
    while (await driver.worker_of(beside.name)).worker != frozen.worker:
        beside = await driver.talk("asynchronous", [("slow_look", {"mark": str(other)})])
    os.kill(frozen.pid, signal.SIGSTOP)
    latch = await client.latches.halt(run=run.name)
    report = await settled(client, latch)
    assert [step.status for step in report.steps] == [latch_pb2.LATCH_STEP_STATUS_KILLED]
    with pytest.raises(ProcessLookupError):
        os.kill(host, 0)
    other.let_go()
    assert [a["content"] for a in await beside.answers()] == ["42"]
    await stays_halted(client, run, effects)


async def test_a_latch_file_halts_what_runs_on_the_machine_and_lets_nothing_in_until_it_is_gone(
    driver: Driver, client: Client, effects: Effects, more_effects: Callable[[], Effects]
) -> None:
    marks = [more_effects() for _ in range(3)]
    runs = [
        await driver.talk("asynchronous", [("slow_pay", {"mark": str(marks[0])})]),
        await driver.talk("mixed", [("grind", {"mark": str(marks[1])})]),
        await driver.talk("asynchronous", [("pay", {"mark": str(marks[2]), "amount": 3})]),
    ]
    await marks[0].pid()
    await marks[1].wait_for("start")
    await runs[2].asked()
    file = driver.plane.data / "HALT"
    file.write_text("smoke in hall 2")
    try:
        for run, mark in zip(runs, marks, strict=True):
            ended = await run.ended(run_pb2.RUN_STATE_HALTED)
            latches = [latch for latch in await client.latches.list(limit=None) if ended.name in latch.runs]
            assert [latch.reason for latch in latches] == [f"smoke in hall 2 ({file})"]
            assert latches[0].created_by.startswith("the latch file of ")
            await stays_halted(client, run, mark)
        waiting = await driver.talk("asynchronous", [("free", {"mark": str(effects)})])
        assert (await client.runs.get(waiting.name)).state == run_pb2.RUN_STATE_QUEUED
        assert {worker.file_latch for worker in await client.workers.list()} == {f"smoke in hall 2 ({file})"}
    finally:
        file.unlink()
    assert [a["content"] for a in await waiting.answers()] == ["free"]


async def test_a_latch_file_is_obeyed_without_a_server_and_reported_when_it_is_back(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("slow_pay", {"mark": str(effects)})])
    host = await effects.pid()
    server = driver.plane.child(SERVER)
    os.kill(server, signal.SIGSTOP)
    file = driver.plane.data / "HALT"
    try:
        file.touch()

        async def dead() -> bool:
            return not alive(host)

        await eventually("the host is dead", dead, 1.0)
        effects.let_go()
    finally:
        os.kill(server, signal.SIGCONT)
        file.unlink()
    await stays_halted(client, run, effects)
    assert [line.split()[0] for line in effects.lines()] == ["start"]


def alive(pid: int) -> bool:
    return any(entry.pid == pid and not entry.is_zombie for entry in process_table())


async def test_a_decision_under_a_hold_counts_when_it_is_released(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 2})])
    (shown,) = await run.asked()
    latch = await client.latches.hold(run=run.name)
    await client.approvals.approve(shown)
    assert (await client.runs.get(run.name)).state == run_pb2.RUN_STATE_HELD
    assert effects.lines() == []
    await client.latches.release(latch.name)
    await run.succeeded()
    assert effects.lines() == ["pay 2 EUR"]


async def test_a_halted_agent_refuses_new_runs_until_it_is_released(
    driver: Driver, client: Client, effects: Effects, more_effects: Callable[[], Effects]
) -> None:
    other = more_effects()
    run = await driver.talk("asynchronous", [("hang", {"mark": str(effects)})])
    untouched = await driver.talk("mixed", [("slow_look", {"mark": str(other)})])
    await effects.wait_for("start")
    await other.pid()
    latch = await client.latches.halt(agent="asynchronous")
    report = await settled(client, latch)
    assert report.runs == [run.name]
    with pytest.raises(FailedPreconditionError) as refused:
        await driver.talk("asynchronous")
    assert refused.value.reason == "HALTED"
    other.let_go()
    await untouched.succeeded()
    await client.latches.release(latch.name)
    assert await (await driver.talk("asynchronous")).answers() == []


async def test_everything_is_halted_at_once(
    driver: Driver, client: Client, more_effects: Callable[[], Effects]
) -> None:
    marks = [more_effects() for _ in range(4)]
    runs = [
        await driver.talk("asynchronous", [("hang", {"mark": str(marks[0])})]),
        await driver.talk("mixed", [("hang_sync", {"mark": str(marks[1])})]),
        await driver.talk("asynchronous", [("pay", {"mark": str(marks[2]), "amount": 3})]),
        await driver.start("inside", {"how": "tool", "mark": str(marks[3])}),
    ]
    await marks[0].wait_for("start")
    await marks[1].wait_for("start")
    await runs[2].asked()
    await runs[3].asked()
    latch = await client.latches.halt(everything=True, reason="fire drill")
    report = await settled(client, latch)
    assert {step.tool for step in report.steps} == {"hang", "hang_sync"}
    assert set(report.runs) >= {run.name for run in runs}
    for run, mark in zip(runs, marks, strict=True):
        await stays_halted(client, run, mark)
    for agent in ("asynchronous", "mixed"):
        with pytest.raises(FailedPreconditionError) as refused:
            await driver.talk(agent)
        assert refused.value.reason == "HALTED"
    await client.latches.release(latch.name)
    await (await driver.talk("mixed")).succeeded()


async def test_a_halted_tool_is_refused_and_the_run_goes_on(
    driver: Driver, client: Client, effects: Effects
) -> None:
    latch = await client.latches.halt(tool="free")
    run = await driver.talk(
        "asynchronous", [("free", {"mark": str(effects)}), ("look", {"mark": str(effects)})]
    )
    answers = await run.answers()
    assert [a["status"] for a in answers] == ["error", "success"]
    assert effects.lines() == ["look"]
    await client.latches.release(latch.name)


async def test_a_latch_outlives_the_server(driver: Driver, client: Client, effects: Effects) -> None:
    await driver.plane.agent(client, "asynchronous")
    latch = await client.latches.halt(agent="asynchronous")
    driver.plane.kill(SERVER)
    with pytest.raises(FailedPreconditionError) as refused:
        await driver.talk("asynchronous", [("free", {"mark": str(effects)})])
    assert refused.value.reason == "HALTED"
    assert (await client.latches.get(latch.name)).state == latch_pb2.LATCH_STATE_SETTLED
    assert effects.lines() == []
