"""Real halts under load, at random instants: before SETTLED only what the latch lists acts, and after it nothing.

Twenty rounds at once on one real ``fermata up``. A recorder outside receives what tools, children and daemons do, a line every
few milliseconds with the instant at which it left. A seed makes a round; how the processes interleave is not the seed's to say,
so a round that is played again meets the same halt at about the same stage.

``UNREACHABLE`` never appears here, frozen hosts and workers or not: that is for machines that can't be reached
(``test_a_halt_does_not_settle_while_a_host_is_out_of_reach``).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from tests.halts.plan import KINDS, WIDE, Plan, plan
from tests.halts.recorder import Recorder
from tests.integration.plane.harness import Driver, Plane, line, script

from fermata.client import Client, FermataError
from fermata.client.retry import RetryPolicy
from fermata.client.runs import TERMINAL_STATES
from fermata.v1 import latch_pb2, run_pb2

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="session")]

QUIET_SECONDS = 10.0
"""How long nothing may happen after the last of a batch has settled."""
SETTLE_SECONDS = 45.0
START_SECONDS = 30.0

PATIENCE = RetryPolicy(attempts=200, attempts_before_contact=200, max_seconds=0.5)


@dataclass
class Scene:
    """A running ``fermata up``, and who has to do with it."""

    plane: Plane
    client: Client
    driver: Driver
    recorder: Recorder


@dataclass
class Round:
    """A plan, and what came of it."""

    plan: Plan
    runs: list[str] = field(default_factory=list)
    """In the order of the plan's jobs; one that was refused has no name."""
    latch: latch_pb2.Latch = field(default_factory=latch_pb2.Latch)
    latched_at: float = 0.0
    settled_at: float = 0.0
    unreachable: bool = False
    frozen: list[psutil.Process] = field(default_factory=list)
    living: list[str] = field(default_factory=list)
    """Processes that were said to be killed and were there."""
    seen_settled: bool = False
    """By a fresh connection."""


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    recorder = await Recorder().start()
    plane = await asyncio.to_thread(Plane, tmp_path_factory.mktemp("halts") / "data", "--workers", "2")
    client = Client(plane.connection(), deadline_seconds=60, retry=PATIENCE)
    driver = Driver(plane, client)
    await driver.workers()
    for agent in sorted(set(KINDS.values())):
        await plane.agent(client, agent)
    yield Scene(plane, client, driver, recorder)
    await client.close()
    recorder.stop()
    assert await asyncio.to_thread(plane.stop) == 0, plane.tail()


async def test_before_settled_only_what_is_listed_acts_and_after_it_nothing(
    scene: Scene, seeds: Sequence[int], capsys: pytest.CaptureFixture[str]
) -> None:
    await scene.driver.workers()
    rounds = [Round(plan(seed)) for seed in seeds]
    wide = [one for one in rounds if one.plan.scope in WIDE]
    async with asyncio.TaskGroup() as group:
        for one in rounds:
            if one not in wide:
                group.create_task(play(scene, one))
    for one in wide:
        await play(scene, one)
    last = max(one.settled_at for one in rounds)
    await asyncio.sleep(max(0.0, last + QUIET_SECONDS - time.monotonic()))
    found = [sentence for one in rounds for sentence in await broken(scene, one)]
    for one in rounds:
        await scene.client.latches.release(one.latch.name)
    with capsys.disabled():
        print(f"\n  {account(scene, rounds)}", end=" ")
    if found:
        pytest.fail("\n".join([*found, "", scene.plane.tail()]), pytrace=False)


async def play(scene: Scene, one: Round) -> None:
    """Start the runs, halt them at their instant, and wait until that has settled."""
    await start(scene, one)
    await asyncio.sleep(one.plan.delay_seconds)
    one.frozen = await freeze(scene, one)
    waking = asyncio.create_task(wake(one.frozen, one.plan.wake_seconds))
    try:
        one.latch = await halt(scene, one)
        one.latched_at = time.monotonic()
        async with asyncio.timeout(SETTLE_SECONDS):
            await settle(scene, one)
    except TimeoutError:
        one.settled_at = time.monotonic()
    finally:
        await waking


async def start(scene: Scene, one: Round) -> None:
    """The first job, and those that are made for it, or wait on its thread."""
    thread = parent = ""
    for job in one.plan.jobs:
        run = await scene.client.runs.create(
            job.agent,
            script(*job.script(scene.recorder.port)),
            thread=thread,
            parent=parent,
            multitask_strategy="enqueue" if thread else None,
        )
        one.runs.append(run.name)
        thread = run.thread if one.plan.scope == "thread" else ""
        parent = one.runs[0] if one.plan.scope == "run with descendants" else ""


async def halt(scene: Scene, one: Round) -> latch_pb2.Latch:
    """The latch of the plan's scope."""
    latches, first = scene.client.latches, one.runs[0]
    match one.plan.scope:
        case "run":
            return await latches.halt(run=first)
        case "run with descendants":
            return await latches.halt(run=first, descendants=True)
        case "thread":
            return await latches.halt(thread=(await scene.client.runs.get(first)).thread)
        case "agent":
            return await latches.halt(agent=one.plan.jobs[0].agent)
        case "everything":
            return await latches.halt(everything=True)
    return await latches.halt(all_tenants=True)


async def settle(scene: Scene, one: Round) -> None:
    """Follow the latch's report to SETTLED; then see it over a fresh connection, and look for who is said to be dead."""
    async with aclosing(scene.client.latches.watch(one.latch.name)) as reports:
        async for report in reports:
            one.latch = report
            one.unreachable |= any(
                step.status == latch_pb2.LATCH_STEP_STATUS_UNREACHABLE for step in report.steps
            )
            if report.state == latch_pb2.LATCH_STATE_SETTLED:
                break
    one.settled_at = time.monotonic()
    async with Client(scene.plane.connection()) as fresh:
        seen = await fresh.latches.get(one.latch.name)
    one.seen_settled = seen.state == latch_pb2.LATCH_STATE_SETTLED
    killed = {step.step for step in one.latch.steps if step.status == latch_pb2.LATCH_STEP_STATUS_KILLED}
    for call in [call for name, call in (await calls_of(scene, one)).items() if name in killed]:
        for pid in scene.recorder.processes({call}):
            if alive(pid):
                one.living.append(f"{call} was said to be killed, and its process {pid} was there")


async def calls_of(scene: Scene, one: Round) -> dict[str, str]:
    """The round's calls by their steps' names."""
    found = {}
    for run in one.runs:
        for step in await scene.client.runs.steps(run):
            if step.kind == "tool":
                found[step.name] = str(dict(step.args)["call"])
    return found


async def broken(scene: Scene, one: Round) -> list[str]:
    """A sentence for each promise that was broken."""
    found = list(one.living)
    if one.latch.state != latch_pb2.LATCH_STATE_SETTLED:
        found.append(f"it has not settled within {SETTLE_SECONDS:g} s:\n{one.latch}")
    elif not one.seen_settled:
        found.append("a fresh connection did not see it settled")
    if one.unreachable:
        found.append("something was said to be unreachable")
    if any(step.status == latch_pb2.LATCH_STEP_STATUS_OPEN for step in one.latch.steps):
        found.append("it has settled with an open step")
    steps = await calls_of(scene, one)
    listed = {steps[step.step] for step in one.latch.steps if step.step in steps}
    covered = set(one.latch.runs)
    for name, job in zip(one.runs, one.plan.jobs, strict=True):
        run = await scene.client.runs.get(name)
        if run.state not in TERMINAL_STATES:
            found.append(f"{name} is {run_pb2.RunState.Name(run.state)}")
        if name not in covered:
            continue
        for call in job.calls:
            for effect in scene.recorder.by_call.get(call, ()):
                late = (effect.sent - one.settled_at) * 1000
                if late > 0:
                    found.append(f"{call} acted {late:.1f} ms after SETTLED, from process {effect.pid}")
                    break
                early = (effect.sent - one.latched_at) * 1000
                if early > 0 and call not in listed:
                    found.append(f"{call} is not listed, and acted {early:.1f} ms after LATCHED")
                    break
    if found:
        return [f"{one.plan}:", *(f"- {sentence}" for sentence in found), *await histories(scene, one)]
    return []


async def histories(scene: Scene, one: Round) -> list[str]:
    """The round's runs, and what they have on record."""
    told: list[str] = []
    for name in one.runs:
        with contextlib.suppress(FermataError):
            told += [name, *map(line, await scene.client.runs.events(name))]
    return told


async def freeze(scene: Scene, one: Round) -> list[psutil.Process]:
    """Stop a process of the round's first run that has acted, or its worker; none where there is none yet."""
    if one.plan.freeze == "nothing":
        return []
    if one.plan.freeze == "worker":
        run = await scene.client.runs.get(one.runs[0])
        pids = [worker.pid for worker in await scene.client.workers.list() if worker.worker == run.worker]
    else:
        pids = sorted(scene.recorder.processes(one.plan.jobs[0].calls))
    found = []
    for pid in pids[-1:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
            found[-1].send_signal(signal.SIGSTOP)
    return found


async def wake(frozen: Sequence[psutil.Process], seconds: float) -> None:
    """Let them go on, if they are still there."""
    if not frozen:
        return
    await asyncio.sleep(seconds)
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def account(scene: Scene, rounds: Sequence[Round]) -> str:
    """What was played, in a line."""
    steps = [step for one in rounds for step in one.latch.steps]
    ends = {
        latch_pb2.LatchStepStatus.Name(status).removeprefix("LATCH_STEP_STATUS_").lower(): count
        for status in latch_pb2.LatchStepStatus.values()
        if (count := sum(step.status == status for step in steps))
    }
    slowest = max(one.settled_at - one.latched_at for one in rounds)
    effects = sum(
        len(scene.recorder.by_call.get(call, ()))
        for one in rounds
        for job in one.plan.jobs
        for call in job.calls
    )
    frozen = sum(bool(one.frozen) for one in rounds)
    return (
        f"{len(rounds)} halts, {frozen} of what is frozen, {effects} effects, {len(steps)} listed {ends}, "
        f"the slowest settled after {slowest:.1f} s;"
    )
