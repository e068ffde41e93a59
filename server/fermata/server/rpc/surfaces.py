"""SurfaceService."""

from __future__ import annotations

import json

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.names import parse
from fermata.server.principals import links
from fermata.server.principals.callers import Caller
from fermata.server.rpc import pages
from fermata.server.rpc.method import Service, unary
from fermata.server.rpc.once import once
from fermata.server.store.database import Transaction
from fermata.server.surfaces import cards, places
from fermata.server.threads import conversations
from fermata.v1 import principal_pb2, surface_pb2, surface_pb2_grpc, thread_pb2


class SurfaceService(Service, surface_pb2_grpc.SurfaceServiceServicer):
    """See protos/fermata/v1/surface.proto."""

    NAME = "SurfaceService"

    @unary
    async def OpenPlace(self, request: surface_pb2.OpenPlaceRequest, caller: Caller) -> surface_pb2.Place:
        tenant = self.tenant_of(caller, request.parent)
        place = places.check(request.place)
        if request.place.agent:
            self.id_of(caller, request.place.agent, "agents")
        found = await self.plane.read(lambda connection: places.find(connection, tenant, place))
        if found is not None:
            return found
        labels = json.dumps(
            {
                "surface": request.place.surface,
                "team": request.place.team,
                "channel": request.place.channel,
                "message": request.place.message,
            }
        )

        def operation(transaction: Transaction) -> surface_pb2.Place:
            found = places.find(transaction, tenant, place)
            if found is not None:
                return found
            # A second message waits for its turn: in a channel others can't see what they would interrupt.
            thread = conversations.create(
                transaction, tenant, labels, caller.name, thread_pb2.MULTITASK_STRATEGY_ENQUEUE
            )
            return places.make(transaction, tenant, place, request.place, parse(thread.name, "threads").id)

        return await self.plane.write(operation)

    @unary
    async def GetPlace(self, request: surface_pb2.GetPlaceRequest, caller: Caller) -> surface_pb2.Place:
        if not request.name:
            there = places.check(request.place)
            found = await self.plane.read(lambda connection: places.find(connection, caller.tenant, there))
            return places.require(found, there)
        noun = "threads" if "/threads/" in request.name else "places"
        name = parse(request.name, noun)
        tenant = self.require_tenant(caller, name.tenant)
        look = places.of_thread if noun == "threads" else places.find
        found = await self.plane.read(lambda connection: look(connection, tenant, name.id))
        return places.require(found, request.name)

    @unary
    async def CreateLink(self, request: surface_pb2.CreateLinkRequest, caller: Caller) -> surface_pb2.Link:
        name = links.account(request.link.name)
        tenant = self.require_tenant(caller, name.tenant)

        def operation(transaction: Transaction) -> surface_pb2.Link:
            def produce() -> surface_pb2.Link:
                return links.put(transaction, tenant, name.id, request.link.principal, caller.name)

            return once(transaction, caller, "CreateLink", request, produce, surface_pb2.Link)

        return await self.plane.write(operation)

    @unary
    async def GetLink(self, request: surface_pb2.GetLinkRequest, caller: Caller) -> surface_pb2.Link:
        name = links.account(request.name)
        tenant = self.require_tenant(caller, name.tenant)
        return await self.plane.read(lambda connection: links.get(connection, tenant, name.id))

    @unary
    async def ListLinks(
        self, request: surface_pb2.ListLinksRequest, caller: Caller
    ) -> surface_pb2.ListLinksResponse:
        tenant = self.tenant_of(caller, request.parent)
        limit = pages.size(request.page_size)
        after = pages.position(request.page_token, str)
        rows = await self.plane.read(lambda connection: links.page(connection, tenant, after, limit + 1))
        page, token = pages.cut(rows, limit, "id")
        return surface_pb2.ListLinksResponse(
            links=[links.to_message(row) for row in page], next_page_token=token
        )

    @unary
    async def DeleteLink(
        self, request: surface_pb2.DeleteLinkRequest, caller: Caller
    ) -> surface_pb2.DeleteLinkResponse:
        name = links.account(request.name)
        tenant = self.require_tenant(caller, name.tenant)
        await self.plane.write(lambda transaction: links.remove(transaction, tenant, name.id))
        return surface_pb2.DeleteLinkResponse()

    @unary
    async def CreateLinkCode(
        self, request: surface_pb2.CreateLinkCodeRequest, caller: Caller
    ) -> surface_pb2.CreateLinkCodeResponse:
        name = links.account(request.name)
        tenant = self.require_tenant(caller, name.tenant)
        if caller.kind != principal_pb2.PRINCIPAL_KIND_BOT:
            # Anybody else could make a code for an account that is not theirs, and redeem it themselves.
            raise DomainError(
                f"{caller.name} is not a bot; only a bot knows to whom of a chat it shows a code.",
                reason="NOT_A_BOT",
                kind=ErrorKind.PERMISSION_DENIED,
            )
        code, expires = await self.plane.write(
            lambda transaction: links.new_code(transaction, tenant, name.id)
        )
        response = surface_pb2.CreateLinkCodeResponse(code=code)
        response.expire_time.FromNanoseconds(int(expires * 1e9))
        return response

    @unary
    async def RedeemLinkCode(
        self, request: surface_pb2.RedeemLinkCodeRequest, caller: Caller
    ) -> surface_pb2.Link:
        def operation(transaction: Transaction) -> surface_pb2.Link:
            def produce() -> surface_pb2.Link:
                return links.redeem(transaction, caller.tenant, request.code, caller.name)

            return once(transaction, caller, "RedeemLinkCode", request, produce, surface_pb2.Link)

        return await self.plane.write(operation)

    @unary
    async def PutCard(self, request: surface_pb2.PutCardRequest, caller: Caller) -> surface_pb2.Card:
        tenant = self.tenant_of(caller, request.parent)

        def operation(transaction: Transaction) -> surface_pb2.Card:
            def produce() -> surface_pb2.Card:
                return cards.put(transaction, tenant, request.card)

            return once(transaction, caller, "PutCard", request, produce, surface_pb2.Card)

        return await self.plane.write(operation)

    @unary
    async def ListCards(
        self, request: surface_pb2.ListCardsRequest, caller: Caller
    ) -> surface_pb2.ListCardsResponse:
        tenant = self.tenant_of(caller, request.parent)
        limit = pages.size(request.page_size)
        after = pages.position(request.page_token, int)
        rows = await self.plane.read(
            lambda connection: cards.page(connection, tenant, request, after, limit + 1)
        )
        page, token = pages.cut(rows, limit, "n")
        return surface_pb2.ListCardsResponse(
            cards=[cards.to_message(row) for row in page], next_page_token=token
        )
