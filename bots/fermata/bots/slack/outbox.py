"""Brings messages to Slack: at least once, one message a subject and place, the latest state only, at the pace of the channel.

What is wanted is kept by subject, so a newer state takes the place of one that has not been sent. Before a message is posted its card
is claimed on the server; another bot that wants to post the same is then refused, and updates the message instead. A claim whose bot
has died is taken over, after a look whether its message is there: it is found by the marker in its first block.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from fermata.client import AbortedError, Client, FermataError
from fermata.v1 import surface_pb2

from .pace import UPDATES_BURST, UPDATES_PER_SECOND, Pace
from .shown import Shown, marker_of

log = logging.getLogger(__name__)

SURFACE = "slack"
CLAIM_SECONDS = 15.0
"""After so long without its message a claim counts as that of a bot that has died."""
CHANGE_SECONDS = 1.0
"""Between two changes of a message that nobody waits for: what a model writes comes faster than anybody reads."""
RETRY_SECONDS = 1.0
RETRY_MOST_SECONDS = 30.0
SEARCHED = 200
"""Messages of a place that are looked through for one that a dead bot may have posted."""

_GONE = frozenset({"message_not_found", "cant_update_message"})
_HOPELESS = frozenset(
    {
        "channel_not_found",
        "not_in_channel",
        "is_archived",
        "account_inactive",
        "invalid_auth",
        "token_revoked",
    }
)

_Key = tuple[str, str]


@dataclass
class _Channel:
    """What a channel waits for, in order, and its worker."""

    pace: Pace = field(default_factory=lambda: Pace())
    wanted: dict[_Key, tuple[surface_pb2.Place, Shown]] = field(default_factory=dict)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    closed_until: float = 0.0
    failures: int = 0
    busy: bool = False
    task: asyncio.Task[None] | None = None


class Outbox:
    """Messages on their way.

    :param clock: seconds that only grow.
    :ivar delivered: messages posted or changed so far; ``refused``: given up, because Slack said that it would never take them.
    """

    def __init__(
        self, client: Client, slack: AsyncWebClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._slack = slack
        self._clock = clock
        self._channels: dict[str, _Channel] = {}
        self._updates = Pace(UPDATES_PER_SECOND, UPDATES_BURST)
        self._cards: dict[_Key, surface_pb2.Card] = {}
        self._sent: dict[_Key, str] = {}
        self._claims: dict[_Key, str] = {}
        self._changed: dict[_Key, float] = {}
        self.delivered = 0
        self.refused = 0

    def show(self, place: surface_pb2.Place, shown: Shown) -> None:
        """Want ``shown`` in ``place``, in place of what was wanted of the subject before."""
        key = (place.name, shown.subject)
        channel = self._channels.setdefault(place.channel, _Channel())
        if key not in channel.wanted and self._sent.get(key) == shown.mark:
            return
        channel.wanted[key] = (place, shown)
        channel.moved.set()
        if channel.task is None:
            channel.task = asyncio.create_task(self._work(channel), name=f"slack {place.channel}")

    @property
    def waiting(self) -> int:
        """Messages that are wanted and not sent."""
        return sum(len(channel.wanted) + channel.busy for channel in self._channels.values())

    async def close(self) -> None:
        """End; what was not sent is drawn again by the next process."""
        tasks = [channel.task for channel in self._channels.values() if channel.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, channel: _Channel) -> None:
        while True:
            if not channel.wanted:
                channel.moved.clear()
                await channel.moved.wait()
            key, wait = self._next(channel)
            place, shown = channel.wanted[key]
            if wait > 0:
                await self._sleep_or_urgent(channel, wait)
                continue
            del channel.wanted[key]
            channel.busy = True
            try:
                await self._deliver(key, place, shown, channel)
                channel.failures = 0
            except (SlackApiError, FermataError, OSError, TimeoutError) as failure:
                self._failed(key, place, shown, channel, failure)
            finally:
                channel.busy = False

    def _next(self, channel: _Channel) -> tuple[_Key, float]:
        """What goes next, and in how many seconds: the greatest priority, of those what may go soonest, then what came first."""
        now = self._clock()
        posts, updates = _waits(channel.pace, now), _waits(self._updates, now)

        def wait_seconds(key: _Key, shown: Shown) -> float:
            calm = 0.0 if shown.priority or shown.is_final else CHANGE_SECONDS
            rest = self._changed.get(key, now - calm) + calm - now
            pace = updates if key in self._sent else posts
            return max(channel.closed_until - now, rest, pace[shown.priority > 0])

        waits = {key: wait_seconds(key, shown) for key, (_, shown) in channel.wanted.items()}
        key = max(waits, key=lambda key: (channel.wanted[key][1].priority, -waits[key]))
        return key, waits[key]

    async def _sleep_or_urgent(self, channel: _Channel, seconds: float) -> None:
        channel.moved.clear()
        try:
            async with asyncio.timeout(seconds):
                await channel.moved.wait()
        except TimeoutError:
            return

    def _failed(
        self, key: _Key, place: surface_pb2.Place, shown: Shown, channel: _Channel, failure: Exception
    ) -> None:
        """Wait as Slack says, or longer each time, and want it again; a newer state that has come meanwhile stands."""
        now = self._clock()
        channel.failures += 1
        seconds = min(RETRY_MOST_SECONDS, RETRY_SECONDS * 2.0 ** (channel.failures - 1))
        if isinstance(failure, SlackApiError):
            if failure.response.get("error") in _HOPELESS:
                self.refused += 1
                log.warning(
                    "%s can't be shown in %s: %s", shown.subject, place.channel, failure.response["error"]
                )
                return
            seconds = (
                max(seconds, _retry_after(failure)) if not _retry_after(failure) else _retry_after(failure)
            )
        log.info("%s is not shown yet (%s); again in %.1f s", shown.subject, _short(failure), seconds)
        channel.closed_until = now + seconds
        channel.wanted.setdefault(key, (place, shown))

    async def _deliver(self, key: _Key, place: surface_pb2.Place, shown: Shown, channel: _Channel) -> None:
        card = self._cards.get(key) or await self._card(key)
        if card is None:
            card = await self._claim(key, place, shown)
        elif not card.message:
            card = await self._take_over(key, place, shown, card)
        elif card.shown == shown.mark:
            self._keep(key, card, shown)
            return
        if not card.message:
            message = await self._post(place, shown)
            channel.pace.sent(self._clock())
        else:
            message = await self._update(place, shown, card.message)
            self._updates.sent(self._clock())
        self.delivered += 1
        self._sent[key] = shown.mark
        self._claims.pop(key, None)
        self._changed[key] = self._clock()
        await self._record(key, card, shown, message)

    async def _card(self, key: _Key) -> surface_pb2.Card | None:
        place, subject = key
        found = await self._client.surfaces.cards(surface=SURFACE, place=place, subject=subject, limit=1)
        return found[0] if found else None

    async def _claim(self, key: _Key, place: surface_pb2.Place, shown: Shown) -> surface_pb2.Card:
        card = surface_pb2.Card(surface=SURFACE, subject=shown.subject, place=place.name, digest=shown.digest)
        try:
            claimed = await self._client.surfaces.put_card(card)
        except AbortedError:
            self._cards.pop(key, None)
            raise
        self._claims[key] = claimed.etag
        return claimed

    async def _take_over(
        self, key: _Key, place: surface_pb2.Place, shown: Shown, card: surface_pb2.Card
    ) -> surface_pb2.Card:
        """The card of a bot that has claimed it and has not posted.

        :raises AbortedError: where it may still be about to.
        """
        age = time.time() - card.update_time.ToNanoseconds() / 1e9
        found = await self._find(place, shown.subject)
        # What this bot has claimed and could not post is its own to post, unless Slack took it without an answer.
        own = self._claims.get(key) == card.etag
        if not found and not own and age < CLAIM_SECONDS:
            raise AbortedError("Another bot is about to post it.", reason="CARD_CLAIMED")
        if own and not found:
            return card
        card.message = found
        taken = await self._client.surfaces.put_card(card)
        self._claims[key] = taken.etag
        return taken

    async def _find(self, place: surface_pb2.Place, subject: str) -> str:
        """The message of a subject, by its marker; empty where there is none."""
        if place.message:
            answer = await self._slack.conversations_replies(
                channel=place.channel, ts=place.message, limit=SEARCHED
            )
        else:
            answer = await self._slack.conversations_history(channel=place.channel, limit=SEARCHED)
        marker = marker_of(subject)
        messages: list[dict[str, Any]] = answer.get("messages") or []
        for message in messages:
            if any(block.get("block_id") == marker for block in message.get("blocks") or []):
                return str(message["ts"])
        return ""

    async def _post(self, place: surface_pb2.Place, shown: Shown) -> str:
        answer = await self._slack.chat_postMessage(
            channel=place.channel,
            thread_ts=place.message or None,
            text=shown.fallback,
            blocks=shown.marked,
            mrkdwn=False,
            parse="none",
            link_names=False,
            unfurl_links=False,
            unfurl_media=False,
        )
        return str(answer["ts"])

    async def _update(self, place: surface_pb2.Place, shown: Shown, message: str) -> str:
        try:
            await self._slack.chat_update(
                channel=place.channel,
                ts=message,
                text=shown.fallback,
                blocks=shown.marked,
                parse="none",
                link_names=False,
            )
        except SlackApiError as failure:
            if failure.response.get("error") not in _GONE:
                raise
            # Somebody has deleted it; what it shows must not go with it.
            return await self._post(place, shown)
        return message

    async def _record(self, key: _Key, card: surface_pb2.Card, shown: Shown, message: str) -> None:
        changed = surface_pb2.Card()
        changed.CopyFrom(card)
        changed.message = message
        changed.shown = shown.mark
        changed.digest = shown.digest
        changed.final = shown.is_final
        try:
            self._cards[key] = await self._client.surfaces.put_card(changed)
        except AbortedError:
            # Another bot has drawn it meanwhile: look at the card again next time.
            self._cards.pop(key, None)
            return
        if shown.is_final:
            self._cards.pop(key, None)
            self._changed.pop(key, None)

    def _keep(self, key: _Key, card: surface_pb2.Card, shown: Shown) -> None:
        self._sent[key] = shown.mark
        if not shown.is_final:
            self._cards[key] = card


def _waits(pace: Pace, now: float) -> dict[bool, float]:
    """Seconds to wait, by whether it is urgent."""
    return {urgent: pace.wait_seconds(now, urgent=urgent) for urgent in (False, True)}


def _retry_after(failure: SlackApiError) -> float:
    headers = getattr(failure.response, "headers", None) or {}
    said = headers.get("Retry-After") or headers.get("retry-after") or 0
    try:
        return float(said)
    except ValueError:
        return 0.0


def _short(failure: Exception) -> str:
    if isinstance(failure, SlackApiError):
        return str(failure.response.get("error"))
    return getattr(failure, "reason", "") or type(failure).__name__
