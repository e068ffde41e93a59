"""The controller's actors on Ray."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from fermata.server.cluster.actors import AgentWorkerActor, EmbedderActor
from fermata.server.cluster.controller import ActorGoneError
from fermata.server.cluster.logs import LogSettings
from fermata.server.cluster.target import ServerTarget

log = logging.getLogger(__name__)

STOP_SECONDS = 3.0
MAX_ACCOUNT_CHARACTERS = 400
ANSWER_SECONDS = 30.0
"""An actor that was there already and does not answer for so long is ended."""


def connect_to_ray(address: str, namespace: str) -> None:
    """Connects this process as a driver. Blocks for about a second; a cluster that is not there takes some
    twenty.

    :param address: ``host:port`` of the cluster.
    :raises ConnectionError: it can't be reached, or refuses our token.
    """
    ray.init(
        address=address,
        namespace=namespace,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.WARNING,
    )


class RayActor:
    """An actor by its handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def worker_id(self) -> str:
        """The worker's id; empty for the embedder."""
        return str(await self._ask("start"))

    async def target(self) -> ServerTarget | None:
        """The server that it works for."""
        result = await self._ask("target")
        return result if isinstance(result, ServerTarget) else None

    async def wait_connected(self) -> None:
        """Returns once the server has welcomed the worker."""
        await self._ask("wait_connected")

    async def wait_dead(self) -> str:
        """Returns when the actor's process has ended: Ray's account of why, in one line."""
        try:
            await self._ask("wait_dead")
        except ActorGoneError as error:
            return str(error)
        return "it ended by itself"

    async def kill(self) -> None:
        """Ends hosts in order where the actor still answers, and then the process."""
        try:
            await asyncio.wait_for(self._ask("stop"), STOP_SECONDS)
        except ActorGoneError:
            return
        except TimeoutError:
            log.warning("an actor did not stop within %.0f s; it is killed", STOP_SECONDS)
        await asyncio.to_thread(ray.kill, self._handle, no_restart=True)

    async def _ask(self, method: str) -> object:
        try:
            return await getattr(self._handle, method).remote()
        except ray.exceptions.RayError as error:
            # Its first sentence; what follows are ids and addresses, which the log has.
            account = " ".join(str(error).split()).partition(" class_name:")[0]
            raise ActorGoneError(account[:MAX_ACCOUNT_CHARACTERS]) from error


class RayCluster:
    """Starts and finds actors. ``connect_to_ray`` comes first.

    :param target: the server that workers shall work for.
    :param cache: folder for packs, on each node.
    :param latch: the file that halts everything on a node.
    :param logs: folder for actors' logs, on nodes that have it.
    """

    def __init__(
        self,
        target: ServerTarget,
        *,
        cache: Path,
        latch: Path,
        capacity: int,
        namespace: str,
        log: LogSettings,
        logs: Path | None = None,
    ) -> None:
        self._target = target
        self._cache = cache
        self._latch = latch
        self._capacity = capacity
        self._namespace = namespace
        self._log = log
        self._logs = logs

    async def find(self, name: str) -> RayActor | None:
        """The living actor of this name that works for our server; one that works for another is ended."""
        try:
            handle = await asyncio.to_thread(ray.get_actor, name, namespace=self._namespace)
        except ValueError:
            return None
        actor = RayActor(handle)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await actor.worker_id()
                if not hasattr(handle, "target") or await actor.target() == self._target:
                    return actor
        except (ActorGoneError, TimeoutError):
            log.info("%s is there and does not answer", name)
        await actor.kill()
        return None

    async def start(self, name: str, worker_id: str) -> RayActor:
        """Starts the actor of this name; with an empty ``worker_id`` it is the embedder.

        :raises ActorGoneError: it can't be started.
        """
        actor = RayActor(await asyncio.to_thread(self._create, name, worker_id))
        await actor.worker_id()
        return actor

    def _create(self, name: str, worker_id: str) -> Any:
        settings = replace(self._log, file=self._logs / f"{name}.log") if self._logs else self._log
        options: dict[str, Any] = {
            "name": name,
            "namespace": self._namespace,
            "lifetime": "detached",
            # A repeated task is a repeated effect: whoever may repeat does so with a nonce, and not Ray.
            "max_restarts": 0,
            "max_task_retries": 0,
            # Placed by spread, not by counting cores: a worker mostly waits.
            "num_cpus": 0,
            "scheduling_strategy": "SPREAD",
        }
        try:
            if not worker_id:
                return ray.remote(EmbedderActor).options(**options).remote(settings)
            return (
                ray.remote(AgentWorkerActor)
                .options(**options)
                .remote(
                    self._target,
                    worker_id,
                    self._cache,
                    self._latch,
                    self._capacity,
                    self._namespace,
                    settings,
                )
            )
        except (ValueError, ray.exceptions.RayError) as error:
            raise ActorGoneError(f"{name} can't be started: {error}") from error
