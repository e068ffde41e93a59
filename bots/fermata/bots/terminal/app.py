"""The command line: global options, and the commands by the noun they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import agents, approvals, bots, chat, knowledge, latches, policies, principals, runs, server
from .session import Settings

app = typer.Typer(
    name="fermata",
    help="Run AI agents, decide what they may do, and hold or halt them at any moment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    context: typer.Context,
    address: Annotated[
        str | None, typer.Option(help="The server, HOST:PORT or https://HOST:PORT. [env: FERMATA_ADDRESS]")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with your token. [env: FERMATA_TOKEN_FILE or FERMATA_TOKEN]")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Authority of the server's certificate. [env: FERMATA_CA_FILE]")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant. [env: FERMATA_TENANT]")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of a server on this machine. [env: FERMATA_DATA]")
    ] = None,
) -> None:
    """Options come before the command, and go before the environment; the data folder's client.json comes
    last."""
    context.obj = Settings(address, token_file, ca_file, tenant, data)


for module in (chat, runs, approvals, latches, agents, knowledge, policies, principals, bots, server):
    module.register(app)
