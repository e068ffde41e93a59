"""The bot's process: connect, take up what goes on, serve, and end in order."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from fermata.client import Client, FermataError, LocalError

from .bot import Bot
from .settings import Settings

log = logging.getLogger(__name__)

PATH = "/slack/events"
RECONCILE_SECONDS = 60.0


async def serve(
    client: Client,
    settings: Settings,
    *,
    host: str,
    port: int | None,
    health_port: int | None,
    as_json: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM.

    :param port: for HTTP; None for Socket Mode.
    :param health_port: where ``/healthz`` answers on loopback; None for nowhere.
    :raises LocalError: SLACK_REFUSED where the tokens do not count, BOT_PRINCIPAL where the token of Fermata is no bot's.
    """
    slack = AsyncWebClient(token=settings.bot_token, base_url=settings.api_url)
    bot = await connect(client, slack, settings)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with (
        _running(bot, client),
        _listening(bot, settings, slack, host, port) as bound,
        _health(bot, health_port) as health,
    ):
        ready = {"mode": "http" if port is not None else "socket", "port": bound, "health_port": health}
        sys.stdout.write(json.dumps(ready) + "\n" if as_json else f"The bot is in Slack ({ready['mode']}).\n")
        sys.stdout.flush()
        await stopped.wait()


async def connect(client: Client, slack: AsyncWebClient, settings: Settings) -> Bot:
    """A bot that knows whose it is. :raises LocalError: SLACK_REFUSED, BOT_PRINCIPAL."""
    from fermata.v1 import principal_pb2

    try:
        whoami = await slack.auth_test()
    except SlackApiError as failure:
        raise LocalError(
            f"Slack refuses the bot's token: {failure.response.get('error')}. `fermata bot slack --check` says what is missing.",
            reason="SLACK_REFUSED",
        ) from None
    caller = await client.principals.caller()
    if caller.kind != principal_pb2.PRINCIPAL_KIND_BOT:
        raise LocalError(
            f"{caller.name} is no bot, so it can't act for people. Make one: "
            "fermata principals create slack --kind bot --role operator, and give its token with --token-file.",
            reason="BOT_PRINCIPAL",
        )
    return Bot(client, slack, settings, team=str(whoami["team_id"]), user=str(whoami["user_id"]))


@asynccontextmanager
async def _running(bot: Bot, client: Client) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(_again(bot.conversations.watch_approvals), name="watch approvals"),
        asyncio.create_task(_reconcile(bot), name="reconcile"),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bot.close()


async def _again(work: Any) -> None:
    while True:
        try:
            await work()
        except FermataError as failure:
            log.warning("broke off, and begins again: %s", failure)
        await asyncio.sleep(1.0)


async def _reconcile(bot: Bot) -> None:
    begun = False
    while True:
        try:
            if not begun:
                await bot.conversations.catch_up()
                begun = True
            await bot.conversations.reconcile()
        except FermataError as failure:
            log.warning("what goes on can't be read: %s", failure)
        bot.conversations.rest()
        await asyncio.sleep(RECONCILE_SECONDS)


@asynccontextmanager
async def _listening(
    bot: Bot, settings: Settings, slack: AsyncWebClient, host: str, port: int | None
) -> AsyncIterator[int | None]:
    if port is None:
        opener = AsyncWebClient(token=settings.app_token, base_url=settings.api_url)
        handler = AsyncSocketModeHandler(bot.app, settings.app_token, web_client=opener)
        await handler.connect_async()  # type: ignore[no-untyped-call]
        try:
            yield None
        finally:
            await handler.close_async()  # type: ignore[no-untyped-call]
        return
    # aiohttp refuses a body of more than 1 MiB by itself; Slack's own are far below.
    served = bot.app.web_app(path=PATH)
    async with _site(served, host, port) as bound:
        yield bound


@asynccontextmanager
async def _health(bot: Bot, port: int | None) -> AsyncIterator[int | None]:
    if port is None:
        yield None
        return

    async def healthz(_: web.Request) -> web.Response:
        facts = {
            "ok": not bot.is_revoked,
            "waiting": bot.outbox.waiting,
            "delivered": bot.outbox.delivered,
            "refused": bot.outbox.refused,
            "watched": bot.conversations.watched,
        }
        return web.json_response(facts, status=200 if facts["ok"] else 503)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    async with _site(app, "127.0.0.1", port) as bound:
        yield bound


@asynccontextmanager
async def _site(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as failure:
            raise LocalError(
                f"{host}:{port} can't be listened on: {failure.strerror}. Choose another port.",
                reason="PORT_IN_USE",
            ) from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
