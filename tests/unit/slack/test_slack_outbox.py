"""Messages reach Slack at least once, one a subject, the latest state only, at the pace that Slack allows."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.errors import SlackApiError

from fermata.bots.slack import blocks
from fermata.bots.slack import outbox as module
from fermata.bots.slack.outbox import Outbox
from fermata.bots.slack.pace import Pace
from fermata.bots.slack.shown import PEOPLE, STOPPING, Shown, marker_of
from fermata.client import AbortedError, UnavailableError
from fermata.v1 import surface_pb2

PLACE = surface_pb2.Place(
    name="tenants/default/places/p", surface="slack", team="T1", channel="C1", message="1.0"
)


class Answer(dict[str, Any]):
    """What Slack's client answers with."""

    headers: dict[str, str]

    def __init__(self, headers: dict[str, str] | None = None, **facts: Any) -> None:
        super().__init__(facts)
        self.headers = headers or {}


class Slack:
    """The methods that an outbox calls, over a list of messages; ``trouble`` is raised once each, before anything is done."""

    def __init__(self) -> None:
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self.calls: list[str] = []
        self.trouble: list[Exception] = []
        self.gate: asyncio.Event | None = None
        self._numbers = itertools.count(1)

    async def chat_postMessage(self, *, blocks: list[dict[str, Any]], text: str, **_: Any) -> Answer:
        await self._pass("post")
        ts = f"{next(self._numbers)}.0"
        self.messages[ts] = blocks
        return Answer(ts=ts)

    async def chat_update(self, *, ts: str, blocks: list[dict[str, Any]], **_: Any) -> Answer:
        await self._pass("update")
        if ts not in self.messages:
            raise SlackApiError("", Answer(error="message_not_found"))  # type: ignore[no-untyped-call]
        self.messages[ts] = blocks
        return Answer(ts=ts)

    async def conversations_replies(self, **_: Any) -> Answer:
        return Answer(messages=[{"ts": ts, "blocks": found} for ts, found in self.messages.items()])

    async def _pass(self, call: str) -> None:
        self.calls.append(call)
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble:
            raise self.trouble.pop(0)


class Surfaces:
    """The cards of the server, compared and set."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], surface_pb2.Card] = {}
        self.trouble: list[Exception] = []

    async def cards(self, *, place: str, subject: str, **_: Any) -> list[surface_pb2.Card]:
        found = self.kept.get((place, subject))
        return [_copy(found)] if found else []

    async def put_card(self, card: surface_pb2.Card) -> surface_pb2.Card:
        if self.trouble:
            raise self.trouble.pop(0)
        key = (card.place, card.subject)
        present = self.kept.get(key)
        if (present.etag if present else "") != card.etag:
            raise AbortedError("changed", reason="ETAG_MISMATCH")
        kept = _copy(card)
        kept.etag = f"e{len(self.kept)}-{int(present.etag.split('-')[1]) + 1 if present else 0}"
        kept.update_time.GetCurrentTime()
        self.kept[key] = kept
        return _copy(kept)


def _copy(card: surface_pb2.Card) -> surface_pb2.Card:
    copy = surface_pb2.Card()
    copy.CopyFrom(card)
    return copy


class Client:
    def __init__(self, surfaces: Surfaces) -> None:
        self.surfaces = surfaces


def shown(text: str, subject: str = "tenants/default/runs/r1", **values: Any) -> Shown:
    return Shown(subject, text, [blocks.section(blocks.plain(text))], **values)


def texts(slack: Slack) -> list[str]:
    return [found[0]["text"]["text"] for found in slack.messages.values()]


@pytest.fixture
def slack() -> Slack:
    return Slack()


@pytest.fixture
def surfaces() -> Surfaces:
    return Surfaces()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without waiting."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(module, "RETRY_MOST_SECONDS", 0.001)


def outbox(slack: Slack, surfaces: Surfaces, clock: Callable[[], float] | None = None) -> Outbox:
    more = {"clock": clock} if clock else {}
    return Outbox(Client(surfaces), slack, **more)  # type: ignore[arg-type]


async def until(holds: Callable[[], object]) -> None:
    """Let the others work until it holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)


async def sent(box: Outbox) -> None:
    """Wait until nothing is on its way."""
    await until(lambda: not box.waiting)


async def test_a_state_that_was_overtaken_before_it_was_sent_is_never_sent(
    slack: Slack, surfaces: Surfaces
) -> None:
    box = outbox(slack, surfaces)
    slack.gate = asyncio.Event()
    box.show(PLACE, shown("one"))
    await until(lambda: slack.calls)
    for text in ("two", "three", "four"):
        box.show(PLACE, shown(text))
    slack.gate.set()
    await sent(box)
    assert slack.calls == ["post", "update"]
    assert texts(slack) == ["four"]
    box.show(PLACE, shown("four"))
    await sent(box)
    assert slack.calls == ["post", "update"]
    await box.close()


async def test_a_new_process_posts_nothing_that_is_there_and_brings_the_rest_up_to_date(
    slack: Slack, surfaces: Surfaces
) -> None:
    first = outbox(slack, surfaces)
    first.show(PLACE, shown("pending", "a1"))
    first.show(PLACE, shown("same", "a2"))
    await sent(first)
    await first.close()
    second = outbox(slack, surfaces)
    second.show(PLACE, shown("decided", "a1", is_final=True))
    second.show(PLACE, shown("same", "a2"))
    await sent(second)
    assert texts(slack) == ["decided", "same"]
    assert slack.calls == ["post", "post", "update"]
    assert surfaces.kept[(PLACE.name, "a1")].final
    await second.close()


@pytest.mark.usefixtures("quick")
async def test_a_message_whose_bot_died_before_it_was_on_record_is_found_by_its_marker(
    slack: Slack, surfaces: Surfaces
) -> None:
    await surfaces.put_card(surface_pb2.Card(surface="slack", subject="a1", place=PLACE.name))
    slack.messages["9.0"] = [{"block_id": marker_of("a1"), "text": {"text": "pending"}}]
    box = outbox(slack, surfaces)
    box.show(PLACE, shown("decided", "a1"))
    await sent(box)
    assert slack.calls == ["update"]
    assert texts(slack) == ["decided"]
    await box.close()


@pytest.mark.usefixtures("quick")
async def test_a_claim_is_left_to_its_bot_until_that_must_be_dead(
    slack: Slack, surfaces: Surfaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    await surfaces.put_card(surface_pb2.Card(surface="slack", subject="a1", place=PLACE.name))
    box = outbox(slack, surfaces)
    box.show(PLACE, shown("pending", "a1"))
    for _ in range(200):
        await asyncio.sleep(0)
    assert slack.calls == []
    monkeypatch.setattr(module, "CLAIM_SECONDS", 0.0)
    await sent(box)
    assert texts(slack) == ["pending"]
    await box.close()


@pytest.mark.usefixtures("quick")
async def test_two_bots_at_once_post_one_message(slack: Slack, surfaces: Surfaces) -> None:
    boxes = [outbox(slack, surfaces) for _ in range(4)]
    for box in boxes:
        box.show(PLACE, shown("pending", "a1"))
    await asyncio.gather(*(sent(box) for box in boxes))
    assert slack.calls.count("post") == 1
    for box in boxes:
        await box.close()


@pytest.mark.usefixtures("quick")
async def test_trouble_of_slack_and_server_is_outlasted(slack: Slack, surfaces: Surfaces) -> None:
    slack.trouble = [SlackApiError("", Answer(error="internal_error")), OSError("gone"), TimeoutError()]  # type: ignore[no-untyped-call]
    surfaces.trouble = [UnavailableError("restarting"), UnavailableError("restarting")]
    box = outbox(slack, surfaces)
    box.show(PLACE, shown("one"))
    await sent(box)
    assert texts(slack) == ["one"]
    await box.close()


async def test_retry_after_closes_the_channel_for_as_long_as_slack_says(
    slack: Slack, surfaces: Surfaces
) -> None:
    now = 100.0
    box = outbox(slack, surfaces, lambda: now)
    slack.trouble = [SlackApiError("", Answer({"Retry-After": "7"}, error="ratelimited"))]  # type: ignore[no-untyped-call]
    box.show(PLACE, shown("one", priority=PEOPLE))
    await until(lambda: slack.calls)
    channel = box._channels["C1"]
    await until(lambda: channel.wanted)
    assert channel.closed_until == 107.0
    now = 107.0
    channel.moved.set()
    await sent(box)
    assert texts(slack) == ["one"]
    await box.close()


async def test_what_nobody_waits_for_changes_once_a_second_and_its_end_is_shown_at_once(
    slack: Slack, surfaces: Surfaces
) -> None:
    now = 100.0
    box = outbox(slack, surfaces, lambda: now)
    box.show(PLACE, shown("one"))
    await sent(box)
    box.show(PLACE, shown("two"))
    channel = box._channels["C1"]
    assert box._next(channel)[1] == 1.0
    # Others do not wait behind it.
    box.show(PLACE, shown("other", "tenants/default/runs/r2"))
    await until(lambda: "other" in texts(slack))
    assert texts(slack) == ["one", "other"]
    box.show(PLACE, shown("the end", is_final=True))
    await sent(box)
    assert texts(slack) == ["the end", "other"]
    await box.close()


async def test_a_message_that_somebody_has_deleted_is_posted_again(slack: Slack, surfaces: Surfaces) -> None:
    box = outbox(slack, surfaces)
    box.show(PLACE, shown("pending", "a1"))
    await sent(box)
    slack.messages.clear()
    box.show(PLACE, shown("decided", "a1"))
    await sent(box)
    assert texts(slack) == ["decided"]
    await box.close()


async def test_a_channel_that_takes_nothing_is_given_up(slack: Slack, surfaces: Surfaces) -> None:
    slack.trouble = [SlackApiError("", Answer(error="is_archived"))]  # type: ignore[no-untyped-call]
    box = outbox(slack, surfaces)
    box.show(PLACE, shown("one"))
    await sent(box)
    assert (box.refused, box.delivered) == (1, 0)
    await box.close()


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=100))
def test_a_channel_is_never_written_to_faster_than_its_pace(steps: list[tuple[float, bool]]) -> None:
    pace = Pace(1.0, 4)
    now, usual = 0.0, []
    for passed, urgent in steps:
        now += passed
        if pace.wait_seconds(now, urgent=urgent) == 0:
            pace.sent(now)
            if not urgent:
                usual.append(now)
    for start in usual:
        assert sum(start <= at <= start + 10 for at in usual) <= 4 + 10 + 1


def test_what_is_urgent_borrows_one_burst_and_no_more() -> None:
    pace = Pace(1.0, 2)
    for _ in range(2):
        assert pace.wait_seconds(0.0) == 0.0
        pace.sent(0.0)
    assert pace.wait_seconds(0.0) == 1.0
    for _ in range(2):
        assert pace.wait_seconds(0.0, urgent=True) == 0.0
        pace.sent(0.0)
    assert pace.wait_seconds(0.0, urgent=True) == 1.0
    assert pace.wait_seconds(0.0) == 3.0


@pytest.mark.usefixtures("quick")
async def test_a_flood_of_a_thousand_questions_loses_none_keeps_the_pace_and_lets_a_halt_through(
    slack: Slack, surfaces: Surfaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_second, burst = 2000.0, 4
    monkeypatch.setattr(module, "Pace", lambda *_: Pace(per_second, burst))
    box = outbox(slack, surfaces)
    began = time.monotonic()
    for number in range(1000):
        box.show(PLACE, shown(f"question {number}", f"a{number}", priority=PEOPLE))
    await until(lambda: len(slack.messages) >= 20)
    before = len(slack.messages)
    box.show(PLACE, shown("halting", "latch", priority=STOPPING))
    await until(lambda: "halting" in texts(slack))
    assert len(slack.messages) <= before + 2
    await sent(box)
    seconds = time.monotonic() - began
    assert sorted(texts(slack)) == sorted(["halting", *(f"question {number}" for number in range(1000))])
    assert slack.calls.count("post") == 1001
    assert 2 * burst + per_second * seconds + 1 >= 1001
    await box.close()
