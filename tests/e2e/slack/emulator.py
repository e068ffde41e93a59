"""A Slack workspace for tests: npm's local-slack, which others have written, and people who act in it.

What it is and is not: a Web API, Socket Mode, signed events, modals and App Home of its own. It takes any token, checks no block, and
neither retries nor limits rates.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import psutil
import pytest

HERE = Path(__file__).parent
BINARY = HERE / "node_modules" / "local-slack-linux-x64" / "bin" / "local-slack"
REQUIRED = "REQUIRE_SLACK_EMULATOR"
"""Set where the emulator must be there, as in CI: its absence is then a failure and no reason to skip."""
BOT = "U0BOT"
CHANNEL = "C1"
WAIT_SECONDS = 60.0

T = TypeVar("T")
Message = dict[str, Any]


def require_emulator() -> None:
    """Skip, or fail where CI says that it must be there."""
    if BINARY.exists():
        return
    why = "the Slack emulator is not installed: make slack-emulator (it needs npm, on Linux x64)"
    if os.environ.get(REQUIRED):
        pytest.fail(why)
    pytest.skip(why)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with contextlib.closing(socket.socket()) as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@dataclass
class Emulator:
    """A running workspace."""

    url: str
    team: str
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """How a bot is told of it."""
        return {
            "SLACK_API_URL": f"{self.url}/api/",
            "SLACK_BOT_TOKEN": "xoxb-test-token",
            "SLACK_APP_TOKEN": "xapp-test-token",
            "SLACK_SIGNING_SECRET": "test-signing-secret",
        }


@contextlib.contextmanager
def emulator(
    folder: Path, *, team: str, request_url: str = "", port: int | None = None, channels: int = 1
) -> Iterator[Emulator]:
    """Start one. ``request_url``: where it sends events; Socket Mode where empty."""
    port = port or free_port()
    config = folder / f"{team}.json"
    app = {
        "appId": "A01APP",
        "botUserId": BOT,
        "botName": "fermata",
        "mode": "events" if request_url else "socket",
    }
    config.write_text(
        json.dumps(
            {
                "workspace": {"name": "Plant", "domain": "plant", "teamId": team},
                "apps": [app | ({"requestUrl": request_url} if request_url else {})],
                "users": [
                    {"id": "U1", "name": "operator", "real_name": "Operator"},
                    {"id": "U2", "name": "stranger", "real_name": "Stranger"},
                    {"id": "U3", "name": "viewer", "real_name": "Viewer"},
                    {"id": "U4", "name": "approver", "real_name": "Second approver"},
                ],
                "channels": [
                    {"id": f"C{n}", "name": f"line-{n + 2}", "members": ["U1", "U2", "U3", "U4", BOT]}
                    for n in range(1, channels + 1)
                ],
            }
        )
    )
    process = subprocess.Popen(
        [str(BINARY), "--config", str(config), "--port", str(port), "--base-host", "127.0.0.1"],
        env={**os.environ, "BUN_OPTIONS": f"--preload {HERE / 'loopback.ts'}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _require_loopback(process, port)
        yield Emulator(f"http://127.0.0.1:{port}", team, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _require_loopback(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until it listens, and see to it that it does so on loopback and nowhere else."""
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        listening = [
            one.laddr
            for one in psutil.Process(process.pid).net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        ]
        if listening:
            assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", port)], listening
            return
        time.sleep(0.02)
    raise AssertionError("the Slack emulator did not start")


class Workspace:
    """What people see and do there."""

    def __init__(self, at: Emulator, http: aiohttp.ClientSession) -> None:
        self.at = at
        self._http = http
        self._ui: aiohttp.ClientWebSocketResponse
        self._reader: asyncio.Task[None]
        self.modals: list[dict[str, Any]] = []
        self.errors: list[dict[str, str]] = []
        self.homes: dict[str, dict[str, Any]] = {}

    async def say(self, user: str, text: str, *, channel: str = CHANNEL, thread: str = "") -> str:
        """Say something; returns the message's ts."""
        body = {"channel": channel, "user": user, "text": text} | ({"thread_ts": thread} if thread else {})
        return str((await self._control("message", body))["message"]["ts"])

    async def command(self, user: str, text: str, *, channel: str = CHANNEL) -> None:
        """Type a slash command."""
        await self._control(
            "command", {"user": user, "channel": channel, "command": "/fermata", "text": text}
        )

    async def press(self, user: str, message: Message, action: str) -> None:
        """Press a button of a message, as it is shown now."""
        found = button(message, action)
        assert found is not None, (action, message)
        await self.press_shown(user, message, found)

    async def press_shown(self, user: str, message: Message, shown: dict[str, Any]) -> None:
        """Press a button as it was shown, which may be gone."""
        clicked = {"type": "button", "action_id": shown["action_id"], "value": shown["value"]}
        body = {"channel": message["channel"], "messageTs": message["ts"], "user": user, "action": clicked}
        await self._control("interact", body)

    async def open_home(self, user: str) -> dict[str, Any]:
        """Open App Home, and return what it shows."""
        self.homes.pop(user, None)
        await self._control("open-home", {"user": user})
        return await self.until("App Home is drawn", lambda: self.homes.get(user))

    async def modal(self) -> dict[str, Any]:
        """The modal that is open."""
        return await self.until("a modal is open", lambda: self.modals[-1] if self.modals else None)

    async def submit(self, user: str, values: dict[str, str]) -> None:
        """Submit the open modal with a text in each of its fields."""
        state = {
            block: {"value": {"type": "plain_text_input", "value": text}} for block, text in values.items()
        }
        self.errors.clear()
        await self._ui.send_str(json.dumps({"t": "view_submit", "user": user, "values": state}))

    async def direct(self, user: str) -> str:
        """The channel of a direct conversation with the bot."""
        async with self._http.post(f"{self.at.url}/api/conversations.open", data={"users": user}) as answer:
            return str((await answer.json())["channel"]["id"])

    async def messages(self, channel: str = CHANNEL, thread: str = "") -> list[Message]:
        """Messages of a channel in order; of one thread where it is given."""
        async with self._http.get(f"{self.at.url}/_control/messages/{channel}") as answer:
            found: list[Message] = (await answer.json())["messages"]
        return [one for one in found if not thread or thread in (one.get("thread_ts"), one["ts"])]

    async def log(self) -> list[dict[str, Any]]:
        """What has passed between bot and workspace."""
        async with self._http.get(f"{self.at.url}/_control/log") as answer:
            found: list[dict[str, Any]] = (await answer.json())["log"]
        return found

    async def seen(
        self, what: str, fits: Callable[[Message], bool], *, channel: str = CHANNEL, thread: str = ""
    ) -> Message:
        """Wait for a message that fits, and return it."""

        async def look() -> Message | None:
            return next((one for one in await self.messages(channel, thread) if fits(one)), None)

        return await self.eventually(what, look)

    async def until(self, what: str, ask: Callable[[], T | None]) -> T:
        """Wait until ``ask`` answers."""

        async def look() -> T | None:
            return ask()

        return await self.eventually(what, look)

    async def eventually(self, what: str, ask: Callable[[], Awaitable[T | None]]) -> T:
        """Wait until ``ask`` answers; what it looks at lies in another process."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            if answer := await ask():
                return answer
            await asyncio.sleep(0.02)
        told = "\n".join(text_of(one)[:300] for one in await self.messages())
        raise AssertionError(f"not within {WAIT_SECONDS:g} s: {what}\n{told}")

    async def _control(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._http.post(f"{self.at.url}/_control/{path}", json=body) as answer:
            found: dict[str, Any] = await answer.json()
        assert found.get("ok"), (path, found)
        return found

    async def _read(self) -> None:
        async for frame in self._ui:
            told = json.loads(frame.data)
            match told["t"]:
                case "view":
                    self.modals = list(told["stack"])
                case "view_errors":
                    self.errors.append(told["errors"])
                case "home":
                    self.homes[told["user"]] = told["view"]


@contextlib.asynccontextmanager
async def workspace(at: Emulator) -> AsyncIterator[Workspace]:
    """Look at a workspace, and act in it."""
    async with aiohttp.ClientSession() as http:
        found = Workspace(at, http)
        found._ui = await http.ws_connect(f"{at.url}/ui")
        found._reader = asyncio.create_task(found._read())
        try:
            yield found
        finally:
            found._reader.cancel()
            await found._ui.close()


def buttons(message: Message) -> list[dict[str, Any]]:
    """The buttons of a message."""
    return [
        element
        for block in message.get("blocks") or []
        for element in [
            *(block.get("elements") or []),
            *([block["accessory"]] if block.get("accessory") else []),
        ]
        if element.get("type") == "button"
    ]


def button(message: Message, action: str) -> dict[str, Any] | None:
    """A button of a message by its action."""
    return next((one for one in buttons(message) if one["action_id"] == action), None)


def text_of(message: Message) -> str:
    """All that a message says."""
    said = [str(message.get("text") or "")]
    for block in message.get("blocks") or []:
        parts = [block.get("text"), *(block.get("fields") or []), *(block.get("elements") or [])]
        said += [
            part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
        ]
    return "\n".join(said)
