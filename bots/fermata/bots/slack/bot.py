"""The bot: Bolt's handlers, which serve Socket Mode and HTTP alike.

An event is answered only when what it asks for is committed: where the bot dies before, Slack sends it again, and the request id makes
it one run. Clicks and commands are acknowledged at once, for Slack does not send them again and shows a warning after three seconds.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from fermata.bots.conversation.text import clean
from fermata.client import Client, FermataError

from . import blocks, modals
from .clicks import Clicks
from .commands import Commands
from .following import Conversations
from .home import HALT_ALL, home
from .outbox import SURFACE, Outbox
from .people import Person, notice, person
from .settings import Settings
from .talk import Heard, Talk, Unanswered, speaks_to_others, words_of

log = logging.getLogger(__name__)

Payload = dict[str, Any]
COMMAND = "/fermata"
_ANY_ACTION = re.compile(r"(approval|run|latch)\..+")
_ANY_MODAL = re.compile(r"modal\..+")


class Bot:
    """One bot for one workspace.

    :param team: the workspace's id, and ``user`` the bot's own, as ``auth.test`` tells them.
    :ivar is_revoked: True where Slack has said that the token or the installation is gone.
    """

    def __init__(
        self, client: Client, slack: AsyncWebClient, settings: Settings, *, team: str, user: str
    ) -> None:
        self._client = client
        self._slack = slack
        self._team = team
        self._user = user
        self.is_revoked = False
        self.outbox = Outbox(client, slack)
        self.conversations = Conversations(client, self.outbox, team)
        self.talk = Talk(client, self.conversations, channels=settings.channels, agent=settings.agent)
        self._clicks = Clicks(client, slack, self.conversations)
        self._commands = Commands(client, self.conversations, self.talk, COMMAND)
        self.app = AsyncApp(
            client=slack,
            token=settings.bot_token,
            signing_secret=settings.signing_secret or None,
            # Socket Mode has no signatures: its connection was opened with the app's token.
            request_verification_enabled=bool(settings.signing_secret),
            process_before_response=True,
        )
        self._register()

    async def close(self) -> None:
        """End what runs in the background."""
        await self.conversations.close()
        await self.outbox.close()

    def _register(self) -> None:
        app = self.app
        app.use(self._only_own_team)
        app.event("app_mention")(self._mentioned)
        app.event("message")(self._message)
        app.event("app_home_opened")(self._home_opened)
        app.event("tokens_revoked")(self._revoked)
        app.event("app_uninstalled")(self._revoked)
        app.command(COMMAND)(ack=_ack, lazy=[self._command])
        app.action({"action_id": HALT_ALL})(ack=_ack, lazy=[self._halt_all])
        app.action(_ANY_ACTION)(ack=_ack, lazy=[self._pressed])
        app.view(_ANY_MODAL)(self._submitted)

    async def _only_own_team(self, body: Payload, next: Any) -> None:  # noqa: A002 - Bolt passes it by this name
        team = body.get("team_id") or (body.get("team") or {}).get("id") or ""
        if team and team != self._team:
            log.warning("something of another team (%s) was left alone", clean(str(team))[:40])
            return
        await next()

    async def _mentioned(self, event: Payload) -> None:
        if event.get("channel", "").startswith("D"):
            return  # a direct conversation tells of it as a message, too
        heard = self._heard(event)
        await self._hear(heard)

    async def _message(self, event: Payload) -> None:
        if (
            event.get("subtype")
            or event.get("bot_id")
            or not event.get("user")
            or event["user"] == self._user
        ):
            return
        heard = self._heard(event)
        if not heard.is_direct:
            # A mention is told of as such; what stands outside of the bot's threads is not for it.
            if (
                f"<@{self._user}" in heard.text
                or not heard.thread
                or speaks_to_others(heard.text, self._user)
            ):
                return
            if not await self.talk.is_known(heard):
                return
        await self._hear(heard)

    async def _hear(self, heard: Heard) -> None:
        """:raises FermataError: what may succeed later, so that the event stays unanswered and Slack sends it again."""
        try:
            await self.talk.hear(heard, words_of(heard.text, self._user))
        except FermataError as failure:
            if failure.retryable:
                raise
            await self._notify(heard.who, failure)

    async def _home_opened(self, event: Payload) -> None:
        if event.get("tab", "home") == "home":
            await self._publish_home(self._person(event["user"]))

    async def _revoked(self, event: Payload) -> None:
        log.error("Slack has taken the installation back (%s); install the app again", event.get("type"))
        self.is_revoked = True

    async def _command(self, command: Payload, respond: AsyncRespond) -> None:
        who = self._person(command["user_id"], command["channel_id"])

        async def heard(text: str) -> Heard:
            posted = await self._slack.chat_postMessage(
                channel=who.channel,
                text=blocks.escape(text),
                blocks=[
                    blocks.context(blocks.mrkdwn(f"<@{who.user}> asks")),
                    blocks.section(blocks.plain(text)),
                ],
            )
            return Heard(who, who.channel, str(posted["ts"]), text)

        try:
            text = await self._commands.carry_out(command.get("text") or "", who, heard)
        except FermataError as failure:
            text = blocks.escape(_told(failure))
        await respond(text=text, response_type="ephemeral")

    async def _pressed(self, body: Payload) -> None:
        action = body["actions"][0]
        who = self._presser(body)
        work = self._clicks.press(
            action["action_id"], str(action.get("value") or ""), who, body.get("trigger_id", "")
        )
        await self._privately(who, work)
        if (body.get("view") or {}).get("type") == "home":
            await self._publish_home(who)

    async def _halt_all(self, body: Payload) -> None:
        who = self._presser(body)
        await self._privately(who, self._halt_everything(who))
        await self._publish_home(who)

    async def _halt_everything(self, who: Person) -> None:
        latch = await self._client.latches.halt(
            everything=True, reason="halted at App Home", on_behalf_of=who.account
        )
        place = await self._client.surfaces.open_place(
            SURFACE, team=who.team, channel=await self._channel(who)
        )
        self.conversations.report(place, latch)

    async def _submitted(self, ack: AsyncAck, body: Payload, view: Payload) -> None:
        origin = modals.Origin.load(str(view.get("private_metadata") or ""))
        who = person(
            self._client,
            user=body["user"]["id"],
            team=self._team,
            channel=origin.channel,
            thread=origin.thread,
        )
        try:
            wrong = await self._clicks.submit(view["callback_id"], view, who)
        except FermataError as failure:
            await ack()
            await self._notify(who, failure)
            return
        if wrong:
            await ack(response_action="errors", errors=wrong)
        else:
            await ack()

    async def _publish_home(self, who: Person) -> None:
        try:
            await self._slack.views_publish(user_id=who.user, view=await home(self._client, who))
        except (FermataError, SlackApiError) as failure:
            log.warning("App Home can't be drawn: %s", failure)

    async def _privately(self, who: Person, work: Awaitable[None]) -> None:
        """Do it; what the server refuses is told to the person alone."""
        try:
            await work
        except FermataError as failure:
            await self._notify(who, failure)

    async def _notify(self, who: Person, failure: FermataError) -> None:
        log.info("refused [%s] for %s", failure.reason, who.account)
        try:
            await self._slack.chat_postEphemeral(
                channel=who.channel or await self._channel(who),
                user=who.user,
                text=blocks.escape(_told(failure)),
                thread_ts=who.thread or None,
            )
        except SlackApiError as trouble:
            log.warning("the notice could not be shown: %s", trouble.response.get("error"))

    async def _channel(self, who: Person) -> str:
        """Where a person is reached who has done something outside of any channel."""
        if who.channel:
            return who.channel
        opened = await self._slack.conversations_open(users=who.user)
        return str(opened["channel"]["id"])

    def _heard(self, event: Payload) -> Heard:
        channel, thread = str(event["channel"]), str(event.get("thread_ts") or "")
        who = self._person(str(event["user"]), channel, thread)
        direct = event.get("channel_type") == "im" or channel.startswith("D")
        return Heard(who, channel, str(event["ts"]), str(event.get("text") or ""), thread, direct)

    def _presser(self, body: Payload) -> Person:
        message = body.get("message") or {}
        channel = (body.get("channel") or {}).get("id") or ""
        return self._person(body["user"]["id"], channel, str(message.get("thread_ts") or ""))

    def _person(self, user: str, channel: str = "", thread: str = "") -> Person:
        return person(self._client, user=user, team=self._team, channel=channel, thread=thread)


def _told(failure: FermataError) -> str:
    return failure.message if isinstance(failure, Unanswered) else notice(failure)


async def _ack(ack: AsyncAck) -> None:
    await ack()
