"""From events to the view."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fermata.bots.conversation.reducer import apply, changed, message_text
from fermata.bots.conversation.view import CardEntry, Conversation, LatchEntry, Message, Note, ToolStep
from fermata.client.values import to_struct
from fermata.v1 import approval_pb2, latch_pb2, run_pb2

RUN = "tenants/default/runs/r1"
STEP = f"{RUN}/steps/s1"


class History:
    """Events of one run, numbered, a hundred milliseconds apart."""

    def __init__(self) -> None:
        self.events: list[run_pb2.Event] = []

    def add(self, kind: str, state: str = "RUNNING", **facts: Any) -> History:
        event = run_pb2.Event(
            run=RUN,
            sequence=len(self.events) + 1,
            type=run_pb2.EventType.Value(f"EVENT_TYPE_{kind}"),
            data=to_struct(facts),
            state=run_pb2.RunState.Value(f"RUN_STATE_{state}"),
        )
        event.time.FromMilliseconds(1_000_000 + 100 * event.sequence)
        self.events.append(event)
        return self

    @property
    def view(self) -> Conversation:
        view = Conversation()
        for event in self.events:
            view = apply(view, event)
        return view


def started(text: str = "how is line 3?") -> History:
    return History().add("CREATED", "QUEUED", input={"messages": [{"role": "user", "content": text}]})


def approval(state: int = approval_pb2.APPROVAL_STATE_PENDING) -> approval_pb2.Approval:
    return approval_pb2.Approval(
        name="tenants/default/approvals/a1",
        run=RUN,
        kind=approval_pb2.APPROVAL_KIND_ACTION,
        state=state,  # type: ignore[arg-type]
        tool="set_speed",
    )


def test_a_question_and_its_answer_with_citations() -> None:
    citations = [
        {"id": 1, "source": "runbooks/a.md", "heading": "A > B", "line": 12},
        {"heading": "no source"},
    ]
    view = (
        started()
        .add("MESSAGE", type="human", content="how is line 3?")
        .add("MESSAGE", type="ai", content="Fine [1].", citations=citations)
        .add("SUCCEEDED", "SUCCEEDED", answer="Fine [1].")
        .view
    )
    person, agent = view.entries
    assert isinstance(person, Message)
    assert person.text == "how is line 3?"
    assert isinstance(agent, Message)
    assert agent.text == "Fine [1]."
    assert [(found.number, found.place) for found in agent.citations] == [("1", "runbooks/a.md:12")]
    assert not view.is_active


def test_an_answer_that_no_message_told_is_shown() -> None:
    view = started().add("SUCCEEDED", "SUCCEEDED", answer="Done.").view
    assert isinstance(view.entries[-1], Message)
    assert view.entries[-1].text == "Done."


def test_a_step_opens_and_closes_in_one_entry() -> None:
    history = started().add("STEP_STARTED", step=STEP, tool="read_line", args={"line": 3})
    (step,) = history.view.running_steps
    assert step.arguments == (("line", "3"),)
    closed = history.add(
        "STEP_CLOSED", step=STEP, tool="read_line", outcome="STEP_OUTCOME_FINISHED", result={"mm": 8.1}
    ).view
    entry = closed.entry(STEP)
    assert isinstance(entry, ToolStep)
    assert (entry.state, entry.result, round(entry.milliseconds or 0)) == ("finished", '{"mm": 8.1}', 100)
    assert not closed.running_steps


def test_a_step_may_be_opened_by_key_and_closed_by_name() -> None:
    history = started()
    for key, line in (("k1", 1), ("k2", 2)):
        history.add("STEP_STARTED", step=key, tool="read_line", args={"line": line})
    view = history.add("STEP_CLOSED", step=STEP, tool="read_line", outcome="FINISHED", result="8.1").view
    first, second = (view.entry(key) for key in ("k1", "k2"))
    assert isinstance(first, ToolStep)
    assert isinstance(second, ToolStep)
    assert (first.state, first.result, second.state) == ("finished", "8.1", "running")
    assert view.entry(STEP) is None


def test_a_refused_step_says_why() -> None:
    view = (
        started()
        .add("STEP_REFUSED", step=STEP, tool="stop_line", rule="never", message="Not by policy.")
        .view
    )
    entry = view.entry(STEP)
    assert isinstance(entry, ToolStep)
    assert (entry.state, entry.result) == ("refused", "Not by policy.")


def test_a_card_waits_until_it_is_decided() -> None:
    history = (
        started()
        .add("APPROVAL_REQUESTED", approval=approval().name, tool="set_speed")
        .add("AWAITING", "AWAITING")
    )
    view = history.view
    assert view.pending == (approval().name,)
    assert not view.cards
    view = apply(view, approval())
    assert [card.tool for card in view.cards] == ["set_speed"]
    decided = apply(view, approval(approval_pb2.APPROVAL_STATE_APPROVED))
    assert not decided.cards
    assert not decided.pending
    (entry,) = changed(view, decided)
    assert isinstance(entry, CardEntry)


def test_a_halt_reports_until_it_has_settled() -> None:
    latch = latch_pb2.Latch(name="l1", kind=latch_pb2.LATCH_KIND_HALT, state=latch_pb2.LATCH_STATE_LATCHED)
    latch.scope.run = RUN
    latch.steps.add(tool="slow", status=latch_pb2.LATCH_STEP_STATUS_OPEN)
    view = apply(started().view, latch)
    entry = view.entry("l1")
    assert isinstance(entry, LatchEntry)
    assert (entry.state, entry.target) == ("halting", "run r1")
    latch.state = latch_pb2.LATCH_STATE_SETTLED
    latch.settle_milliseconds = 4.5
    latch.steps[0].status = latch_pb2.LATCH_STEP_STATUS_KILLED
    settled = apply(view, latch).entry("l1")
    assert isinstance(settled, LatchEntry)
    assert (settled.state, settled.milliseconds) == ("settled", 4.5)
    assert settled.steps == (("slow", "killed; its outcome is unknown"),)


def test_a_hold_is_never_called_a_halt() -> None:
    latch = latch_pb2.Latch(name="l1", kind=latch_pb2.LATCH_KIND_HOLD, state=latch_pb2.LATCH_STATE_SETTLED)
    latch.scope.tenant = True
    entry = apply(Conversation(), latch).entry("l1")
    assert isinstance(entry, LatchEntry)
    assert (entry.state, entry.target) == ("held", "everything")


def test_a_lost_worker_and_a_failure_are_told() -> None:
    view = (
        started()
        .add("LEASED", worker="w1", epoch=1)
        .add("LEASE_LOST", worker="w1", epoch=1, reason="dead")
        .add("LEASED", worker="w2", epoch=2)
        .add("FAILED", "FAILED", reason="GRAPH_RAISED", message="it broke")
        .view
    )
    notes = [entry.text for entry in view.entries if isinstance(entry, Note)]
    assert notes[0].startswith("The worker was lost")
    assert notes[1] == "The run goes on, on w2 (epoch 2)"
    assert notes[2] == "The run failed [GRAPH_RAISED] it broke"


def test_an_end_takes_pending_cards_and_drafts_away() -> None:
    history = started().add("APPROVAL_REQUESTED", approval="a1").add("HALTED", "HALTED", latch="l1")
    view = apply(Conversation(), run_pb2.TokenDelta(run=RUN, text="half a sen"))
    for event in history.events:
        view = apply(view, event)
    assert view.pending == ()
    assert view.draft == ""


def test_a_late_event_of_an_earlier_run_does_not_bring_it_back() -> None:
    first = started().add("HALTED", "HALTED", latch="l1")
    view = first.view
    other = run_pb2.Event(
        run="tenants/default/runs/r2",
        sequence=1,
        type=run_pb2.EVENT_TYPE_CREATED,
        state=run_pb2.RUN_STATE_QUEUED,
    )
    view = apply(view, other)
    late = first.add("APPROVAL_DECIDED", "HALTED", approval="a1").events[-1]
    view = apply(view, late)
    assert (view.run, view.is_active) == (other.run, True)


def test_events_seen_again_change_nothing() -> None:
    history = (
        started().add("STEP_STARTED", step=STEP, tool="t", args={}).add("MESSAGE", type="ai", content="Hm.")
    )
    view = history.view
    for event in history.events:
        assert apply(view, event) == view


def test_text_of_models_and_tools_is_made_harmless() -> None:
    view = (
        started("ask \x1b[2J")
        .add("MESSAGE", type="ai", content=[{"type": "text", "text": "\x1b]0;x\x07hi"}, {"type": "image"}])
        .add("STEP_STARTED", step=STEP, tool="t\x1b[1m", args={"a": "\x1b[31m"})
        .add("STEP_CLOSED", step=STEP, tool="t", outcome="FINISHED", result="\x1b[41mred")
        .add("FAILED", "FAILED", reason="\x1b[5m", message="\x9b2J")
        .view
    )
    assert "\x1b" not in repr(view.entries)
    assert "\\x1b" not in repr([entry for entry in view.entries if not isinstance(entry, ToolStep)])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FACTS = st.dictionaries(
    st.sampled_from(
        ["type", "content", "step", "tool", "args", "outcome", "result", "error", "approval", "reason", "message",
         "answer", "citations", "input", "epoch", "worker", "value"]
    ),
    JSON,
)  # fmt: skip


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(sorted(set(run_pb2.EventType.keys()))), FACTS), max_size=8))
def test_no_shape_of_facts_breaks_the_view(told: list[tuple[str, dict[str, Any]]]) -> None:
    history = History()
    for kind, facts in told:
        history.add(kind.removeprefix("EVENT_TYPE_"), **facts)
    view = history.view
    assert len({entry.key for entry in view.entries}) == len(view.entries)


def test_content_of_odd_shapes() -> None:
    assert message_text(None) == ""
    assert message_text(["a", {"type": "text", "text": "b"}, {"type": "tool_use"}]) == "ab"


OTHER = "tenants/default/runs/r2"


def _of_two(*steps: tuple[str, str, str, dict[str, Any]]) -> Conversation:
    """The view after events (run, type, state, facts) of two runs of one thread."""
    view, numbers = Conversation(), {RUN: 0, OTHER: 0}
    for run, kind, state, facts in steps:
        numbers[run] += 1
        event = run_pb2.Event(
            run=run,
            sequence=numbers[run],
            type=run_pb2.EventType.Value(f"EVENT_TYPE_{kind}"),
            data=to_struct(facts),
            state=run_pb2.RunState.Value(f"RUN_STATE_{state}"),
        )
        view = apply(view, event)
    return view


FIRST = (RUN, "CREATED", "QUEUED", {"input": {"messages": [{"role": "user", "content": "one"}]}})
BEHIND = (
    OTHER,
    "CREATED",
    "QUEUED",
    {"behind": RUN, "input": {"messages": [{"role": "user", "content": "two"}]}},
)


def test_a_run_in_line_is_shown_and_the_one_before_it_stays_the_present_one() -> None:
    asked = (RUN, "APPROVAL_REQUESTED", "RUNNING", {"approval": "a1"})
    view = _of_two(FIRST, (RUN, "LEASED", "RUNNING", {"epoch": 1}), asked, BEHIND)
    assert [entry.text for entry in view.entries if isinstance(entry, Message)] == ["one", "two"]
    assert (view.run, view.is_active, view.pending) == (RUN, True, ("a1",))
    halted = _of_two(FIRST, asked, BEHIND, (OTHER, "HALTED", "HALTED", {}))
    assert (halted.run, halted.is_active, halted.pending) == (RUN, True, ("a1",))


def test_a_run_in_line_is_the_present_one_when_it_begins() -> None:
    taken = {"run": OTHER, "reason": f"interrupted by {OTHER}"}
    stopped = (RUN, "CANCELLED", "CANCELLED", taken)
    view = _of_two(FIRST, BEHIND, stopped, (OTHER, "LEASED", "RUNNING", {"epoch": 1}))
    assert (view.run, view.is_active) == (OTHER, True)
    human = (OTHER, "MESSAGE", "RUNNING", {"type": "human", "content": "two"})
    told = _of_two(FIRST, BEHIND, stopped, (OTHER, "LEASED", "RUNNING", {"epoch": 1}), human)
    assert [entry.text for entry in told.entries if isinstance(entry, Message)] == ["one", "two"]
    [note] = [entry for entry in view.entries if isinstance(entry, Note)]
    assert note.text == "The run was cancelled: r2 takes its place"


def test_a_rollback_says_what_goes_back_and_what_does_not() -> None:
    view = _of_two(FIRST, BEHIND, (RUN, "CANCELLED", "CANCELLED", {"run": OTHER, "rolled_back": True}))
    [note] = [entry for entry in view.entries if isinstance(entry, Note)]
    assert "what it was before" in note.text
    assert "stays done" in note.text


def test_a_draft_shows_where_text_was_left_out() -> None:
    view = apply(Conversation(), run_pb2.TokenDelta(run=RUN, text="The line"))
    view = apply(view, run_pb2.TokenDelta(run=RUN, text="stands.", skipped=400))
    assert view.draft == "The line … stands."
