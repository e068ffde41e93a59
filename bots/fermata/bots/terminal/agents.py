"""``agents``, ``agents show``, ``agents apply``, ``agents delete``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from fermata.bots.conversation.text import one_line, short_name
from fermata.v1 import agent_pb2, run_pb2

from . import completion, drawing
from .session import Json, Yes, session

AgentArgument = Annotated[str, typer.Argument(autocompletion=completion.agents)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Agents: list, show, apply, delete.", invoke_without_command=True)
    group.callback()(agents)
    group.command("list")(list_agents)
    group.command("show")(show)
    group.command("apply")(apply)
    group.command("delete")(delete)
    app.add_typer(group, name="agents")


def agents(context: typer.Context, as_json: Json = False) -> None:
    """List agents; ``fermata agents apply FILE`` makes one."""
    if context.invoked_subcommand is None:
        list_agents(context, as_json)


def list_agents(context: typer.Context, as_json: Json = False) -> None:
    """List agents by name."""
    with session(context, as_json) as opened:
        found = opened.client.agents.list()
        table = drawing.plain_table("Agent", "Revision", "Updated", "Description")
        for agent in found:
            table.add_row(
                Text(short_name(agent.name), style="bold"),
                Text(short_name(agent.revision.name)[:12]),
                Text(drawing.ago(agent.update_time)),
                Text(one_line(agent.description or agent.revision.spec.description, 160)),
            )
        empty = Text("No agents. fermata agents apply FILE makes one.", style="dim")
        opened.output.show(table if found else empty, document={"agents": found})


def show(
    context: typer.Context,
    agent: AgentArgument,
    revisions: Annotated[bool, typer.Option("--revisions", help="Its revisions, newest first.")] = False,
    as_json: Json = False,
) -> None:
    """Show an agent: its graph, tools and what the gate covers."""
    with session(context, as_json) as opened:
        found = opened.agent(agent)
        if revisions:
            listed = opened.client.agents.revisions(found.name)
            table = drawing.plain_table("Revision", "Applied", "By")
            for revision in listed:
                table.add_row(
                    Text(short_name(revision.name)[:12]),
                    Text(drawing.ago(revision.create_time)),
                    Text(one_line(short_name(revision.created_by), 40)),
                )
            opened.output.show(table, document={"revisions": listed})
            return
        opened.output.show(_agent(found), document=found)


def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="agent.yaml, langgraph.json, or a folder with one of them.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")] = False,
    etag: Annotated[str, typer.Option(help="Refuse if the agent was changed since it had this etag.")] = "",
    as_json: Json = False,
) -> None:
    """Make an agent, or a new revision of it. The graph is packed as it is."""
    from fermata.client import bundle  # brings pydantic, which no other command needs

    bundles = bundle.read(file)
    with session(context, as_json) as opened:
        applied = []
        shown: list[RenderableType] = []
        for item in bundles:
            agent = opened.client.agents.apply(
                item.name, item.spec, pack=item.pack, etag=etag, validate_only=dry_run
            )
            applied.append(agent)
            done = "would be applied" if dry_run else "applied"
            shown.append(Text(f"{item.name} {done}", style="green"))
            shown += [Text(f"  {one_line(note, 300)}", style="yellow") for note in item.notes]
            shown.append(Padding(_agent(agent), (0, 0, 0, 2), expand=False))
        opened.output.show(Group(*shown), document={"agents": applied})


def delete(context: typer.Context, agent: AgentArgument, yes: Yes = False, as_json: Json = False) -> None:
    """Remove an agent that has no run going on. Its runs stay on record."""
    with session(context, as_json) as opened:
        found = opened.agent(agent)
        opened.confirm(f"Delete {short_name(found.name)}?", yes=yes)
        opened.client.agents.delete(found.name)
        opened.output.show(
            Text(f"{short_name(found.name)} deleted", style="green"), document={"deleted": found.name}
        )


def _agent(agent: agent_pb2.Agent) -> Group:
    spec, report = agent.revision.spec, agent.revision.report
    facts = [
        ("Agent", f"{short_name(agent.name)}  {agent.description or spec.description}"),
        ("Revision", short_name(agent.revision.name)[:12]),
        ("Graph", spec.graph),
        ("Nodes", ", ".join(report.nodes)),
        ("Models", ", ".join(f"{name}: {model}" for name, model in sorted(spec.models.items()))),
        ("Collections", ", ".join(spec.collections)),
        ("Hosts", "one process per run (sync code)" if report.has_sync_code else "shared"),
    ]
    lines = Text()
    for label, value in facts:
        if value.strip():
            lines.append(f"{label:<12}", "dim").append(one_line(value, 300) + "\n")
    table = drawing.plain_table("Tool", "Effect", "Risk", "What it does")
    for tool in report.tools:
        effect = drawing.enum_word(run_pb2.EffectClass.Name(tool.effect), "EFFECT_CLASS_")
        table.add_row(
            Text(one_line(tool.name, 60), style="bold"),
            Text("unsafe (not declared)" if effect == "unspecified" else effect),
            Text(one_line(tool.risk, 20), style=drawing.RISKS.get(tool.risk, "")),
            Text(one_line(tool.description, 160)),
        )
    parts: list[RenderableType] = [lines]
    if report.tools:
        parts.append(table)
    parts += [Text(f"! {one_line(note, 300)}", style="yellow") for note in report.notes]
    return Group(*parts)
