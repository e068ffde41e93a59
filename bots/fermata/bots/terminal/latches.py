"""``hold``, ``halt``, ``release``, ``latches``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from fermata.bots.conversation.reducer import latch_entry
from fermata.bots.conversation.text import one_line, short_name
from fermata.client import LocalError, NotFoundError
from fermata.client.latches import CLOSED_STATES, scope_of
from fermata.v1 import latch_pb2

from . import completion, drawing
from .durations import duration
from .session import Json, Session, Yes, session

RunArgument = Annotated[str, typer.Argument(autocompletion=completion.runs, help="The run.")]
DescendantsOption = Annotated[
    bool, typer.Option("--descendants", "-d", help="With all runs that were made for it.")
]
ThreadOption = Annotated[str, typer.Option(help="All runs of this thread.")]
AgentOption = Annotated[str, typer.Option(autocompletion=completion.agents, help="All runs of this agent.")]
RevisionOption = Annotated[
    str, typer.Option(metavar="AGENT@REVISION", help="All runs of one revision of an agent.")
]
ToolOption = Annotated[str, typer.Option(help="This tool, in all agents.")]
AllOption = Annotated[bool, typer.Option("--all", help="Everything of the tenant.")]
AllTenantsOption = Annotated[bool, typer.Option("--all-tenants", help="All tenants of the server.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Why.")]
ExpiresOption = Annotated[
    str,
    typer.Option("--for", metavar="TIME", help="When its time is over: 30m, 2h, 3d. It stays, and says so."),
]
ReleaseOption = Annotated[bool, typer.Option("--then-release", help="Lift it when its time is over.")]
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
    descendants: DescendantsOption = False,
    thread: ThreadOption = "",
    agent: AgentOption = "",
    revision: RevisionOption = "",
    tool: ToolOption = "",
    everything: AllOption = False,
    all_tenants: AllTenantsOption = False,
    reason: ReasonOption = "",
    lasts: ExpiresOption = "",
    then_release: ReleaseOption = False,
    no_wait: NoWait = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Let started effects finish, and stop there until released."""
    if then_release and not lasts:
        raise LocalError("Say when: --for 2h --then-release.", reason="DURATION_INVALID")
    expires = datetime.now(UTC) + duration(lasts) if lasts else None
    with session(context, as_json) as opened:
        _confirm(opened, "Hold", everything, all_tenants, yes=yes)
        latch = opened.client.latches.hold(
            run=opened.run(run).name if run else "",
            descendants=descendants,
            thread=thread,
            agent=agent,
            revision=revision,
            tool=tool,
            everything=everything,
            all_tenants=all_tenants,
            reason=reason,
            expires=expires,
            release_at_expiry=then_release,
        )
        _report(opened, latch, no_wait)


def halt(
    context: typer.Context,
    run: RunArgument = "",
    descendants: DescendantsOption = False,
    thread: ThreadOption = "",
    agent: AgentOption = "",
    revision: RevisionOption = "",
    tool: ToolOption = "",
    everything: AllOption = False,
    all_tenants: AllTenantsOption = False,
    reason: ReasonOption = "",
    no_wait: NoWait = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Stop for good. It says "halting" until nothing that it covers can start any more."""
    with session(context, as_json) as opened:
        _confirm(opened, "Halt", everything, all_tenants, yes=yes)
        latch = opened.client.latches.halt(
            run=opened.run(run).name if run else "",
            descendants=descendants,
            thread=thread,
            agent=agent,
            revision=revision,
            tool=tool,
            everything=everything,
            all_tenants=all_tenants,
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
    revision: RevisionOption = "",
    tool: ToolOption = "",
    everything: Annotated[bool, typer.Option("--all", help="The latches on the whole tenant.")] = False,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Those on all tenants.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Lift latches: held runs go on; halted runs stay halted, and new ones are let in."""
    if sum(map(bool, (target, thread, agent, revision, tool, everything, all_tenants))) != 1:
        raise LocalError(
            "Name exactly one thing: a latch, a run, --thread, --agent, --revision, --tool, --all or --all-tenants.",
            reason="SCOPE_AMBIGUOUS",
        )
    with session(context, as_json) as opened:
        found = (
            _named(opened, target)
            if target
            else _on(
                opened,
                scope_of(
                    opened.client.connection.tenant,
                    thread=thread,
                    agent=agent,
                    revision=revision,
                    tool=tool,
                    everything=everything,
                    all_tenants=all_tenants,
                ),
            )
        )
        if not found:
            named = target or thread or agent or revision or tool
            raise NotFoundError(f"No latch is on {named or 'everything'}.", reason="LATCH_NOT_FOUND")
        wide = [latch for latch in found if latch.scope.tenant or latch.scope.everything]
        if wide:
            _confirm(opened, "Release", True, any(latch.scope.everything for latch in wide), yes=yes)
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


def _confirm(opened: Session, verb: str, everything: bool, all_tenants: bool, *, yes: bool) -> None:
    """Ask before what reaches everybody."""
    if all_tenants:
        opened.confirm(f"{verb} all tenants of the server?", yes=yes)
    elif everything:
        opened.confirm(f"{verb} everything?", yes=yes)


def _on(opened: Session, scope: latch_pb2.LatchScope) -> Sequence[latch_pb2.Latch]:
    """Latches in force on exactly what was named."""
    return [latch for latch in opened.client.latches.list(limit=None) if latch.scope == scope]


def _named(opened: Session, target: str) -> Sequence[latch_pb2.Latch]:
    """The latch in force with this name, or those on the run with this name, alone or with its descendants; or its beginning.

    :raises LocalError: NAME_AMBIGUOUS.
    """
    in_force = opened.client.latches.list(limit=None)
    by_name = [latch for latch in in_force if _fits(target, latch.name)]
    by_run = [latch for latch in in_force if _fits(target, latch.scope.run or latch.scope.run_tree)]
    found = by_name or by_run
    if len({latch.name if by_name else latch.scope.run or latch.scope.run_tree for latch in found}) > 1:
        names = ", ".join(short_name(latch.name) for latch in found)
        raise LocalError(
            f"{target!r} fits more than one: {names}. Write more of it.", reason="NAME_AMBIGUOUS"
        )
    return found


def _fits(target: str, name: str) -> bool:
    return bool(name) and (target == name or short_name(name).startswith(target))
