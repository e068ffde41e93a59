"""``/fermata``: what can be typed anywhere. Answers are for the person alone; only a halt or a hold is told to the channel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fermata.bots.conversation.cards import card_of
from fermata.bots.conversation.text import one_line, short_name
from fermata.client import Client, LocalError
from fermata.v1 import latch_pb2, run_pb2

from .blocks import code, escape
from .following import ACTIVE_STATES, Conversations
from .outbox import SURFACE
from .people import Person, require_linked
from .talk import Heard, Talk

LISTED = 15
HELP = {
    "run AGENT what you want": "start a run here",
    "status": "what goes on, what waits, what is held",
    "runs": "the latest runs",
    "approvals": "what waits for a person",
    "agents": "who can be asked",
    "halt [run|agent|all]": "stop for good: a run by its id, an agent by its name, everything",
    "hold [run|agent|all]": "let started effects finish, and stop there",
    "release [id]": "lift a hold or a halt",
    "link": "say who you are in Fermata",
    "help": "this",
}


class Commands:
    """Carries out slash commands."""

    def __init__(
        self, client: Client, conversations: Conversations, talk: Talk, slash: str = "/fermata"
    ) -> None:
        self._client = client
        self._conversations = conversations
        self._talk = talk
        self._slash = slash

    async def carry_out(self, text: str, who: Person, heard: Callable[[str], Awaitable[Heard]]) -> str:
        """Do what was typed; returns the answer as ``mrkdwn``.

        :param heard: posts the words as a message of the channel, on which a conversation can hang.
        :raises FermataError: what the server refuses.
        """
        name, _, argument = text.strip().partition(" ")
        argument = argument.strip()
        match name.lower():
            case "" | "help":
                return self._help()
            case "link":
                return await self._link(who)
            case "agents":
                return await self._agents(who)
            case "runs":
                return await self._runs(who)
            case "approvals":
                return await self._approvals(who)
            case "status":
                return await self._status(who)
            case "run":
                return await self._run(argument, who, heard)
            case "halt" | "stop":
                return await self._latch(argument, who, halt=True)
            case "hold":
                return await self._latch(argument, who, halt=False)
            case "release":
                return await self._release(argument, who)
        return f"There is no {code(f'{self._slash} {name}')}.\n{self._help()}"

    def _help(self) -> str:
        return "\n".join(f"{code(f'{self._slash} {words}')} {what}" for words, what in HELP.items())

    async def _link(self, who: Person) -> str:
        made = await self._client.surfaces.link_code(who.account)
        return (
            f"Within ten minutes, type this at a terminal that has your Fermata token: {code(f'fermata link {made.code}')}\n"
            "The code is for you alone: whoever types it is you in this workspace."
        )

    async def _agents(self, who: Person) -> str:
        await require_linked(self._client, who)
        agents = await self._client.agents.list()
        lines = [
            f"• {code(short_name(agent.name))} "
            + escape(one_line(agent.description or agent.revision.spec.description, 150))
            for agent in agents
        ]
        return "\n".join(lines) or "There is no agent yet."

    async def _runs(self, who: Person) -> str:
        await require_linked(self._client, who)
        return _run_lines(await self._client.runs.list(limit=LISTED)) or "There is no run yet."

    async def _approvals(self, who: Person) -> str:
        await require_linked(self._client, who)
        found = await self._client.approvals.list(limit=LISTED)
        lines = [
            f"• {code(short_name(one.name))} {escape(one_line(card_of(one).sentence, 200))}" for one in found
        ]
        return "\n".join(lines) or "Nothing waits for a person."

    async def _status(self, who: Person) -> str:
        await require_linked(self._client, who)
        runs = await self._client.runs.list(states=ACTIVE_STATES, limit=LISTED)
        latches = await self._client.latches.list(limit=LISTED)
        waiting = await self._client.approvals.list(limit=None)
        parts = [
            _run_lines(runs) or "No run is going on.",
            f"{len(waiting)} approvals wait for a person." if waiting else "Nothing waits for a person.",
            *(
                f"• {_word(latch)} {code(short_name(latch.name))} {escape(_target(latch))}"
                for latch in latches
            ),
        ]
        return "\n".join(parts)

    async def _run(self, argument: str, who: Person, heard: Callable[[str], Awaitable[Heard]]) -> str:
        agent, _, text = argument.partition(" ")
        if not text.strip():
            raise LocalError(f"Type {self._slash} run AGENT what you want.", reason="COMMAND_INCOMPLETE")
        await require_linked(self._client, who)
        await self._client.agents.get(agent)
        said = await heard(text.strip())
        await self._talk.hear(said, f"{agent}: {text.strip()}")
        return "It goes on in the channel."

    async def _latch(self, argument: str, who: Person, *, halt: bool) -> str:
        word = "halt" if halt else "hold"
        stop = self._client.latches.halt if halt else self._client.latches.hold
        reason = f"{self._slash} {word}"
        await require_linked(self._client, who)
        if argument.lower() in ("all", "everything"):
            latch = await stop(everything=True, reason=reason, on_behalf_of=who.account)
        elif argument in [short_name(agent.name) for agent in await self._client.agents.list()]:
            latch = await stop(agent=argument, reason=reason, on_behalf_of=who.account)
        else:
            latch = await stop(run=await self._which_run(argument), reason=reason, on_behalf_of=who.account)
        place = await self._client.surfaces.open_place(SURFACE, team=who.team, channel=who.channel)
        self._conversations.report(place, latch)
        return f"{_word(latch)} {escape(_target(latch))}; the channel is told how it ends."

    async def _which_run(self, argument: str) -> str:
        """The run that is meant, of those that go on. :raises LocalError: RUN_UNCLEAR."""
        runs = await self._client.runs.list(states=ACTIVE_STATES, limit=None)
        fitting = [run for run in runs if short_name(run.name).startswith(argument)]
        if len(fitting) == 1:
            return fitting[0].name
        names = ", ".join(short_name(run.name) for run in (fitting or runs)[:LISTED])
        raise LocalError(
            f"Which one? Runs: {names}. Or name an agent, or all." if names else "No run is going on.",
            reason="RUN_UNCLEAR",
        )

    async def _release(self, argument: str, who: Person) -> str:
        await require_linked(self._client, who)
        latches = await self._client.latches.list(limit=None)
        fitting = [latch for latch in latches if short_name(latch.name).startswith(argument)]
        if len(fitting) != 1:
            names = ", ".join(f"{short_name(latch.name)} ({_target(latch)})" for latch in latches[:LISTED])
            raise LocalError(
                f"Which one? In force: {names}." if names else "Nothing is held or halted.",
                reason="LATCH_UNCLEAR",
            )
        released = await self._client.latches.release(fitting[0].name, on_behalf_of=who.account)
        for card in await self._client.surfaces.cards(subject=released.name):
            self._conversations.report(await self._client.surfaces.place(card.place), released)
        return f"Released {escape(_target(released))}."


def _run_lines(runs: Sequence[run_pb2.Run]) -> str:
    return "\n".join(
        f"• {code(short_name(run.name))} {code(short_name(run.agent))} "
        f"{run_pb2.RunState.Name(run.state).removeprefix('RUN_STATE_').lower()} "
        + escape(one_line(run.answer or run.error.message, 120))
        for run in runs
    )


def _word(latch: latch_pb2.Latch) -> str:
    halt = latch.kind == latch_pb2.LATCH_KIND_HALT
    settled = latch.state == latch_pb2.LATCH_STATE_SETTLED
    return ("halted" if settled else "halting") if halt else ("held" if settled else "holding")


def _target(latch: latch_pb2.Latch) -> str:
    kind = latch.scope.WhichOneof("target")
    if kind in (None, "tenant"):
        return "everything"
    return one_line(f"{kind} {short_name(getattr(latch.scope, kind))}", 100)
