"""A client of the plant: one OPC UA connection for as long as its ``async with`` block.

A connection per call was chosen over one cached per event loop: it costs about 3 ms on loopback, which
nobody notices beside a line that takes seconds to change speed, and nothing is left running when a run is
halted or its loop ends.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from fermata.agents.factory import readings
from fermata.agents.factory.errors import PlantRefusedError, PlantUnavailableError
from fermata.agents.factory.opcua import node_id
from fermata.agents.factory.process import LINE_NAMES
from fermata.agents.factory.readings import Quantity, Reading, Trend

PLANT_URL_VARIABLE = "FERMATA_PLANT_URL"
DEFAULT_PLANT_URL = "opc.tcp://127.0.0.1:4840/fermata/plant"
REQUEST_TIMEOUT_SECONDS = 4.0
_SESSION_TIMEOUT_MS = 60_000


def plant_url() -> str:
    """The plant's address: ``FERMATA_PLANT_URL``, or the default on loopback."""
    return os.environ.get(PLANT_URL_VARIABLE) or DEFAULT_PLANT_URL


class PlantClient:
    """Reads and commands of one plant. Use it as ``async with PlantClient() as plant``.

    Every method raises :class:`PlantUnavailableError` when the plant is gone. Commands return the sequence
    number of their entry in the plant's journal, and raise :class:`PlantRefusedError` when the plant refuses
    them.

    :param url: ``opc.tcp://host:port/path``; by default what :func:`plant_url` says.
    """

    def __init__(self, url: str | None = None, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS) -> None:
        self.url = url or plant_url()
        parts = urlsplit(self.url)
        if parts.scheme != "opc.tcp" or not parts.hostname:
            raise PlantRefusedError(
                f"{self.url!r} is not the address of a plant: {PLANT_URL_VARIABLE} has to look like "
                f"{DEFAULT_PLANT_URL}.",
                reason="PLANT_URL_INVALID",
                url=self.url,
            )
        self._client = Client(self.url, timeout=timeout_seconds)
        self._client.session_timeout = _SESSION_TIMEOUT_MS
        self._connected = False

    async def __aenter__(self) -> Self:
        try:
            await self._client.connect()
        except (OSError, TimeoutError, UaError) as error:
            raise self._unavailable(error) from error
        self._connected = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A goodbye is only said to a plant that still answers; otherwise it would wait for its time limit.
        if self._connected and not isinstance(error, PlantUnavailableError | asyncio.CancelledError):
            await self._client.disconnect()
        else:
            self._client.disconnect_socket()

    async def read(self, line: str) -> dict[str, Reading]:
        """All readings and limits of a line as of one instant, by the names in ``readings``."""
        _known(line)
        nodes = [self._node(f"{line}.{name}") for name in readings.NAMES]
        async with self._answering():
            values = await self._client.read_values(nodes)
        return dict(zip(readings.NAMES, values, strict=True))

    async def trend(self, line: str, quantity: Quantity, minutes: float) -> Trend:
        """How a quantity moved in the last ``minutes`` (at most 120)."""
        _known(line)
        async with self._answering():
            times, samples = await self._node(line).call_method(
                node_id(f"{line}.ReadTrend"), quantity, float(minutes)
            )
        return readings.summarize(times, samples)

    async def document(self, name: str) -> list[dict[str, Any]]:
        """One of the plant's lists, oldest first: ``alarms``, ``orders``, ``messages`` or ``journal``."""
        async with self._answering():
            content: list[dict[str, Any]] = json.loads(await self._node(name).read_value())
        return content

    async def write_count(self) -> int:
        """How many commands the plant has accepted since it opened."""
        async with self._answering():
            count: int = await self._node("write_count").read_value()
        return count

    async def set_speed(self, line: str, rpm: float) -> int:
        """Give a line a new speed setpoint in rpm."""
        return await self._command(line, "SetSpeed", float(rpm))

    async def stop_line(self, line: str, reason: str) -> int:
        """Bring a line to a standstill."""
        return await self._command(line, "Stop", reason)

    async def start_line(self, line: str) -> int:
        """Run a line up to its setpoint."""
        return await self._command(line, "Start")

    async def acknowledge_alarm(self, line: str, code: str) -> int:
        """Acknowledge the active alarms of a code on a line."""
        return await self._command(line, "AcknowledgeAlarm", code)

    async def schedule_maintenance(self, line: str, task: str, within_hours: float, note: str = "") -> int:
        """Order maintenance on a line."""
        return await self._command(line, "ScheduleMaintenance", task, float(within_hours), note)

    async def notify_person(self, role: str, message: str) -> int:
        """Put a message for a role on the plant's board."""
        return await self._call("plant", "Notify", role, message)

    async def _command(self, line: str, method: str, *arguments: str | float) -> int:
        _known(line)
        return await self._call(line, method, *arguments)

    async def _call(self, parent: str, method: str, *arguments: str | float) -> int:
        async with self._answering(changing=method):
            accepted, sequence, reason, message = await self._node(parent).call_method(
                node_id(f"{parent}.{method}"), *arguments
            )
        if not accepted:
            raise PlantRefusedError(message, reason=reason)
        return int(sequence)

    def _node(self, name: str) -> Node:
        return self._client.get_node(node_id(name))

    @asynccontextmanager
    async def _answering(self, changing: str = "") -> AsyncIterator[None]:
        try:
            yield
        except UaStatusCodeError as error:
            raise PlantRefusedError(
                f"The plant rejected the request ({error}): check names and types of its arguments.",
                reason="PLANT_REJECTED_REQUEST",
                url=self.url,
            ) from error
        except (OSError, TimeoutError, UaError) as error:
            if changing:
                raise PlantUnavailableError(
                    f"The plant at {self.url} went away before it answered {changing}: the change may or "
                    "may not have happened. Read the line, or the plant's journal, before repeating it.",
                    reason="PLANT_OUTCOME_UNKNOWN",
                    url=self.url,
                    command=changing,
                ) from error
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> PlantUnavailableError:
        cause = str(error) or type(error).__name__
        return PlantUnavailableError(
            f"No plant answers at {self.url} ({cause}). Start one with 'python -m "
            f"fermata.agents.factory.plant', or set {PLANT_URL_VARIABLE} to its address.",
            reason="PLANT_UNAVAILABLE",
            url=self.url,
        )


def _known(line: str) -> None:
    if line not in LINE_NAMES:
        raise PlantRefusedError(
            f"There is no line {line!r}; the lines are {', '.join(LINE_NAMES)}.",
            reason="LINE_UNKNOWN",
            line=line,
        )
