"""``policy test``, ``policy show``, ``policy set``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from fermata.bots.conversation.editing import edited
from fermata.bots.conversation.text import one_line
from fermata.client import LocalError
from fermata.client.values import JsonValue
from fermata.v1 import policy_pb2, run_pb2

from . import completion, drawing, exits
from .session import Json, Session, session

_OUTCOME_STYLES = {
    policy_pb2.POLICY_OUTCOME_ALLOW: "green",
    policy_pb2.POLICY_OUTCOME_DENY: "bold red",
    policy_pb2.POLICY_OUTCOME_REQUIRE_APPROVAL: "yellow",
}
_EFFECTS = {
    drawing.enum_word(name, "EFFECT_CLASS_"): value for name, value in run_pb2.EffectClass.items() if value
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The policy: test, show, set.", no_args_is_help=True)
    group.command("test")(try_call)
    group.command("show")(show)
    group.command("set")(replace)
    app.add_typer(group, name="policy")


def try_call(
    context: typer.Context,
    tool: Annotated[str, typer.Argument(help="The tool that would be called.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="name=value, typed by the agent's tool if --agent is given.")
    ] = None,
    args: Annotated[str, typer.Option(help="The arguments as a JSON object.")] = "",
    agent: Annotated[
        str, typer.Option(autocompletion=completion.agents, help="With this agent's policy and declarations.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Test this policy instead of what is in force.")
    ] = None,
    effect: Annotated[str, typer.Option(help=f"The tool's effect class: {', '.join(_EFFECTS)}.")] = "",
    risk: Annotated[str, typer.Option(help="low, medium or high.")] = "",
    as_json: Json = False,
) -> None:
    """Which rule would decide a call, and why. Nothing is called. Exit code 1: denied."""
    if effect and effect.lower() not in _EFFECTS:
        raise LocalError(
            f"There is no effect class {effect!r}. Known: {', '.join(_EFFECTS)}.", reason="EFFECT_UNKNOWN"
        )
    with session(context, as_json) as opened:
        given = _object(args)
        values = edited(given, arguments or [], _schema(opened, agent, tool) if arguments else {})
        found = opened.client.policies.test(
            tool,
            values,
            agent=agent,
            text=_read(file) if file else "",
            effect=_EFFECTS[effect.lower()] if effect else run_pb2.EFFECT_CLASS_UNSPECIFIED,
            risk=risk,
        )
        opened.output.show(_verdict(found), document=found)
        if found.outcome == policy_pb2.POLICY_OUTCOME_DENY:
            raise typer.Exit(exits.FAILED)


def show(context: typer.Context, as_json: Json = False) -> None:
    """The tenant's policy, which stands before every agent's own."""
    with session(context, as_json) as opened:
        found = opened.client.policies.get()
        opened.output.show(drawing.body(found.text.rstrip("\n")), document=found)


def replace(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The policy file.")],
    etag: Annotated[str, typer.Option(help="Refuse if the policy was changed since it had this etag.")] = "",
    as_json: Json = False,
) -> None:
    """Replace the tenant's policy, from the next gate on. A malformed one changes nothing."""
    text = _read(file)
    with session(context, as_json) as opened:
        updated = opened.client.policies.update(text, etag=etag)
        opened.output.show(Text("The policy is in force.", style="green"), document=updated)


def _verdict(found: policy_pb2.TestPolicyResponse) -> Group:
    outcome = drawing.enum_word(policy_pb2.PolicyOutcome.Name(found.outcome), "POLICY_OUTCOME_")
    head = Text.assemble(
        (outcome, _OUTCOME_STYLES.get(found.outcome, "")),
        f"  by {one_line(found.rule, 80)}" if found.rule else "",
        f": {one_line(found.reason, 200)}" if found.reason else "",
        f"  (roles: {one_line(', '.join(found.roles))})" if found.roles else "",
    )
    table = drawing.plain_table("", "Rule", "Why")
    for trace in found.trace:
        mark = Text("→", style="bold") if trace.matched else Text("")
        table.add_row(mark, Text(one_line(trace.rule, 80)), Text(one_line(trace.explanation, 300)))
    return Group(head, table) if found.trace else Group(head)


def _schema(opened: Session, agent: str, tool: str) -> dict[str, Any]:
    """The argument schema of an agent's tool; empty where it is not known."""
    if not agent:
        return {}
    for info in opened.agent(agent).revision.report.tools:
        if info.name == tool and info.args_schema:
            schema = json.loads(info.args_schema)
            return {"properties": schema.get("properties", {}), "$defs": schema.get("$defs", {})}
    return {}


def _object(text: str) -> dict[str, JsonValue]:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as failure:
        raise LocalError(f"--args is no JSON: {failure}", reason="ARGS_MALFORMED") from failure
    if not isinstance(value, dict):
        raise LocalError("--args should be a JSON object.", reason="ARGS_MALFORMED")
    return value


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise LocalError(f"{file} can't be read: {failure}", reason="PATH_UNREADABLE") from failure
