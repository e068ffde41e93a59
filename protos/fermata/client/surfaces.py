"""Chat surfaces: who their accounts are, which thread a place is, and which message shows what."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import surface_pb2, surface_pb2_grpc

from .names import full_name, tenant_name
from .transport import Transport

if TYPE_CHECKING:
    from fermata.v1.surface_pb2_grpc import SurfaceServiceAsyncStub


class Surfaces:
    """``SurfaceService``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> SurfaceServiceAsyncStub:
        return surface_pb2_grpc.SurfaceServiceStub(self._transport.channel)

    async def open_place(
        self, surface: str, *, team: str, channel: str, message: str = "", agent: str = ""
    ) -> surface_pb2.Place:
        """The place with its thread; both are made at the first call.

        :param message: the message that the conversation hangs on; empty where the channel is the conversation.
        :param agent: who speaks there, where the place is made.
        """
        tenant = self._transport.tenant
        place = surface_pb2.Place(
            surface=surface,
            team=team,
            channel=channel,
            message=message,
            agent=full_name(tenant, "agents", agent) if agent else "",
        )
        request = surface_pb2.OpenPlaceRequest(parent=tenant_name(tenant), place=place)
        return await self._transport.unary(self._stub.OpenPlace, request)

    async def place(self, name: str) -> surface_pb2.Place:
        """A place by its name, or by that of its thread. :raises NotFoundError: PLACE_NOT_FOUND."""
        return await self._transport.unary(self._stub.GetPlace, surface_pb2.GetPlaceRequest(name=name))

    async def place_at(
        self, surface: str, *, team: str, channel: str, message: str = ""
    ) -> surface_pb2.Place:
        """The place that is there, if it was opened. :raises NotFoundError: PLACE_NOT_FOUND."""
        place = surface_pb2.Place(surface=surface, team=team, channel=channel, message=message)
        return await self._transport.unary(self._stub.GetPlace, surface_pb2.GetPlaceRequest(place=place))

    def account(self, surface: str, team: str, account: str) -> str:
        """The name of the link of an account; it may be given wherever somebody is acted for."""
        return full_name(self._transport.tenant, "links", f"{surface}.{team}.{account}")

    async def link(self, account: str, principal: str) -> surface_pb2.Link:
        """Say which principal an account is, as an admin. :raises NotFoundError: PRINCIPAL_NOT_FOUND."""
        link = surface_pb2.Link(
            name=self._link(account),
            principal=full_name(self._transport.tenant, "principals", principal),
        )
        return await self._transport.unary(self._stub.CreateLink, surface_pb2.CreateLinkRequest(link=link))

    async def get_link(self, account: str) -> surface_pb2.Link:
        """The link of an account. :raises NotFoundError: LINK_NOT_FOUND."""
        request = surface_pb2.GetLinkRequest(name=self._link(account))
        return await self._transport.unary(self._stub.GetLink, request)

    async def links(self, *, limit: int | None = None) -> Sequence[surface_pb2.Link]:
        """Links by name."""
        request = surface_pb2.ListLinksRequest(parent=tenant_name(self._transport.tenant))
        return await self._transport.collect(self._stub.ListLinks, request, "links", surface_pb2.Link, limit)

    async def unlink(self, account: str) -> None:
        """Nobody acts by the account from now on; sent once, never repeated."""
        request = surface_pb2.DeleteLinkRequest(name=self._link(account))
        await self._transport.unary(self._stub.DeleteLink, request)

    async def link_code(self, account: str) -> surface_pb2.CreateLinkCodeResponse:
        """A code for the account, for bots; sent once, never repeated."""
        request = surface_pb2.CreateLinkCodeRequest(name=self._link(account))
        return await self._transport.unary(self._stub.CreateLinkCode, request)

    async def redeem(self, code: str) -> surface_pb2.Link:
        """Link the code's account to whose token this client carries. :raises NotFoundError:
        LINK_CODE_UNKNOWN."""
        request = surface_pb2.RedeemLinkCodeRequest(code=code)
        return await self._transport.unary(self._stub.RedeemLinkCode, request)

    async def put_card(self, card: surface_pb2.Card) -> surface_pb2.Card:
        """Make the card, or replace the one with its etag. :raises AbortedError: ETAG_MISMATCH where another
        bot was first."""
        request = surface_pb2.PutCardRequest(parent=tenant_name(self._transport.tenant), card=card)
        return await self._transport.unary(self._stub.PutCard, request)

    async def cards(
        self,
        *,
        surface: str = "",
        place: str = "",
        subject: str = "",
        open_only: bool = False,
        limit: int | None = None,
    ) -> Sequence[surface_pb2.Card]:
        """Cards, oldest first."""
        request = surface_pb2.ListCardsRequest(
            parent=tenant_name(self._transport.tenant),
            surface=surface,
            place=place,
            subject=subject,
            open_only=open_only,
        )
        return await self._transport.collect(self._stub.ListCards, request, "cards", surface_pb2.Card, limit)

    def _link(self, account: str) -> str:
        return full_name(self._transport.tenant, "links", account)
