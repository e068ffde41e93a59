"""From what happened to what is shown: ``apply(view, item) -> view``, pure and safe to repeat.

An event that the view has seen already changes nothing, so a surface may replay a run from its start at any
time. Unknown events and fields are passed over: a newer server must not break an older surface.
"""

from __future__ import annotations

from dataclasses import replace

from fermata.client.names import last_part
from fermata.client.values import JsonValue, from_struct
from fermata.v1 import approval_pb2, latch_pb2, run_pb2

from .cards import card_of
from .text import clean, one_line, shown
from .view import (
    CardEntry,
    Citation,
    Conversation,
    Entry,
    LatchEntry,
    LatchStage,
    Message,
    Note,
    StepState,
    ToolStep,
)

Item = run_pb2.Event | run_pb2.TokenDelta | approval_pb2.Approval | latch_pb2.Latch
Facts = dict[str, JsonValue]

RESULT_CHARACTERS = 600
_OUTCOMES: dict[str, StepState] = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "NOT_STARTED": "not started",
    "KILLED": "killed",
    "CONFIRMED": "confirmed",
    "ABANDONED": "abandoned",
}
_LATCH_STEPS = {
    latch_pb2.LATCH_STEP_STATUS_OPEN: "still open",
    latch_pb2.LATCH_STEP_STATUS_FINISHED: "finished by itself",
    latch_pb2.LATCH_STEP_STATUS_NOT_STARTED: "had not begun, and will not",
    latch_pb2.LATCH_STEP_STATUS_KILLED: "killed; its outcome is unknown",
    latch_pb2.LATCH_STEP_STATUS_UNREACHABLE: "out of reach; not settled",
}


_ONCE_KILLED = {
    run_pb2.STEP_OUTCOME_FINISHED: "killed; its host says that it finished",
    run_pb2.STEP_OUTCOME_FAILED: "killed; its host says that it failed",
    run_pb2.STEP_OUTCOME_CONFIRMED: "killed; a person says that it happened",
    run_pb2.STEP_OUTCOME_ABANDONED: "killed; a person gave it up",
}


def apply(view: Conversation, item: Item) -> Conversation:
    """The view after ``item``."""
    match item:
        case run_pb2.Event():
            return _event(view, item)
        case run_pb2.TokenDelta():
            left_out = " … " if item.skipped else ""
            return replace(view, draft=view.draft + left_out + clean(item.text))
        case approval_pb2.Approval():
            return _approval(view, item)
        case latch_pb2.Latch():
            return _put(view, latch_entry(item))


def changed(before: Conversation, after: Conversation) -> list[Entry]:
    """Entries that are new or differ, in order: what a surface has to draw."""
    old = {entry.key: entry for entry in before.entries}
    return [entry for entry in after.entries if old.get(entry.key) != entry]


def latch_entry(latch: latch_pb2.Latch) -> LatchEntry:
    """A latch's report."""
    halt = latch.kind == latch_pb2.LATCH_KIND_HALT
    settled = latch.state == latch_pb2.LATCH_STATE_SETTLED
    state: LatchStage = "halting" if halt else "holding"
    if settled:
        state = "settled" if halt else "held"
    if latch.state == latch_pb2.LATCH_STATE_RELEASED:
        state = "released"
    return LatchEntry(
        key=latch.name,
        halt=halt,
        target=one_line(_target(latch.scope), 80),
        state=state,
        steps=tuple((one_line(step.tool, 60), _became(step)) for step in latch.steps),
        runs=len(latch.runs),
        stopped_runs=latch.stopped_runs,
        expires_at=latch.expire_time.ToNanoseconds() / 1e9 if latch.HasField("expire_time") else 0.0,
        milliseconds=latch.settle_milliseconds,
        reason=one_line(latch.reason, 200),
    )


def _target(scope: latch_pb2.LatchScope) -> str:
    """What is covered, in a few words."""
    match scope.WhichOneof("target"):
        case None | "tenant":
            return "everything"
        case "everything":
            return "all tenants"
        case "run_tree":
            return f"run {last_part(scope.run_tree)} with its descendants"
        case "revision":
            parts = scope.revision.split("/")
            return f"revision {'@'.join(parts[3::2])}"
        case kind:
            return f"{kind} {last_part(getattr(scope, kind))}"


def _became(step: latch_pb2.LatchStep) -> str:
    """What has become of an effect that was open, and when."""
    words = _LATCH_STEPS.get(step.status, "unknown")
    if step.status == latch_pb2.LATCH_STEP_STATUS_KILLED:
        words = _ONCE_KILLED.get(step.outcome, words)
    return f"{words} (after {step.milliseconds:.0f} ms)" if step.milliseconds else words


def citations_of(found: JsonValue) -> tuple[Citation, ...]:
    """An event's citations; what has no source is left out."""
    citations = []
    for position, item in enumerate(found if isinstance(found, list) else [], start=1):
        if isinstance(item, dict) and item.get("source"):
            line = item.get("line", item.get("first_line", 0))
            citations.append(
                Citation(
                    number=one_line(str(item.get("id", position)), 12),
                    source=one_line(str(item["source"]), 160),
                    heading=one_line(str(item.get("heading") or ""), 160),
                    line=int(line) if isinstance(line, int | float) else 0,
                )
            )
    return tuple(citations)


def message_text(content: JsonValue) -> str:
    """A message's text: LangChain's content is a text or a list of blocks, of which the text blocks count."""
    if isinstance(content, str):
        return clean(content).strip()
    if isinstance(content, list):
        texts = [_block_text(block) for block in content]
        return clean("".join(texts)).strip()
    return ""


def _block_text(block: JsonValue) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, dict) and block.get("type", "text") == "text":
        return _text(block, "text")
    return ""


def _event(view: Conversation, event: run_pb2.Event) -> Conversation:
    if event.sequence <= view.sequences.get(event.run, 0):
        return view
    facts = from_struct(event.data)
    view = replace(
        view,
        sequences={**view.sequences, event.run: event.sequence},
        states={**view.states, event.run: event.state},
    )
    if event.run == view.run or _is_now_present(view, event, facts):
        view = replace(view, run=event.run, state=event.state)
    key = f"{event.run}/events/{event.sequence}"
    match event.type:
        case run_pb2.EVENT_TYPE_CREATED:
            return _created(view, key, event.run, facts)
        case run_pb2.EVENT_TYPE_MESSAGE:
            return _message(view, key, event.run, facts)
        case (
            run_pb2.EVENT_TYPE_STEP_STARTED | run_pb2.EVENT_TYPE_STEP_CLOSED | run_pb2.EVENT_TYPE_STEP_REFUSED
        ):
            return _step(view, event, facts)
        case run_pb2.EVENT_TYPE_APPROVAL_REQUESTED:
            name = _text(facts, "approval")
            return view if name in view.pending else replace(view, pending=(*view.pending, name))
        case run_pb2.EVENT_TYPE_APPROVAL_DECIDED:
            name = _text(facts, "approval")
            return replace(view, pending=tuple(waiting for waiting in view.pending if waiting != name))
        case run_pb2.EVENT_TYPE_SUCCEEDED:
            return _succeeded(replace(view, draft=""), key, facts)
        case _:
            note = _note(event, facts, key)
            over = event.type in _ENDS and event.run == view.run
            ended = replace(view, draft="", pending=()) if over else view
            return _put(ended, note) if note else ended


def _is_now_present(view: Conversation, event: run_pb2.Event, facts: Facts) -> bool:
    """True where the event makes its run the one that is going on. A run in line is that when it begins; a late event of an
    earlier run (a recovery that somebody decides) does not make that run the present one again.
    """
    match event.type:
        case run_pb2.EVENT_TYPE_CREATED:
            return not facts.get("behind") or not view.is_active
        case run_pb2.EVENT_TYPE_LEASED:
            return True
    return not view.run


_ENDS = (
    run_pb2.EVENT_TYPE_HALTED,
    run_pb2.EVENT_TYPE_FAILED,
    run_pb2.EVENT_TYPE_CANCELLED,
    run_pb2.EVENT_TYPE_EXPIRED,
)


def _created(view: Conversation, key: str, run: str, facts: Facts) -> Conversation:
    given = facts.get("input")
    messages = given.get("messages") if isinstance(given, dict) else None
    last = messages[-1] if isinstance(messages, list) and messages else None
    text = message_text(last.get("content")) if isinstance(last, dict) else ""
    view = replace(view, draft="" if view.run == run else view.draft, inputs={**view.inputs, run: text})
    return _put(view, Message(key, "person", text)) if text else view


def _message(view: Conversation, key: str, run: str, facts: Facts) -> Conversation:
    speaker = _text(facts, "type") or _text(facts, "role")
    text = message_text(facts.get("content"))
    if speaker in ("ai", "assistant", "AIMessageChunk"):
        view = replace(view, draft="")
        return _put(view, Message(key, "agent", text, citations_of(facts.get("citations")))) if text else view
    if speaker in ("human", "user") and text and text != view.inputs.get(run):
        return _put(view, Message(key, "person", text))
    return view


def _succeeded(view: Conversation, key: str, facts: Facts) -> Conversation:
    answer = message_text(facts.get("answer"))
    prefix = f"{view.run}/"
    said = {
        entry.text for entry in view.entries if isinstance(entry, Message) and entry.key.startswith(prefix)
    }
    view = replace(view, pending=())
    if not answer or answer in said:
        return view
    return _put(view, Message(key, "agent", answer, citations_of(facts.get("citations"))))


def _step(view: Conversation, event: run_pb2.Event, facts: Facts) -> Conversation:
    at = event.time.ToNanoseconds() / 1e9
    key = _text(facts, "step") or f"{event.run}/events/{event.sequence}"
    known = view.entry(key) or _opened_as(view, event, _text(facts, "tool"))
    key = known.key if known else key
    args = facts.get("args")
    arguments = (
        tuple((one_line(name, 60), one_line(shown(value), 120)) for name, value in sorted(args.items()))
        if isinstance(args, dict)
        else ()
    )
    step = (
        known
        if isinstance(known, ToolStep)
        else ToolStep(key, one_line(_text(facts, "tool"), 80), arguments, "running", started_at=at)
    )
    match event.type:
        case run_pb2.EVENT_TYPE_STEP_STARTED:
            step = replace(
                step, state="running", arguments=arguments or step.arguments, started_at=at, milliseconds=None
            )
        case run_pb2.EVENT_TYPE_STEP_REFUSED:
            step = replace(
                step,
                state="refused",
                result=_result(facts.get("message") or facts.get("reason")),
                milliseconds=0.0,
            )
        case _:
            outcome = _text(facts, "outcome").removeprefix("STEP_OUTCOME_")
            step = replace(
                step,
                state=_OUTCOMES.get(outcome, "finished"),
                result=_result(facts.get("error") or facts.get("result")),
                milliseconds=max(0.0, (at - step.started_at) * 1000),
            )
    return _put(view, step)


def _opened_as(view: Conversation, event: run_pb2.Event, tool: str) -> ToolStep | None:
    """The call that a closing event ends where it names the step otherwise than its start did (by key or by
    resource name): the oldest open one of that tool."""
    if event.type != run_pb2.EVENT_TYPE_STEP_CLOSED:
        return None
    return next((step for step in view.running_steps if step.tool == one_line(tool, 80)), None)


def _result(value: JsonValue) -> str:
    if value is None:
        return ""
    text = clean(value if isinstance(value, str) else shown(value)).strip()
    return text if len(text) <= RESULT_CHARACTERS else text[: RESULT_CHARACTERS - 1] + "…"


def _note(event: run_pb2.Event, facts: Facts, key: str) -> Note | None:
    reason = one_line(_text(facts, "reason"), 200)
    tail = f": {reason}" if reason else ""
    match event.type:
        case run_pb2.EVENT_TYPE_LEASE_LOST:
            return Note(
                key,
                "The worker was lost; the run goes on from its last checkpoint" + tail,
                "warning",
            )
        case run_pb2.EVENT_TYPE_LEASED if _number(facts, "epoch") > 1:
            worker = one_line(_text(facts, "worker"), 40)
            return Note(key, f"The run goes on, on {worker} (epoch {_number(facts, 'epoch')})")
        case run_pb2.EVENT_TYPE_HELD:
            return Note(key, "Held" + tail + ". /release lets it go on.", "warning")
        case run_pb2.EVENT_TYPE_RELEASED:
            return Note(key, "Released; the run goes on.")
        case run_pb2.EVENT_TYPE_HALTING:
            return Note(key, "Halting" + _place_taken(facts, tail), "warning")
        case run_pb2.EVENT_TYPE_HALTED:
            return Note(key, "Halted: nothing of this run can start any more.", "warning")
        case run_pb2.EVENT_TYPE_FAILED:
            message = one_line(_text(facts, "message"), 600)
            return Note(key, f"The run failed [{reason}] {message}", "error")
        case run_pb2.EVENT_TYPE_CANCELLED:
            return Note(key, "The run was cancelled" + _place_taken(facts, tail), "warning")
        case run_pb2.EVENT_TYPE_EXPIRED:
            return Note(key, "The run's deadline has passed.", "error")
        case run_pb2.EVENT_TYPE_CUSTOM:
            return Note(key, one_line(shown(facts.get("value")), 300))
        case _:
            return None


def _place_taken(facts: Facts, tail: str) -> str:
    """How a run ends that a later message has taken the place of; ``tail`` for every other one."""
    successor = _text(facts, "run")
    if not successor:
        return tail
    back = (
        "; the conversation is what it was before, what was done stays done"
        if facts.get("rolled_back")
        else ""
    )
    return f": {one_line(last_part(successor), 40)} takes its place{back}"


def _approval(view: Conversation, approval: approval_pb2.Approval) -> Conversation:
    waiting = tuple(name for name in view.pending if name != approval.name)
    if approval.state == approval_pb2.APPROVAL_STATE_PENDING:
        waiting = view.pending if approval.name in view.pending else (*view.pending, approval.name)
    return _put(replace(view, pending=waiting), CardEntry(approval.name, card_of(approval)))


def _put(view: Conversation, entry: Entry) -> Conversation:
    for index, known in enumerate(view.entries):
        if known.key == entry.key:
            return replace(view, entries=(*view.entries[:index], entry, *view.entries[index + 1 :]))
    return replace(view, entries=(*view.entries, entry))


def _text(facts: Facts, name: str) -> str:
    value = facts.get(name)
    return value if isinstance(value, str) else ""


def _number(facts: Facts, name: str) -> int:
    value = facts.get(name)
    return int(value) if isinstance(value, int | float) else 0
