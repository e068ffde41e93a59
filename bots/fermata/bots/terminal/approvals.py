"""``approvals``, ``approve``, ``reject``, ``edit``, ``answer``, ``recover``."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fermata.bots.conversation.cards import STATES, Card, card_of
from fermata.bots.conversation.editing import EditError
from fermata.bots.conversation.text import one_line, short_name, shown
from fermata.client import LocalError
from fermata.client.values import JsonValue
from fermata.v1 import approval_pb2

from . import completion, drawing
from .deciding import assign, edit_in_editor
from .session import ALL_APPROVAL_STATES, Json, Session, Yes, session

Id = Annotated[
    str, typer.Argument(autocompletion=completion.approvals, help="The approval's ID, or its start.")
]
Comment = Annotated[str, typer.Option("--comment", "-m", help="For the record and for the agent.")]
Digest = Annotated[str, typer.Option(help="Refuse unless this is still its digest.")]
_RECOVERIES = {
    "happened": approval_pb2.DECISION_IT_HAPPENED,
    "again": approval_pb2.DECISION_DO_AGAIN,
    "give-up": approval_pb2.DECISION_GIVE_UP,
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("approvals")(approvals)
    app.command("approve")(approve)
    app.command("reject")(reject)
    app.command("edit")(edit)
    app.command("answer")(answer)
    app.command("recover")(recover)


def approvals(
    context: typer.Context,
    run: Annotated[str, typer.Option(autocompletion=completion.runs, help="Only of this run.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Decided ones as well.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show them as they are asked for and decided.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: Json = False,
) -> None:
    """What waits for a person, oldest first."""
    with session(context, as_json) as opened:
        name = opened.run(run).name if run else ""
        if watch:
            for item in opened.client.approvals.watch(run=name):
                opened.output.item({"approval": item.approval, "cursor": item.cursor})
                if not as_json:
                    opened.output.console.print(_card(item.approval))
            return
        states = ALL_APPROVAL_STATES if everything else ()
        found = opened.client.approvals.list(run=name, states=states, limit=limit)
        cards = [_card(approval) for approval in found]
        if not cards:
            cards = [Text("Nothing waits for a person.", style="dim")]
        opened.output.show(Group(*cards), document={"approvals": found})


def approve(
    context: typer.Context,
    approval: Id,
    comment: Comment = "",
    digest: Digest = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Say yes to an action, exactly as it is shown."""
    with session(context, as_json) as opened:
        found = _pending(opened, approval, digest)
        opened.confirm("Approve this?", yes=yes)
        _done(opened, opened.client.approvals.approve(found, comment=comment))


def reject(
    context: typer.Context,
    approval: Id,
    comment: Annotated[str, typer.Option("--comment", "--reason", "-m", help="Why; the agent is told.")] = "",
    digest: Digest = "",
    as_json: Json = False,
) -> None:
    """Say no; the comment reaches the agent."""
    with session(context, as_json) as opened:
        found = _pending(opened, approval, digest)
        _done(opened, opened.client.approvals.reject(found, comment=comment))


def edit(
    context: typer.Context,
    approval: Id,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value, as often as needed; typed by the tool's schema."),
    ] = None,
    comment: Comment = "",
    digest: Digest = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Say yes with other arguments: by --set, or as JSON in $EDITOR. Policy looks at them again."""
    with session(context, as_json) as opened:
        found = _pending(opened, approval, digest)
        card = card_of(found)
        if not changes and not opened.is_interactive:
            raise LocalError("Name the changes: --set name=value.", reason="CHANGES_MISSING")
        arguments = assign(card, tuple(changes)) if changes else edit_in_editor(card)
        if arguments == card.args:
            raise EditError("", "Nothing has changed. Use approve to approve it as it is.")
        if not as_json:
            opened.output.console.print(_changes(card, arguments))
        opened.confirm("Approve it with these arguments?", yes=yes)
        _done(opened, opened.client.approvals.edit(found, arguments, comment=comment))


def answer(
    context: typer.Context,
    approval: Id,
    text: Annotated[str, typer.Argument(help="The answer.")],
    parse: Annotated[bool, typer.Option("--parse", help="The answer is JSON, not a text.")] = False,
    comment: Comment = "",
    as_json: Json = False,
) -> None:
    """Answer an agent's question."""
    value: object = text
    if parse:
        try:
            value = json.loads(text)
        except ValueError as failure:
            raise LocalError(f"The answer is no JSON: {failure}", reason="VALUE_MALFORMED") from failure
    with session(context, as_json) as opened:
        found = _pending(opened, approval, "")
        _done(opened, opened.client.approvals.answer(found, value, comment=comment))


def recover(
    context: typer.Context,
    approval: Id,
    what: Annotated[str, typer.Argument(help="happened, again or give-up.")],
    result: Annotated[str, typer.Option(help="happened: what the call returned.")] = "",
    comment: Comment = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Say what became of a call whose host was lost."""
    decision = _RECOVERIES.get(what)
    if decision is None:
        raise LocalError(f"{what!r} is none of {', '.join(_RECOVERIES)}.", reason="DECISION_UNKNOWN")
    with session(context, as_json) as opened:
        found = _pending(opened, approval, "")
        if decision == approval_pb2.DECISION_DO_AGAIN:
            opened.confirm(f"Call {card_of(found).tool} once more?", yes=yes)
        _done(
            opened,
            opened.client.approvals.decide(
                found.name, decision, digest=found.digest, value=result or None, comment=comment
            ),
        )


def _pending(opened: Session, given: str, digest: str) -> approval_pb2.Approval:
    """The approval, shown."""
    found = opened.approval(given)
    if digest and found.digest != digest:
        raise LocalError(
            f"{short_name(found.name)} has another digest by now: {found.digest}. Look at it again.",
            reason="APPROVAL_DIGEST_MISMATCH",
            metadata={"approval": found.name, "digest": found.digest},
        )
    if not opened.output.as_json:
        opened.output.console.print(_card(found))
    return found


def _done(opened: Session, decided: approval_pb2.Approval) -> None:
    words = STATES.get(decided.state, "recorded")
    if decided.state == approval_pb2.APPROVAL_STATE_PENDING:
        words = f"recorded; {card_of(decided).still_needed} more must approve"
    opened.output.show(Text(f"{short_name(decided.name)} {words}", style="green"), document=decided)


def _card(approval: approval_pb2.Approval) -> RenderableType:
    return drawing.card(card_of(approval), time.time())


def _changes(card: Card, arguments: dict[str, JsonValue]) -> Text:
    text = Text()
    for name in dict.fromkeys([*card.args, *arguments]):
        before = shown(card.args[name]) if name in card.args else "(none)"
        after = shown(arguments[name]) if name in arguments else "(none)"
        if before != after:
            text.append(f"  {one_line(name)}: {before} → ").append(after, "bold").append("\n")
    return text
