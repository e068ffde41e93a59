"""Play the factory story: ``python -m fermata.agents.factory.demo [--no-chat] [--data DIR]``."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from fermata.agents.factory.client import PLANT_URL_VARIABLE
from fermata.agents.factory.demo.narrator import Narrator
from fermata.agents.factory.demo.processes import ProcessFailedError, start_plane, start_plant, stop
from fermata.agents.factory.demo.story import AGENT, Story, StoryError
from fermata.client import Client, Connection, FermataError
from fermata.client.bundle import read

FACTORY = Path(__file__).parent.parent
COLLECTION = "factory"


async def play(data: Path, *, chat: bool) -> int:
    """Start everything, play the story, and end everything; 0 only if every check held."""
    console = Console(soft_wrap=True, highlight=False)
    tell = Narrator(console)
    began = time.monotonic()
    plant, plane = None, None
    interrupted = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        interrupted.set()
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    try:
        tell.scene("Starting")
        if not chat:
            tell.doing("there is no terminal, so the demo plays the person's part as well")
        tell.doing("starting the plant (OPC UA) and the control plane (server, Chroma, Ray, workers) ...")
        plant, plane = await asyncio.gather(start_plant(), start_plane(data))
        tell.checked(f"the plant serves {plant.url}")
        tell.checked(f"the control plane serves {plane.address}, ready after {plane.seconds:.1f} s")
        connection = Connection.discover(data=data)
        async with Client(connection) as client:
            await prepare(client, plant.url, tell)
            tell.doing(f"the story begins {time.monotonic() - began:.1f} s after the start")
            await Story(client, plant.url, tell).play()
        tell.scene("Every step of the story was checked")
        if chat:
            console.print(
                f"Now it is yours: talk with the agent, for example “how is line 3?”. /quit ends it. Data: {data}"
            )
            await _chat(data)
    except (StoryError, TimeoutError) as error:
        tell.failed(str(error) or "a scene took too long")
        return 1
    except (FermataError, ProcessFailedError) as error:
        tell.failed(str(error))
        return 1
    except asyncio.CancelledError:
        if not interrupted.is_set():
            raise
        tell.failed("interrupted")
        return 130
    finally:
        tell.doing("ending every process that was started ...")
        codes = [await stop(started.process) for started in (plane, plant) if started is not None]
        tell.doing(f"ended, exit codes {codes}")
    return 0 if codes == [0, 0] else 1


async def prepare(client: Client, plant_url: str, tell: Narrator) -> None:
    """Bring the factory's documents and its agent into a control plane."""
    (bundle,) = read(FACTORY / "agent.yaml", {**os.environ, PLANT_URL_VARIABLE: plant_url})
    for folder in ("runbooks", "manuals"):
        for path in sorted((FACTORY / folder).glob("*.md")):
            await client.collections.ingest(COLLECTION, f"{folder}/{path.name}", path.read_bytes())
    documents = await client.collections.documents(COLLECTION)
    tell.checked(f"{len(documents)} runbooks and manuals are in the knowledge base")
    agent = await client.agents.apply(AGENT, bundle.spec, pack=bundle.pack)
    tell.checked(f"the agent {AGENT} is applied, with {len(agent.revision.report.tools)} tools")


async def _chat(data: Path) -> None:
    command = [str(Path(sys.executable).with_name("fermata")), "--data", str(data), "chat", AGENT]
    await asyncio.to_thread(subprocess.run, command, check=False)


def main() -> int:
    """Parse the command line and play."""
    given = parser().parse_args()
    chat = sys.stdin.isatty() and sys.stdout.isatty() and not given.no_chat
    if given.data is not None:
        return asyncio.run(play(given.data, chat=chat))
    with tempfile.TemporaryDirectory(prefix="fermata-demo-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(play(Path(folder) / "data", chat=chat))


def parser() -> argparse.ArgumentParser:
    """The demo's own options."""
    options = argparse.ArgumentParser(
        "python -m fermata.agents.factory.demo", description="Play the factory story."
    )
    options.add_argument(
        "--data", type=Path, help="data folder; a temporary one that goes with the demo where not given"
    )
    options.add_argument(
        "--no-chat", action="store_true", help="play the person's part and end, also in a terminal"
    )
    return options


if __name__ == "__main__":
    raise SystemExit(main())
