"""How a worker starts zygotes: as children of its own, or of its warden."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol


class Spawned(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def returncode(self) -> int | None:
        """How it has ended, minus the signal's number where it was killed; None while that is not known."""

    async def wait(self) -> int:
        """Wait until it has ended: its return code. Of a warden's child, when everything is dead that it has left behind."""

    def kill(self) -> None:
        """End it at once."""


class Spawn(Protocol):
    """Starts a process that leads a session of its own."""

    async def __call__(
        self, command: Sequence[str], descriptors: Mapping[str, int], environment: Mapping[str, str]
    ) -> Spawned:
        """Start it.

        :param descriptors: by the flag behind which the process finds their number.
        :raises ChildProcessError: it may not be started, or there is nobody to start it.
        """


async def as_child(
    command: Sequence[str], descriptors: Mapping[str, int], environment: Mapping[str, str]
) -> Spawned:
    """A child of the calling process. What it leaves behind when it is killed is nobody's."""
    flags = [part for flag, number in descriptors.items() for part in (flag, str(number))]
    return await asyncio.create_subprocess_exec(
        *command,
        *flags,
        pass_fds=tuple(descriptors.values()),
        stdin=asyncio.subprocess.DEVNULL,
        env=dict(environment),
        start_new_session=True,
    )
