"""The chat at a terminal: line editing with prompt_toolkit, a status line, and output above the prompt.

A module of its own, imported when a chat begins: prompt_toolkit takes longer to import than most commands
take to run.
"""

from __future__ import annotations

import asyncio

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.patch_stdout import patch_stdout

from fermata.bots.conversation.intents import COMMANDS
from fermata.bots.conversation.text import short_name
from fermata.client import Client, FermataError, MultitaskStrategy

from .output import Output, report
from .talk import Talk

TOOLBAR_SECONDS = 1.0


async def talk_at_terminal(
    client: Client, output: Output, agent: str, thread: str, on_busy: MultitaskStrategy | None
) -> None:
    """Talk until the person leaves."""
    reader = TerminalReader()
    with patch_stdout(raw=True):
        output.attach_terminal()
        talk = Talk(client, output, reader, agent, thread, on_busy=on_busy)
        reader.talk = talk
        following = asyncio.create_task(_follow(talk))
        caught_up = asyncio.create_task(talk.catch_up())
        try:
            await asyncio.wait({caught_up, following}, return_when=asyncio.FIRST_COMPLETED)
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
                    f"{short_name(talk.view.run)} goes on. fermata chat --thread {short_name(thread)} comes back to it."
                )
        finally:
            following.cancel()
            caught_up.cancel()
            await talk.close()
            await asyncio.gather(following, caught_up, return_exceptions=True)


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
