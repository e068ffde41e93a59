"""What the worker needs from run hosts and the zygotes that fork them. ``zygotes`` implements it; tests have
their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fermata.v1.agent_pb2 import AgentSpec, GraphReport
from fermata.v1.worker_pb2 import HostMessage, ServerMessage


@dataclass(frozen=True)
class HostExit:
    """How a host's process ended, as its parent saw it."""

    exit_code: int
    """The exit code, or minus the signal's number."""
    stderr: str = ""
    """What it last wrote there, at most 4 KiB."""


class GraphNotLoadedError(Exception):
    """A revision's graph can't be loaded on this machine. ``reason`` is a stable code; ``detail`` a
    traceback, or empty.
    """

    def __init__(self, reason: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.detail = detail


class ZygoteGoneError(Exception):
    """A zygote's process has ended, and its hosts with it."""


class HostProcess(Protocol):
    """A process in which runs of one revision run."""

    @property
    def pid(self) -> int:
        """Its process id, which is also its process group's."""

    def send(self, message: ServerMessage) -> None:
        """Queues a message for the host. Never blocks; to a host that has ended it does nothing.

        :raises BufferError: the host has not read for so long that its queue is full, or no frame holds the message.
        """

    async def receive(self) -> HostMessage | None:
        """The next message; ``None`` once the host has closed its end."""

    async def kill(self) -> HostExit:
        """Ends the process and all its children, and returns once it is confirmed dead. A repeat returns the
        same.
        """

    async def ended(self) -> HostExit:
        """Waits until the process has ended."""


class Zygote(Protocol):
    """The process from which one revision's hosts are forked."""

    async def fork(self) -> HostProcess:
        """A new host.

        :raises ZygoteGoneError: the zygote has ended.
        :raises GraphNotLoadedError: the graph can't be loaded.
        """

    async def inspect(self) -> GraphReport:
        """What is in the graph. Raises as ``fork`` does."""

    async def close(self) -> None:
        """Ends the zygote and its hosts, and returns once they are dead. A repeat does nothing."""


class StartZygote(Protocol):
    """Starts the zygote of a revision."""

    async def __call__(self, spec: AgentSpec, folder: Path | None) -> Zygote:
        """The zygote of a revision whose pack is unzipped in ``folder``; ``None`` where it has none.

        :raises ZygoteGoneError: it ended at once.
        """
