"""A worker and a server in memory, at the other end of a host's socket. Gates are answered by rules that a test sets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.protobuf import json_format
from langgraph.graph import StateGraph

from fermata.agents.inference.embeddings import use_backend
from fermata.agents.runtime import gate, models
from fermata.agents.runtime.calls import TrackedExecutor
from fermata.agents.runtime.frames import FrameStream, socket_pair
from fermata.agents.runtime.host import Host, run_host
from fermata.v1 import agent_pb2, run_pb2, worker_pb2

V = worker_pb2


class Ledger:
    """What a server keeps: checkpoints, steps, events; and the rules that a test sets.

    ``policy`` maps a tool to allow, ask, refuse, hold or halt; ``approved`` holds approvals that a person has decided.
    """

    def __init__(self) -> None:
        self.policy: dict[str, str] = {}
        self.approved: dict[str, str] = {}
        self.edits: dict[str, dict[str, Any]] = {}
        self.gates: list[V.Gate] = []
        self.closed: list[V.StepClosed] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.parks: list[V.Park] = []
        self.finish: V.Finish | None = None
        self.finishes: dict[str, V.Finish] = {}
        self.resume_on_park = False
        self.stopped: list[V.HostStopped] = []
        self.deltas: list[run_pb2.TokenDelta] = []
        self.steps: dict[str, V.StepClosed | None] = {}
        self.threads: dict[str, str] = {}
        self.checkpoints: dict[tuple[str, str], dict[str, V.CheckpointPut]] = {}
        self.values: dict[tuple[str, str, str, str], V.ChannelBlob] = {}
        self.writes: dict[tuple[str, str, str], dict[str, V.CheckpointWrites]] = {}
        self.chunks: dict[tuple[str, bytes], V.Chunk] = {}
        self.models: dict[str, V.ModelRecord] = {}
        self.order: list[str] = []
        self.refuse_commits: run_pb2.RunError | None = None
        self.unanswered: set[str] = set()
        """Kinds of messages that are taken and not answered."""
        self.on_gate: Callable[[V.Gate], V.GateAnswer | None] = lambda gate: None

    def starts(self, tool: str) -> int:
        """How often the ledger let the tool start."""
        return sum(entry == f"start {tool}" for entry in self.order)

    def commit(self, thread: str, commit: V.Commit) -> None:
        for put in commit.checkpoints:
            self.order.append(f"checkpoint {put.namespace}")
            place = f"{thread}/{put.thread}"
            self.checkpoints.setdefault((place, put.namespace), {})[put.checkpoint_id] = put
            for blob in put.channels:
                self.values[(place, put.namespace, blob.channel, blob.version)] = blob
            self.chunks.update({(place, chunk.digest): chunk for chunk in put.chunks})
        for task in commit.writes:
            rows = self.writes.setdefault((f"{thread}/{task.thread}", task.namespace, task.checkpoint_id), {})
            rows.setdefault(
                task.task_id, V.CheckpointWrites(task_id=task.task_id, task_path=task.task_path)
            ).writes.extend(task.writes)
        for event in commit.events:
            name = run_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_")
            self.events.append((name, json_format.MessageToDict(event.data)))
        for record in commit.models:
            self.models[record.key] = record

    def read(self, thread: str, query: V.CheckpointQuery) -> V.CheckpointReply:
        thread = f"{thread}/{query.thread}"
        rows = self.checkpoints.get((thread, query.namespace), {})
        wanted = [query.checkpoint_id] if query.checkpoint_id else sorted(rows, reverse=True)
        if not query.list:
            wanted = wanted[:1]
        reply = V.CheckpointReply()
        for key in wanted:
            if key not in rows or (query.before and key >= query.before):
                continue
            stored = V.StoredCheckpoint(put=rows[key])
            del stored.put.channels[:]
            for channel, version in rows[key].channel_versions.items():
                if (value := self.values.get((thread, query.namespace, channel, version))) is not None:
                    stored.put.channels.append(value)
            stored.writes.extend(self.writes.get((thread, query.namespace, key), {}).values())
            reply.checkpoints.append(stored)
            if query.list and len(reply.checkpoints) == query.limit:
                break
        reply.chunks.extend(chunk for (place, _), chunk in self.chunks.items() if place == thread)
        return reply

    def gate(self, gate: V.Gate) -> V.GateAnswer:
        self.gates.append(gate)
        if (answer := self.on_gate(gate)) is not None:
            return answer
        record = self.steps.get(gate.step)
        if record is not None and record.outcome != run_pb2.STEP_OUTCOME_NOT_STARTED:
            self.order.append(f"recorded {gate.tool}")
            return V.GateAnswer(
                verdict=V.GATE_VERDICT_RECORDED,
                outcome=record.outcome,
                result=record.result,
                message=record.error,
            )
        rule = self.policy.get(gate.tool, "allow")
        approval = f"tenants/t/approvals/{gate.step[:12]}"
        if rule == "ask":
            decision = self.approved.get(approval)
            if decision == "reject":
                return V.GateAnswer(
                    verdict=V.GATE_VERDICT_REFUSE, reason="REJECTED", message="A person said no."
                )
            if decision is None:
                self.order.append(f"ask {gate.tool}")
                return V.GateAnswer(verdict=V.GATE_VERDICT_ASK, approval=approval)
        if rule == "refuse":
            return V.GateAnswer(
                verdict=V.GATE_VERDICT_REFUSE, reason="POLICY_DENIED", message=f"{gate.tool} is forbidden."
            )
        if rule == "hold":
            return V.GateAnswer(verdict=V.GATE_VERDICT_STOP, latch="tenants/t/latches/hold", reason="HELD")
        if rule == "halt":
            return V.GateAnswer(verdict=V.GATE_VERDICT_STOP, latch="tenants/t/latches/halt", reason="HALTED")
        self.steps[gate.step] = None
        self.order.append(f"start {gate.tool}")
        edited = self.edits.get(gate.tool)
        return V.GateAnswer(
            verdict=V.GATE_VERDICT_PROCEED,
            attempt=1,
            idempotency_key=f"key-{gate.step[:8]}",
            edited_args=json.dumps(edited) if edited else "",
        )


class FakeWorker:
    """The other end of a host's socket."""

    def __init__(self, ledger: Ledger, stream: FrameStream[V.WorkerMessage]) -> None:
        self.ledger = ledger
        self.stream = stream
        self.ready = asyncio.Event()
        self.changed = asyncio.Condition()
        self.closed = False
        self.task = asyncio.create_task(self._serve())
        self.lease = V.Lease(run="tenants/t/runs/r1", epoch=1)

    async def assign(self, value: Any = None, **facts: Any) -> None:
        assign = V.Assign(
            lease=facts.pop("lease", self.lease),
            thread=facts.pop("thread", "tenants/t/threads/th1"),
            agent="tenants/t/agents/a",
            revision=facts.pop("revision", "tenants/t/agents/a/revisions/1"),
            spec=facts.pop("spec", agent_pb2.AgentSpec()),
            shared_host=facts.pop("shared_host", True),
            **facts,
        )
        if value is not None:
            assign.input.update(value)
        self.lease = assign.lease
        self.ledger.threads[assign.lease.run] = assign.thread
        self.stream.send(V.ServerMessage(assign=assign))

    def resume(self, answers: dict[str, Any] | None = None, number: int = 0) -> None:
        resume = V.Resume(lease=self.lease, number=number)
        for key, value in (answers or {}).items():
            resume.answers.append(
                V.InterruptAnswer(
                    interrupt_id=key, value=json_format.ParseDict(value, V.InterruptAnswer().value)
                )
            )
        self.stream.send(V.ServerMessage(resume=resume))

    def stop(self, mode: V.StopMode.ValueType, latch: str = "tenants/t/latches/l1") -> None:
        self.stream.send(
            V.ServerMessage(stop=V.Stop(lease=self.lease, mode=mode, latch=latch, grace_seconds=1))
        )

    async def until(self, true: Callable[[], object], timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout), self.changed:
            await self.changed.wait_for(true)

    async def parked(self, count: int = 1) -> V.Park:
        await self.until(lambda: len(self.ledger.parks) >= count or self.ledger.finish)
        assert len(self.ledger.parks) >= count, self.ledger.finish
        return self.ledger.parks[count - 1]

    async def finished(self) -> V.Finish:
        await self.until(lambda: self.ledger.finish is not None)
        assert self.ledger.finish is not None
        return self.ledger.finish

    async def _serve(self) -> None:
        while (message := await self.stream.receive()) is not None:
            self._take(message.host)
            async with self.changed:
                self.changed.notify_all()
        self.closed = True
        async with self.changed:
            self.changed.notify_all()

    def _take(self, host: V.HostMessage) -> None:
        ledger = self.ledger
        reply = V.HostReply(lease=host.lease, id=host.id)
        kind = host.WhichOneof("body")
        if ledger.refuse_commits is not None and kind not in ("step_closed", "ready", "stopped"):
            reply.error.CopyFrom(ledger.refuse_commits)
            self.stream.send(V.ServerMessage(host_reply=reply))
            return
        thread = ledger.threads.get(host.lease.run, "")
        ledger.commit(thread, host.commit)
        reply.ack.SetInParent()
        if kind == "ready":
            self.ready.set()
        elif kind == "gate":
            reply.gate.CopyFrom(ledger.gate(host.gate))
        elif kind == "step_closed":
            ledger.closed.append(host.step_closed)
            ledger.steps[host.step_closed.step] = host.step_closed
            ledger.order.append(f"close {run_pb2.StepOutcome.Name(host.step_closed.outcome)[13:]}")
        elif kind == "park":
            ledger.parks.append(host.park)
            if ledger.resume_on_park:
                ledger.resume_on_park = False
                reply.resume.lease.CopyFrom(host.lease)
        elif kind == "finish":
            ledger.finish = host.finish
            ledger.finishes[host.lease.run] = host.finish
        elif kind == "stopped":
            ledger.stopped.append(host.stopped)
        elif kind == "delta":
            ledger.deltas.append(host.delta)
        elif kind == "checkpoint_query":
            reply.checkpoints.CopyFrom(ledger.read(thread, host.checkpoint_query))
        elif kind == "model_query":
            record = ledger.models.get(host.model_query.key)
            reply.model.SetInParent()
            if record is not None and record.digest == host.model_query.digest:
                reply.model.found = True
                reply.model.result.CopyFrom(record.result)
        if host.id and kind not in ledger.unanswered:
            self.stream.send(V.ServerMessage(host_reply=reply))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def host_of(ledger: Ledger) -> AsyncIterator[Callable[[Any], Any]]:
    """Starts a host in this process for a graph: ``worker = await host_of(graph)``. A second one reads the same ledger."""
    gate.install()
    models.install()
    asyncio.get_running_loop().set_default_executor(TrackedExecutor(gate.follow_threads))
    tasks: list[asyncio.Task[int]] = []
    workers: list[FakeWorker] = []

    async def start(graph: Any, *, own_thread: bool = False) -> FakeWorker:
        ours, theirs = socket_pair()
        compiled = graph.compile() if isinstance(graph, StateGraph) else graph
        stream = await FrameStream.open(ours, V.WorkerMessage)
        worker = FakeWorker(ledger, stream)
        workers.append(worker)
        serving = (
            asyncio.to_thread(run_host, theirs, compiled)
            if own_thread
            else Host.over(theirs, compiled).serve()
        )
        tasks.append(asyncio.create_task(serving))
        await worker.ready.wait()
        return worker

    yield start
    use_backend(None)
    for worker in workers:
        worker.stream.close()
        worker.task.cancel()
    for task in tasks:
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(task, 2)
