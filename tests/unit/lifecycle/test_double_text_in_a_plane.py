"""Double text with a real store and its one writer: messages that come at the same instant, and a server that is started again."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import select

from fermata.server.agents import operations as agents
from fermata.server.errors import DomainError
from fermata.server.lifecycle import boundaries, latching
from fermata.server.lifecycle.start import NewRun, create_run
from fermata.server.live.workers import ConnectedWorker
from fermata.server.plane import ControlPlane
from fermata.server.runs import queries
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.store.migrate import migrate
from fermata.server.threads import conversations
from fermata.v1 import agent_pb2, latch_pb2, run_pb2, thread_pb2, worker_pb2

TENANT = "default"
ENQUEUE = thread_pb2.MULTITASK_STRATEGY_ENQUEUE
INTERRUPT = thread_pb2.MULTITASK_STRATEGY_INTERRUPT
ROLLBACK = thread_pb2.MULTITASK_STRATEGY_ROLLBACK


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    opened = await _open(tmp_path)
    await _apply(opened, "operator")
    yield opened
    await opened.close()


async def _apply(plane: ControlPlane, agent: str) -> None:
    spec = agent_pb2.AgentSpec(graph=f"graphs:{agent}")
    await plane.write(lambda tx: agents.apply(tx, TENANT, agent, spec, agent_pb2.GraphReport(), "somebody"))


async def _open(data: Path) -> ControlPlane:
    plane = await ControlPlane.open(data)
    plane.workers.add(ConnectedWorker("w1", "here", 1, 8, plane.clock.monotonic()))
    return plane


def _asked(plane: ControlPlane, thread: str, strategy: Any = ENQUEUE) -> Callable[[Transaction], str]:
    wanted = NewRun(TENANT, "operator", thread, "{}", "ann", "", strategy)
    return lambda tx: create_run(tx, plane.leases, wanted)


async def _thread(plane: ControlPlane) -> str:
    made = await plane.write(lambda tx: conversations.create(tx, TENANT, "{}", "ann"))
    return made.name.rsplit("/", 1)[1]


def _says(plane: ControlPlane, run: str, **body: Any) -> Callable[[Transaction], Any]:
    """What the host of a run's first lease says."""
    lease = worker_pb2.Lease(run=f"tenants/{TENANT}/runs/{run}", epoch=1)
    return lambda tx: boundaries.receive(
        tx, plane.keeper, "w1", worker_pb2.HostMessage(lease=lease, id=1, **body)
    )


def _stopped(run: str) -> Callable[[Transaction], None]:
    lease = worker_pb2.Lease(run=f"tenants/{TENANT}/runs/{run}", epoch=1)
    return lambda tx: latching.stop_report(tx, "w1", worker_pb2.StopReport(lease=lease))


async def _state(plane: ControlPlane, run: str) -> str:
    found = await plane.read(lambda connection: queries.get(connection, TENANT, run))
    return run_pb2.RunState.Name(found.state).removeprefix("RUN_STATE_")


async def _active(plane: ControlPlane, thread: str) -> str:
    found = await plane.read(lambda connection: conversations.get(connection, TENANT, thread))
    return found.active_run.rsplit("/", 1)[-1]


async def _runs(plane: ControlPlane, state: Any) -> list[str]:
    query = select(schema.runs.c.id).where(schema.runs.c.state == state).order_by(schema.runs.c.n)
    return list(await plane.read(lambda connection: connection.execute(query).scalars().all()))


async def test_a_server_that_starts_finds_the_line_as_it_was(plane: ControlPlane, tmp_path: Path) -> None:
    thread = await _thread(plane)
    first = await plane.write(_asked(plane, thread))
    line = [await plane.write(_asked(plane, thread)) for _ in range(3)]
    await plane.close()
    again = await _open(tmp_path)
    try:
        assert await again.write(again.leases.claim) == 0, "nothing overtakes the run that goes on"
        assert await _active(again, thread) == first
        await again.write(_says(again, first, finish=worker_pb2.Finish()))
        for run in line:
            assert await _active(again, thread) == run
            await again.write(again.leases.claim)
            assert await _state(again, run) == "RUNNING"
            await again.write(_says(again, run, finish=worker_pb2.Finish()))
        assert await _active(again, thread) == ""
    finally:
        await again.close()


async def test_a_server_that_starts_goes_on_with_an_interrupt(plane: ControlPlane, tmp_path: Path) -> None:
    thread = await _thread(plane)
    first = await plane.write(_asked(plane, thread))
    second = await plane.write(_asked(plane, thread, INTERRUPT))
    await plane.close()
    again = await _open(tmp_path)
    try:
        assert [await _state(again, run) for run in (first, second)] == ["HALTING", "QUEUED"]
        await again.write(_stopped(first))
        assert await _state(again, first) == "CANCELLED"
        await again.write(again.leases.claim)
        assert await _state(again, second) == "RUNNING"
    finally:
        await again.close()


@pytest.mark.parametrize("strategy", [INTERRUPT, ROLLBACK])
@pytest.mark.parametrize("message_first", [True, False])
async def test_an_interrupt_and_the_end_of_its_run_in_one_flush(
    plane: ControlPlane, strategy: Any, message_first: bool
) -> None:
    thread = await _thread(plane)
    first = await plane.write(_asked(plane, thread))
    put = worker_pb2.CheckpointPut(checkpoint_id="c1")
    finish = _says(plane, first, commit=worker_pb2.Commit(checkpoints=[put]), finish=worker_pb2.Finish())
    message = _asked(plane, thread, strategy)
    operations: list[Any] = [message, finish] if message_first else [finish, message]
    # Submitted without an await in between, so that the writer takes both at once.
    futures = [plane.database.submit(operation) for operation in operations]
    second = (await futures[0], await futures[1])[operations.index(message)]
    await plane.write(plane.leases.claim)
    assert await _active(plane, thread) == second
    assert await _state(plane, second) == "RUNNING"
    assert await _state(plane, first) == ("CANCELLED" if message_first else "SUCCEEDED")
    kept = await plane.read(lambda connection: connection.execute(select(schema.checkpoints)).fetchall())
    # A run that had ended is no part of what is rolled back.
    assert len(kept) == (0 if message_first and strategy == ROLLBACK else 1)


async def test_many_interrupts_at_once_leave_one_run(plane: ControlPlane) -> None:
    thread = await _thread(plane)
    first = await plane.write(_asked(plane, thread))
    futures = [plane.database.submit(_asked(plane, thread, INTERRUPT)) for _ in range(10)]
    asked = [await future for future in futures]
    assert await _state(plane, first) == "HALTING"
    assert [await _state(plane, run) for run in asked] == ["CANCELLED"] * 9 + ["QUEUED"]
    await plane.write(_stopped(first))
    assert await _active(plane, thread) == asked[-1]
    await plane.write(plane.leases.claim)
    assert await _runs(plane, run_pb2.RUN_STATE_RUNNING) == [asked[-1]]


async def test_a_refused_message_changes_nothing_of_the_line(plane: ControlPlane) -> None:
    thread = await _thread(plane)
    first = await plane.write(_asked(plane, thread))
    waiting = await plane.write(_asked(plane, thread))
    halt = latching.NewLatch(latch_pb2.LATCH_KIND_HALT, "agent", "other", "", "eve")
    await _apply(plane, "other")
    await plane.write(lambda tx: latching.set_latch(tx, TENANT, halt))
    wanted = NewRun(TENANT, "other", thread, "{}", "ann", "", INTERRUPT)
    with pytest.raises(DomainError) as refused:
        await plane.write(lambda tx: create_run(tx, plane.leases, wanted))
    assert refused.value.reason == "HALTED"
    assert [await _state(plane, run) for run in (first, waiting)] == ["RUNNING", "QUEUED"]


def test_a_store_of_the_version_before_is_brought_forward_with_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "fermata.db"
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    command.upgrade(config, "0002")
    with sqlite3.connect(path) as store:
        _insert(store, "threads", tenant=TENANT, id="t1", active_run="r1")
        _insert(store, "runs", tenant=TENANT, id="r1", thread="t1", state=run_pb2.RUN_STATE_RUNNING, epoch=1)
        _insert(store, "checkpoint_writes", tenant=TENANT, thread="t1", checkpoint="c1", data=b"x")
    store.close()
    migrate(path)
    with sqlite3.connect(path) as store:
        run = store.execute("SELECT state, in_line, successor, rolls_back, base FROM runs").fetchall()
        assert run == [(run_pb2.RUN_STATE_RUNNING, 0, "", 0, -1)]
        assert store.execute("SELECT active_run, multitask_strategy FROM threads").fetchall() == [("r1", 0)]
        assert store.execute("SELECT data, run FROM checkpoint_writes").fetchall() == [(b"x", "")]
    store.close()


def _insert(store: sqlite3.Connection, table: str, **values: Any) -> None:
    """A row with what is named; every other column gets the empty value of its type."""
    for _, column, kind, *_, is_key in store.execute(f"PRAGMA table_info({table})").fetchall():
        if not (is_key and column == "n"):
            values.setdefault(column, "" if kind == "TEXT" else b"" if kind == "BLOB" else 0)
    names = ", ".join(f'"{column}"' for column in values)
    store.execute(
        f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", [*values.values()]
    )
