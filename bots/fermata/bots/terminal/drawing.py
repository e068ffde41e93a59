"""How things look on a terminal: Rich renderables of the conversation's view and of the API's messages.

Everything is a ``Text`` or is put through ``one_line``; nothing is ever parsed as markup.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import HEAVY, ROUNDED
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fermata.bots.conversation.cards import DETAILS, HALT, Card
from fermata.bots.conversation.text import clean, one_line, short_name
from fermata.bots.conversation.view import CardEntry, Entry, LatchEntry, Message, Note, ToolStep
from fermata.v1 import approval_pb2, run_pb2

MAX_RESULT = 200
"""Characters of a finished call's result that a conversation shows."""
TONES = {"info": "dim", "good": "green", "warning": "yellow", "error": "bold red"}
RISKS = {"low": "green", "medium": "yellow", "high": "bold red"}
STEP_MARKS = {
    "running": ("…", "cyan"),
    "finished": ("✓", "green"),
    "failed": ("✗", "red"),
    "refused": ("⊘", "red"),
    "killed": ("✗", "bold red"),
    "not started": ("–", "dim"),
    "confirmed": ("✓", "yellow"),
    "abandoned": ("–", "yellow"),
}
STATE_STYLES = {
    run_pb2.RUN_STATE_QUEUED: "dim",
    run_pb2.RUN_STATE_RUNNING: "cyan",
    run_pb2.RUN_STATE_AWAITING: "yellow",
    run_pb2.RUN_STATE_HELD: "yellow",
    run_pb2.RUN_STATE_HALTING: "bold red",
    run_pb2.RUN_STATE_HALTED: "red",
    run_pb2.RUN_STATE_SUCCEEDED: "green",
    run_pb2.RUN_STATE_FAILED: "bold red",
}


def entry(item: Entry, *, now: float | None = None) -> RenderableType:
    """An entry of the view. ``now`` in seconds since 1970, for the time that a card has left."""
    match item:
        case Message():
            return message(item)
        case ToolStep():
            return step(item)
        case CardEntry():
            return card(item.card, time.time() if now is None else now)
        case LatchEntry():
            return latch(item)
        case Note():
            return Text(f"· {item.text}", style=TONES[item.tone])


def message(item: Message) -> RenderableType:
    """What somebody said, with footnotes."""
    if item.speaker == "person":
        return Text(f"> {item.text}", style="bold")
    parts: list[RenderableType] = [Text(item.text)]
    for citation in item.citations:
        heading = f"  {citation.heading}" if citation.heading else ""
        parts.append(Text.assemble((f"  [{citation.number}] {citation.place}", "cyan"), (heading, "dim")))
    return Padding(Group(*parts), (0, 0, 0, 2), expand=False)


def step(item: ToolStep) -> RenderableType:
    """One tool call with its result."""
    mark, style = STEP_MARKS[item.state]
    arguments = ", ".join(f"{name}={value}" for name, value in item.arguments)
    line = Text.assemble((f"{mark} ", style), (item.tool, "bold"), f"({arguments})")
    if item.state not in ("finished", "running"):
        line.append(f"  {item.state}", style)
    if item.milliseconds is not None and item.state in ("finished", "failed"):
        line.append(f"  {duration(item.milliseconds)}", "dim")
    if not item.result:
        return line
    # What went well is told in short (the ledger has all of it); what did not, as far as it is known.
    result = one_line(item.result, MAX_RESULT) if item.state == "finished" else item.result
    return Group(line, Padding(Text(result, style="dim"), (0, 0, 0, 4), expand=False))


def card(item: Card, now: float) -> RenderableType:
    """An approval: a panel while it waits, a line once it is decided."""
    if not item.is_pending:
        good = item.state in (approval_pb2.APPROVAL_STATE_APPROVED, approval_pb2.APPROVAL_STATE_ANSWERED)
        head = item.tool or item.question.splitlines()[0]
        line = Text.assemble(
            ("✓ " if good else "⊘ ", "green" if good else "red"), (head, "bold"), f"  {item.outcome}"
        )
        changes = ", ".join(f"{arg.name}: {arg.was} → {arg.text}" for arg in item.arguments if arg.was)
        return Group(line, Padding(Text(changes), (0, 0, 0, 4), expand=False)) if changes else line
    parts: list[RenderableType] = [Text(item.question, style="bold")]
    if item.tool_description:
        parts.append(Text(item.tool_description, style="dim"))
    if item.arguments:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_column(style="dim", overflow="fold")
        for argument in item.arguments:
            table.add_row(Text(argument.name), Text(argument.text, style="bold"), Text(argument.description))
        parts.append(Padding(table, (1, 0, 1, 2)))
    if item.why:
        parts.append(Text.assemble(("Why    ", "dim"), item.why))
    if item.rule:
        parts.append(Text.assemble(("Rule   ", "dim"), item.rule))
    if item.effect:
        risk = (f"  risk {item.risk}", RISKS.get(item.risk, "yellow")) if item.risk else ""
        parts.append(Text.assemble(("Effect ", "dim"), item.effect, risk))
    left = item.seconds_left(now)
    waits = [f"roles: {', '.join(item.roles)}"] if item.roles else []
    if item.still_needed > 1:
        waits.append(f"{item.still_needed} approvals still needed")
    if left is not None:
        waits.append(f"{left_text(left)} left, then it counts as a no")
    if waits:
        parts.append(Text("; ".join(waits), style="dim"))
    title = Text(f" {item.title} {short_name(item.name)} ", style="bold")
    return Panel(
        Group(*parts),
        title=title,
        title_align="left",
        subtitle=Text(f" {choices(item)} "),
        subtitle_align="left",
        box=HEAVY if item.risk == "high" else ROUNDED,
        border_style="red" if item.risk == "high" else "yellow",
    )


def choices(item: Card) -> str:
    """What can be typed about a card."""
    if item.kind == approval_pb2.APPROVAL_KIND_INPUT:
        # Whatever is typed is the answer, so no other decision has a word.
        return " · ".join(["type the answer", *(f"{choice.key} {choice.word}" for choice in (DETAILS, HALT))])
    return " · ".join(f"{choice.key} {choice.word}".strip() for choice in item.choices)


def latch(item: LatchEntry) -> RenderableType:
    """A hold's or halt's report."""
    done = item.state in ("settled", "held")
    tail = f" in {duration(item.milliseconds)}" if done and item.milliseconds else ""
    count = str(item.runs) if done or item.runs == 1 else f"{item.stopped_runs} of {item.runs}"
    runs = f"; {count} {'run' if item.runs == 1 else 'runs'}" if item.runs else ""
    if item.runs > 1 and not done and item.state != "released":
        runs += " stopped"
    head = Text.assemble(
        ("■ " if item.halt else "‖ ", "bold red" if item.halt else "bold yellow"),
        (f"{item.state}{tail}", "bold"),
        f"  {item.target}{runs}  {short_name(item.key)}",
    )
    parts: list[RenderableType] = [head]
    if item.reason:
        parts.append(Text(f"    {item.reason}", style="dim"))
    if item.expires_at and item.state != "released":
        parts.append(Text(f"    its time is over at {clock(item.expires_at)}", style="dim"))
    parts += [Text(f"    {tool}: {status}") for tool, status in item.steps]
    if done and not item.steps:
        parts.append(Text("    no effect was open", style="dim"))
    return Group(*parts)


def clock(seconds: float) -> str:
    """A time of day on this machine, with its date."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def run_table(runs: list[run_pb2.Run]) -> Table:
    """Runs, one a line."""
    table = plain_table("Run", "Agent", "State", "Started", "Answer, error or what it waits for")
    for run in runs:
        table.add_row(
            Text(short_name(run.name)),
            Text(short_name(run.agent)),
            state(run.state),
            Text(ago(run.create_time)),
            Text(one_line(run_summary(run), 200)),
        )
    return table


def run_summary(run: run_pb2.Run) -> str:
    """What matters about a run, in a few words."""
    if run.HasField("error"):
        return f"[{run.error.reason}] {run.error.message}"
    if run.pending_approvals:
        return "waits for " + ", ".join(short_name(name) for name in run.pending_approvals)
    if run.latches:
        return "under " + ", ".join(short_name(name) for name in run.latches)
    return run.answer


def state(value: run_pb2.RunState.ValueType) -> Text:
    """A run's state, coloured."""
    return Text(enum_word(run_pb2.RunState.Name(value), "RUN_STATE_"), style=STATE_STYLES.get(value, ""))


def enum_word(name: str, prefix: str) -> str:
    """``RUN_STATE_SUCCEEDED`` as ``succeeded``."""
    return name.removeprefix(prefix).lower().replace("_", " ")


def plain_table(*columns: str) -> Table:
    """A table without borders whose cells fold instead of being cut."""
    table = Table(box=None, pad_edge=False, header_style="dim", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def duration(milliseconds: float) -> str:
    """Milliseconds as a person reads them."""
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.1f} s"


def left_text(seconds: float) -> str:
    """Time left in minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def ago(stamp: Timestamp) -> str:
    """How long ago, or the date."""
    if not stamp.ByteSize():
        return ""
    seconds = time.time() - stamp.ToNanoseconds() / 1e9
    for size, unit in ((60, "s"), (3600, "min"), (86400, "h")):
        if seconds < size:
            divisor = {"s": 1, "min": 60, "h": 3600}[unit]
            return f"{max(0, int(seconds // divisor))} {unit} ago"
    return datetime.fromtimestamp(stamp.seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def body(text: str) -> Text:
    """Untrusted prose."""
    return Text(clean(text))
