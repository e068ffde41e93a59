"""What people say: a mention, a direct message, a reply in a thread of the bot's, to an intent and its consequence."""

from __future__ import annotations

import asyncio
import re
import uuid
from dataclasses import dataclass

from fermata.bots.conversation.editing import edited
from fermata.bots.conversation.intents import Command, Decide, Details, Say, Unclear, intent_of
from fermata.bots.conversation.text import short_name
from fermata.client import Client, LocalError, NotFoundError
from fermata.client.names import last_part
from fermata.v1 import approval_pb2, surface_pb2

from .following import Conversations, Follower
from .outbox import SURFACE
from .people import Person, require_linked

CATCH_UP_SECONDS = 5.0
_MENTION = re.compile(r"<@([A-Z0-9]+)(?:\|[^>]*)?>")
_NAMED = re.compile(r"(?:ask\s+)?([a-z][a-z0-9-]{0,39})\s*[:,]\s+(.+)", re.DOTALL)
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&amp;": "&"}
_NAMESPACE = uuid.UUID("6b0c5f0e-6f0f-5b1e-9f55-6f6dcd0f5a11")


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of a person.

    :param ts: the message's own name in its channel.
    :param thread: the message that its thread hangs on; empty outside of threads.
    """

    who: Person
    channel: str
    ts: str
    text: str
    thread: str = ""
    is_direct: bool = False

    @property
    def request_id(self) -> str:
        """One message is one request, however often and in however many kinds of events Slack tells of it."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.who.team}/{self.channel}/{self.ts}"))

    @property
    def hangs_on(self) -> str:
        """The message that its conversation hangs on: a direct conversation is one, a channel has one for each thread."""
        return self.thread or ("" if self.is_direct else self.ts)


class Unanswered(LocalError):  # noqa: N818 - it is no fault: the bot asks back
    """The bot has to ask back; the message is for the person alone."""


def words_of(text: str, bot: str) -> str:
    """What a message says, without the mention of the bot and Slack's escapes."""
    said = re.sub(rf"<@{re.escape(bot)}(?:\|[^>]*)?>", "", text)
    said = re.sub(r"<(?:https?|mailto):([^|>]*)\|([^>]*)>", r"\2", said)
    for entity, character in _ENTITIES.items():
        said = said.replace(entity, character)
    return said.strip()


def speaks_to_others(text: str, bot: str) -> bool:
    """True where a message begins with the mention of somebody else."""
    found = _MENTION.match(text.strip())
    return found is not None and found[1] != bot


class Talk:
    """Carries out what people say.

    :param channels: the agent of a channel, by the channel's id.
    :param agent: the agent where nothing else says which.
    """

    def __init__(
        self,
        client: Client,
        conversations: Conversations,
        *,
        channels: dict[str, str] | None = None,
        agent: str = "",
    ) -> None:
        self._client = client
        self._conversations = conversations
        self._channels = channels or {}
        self._agent = agent

    async def hear(self, heard: Heard, words: str) -> None:
        """Do what ``words`` mean. The same message again changes nothing.

        :raises FermataError: what the server refuses; AGENT_UNCLEAR, UNCLEAR where the bot has to ask back.
        """
        if not words:
            return
        await require_linked(self._client, heard.who)
        place = await self._place(heard, words)
        follower = self._conversations.follow(place)
        await self._caught_up(follower)
        named, rest = await self._named(words)
        intent = intent_of(rest if named else words, follower.view)
        match intent:
            case Say(text):
                await self._client.runs.create(
                    named or place.agent,
                    text,
                    thread=place.thread,
                    request_id=heard.request_id,
                    on_behalf_of=heard.who.account,
                )
            case Command("halt"):
                await self.halt(follower, heard.who)
            case Decide():
                await self._decide(follower, intent, heard.who)
            case Details(card):
                raise Unanswered(f"Press Details on the card {short_name(card.name)}.", reason="UNCLEAR")
            case Command(name):
                raise Unanswered(f"Type `/fermata {name}` for that.", reason="UNCLEAR")
            case Unclear(message):
                raise Unanswered(message, reason="UNCLEAR")

    async def halt(self, follower: Follower, who: Person, *, run: str = "") -> None:
        """Halt a run of a conversation, and report it there."""
        latch = await self._client.latches.halt(
            run=run or follower.view.run, reason="halted in Slack", on_behalf_of=who.account
        )
        self._conversations.report(follower.place, latch)

    async def is_known(self, heard: Heard) -> bool:
        """True where a reply stands in a thread in which the bot has its part."""
        try:
            await self._client.surfaces.place_at(
                SURFACE, team=heard.who.team, channel=heard.channel, message=heard.thread
            )
        except NotFoundError:
            return False
        return True

    async def _place(self, heard: Heard, words: str) -> surface_pb2.Place:
        agent, _ = await self._named(words)
        agent = agent or self._channels.get(heard.channel, "") or self._agent
        return await self._client.surfaces.open_place(
            SURFACE,
            team=heard.who.team,
            channel=heard.channel,
            message=heard.hangs_on,
            agent=agent or await self._only_agent(),
        )

    async def _named(self, words: str) -> tuple[str, str]:
        """The agent that a message names at its beginning, and the rest: ``operator: how is line 3?``"""
        found = _NAMED.fullmatch(words)
        if found is None:
            return "", words
        names = {last_part(agent.name) for agent in await self._client.agents.list()}
        return (found[1], found[2]) if found[1] in names else ("", words)

    async def _only_agent(self) -> str:
        names = [last_part(agent.name) for agent in await self._client.agents.list()]
        if len(names) == 1:
            return names[0]
        raise Unanswered(
            f"With whom? Begin with a name, such as “{names[0]}: …”. There are {', '.join(names)}."
            if names
            else "There is no agent yet.",
            reason="AGENT_UNCLEAR",
        )

    async def _caught_up(self, follower: Follower) -> None:
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                await follower.is_caught_up.wait()
        except TimeoutError:
            raise LocalError(
                "The conversation can't be read just now; say it again.", reason="NOT_CAUGHT_UP"
            ) from None

    async def _decide(self, follower: Follower, intent: Decide, who: Person) -> None:
        card = intent.card
        if intent.decision == approval_pb2.DECISION_EDIT and not intent.assignments:
            raise Unanswered("Press Edit on the card, or type edit name=value.", reason="UNCLEAR")
        arguments = edited(card.args, intent.assignments, card.schema) if intent.assignments else None
        decided = await self._client.approvals.decide(
            card.name,
            intent.decision,
            digest=card.digest,
            edited_args=arguments,
            value=intent.value or None,
            comment=intent.comment,
            on_behalf_of=who.account,
        )
        follower.take(decided)
