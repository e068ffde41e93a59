"""Nothing is lost and nothing comes twice: bot, server and workspace are killed in the middle, and requests are forged."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import signal
import time
from collections import Counter
from typing import Any

import aiohttp
import pytest
from tests.e2e.slack.conftest import BotProcess, Scene
from tests.e2e.slack.emulator import BOT, CHANNEL, button, text_of

from fermata.bots.slack.shown import marker_of
from fermata.server.up.proc import process_table
from fermata.v1 import run_pb2

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SECRET = "test-signing-secret"


async def test_a_bot_that_was_killed_goes_on_with_its_messages_where_they_are(scene: Scene) -> None:
    thread = await scene.slack.say("U1", f"<@{BOT}> set line 2 to 1250 rpm")
    card = await scene.card(thread, "set_speed")
    approval = await scene.approval(card)
    scene.bot.kill()
    try:
        # Decided elsewhere while no bot is there.
        await scene.client.approvals.approve(approval)
        await scene.client.runs.wait(approval.run)
        assert "approved" not in text_of(await scene.now(card))
    finally:
        scene.bot.start()
    await scene.slack.seen(
        "the card is the record", lambda one: one["ts"] == card["ts"] and "approved by local" in text_of(one)
    )
    answer = marker_of(f"{approval.run}/answer")
    await scene.slack.seen("the answer", lambda one: _marker(one) == answer, thread=thread)
    assert (await scene.client.runs.wait(approval.run)).state == run_pb2.RUN_STATE_SUCCEEDED
    await _require_no_twins(scene, thread)


async def test_a_server_that_is_killed_between_card_and_click_is_waited_for(scene: Scene) -> None:
    thread = await scene.slack.say("U1", f"<@{BOT}> set line 2 to 1260 rpm")
    card = await scene.card(thread, "set_speed")
    approval = await scene.approval(card)
    writes = await scene.factory.writes()
    supervisor = scene.factory.plane.process.pid
    (server,) = [
        entry.pid
        for entry in process_table()
        if entry.parent == supervisor and "fermata.server\0--data" in _command(entry.pid)
    ]
    os.kill(server, signal.SIGKILL)
    await scene.slack.press("U1", card, "approval.approve")
    ended = await scene.client.runs.wait(approval.run)
    assert ended.state == run_pb2.RUN_STATE_SUCCEEDED
    assert await scene.factory.writes() == writes + 1
    await scene.slack.seen(
        "the record", lambda one: one["ts"] == card["ts"] and "approved by ann" in text_of(one)
    )
    answer = marker_of(f"{approval.run}/answer")
    await scene.slack.seen("the answer", lambda one: _marker(one) == answer, thread=thread)
    await _require_no_twins(scene, thread)


async def test_two_bots_in_one_workspace_are_as_one(fresh_scene: Scene) -> None:
    # The emulator tells each connection of everything, so both do all of it.
    second = BotProcess(fresh_scene.bot.command, fresh_scene.bot.environment, fresh_scene.bot.said)
    second.start()
    try:
        thread = await fresh_scene.slack.say("U1", f"<@{BOT}> set line 2 to 1280 rpm")
        card = await fresh_scene.card(thread, "set_speed")
        approval = await fresh_scene.approval(card)
        writes = await fresh_scene.factory.writes()
        await fresh_scene.slack.press("U1", card, "approval.approve")
        ended = await fresh_scene.client.runs.wait(approval.run)
        assert ended.state == run_pb2.RUN_STATE_SUCCEEDED
        assert await fresh_scene.factory.writes() == writes + 1
        answer = marker_of(f"{approval.run}/answer")
        await fresh_scene.slack.seen("the answer", lambda one: _marker(one) == answer, thread=thread)
        assert len(await fresh_scene.client.runs.list(thread=ended.thread)) == 1
        assert not [one for one in await fresh_scene.slack.messages() if one.get("ephemeral_to")]
    finally:
        assert second.stop() == 0
    await _require_no_twins(fresh_scene, thread)


async def test_one_message_is_one_run_however_often_it_is_told(http_scene: Scene) -> None:
    ts = f"{time.time():.6f}"
    event = {
        "type": "app_mention",
        "user": "U1",
        "channel": CHANNEL,
        "ts": ts,
        "text": f"<@{BOT}> how is line 1?",
    }
    told = [_envelope(event, event_id) for event_id in ("Ev1", "Ev1", "Ev2")]
    answers = await asyncio.gather(*(_send(http_scene, body) for body in told))
    assert answers == [200, 200, 200]
    place = await http_scene.client.surfaces.place_at("slack", team="T0HTTP", channel=CHANNEL, message=ts)
    assert len(await http_scene.client.runs.list(thread=place.thread)) == 1


@pytest.fixture
def untouched() -> dict[str, Any]:
    """An event that would start a run if it counted."""
    return {
        "type": "app_mention",
        "user": "U1",
        "channel": CHANNEL,
        "ts": f"{time.time():.6f}",
        "text": f"<@{BOT}> set line 1 to 900 rpm",
    }


async def _require_nothing_began(scene: Scene, event: dict[str, Any]) -> None:
    from fermata.client import NotFoundError

    with pytest.raises(NotFoundError):
        await scene.client.surfaces.place_at("slack", team="T0HTTP", channel=CHANNEL, message=event["ts"])


async def test_a_forged_stale_or_altered_request_is_refused(
    http_scene: Scene, untouched: dict[str, Any]
) -> None:
    body = _envelope(untouched, "Ev9")
    assert await _send(http_scene, body, secret="another") == 401
    assert await _send(http_scene, body, age=301) == 401
    assert await _send(http_scene, body, age=-301) == 401
    assert await _send(http_scene, body, altered=body.replace(b"900", b"950")) == 401
    assert await _send(http_scene, body, signed=False) == 401
    await _require_nothing_began(http_scene, untouched)


async def test_an_oversized_request_is_refused(http_scene: Scene, untouched: dict[str, Any]) -> None:
    body = _envelope(untouched | {"padding": "x" * 1_200_000}, "Ev10")
    assert await _send(http_scene, body) == 413
    await _require_nothing_began(http_scene, untouched)


async def test_what_another_team_signs_is_left_alone(http_scene: Scene, untouched: dict[str, Any]) -> None:
    await _send(http_scene, _envelope(untouched, "Ev11", team="T0OTHER"))
    await _require_nothing_began(http_scene, untouched)


async def test_a_stale_button_decides_nothing(scene: Scene) -> None:
    thread = await scene.slack.say("U1", f"<@{BOT}> set line 2 to 1270 rpm")
    card = await scene.card(thread, "set_speed")
    approval = await scene.approval(card)
    approve = button(card, "approval.approve")
    assert approve is not None
    name, digest = str(approve["value"]).split(":")
    await scene.slack.press_shown("U1", card, approve | {"value": f"{name}:{digest[::-1]}"})
    await scene.told("U1", "has changed since")
    await scene.slack.press("U1", card, "approval.halt")
    await scene.client.runs.wait(approval.run)
    await scene.slack.press_shown("U1", card, approve)
    await scene.told("U1", "Too late")


def _marker(message: dict[str, Any]) -> str:
    blocks = message.get("blocks") or [{}]
    return str(blocks[0].get("block_id") or "")


async def _require_no_twins(scene: Scene, thread: str) -> None:
    found = Counter(filter(None, (_marker(one) for one in await scene.slack.messages(thread=thread))))
    assert found
    assert max(found.values()) == 1, found


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as opened:
            return opened.read()
    except OSError:
        return ""


def _envelope(event: dict[str, Any], event_id: str, team: str = "T0HTTP") -> bytes:
    return json.dumps(
        {
            "type": "event_callback",
            "team_id": team,
            "api_app_id": "A01APP",
            "event_id": event_id,
            "event": event,
        }
    ).encode()


async def _send(
    scene: Scene,
    body: bytes,
    *,
    secret: str = SECRET,
    age: float = 0.0,
    altered: bytes = b"",
    signed: bool = True,
) -> int:
    """Send a request as Slack signs it, or nearly so; returns the status."""
    stamp = str(int(time.time() - age))
    digest = hmac.new(secret.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json"}
    if signed:
        headers |= {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={digest}"}
    url = f"http://127.0.0.1:{scene.bot.ready['port']}/slack/events"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, data=altered or body, headers=headers) as answer,
    ):
        return answer.status


async def test_a_check_tries_the_tokens_and_the_bot_answers_for_its_health(fresh_scene: Scene) -> None:
    command = [word for word in fresh_scene.bot.command if word != "--json"]
    tried = await asyncio.create_subprocess_exec(
        *command, "--check",
        env={**os.environ, **fresh_scene.bot.environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, trouble = await tried.communicate()
    assert tried.returncode == 0, trouble.decode()
    for words in (
        "Slack takes the bot token",
        "Socket Mode is on",
        "principals/slack",
        "no right to decide by itself",
    ):
        assert words in said.decode()
    # The emulator does not say which scopes a token has; that is told, and not taken for a yes.
    assert "? its scopes" in said.decode()
    assert "xoxb" not in said.decode() + trouble.decode()
    healthy = BotProcess(
        [*fresh_scene.bot.command, "--health-port", "0"], fresh_scene.bot.environment, fresh_scene.bot.said
    )
    healthy.start()
    try:
        url = f"http://127.0.0.1:{healthy.ready['health_port']}/healthz"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            assert answer.status == 200
            assert (await answer.json())["ok"] is True
    finally:
        assert healthy.stop() == 0
