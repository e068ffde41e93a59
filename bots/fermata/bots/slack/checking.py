"""``fermata bot slack --check``: do the tokens count, which scopes are missing, and can the bot act for people?"""

from __future__ import annotations

from dataclasses import dataclass

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from fermata.client import Client, FermataError
from fermata.v1 import principal_pb2

from .manifest import SCOPES
from .settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. ``holds`` is None where it can't be told."""

    what: str
    holds: bool | None
    hint: str = ""


async def check(client: Client, settings: Settings) -> list[Finding]:
    """Try everything that can be tried without changing anything."""
    slack = AsyncWebClient(token=settings.bot_token, base_url=settings.api_url)
    found = [*await _bot_token(slack)]
    if settings.app_token:
        found.append(await _app_token(AsyncWebClient(token=settings.app_token, base_url=settings.api_url)))
    return [*found, *await _fermata(client)]


async def _bot_token(slack: AsyncWebClient) -> list[Finding]:
    try:
        answer = await slack.auth_test()
    except SlackApiError as failure:
        why = str(failure.response.get("error"))
        return [
            Finding(
                "Slack takes the bot token", False, f"{why}: install the app, and copy its bot token again"
            )
        ]
    found = [Finding(f"Slack takes the bot token (team {answer['team_id']}, user {answer['user_id']})", True)]
    said = answer.headers.get("x-oauth-scopes", answer.headers.get("X-OAuth-Scopes", ""))
    granted = {scope.strip() for scope in said.split(",") if scope.strip()}
    if not granted:
        return [*found, Finding("its scopes", None, "the answer does not say which the token has")]
    return found + [
        Finding(f"scope {scope}: {why}", scope in granted, "add it to the app and install it again")
        for scope, why in SCOPES.items()
    ]


async def _app_token(slack: AsyncWebClient) -> Finding:
    try:
        await slack.apps_connections_open(app_token=str(slack.token))
    except SlackApiError as failure:
        why = str(failure.response.get("error"))
        return Finding("Slack takes the app token", False, f"{why}: it needs the scope connections:write")
    return Finding("Slack takes the app token, and Socket Mode is on", True)


async def _fermata(client: Client) -> list[Finding]:
    try:
        caller = await client.principals.caller()
    except FermataError as failure:
        return [Finding("Fermata answers", False, str(failure))]
    bot = caller.kind == principal_pb2.PRINCIPAL_KIND_BOT
    operator = principal_pb2.ROLE_OPERATOR in caller.roles
    more = set(caller.roles) - {principal_pb2.ROLE_OPERATOR, principal_pb2.ROLE_VIEWER}
    hint = "fermata principals create slack --kind bot --role operator"
    return [
        Finding(f"Fermata knows the bot as {caller.name}", True),
        Finding("it is a bot, and may act for people", bot, hint),
        Finding("it is an operator", operator, hint),
        Finding("it has no right to decide by itself", not more, "take the other roles from it"),
    ]
