"""Killed workers, hosts and servers: runs go on, and what may have happened is never simply done again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable
from contextlib import aclosing
from pathlib import Path

import pytest
from google.protobuf import json_format
from tests.integration.plane.harness import SERVER, Driver, Effects, Plane, Watched, eventually, out_of_reach

import fermata.agents.factory
from fermata.agents.factory.client import PLANT_URL_VARIABLE
from fermata.client import Client, FermataError
from fermata.client.bundle import read
from fermata.server.up.proc import process_table
from fermata.v1 import approval_pb2, run_pb2

pytestmark = pytest.mark.ray


async def kill_worker(driver: Driver, run: Watched) -> str:
    """kill -9 the worker of a run, once all are there, so that another can take over."""
    await driver.workers()
    worker = await driver.worker_of(run.name)
    os.kill(worker.pid, signal.SIGKILL)
    return worker.worker


async def test_reads_and_idempotent_calls_are_repeated_after_their_worker_was_killed(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk(
        "asynchronous", [("slow_look", {"mark": mark}), ("slow_put", {"mark": mark, "value": 5})]
    )
    await effects.wait_for("start", 2)
    victim = await kill_worker(driver, run)
    await effects.wait_for("start", 4)
    effects.let_go()
    assert [a["content"] for a in await run.answers()] == ["42", "is 5"]
    assert sorted(line.split()[0] for line in effects.lines()) == ["end"] * 2 + ["start"] * 4
    assert run.run.epoch == 2
    assert run.run.worker != victim
    steps = [step for step in await client.runs.steps(run.name) if step.kind == "tool"]
    assert [step.attempt for step in steps] == [2, 2]


@pytest.mark.parametrize("tool", ["transfer", "transfer_sync"])
async def test_an_idempotent_call_is_repeated_with_the_key_that_it_had(
    driver: Driver, effects: Effects, tool: str
) -> None:
    mark = str(effects)
    run = await driver.talk(
        "keyed", [(tool, {"mark": mark, "amount": 5})], [(tool, {"mark": mark, "amount": 5})]
    )
    os.kill(await effects.pid(), signal.SIGKILL)
    await effects.wait_for("start", 2)
    effects.let_go()
    assert [a["content"] for a in await run.answers()] == ["booked 5", "booked 5"]
    started = [line.split()[2:] for line in effects.lines() if line.startswith("start")]
    keys = [key for key, _ in started]
    assert [attempt for _, attempt in started] == ["1", "2", "1"]
    assert keys[0] == keys[1] != keys[2], "one key for all attempts at a step, and another for the next step"
    assert all(keys)
    assert [line.split()[1] for line in effects.lines() if line.startswith("book")] == keys[1:]


@pytest.mark.parametrize("decision", ["IT_HAPPENED", "DO_AGAIN", "GIVE_UP"])
async def test_an_unsafe_call_becomes_a_question_after_its_worker_was_killed(
    driver: Driver, client: Client, effects: Effects, decision: str
) -> None:
    run = await driver.talk("asynchronous", [("slow_pay", {"mark": str(effects)})])
    await effects.pid()
    await kill_worker(driver, run)
    (shown,) = await run.asked()
    assert shown.kind == approval_pb2.APPROVAL_KIND_RECOVERY
    assert shown.tool == "slow_pay"
    assert json_format.MessageToDict(shown.question)["host_confirmed_dead"] is True
    assert approval_pb2.DECISION_DO_AGAIN in shown.allowed_decisions
    assert len(effects.lines()) == 1, "nothing is repeated unasked"
    effects.let_go()
    await client.approvals.decide(
        shown.name,
        approval_pb2.Decision.Value(f"DECISION_{decision}"),
        digest=shown.digest,
        value="receipt 17" if decision == "IT_HAPPENED" else None,
    )
    (answer,) = await run.answers()
    did = [line.split()[0] for line in effects.lines()]
    match decision:
        case "IT_HAPPENED":
            assert answer["content"] == "receipt 17"
            assert did == ["start"]
        case "DO_AGAIN":
            assert answer["content"] == "paid"
            assert did == ["start", "start", "end"]
        case _:
            assert answer["status"] == "error"
            assert did == ["start"]


@pytest.mark.parametrize("agent", ["asynchronous", "mixed"])
async def test_a_killed_host_is_replaced_and_an_unsafe_call_is_not_repeated(
    driver: Driver, client: Client, effects: Effects, agent: str
) -> None:
    run = await driver.talk(agent, [("slow_pay", {"mark": str(effects)})])
    os.kill(await effects.pid(), signal.SIGKILL)
    (shown,) = await run.asked()
    assert shown.kind == approval_pb2.APPROVAL_KIND_RECOVERY
    effects.let_go()
    await client.approvals.decide(shown.name, approval_pb2.DECISION_DO_AGAIN, digest=shown.digest)
    assert [a["content"] for a in await run.answers()] == ["paid"]
    assert [line.split()[0] for line in effects.lines()] == ["start", "start", "end"]


async def test_a_killed_host_of_a_read_goes_on_by_itself(driver: Driver, effects: Effects) -> None:
    run = await driver.talk("mixed", [("slow_look", {"mark": str(effects)})])
    os.kill(await effects.pid(), signal.SIGKILL)
    effects.let_go()
    assert [a["content"] for a in await run.answers()] == ["42"]


async def test_a_worker_killed_while_a_run_awaits_changes_nothing_for_the_person(
    driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk("asynchronous", [("free", {"mark": mark}), ("pay", {"mark": mark, "amount": 12})])
    (shown,) = await run.asked()
    await kill_worker(driver, run)
    await client.approvals.approve(shown)
    assert [a["content"] for a in await run.answers()] == ["free", "paid 12 EUR"]
    assert effects.lines() == ["free", "pay 12 EUR"]


async def kill_server(plane: Plane) -> None:
    old = plane.kill(SERVER)

    async def another() -> bool:
        try:
            return plane.child(SERVER) != old
        except AssertionError:
            return False

    await eventually("the supervisor has started another server", another)


async def test_a_run_that_awaits_goes_on_after_the_server_was_killed(
    plane: Plane, driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 13})])
    (shown,) = await run.asked()
    await kill_server(plane)
    assert (await client.approvals.get(shown.name)).state == approval_pb2.APPROVAL_STATE_PENDING
    await client.approvals.approve(shown)
    assert [a["content"] for a in await run.answers()] == ["paid 13 EUR"]
    assert effects.lines() == ["pay 13 EUR"]


async def test_running_calls_outlive_the_server_and_are_not_repeated(
    plane: Plane, driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk("asynchronous", [("slow_pay", {"mark": mark})], [("free", {"mark": mark})])
    await effects.pid()
    old = plane.kill(SERVER)
    effects.let_go()
    await effects.wait_for("end")
    assert [a["content"] for a in await run.answers()] == ["paid", "free"]
    assert [line.split()[0] for line in effects.lines()] == ["start", "end", "free"]
    assert run.run.epoch == 1, "its worker has kept the lease"
    assert plane.child(SERVER) != old


async def test_a_watch_goes_on_over_a_server_that_was_killed_without_gap_or_duplicate(
    plane: Plane, driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk(
        "asynchronous",
        [("free", {"mark": mark})],
        [("slow_look", {"mark": mark})],
        [("free", {"mark": mark})],
    )
    await run.started("slow_look")
    watched_before = len(run.events)
    assert run.cursor
    plane.kill(SERVER)
    effects.let_go()
    await run.until("ends", lambda event: event.type == run_pb2.EVENT_TYPE_SUCCEEDED)
    assert len(run.events) > watched_before
    assert [event.sequence for event in run.events] == list(range(1, len(run.events) + 1))
    assert list(await client.runs.events(run.name)) == run.events


async def test_watches_of_everything_go_on_from_a_cursor_over_a_server_that_was_killed(
    plane: Plane, driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    runs: dict[str, list[int]] = {}
    cursor = ""
    first = await driver.talk("asynchronous", [("slow_look", {"mark": mark})])
    async with aclosing(client.runs.watch(thread=first.run.thread)) as items:
        async for item in items:
            runs.setdefault(item.event.run, []).append(item.event.sequence)
            cursor = item.cursor
            if item.event.type == run_pb2.EVENT_TYPE_STEP_STARTED:
                break
    plane.kill(SERVER)
    effects.let_go()
    await first.succeeded()
    second = await driver.talk("asynchronous", [("look", {"mark": mark})], thread=first.run.thread)
    await second.succeeded()
    async with (
        asyncio.timeout(30),
        aclosing(client.runs.watch(thread=first.run.thread, cursor=cursor)) as items,
    ):
        async for item in items:
            runs.setdefault(item.event.run, []).append(item.event.sequence)
            if item.event.run == second.name and item.event.type == run_pb2.EVENT_TYPE_SUCCEEDED:
                break
    for run in (first, second):
        stored = [event.sequence for event in await client.runs.events(run.name)]
        assert runs[run.name] == stored == list(range(1, len(stored) + 1))


async def test_an_agent_says_so_where_the_plant_is_gone(client: Client, driver: Driver) -> None:
    environment = {PLANT_URL_VARIABLE: "opc.tcp://127.0.0.1:1/"}
    (bundle,) = read(Path(fermata.agents.factory.__file__).parent / "agent.yaml", environment)
    await client.collections.ingest("factory", "note.md", "# Lines\n\nThere are four lines.\n")
    await client.agents.apply("operator", bundle.spec, pack=bundle.pack)
    run = Watched(client, await client.runs.create("operator", "read line 3"))
    done = await run.ended()
    assert "plant" in (done.answer + done.error.message).lower(), (done, await run.history())
    assert "127.0.0.1:1" in done.answer + done.error.message


async def test_a_zombies_outcome_is_taken_and_its_call_is_not_repeated(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("slow_pay", {"mark": str(effects)})])
    await effects.pid()
    await driver.workers()
    with out_of_reach((await driver.worker_of(run.name)).pid):
        (shown,) = await run.asked()
        assert shown.kind == approval_pb2.APPROVAL_KIND_RECOVERY
        assert approval_pb2.DECISION_DO_AGAIN not in shown.allowed_decisions, "its host may still be at work"
        error = await refused(
            client.approvals.decide(shown.name, approval_pb2.DECISION_DO_AGAIN, digest=shown.digest)
        )
        assert error.reason == "DECISION_NOT_ALLOWED"
        effects.let_go()
        await effects.wait_for("end")

    async def known() -> bool:
        steps = await client.runs.steps(run.name)
        return any(step.outcome == run_pb2.STEP_OUTCOME_FINISHED for step in steps if step.tool == "slow_pay")

    await eventually("the zombie has reported its outcome", known)
    assert [a["content"] for a in await run.answers()] == ["paid"]
    assert [line.split()[0] for line in effects.lines()] == ["start", "end"]


async def test_a_worker_ends_with_its_warden_and_its_runs_go_on(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("slow_look", {"mark": str(effects)})])
    host = await effects.pid()
    worker = await driver.worker_of(run.name)
    (warden,) = [entry.pid for entry in process_table() if entry.parent == worker.pid]
    os.kill(warden, signal.SIGKILL)
    assert await effects.pid(2) != host
    effects.let_go()
    assert [a["content"] for a in await run.answers()] == ["42"]
    await driver.workers()


async def test_a_question_about_what_happened_outlives_a_halt(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("slow_pay", {"mark": str(effects)})])
    os.kill(await effects.pid(), signal.SIGKILL)
    (shown,) = await run.asked()
    assert shown.kind == approval_pb2.APPROVAL_KIND_RECOVERY
    latch = await client.latches.halt(run=run.name)
    await run.ended(run_pb2.RUN_STATE_HALTED)
    assert (await client.approvals.get(shown.name)).state == approval_pb2.APPROVAL_STATE_PENDING
    await client.approvals.decide(
        shown.name, approval_pb2.DECISION_IT_HAPPENED, digest=shown.digest, value="receipt 18"
    )
    (step,) = [step for step in await client.runs.steps(run.name) if step.kind == "tool"]
    assert step.outcome == run_pb2.STEP_OUTCOME_CONFIRMED
    assert len(effects.lines()) == 1
    await client.latches.release(latch.name)


async def test_server_and_worker_killed_together_lose_nothing(
    plane: Plane, driver: Driver, client: Client, effects: Effects
) -> None:
    mark = str(effects)
    run = await driver.talk(
        "asynchronous",
        [("free", {"mark": mark})],
        [("slow_look", {"mark": mark})],
        [("free", {"mark": mark})],
    )
    await effects.pid()
    await driver.workers()
    worker = await driver.worker_of(run.name)
    plane.kill(SERVER)
    os.kill(worker.pid, signal.SIGKILL)
    effects.let_go()
    assert [a["content"] for a in await run.answers()] == ["free", "42", "free"]
    assert effects.lines().count("free") == 2


async def refused(call: Awaitable[object]) -> FermataError:
    with pytest.raises(FermataError) as caught:
        await call
    return caught.value
