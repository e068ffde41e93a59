"""The factory story, played in Slack: by mention and by direct message, in Socket Mode and over HTTP, by people with other rights."""

from __future__ import annotations

import asyncio

import pytest
from tests.e2e.slack.conftest import Scene
from tests.e2e.slack.emulator import BOT, Workspace, button, text_of

from fermata.client.runs import TERMINAL_STATES
from fermata.v1 import approval_pb2, run_pb2

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

QUESTION = "What is the alarm limit for vibration, and what is the usual cause when a line is above it?"
QUIET_SECONDS = 3.0


async def _ask(slack: Workspace, text: str, user: str = "U1") -> str:
    return await slack.say(user, f"<@{BOT}> {text}")


async def test_a_question_is_answered_in_its_thread_with_citations(scene: Scene) -> None:
    thread = await _ask(scene.slack, QUESTION)
    answer = await scene.slack.seen("the answer", lambda one: "7.1" in text_of(one), thread=thread)
    assert "bearing" in text_of(answer)
    assert "manuals/" in text_of(answer) or "runbooks/" in text_of(answer)
    progress = await scene.slack.seen("it is done", lambda one: "done" in text_of(one), thread=thread)
    assert button(progress, "run.halt") is None
    # One thread there is one thread here: what is said in it goes on with the same conversation.
    again = await scene.slack.say("U1", "What is the warning limit for vibration?", thread=thread)
    await scene.slack.seen(
        "a second answer", lambda one: "4.5" in text_of(one) and one["ts"] > again, thread=thread
    )
    first, second = await scene.client.runs.list(limit=2)
    assert first.thread == second.thread
    assert first.on_behalf_of.endswith("/ann")
    assert first.requested_by.endswith("/slack")


async def test_an_edit_is_checked_by_schema_and_policy_and_done_as_edited(scene: Scene) -> None:
    thread = await _ask(scene.slack, "line 3 vibrates badly, deal with it")
    card = await scene.card(thread, "set_speed")
    said = text_of(card)
    for part in ("operator", "line-3", "rpm", "Why", "7.1 mm/s", "medium", "changes something", "approver"):
        assert part in said
    shown = button(card, "approval.approve")
    assert shown is not None
    approval = await scene.approval(card)
    # Behind the button are the approval's id and the digest, and nothing of the arguments.
    assert shown["value"] == f"{approval.name.rsplit('/', 1)[1]}:{approval.digest}"
    await scene.slack.press("U1", card, "approval.edit")
    form = await scene.slack.modal()
    labels = {
        block["label"]["text"]: block["block_id"] for block in form["blocks"] if block["type"] == "input"
    }
    line, rpm = labels["line"], labels["rpm"]
    for value, why in (("fast", "integer"), ("4000", "maximum"), ("2900", "2800")):
        await scene.slack.submit("U1", {line: "line-3", rpm: value})
        errors = await scene.slack.until("the form says what is wrong", lambda: scene.slack.errors[-1:])
        assert why in str(errors[0])
    await scene.slack.submit("U1", {line: "line-3", rpm: "1100"})
    await scene.slack.seen("it is verified", lambda one: "verified" in text_of(one).lower(), thread=thread)
    assert abs(float(str((await scene.factory.line("line-3"))["speed_setpoint_rpm"])) - 1100) < 1
    record = text_of(await scene.now(card))
    assert "approved with other arguments by ann" in record
    assert "1100" in record
    decided = await scene.client.approvals.get(approval.name)
    assert decided.decided_by.endswith("/slack")
    assert decided.on_behalf_of.endswith("/ann")


async def test_a_rejection_reaches_the_agent_with_its_reason_and_a_stranger_changes_nothing(
    scene: Scene,
) -> None:
    writes = await scene.factory.writes()
    thread = await _ask(scene.slack, "stop line 2, please")
    card = await scene.card(thread, "stop_line")
    for user, word in (("U2", "not linked"), ("U3", "may not")):
        await scene.slack.press(user, card, "approval.approve")
        await scene.told(user, word)
        await scene.slack.press(user, card, "approval.halt")
    approval = await scene.approval(card)
    assert approval.state == approval_pb2.APPROVAL_STATE_PENDING
    assert not [latch for latch in await scene.client.latches.list() if latch.scope.run == approval.run]
    await scene.slack.press("U1", card, "approval.reject")
    await scene.slack.modal()
    await scene.slack.submit("U1", {"text": "not during the shift; slow it down to 1200 rpm instead"})
    instead = await scene.card(thread, "set_speed")
    assert "rejected by ann: not during the shift" in text_of(await scene.now(card))
    await scene.slack.press("U4", instead, "approval.approve")
    run = await scene.client.runs.wait(approval.run)
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED
    assert await scene.factory.writes() == writes + 1
    line = await scene.factory.line("line-2")
    assert line["state"] == "RUNNING"
    assert abs(float(str(line["speed_setpoint_rpm"])) - 1200) < 1
    await scene.slack.seen("the record", lambda one: "approved by bob" in text_of(one), thread=thread)


async def test_a_stranger_who_talks_is_told_so_in_private_and_nothing_begins(scene: Scene) -> None:
    before = len(await scene.client.runs.list(limit=None))
    thread = await _ask(scene.slack, "set line 1 to 900 rpm", user="U2")
    await scene.told("U2", "not linked")
    assert [
        one["ts"] for one in await scene.slack.messages(thread=thread) if not one.get("ephemeral_to")
    ] == [thread]
    assert len(await scene.client.runs.list(limit=None)) == before


async def test_a_halt_in_the_middle_of_a_write_settles_and_nothing_is_written_after(scene: Scene) -> None:
    thread = await _ask(scene.slack, "set line 1 to 1250 rpm, then set line 4 to 1250 rpm")
    card = await scene.card(thread, "set_speed")
    run = (await scene.approval(card)).run
    await scene.slack.press("U1", card, "approval.approve")
    progress = await scene.slack.seen(
        "the run's message", lambda one: button(one, "run.halt") is not None, thread=thread
    )

    async def begun() -> bool:
        events = await scene.client.runs.events(run)
        return any(event.type == run_pb2.EVENT_TYPE_STEP_STARTED for event in events)

    await scene.slack.eventually("the write has begun", begun)
    await scene.slack.press("U1", progress, "run.halt")
    report = await scene.slack.seen(
        "it has settled",
        lambda one: "settled in" in text_of(one) or "settled at once" in text_of(one),
        thread=thread,
    )
    assert "ms" in text_of(report)
    assert "set_speed: " in text_of(report)
    ended = await scene.client.runs.wait(run)
    assert ended.state == run_pb2.RUN_STATE_HALTED
    writes = await scene.factory.writes()
    await asyncio.sleep(QUIET_SECONDS)
    assert await scene.factory.writes() == writes
    assert abs(float(str((await scene.factory.line("line-4"))["speed_setpoint_rpm"])) - 1250) > 1
    latch = next(one for one in await scene.client.latches.list(show_released=True) if one.scope.run == run)
    assert latch.on_behalf_of.endswith("/ann")


async def test_stop_in_the_thread_halts_what_waits_there(scene: Scene) -> None:
    thread = await _ask(scene.slack, "stop line 4, please")
    card = await scene.card(thread, "stop_line")
    approval = await scene.approval(card)
    await scene.slack.say("U1", "stop!", thread=thread)
    await scene.slack.seen("it has settled", lambda one: "settled" in text_of(one), thread=thread)
    assert (await scene.client.runs.wait(approval.run)).state == run_pb2.RUN_STATE_HALTED
    await scene.slack.seen("the card is closed", lambda one: "cancelled" in text_of(one), thread=thread)


async def test_of_clicks_at_the_same_moment_one_counts(scene: Scene) -> None:
    thread = await _ask(scene.slack, "set line 2 to 1300 rpm")
    card = await scene.card(thread, "set_speed")
    approval = await scene.approval(card)
    writes = await scene.factory.writes()
    await asyncio.gather(
        *(scene.slack.press(user, card, "approval.approve") for user in ("U1", "U4", "U1", "U4"))
    )
    assert (await scene.client.runs.wait(approval.run)).state == run_pb2.RUN_STATE_SUCCEEDED
    assert await scene.factory.writes() == writes + 1
    decided = [
        event
        for event in await scene.client.runs.events(approval.run)
        if event.type == run_pb2.EVENT_TYPE_APPROVAL_DECIDED
    ]
    assert len(decided) == 1


async def test_the_story_by_direct_message_over_signed_requests(http_scene: Scene) -> None:
    slack = http_scene.slack
    channel = await slack.direct("U1")
    await slack.say("U1", QUESTION, channel=channel)
    await slack.seen(
        "the answer", lambda one: "7.1" in text_of(one) and "bearing" in text_of(one), channel=channel
    )
    await slack.say("U1", "set line 4 to 1350 rpm", channel=channel)
    card = await http_scene.card("", "set_speed", channel=channel)
    approval = await http_scene.approval(card)
    await slack.press("U2", card, "approval.approve")
    await slack.seen("a notice", lambda one: "not linked" in text_of(one), channel=channel)
    await slack.press("U1", card, "approval.approve")
    run = await http_scene.client.runs.wait(approval.run)
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED
    assert abs(float(str((await http_scene.factory.line("line-4"))["speed_setpoint_rpm"])) - 1350) < 1
    await slack.seen("the record", lambda one: "approved by ann" in text_of(one), channel=channel)


async def test_the_command_links_lists_halts_and_releases(scene: Scene) -> None:
    slack = scene.slack
    await slack.command("U1", "help")
    await scene.told("U1", "/fermata halt")
    await slack.command("U2", "runs")
    await scene.told("U2", "not linked")
    await slack.command("U1", "agents")
    await scene.told("U1", "Runs the four lines")
    await slack.command("U1", "halt operator")
    report = await slack.seen(
        "the halt is told", lambda one: "agent operator" in text_of(one) and "settled" in text_of(one)
    )
    await _ask(slack, "how is line 1?")
    await scene.told("U1", "A halt covers this")
    await slack.press("U1", report, "latch.release")
    await slack.seen("it is lifted", lambda one: one["ts"] == report["ts"] and "released" in text_of(one))
    await slack.command("U1", "run operator how is line 1?")
    await slack.seen("an answer", lambda one: "line-1" in text_of(one) and "RUNNING" in text_of(one))
    active = [run for run in await scene.client.runs.list(limit=None) if run.state not in TERMINAL_STATES]
    await asyncio.gather(*(scene.client.runs.wait(run.name) for run in active))


async def test_a_code_links_an_account_to_who_redeems_it(http_scene: Scene) -> None:
    slack = http_scene.slack
    await slack.command("U2", "link")
    notice = await http_scene.told("U2", "fermata link")
    code = text_of(notice).split("fermata link ")[1].split("`")[0]
    from fermata.client import Client

    async with Client(http_scene.factory.connection(http_scene.factory.people_tokens["vic"])) as vic:
        link = await vic.surfaces.redeem(code)
    assert link.name.endswith("slack.T0HTTP.U2")
    home = await slack.open_home("U2")
    assert "You are `vic`" in str(home)
    await http_scene.client.surfaces.unlink(link.name)


async def test_app_home_shows_what_waits_and_halts_it(scene: Scene) -> None:
    assert "not linked" in str(await scene.slack.open_home("U2"))
    thread = await _ask(scene.slack, "stop line 1, please")
    card = await scene.card(thread, "stop_line")
    approval = await scene.approval(card)
    home = str(await scene.slack.open_home("U1"))
    assert "stop_line" in home
    assert approval.run.rsplit("/", 1)[1] in home
    await scene.slack.press("U1", card, "approval.halt")
    assert (await scene.client.runs.wait(approval.run)).state == run_pb2.RUN_STATE_HALTED
