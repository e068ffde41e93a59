"""A disk that is full or can't be written, and a wall clock that is set by hours: clear errors, nothing half done, and no lease,
effect or decision that would not be there otherwise."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.unit.rpc.test_leases_over_time import TENANT, Line

from fermata.server.agents import operations as agents
from fermata.server.approvals import records as approvals
from fermata.server.dispatch import sweeper
from fermata.server.dispatch.channel import LEASE_SECONDS
from fermata.server.errors import DomainError
from fermata.server.lifecycle import deadlines, decisions
from fermata.server.lifecycle.start import NewRun, create_run
from fermata.server.plane import ControlPlane
from fermata.server.runs import queries
from fermata.server.store import schema
from fermata.server.store.database import Database, StoreTroubleError
from fermata.v1 import agent_pb2, approval_pb2, run_pb2, worker_pb2

HOURS = 3600.0


class Clocks:
    """The two clocks of a machine; only the wall clock can be set."""

    def __init__(self) -> None:
        self.wall, self.since_boot = 1_000_000.0, 50.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.since_boot


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def plane(tmp_path: Path, empty_store: Path, clocks: Clocks) -> AsyncIterator[ControlPlane]:
    shutil.copy(empty_store, tmp_path / "fermata.db")
    opened = await ControlPlane.over(tmp_path / "fermata.db", clocks, Database)
    report = agent_pb2.GraphReport(
        tools=[agent_pb2.ToolInfo(name="turn", effect=run_pb2.EFFECT_CLASS_UNSAFE)]
    )
    spec = agent_pb2.AgentSpec(graph="graphs:operator")
    await opened.write(lambda tx: agents.apply(tx, TENANT, "operator", spec, report, "ann"))
    yield opened
    await opened.close()


async def create(plane: ControlPlane, text: str = "{}", **values: Any) -> str:
    wanted = NewRun(TENANT, "operator", "", text, "ann", "", **values)
    return await plane.write(lambda tx: create_run(tx, plane.leases, wanted))


async def run_of(plane: ControlPlane, run: str) -> run_pb2.Run:
    return await plane.read(lambda connection: queries.get(connection, TENANT, run))


async def counts(plane: ControlPlane) -> dict[str, int]:
    """Rows by table."""

    def operation(connection: Any) -> dict[str, int]:
        tables = (schema.runs, schema.threads, schema.events, schema.steps, schema.gates, schema.approvals)
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in tables
        }

    return await plane.read(operation)


def writer(plane: ControlPlane) -> sqlite3.Connection:
    driver = plane.database._writer.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


@contextmanager
def full_disk(plane: ControlPlane) -> Iterator[None]:
    """The file can't have one page more than it has."""
    store = writer(plane)
    store.execute("PRAGMA max_page_count = 1").fetchone()
    yield
    store.execute("PRAGMA max_page_count = 1000000").fetchone()


@contextmanager
def read_only_store(plane: ControlPlane) -> Iterator[None]:
    """What SQLite says is what it says of a file that can't be written."""
    store = writer(plane)
    store.execute("PRAGMA query_only = ON")
    yield
    store.execute("PRAGMA query_only = OFF")


TROUBLES = {"full": (full_disk, "full"), "read-only": (read_only_store, "readonly")}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_run_that_the_disk_does_not_take_is_refused_whole_and_its_worker_stays_free(
    plane: ControlPlane, trouble: str
) -> None:
    fails, word = TROUBLES[trouble]
    line = Line(plane, "w1")
    await line.hear("welcome")
    # Behind what its coming writes.
    await plane.write(lambda tx: None)
    before = await counts(plane)
    big = '{"text": "' + "x" * 500_000 + '"}'
    with fails(plane):
        for _ in range(3):
            with pytest.raises(StoreTroubleError, match=word) as refused:
                await create(plane, big)
            assert refused.value.retryable
        assert await counts(plane) == before
    assert [message.WhichOneof("body") for message in _heard(line)] in ([], ["warm"], ["inspect"])
    worker = plane.workers.get("w1")
    assert worker is not None
    assert worker.runs == set()
    run = await create(plane, big)
    assert ((await run_of(plane, run)).worker, (await run_of(plane, run)).epoch) == ("w1", 1)


def _heard(line: Line) -> list[worker_pb2.ServerMessage]:
    return [line.told.get_nowait() for _ in range(line.told.qsize())]


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_no_effect_starts_whose_start_the_disk_does_not_take(plane: ControlPlane, trouble: str) -> None:
    fails, _ = TROUBLES[trouble]
    line = Line(plane, "w1")
    await line.hear("welcome")
    run = await create(plane)
    lease = (await line.hear("assign")).lease
    args = '{"note": "' + "y" * 300_000 + '"}'
    gate = worker_pb2.Gate(step="s1", nonce="n1", tool="turn", args=args, digest="d", call_digest="c")
    before = await counts(plane)
    with fails(plane):
        line.say(host=worker_pb2.HostMessage(lease=lease, id=1, gate=gate))
        # The stream ends without an answer; a refusal would be taken for one.
        await asyncio.wait_for(line.task, 5)
        assert not [message for message in _heard(line) if message.HasField("host_reply")]
        assert await counts(plane) == before
    back = Line(plane, "w1", lease)
    assert not (await back.hear("welcome")).lost
    back.say(host=worker_pb2.HostMessage(lease=lease, id=1, gate=gate))
    assert (await back.hear("host_reply")).gate.verdict == worker_pb2.GATE_VERDICT_ASK
    assert ((await run_of(plane, run)).worker, (await run_of(plane, run)).epoch) == ("w1", 1)


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_decision_that_the_disk_does_not_take_is_not_made(plane: ControlPlane, trouble: str) -> None:
    fails, _ = TROUBLES[trouble]
    line = Line(plane, "w1")
    await line.hear("welcome")
    asked = await _ask(plane, line, await create(plane))
    decided = decisions.Decided(
        asked.id,
        approval_pb2.DECISION_APPROVE,
        asked.digest,
        "bob",
        roles=("approver",),
        comment="z" * 300_000,
    )
    with fails(plane):
        with pytest.raises(StoreTroubleError):
            await plane.write(lambda tx: decisions.decide(tx, plane.keeper, TENANT, decided))
        assert (await _approval(plane, asked.id)).state == approvals.PENDING
    await plane.write(lambda tx: decisions.decide(tx, plane.keeper, TENANT, decided))
    assert (await _approval(plane, asked.id)).state == approvals.APPROVED


async def _ask(plane: ControlPlane, line: Line, run: str, nonce: str = "n") -> Any:
    """The run's host asks for a call and parks; the row of the approval."""
    lease = (await line.hear("assign")).lease
    gate = worker_pb2.Gate(step="s1", nonce=nonce, tool="turn", args="{}", digest="d", call_digest="c")
    line.say(host=worker_pb2.HostMessage(lease=lease, id=1, gate=gate))
    line.say(host=worker_pb2.HostMessage(lease=lease, id=2, park=worker_pb2.Park(asking_steps=["s1"])))
    for _ in range(2):
        await line.hear("host_reply")
    (row,) = await plane.read(lambda connection: approvals.of_run(connection, TENANT, run))
    return row


async def _approval(plane: ControlPlane, approval: str) -> Any:
    return await plane.read(lambda connection: approvals.find(connection, TENANT, approval))


# -- clocks

JUMPS = [-5 * HOURS, 5 * HOURS]


@pytest.mark.parametrize("seconds", JUMPS)
async def test_a_wall_clock_that_is_set_ends_no_lease_and_grants_none_twice(
    plane: ControlPlane, clocks: Clocks, seconds: float
) -> None:
    lines = [Line(plane, "w1"), Line(plane, "w2")]
    for line in lines:
        await line.hear("welcome")
    runs = [await create(plane) for _ in range(4)]
    holders = [((await run_of(plane, run)).worker, (await run_of(plane, run)).epoch) for run in runs]
    clocks.wall += seconds
    await sweeper.look_at_workers(plane)
    await plane.write(plane.leases.claim)
    clocks.wall -= seconds
    await sweeper.look_at_workers(plane)
    await plane.write(plane.leases.claim)
    assert [((await run_of(plane, run)).worker, (await run_of(plane, run)).epoch) for run in runs] == holders


@pytest.mark.parametrize("seconds", JUMPS)
async def test_a_silent_worker_loses_its_lease_after_its_term_wherever_the_wall_clock_goes(
    plane: ControlPlane, clocks: Clocks, seconds: float
) -> None:
    line = Line(plane, "w1")
    await line.hear("welcome")
    run = await create(plane)
    clocks.wall += seconds
    clocks.since_boot += LEASE_SECONDS + 1
    await sweeper.look_at_workers(plane)
    other = Line(plane, "w2")
    assert (await other.hear("assign")).lease.epoch == 2
    assert (await run_of(plane, run)).worker == "w2"


async def test_a_clock_that_jumps_ahead_turns_unanswered_questions_into_a_no_and_back_again_does_not_revive_them(
    plane: ControlPlane, clocks: Clocks
) -> None:
    line = Line(plane, "w1")
    await line.hear("welcome")
    asked = await _ask(plane, line, await create(plane))
    clocks.wall += 5 * HOURS
    decided = decisions.Decided(
        asked.id, approval_pb2.DECISION_APPROVE, asked.digest, "bob", roles=("approver",)
    )
    with pytest.raises(DomainError) as refused:
        await plane.write(lambda tx: decisions.decide(tx, plane.keeper, TENANT, decided))
    assert refused.value.reason == "APPROVAL_EXPIRED"
    assert await plane.write(decisions.expire_due) == 1
    clocks.wall -= 5 * HOURS
    with pytest.raises(DomainError) as refused:
        await plane.write(lambda tx: decisions.decide(tx, plane.keeper, TENANT, decided))
    assert refused.value.reason == "APPROVAL_EXPIRED"


async def test_what_was_approved_before_a_clock_jumped_ahead_is_asked_about_again_before_it_is_done(
    plane: ControlPlane, clocks: Clocks
) -> None:
    line = Line(plane, "w1")
    await line.hear("welcome")
    run = await create(plane)
    asked = await _ask(plane, line, run)
    decided = decisions.Decided(
        asked.id, approval_pb2.DECISION_APPROVE, asked.digest, "bob", roles=("approver",)
    )
    await plane.write(lambda tx: decisions.decide(tx, plane.keeper, TENANT, decided))
    lease = (await line.hear("resume")).lease
    clocks.wall += 5 * HOURS
    gate = worker_pb2.Gate(step="s1", nonce="n2", tool="turn", args="{}", digest="d", call_digest="c")
    line.say(host=worker_pb2.HostMessage(lease=lease, id=3, gate=gate))
    assert (await line.hear("host_reply")).gate.verdict == worker_pb2.GATE_VERDICT_ASK


async def test_a_clock_that_jumps_back_ends_no_deadline_early_and_keeps_histories_in_order(
    plane: ControlPlane, clocks: Clocks
) -> None:
    line = Line(plane, "w1")
    await line.hear("welcome")
    run = await create(plane, deadline=clocks.wall + HOURS)
    clocks.wall -= 5 * HOURS
    assert await plane.write(deadlines.expire_due) == 0
    lease = (await line.hear("assign")).lease
    finish = worker_pb2.Finish(answer="done")
    line.say(host=worker_pb2.HostMessage(lease=lease, id=1, finish=finish))
    await line.hear("host_reply")
    events = [event.event for event in plane.hub.after(0) or ()]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].time.seconds < events[0].time.seconds
    assert (await run_of(plane, run)).state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_deadline_that_a_clock_jumps_over_ends_its_run_once(
    plane: ControlPlane, clocks: Clocks
) -> None:
    run = await create(plane, deadline=clocks.wall + HOURS)
    clocks.wall += 5 * HOURS
    assert await plane.write(deadlines.expire_due) == 1
    clocks.wall -= 5 * HOURS
    assert await plane.write(deadlines.expire_due) == 0
    assert (await run_of(plane, run)).state == run_pb2.RUN_STATE_EXPIRED
    assert await plane.write(plane.leases.claim) == 0
