"""A run, its answer and a latch as Slack messages: the conversation's view, drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fermata.bots.conversation.cards import REDACTED, Card
from fermata.bots.conversation.text import one_line, short_name
from fermata.bots.conversation.view import CardEntry, Conversation, LatchEntry, Message, Note, ToolStep
from fermata.client.runs import TERMINAL_STATES
from fermata.v1 import run_pb2

from . import blocks, cards
from .blocks import Block
from .shown import PEOPLE, STOPPING, Shown

HALT_RUN = "run.halt"
HOLD_RUN = "run.hold"
RELEASE = "latch.release"
STEPS_SHOWN = 12
ARGUMENTS_SHOWN = 100
MAX_DRAFT = 1500
ANSWER_BLOCKS = 40
CITATIONS_SHOWN = 10

_STATES = {
    run_pb2.RUN_STATE_QUEUED: "🕓 waits for a worker",
    run_pb2.RUN_STATE_RUNNING: "⏳ is working",
    run_pb2.RUN_STATE_AWAITING: "🙋 waits for a person",
    run_pb2.RUN_STATE_HELD: "⏸️ held",
    run_pb2.RUN_STATE_HALTING: "🛑 halting …",
    run_pb2.RUN_STATE_HALTED: "🛑 halted",
    run_pb2.RUN_STATE_SUCCEEDED: "✅ done",
    run_pb2.RUN_STATE_FAILED: "❌ failed",
    run_pb2.RUN_STATE_CANCELLED: "↪️ gave way to a later message",
    run_pb2.RUN_STATE_EXPIRED: "⌛ its deadline has passed",
}
_PAIRS = re.compile(r'"(\w+)": "?([^"{}\[\],]+)"?(?=[,}])')
_MARKS = {
    "running": "…",
    "finished": "✓",
    "confirmed": "✓",
    "refused": "⊘",
    "not started": "–",
    "abandoned": "–",
}


Secrets = frozenset[tuple[str, str]]


def messages(view: Conversation, agent: str, secrets: Secrets = frozenset()) -> Iterator[Shown]:
    """All messages of a conversation, in order.

    :param agent: the name of the agent that speaks there.
    :param secrets: (tool, argument) of what is not to be shown.
    """
    for run in view.sequences:
        yield progress(view, run, agent, secrets)
        for entry in view.entries:
            if isinstance(entry, CardEntry) and entry.card.run == run:
                yield cards.approval(entry.card, evidence(view, entry.card))
        if (said := answer(view, run, agent)) is not None:
            yield said


def progress(view: Conversation, run: str, agent: str, secrets: Secrets = frozenset()) -> Shown:
    """The message of a run that changes while it goes on."""
    state = view.states.get(run, run_pb2.RUN_STATE_QUEUED)
    steps = [entry for entry in _entries_of(view, run) if isinstance(entry, ToolStep)]
    lines = [_step(step, secrets) for step in steps[-STEPS_SHOWN:]]
    if len(steps) > STEPS_SHOWN:
        lines.insert(0, f"… {len(steps) - STEPS_SHOWN} before")
    notes = [entry for entry in _entries_of(view, run) if isinstance(entry, Note)]
    lines += [f"· {note.text}" for note in notes[-3:]]
    word = _STATES.get(state, "is working")
    ended = state in TERMINAL_STATES
    found: list[Block] = [blocks.context(blocks.mrkdwn(f"{blocks.code(agent)} {word}"))]
    if lines:
        found.append(blocks.section(blocks.plain("\n".join(lines))))
    if view.draft and view.run == run and not ended:
        found.append(blocks.section(blocks.plain(view.draft[-MAX_DRAFT:])))
    if not ended and state != run_pb2.RUN_STATE_HALTING:
        value = short_name(run)
        buttons = [blocks.button("Halt", HALT_RUN, value, style="danger")]
        if state != run_pb2.RUN_STATE_HELD:
            buttons.append(blocks.button("Hold", HOLD_RUN, value))
        found.append(blocks.actions(buttons))
    return Shown(
        run,
        f"{blocks.escape(agent)} {word}",
        found,
        is_final=ended,
        priority=0 if lines or view.draft else PEOPLE,
    )


def answer_of(run: str) -> str:
    """What the message of a run's answer shows."""
    return f"{run}/answer"


def answer(view: Conversation, run: str, agent: str) -> Shown | None:
    """What a run has come to, when it has ended: its answer with citations, or why there is none."""
    state = view.states.get(run)
    if state not in TERMINAL_STATES or state == run_pb2.RUN_STATE_CANCELLED:
        return None
    subject = answer_of(run)
    own = list(_entries_of(view, run))
    if state != run_pb2.RUN_STATE_SUCCEEDED:
        if state == run_pb2.RUN_STATE_HALTED:
            return None  # the halt has a message of its own
        why = next((entry.text for entry in reversed(own) if isinstance(entry, Note)), "The run has failed.")
        return Shown(
            subject, blocks.escape(one_line(why, 300)), blocks.prose(f"❌ {why}", most=4), is_final=True
        )
    said = next(
        (entry for entry in reversed(own) if isinstance(entry, Message) and entry.speaker == "agent"), None
    )
    if said is None:
        return None
    found = blocks.prose(said.text, most=ANSWER_BLOCKS)
    cited = [
        blocks.plain(f"[{citation.number}] {citation.place}  {citation.heading}", 300)
        for citation in said.citations[:CITATIONS_SHOWN]
    ]
    if cited:
        found.append(blocks.context(*cited))
    return Shown(subject, blocks.escape(one_line(f"{agent}: {said.text}", 300)), found, is_final=True)


def latch(entry: LatchEntry) -> Shown:
    """A hold's or halt's report: halting, then settled, with how fast, what was stopped, and what is in doubt."""
    done = entry.state in ("settled", "held")
    # Where nothing was open a latch settles in its own commit.
    fast = f" in {entry.milliseconds:.0f} ms" if entry.milliseconds >= 1 else " at once"
    tail = fast if done else ""
    runs = f" · {entry.runs} {'run' if entry.runs == 1 else 'runs'}" if entry.runs else ""
    word = {"halting": "halting …", "holding": "holding …"}.get(entry.state, entry.state)
    found = [
        blocks.section(
            blocks.mrkdwn(f"{'🛑' if entry.halt else '⏸️'} *{word}{tail}* · {blocks.code(entry.target)}{runs}")
        )
    ]
    if entry.steps:
        found.append(
            blocks.section(blocks.plain("\n".join(f"{tool}: {status}" for tool, status in entry.steps)))
        )
    elif done:
        found.append(blocks.context(blocks.plain("No effect was open.")))
    doubtful = [tool for tool, status in entry.steps if "unknown" in status or "reach" in status]
    if doubtful:
        names = ", ".join(blocks.code(tool) for tool in dict.fromkeys(doubtful))
        found.append(blocks.section(blocks.mrkdwn(f"⚠️ In doubt: {names}. Look whether it happened.")))
    if entry.reason:
        found.append(blocks.context(blocks.plain(entry.reason, 300)))
    # A halted run is over; what covers more than a run refuses new ones until it is lifted.
    ends = entry.halt and entry.target.startswith("run ")
    if done and not ends:
        label = "Let new runs in" if entry.halt else "Release"
        found.append(blocks.actions([blocks.button(label, RELEASE, short_name(entry.key))]))
    text = f"{word}{tail}: {blocks.escape(entry.target)}"
    return Shown(
        entry.key, text, found, is_final=entry.state == "released" or (done and ends), priority=STOPPING
    )


def evidence(view: Conversation, card: Card) -> list[str]:
    """What the run has read and cited before it asked, newest first."""
    own = list(_entries_of(view, card.run))
    read = [
        f"{step.tool}: {one_line(_flat(step.result), 200)}"
        for step in reversed(own)
        if isinstance(step, ToolStep) and step.state == "finished" and step.result
    ]
    cited = [
        f"{citation.place} {citation.heading}".strip()
        for entry in reversed(own)
        if isinstance(entry, Message)
        for citation in entry.citations
    ]
    return [*read[:3], *dict.fromkeys(cited)]


def _flat(result: str) -> str:
    """A tool's JSON object, which may be cut, as its names and plain values; anything else as it is."""
    pairs = _PAIRS.findall(result) if result.startswith("{") else []
    return ", ".join(f"{name} {value}" for name, value in pairs) or result


def _step(step: ToolStep, secrets: Secrets) -> str:
    shown = (
        f"{name}={REDACTED if (step.tool, name) in secrets else value}" for name, value in step.arguments
    )
    given = one_line(", ".join(shown), ARGUMENTS_SHOWN)
    tail = "" if step.state in ("running", "finished") else f"  {step.state}"
    if step.milliseconds is not None and step.state in ("finished", "failed"):
        tail += f"  {step.milliseconds:.0f} ms"
    return f"{_MARKS.get(step.state, '✗')} {step.tool}({given}){tail}"


def _entries_of(view: Conversation, run: str) -> Iterator[Message | ToolStep | Note | CardEntry | LatchEntry]:
    prefix = f"{run}/"
    return (entry for entry in view.entries if entry.key.startswith(prefix))
