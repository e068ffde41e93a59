"""The factory in a Slack workspace on this machine: ``python -m fermata.agents.factory.demo.slack``, as ``make demo-slack`` does.

The workspace is npm's local-slack, an emulator that others wrote; plant, control plane, agent and bot are the real ones. It goes on
until Ctrl-C, and a person plays in the browser: as the operator, who may do everything, or as a stranger, who may do nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import tempfile
from asyncio.subprocess import Process
from pathlib import Path

from rich.console import Console

from fermata.agents.factory.demo.__main__ import prepare
from fermata.agents.factory.demo.narrator import Narrator
from fermata.agents.factory.demo.processes import (
    ProcessFailedError,
    start_bot,
    start_emulator,
    start_plane,
    start_plant,
    stop,
)
from fermata.client import Client, Connection, FermataError
from fermata.v1 import principal_pb2

PORT = 3100
TEAM = "T0PLANT"
BOT_USER = "U0BOT"
OPERATOR = "U1"
CONFIG = {
    "workspace": {"name": "Plant", "domain": "plant", "teamId": TEAM},
    "apps": [{"appId": "A0FERMATA", "botUserId": BOT_USER, "botName": "fermata", "mode": "socket"}],
    "users": [
        {"id": OPERATOR, "name": "operator", "real_name": "Operator"},
        {"id": "U2", "name": "stranger", "real_name": "Stranger"},
    ],
    "channels": [{"id": "C1", "name": "line-3", "members": [OPERATOR, "U2", BOT_USER]}],
}
START_SECONDS = 20.0
POLL_SECONDS = 0.05


async def play(folder: Path, emulator: Path, preload: Path, port: int) -> int:
    """Start everything, and end it when a person says so."""
    console = Console(soft_wrap=True, highlight=False)
    tell = Narrator(console)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    started: list[Process] = []
    try:
        tell.doing("starting the plant, the control plane, and a Slack workspace ...")
        plant, plane = await asyncio.gather(start_plant(), start_plane(folder / "data"))
        started += [plant.process, plane.process]
        config = folder / "workspace.json"
        config.write_text(json.dumps(CONFIG))
        started.append(await start_emulator(emulator, preload, config, port))
        await _listens(port)
        token = folder / "bot-token"
        async with Client(Connection.discover(data=folder / "data")) as client:
            await prepare(client, plant.url, tell)
            bot = await client.principals.create(
                "slack", kind=principal_pb2.PRINCIPAL_KIND_BOT, roles=[principal_pb2.ROLE_OPERATOR]
            )
            token.touch(mode=0o600)
            token.write_text(bot.token)
            await client.surfaces.link(f"slack.{TEAM}.{OPERATOR}", "local")
        url = f"http://127.0.0.1:{port}"
        environment = {
            "SLACK_API_URL": f"{url}/api/",
            # The emulator takes any token.
            "SLACK_BOT_TOKEN": "xoxb-emulated",
            "SLACK_APP_TOKEN": "xapp-emulated",
        }
        started.append(await start_bot(plane.address, token, environment))
        tell.checked("the bot is in the workspace")
        console.print(
            f"\nOpen {url} and say in #line-3: “@fermata line 3 vibrates badly, deal with it”.\n"
            "Approve, Edit or Reject what it asks; type “stop” in the thread; try the same as Stranger. Ctrl-C ends it.\n"
        )
        await stopped.wait()
    except (FermataError, ProcessFailedError, TimeoutError) as error:
        tell.failed(str(error) or "it did not start in time")
        return 1
    finally:
        tell.doing("ending every process that was started ...")
        for process in reversed(started):
            await stop(process)
    return 0


async def _listens(port: int) -> None:
    """Wait for the emulator. :raises TimeoutError: where it does not come."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return
            await asyncio.sleep(POLL_SECONDS)


def main() -> int:
    """Parse the command line and play."""
    options = argparse.ArgumentParser(
        "python -m fermata.agents.factory.demo.slack", description="The factory in a Slack workspace."
    )
    options.add_argument("--emulator", type=Path, required=True, help="the program local-slack")
    options.add_argument("--preload", type=Path, required=True, help="what keeps it on loopback")
    options.add_argument("--port", type=int, default=PORT, help="where the workspace is")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fermata-demo-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(play(Path(folder), given.emulator.resolve(), given.preload.resolve(), given.port))


if __name__ == "__main__":
    raise SystemExit(main())
