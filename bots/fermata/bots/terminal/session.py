"""A command's session: settings from the global options, a client, an output, and names written short."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import typer

from fermata.client import (
    Connection,
    LocalError,
    MultitaskStrategy,
    NotFoundError,
    RetryPolicy,
    SyncClient,
)
from fermata.client.names import last_part
from fermata.v1 import agent_pb2, approval_pb2, latch_pb2, run_pb2

from .output import Output

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
OnBusy = Annotated[
    MultitaskStrategy | None,
    typer.Option(
        "--on-busy",
        help="While a run of the thread is going on: refuse the message, let it wait in line, interrupt that run, or roll it back "
        "(the conversation, not what was done). Left out: as the thread says, else refuse.",
    ),
]
AMBIGUOUS_SHOWN = 8
SEARCHED = 500
ALL_APPROVAL_STATES = tuple(value for value in approval_pb2.ApprovalState.values() if value)


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options."""

    address: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    tenant: str | None = None
    data: Path | None = None

    def connection(self) -> Connection:
        """The server. :raises LocalError: what ``Connection.discover`` raises."""
        return Connection.discover(
            address=self.address,
            token_file=self.token_file,
            ca_file=self.ca_file,
            tenant=self.tenant,
            data=self.data,
        )


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with."""

    client: SyncClient
    output: Output

    @property
    def is_interactive(self) -> bool:
        """True where a person can be asked."""
        return not self.output.as_json and sys.stdin.isatty() and sys.stdout.isatty()

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask unless ``yes``.

        :raises LocalError: CONFIRMATION_NEEDED where nobody can be asked. :raises typer.Exit: where the
            answer is no.
        """
        if yes:
            return
        if not self.is_interactive:
            raise LocalError(
                f"{question} There is no terminal to ask at: add --yes.", reason="CONFIRMATION_NEEDED"
            )
        if not typer.confirm(question):
            raise typer.Exit(1)

    def run(self, given: str) -> run_pb2.Run:
        """The run that ``given`` names: its name, its ID, or the start of its ID."""
        return _find(given, "run", self.client.runs.get, lambda: self.client.runs.list(limit=SEARCHED))

    def approval(self, given: str) -> approval_pb2.Approval:
        """The approval that ``given`` names."""
        return _find(
            given,
            "approval",
            self.client.approvals.get,
            lambda: self.client.approvals.list(states=ALL_APPROVAL_STATES, limit=SEARCHED),
        )

    def latch(self, given: str) -> latch_pb2.Latch:
        """The latch that ``given`` names."""
        return _find(
            given,
            "latch",
            self.client.latches.get,
            lambda: self.client.latches.list(show_released=True, limit=SEARCHED),
        )

    def agent(self, given: str) -> agent_pb2.Agent:
        """The agent that ``given`` names."""
        return _find(given, "agent", self.client.agents.get, self.client.agents.list)


def settings_of(context: typer.Context) -> Settings:
    """The global options of a command's context."""
    found = context.find_root().obj
    return found if isinstance(found, Settings) else Settings()


@contextmanager
def session(
    context: typer.Context, as_json: bool = False, *, retry: RetryPolicy | None = None
) -> Iterator[Session]:
    """Open a session, and close its client at the end."""
    with SyncClient(settings_of(context).connection(), retry=retry) as client:
        yield Session(client, Output(as_json=as_json))


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Thing = TypeVar("_Thing", bound=_Named)


def _find(
    given: str, noun: str, get: Callable[[str], _Thing], everything: Callable[[], Sequence[_Thing]]
) -> _Thing:
    """By name or ID; else by the start of an ID.

    :raises LocalError: NAME_AMBIGUOUS with the first of those that fit. :raises NotFoundError: where none
        does.
    """
    try:
        return get(given)
    except NotFoundError as missing:
        found = (
            [] if "/" in given else [item for item in everything() if last_part(item.name).startswith(given)]
        )
        if not found:
            raise missing from None
    if len(found) > 1:
        names = [last_part(item.name) for item in found[:AMBIGUOUS_SHOWN]]
        more = f" and {len(found) - AMBIGUOUS_SHOWN} more" if len(found) > AMBIGUOUS_SHOWN else ""
        raise LocalError(
            f"{given!r} fits more than one {noun}: {', '.join(names)}{more}. Write more of it.",
            reason="NAME_AMBIGUOUS",
            metadata={"given": given, "matches": ",".join(names)},
        )
    return found[0]
