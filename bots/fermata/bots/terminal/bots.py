"""``bot slack``."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Annotated

import typer
from rich.text import Text

from fermata.client import Client, LocalError

from .output import Output
from .session import Json, settings_of


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Bots that bring Fermata into a chat.", no_args_is_help=True)
    group.callback()(_bots)
    group.command("slack")(slack)
    app.add_typer(group, name="bot")


def _bots() -> None:
    """Bots that bring Fermata into a chat."""


def slack(
    context: typer.Context,
    agent: Annotated[
        str, typer.Option(help="The agent where neither the message nor the channel says which.")
    ] = "",
    channel: Annotated[
        list[str] | None, typer.Option(help="CHANNEL_ID=AGENT: who answers in a channel; may be repeated.")
    ] = None,
    http: Annotated[
        bool, typer.Option("--http", help="Take signed requests, in place of Socket Mode.")
    ] = False,
    host: Annotated[str, typer.Option(help="Where to listen for them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen for them; 0 for a free port.")] = 3000,
    health_port: Annotated[int | None, typer.Option(help="Answer /healthz on this port of loopback.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Try the tokens and their scopes, and end.")] = False,
    manifest: Annotated[bool, typer.Option("--manifest", help="Print the app's manifest, and end.")] = False,
    url: Annotated[str, typer.Option(help="With --manifest: where Slack reaches the bot, for --http.")] = "",
    as_json: Json = False,
) -> None:
    """Serve Slack. Tokens: SLACK_BOT_TOKEN with SLACK_APP_TOKEN or, for --http, SLACK_SIGNING_SECRET; or each
    with _FILE."""
    # Only who runs the bot needs to wait for its libraries.
    from fermata.bots.slack.checking import check as tried
    from fermata.bots.slack.manifest import manifest as drawn
    from fermata.bots.slack.serving import serve
    from fermata.bots.slack.settings import Settings

    output = Output(as_json=as_json)
    if manifest:
        typer.echo(json.dumps(drawn(url=url), indent=2))
        return
    settings = Settings.read(http=http, agent=agent, channels=_channels(channel or []))
    connection = settings_of(context).connection()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    async def work() -> bool:
        async with Client(connection) as client:
            if not check:
                await serve(
                    client,
                    settings,
                    host=host,
                    port=port if http else None,
                    health_port=health_port,
                    as_json=as_json,
                )
                return True
            found = await tried(client, settings)
            marks = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}
            lines = [
                Text.assemble(
                    marks[one.holds],
                    f" {one.what}",
                    (f"  {one.hint}" if one.hint and not one.holds else "", "dim"),
                )
                for one in found
            ]
            document = {
                "findings": [{"what": one.what, "holds": one.holds, "hint": one.hint} for one in found]
            }
            output.show(*lines, document=document)
            return all(one.holds is not False for one in found)

    if not asyncio.run(work()):
        raise typer.Exit(1)


def _channels(given: list[str]) -> dict[str, str]:
    """``C0123=operator`` as a mapping. :raises LocalError: CHANNEL_MALFORMED."""
    found = {}
    for one in given:
        channel, equals, agent = one.partition("=")
        if not (channel and equals and agent):
            raise LocalError(f"{one!r} is no CHANNEL_ID=AGENT.", reason="CHANNEL_MALFORMED")
        found[channel] = agent
    return found
