"""A store in memory, a clock that tests set, and a worker that is nothing but a name: the domain without any process."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from google.protobuf import json_format, struct_pb2
from sqlalchemy import StaticPool, create_engine, event, select

from fermata.server.agents import operations as agents
from fermata.server.agents.revisions import Revisions
from fermata.server.approvals import records as approvals
from fermata.server.latches import records as latches
from fermata.server.ledger.digests import call_digest
from fermata.server.ledger.gate import GateKeeper
from fermata.server.lifecycle import boundaries, budgets, decisions, latching, leases, reconnection, releasing
from fermata.server.lifecycle.schedule import Limits, Schedule
from fermata.server.lifecycle.start import NewRun, create_run
from fermata.server.names import Name
from fermata.server.policy import records as policies
from fermata.server.policy.book import PolicyBook
from fermata.server.principals import operations as principals
from fermata.server.runs import queries
from fermata.server.runs.record import last_event, open_run
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.server.store.publication import Publication
from fermata.server.threads import checkpoints, conversations
from fermata.v1 import agent_pb2, approval_pb2, latch_pb2, principal_pb2, run_pb2, thread_pb2, worker_pb2

T = TypeVar("T")
TENANT = "default"


class Room:
    """Which worker has room, as the test says."""

    def __init__(self) -> None:
        self.worker: str | None = None
        self.left: int | None = None
        self.granted: list[str] = []

    def choose(self, revision: str) -> str | None:
        return self.worker if self.left is None or self.left > 0 else None

    def taken(self, worker: str, run: str) -> None:
        self.granted.append(run)
        if self.left is not None:
            self.left -= 1

    def given_back(self, worker: str, run: str) -> None:
        self.granted.remove(run)
        if self.left is not None:
            self.left += 1


class World:
    """Operations on one store, each a transaction of its own. ``sent`` holds what workers were told."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.engine = connection.engine
        self._numbers = itertools.count(1)
        self.now = 1_000_000.0
        self.room = Room()
        self.revisions = Revisions()
        self.keeper = GateKeeper(self.revisions, PolicyBook(), budgets.stop_at_limit)
        self.leases = leases.Leases(
            self.revisions, PolicyBook(), self.room, Schedule(self.revisions, Limits())
        )
        self.sent: list[tuple[str, worker_pb2.ServerMessage]] = []
        self.published: list[run_pb2.Event] = []
        self.work_available = False
        self.runs_to_stop = False

    def tx(self, operation: Callable[[Transaction], T]) -> T:
        """Run an operation; what it raises undoes it, and it has then told nobody anything."""
        publication = Publication()
        try:
            with self._connection.begin():
                result = operation(Transaction(self._connection, self.now, publication))
        except BaseException:
            for undo in publication.undo:
                undo()
            raise
        self.sent += publication.to_workers
        self.published += [entry.event for entry in publication.events]
        self.work_available |= publication.work_available
        self.runs_to_stop |= publication.runs_to_stop
        return result

    # What people and services do

    def principal(self, name: str, *roles: str) -> str:
        values = [principal_pb2.Role.Value(f"ROLE_{role}") for role in roles]
        self.tx(
            lambda tx: principals.ensure(
                tx, TENANT, name, principal_pb2.PRINCIPAL_KIND_USER, values, f"token of {name}"
            )
        )
        return str(Name(TENANT, "principals", name))

    def policy(self, text: str) -> None:
        self.tx(lambda tx: policies.replace(tx, TENANT, text, "", "somebody"))

    def agent(
        self,
        name: str = "operator",
        policy: str = "",
        limits: agent_pb2.RunLimits | None = None,
        **effects: str,
    ) -> str:
        spec = agent_pb2.AgentSpec(graph=f"graphs:{name}", policy=policy, limits=limits)
        tools = [
            agent_pb2.ToolInfo(name=tool, effect=run_pb2.EffectClass.Value(f"EFFECT_CLASS_{effect}"))
            for tool, effect in effects.items()
        ]
        report = agent_pb2.GraphReport(tools=tools)
        self.tx(lambda tx: agents.apply(tx, TENANT, name, spec, report, "somebody"))
        return name

    def create(
        self,
        agent: str = "operator",
        thread: str = "",
        by: str = "ann",
        for_: str = "",
        strategy: str = "UNSPECIFIED",
        parent: str = "",
    ) -> str:
        value = thread_pb2.MultitaskStrategy.Value(f"MULTITASK_STRATEGY_{strategy}")
        wanted = NewRun(TENANT, agent, thread, "{}", by, for_, value, parent=parent)
        return self.tx(lambda tx: create_run(tx, self.leases, wanted))

    def thread(self, strategy: str = "UNSPECIFIED") -> str:
        """An empty thread's id."""
        value = thread_pb2.MultitaskStrategy.Value(f"MULTITASK_STRATEGY_{strategy}")
        made = self.tx(lambda tx: conversations.create(tx, TENANT, "{}", "ann", value))
        return made.name.rsplit("/", 1)[1]

    def claim(self) -> int:
        self.work_available = False
        return self.tx(self.leases.claim)

    def started(self, agent: str = "operator", worker: str = "w1", **values: Any) -> str:
        """A run that a worker has."""
        self.room.worker, self.room.left = worker, 1
        run = self.create(agent, **values)
        self.room.worker, self.room.left = None, None
        assert self.run(run).state == run_pb2.RUN_STATE_RUNNING
        return run

    def decide(
        self,
        approval: str,
        decision: str = "APPROVE",
        by: str = "bob",
        roles: tuple[str, ...] = ("approver",),
        digest: str | None = None,
        **values: str,
    ) -> None:
        row = self.approval(approval)
        decided = decisions.Decided(
            approval,
            approval_pb2.Decision.Value(f"DECISION_{decision}"),
            row.digest if digest is None else digest,
            by,
            roles=roles,
            **values,
        )
        self.tx(lambda tx: decisions.decide(tx, self.keeper, TENANT, decided))

    def latch(
        self,
        kind: str,
        scope: str,
        target: str = "",
        reason: str = "",
        expires_in: float = 0.0,
        on_expiry: str = "UNSPECIFIED",
    ) -> str:
        wanted = latching.NewLatch(
            latch_pb2.LatchKind.Value(f"LATCH_KIND_{kind}"),
            scope,
            target,
            reason,
            "eve",
            expires=self.now + expires_in if expires_in else 0.0,
            on_expiry=latch_pb2.OnExpiry.Value(f"ON_EXPIRY_{on_expiry}"),
        )
        return self.tx(lambda tx: latching.set_latch(tx, TENANT, wanted))

    def stop_the_rest(self) -> int:
        """What the server does after the commit of a latch over many runs; returns in how many commits."""
        commits = 0
        while self.runs_to_stop:
            self.runs_to_stop = False
            self.tx(latching.go_on_stopping)
            commits += 1
        return commits

    def release(self, latch: str) -> None:
        self.tx(lambda tx: releasing.release(tx, TENANT, latch, "eve"))

    # What a worker's hosts do

    def host(
        self, run: str, worker: str = "w1", epoch: int | None = None, **body: Any
    ) -> worker_pb2.HostReply:
        message = worker_pb2.HostMessage(lease=self.lease(run, epoch), id=next(self._numbers), **body)
        return self.receive(worker, message)

    def receive(self, worker: str, message: worker_pb2.HostMessage) -> worker_pb2.HostReply:
        return self.tx(lambda tx: boundaries.receive(tx, self.keeper, worker, message))

    def gate(
        self,
        run: str,
        tool: str = "turn",
        args: dict[str, Any] | None = None,
        step: str = "s1",
        effect: str = "UNSAFE",
        nonce: str = "",
        place: str = "",
        digest: str = "",
        **values: Any,
    ) -> worker_pb2.GateAnswer:
        wanted = worker_pb2.Gate(
            step=step,
            nonce=nonce or f"n{next(self._numbers)}",
            tool=tool,
            args=json.dumps(args or {}),
            digest=digest or f"digest of {step}",
            place=place,
            call_digest=call_digest(tool, args or {}),
            effect=run_pb2.EffectClass.Value(f"EFFECT_CLASS_{effect}"),
        )
        return self.host(run, gate=wanted, **values).gate

    def closed(self, run: str, nonce: str, step: str = "s1", outcome: str = "FINISHED", **values: Any) -> Any:
        closed = worker_pb2.StepClosed(
            step=step,
            nonce=nonce,
            outcome=run_pb2.StepOutcome.Value(f"STEP_OUTCOME_{outcome}"),
            text="done",
        )
        return self.host(run, step_closed=closed, **values)

    def park(self, run: str, *steps: str, latch: str = "") -> worker_pb2.HostReply:
        return self.host(run, park=worker_pb2.Park(asking_steps=steps, latch=latch))

    def interrupted(self, run: str, interrupt: str, value: Any) -> worker_pb2.HostReply:
        asked = struct_pb2.Value()
        json_format.ParseDict(value, asked)
        graph = worker_pb2.GraphInterrupt(interrupt_id=interrupt, value=asked)
        return self.host(run, park=worker_pb2.Park(interrupts=[graph]))

    def finish(self, run: str, **values: Any) -> worker_pb2.HostReply:
        return self.host(run, finish=worker_pb2.Finish(answer="done"), **values)

    def stop_report(self, run: str, worker: str = "w1", killed: bool = False, *not_started: str) -> None:
        report = worker_pb2.StopReport(lease=self.lease(run), killed=killed, not_started=not_started)
        self.tx(lambda tx: latching.stop_report(tx, worker, report))

    def lose(self, worker: str = "w1", *, dead: bool) -> None:
        self.tx(lambda tx: leases.lose_worker(tx, worker, "gone", dead=dead))

    def come_back(self, worker: str = "w1", *believed: worker_pb2.Lease) -> list[str]:
        """A worker connects again and says what it holds; returns what it is told."""
        self.sent.clear()
        self.tx(lambda tx: reconnection.catch_up(tx, self.leases, worker, believed))
        return self.told(worker)

    def lease(self, run: str, epoch: int | None = None) -> worker_pb2.Lease:
        message = self.run(run)
        return worker_pb2.Lease(run=message.name, epoch=message.epoch if epoch is None else epoch)

    def stores(self, run: str, *ids: str, namespace: str = "", **values: Any) -> worker_pb2.HostReply:
        """The host's checkpointer stores checkpoints of one channel each, the value being the checkpoint's id."""
        commit = worker_pb2.Commit()
        for id_ in ids:
            put = commit.checkpoints.add(namespace=namespace, checkpoint_id=id_)
            put.channels.add(
                channel="messages", version=id_, value=worker_pb2.Blob(type="t", data=id_.encode())
            )
            put.channel_versions["messages"] = id_
        return self.host(run, commit=commit, **values)

    # What can be seen

    def stored(self, thread: str, namespace: str = "") -> list[str]:
        """Ids of the checkpoints of a thread, oldest first; each must have its value."""
        wanted = worker_pb2.CheckpointQuery(namespace=namespace, list=True)
        found = self.tx(lambda tx: checkpoints.query(tx, TENANT, thread, wanted)).checkpoints
        for row in found:
            [channel] = row.put.channels
            assert channel.value.data.decode() == row.put.channel_versions["messages"]
        return [row.put.checkpoint_id for row in reversed(found)]

    def active_run(self, thread: str) -> str:
        """Id of the thread's active run; empty without one."""
        return self.tx(lambda tx: conversations.get(tx, TENANT, thread)).active_run.rsplit("/", 1)[-1]

    def facts(self, run: str, kind: str) -> dict[str, Any]:
        """The facts of a run's last event of a kind, and its type."""
        value = run_pb2.EventType.Value(f"EVENT_TYPE_{kind}")
        with_record = open_run(Transaction(self._connection, self.now, Publication()), TENANT, run)
        with self._connection.begin(), with_record as record:
            facts = last_event(self._connection, record, value)
        del facts["sequence"]
        return facts

    def run(self, run: str) -> run_pb2.Run:
        return self.tx(lambda tx: queries.get(tx, TENANT, run))

    def state(self, run: str) -> str:
        return run_pb2.RunState.Name(self.run(run).state).removeprefix("RUN_STATE_")

    def events(self, run: str) -> list[str]:
        table = schema.events.c
        query = select(table.type, table.sequence).where(table.run == run).order_by(table.n)
        rows = self.tx(lambda tx: tx.execute(query).fetchall())
        assert [row.sequence for row in rows] == list(range(1, len(rows) + 1)), "the history has a gap"
        return [run_pb2.EventType.Name(row.type).removeprefix("EVENT_TYPE_") for row in rows]

    def approval(self, approval: str) -> Any:
        return self.tx(lambda tx: approvals.find(tx, TENANT, approval))

    def pending(self, run: str) -> list[str]:
        rows = self.tx(lambda tx: approvals.of_run(tx, TENANT, run, approvals.PENDING))
        return [row.id for row in rows]

    def latch_message(self, latch: str) -> latch_pb2.Latch:
        return self.tx(lambda tx: latches.to_message(tx, latches.find(tx, TENANT, latch)))

    def latch_state(self, latch: str) -> str:
        return latch_pb2.LatchState.Name(self.latch_message(latch).state).removeprefix("LATCH_STATE_")

    def told(self, worker: str = "w1") -> list[str]:
        """What a worker was sent since the last look."""
        mine = [message for to, message in self.sent if to == worker]
        self.sent.clear()
        return [
            worker_pb2.StopMode.Name(message.stop.mode).removeprefix("STOP_MODE_")
            if message.HasField("stop")
            else str(message.WhichOneof("body"))
            for message in mine
        ]


@pytest.fixture
def world() -> Iterator[World]:
    engine = create_engine(
        "sqlite://",
        poolclass=StaticPool,
        connect_args={"isolation_level": None, "check_same_thread": False},
    )
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    schema.metadata.create_all(engine)
    with engine.connect() as connection:
        yield World(connection)
    engine.dispose()
