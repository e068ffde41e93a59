"""The processes of the demo: started together, ended in reverse, each by its own id."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 120.0
STOP_SECONDS = 60.0

_STDERR_SHOWN = 4000


class ProcessFailedError(RuntimeError):
    """A process of the demo did not start; the message has what it last said."""


@dataclass(frozen=True, slots=True)
class Plant:
    """The running plant."""

    process: Process
    url: str


@dataclass(frozen=True, slots=True)
class Plane:
    """The running control plane."""

    process: Process
    address: str
    seconds: float


async def start_plant() -> Plant:
    """Start the plant with a worn bearing on line 3, on a free loopback port."""
    process = await _start(
        sys.executable,
        "-m",
        "fermata.agents.factory.plant",
        "--port=0",
        "--scenario=bearing-wear",
        "--seed=7",
        "--time-scale=5",
        "--ready-json",
    )
    ready = await _ready(process, "the plant")
    return Plant(process, ready["endpoint"])


async def start_plane(data: Path) -> Plane:
    """Start the control plane on a free loopback port, with its data in ``data``."""
    fermata = Path(sys.executable).with_name("fermata")
    process = await _start(str(fermata), "up", f"--data={data}", "--port=0", "--json")
    ready = await _ready(process, "fermata up")
    return Plane(process, ready["address"], float(ready.get("seconds", 0.0)))


async def start_emulator(binary: Path, preload: Path, config: Path, port: int) -> Process:
    """Start npm's local-slack on loopback. It says nothing that a program could wait for; ask its port.

    :param preload: keeps it from listening on all interfaces.
    """
    environment = {**os.environ, "BUN_OPTIONS": f"--preload {preload}"}
    return await asyncio.create_subprocess_exec(
        str(binary), "--config", str(config), "--port", str(port), "--base-host", "127.0.0.1",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    )  # fmt: skip


async def start_bot(address: str, token_file: Path, environment: Mapping[str, str]) -> Process:
    """Start ``fermata bot slack`` and wait until it is in Slack."""
    fermata = Path(sys.executable).with_name("fermata")
    process = await _start(
        str(fermata), "--address", address, "--token-file", str(token_file), "bot", "slack", "--json",
        environment=environment,
    )  # fmt: skip
    await _ready(process, "fermata bot slack")
    return process


async def stop(process: Process) -> int:
    """End a process with SIGTERM and return its exit code; SIGKILL where it does not end in time."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode


async def _start(*command: str, environment: Mapping[str, str] | None = None) -> Process:
    # A group of its own: Ctrl-C in the terminal is for the demo, which then ends its processes in order.
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )


async def _ready(process: Process, what: str) -> dict[str, Any]:
    """The JSON line with which a process says that it is ready."""
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[bytes] = []
    errors = asyncio.create_task(_drain(process.stderr, said))
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
    except TimeoutError:
        line = b""
    if not line:
        await stop(process)
        await errors
        tail = b"".join(said)[-_STDERR_SHOWN:].decode(errors="replace")
        raise ProcessFailedError(f"{what} did not start:\n{tail}")
    _background.add(errors)
    errors.add_done_callback(_background.discard)
    ready: dict[str, Any] = json.loads(line)
    return ready


async def _drain(stream: asyncio.StreamReader, said: list[bytes]) -> None:
    """Read what a process says on stderr, so that it never waits for a reader; keep the last lines."""
    async for line in stream:
        said.append(line)
        del said[:-200]


_background: set[asyncio.Task[None]] = set()
"""Readers of stderr that live as long as their processes."""
