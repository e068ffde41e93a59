"""``principals``, ``links``, ``link``, ``whoami``."""

from __future__ import annotations

from typing import Annotated, TypeVar

import typer
from rich.text import Text

from fermata.bots.conversation.text import one_line, short_name
from fermata.client import LocalError
from fermata.v1 import principal_pb2, surface_pb2

from . import drawing
from .session import Json, Yes, session

_Value = TypeVar("_Value")
KINDS = {
    drawing.enum_word(name, "PRINCIPAL_KIND_"): value
    for name, value in principal_pb2.PrincipalKind.items()
    if value
}
ROLES = {drawing.enum_word(name, "ROLE_"): value for name, value in principal_pb2.Role.items() if value}
Name = Annotated[str, typer.Argument(help="The principal's ID.")]
RoleOption = Annotated[list[str] | None, typer.Option("--role", help=f"May be repeated: {', '.join(ROLES)}.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Principals: who may do what.", invoke_without_command=True)
    group.callback()(principals)
    group.command("list")(list_principals)
    group.command("create")(create)
    group.command("update")(update)
    group.command("rotate")(rotate)
    group.command("delete")(delete)
    app.add_typer(group, name="principals")
    accounts = typer.Typer(help="Accounts of a chat, and which person each is.", invoke_without_command=True)
    accounts.callback()(links)
    accounts.command("list")(list_links)
    accounts.command("create")(create_link)
    accounts.command("delete")(delete_link)
    app.add_typer(accounts, name="links")
    app.command("link")(link)
    app.command("whoami")(whoami)


def principals(context: typer.Context, as_json: Json = False) -> None:
    """List principals."""
    if context.invoked_subcommand is None:
        list_principals(context, as_json)


def list_principals(context: typer.Context, as_json: Json = False) -> None:
    """List principals by name."""
    with session(context, as_json) as opened:
        found = opened.client.principals.list()
        table = drawing.plain_table("Principal", "Kind", "Roles", "State", "Shown as")
        for principal in found:
            table.add_row(
                Text(short_name(principal.name), style="bold"),
                Text(_kind(principal)),
                Text(_roles(principal)),
                Text("disabled" if principal.disabled else "", style="red"),
                Text(one_line(principal.display_name, 80)),
            )
        opened.output.show(table, document={"principals": found})


def create(
    context: typer.Context,
    name: Name,
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(KINDS)}.")] = "user",
    role: RoleOption = None,
    display_name: Annotated[str, typer.Option(help="How it is shown.")] = "",
    as_json: Json = False,
) -> None:
    """Make a principal. Its token is printed once and kept nowhere."""
    with session(context, as_json) as opened:
        made = opened.client.principals.create(
            name,
            kind=_known(kind, KINDS, "kind"),
            roles=_role_values(role or ["viewer"]),
            display_name=display_name,
        )
        token = made.token or "(none: this call was a repeat; fermata principals rotate gives another)"
        opened.output.show(
            Text(f"{short_name(made.principal.name)} made: {_roles(made.principal)}", style="green"),
            Text(f"token  {token}"),
            document=made,
        )


def update(
    context: typer.Context,
    name: Name,
    role: RoleOption = None,
    display_name: Annotated[str | None, typer.Option(help="How it is shown.")] = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Refuse or accept its token.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change roles, display name, or whether its token is accepted."""
    with session(context, as_json) as opened:
        principal = opened.client.principals.get(name)
        if role is not None:
            principal.ClearField("roles")
            principal.roles.extend(_role_values(role))
        if display_name is not None:
            principal.display_name = display_name
        if disabled is not None:
            principal.disabled = disabled
        changed = opened.client.principals.update(principal)
        opened.output.show(
            Text(f"{short_name(changed.name)}: {_roles(changed)}", style="green"), document=changed
        )


def rotate(context: typer.Context, name: Name, yes: Yes = False, as_json: Json = False) -> None:
    """A new token; the old one ends at once."""
    with session(context, as_json) as opened:
        opened.confirm(f"End the present token of {name}?", yes=yes)
        token = opened.client.principals.rotate_token(name)
        opened.output.show(Text(f"token  {token}"), document={"token": token})


def delete(context: typer.Context, name: Name, yes: Yes = False, as_json: Json = False) -> None:
    """Remove a principal; its token ends at once."""
    with session(context, as_json) as opened:
        opened.confirm(f"Delete {name}?", yes=yes)
        opened.client.principals.delete(name)
        opened.output.show(Text(f"{name} deleted", style="green"), document={"deleted": name})


def links(context: typer.Context, as_json: Json = False) -> None:
    """List links."""
    if context.invoked_subcommand is None:
        list_links(context, as_json)


def list_links(context: typer.Context, as_json: Json = False) -> None:
    """List which account of a chat is which person."""
    with session(context, as_json) as opened:
        found = opened.client.surfaces.links()
        table = drawing.plain_table("Account", "Principal", "Linked by")
        for known in found:
            table.add_row(
                Text(short_name(known.name), style="bold"),
                Text(short_name(known.principal)),
                Text(short_name(known.created_by)),
            )
        opened.output.show(
            table if found else Text("No account is linked.", style="dim"), document={"links": found}
        )


def create_link(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="surface.team.account, such as slack.T0123.U0456.")],
    principal: Annotated[str, typer.Argument(help="The person that it is.")],
    as_json: Json = False,
) -> None:
    """Say which person an account is."""
    with session(context, as_json) as opened:
        made = opened.client.surfaces.link(account, principal)
        opened.output.show(_linked(made), document=made)


def delete_link(context: typer.Context, account: str, yes: Yes = False, as_json: Json = False) -> None:
    """Let an account be nobody again."""
    with session(context, as_json) as opened:
        opened.confirm(f"Unlink {account}?", yes=yes)
        opened.client.surfaces.unlink(account)
        opened.output.show(
            Text(f"{account} is linked to nobody", style="green"), document={"deleted": account}
        )


def link(
    context: typer.Context,
    code: Annotated[str, typer.Argument(help="What the bot has shown to you.")],
    as_json: Json = False,
) -> None:
    """Link your account in a chat to yourself, by the code that its bot has shown to you."""
    with session(context, as_json) as opened:
        made = opened.client.surfaces.redeem(code)
        opened.output.show(_linked(made), document=made)


def _linked(made: surface_pb2.Link) -> Text:
    return Text(f"{short_name(made.name)} is {short_name(made.principal)}", style="green")


def whoami(context: typer.Context, as_json: Json = False) -> None:
    """Who you are to the server, and what you may do."""
    with session(context, as_json) as opened:
        caller = opened.client.principals.caller()
        opened.output.show(
            Text(
                f"{short_name(caller.name)} ({_kind(caller)}): {_roles(caller)} at {opened.client.connection.target}"
            ),
            document=caller,
        )


def _kind(principal: principal_pb2.Principal) -> str:
    return drawing.enum_word(principal_pb2.PrincipalKind.Name(principal.kind), "PRINCIPAL_KIND_")


def _roles(principal: principal_pb2.Principal) -> str:
    return ", ".join(drawing.enum_word(principal_pb2.Role.Name(role), "ROLE_") for role in principal.roles)


def _role_values(names: list[str]) -> list[principal_pb2.Role.ValueType]:
    return [_known(name, ROLES, "role") for name in names]


def _known(name: str, known: dict[str, _Value], noun: str) -> _Value:
    if name.lower() not in known:
        raise LocalError(
            f"There is no {noun} {name!r}. Known: {', '.join(known)}.", reason=f"{noun.upper()}_UNKNOWN"
        )
    return known[name.lower()]
