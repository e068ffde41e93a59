"""``run``, ``runs``, ``watch``, ``steps``."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fermata.bots.conversation.text import one_line, short_name, shown
from fermata.bots.conversation.view import Entry, Message
from fermata.client import TERMINAL_STATES, LocalError, NotFoundError
from fermata.client.values import from_struct
from fermata.v1 import run_pb2

from . import completion, drawing, exits
from .deciding import ask_about
from .durations import duration
from .printer import Printer
from .session import Json, OnBusy, Session, session

STATES = {drawing.enum_word(name, "RUN_STATE_"): value for name, value in run_pb2.RunState.items() if value}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("run")(run)
    app.command("runs")(runs)
    app.command("watch")(watch)
    app.command("steps")(steps)


def run(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(autocompletion=completion.agents)],
    text: Annotated[str, typer.Argument(help="The message.")] = "",
    values: Annotated[
        str, typer.Option(help="JSON object for a graph that does not talk; @FILE reads it from a file.")
    ] = "",
    thread: Annotated[str, typer.Option(help="Go on with this thread.")] = "",
    on_busy: OnBusy = None,
    priority: Annotated[
        int, typer.Option(min=-100, max=100, help="Of the runs that wait those with a greater one go first.")
    ] = 0,
    deadline: Annotated[str, typer.Option(help="End it after so long: 90s, 15m, 2h.")] = "",
    parent: Annotated[
        str, typer.Option(autocompletion=completion.runs, help="The run for which this one is made.")
    ] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Print the run's name and leave.")] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Without a terminal: wait while others decide, instead of leaving with 7."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a run and follow it; approvals are asked about here.

    Exit code 0: it succeeded, 1: it did not, 7: it waits for a person and there is no terminal.
    """
    given = _values(values) if values else None
    if given is None and not text:
        raise LocalError('Say something: fermata run AGENT "TEXT", or give --values.', reason="INPUT_MISSING")
    with session(context, as_json) as opened:
        created = opened.client.runs.create(
            agent,
            text,
            values=given,
            thread=thread,
            multitask_strategy=on_busy,
            priority=priority,
            deadline=datetime.now(UTC) + duration(deadline) if deadline else None,
            parent=opened.run(parent).name if parent else "",
        )
        if detach:
            opened.output.show(Text(created.name), document=created)
            return
        waits = ", in line behind the run that is going on" if created.in_line else ""
        opened.output.note(f"{short_name(created.name)} on {short_name(created.thread)}{waits}")
        try:
            ended = follow(opened, created.name, ask=opened.is_interactive, leave=not wait, own_text=text)
        except KeyboardInterrupt:
            short = short_name(created.name)
            opened.output.errors.print(
                Text(f"{short} goes on. fermata watch {short} shows it, fermata halt {short} stops it.")
            )
            raise
        _finish(opened, ended)


def runs(
    context: typer.Context,
    agent: Annotated[
        str, typer.Option(autocompletion=completion.agents, help="Only runs of this agent.")
    ] = "",
    thread: Annotated[str, typer.Option(help="Only runs of this thread.")] = "",
    state: Annotated[list[str] | None, typer.Option(help=f"Only in this state: {', '.join(STATES)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 20,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    wanted = []
    for name in state or []:
        if name.lower() not in STATES:
            raise LocalError(
                f"There is no state {name!r}. Known: {', '.join(STATES)}.", reason="STATE_UNKNOWN"
            )
        wanted.append(STATES[name.lower()])
    with session(context, as_json) as opened:
        found = list(opened.client.runs.list(agent=agent, thread=thread, states=wanted, limit=limit))
        opened.output.show(
            drawing.run_table(found) if found else Text("No runs.", style="dim"), document={"runs": found}
        )


def watch(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(autocompletion=completion.runs, help="The run; all runs from now on where left out."),
    ] = "",
    thread: Annotated[str, typer.Option(help="All runs of this thread.")] = "",
    cursor: Annotated[str, typer.Option(help="Go on after this cursor of an earlier --json watch.")] = "",
    as_json: Json = False,
) -> None:
    """Show what happens in a run, from its start on, until it ends. Connections may break meanwhile."""
    with session(context, as_json) as opened:
        if run:
            _finish(opened, follow(opened, opened.run(run).name, ask=False, leave=False, cursor=cursor))
            return
        follow_all(opened, thread, cursor)


def steps(
    context: typer.Context,
    run: Annotated[str, typer.Argument(autocompletion=completion.runs)],
    as_json: Json = False,
) -> None:
    """The effect ledger of a run: every call, and how it ended."""
    with session(context, as_json) as opened:
        found = opened.client.runs.steps(opened.run(run).name)
        table = drawing.plain_table("Step", "Call", "Effect", "Try", "Outcome", "Rule", "Result")
        for step in found:
            arguments = ", ".join(f"{one_line(k, 40)}={shown(v)}" for k, v in from_struct(step.args).items())
            outcome = drawing.enum_word(run_pb2.StepOutcome.Name(step.outcome), "STEP_OUTCOME_")
            table.add_row(
                Text(short_name(step.name)),
                Text(f"{one_line(step.tool, 60)}({arguments})"),
                Text(drawing.enum_word(run_pb2.EffectClass.Name(step.effect), "EFFECT_CLASS_")),
                Text(str(step.attempt)),
                Text("open" if outcome == "unspecified" else outcome),
                Text(one_line(step.rule, 40)),
                Text(one_line(step.error or step.result, 120)),
            )
        opened.output.show(table if found else Text("No steps.", style="dim"), document={"steps": found})


def follow(
    opened: Session, name: str, *, ask: bool, leave: bool, cursor: str = "", own_text: str = ""
) -> run_pb2.Run:
    """Show a run until it ends.

    :param ask: ask about its approvals here.
    :param leave: without ``ask``, return when the run waits for a person.
    :param own_text: what was typed here, which needs no repeating.
    """

    def is_own(entry: Entry) -> bool:
        return isinstance(entry, Message) and entry.speaker == "person" and entry.text == own_text.strip()

    printer = Printer(opened.output.console, skip=is_own if own_text else lambda entry: False)
    live = opened.output.console.is_terminal and not opened.output.as_json
    position = cursor
    while True:
        with opened.output.console.status("") if live else nullcontext() as status:
            waiting = False
            for item in opened.client.runs.watch(name, cursor=position):
                position = item.cursor
                _take(opened, printer, item)
                if status is not None:
                    status.update(Text(printer.status))
                waiting = item.event.type in (run_pb2.EVENT_TYPE_AWAITING, run_pb2.EVENT_TYPE_HELD)
                if waiting and (ask or leave):
                    break
        now = opened.client.runs.get(name)
        if now.state in TERMINAL_STATES or not waiting:
            break
        if now.state not in (run_pb2.RUN_STATE_AWAITING, run_pb2.RUN_STATE_HELD):
            continue
        if not ask:
            break
        if not printer.view.cards:
            opened.output.note("The run is held; fermata release lets it go on.")
            ask = False
            leave = False
            continue
        for card in printer.view.cards:
            ask_about(opened, opened.client.approvals.get(card.name))
    opened.output.item({"run": now})
    return now


def follow_all(opened: Session, thread: str, cursor: str) -> None:
    """Show all runs of a thread, or of the tenant, until interrupted."""
    printers: dict[str, Printer] = {}
    for item in opened.client.runs.watch(thread=thread, cursor=cursor):
        run = item.event.run or item.delta.run
        if run not in printers:
            printers[run] = Printer(opened.output.console)
            opened.output.note(f"── {short_name(run)}")
        _take(opened, printers[run], item)


def _take(opened: Session, printer: Printer, item: run_pb2.WatchRunsResponse) -> None:
    if opened.output.as_json:
        opened.output.item({"event": item.event, "cursor": item.cursor})
        return
    printer.take(item.event)
    if item.event.type in (run_pb2.EVENT_TYPE_APPROVAL_REQUESTED, run_pb2.EVENT_TYPE_APPROVAL_DECIDED):
        name = from_struct(item.event.data).get("approval")
        if isinstance(name, str):
            try:
                printer.take(opened.client.approvals.get(name))
            except NotFoundError:
                opened.output.note(f"The approval {short_name(name)} is gone.")


def _finish(opened: Session, ended: run_pb2.Run) -> None:
    """Say how it ended, and leave with the exit code that says so."""
    if ended.state == run_pb2.RUN_STATE_SUCCEEDED:
        if not ended.answer and ended.HasField("output") and not opened.output.as_json:
            # A graph that does not talk: what it gives is its result.
            for name, value in from_struct(ended.output).items():
                opened.output.console.print(Text(f"  {one_line(name, 60)}: {shown(value)}"))
        return
    if ended.state in TERMINAL_STATES:
        raise typer.Exit(exits.FAILED)
    ids = ", ".join(short_name(name) for name in ended.pending_approvals)
    opened.output.errors.print(
        Text(
            f"{short_name(ended.name)} waits for a person"
            + (f": {ids}. fermata approve|edit|reject ID" if ids else ".")
        )
    )
    raise typer.Exit(exits.WAITING)


def _values(given: str) -> dict[str, object]:
    try:
        text = Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
        parsed = json.loads(text)
    except (OSError, ValueError) as failure:
        raise LocalError(f"--values can't be read: {failure}", reason="VALUES_MALFORMED") from failure
    if not isinstance(parsed, dict):
        raise LocalError("--values should be a JSON object.", reason="VALUES_MALFORMED")
    return parsed
