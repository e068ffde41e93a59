"""A server in memory that plays one short story, for commands that need somebody to talk to.

It keeps no promise of the real one (no policy, no epochs): it only answers in the API's own messages, so that what is tested here is
what the command line does with them.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from fermata.bots.terminal.main import main
from fermata.client.values import from_struct, to_struct
from fermata.v1 import (
    agent_pb2,
    approval_pb2,
    collection_pb2,
    latch_pb2,
    policy_pb2,
    principal_pb2,
    run_pb2,
    thread_pb2,
    worker_pb2,
)

T = "tenants/default"
RPM_SCHEMA = {
    "type": "object",
    "properties": {
        "line": {"type": "integer", "minimum": 1, "maximum": 4},
        "rpm": {"type": "integer", "description": "Revolutions per minute", "minimum": 600, "maximum": 1500},
    },
    "required": ["line", "rpm"],
    "additionalProperties": False,
}
ENDS = {run_pb2.RUN_STATE_SUCCEEDED, run_pb2.RUN_STATE_FAILED, run_pb2.RUN_STATE_HALTED}


class FakeFermata:
    """All services that the command line calls; every method runs on the server's loop."""

    def __init__(self) -> None:
        self.target = ""
        self.created: list[run_pb2.CreateRunRequest] = []
        self.runs: dict[str, run_pb2.Run] = {}
        self.events: dict[str, list[run_pb2.Event]] = {}
        self.approvals: dict[str, approval_pb2.Approval] = {}
        self.latches: dict[str, latch_pb2.Latch] = {}
        self.documents: dict[str, collection_pb2.Document] = {}
        self.agents: dict[str, agent_pb2.Agent] = {}
        self.threads: dict[str, thread_pb2.Thread] = {}
        self.requests: list[Any] = []
        self.tokens: list[str] = []
        self.watching = threading.Event()
        self.changed = asyncio.Condition()

    def wait_for_watcher(self) -> None:
        """Block until somebody watches."""
        assert self.watching.wait(20)

    # -- approvals as a stream ---------------------------------------------------------------------

    async def WatchApprovals(
        self, request: approval_pb2.WatchApprovalsRequest, context: Any
    ) -> AsyncIterator[approval_pb2.WatchApprovalsResponse]:
        yield approval_pb2.WatchApprovalsResponse(
            approval=approval_pb2.Approval(name=f"{T}/approvals/a0"), cursor="1"
        )
        await asyncio.Event().wait()

    # -- the story ---------------------------------------------------------------------------------

    async def emit(self, run: run_pb2.Run, kind: str, state: str, **facts: object) -> None:
        """Append an event and wake the watchers."""
        run.state = run_pb2.RunState.Value(f"RUN_STATE_{state}")
        event = run_pb2.Event(
            run=run.name,
            sequence=len(self.events[run.name]) + 1,
            type=run_pb2.EventType.Value(f"EVENT_TYPE_{kind}"),
            data=to_struct(facts),
            state=run.state,
        )
        event.time.FromMilliseconds(int(time.time() * 1000))
        self.events[run.name].append(event)
        run.last_sequence = event.sequence
        async with self.changed:
            self.changed.notify_all()

    async def play(self, run: run_pb2.Run, text: str) -> None:
        """What a run does, by its text."""
        await self.emit(run, "LEASED", "RUNNING", worker="w1", epoch=1)
        if "fail" in text:
            await self.emit(
                run, "FAILED", "FAILED", reason="GRAPH_RAISED", message="it broke \x1b[2J[red]here[/red]"
            )
            run.error.reason = "GRAPH_RAISED"
            return
        if "deal with it" in text:
            await self.emit(
                run,
                "STEP_STARTED",
                "RUNNING",
                step=f"{run.name}/steps/s1",
                tool="read_line",
                args={"line": 3},
            )
            await self.emit(
                run,
                "STEP_CLOSED",
                "RUNNING",
                step=f"{run.name}/steps/s1",
                tool="read_line",
                outcome="FINISHED",
                result="8.1 mm/s",
            )
            name = f"{T}/approvals/ap-{len(self.approvals) + 1}x"
            approval = approval_pb2.Approval(
                name=name,
                run=run.name,
                agent=run.agent,
                kind=approval_pb2.APPROVAL_KIND_ACTION,
                state=approval_pb2.APPROVAL_STATE_PENDING,
                tool="set_speed",
                args=to_struct({"line": 3, "rpm": 1000}),
                args_schema=to_struct(RPM_SCHEMA),
                digest="d1",
                effect=run_pb2.EFFECT_CLASS_UNSAFE,
                risk="high",
                rationale="Vibration is above 7 mm/s [1].",
                rule="plant-changes",
                roles=["approver"],
                allowed_decisions=[
                    approval_pb2.DECISION_APPROVE,
                    approval_pb2.DECISION_EDIT,
                    approval_pb2.DECISION_REJECT,
                ],
            )
            approval.expire_time.FromSeconds(int(time.time()) + 900)
            self.approvals[name] = approval
            run.pending_approvals.append(name)
            await self.emit(run, "APPROVAL_REQUESTED", "RUNNING", approval=name, tool="set_speed")
            await self.emit(run, "AWAITING", "AWAITING", approvals=[name])
            return
        if "long" in text:
            await self.emit(
                run, "STEP_STARTED", "RUNNING", step=f"{run.name}/steps/s1", tool="slow_tool", args={}
            )
            return
        await self.answer(run, "Line 3 is fine [1].")

    async def answer(self, run: run_pb2.Run, text: str) -> None:
        """The last message, and the end."""
        citations = [{"id": "1", "source": "runbooks/a.md", "heading": "High vibration > Steps", "line": 12}]
        await self.emit(run, "MESSAGE", "RUNNING", type="ai", content=text, citations=citations)
        run.answer = text
        run.ClearField("pending_approvals")
        await self.emit(run, "SUCCEEDED", "SUCCEEDED", answer=text)

    # -- runs and threads --------------------------------------------------------------------------

    async def CreateRun(self, request: run_pb2.CreateRunRequest, context: Any) -> run_pb2.Run:
        if request.agent not in self.agents:
            await refuse(
                context, grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND", f"There is no agent {request.agent!r}."
            )
        self.created.append(request)
        run = run_pb2.Run(
            name=f"{T}/runs/r{len(self.runs) + 1}-abc",
            agent=request.agent,
            thread=request.thread or f"{T}/threads/t0",
        )
        run.create_time.GetCurrentTime()
        self.runs[run.name], self.events[run.name] = run, []
        await self.emit(
            run, "CREATED", "QUEUED", input={"messages": [{"role": "user", "content": request.text}]}
        )
        asyncio.get_running_loop().create_task(self.play(run, request.text))
        created = run_pb2.Run()
        created.CopyFrom(run)
        return created

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Any) -> run_pb2.Run:
        return cast("run_pb2.Run", await self.found(self.runs, request.name, "RUN", context))

    async def ListRuns(self, request: run_pb2.ListRunsRequest, context: Any) -> run_pb2.ListRunsResponse:
        runs = [
            run
            for run in self.runs.values()
            if (not request.states or run.state in request.states) and request.thread in ("", run.thread)
        ]
        return run_pb2.ListRunsResponse(runs=list(reversed(runs))[: request.page_size])

    async def ListSteps(self, request: run_pb2.ListStepsRequest, context: Any) -> run_pb2.ListStepsResponse:
        step = run_pb2.Step(
            name=f"{request.parent}/steps/s1",
            tool="read_line",
            args=to_struct({"line": 3}),
            outcome=run_pb2.STEP_OUTCOME_FINISHED,
            effect=run_pb2.EFFECT_CLASS_READ,
            attempt=1,
            result="8.1\x1b]0;owned\x07 mm/s",
        )
        return run_pb2.ListStepsResponse(steps=[step])

    async def WatchRuns(
        self, request: run_pb2.WatchRunsRequest, context: Any
    ) -> AsyncIterator[run_pb2.WatchRunsResponse]:
        self.watching.set()
        seen = dict(part.split("=") for part in request.cursor.split(",") if part)
        while True:
            for name, run in list(self.runs.items()):
                if (request.run and name != request.run) or (request.thread and run.thread != request.thread):
                    seen[name] = str(len(self.events[name]))
                    continue
                for event in self.events[name][int(seen.get(name, 0)) :]:
                    seen[name] = str(event.sequence)
                    yield run_pb2.WatchRunsResponse(
                        event=event, cursor=",".join(f"{key}={value}" for key, value in seen.items())
                    )
            ended = request.run and self.runs[request.run].state in ENDS
            if ended and int(seen.get(request.run, 0)) == len(self.events[request.run]):
                return
            async with self.changed:
                await self.changed.wait_for(
                    lambda: any(len(events) > int(seen.get(name, 0)) for name, events in self.events.items())
                )

    async def CreateThread(self, request: thread_pb2.CreateThreadRequest, context: Any) -> thread_pb2.Thread:
        thread = thread_pb2.Thread(name=f"{T}/threads/t{len(self.threads) + 1}")
        self.threads[thread.name] = thread
        return thread

    # -- approvals ---------------------------------------------------------------------------------

    async def GetApproval(
        self, request: approval_pb2.GetApprovalRequest, context: Any
    ) -> approval_pb2.Approval:
        return cast(
            "approval_pb2.Approval", await self.found(self.approvals, request.name, "APPROVAL", context)
        )

    async def ListApprovals(
        self, request: approval_pb2.ListApprovalsRequest, context: Any
    ) -> approval_pb2.ListApprovalsResponse:
        states = list(request.states) or [approval_pb2.APPROVAL_STATE_PENDING]
        found = [approval for approval in self.approvals.values() if approval.state in states]
        return approval_pb2.ListApprovalsResponse(approvals=found)

    async def DecideApproval(
        self, request: approval_pb2.DecideApprovalRequest, context: Any
    ) -> approval_pb2.Approval:
        approval: approval_pb2.Approval = await self.found(self.approvals, request.name, "APPROVAL", context)
        if approval.state != approval_pb2.APPROVAL_STATE_PENDING:
            await refuse(
                context, grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_DECIDED", "It is decided already."
            )
        if request.digest != approval.digest:
            await refuse(
                context, grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_DIGEST_MISMATCH", "Another digest."
            )
        self.requests.append(request)
        rejected = request.decision == approval_pb2.DECISION_REJECT
        approval.state = (
            approval_pb2.APPROVAL_STATE_REJECTED if rejected else approval_pb2.APPROVAL_STATE_APPROVED
        )
        approval.decision, approval.comment = request.decision, request.comment
        approval.decided_by = f"{T}/principals/ann"
        approval.edited_args.CopyFrom(request.edited_args)
        asyncio.get_running_loop().create_task(self.go_on(approval, rejected))
        return approval

    async def go_on(self, approval: approval_pb2.Approval, rejected: bool) -> None:
        """The run after a decision."""
        run = self.runs[approval.run]
        args = from_struct(approval.edited_args) or from_struct(approval.args)
        await self.emit(run, "APPROVAL_DECIDED", "AWAITING", approval=approval.name, decision="x")
        await self.emit(run, "RESUMED", "RUNNING")
        if not rejected:
            step = f"{run.name}/steps/s2"
            await self.emit(run, "STEP_STARTED", "RUNNING", step=step, tool="set_speed", args=args)
            await self.emit(
                run, "STEP_CLOSED", "RUNNING", step=step, tool="set_speed", outcome="FINISHED", result="ok"
            )
        await self.answer(run, "Left as it is." if rejected else f"Slowed down to {args['rpm']}.")

    # -- latches -----------------------------------------------------------------------------------

    async def CreateLatch(self, request: latch_pb2.CreateLatchRequest, context: Any) -> latch_pb2.Latch:
        latch = latch_pb2.Latch()
        latch.CopyFrom(request.latch)
        latch.name = f"{T}/latches/l{len(self.latches) + 1}"
        latch.state = latch_pb2.LATCH_STATE_LATCHED
        latch.steps.add(tool="slow_tool", status=latch_pb2.LATCH_STEP_STATUS_OPEN)
        self.latches[latch.name] = latch
        if latch.scope.run and latch.kind == latch_pb2.LATCH_KIND_HALT:
            await self.emit(
                self.runs[latch.scope.run], "HALTING", "HALTING", latch=latch.name, reason=latch.reason
            )
        return latch

    async def WatchLatch(
        self, request: latch_pb2.WatchLatchRequest, context: Any
    ) -> AsyncIterator[latch_pb2.WatchLatchResponse]:
        latch: latch_pb2.Latch = await self.found(self.latches, request.name, "LATCH", context)
        yield latch_pb2.WatchLatchResponse(latch=latch)
        latch.steps[0].status = latch_pb2.LATCH_STEP_STATUS_KILLED
        latch.state, latch.settle_milliseconds = latch_pb2.LATCH_STATE_SETTLED, 4.2
        if latch.scope.run and latch.kind == latch_pb2.LATCH_KIND_HALT:
            await self.emit(self.runs[latch.scope.run], "HALTED", "HALTED", latch=latch.name)
        yield latch_pb2.WatchLatchResponse(latch=latch)

    async def GetLatch(self, request: latch_pb2.GetLatchRequest, context: Any) -> latch_pb2.Latch:
        return cast("latch_pb2.Latch", await self.found(self.latches, request.name, "LATCH", context))

    async def ListLatches(
        self, request: latch_pb2.ListLatchesRequest, context: Any
    ) -> latch_pb2.ListLatchesResponse:
        latches = [
            latch
            for latch in self.latches.values()
            if request.show_released or latch.state != latch_pb2.LATCH_STATE_RELEASED
        ]
        return latch_pb2.ListLatchesResponse(latches=latches)

    async def ReleaseLatch(self, request: latch_pb2.ReleaseLatchRequest, context: Any) -> latch_pb2.Latch:
        latch: latch_pb2.Latch = await self.found(self.latches, request.name, "LATCH", context)
        latch.state = latch_pb2.LATCH_STATE_RELEASED
        return latch

    # -- all else ----------------------------------------------------------------------------------

    async def ApplyAgent(self, request: agent_pb2.ApplyAgentRequest, context: Any) -> agent_pb2.Agent:
        self.requests.append(request)
        agent = agent_pb2.Agent(name=request.name, description=request.spec.description)
        agent.revision.spec.CopyFrom(request.spec)
        agent.revision.report.nodes.extend(["plan", "act"])
        agent.revision.report.tools.add(name="set_speed", risk="high", effect=run_pb2.EFFECT_CLASS_UNSAFE)
        if not request.validate_only:
            self.agents[request.name] = agent
        return agent

    async def GetAgent(self, request: agent_pb2.GetAgentRequest, context: Any) -> agent_pb2.Agent:
        return cast("agent_pb2.Agent", await self.found(self.agents, request.name, "AGENT", context))

    async def ListAgents(
        self, request: agent_pb2.ListAgentsRequest, context: Any
    ) -> agent_pb2.ListAgentsResponse:
        return agent_pb2.ListAgentsResponse(agents=self.agents.values())

    async def DeleteAgent(
        self, request: agent_pb2.DeleteAgentRequest, context: Any
    ) -> agent_pb2.DeleteAgentResponse:
        await self.found(self.agents, request.name, "AGENT", context)
        del self.agents[request.name]
        return agent_pb2.DeleteAgentResponse()

    async def IngestDocument(
        self, request: collection_pb2.IngestDocumentRequest, context: Any
    ) -> collection_pb2.Document:
        if not request.content:
            await refuse(
                context, grpc.StatusCode.INVALID_ARGUMENT, "DOCUMENT_EMPTY", f"{request.source} is empty."
            )
        document = collection_pb2.Document(source=request.source, chunk_count=2, version=1)
        document.unchanged = request.source in self.documents
        self.documents[request.source] = document
        return document

    async def SearchDocuments(
        self, request: collection_pb2.SearchDocumentsRequest, context: Any
    ) -> collection_pb2.SearchDocumentsResponse:
        passage = collection_pb2.Passage(
            source="runbooks/a.md",
            heading="High vibration",
            first_line=12,
            text="Slow \x1b[31mdown[/]",
            score=0.81,
        )
        return collection_pb2.SearchDocumentsResponse(passages=[passage])

    async def ListCollections(
        self, request: collection_pb2.ListCollectionsRequest, context: Any
    ) -> collection_pb2.ListCollectionsResponse:
        collection = collection_pb2.Collection(
            name=f"{T}/collections/factory", document_count=len(self.documents)
        )
        return collection_pb2.ListCollectionsResponse(collections=[collection])

    async def ListDocuments(
        self, request: collection_pb2.ListDocumentsRequest, context: Any
    ) -> collection_pb2.ListDocumentsResponse:
        return collection_pb2.ListDocumentsResponse(documents=self.documents.values())

    async def TestPolicy(
        self, request: policy_pb2.TestPolicyRequest, context: Any
    ) -> policy_pb2.TestPolicyResponse:
        self.requests.append(request)
        denied = request.tool == "format_disk"
        outcome = policy_pb2.POLICY_OUTCOME_DENY if denied else policy_pb2.POLICY_OUTCOME_REQUIRE_APPROVAL
        trace = policy_pb2.RuleTrace(rule="never", matched=denied, explanation="tool is not format_disk")
        return policy_pb2.TestPolicyResponse(outcome=outcome, rule="never", reason="because", trace=[trace])

    async def GetPolicy(self, request: policy_pb2.GetPolicyRequest, context: Any) -> policy_pb2.Policy:
        return policy_pb2.Policy(name=request.name, text="rules: []\n", etag="e1")

    async def UpdatePolicy(self, request: policy_pb2.UpdatePolicyRequest, context: Any) -> policy_pb2.Policy:
        if request.policy.etag not in ("", "e1"):
            await refuse(context, grpc.StatusCode.ABORTED, "ETAG_MISMATCH", "It was changed in between.")
        return request.policy

    async def GetCaller(
        self, request: principal_pb2.GetCallerRequest, context: Any
    ) -> principal_pb2.Principal:
        self.tokens.append(dict(context.invocation_metadata()).get("authorization", ""))
        if "wrong" in self.tokens[-1]:
            await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN", "The token is not known.")
        return principal_pb2.Principal(
            name=f"{T}/principals/ann",
            kind=principal_pb2.PRINCIPAL_KIND_USER,
            roles=[principal_pb2.ROLE_ADMIN],
        )

    async def CreatePrincipal(
        self, request: principal_pb2.CreatePrincipalRequest, context: Any
    ) -> principal_pb2.CreatePrincipalResponse:
        principal = principal_pb2.Principal()
        principal.CopyFrom(request.principal)
        principal.name = f"{request.parent}/principals/{request.principal_id}"
        return principal_pb2.CreatePrincipalResponse(principal=principal, token="tok-shown-once")

    async def ListPrincipals(
        self, request: principal_pb2.ListPrincipalsRequest, context: Any
    ) -> principal_pb2.ListPrincipalsResponse:
        return principal_pb2.ListPrincipalsResponse(
            principals=[await self.GetCaller(principal_pb2.GetCallerRequest(), context)]
        )

    async def ListWorkers(
        self, request: worker_pb2.ListWorkersRequest, context: Any
    ) -> worker_pb2.ListWorkersResponse:
        worker = worker_pb2.Worker(
            worker="w1", node="n1", pid=7, state=worker_pb2.WORKER_STATE_CONNECTED, capacity=8
        )
        return worker_pb2.ListWorkersResponse(workers=[worker])

    async def found(self, things: dict[str, Any], name: str, noun: str, context: Any) -> Any:
        """The thing, or NOT_FOUND."""
        if name not in things:
            await refuse(
                context,
                grpc.StatusCode.NOT_FOUND,
                f"{noun}_NOT_FOUND",
                f"There is no {noun.lower()} {name!r}.",
            )
        return things[name]


async def refuse(context: Any, code: grpc.StatusCode, reason: str, message: str) -> None:
    """End the call with an error that carries its reason, as the real server does."""
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="fermata.dev"))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(code, message)


def handlers(service: ServiceDescriptor, implementation: object) -> grpc.GenericRpcHandler:
    """The methods of ``service`` that ``implementation`` has."""
    found = {}
    for method in service.methods:
        behaviour: Callable[..., Awaitable[Any]] | None = getattr(implementation, method.name, None)
        if behaviour is None:
            continue
        make = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        found[method.name] = make(
            behaviour,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, found)


MODULES = (
    agent_pb2,
    approval_pb2,
    collection_pb2,
    latch_pb2,
    policy_pb2,
    principal_pb2,
    run_pb2,
    thread_pb2,
    worker_pb2,
)


@pytest.fixture
def server() -> Iterator[FakeFermata]:
    """The story's server, in a thread of its own, since commands block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[FakeFermata, aio.Server]:
        fake = FakeFermata()
        fake.agents[f"{T}/agents/operator"] = agent_pb2.Agent(
            name=f"{T}/agents/operator", description="Runs the plant [bold]well[/bold]."
        )
        grpc_server = aio.server()
        for module in MODULES:
            for service in module.DESCRIPTOR.services_by_name.values():
                grpc_server.add_generic_rpc_handlers((handlers(service, fake),))
        fake.target = f"127.0.0.1:{grpc_server.add_insecure_port('127.0.0.1:0')}"
        await grpc_server.start()
        return fake, grpc_server

    fake, grpc_server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield fake
    asyncio.run_coroutine_threadsafe(grpc_server.stop(None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class Cli:
    """Runs a command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = main(arguments)
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def cli(server: FakeFermata, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line, pointed at the story's server by the environment."""
    for name in ("FERMATA_TOKEN", "FERMATA_TOKEN_FILE", "FERMATA_DATA", "FERMATA_CA_FILE", "FERMATA_TENANT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FERMATA_ADDRESS", server.target)
    return Cli(monkeypatch, capsys)
