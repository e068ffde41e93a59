"""Who somebody in Slack is: an account, and nothing more. Who that is in Fermata, and what they may do, the server says."""

from __future__ import annotations

from dataclasses import dataclass

from fermata.client import Client, FermataError, NotFoundError, PermissionDeniedError

from .outbox import SURFACE

STRANGER = "ACCOUNT_NOT_LINKED"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who has done something in Slack.

    :param account: the name by which the server knows the account; given as ``on_behalf_of``.
    :param channel: where they did it; a notice goes there.
    :param thread: the thread in which they did it, if any.
    """

    user: str
    team: str
    account: str
    channel: str = ""
    thread: str = ""


def person(client: Client, *, user: str, team: str, channel: str = "", thread: str = "") -> Person:
    """The person of a user in a team."""
    return Person(user, team, client.surfaces.account(SURFACE, team, user), channel, thread)


async def require_linked(client: Client, who: Person) -> None:
    """Refuse a stranger before anything is shown to them.

    :raises PermissionDeniedError: ACCOUNT_NOT_LINKED.
    """
    try:
        await client.surfaces.get_link(who.account)
    except NotFoundError:
        raise PermissionDeniedError("This account is linked to nobody.", reason=STRANGER) from None


def notice(failure: FermataError) -> str:
    """What a person is told, in private, of what the server refused."""
    match failure.reason:
        case "ACCOUNT_NOT_LINKED" | "PRINCIPAL_NOT_FOUND":
            return (
                "Your Slack account is not linked to anybody in Fermata, so nothing was changed. "
                "Type `/fermata link` to link it."
            )
        case "PERMISSION_DENIED" | "NOT_APPROVER" | "REQUESTER_MAY_NOT_APPROVE":
            return f"Nothing was changed: you may not do that. {failure.message}"
        case "APPROVAL_DECIDED" | "APPROVAL_EXPIRED" | "APPROVAL_CANCELLED" | "RUN_ENDED":
            return f"Too late: {failure.message}"
        case "APPROVAL_DIGEST_MISMATCH":
            return "What is asked has changed since this card was drawn, so nothing was decided. Look at it again."
        case "HALTED":
            return f"A halt covers this, so nothing was started. {failure.message}"
    return f"That did not work [{failure.reason}]: {failure.message}"
