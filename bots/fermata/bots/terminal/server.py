"""``up``, ``backup``, ``restore``, ``workers``, ``version``."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version

import typer
from rich.text import Text

from fermata.bots.conversation.text import one_line
from fermata.v1 import worker_pb2

from . import drawing
from .output import Output
from .session import Json, session, settings_of

SERVER_MODULE = "fermata.server.up"
COPIES_MODULE = "fermata.server.up.copies"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    of_the_server = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    for command in (up, backup, restore):
        app.command(command.__name__, context_settings=of_the_server, add_help_option=False)(command)
    app.command("workers")(workers)
    app.command("version")(version)


def up(context: typer.Context) -> None:
    """Start the control plane here. All options are the server's: fermata up --help."""
    _become(context, SERVER_MODULE)


def backup(context: typer.Context) -> None:
    """Copy the store of a data folder here into a file, while it is in use: fermata backup --help."""
    _become(context, COPIES_MODULE, "backup")


def restore(context: typer.Context) -> None:
    """Make the store of a data folder here from a backup: fermata restore --help."""
    _become(context, COPIES_MODULE, "restore")


def _become(context: typer.Context, module: str, *words: str) -> None:
    data = settings_of(context).data
    if data is not None:
        os.environ["FERMATA_DATA"] = str(data)
    # The server's program takes this process's place: signals and the exit code are its own, and no bot ever
    # imports it.
    os.execv(sys.executable, [sys.executable, "-m", module, *words, *context.args])  # noqa: S606 - our own interpreter


def workers(
    context: typer.Context,
    dead: bool = typer.Option(False, "--all", help="Also those that are gone."),
    as_json: Json = False,
) -> None:
    """Workers, and how many runs each has."""
    with session(context, as_json) as opened:
        found = opened.client.workers.list(show_dead=dead)
        table = drawing.plain_table("Worker", "State", "Runs", "Node", "Process", "Heard of")
        for worker in found:
            table.add_row(
                Text(one_line(worker.worker, 60), style="bold"),
                Text(_state(worker)),
                Text(f"{worker.active_runs}/{worker.capacity}"),
                Text(one_line(worker.node, 60)),
                Text(str(worker.pid)),
                Text(drawing.ago(worker.heard_time)),
            )
        opened.output.show(table if found else Text("No workers.", style="dim"), document={"workers": found})


def _state(worker: worker_pb2.Worker) -> str:
    state = drawing.enum_word(worker_pb2.WorkerState.Name(worker.state), "WORKER_STATE_")
    return f"{state}, halted: {one_line(worker.file_latch, 60)}" if worker.file_latch else state


def version(as_json: Json = False) -> None:
    """The version of this program."""
    number = installed_version("fermata")
    Output(as_json=as_json).show(Text(f"fermata {number}"), document={"version": number})
