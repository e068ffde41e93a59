"""Any process may die or freeze at any instant: every run still ends as it should, and nothing happens twice or goes missing.

Real processes of a real ``fermata up`` are killed and stopped while two dozen runs are at work on machines that count. A seed
makes the round: its runs, its faults, what the machines take and what people say. How the processes of one machine interleave is
not the seed's to say, so a round that is played again meets the same faults at the same stages, not at the same instruction.
A round that breaks a promise says which, what was killed or frozen when, and what the runs concerned have on record; the next one
starts with processes of its own.

Refused: processes found by name over the whole machine (others have such processes too), and a proxy in place of any of them.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from tests.chaos.people import People
from tests.chaos.plan import AGENTS, EVERY, Fault, Job, Plan, again, plan
from tests.chaos.processes import Processes, play
from tests.chaos.promises import Told, broken, never_twice, tell
from tests.chaos.recorder import Recorder
from tests.integration.plane.harness import Driver, Plane, line, script

from fermata.client import Client, FermataError
from fermata.client.retry import RetryPolicy
from fermata.client.runs import TERMINAL_STATES
from fermata.v1 import approval_pb2, run_pb2

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]

ROUND_SECONDS = 120.0
"""By then each run of a round has ended, or it never will."""
ASKING_SECONDS = 20.0
"""How long a round that has failed tries to learn what became of its runs."""

PATIENCE = RetryPolicy(attempts=200, attempts_before_contact=200, max_seconds=0.5)


@dataclass
class Scene:
    """A running ``fermata up``, and who has to do with it."""

    plane: Plane
    client: Client
    recorder: Recorder
    people: People
    processes: Processes
    watching: asyncio.Task[None]


class Scenes:
    """One ``fermata up`` serves ten rounds; what is killed often comes back ever later, and the rounds of a hundred should not."""

    def __init__(self, recorder: Recorder, folder: pytest.TempPathFactory) -> None:
        self._recorder = recorder
        self._folder = folder
        self._scene: Scene | None = None
        self.played = 0
        """Rounds that have begun."""
        self.twice: set[str] = set()
        """What has been said of effects that happened twice: once is enough, whichever round comes upon it."""

    async def next(self) -> Scene:
        """The scene of the next round."""
        if self._scene is None or self.played % EVERY == 0:
            await self.close()
            self._scene = await self._open()
        self.played += 1
        return self._scene

    async def close(self) -> None:
        """End what is running."""
        if (scene := self._scene) is None:
            return
        self._scene = None
        scene.watching.cancel()
        await asyncio.wait([scene.watching])
        await scene.client.close()
        assert await asyncio.to_thread(scene.plane.stop) == 0, scene.plane.tail()

    async def _open(self) -> Scene:
        data = self._folder.mktemp("chaos") / "data"
        plane = await asyncio.to_thread(Plane, data, "--workers", "2")
        client = Client(plane.connection(), deadline_seconds=ROUND_SECONDS, retry=PATIENCE)
        await Driver(plane, client).workers()
        for agent in AGENTS:
            await plane.agent(client, agent)
        people = People(client, self._recorder)
        watching = asyncio.create_task(people.watch())
        return Scene(plane, client, self._recorder, people, Processes(plane, self._recorder), watching)


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def scenes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scenes]:
    recorder = await Recorder().start()
    scenes = Scenes(recorder, tmp_path_factory)
    yield scenes
    await scenes.close()
    recorder.stop()
    assert not set(never_twice(recorder)) - scenes.twice


async def test_nothing_is_lost_and_nothing_happens_twice(
    scenes: Scenes, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, wanted = await scenes.next(), plan(seed)
    round_ = Round(scene, wanted, scenes.played)
    found = await round_.play()
    twice = set(never_twice(scene.recorder)) - scenes.twice
    scenes.twice |= twice
    found += sorted(twice)
    with capsys.disabled():
        print(f"\n  {round_.account()}", end=" ")
    if found:
        report = await round_.report(found)
        try:
            await scenes.close()
        finally:
            pytest.fail(report, pytrace=False)


class Round:
    """One seed's plan, played."""

    def __init__(self, scene: Scene, wanted: Plan, number: int) -> None:
        self._scene = scene
        self._wanted = wanted
        self._number = number
        self._began = time.monotonic()
        self._seconds = 0.0
        self._happened: list[str] = []
        self._names: list[str] = []
        """Runs that were acknowledged."""
        self._told: list[Told] = []

    async def play(self) -> list[str]:
        """Play to the end; returns a sentence for each promise that was broken."""
        playing, watching = asyncio.create_task(self._play()), self._scene.watching
        self._began = time.monotonic()
        await asyncio.wait([playing, watching], timeout=ROUND_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        found = []
        if not playing.done():
            found.append("people came upon it" if watching.done() else f"not over within {ROUND_SECONDS:g} s")
            playing.cancel()
            # What is frozen is woken first.
            await asyncio.wait([playing])
        self._seconds = time.monotonic() - self._began
        found += [_raised(task) for task in (playing, watching) if task.done() and not task.cancelled()]
        if not any(found):
            found += [one async for one in broken(self._told, self._scene.recorder, self._scene.people)]
        return [sentence for sentence in found if sentence]

    def account(self) -> str:
        """What was played, in a line."""
        effects = sum(
            len(self._scene.recorder.by_call.get(call, ()))
            for job in self._wanted.jobs
            for _, call in job.calls
        )
        deaths = sum(
            event.type == run_pb2.EVENT_TYPE_LEASE_LOST for told in self._told for event in told.events
        )
        asked = sum(
            approval.kind == approval_pb2.APPROVAL_KIND_RECOVERY
            for told in self._told
            for approval in told.approvals
        )
        return (
            f"seed {self._wanted.seed}: {self._seconds:.1f} s, {effects} effects, {deaths} leases lost, {asked} in doubt; "
            + "; ".join(self._happened)
        )

    async def report(self, found: list[str]) -> str:
        """All that a person needs to look into a round that has failed."""
        seed = self._wanted.seed
        return "\n".join(
            [
                f"Round {self._number}, seed {seed}, broke what was promised:",
                *(f"- {sentence}" for sentence in found),
                "",
                "What went wrong in it:",
                *(f"- {fault}" for fault in self._happened),
                f"Play it again: python -m pytest tests/chaos --rounds 1 --seed {seed}",
                "",
                *await self._histories(found),
                "",
                self._scene.plane.tail(),
            ]
        )

    async def _histories(self, found: list[str]) -> list[str]:
        """Of the runs that the sentences are about, and of those that have not ended."""
        parts = []
        for told in self._told:
            if any(told.run.name in sentence for sentence in found):
                parts += [told.run.name, *map(line, told.events)]
        try:
            async with asyncio.timeout(ASKING_SECONDS):
                parts += [text async for text in self._unfinished()]
        except (FermataError, TimeoutError) as error:
            parts.append(f"What else became of the runs can't be learned: {error!r}")
        return parts

    async def _play(self) -> None:
        scene, wanted = self._scene, self._wanted
        begin = scene.recorder.arrivals
        async with asyncio.TaskGroup() as group:
            for fault in wanted.faults:
                group.create_task(self._go_wrong(fault, begin + fault.after))
            runs = [group.create_task(self._run(job)) for job in wanted.jobs]
        async with asyncio.TaskGroup() as group:
            further = [
                group.create_task(self._run(again(job), run.result().thread))
                for job, run in zip(wanted.jobs, runs, strict=True)
            ]
        for job, run in zip([*wanted.jobs, *map(again, wanted.jobs)], [*runs, *further], strict=True):
            self._told.append(await tell(scene.client, job, run.result().name))

    async def _run(self, job: Job, thread: str = "") -> run_pb2.Run:
        text = script(*job.script(self._scene.recorder.port))
        run = await self._scene.client.runs.create(job.agent, text, thread=thread)
        self._names.append(run.name)
        await self._scene.people.ended(run.name)
        return run

    async def _go_wrong(self, fault: Fault, after: int) -> None:
        await self._scene.recorder.arrived(after)
        seconds = time.monotonic() - self._began + fault.delay_seconds
        self._happened.append(f"at {seconds:.2f} s, {await play(self._scene.processes, fault)}")

    async def _unfinished(self) -> AsyncIterator[str]:
        client = self._scene.client
        for name in self._names:
            run = await client.runs.get(name)
            if run.state not in TERMINAL_STATES:
                yield f"{name} is {run_pb2.RunState.Name(run.state)}"
                for event in await client.runs.events(name):
                    yield line(event)


def _raised(task: asyncio.Task[None]) -> str:
    error = task.exception()
    return "".join(traceback.format_exception(error)) if error is not None else ""
