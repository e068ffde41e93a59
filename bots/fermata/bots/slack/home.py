"""App Home: what waits for me, what goes on, what is held, and a button that halts everything."""

from __future__ import annotations

from collections.abc import Sequence

from fermata.bots.conversation.cards import card_of
from fermata.bots.conversation.reducer import latch_entry
from fermata.bots.conversation.text import one_line, short_name
from fermata.client import Client, NotFoundError
from fermata.v1 import approval_pb2, latch_pb2, run_pb2

from . import blocks, cards, messages
from .blocks import Block
from .following import ACTIVE_STATES
from .people import Person

HALT_ALL = "home.halt_all"
SHOWN = 10


async def home(client: Client, who: Person) -> Block:
    """The view for a person; for a stranger, how to be linked."""
    try:
        link = await client.surfaces.get_link(who.account)
    except NotFoundError:
        return stranger()
    return view(
        short_name(link.principal),
        await client.approvals.list(limit=SHOWN),
        await client.runs.list(states=ACTIVE_STATES, limit=SHOWN),
        await client.latches.list(limit=SHOWN),
    )


def stranger() -> Block:
    """The view of somebody who is nobody here."""
    text = "Your account is not linked to anybody in Fermata yet. Type `/fermata link` in any channel."
    return {"type": "home", "blocks": [blocks.section(blocks.mrkdwn(text))]}


def view(
    name: str,
    approvals: Sequence[approval_pb2.Approval],
    runs: Sequence[run_pb2.Run],
    latches: Sequence[latch_pb2.Latch],
) -> Block:
    """The view, drawn."""
    found = [
        blocks.context(blocks.mrkdwn(f"You are {blocks.code(name)}")),
        blocks.header("Waiting for a person"),
    ]
    for approval in approvals[:SHOWN]:
        card = card_of(approval)
        found.append(
            blocks.section(
                blocks.plain(one_line(card.sentence, 500)),
                accessory=blocks.button("Details", cards.DETAILS_ACTION, cards.value_of(card)),
            )
        )
    if not approvals:
        found.append(blocks.context(blocks.plain("Nothing.")))
    found.append(blocks.header("Running"))
    for run in runs[:SHOWN]:
        state = run_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower()
        found.append(
            blocks.section(
                blocks.plain(f"{short_name(run.agent)}  {state}  {short_name(run.name)}"),
                accessory=blocks.button("Halt", messages.HALT_RUN, short_name(run.name), style="danger"),
            )
        )
    if not runs:
        found.append(blocks.context(blocks.plain("Nothing.")))
    found.append(blocks.header("Held and halted"))
    for latch in latches[:SHOWN]:
        entry = latch_entry(latch)
        found.append(
            blocks.section(
                blocks.plain(f"{entry.state}  {entry.target}"),
                accessory=blocks.button("Release", messages.RELEASE, short_name(latch.name)),
            )
        )
    if not latches:
        found.append(blocks.context(blocks.plain("Nothing.")))
    sure = blocks.confirm(
        "Halt everything?", "Every run stops for good, and new ones are refused.", "Halt all"
    )
    found.append(blocks.divider())
    found.append(blocks.actions([blocks.button("Halt all", HALT_ALL, "all", style="danger", confirm=sure)]))
    return {"type": "home", "blocks": found[: blocks.MAX_VIEW_BLOCKS]}
