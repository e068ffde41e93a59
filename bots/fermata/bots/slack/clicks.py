"""What people press: buttons of cards, runs and latches, and the modals behind them. The server decides each, at the click."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from fermata.bots.conversation.cards import Card, card_of
from fermata.bots.conversation.editing import EditError
from fermata.client import Client, FermataError
from fermata.client.names import full_name
from fermata.v1 import approval_pb2, latch_pb2, surface_pb2

from . import cards, messages, modals
from .following import Conversations
from .people import Person, require_linked

DIRECT = {
    cards.ACTIONS[decision]: decision
    for decision in (
        approval_pb2.DECISION_APPROVE,
        approval_pb2.DECISION_IT_HAPPENED,
        approval_pb2.DECISION_DO_AGAIN,
        approval_pb2.DECISION_GIVE_UP,
    )
}
"""Buttons that decide at once."""
FORMS = {
    cards.ACTIONS[approval_pb2.DECISION_EDIT]: modals.edit,
    cards.ACTIONS[approval_pb2.DECISION_REJECT]: modals.reject,
    cards.ACTIONS[approval_pb2.DECISION_ANSWER]: modals.answer,
    cards.DETAILS_ACTION: modals.details,
}
"""Buttons that open a modal."""
LATCHING = {messages.HALT_RUN: True, messages.HOLD_RUN: False}


class Clicks:
    """Carries out what is pressed."""

    def __init__(self, client: Client, slack: AsyncWebClient, conversations: Conversations) -> None:
        self._client = client
        self._slack = slack
        self._conversations = conversations

    async def press(self, action: str, value: str, who: Person, trigger: str) -> None:
        """A button. :raises FermataError: what the server refuses; nothing was changed then."""
        if action in DIRECT:
            approval, digest = cards.parse_value(value)
            await self._decide(approval, DIRECT[action], digest, who)
        elif action in FORMS:
            await self._open(action, value, who, trigger)
        elif action == cards.HALT_ACTION:
            approval, _ = cards.parse_value(value)
            run = (await self._client.approvals.get(approval)).run
            await self._latch(run, who, halt=True)
        elif action in LATCHING:
            await self._latch(value, who, halt=LATCHING[action])
        elif action == messages.RELEASE:
            await self._release(value, who)

    async def submit(self, callback: str, view: Mapping[str, Any], who: Person) -> dict[str, str]:
        """A modal. Returns what is wrong by field; nothing where it was done.

        :raises FermataError: what the server refuses and no field is to blame for.
        """
        origin = modals.Origin.load(str(view.get("private_metadata") or ""))
        values = (view.get("state") or {}).get("values") or {}
        match callback:
            case modals.EDIT:
                return await self._edit(origin, values, who)
            case modals.REJECT:
                reason = modals.read_text(values)
                await self._decide(
                    origin.approval, approval_pb2.DECISION_REJECT, origin.digest, who, comment=reason
                )
            case modals.ANSWER:
                text = modals.read_text(values)
                if not text:
                    return {modals.TEXT_BLOCK: "An answer is wanted."}
                await self._decide(
                    origin.approval, approval_pb2.DECISION_ANSWER, origin.digest, who, value=text
                )
            case modals.APPROVE:
                await self._decide(origin.approval, approval_pb2.DECISION_APPROVE, origin.digest, who)
        return {}

    async def _edit(self, origin: modals.Origin, values: Mapping[str, Any], who: Person) -> dict[str, str]:
        card = await self._card(origin.approval)
        try:
            arguments = modals.read_edit(card, values)
            await self._decide(
                origin.approval,
                approval_pb2.DECISION_EDIT,
                origin.digest,
                who,
                edited_args=arguments,
            )
        except EditError as failure:
            return modals.errors_of(card, failure.metadata.get("argument", ""), failure.message)
        except FermataError as failure:
            if (
                failure.reason in ("ARGS_INVALID", "POLICY_DENIED", "DECISION_NOT_ALLOWED")
                or "rule" in failure.metadata
            ):
                return modals.errors_of(card, failure.metadata.get("field", ""), failure.message)
            raise
        return {}

    async def _open(self, action: str, value: str, who: Person, trigger: str) -> None:
        # One short look-up each, for a trigger lives three seconds; the card is mostly at hand.
        await require_linked(self._client, who)
        approval, _ = cards.parse_value(value)
        card = self._conversations.card(approval) or await self._card(approval)
        origin = modals.origin_of(card, who.channel, who.thread)
        await self._slack.views_open(trigger_id=trigger, view=FORMS[action](card, origin))

    async def _decide(
        self,
        approval: str,
        decision: approval_pb2.Decision.ValueType,
        digest: str,
        who: Person,
        **said: Any,
    ) -> None:
        decided = await self._client.approvals.decide(
            approval, decision, digest=digest, on_behalf_of=who.account, **said
        )
        await self._conversations.take_approval(decided)

    async def _latch(self, run: str, who: Person, *, halt: bool) -> None:
        stop = self._client.latches.halt if halt else self._client.latches.hold
        word = "halted" if halt else "held"
        latch = await stop(run=run, reason=f"{word} in Slack", on_behalf_of=who.account)
        await self._report(run, latch)

    async def _report(self, run: str, latch: latch_pb2.Latch) -> None:
        found = await self._client.runs.get(full_name(self._client.connection.tenant, "runs", run))
        place: surface_pb2.Place | None = await self._conversations.place_of(found.thread)
        if place is not None:
            self._conversations.report(place, latch)

    async def _release(self, latch: str, who: Person) -> None:
        released = await self._client.latches.release(latch, on_behalf_of=who.account)
        for card in await self._client.surfaces.cards(subject=released.name):
            self._conversations.report(await self._client.surfaces.place(card.place), released)

    async def _card(self, approval: str) -> Card:
        return card_of(await self._client.approvals.get(approval))
