"""``hold``, ``halt``, ``release``, ``latches``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from fermata.bots.conversation.reducer import latch_entry
from fermata.bots.conversation.text import one_line, short_name
from fermata.client import LocalError, NotFoundError
from fermata.client.latches import CLOSED_STATES
from fermata.client.names import full_name
from fermata.v1 import latch_pb2

from . import completion, drawing
from .session import Json, Session, Yes, session

RunArgument = Annotated[str, typer.Argument(autocompletion=completion.runs, help="The run.")]
ThreadOption = Annotated[str, typer.Option(help="All runs of this thread.")]
AgentOption = Annotated[str, typer.Option(autocompletion=completion.agents, help="All runs of this agent.")]
ToolOption = Annotated[str, typer.Option(help="This tool, in all agents.")]
AllOption = Annotated[bool, typer.Option("--all", help="Everything.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Why.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Leave once it is latched, before it has settled.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("hold")(hold)
    app.command("halt")(halt)
    app.command("release")(release)
    app.command("latches")(latches)


def hold(
    context: typer.Context,
    run: RunArgument = "",
    thread: ThreadOption = "",
    agent: AgentOption = "",
    tool: ToolOption = "",
    everything: AllOption = False,
    reason: ReasonOption = "",
    no_wait: NoWait = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Let started effects finish, and stop there until released."""
    with session(context, as_json) as opened:
        if everything:
            opened.confirm("Hold everything?", yes=yes)
        latch = opened.client.latches.hold(
            run=opened.run(run).name if run else "",
            thread=thread,
            agent=agent,
            tool=tool,
            everything=everything,
            reason=reason,
        )
        _report(opened, latch, no_wait)


def halt(
    context: typer.Context,
    run: RunArgument = "",
    thread: ThreadOption = "",
    agent: AgentOption = "",
    tool: ToolOption = "",
    everything: AllOption = False,
    reason: ReasonOption = "",
    no_wait: NoWait = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Stop for good. It says "halting" until nothing that it covers can start any more."""
    with session(context, as_json) as opened:
        if everything:
            opened.confirm("Halt everything?", yes=yes)
        latch = opened.client.latches.halt(
            run=opened.run(run).name if run else "",
            thread=thread,
            agent=agent,
            tool=tool,
            everything=everything,
            reason=reason,
        )
        _report(opened, latch, no_wait)


def release(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(autocompletion=completion.latches, help="A latch, or the run that it is on.")
    ] = "",
    thread: ThreadOption = "",
    agent: AgentOption = "",
    tool: ToolOption = "",
    everything: Annotated[bool, typer.Option("--all", help="The latches on everything.")] = False,
    as_json: Json = False,
) -> None:
    """Lift latches: held runs go on; halted runs stay halted, and new ones are let in."""
    if sum(map(bool, (target, thread, agent, tool, everything))) != 1:
        raise LocalError(
            "Name exactly one thing: a latch, a run, --thread, --agent, --tool or --all.",
            reason="SCOPE_AMBIGUOUS",
        )
    with session(context, as_json) as opened:
        found = _fitting(opened, target, thread, agent, tool)
        if not found:
            raise NotFoundError(
                f"No latch is on {target or thread or agent or tool or 'everything'}.",
                reason="LATCH_NOT_FOUND",
            )
        released = [opened.client.latches.release(latch.name) for latch in found]
        lines = Text("\n".join(f"{short_name(latch.name)} released" for latch in released), style="green")
        opened.output.show(lines, document={"latches": released})


def latches(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Released ones as well.")] = False,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: Json = False,
) -> None:
    """Holds and halts, newest first."""
    with session(context, as_json) as opened:
        found = opened.client.latches.list(show_released=everything, limit=limit)
        table = drawing.plain_table("Latch", "State", "Covers", "By", "Set", "Reason")
        for latch in found:
            entry = latch_entry(latch)
            kind = "halt" if entry.halt else "hold"
            table.add_row(
                Text(short_name(latch.name)),
                Text(
                    f"{kind}, released" if entry.state == "released" else entry.state,
                    style="dim" if entry.state == "released" else "",
                ),
                Text(entry.target),
                Text(one_line(short_name(latch.on_behalf_of or latch.created_by), 40)),
                Text(drawing.ago(latch.create_time)),
                Text(entry.reason),
            )
        opened.output.show(
            table if found else Text("Nothing is held or halted.", style="dim"), document={"latches": found}
        )


def _report(opened: Session, latch: latch_pb2.Latch, no_wait: bool) -> None:
    """The latch's report, live, until it has settled."""
    if opened.output.as_json:
        opened.output.item(latch)
        if not no_wait and latch.state not in CLOSED_STATES:
            for report in opened.client.latches.watch(latch.name):
                if report != latch:
                    opened.output.item(report)
        return
    if not opened.output.console.is_terminal:
        opened.output.console.print(drawing.latch(latch_entry(latch)))
        if not no_wait and latch.state not in CLOSED_STATES:
            opened.output.console.print(drawing.latch(latch_entry(opened.client.latches.settle(latch.name))))
        return
    with Live(drawing.latch(latch_entry(latch)), console=opened.output.console, auto_refresh=False) as live:
        if not no_wait and latch.state not in CLOSED_STATES:
            for report in opened.client.latches.watch(latch.name):
                live.update(drawing.latch(latch_entry(report)), refresh=True)


def _fitting(opened: Session, target: str, thread: str, agent: str, tool: str) -> Sequence[latch_pb2.Latch]:
    """Latches in force on exactly what was named."""
    in_force = opened.client.latches.list(limit=None)
    if target:
        by_name = [
            latch for latch in in_force if target == latch.name or short_name(latch.name).startswith(target)
        ]
        by_run = [
            latch
            for latch in in_force
            if latch.scope.run
            and (target == latch.scope.run or short_name(latch.scope.run).startswith(target))
        ]
        found = by_name or by_run
        if len({latch.name if by_name else latch.scope.run for latch in found}) > 1:
            names = ", ".join(short_name(latch.name) for latch in found)
            raise LocalError(
                f"{target!r} fits more than one: {names}. Write more of it.", reason="NAME_AMBIGUOUS"
            )
        return found
    tenant = opened.client.connection.tenant
    scope = latch_pb2.LatchScope(tenant=True)
    if thread:
        scope = latch_pb2.LatchScope(thread=full_name(tenant, "threads", thread))
    elif agent:
        scope = latch_pb2.LatchScope(agent=full_name(tenant, "agents", agent))
    elif tool:
        scope = latch_pb2.LatchScope(tool=tool)
    return [latch for latch in in_force if latch.scope == scope]
