"""One control plane with the factory for all tests of this folder, a Slack workspace for each mode, and the bot as people start it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console
from tests.e2e.slack.emulator import (
    CHANNEL,
    Emulator,
    Message,
    Workspace,
    button,
    emulator,
    free_port,
    require_emulator,
    text_of,
    workspace,
)

from fermata.agents.factory.client import PlantClient
from fermata.agents.factory.demo.__main__ import prepare
from fermata.agents.factory.demo.narrator import Narrator
from fermata.agents.factory.demo.processes import Plane, start_plane, start_plant, stop
from fermata.client import Client, Connection
from fermata.client.retry import RetryPolicy
from fermata.server.up.proc import die_with_parent
from fermata.v1 import approval_pb2, principal_pb2

FERMATA = str(Path(sys.executable).with_name("fermata"))
ROLES = principal_pb2.Role
PEOPLE = {
    "U1": ("ann", (ROLES.ROLE_OPERATOR, ROLES.ROLE_APPROVER)),
    "U3": ("vic", (ROLES.ROLE_VIEWER,)),
    "U4": ("bob", (ROLES.ROLE_OPERATOR, ROLES.ROLE_APPROVER)),
}
"""Slack user to principal. U2 is a stranger."""
TEAMS = ("T0SOCKET", "T0HTTP", "T0BROWSER")


@dataclass
class Factory:
    """The running factory and its control plane."""

    plane: Plane
    plant_url: str
    data: Path
    bot_token: Path
    people_tokens: dict[str, str] = field(default_factory=dict)

    def connection(self, token: str = "") -> Connection:
        return (
            Connection(self.plane.address, token)
            if token
            else Connection.discover(data=self.data, environment={})
        )

    async def line(self, line: str) -> dict[str, object]:
        """What the plant itself says."""
        async with PlantClient(self.plant_url) as plant:
            return {**await plant.read(line)}

    async def writes(self) -> int:
        """How many writes the plant has ever taken."""
        async with PlantClient(self.plant_url) as plant:
            return await plant.write_count()


@dataclass
class BotProcess:
    """``fermata bot slack`` in a process of its own."""

    command: list[str]
    environment: dict[str, str]
    said: Path
    process: subprocess.Popen[str] = field(init=False)
    ready: dict[str, object] = field(init=False)

    def start(self) -> None:
        log: IO[str] = self.said.open("a")
        with log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=die_with_parent,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the bot did not start:\n{self.said.read_text()[-3000:]}"
        self.ready = json.loads(line)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return int(self.process.returncode)


@dataclass
class Scene:
    """A person's view of a story: the workspace, the factory, and the API to check what is on record."""

    slack: Workspace
    factory: Factory
    client: Client
    bot: BotProcess

    async def card(self, thread: str, tool: str, *, channel: str = CHANNEL) -> Message:
        """The approval card of a tool in a thread, while it waits."""
        return await self.slack.seen(
            f"a card for {tool}",
            lambda one: tool in text_of(one) and button(one, "approval.halt") is not None,
            channel=channel,
            thread=thread,
        )

    async def approval(self, message: Message) -> approval_pb2.Approval:
        """The approval that a card shows."""
        shown = button(message, "approval.details")
        assert shown is not None
        return await self.client.approvals.get(str(shown["value"]).split(":")[0])

    async def now(self, message: Message) -> Message:
        """A message as it is now."""
        return next(
            one for one in await self.slack.messages(message["channel"]) if one["ts"] == message["ts"]
        )

    async def told(self, user: str, word: str) -> Message:
        """A notice for one person alone."""
        return await self.slack.seen(
            f"a notice with {word!r} for {user}",
            lambda one: one.get("ephemeral_to") == user and word in text_of(one),
        )


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    require_emulator()
    loop = asyncio.new_event_loop()
    folder = tmp_path_factory.mktemp("slack")
    plant = loop.run_until_complete(start_plant())
    plane = loop.run_until_complete(start_plane(folder / "data"))
    try:
        made = Factory(plane, plant.url, folder / "data", folder / "bot-token")
        loop.run_until_complete(_people(made))
        yield made
    finally:
        codes = [loop.run_until_complete(stop(one.process)) for one in (plane, plant)]
        loop.close()
    assert codes == [0, 0]


async def _people(factory: Factory) -> None:
    async with Client(factory.connection()) as client:
        await prepare(client, factory.plant_url, Narrator(Console(quiet=True)))
        bot = await client.principals.create(
            "slack", kind=principal_pb2.PRINCIPAL_KIND_BOT, roles=[ROLES.ROLE_OPERATOR]
        )
        factory.bot_token.write_text(bot.token)
        factory.bot_token.chmod(0o600)
        for user, (name, roles) in PEOPLE.items():
            made = await client.principals.create(name, kind=principal_pb2.PRINCIPAL_KIND_USER, roles=roles)
            factory.people_tokens[name] = made.token
            for team in TEAMS:
                await client.surfaces.link(f"slack.{team}.{user}", name)


def _bot(factory: Factory, at: Emulator, folder: Path, *arguments: str) -> BotProcess:
    command = [FERMATA, "--address", factory.plane.address, "--token-file", str(factory.bot_token)]
    command += ["bot", "slack", "--json", *arguments]
    return BotProcess(command, at.environment, folder / f"bot-{at.team}.log")


@pytest.fixture(scope="session")
def socket_mode(
    factory: Factory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Emulator, BotProcess]]:
    folder = tmp_path_factory.mktemp("socket")
    with emulator(folder, team="T0SOCKET") as at:
        bot = _bot(factory, at, folder)
        bot.start()
        yield at, bot
        assert bot.stop() == 0, bot.said.read_text()[-3000:]


@pytest.fixture(scope="session")
def http_mode(
    factory: Factory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Emulator, BotProcess]]:
    folder = tmp_path_factory.mktemp("http")
    port = free_port()
    with emulator(folder, team="T0HTTP", request_url=f"http://127.0.0.1:{port}/slack/events") as at:
        bot = _bot(factory, at, folder, "--http", "--port", str(port))
        bot.start()
        yield at, bot
        assert bot.stop() == 0, bot.said.read_text()[-3000:]


@pytest.fixture
async def fresh_scene(factory: Factory, tmp_path: Path) -> AsyncIterator[Scene]:
    """A workspace in which nothing was said yet."""
    with emulator(tmp_path, team="T0BROWSER") as at:
        bot = _bot(factory, at, tmp_path)
        bot.start()
        try:
            async with _scene(factory, (at, bot)) as found:
                yield found
        finally:
            code = bot.stop()
        assert code == 0, bot.said.read_text()[-3000:]


@contextlib.asynccontextmanager
async def _scene(factory: Factory, mode: tuple[Emulator, BotProcess]) -> AsyncIterator[Scene]:
    at, bot = mode
    patience = RetryPolicy(attempts=60, max_seconds=1.0)
    async with (
        Client(factory.connection(), deadline_seconds=60, retry=patience) as client,
        workspace(at) as slack,
    ):
        yield Scene(slack, factory, client, bot)


@pytest.fixture
async def scene(factory: Factory, socket_mode: tuple[Emulator, BotProcess]) -> AsyncIterator[Scene]:
    """In Socket Mode."""
    async with _scene(factory, socket_mode) as found:
        yield found


@pytest.fixture
async def http_scene(factory: Factory, http_mode: tuple[Emulator, BotProcess]) -> AsyncIterator[Scene]:
    """By signed requests."""
    async with _scene(factory, http_mode) as found:
        yield found


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Beside a failure, what the bot said last."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    for name in ("scene", "http_scene", "fresh_scene"):
        found = getattr(item, "funcargs", {}).get(name)
        if report.failed and isinstance(found, Scene):
            report.sections.append(("fermata bot slack", found.bot.said.read_text()[-6000:]))
