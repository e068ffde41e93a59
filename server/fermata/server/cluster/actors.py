"""The classes that Ray runs as detached actors: thin shells around a worker and an embedder.

Their processes are ended with ``ray.kill``, never restarted by Ray. An actor that fails by itself ends its
process, for a death is something that the controller sees and a half-dead actor is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.exceptions
from numpy.typing import NDArray

from fermata.agents.runtime.processes import adopt_orphans, kill_strangers
from fermata.agents.runtime.warding import Warden
from fermata.server.cluster.controller import EMBEDDER
from fermata.server.cluster.logs import LogSettings
from fermata.server.cluster.target import ServerTarget

# What only the actors' own processes need is imported in them: the controller has these classes as well, to give them to Ray.
if TYPE_CHECKING:
    from fermata.agents.inference.batching import BatchingEmbedder
    from fermata.agents.inference.readings import Pair, Reading
    from fermata.server.cluster.hosts import Zygote
    from fermata.server.cluster.worker import Worker
    from fermata.v1.agent_pb2 import AgentSpec

log = logging.getLogger(__name__)

EMBEDDER_WAIT_SECONDS = 10.0
READER_WAIT_SECONDS = 60.0
"""A text with many tools takes a second, and others may wait in front of it."""
EMBEDDER_RETRY_SECONDS = 0.1
FAILED_EXIT_CODE = 70
_ZYGOTES = "fermata.server.cluster.zygotes"

Refusal = tuple[str, str]
"""Reason and message. An exception would lose its facts on the way through Ray."""


class AgentWorkerActor:
    """A worker in a process of its own.

    :param cache: folder for packs.
    :param latch: the file that halts everything on the machine.
    :param namespace: of the embedder's actor.
    """

    def __init__(
        self,
        target: ServerTarget,
        worker_id: str,
        cache: Path,
        latch: Path,
        capacity: int,
        namespace: str,
        log: LogSettings,
    ) -> None:
        from fermata.server.cluster.worker import Worker

        log.apply()
        self._target = target
        self._latch = latch
        self._warden: Warden | None = None
        models = EmbedderHandle(namespace)
        self._worker: Worker = Worker(
            target,
            cache=cache,
            start_zygote=self._start_zygote,
            embed=models.embed,
            read=models.read,
            capacity=capacity,
            worker_id=worker_id,
        )
        self._run: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Begins to work, and returns the worker's id. A repeat changes nothing."""
        if self._run is None:
            self._run = asyncio.create_task(self._work())
            self._run.add_done_callback(_end_process)
            self._warm = asyncio.create_task(self._warm_up())
        return self._worker.id

    async def _work(self) -> None:
        # What the warden can't end, should it be killed itself, comes here, and is ended with this process.
        adopt_orphans()
        self._warden = await Warden.start(
            self._worker.id, latch=self._latch, on_latch=self._worker.set_file_latch
        )
        without_warden = asyncio.create_task(self._warden.ended())
        without_warden.add_done_callback(_warden_ended)
        try:
            await self._worker.run()
        finally:
            without_warden.remove_done_callback(_warden_ended)
            await self._warden.close()

    async def _start_zygote(self, spec: AgentSpec, folder: Path | None) -> Zygote:
        """``zygotes.start_zygote``, whose imports take a second: not on the loop, and not before the worker is connected."""
        zygotes: Any = await asyncio.to_thread(importlib.import_module, _ZYGOTES)
        assert self._warden is not None
        zygote: Zygote = await zygotes.start_zygote(spec, folder, spawn=self._warden.spawn)
        return zygote

    async def _warm_up(self) -> None:
        """Once it is connected, what the first run will need is imported."""
        await self._worker.wait_connected()
        await asyncio.to_thread(importlib.import_module, _ZYGOTES)
        tune_garbage_collection()

    async def target(self) -> ServerTarget:
        """The server that it works for."""
        return self._target

    async def wait_connected(self) -> None:
        """Returns once the server has welcomed the worker."""
        await self._worker.wait_connected()

    async def wait_dead(self) -> None:
        """Never returns: the call fails when the process ends."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Ends hosts and zygotes in order. The process is to be killed after that."""
        if self._run is not None:
            self._run.remove_done_callback(_end_process)
            self._run.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._run


class EmbedderActor:
    """The embedding model and the reader, shared by all workers."""

    def __init__(self, log: LogSettings) -> None:
        from fermata.agents.inference.batching import BatchingEmbedder
        from fermata.agents.inference.embedder import OnnxEmbedder

        log.apply()
        model = OnnxEmbedder()
        self._batching: BatchingEmbedder = BatchingEmbedder(model.embed, dimensions=model.dimensions)
        self._reading = ThreadPoolExecutor(1, "reader")

    async def start(self) -> str:
        """Returns an empty worker id once the model is loaded."""
        tune_garbage_collection()
        return ""

    async def embed(self, texts: list[str]) -> NDArray[np.float32] | Refusal:
        """Texts to float32 (len(texts), dimensions), or why not."""
        from fermata.agents.inference.errors import InferenceError

        try:
            return await self._batching.embed(texts)
        except InferenceError as error:
            return error.reason, str(error)

    async def read(self, pairs: list[Pair]) -> list[Reading]:
        """A reading of each pair, one call at a time; the model is loaded at the first."""
        from fermata.agents.inference.readings import current_reader

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reading, lambda: current_reader().read(pairs))

    async def wait_dead(self) -> None:
        """Never returns: the call fails when the process ends."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Lets the batch in flight end."""
        await self._batching.close()


class EmbedderHandle:
    """Calls the embedder's actor, whichever has the name at the moment. To embed or to read again has no effect, so a
    lost call is repeated.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._actor: Any = None

    async def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Texts to float32 rows.

        :raises InferenceUnavailableError: no embedder came back in time, or it refuses these texts.
        """
        from fermata.server.cluster.worker import InferenceUnavailableError

        result: NDArray[np.float32] | Refusal = await self._answer("embed", texts, EMBEDDER_WAIT_SECONDS)
        if isinstance(result, tuple):
            reason, message = result
            raise InferenceUnavailableError(message, reason=reason)
        return result

    async def read(self, pairs: list[Pair]) -> list[Reading]:
        """Pairs to their readings.

        :raises InferenceUnavailableError: no reader answered in time.
        """
        result: list[Reading] = await self._answer("read", pairs, READER_WAIT_SECONDS)
        return result

    async def _answer(self, what: str, asked: list[Any], seconds: float) -> Any:
        from fermata.server.cluster.worker import InferenceUnavailableError

        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        if self._actor is None:
                            self._actor = await asyncio.to_thread(
                                ray.get_actor, EMBEDDER, namespace=self._namespace
                            )
                        return await getattr(self._actor, what).remote(asked)
                    except (ValueError, ray.exceptions.RayActorError):
                        self._actor = None
                        await asyncio.sleep(EMBEDDER_RETRY_SECONDS)
        except TimeoutError as error:
            raise InferenceUnavailableError(
                f"The cluster's models did not answer within {seconds:.0f} s ({what})."
            ) from error


def tune_garbage_collection() -> None:
    """What was imported lives as long as the process: full collections need not look at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1_000)


def _warden_ended(ended: asyncio.Task[int]) -> None:
    """Without a warden nothing here can be stopped for certain: end all that is left, and this process."""
    if not ended.cancelled():
        log.critical("the warden ended with %d", ended.result())
        kill_strangers(set())
        logging.shutdown()
        os._exit(FAILED_EXIT_CODE)


def _end_process(run: asyncio.Task[None]) -> None:
    error = None if run.cancelled() else run.exception()
    log.critical("the worker ended", exc_info=error)
    logging.shutdown()
    os._exit(FAILED_EXIT_CODE)
