"""``chat``: a conversation at the terminal, or through a pipe."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.patch_stdout import patch_stdout

from fermata.bots.conversation.intents import COMMANDS, Command, intent_of
from fermata.bots.conversation.text import one_line
from fermata.client import Client, FermataError, LocalError
from fermata.client.names import last_part
from fermata.v1 import agent_pb2

from . import completion, exits
from .output import Output, report
from .session import Json, settings_of
from .talk import Talk

BUILT_IN_AGENT = "operator"
TOOLBAR_SECONDS = 1.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("chat")(chat)


def chat(
    context: typer.Context,
    agent: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.agents, help="The agent; left out: operator, or the only one."
        ),
    ] = "",
    thread: Annotated[str, typer.Option(help="Go on with this conversation, shown from its start.")] = "",
    as_json: Json = False,
) -> None:
    """Talk with an agent; decide, hold and halt on the way. Without a terminal it reads one line of input
    at a time, and goes on with the next when the run has ended or waits."""
    interactive = not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    connection = settings_of(context).connection()

    async def conversation() -> None:
        async with Client(connection) as client:
            output = Output(as_json=as_json)
            found = await _agent(client, agent)
            name = thread or (await client.threads.create(labels={"surface": "terminal"})).name
            about = one_line(found.description or found.revision.spec.description, 200)
            output.note(
                f"{last_part(found.name)}{': ' + about if about else ''}  ({last_part(name)}; /help, /quit)"
            )
            if interactive:
                await _at_terminal(client, output, found.name, name)
            else:
                await _through_pipe(client, output, found.name, name)

    asyncio.run(conversation())


class TerminalReader:
    """Line editing with prompt_toolkit; output goes above the prompt."""

    def __init__(self) -> None:
        commands = WordCompleter([f"/{name}" for name in COMMANDS], sentence=True)
        self._session: PromptSession[str] = PromptSession(completer=commands, complete_while_typing=False)
        self.talk: Talk | None = None

    async def read(self, prompt: str, default: str = "") -> str:
        return await self._session.prompt_async(
            [("bold", prompt)],
            default=default,
            bottom_toolbar=lambda: self.talk.toolbar() if self.talk is not None else "",
            refresh_interval=TOOLBAR_SECONDS,
        )


class PipeReader:
    """Lines from stdin, read in a thread so that the conversation goes on meanwhile."""

    async def read(self, prompt: str, default: str = "") -> str:
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            raise EOFError
        return line.rstrip("\n") or default


async def _at_terminal(client: Client, output: Output, agent: str, thread: str) -> None:
    reader = TerminalReader()
    with patch_stdout(raw=True):
        output.attach_terminal()
        talk = Talk(client, output, reader, agent, thread)
        reader.talk = talk
        following = asyncio.create_task(_follow(talk))
        try:
            while not following.done():
                try:
                    line = await reader.read("› ")
                    if not await talk.carry_out(line):
                        break
                except KeyboardInterrupt:
                    if not await _stay(talk, reader, output):
                        break
                except EOFError:
                    break
            if talk.view.is_active:
                output.note(
                    f"{last_part(talk.view.run)} goes on. fermata chat --thread {last_part(thread)} comes back to it."
                )
        finally:
            following.cancel()
            await talk.close()
            await asyncio.gather(following, return_exceptions=True)


async def _through_pipe(client: Client, output: Output, agent: str, thread: str) -> None:
    reader = PipeReader()
    talk = Talk(client, output, reader, agent, thread, echo=True)
    following = asyncio.create_task(talk.follow())
    try:
        while True:
            try:
                line = await reader.read("")
                # "stop" and the like can't wait for the run's end; all else is said when it is over or asks.
                if not isinstance(intent_of(line, talk.view), Command):
                    await _until_quiet(talk, following)
                if not await talk.carry_out(line):
                    return
            except EOFError:
                break
        await _until_quiet(talk, following)
        if talk.view.is_active:
            raise typer.Exit(exits.WAITING)
    finally:
        following.cancel()
        await talk.close()
        await asyncio.gather(following, return_exceptions=True)


async def _until_quiet(talk: Talk, following: asyncio.Task[None]) -> None:
    """``Talk.until_quiet``, unless the stream that it waits on fails. :raises FermataError: of the stream."""
    quiet = asyncio.create_task(talk.until_quiet())
    await asyncio.wait({quiet, following}, return_when=asyncio.FIRST_COMPLETED)
    if following.done():
        quiet.cancel()
        following.result()


async def _stay(talk: Talk, reader: TerminalReader, output: Output) -> bool:
    """After Ctrl-C: halt the run, leave, or go on. A second Ctrl-C leaves."""
    if not talk.view.is_active:
        return False
    try:
        answer = (
            (await reader.read("A run is going on. h: halt it, l: leave it and quit, empty: go on. "))
            .strip()
            .lower()
        )
    except (KeyboardInterrupt, EOFError):
        return False
    if answer.startswith("h"):
        try:
            await talk.halt()
        except FermataError as failure:
            report(failure)
    return not answer.startswith("l")


async def _follow(talk: Talk) -> None:
    """``Talk.follow``, with its end reported while the prompt is still there."""
    try:
        await talk.follow()
    except FermataError as failure:
        report(failure)


async def _agent(client: Client, given: str) -> agent_pb2.Agent:
    """The agent to talk with. :raises LocalError: AGENT_MISSING where it is not clear which."""
    if given:
        return await client.agents.get(given)
    agents = await client.agents.list()
    named = [agent for agent in agents if last_part(agent.name) == BUILT_IN_AGENT]
    if named or len(agents) == 1:
        return (named or list(agents))[0]
    names = ", ".join(last_part(agent.name) for agent in agents)
    raise LocalError(
        f"Say with whom: fermata chat AGENT. There are {names}."
        if names
        else "There is no agent yet: fermata agents apply FILE.",
        reason="AGENT_MISSING",
    )
