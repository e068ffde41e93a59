"""``chat``: a conversation at the terminal, or through a pipe."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

from fermata.bots.conversation.intents import Command, intent_of
from fermata.bots.conversation.text import one_line, short_name
from fermata.client import Client, LocalError, MultitaskStrategy
from fermata.v1 import agent_pb2

from . import completion, exits
from .output import Output
from .session import Json, OnBusy, settings_of
from .talk import Talk

_Result = TypeVar("_Result")
BUILT_IN_AGENT = "operator"


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
    on_busy: OnBusy = None,
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
                f"{short_name(found.name)}{': ' + about if about else ''}  ({short_name(name)}; /help, /quit)"
            )
            if interactive:
                from .line_editor import talk_at_terminal

                await talk_at_terminal(client, output, found.name, name, on_busy)
            else:
                await _through_pipe(client, output, found.name, name, on_busy)

    asyncio.run(conversation())


class PipeReader:
    """Lines from stdin. A daemon thread reads them, for a blocked read must not keep the program from
    ending."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        threading.Thread(target=self._pump, args=(asyncio.get_running_loop(),), daemon=True).start()

    async def read(self, prompt: str, default: str = "") -> str:
        line = await self._lines.get()
        if not line:
            self._lines.put_nowait("")
            raise EOFError
        return line.rstrip("\n") or default

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        line = "-"
        while line:
            line = sys.stdin.readline()
            try:
                loop.call_soon_threadsafe(self._lines.put_nowait, line)
            except RuntimeError:  # the loop is closed: the conversation is over
                return


async def _through_pipe(
    client: Client, output: Output, agent: str, thread: str, on_busy: MultitaskStrategy | None
) -> None:
    reader = PipeReader()
    talk = Talk(client, output, reader, agent, thread, echo=True, on_busy=on_busy)
    following = asyncio.create_task(talk.follow())
    try:
        await _unless_broken(talk.catch_up(), following)
        while True:
            try:
                line = await _unless_broken(reader.read(""), following)
                # "stop" and the like can't wait for the run's end; all else is said when it is over or asks.
                if not isinstance(intent_of(line, talk.view), Command):
                    await _unless_broken(talk.until_quiet(), following)
                if not await talk.carry_out(line):
                    return
            except EOFError:
                break
        await _unless_broken(talk.until_quiet(), following)
        if talk.view.is_active:
            raise typer.Exit(exits.WAITING)
    finally:
        following.cancel()
        await talk.close()
        await asyncio.gather(following, return_exceptions=True)


async def _unless_broken(work: Coroutine[Any, Any, _Result], following: asyncio.Task[None]) -> _Result:
    """The result of ``work``, unless the stream that it waits on fails first. :raises FermataError: of the
    stream."""
    task = asyncio.create_task(work)
    await asyncio.wait({task, following}, return_when=asyncio.FIRST_COMPLETED)
    if following.done():
        task.cancel()
        following.result()
    return await task


async def _agent(client: Client, given: str) -> agent_pb2.Agent:
    """The agent to talk with. :raises LocalError: AGENT_MISSING where it is not clear which."""
    if given:
        return await client.agents.get(given)
    agents = await client.agents.list()
    named = [agent for agent in agents if short_name(agent.name) == BUILT_IN_AGENT]
    if named or len(agents) == 1:
        return (named or list(agents))[0]
    names = ", ".join(short_name(agent.name) for agent in agents)
    raise LocalError(
        f"Say with whom: fermata chat AGENT. There are {names}."
        if names
        else "There is no agent yet: fermata agents apply FILE.",
        reason="AGENT_MISSING",
    )
