"""Whatever people, workers and time do, and in whatever order: what was promised holds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from sqlalchemy import StaticPool, create_engine, event, select

from fermata.server.dispatch.sweeper import _silence
from fermata.server.errors import DomainError
from fermata.server.latches import records as latches
from fermata.server.latches.coverage import covers
from fermata.server.ledger import steps
from fermata.server.lifecycle.decisions import expire_due
from fermata.server.runs.record import subject_of
from fermata.server.runs.transitions import CANCELLED, ENDED, QUEUED
from fermata.server.store import schema
from fermata.v1 import approval_pb2, latch_pb2, worker_pb2

PROCEED = worker_pb2.GATE_VERDICT_PROCEED
WORKERS = st.sampled_from(["w1", "w2"])
STEPS = st.sampled_from(["s1", "s2"])
TOOLS = st.sampled_from(["turn", "look"])
STRATEGIES = st.sampled_from(["REJECT", "ENQUEUE", "INTERRUPT", "ROLLBACK"])
MIXED = """version: 1
rules:
  - {id: look, match: {tool: look}, decide: ALLOW}
  - {id: turn, match: {tool: turn}, decide: REQUIRE_APPROVAL, approval: {valid_for: 60s, on_timeout: HALT}}
"""
EXPECTED = {
    "STALE_EPOCH",
    "RUN_STATE",
    "THREAD_BUSY",
    "HALTED",
    "APPROVAL_DECIDED",
    "APPROVAL_EXPIRED",
    "RUN_ENDED",
    "DECISION_NOT_ALLOWED",
    "PARENT_RUN_ENDED",
}


class Histories(RuleBasedStateMachine):
    """One tenant, two workers, and everything that can happen to their runs."""

    runs = Bundle("runs")
    held = Bundle("held")
    world_type: Callable[[Any], Any]

    def __init__(self) -> None:
        super().__init__()
        self.engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"isolation_level": None})
        event.listen(self.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        schema.metadata.create_all(self.engine)
        self.connection = self.engine.connect()
        self.world = type(self).world_type(self.connection)
        self.world.agent()
        self.world.policy(MIXED)
        self.nonces: dict[tuple[str, str], str] = {}
        self.dead: set[str] = set()
        self.stored: dict[str, str] = {}
        """Which run has stored a checkpoint; empty where it was refused."""

    def teardown(self) -> None:
        self.connection.close()
        self.engine.dispose()

    def try_(self, operation: Callable[[], Any]) -> Any:
        """Run an operation; a refusal is one that callers are told of."""
        try:
            return operation()
        except DomainError as refused:
            if refused.reason not in EXPECTED:
                raise
            return None

    @rule(target=runs, worker=st.none() | WORKERS)
    def create(self, worker: str | None) -> Any:
        self.world.room.worker = worker
        run = self.try_(self.world.create)
        self.world.room.worker = None
        return run

    @rule(target=runs, run=runs, strategy=STRATEGIES, worker=st.none() | WORKERS)
    def create_beside(self, run: str | None, strategy: str, worker: str | None) -> Any:
        if run is None:
            return None
        thread = self.world.run(run).thread.rsplit("/", 1)[1]
        self.world.room.worker = worker
        created = self.try_(lambda: self.world.create(thread=thread, strategy=strategy))
        self.world.room.worker = None
        return created

    @rule(target=runs, run=runs, worker=st.none() | WORKERS)
    def create_child(self, run: str | None, worker: str | None) -> Any:
        if run is None:
            return None
        self.world.room.worker = worker
        created = self.try_(lambda: self.world.create(parent=run))
        self.world.room.worker = None
        return created

    @rule(worker=WORKERS)
    def falls_silent(self, worker: str) -> None:
        self.world.tx(lambda tx: _silence(tx, worker))

    @rule(run=runs, worker=WORKERS)
    def store(self, run: str | None, worker: str) -> None:
        if run is not None:
            checkpoint = f"{len(self.stored):04}"
            self.stored[checkpoint] = run
            if self.try_(lambda: self.world.stores(run, checkpoint, worker=worker)) is None:
                self.stored[checkpoint] = ""

    @rule(worker=WORKERS)
    def claim(self, worker: str) -> None:
        self.world.room.worker = worker
        self.world.claim()
        self.world.room.worker = None

    @rule(run=runs, step=STEPS, tool=TOOLS, worker=WORKERS)
    def gate(self, run: str | None, step: str, tool: str, worker: str) -> None:
        if run is None:
            return
        nonce = f"nonce {len(self.nonces)}"
        covered = self._is_covered(run, tool)
        answer = self.try_(
            lambda: self.world.gate(run, tool=tool, step=f"{tool} {step}", nonce=nonce, worker=worker)
        )
        if answer is not None and answer.verdict == PROCEED:
            assert not covered
            self.nonces[run, f"{tool} {step}"] = nonce

    @rule(run=runs, step=STEPS, tool=TOOLS, worker=WORKERS)
    def close_step(self, run: str | None, step: str, tool: str, worker: str) -> None:
        if (nonce := self.nonces.get((run or "", f"{tool} {step}"))) is not None:
            self.try_(lambda: self.world.closed(run, nonce, step=f"{tool} {step}", worker=worker))

    @rule(run=runs, step=STEPS, worker=WORKERS)
    def park(self, run: str | None, step: str, worker: str) -> None:
        if run is not None and not self._open(run):
            park = worker_pb2.Park(asking_steps=[f"turn {step}"])
            self.try_(lambda: self.world.host(run, worker=worker, park=park))

    @rule(run=runs, worker=WORKERS)
    def finish(self, run: str | None, worker: str) -> None:
        if run is not None and not self._open(run):
            self.try_(lambda: self.world.finish(run, worker=worker))

    @rule(run=runs, decision=st.sampled_from(["APPROVE", "REJECT", "GIVE_UP", "DO_AGAIN", "IT_HAPPENED"]))
    def decide(self, run: str | None, decision: str) -> None:
        for approval in self.world.pending(run or ""):
            self.try_(functools.partial(self.world.decide, approval, decision))

    @rule(
        target=held,
        kind=st.sampled_from(["HOLD", "HALT"]),
        scope=st.sampled_from(["tenant", "agent", "tool"]),
    )
    def latch(self, kind: str, scope: str) -> Any:
        target = {"tenant": "", "agent": "operator", "tool": "turn"}[scope]
        latch = self.world.latch(kind, scope, target)
        self.world.stop_the_rest()
        return latch

    @rule(
        target=held,
        kind=st.sampled_from(["HOLD", "HALT"]),
        scope=st.sampled_from(["run", "run_tree"]),
        run=runs,
    )
    def latch_run(self, kind: str, scope: str, run: str | None) -> Any:
        return self.world.latch(kind, scope, run) if run else self.world.latch("HOLD", "tool", "other")

    @rule(latch=consumes(held))
    def release(self, latch: str) -> None:
        self.world.release(latch)

    @rule(worker=WORKERS, dead=st.booleans())
    def lose(self, worker: str, dead: bool) -> None:
        self.world.lose(worker, dead=dead)

    @rule(worker=WORKERS, all_=st.booleans())
    def come_back(self, worker: str, all_: bool) -> None:
        table = schema.runs.c
        query = select(table.id).where(table.worker == worker)
        mine = self.world.tx(lambda tx: tx.execute(query).scalars().all())
        self.world.come_back(worker, *(self.world.lease(run) for run in mine if all_))

    @rule(run=runs, worker=WORKERS)
    def report_stop(self, run: str | None, worker: str) -> None:
        if run is not None:
            self.world.stop_report(run, worker)

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += seconds
        self.world.tx(expire_due)

    @invariant()
    def what_was_promised_holds(self) -> None:
        world = self.world
        runs = world.tx(lambda tx: tx.execute(select(schema.runs)).fetchall())
        threads = {row.id: row for row in world.tx(lambda tx: tx.execute(select(schema.threads)).fetchall())}
        active = world.tx(lambda tx: latches.active(tx, "default"))
        states = {latch.id: world.latch_state(latch.id) for latch in active}
        kept = set(world.tx(lambda tx: tx.execute(select(schema.checkpoints.c.id)).scalars().all()))
        for run in runs:
            mine = {checkpoint for checkpoint, by in self.stored.items() if by == run.id}
            assert mine & kept == (set() if run.rolls_back and run.state in ENDED else mine)
            world.events(run.id)
            ended = run.state in ENDED
            assert (threads[run.thread].active_run == run.id) == (not ended and not run.in_line)
            assert not run.in_line or (run.state == QUEUED and not run.worker)
            assert not run.in_line or threads[run.thread].active_run, "somebody waits behind nobody"
            if run.state == CANCELLED and run.epoch:
                assert not self._open(run.id), "another took its place, and an effect of it could still begin"
            assert ended == bool(run.ended)
            asked = [world.approval(approval) for approval in world.pending(run.id)]
            assert not ended or all(row.kind == approval_pb2.APPROVAL_KIND_RECOVERY for row in asked), (
                "an ended run asks nothing but what became of its effects"
            )
            subject = subject_of(run)
            for latch in active:
                if latch.kind == latch_pb2.LATCH_KIND_HALT and covers(latch, subject):
                    assert ended or states[latch.id] == "LATCHED", "settled, and a covered run has not ended"
                    assert states[latch.id] == "LATCHED" or not self._open(run.id), (
                        "settled, and an effect is still open"
                    )

    def _open(self, run: str) -> list[Any]:
        return self.world.tx(lambda tx: steps.open_steps(tx, "default", run))  # type: ignore[no-any-return]

    def _is_covered(self, run: str, tool: str) -> bool:
        query = select(schema.runs).where(schema.runs.c.id == run)
        subject = subject_of(self.world.tx(lambda tx: tx.execute(query).one()), tool)
        active = self.world.tx(lambda tx: latches.active(tx, "default"))
        return any(covers(latch, subject) for latch in active)


def test_whatever_happens_what_was_promised_holds(world: Any) -> None:
    machine = type("Machine", (Histories,), {"world_type": type(world)})
    case = machine.TestCase  # type: ignore[attr-defined]
    case.settings = settings(
        max_examples=30,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    case().runTest()
