"""What has to hold after every round: a sentence for each promise that was broken."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf import json_format
from tests.chaos.people import EDITED_AMOUNT, People, wish
from tests.chaos.plan import EFFECTS, Job
from tests.chaos.recorder import Recorder

from fermata.client import Client
from fermata.client.runs import TERMINAL_STATES
from fermata.v1 import approval_pb2, run_pb2

MAX_DEATHS = 3
"""A run whose processes have died so often in a row fails, for it may be what kills them."""

_ANY_STATE = [state for state in approval_pb2.ApprovalState.values() if state]


@dataclass(frozen=True)
class Told:
    """A run that was acknowledged, and all that Fermata says of it at the end."""

    job: Job
    run: run_pb2.Run
    events: Sequence[run_pb2.Event]
    steps: Sequence[run_pb2.Step]
    approvals: Sequence[approval_pb2.Approval]

    @property
    def has_succeeded(self) -> bool:
        """True where the run did all that it was to do."""
        return self.run.state == run_pb2.RUN_STATE_SUCCEEDED


async def tell(client: Client, job: Job, name: str) -> Told:
    """Ask Fermata about a run. :raises NotFoundError: it was acknowledged, and is lost."""
    return Told(
        job,
        await client.runs.get(name),
        await client.runs.events(name),
        await client.runs.steps(name),
        await client.approvals.list(run=name, states=_ANY_STATE, limit=None),
    )


async def broken(told: Sequence[Told], recorder: Recorder, people: People) -> AsyncIterator[str]:
    """What does not hold."""
    for one in told:
        for check in (_end, _history, _effects, _answers, _questions):
            for sentence in check(one, recorder):
                yield f"{one.job.agent} {one.run.name}: {sentence}"
        seen = [event.sequence for event in people.seen[one.run.name]]
        if seen != list(range(1, len(one.events) + 1)):
            yield f"{one.run.name}: a watch of everything brought {seen}"


def never_twice(recorder: Recorder) -> Iterator[str]:
    """Nothing that must not be repeated has been, in this round or, late, in one before it."""
    for call, effects in recorder.by_call.items():
        tool = effects[0].tool
        if EFFECTS[tool] == "UNSAFE" and len(effects) > 1:
            yield f"{tool} {call} happened {len(effects)} times: {effects}"
        if EFFECTS[tool] != "READ" and len({(effect.run, effect.key) for effect in effects}) > 1:
            yield f"{tool} {call} happened under several keys: {effects}"
        if not all(effect.key for effect in effects):
            yield f"{tool} {call} happened without a key"


def _end(told: Told, recorder: Recorder) -> Iterator[str]:
    state = run_pb2.RunState.Name(told.run.state)
    if told.run.state == run_pb2.RUN_STATE_FAILED:
        deaths = sum(event.type == run_pb2.EVENT_TYPE_LEASE_LOST for event in told.events)
        if told.run.error.reason != "HOST_DIED" or deaths < MAX_DEATHS:
            yield f"failed: {told.run.error}"
    elif not told.has_succeeded:
        yield f"is {state}"


def _history(told: Told, recorder: Recorder) -> Iterator[str]:
    numbers = [event.sequence for event in told.events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"its history has a gap: {numbers}"
    ends = [event for event in told.events if event.state in TERMINAL_STATES]
    if len(ends) != 1 or ends[0] is not told.events[-1]:
        yield f"its history has {len(ends)} ends"
    epochs = [event.data["epoch"] for event in told.events if event.type == run_pb2.EVENT_TYPE_LEASED]
    if epochs != list(range(1, len(epochs) + 1)):
        yield f"its leases have the epochs {epochs}"


def _effects(told: Told, recorder: Recorder) -> Iterator[str]:
    for tool, call in told.job.calls:
        effects = recorder.by_call.get(call, [])
        decided = wish(call) if tool == "ask" else "approve"
        if decided == "reject" and effects:
            yield f"{tool} {call} was rejected and happened"
        if told.has_succeeded and decided != "reject" and not effects:
            yield f"succeeded without {tool} {call}"
        for effect in effects:
            if effect.run != told.run.name:
                yield f"{tool} {call} happened for {effect.run}"
            if tool == "ask" and effect.amount != (EDITED_AMOUNT if decided == "edit" else 7):
                yield f"{tool} {call} happened with {effect.amount}, and {decided} was decided"


def _answers(told: Told, recorder: Recorder) -> Iterator[str]:
    """The agent has heard of each call what came of it."""
    if not told.has_succeeded:
        return
    expected = [
        (tool, "error", "")
        if tool == "ask" and wish(call) == "reject"
        else (tool, "success", f"{call} is done")
        for tool, call in told.job.calls
    ]
    heard = [
        (answer["tool"], answer["status"], answer["content"] if answer["status"] == "success" else "")
        for answer in json.loads(told.run.answer)
    ]
    if heard != expected:
        yield f"was to answer {expected}, and answers {told.run.answer}"


def _questions(told: Told, recorder: Recorder) -> Iterator[str]:
    """People were asked once about what policy reserves for them, and about effects in doubt, and about nothing else."""
    doubtful = set(_doubtful(told))
    by_key = {step.key: step for step in told.steps}
    asked: list[str] = []
    for approval in told.approvals:
        call = json_format.MessageToDict(approval.args).get("call", "")
        about = f"{approval.tool} {call}"
        if approval.kind == approval_pb2.APPROVAL_KIND_RECOVERY:
            if EFFECTS[approval.tool] != "UNSAFE":
                yield f"somebody was asked about {about}, which may be repeated"
            if call not in doubtful:
                yield f"somebody was asked about {about}, which was never in doubt"
        elif approval.tool != "ask":
            yield f"somebody was asked whether {about} may be done"
        else:
            asked.append(str(call))
        if told.has_succeeded and approval.state == approval_pb2.APPROVAL_STATE_PENDING:
            yield f"the question about {about} is still open"
    if len(asked) != len(set(asked)):
        yield f"somebody was asked twice about the same: {sorted(asked)}"
    for step in by_key.values():
        known = step.outcome not in (run_pb2.STEP_OUTCOME_UNSPECIFIED, run_pb2.STEP_OUTCOME_KILLED)
        if step.kind == "tool" and told.has_succeeded and not known:
            yield f"succeeded, and nobody knows how {step.tool} {dict(step.args)['call']} ended"


def _doubtful(told: Told) -> Iterator[str]:
    """Calls whose end nobody knew when a lease was lost."""
    open_now: dict[str, str] = {}
    for event in told.events:
        data = json_format.MessageToDict(event.data)
        if event.type == run_pb2.EVENT_TYPE_STEP_STARTED:
            open_now[data["step"]] = data["args"]["call"]
        elif event.type == run_pb2.EVENT_TYPE_STEP_CLOSED and data["outcome"] != "KILLED":
            open_now.pop(data["step"], None)
        elif event.type == run_pb2.EVENT_TYPE_LEASE_LOST:
            yield from open_now.values()
