"""What a bot keeps on the server: accounts, places, and which message shows what."""

from __future__ import annotations

from typing import Any

import pytest

from fermata.v1 import latch_pb2, principal_pb2, run_pb2, surface_pb2

PARENT = "tenants/default"
ACCOUNT = f"{PARENT}/links/slack.T1.U1"
ANN = f"{PARENT}/principals/ann"


def _place(message: str = "17.5", **values: str) -> surface_pb2.OpenPlaceRequest:
    wanted = {"surface": "slack", "team": "T1", "channel": "C1", "message": message} | values
    return surface_pb2.OpenPlaceRequest(parent=PARENT, place=surface_pb2.Place(**wanted))


def _card(**values: Any) -> surface_pb2.PutCardRequest:
    wanted: dict[str, Any] = {
        "surface": "slack",
        "subject": f"{PARENT}/approvals/a1",
        "place": f"{PARENT}/places/p1",
    } | values
    return surface_pb2.PutCardRequest(parent=PARENT, card=surface_pb2.Card(**wanted))


def _halt(on_behalf_of: str) -> latch_pb2.CreateLatchRequest:
    return latch_pb2.CreateLatchRequest(
        parent=PARENT,
        latch=latch_pb2.Latch(kind=latch_pb2.LATCH_KIND_HALT, scope=latch_pb2.LatchScope(tenant=True)),
        on_behalf_of=on_behalf_of,
    )


@pytest.fixture
async def bot(make: Any) -> Any:
    return await make("slack", "OPERATOR", kind="BOT")


async def _link(admin: Any, principal: str = ANN) -> Any:
    link = surface_pb2.Link(name=ACCOUNT, principal=principal)
    return await admin.call("SurfaceService.CreateLink", surface_pb2.CreateLinkRequest(link=link))


async def test_a_place_has_one_thread_however_often_it_is_opened(bot: Any) -> None:
    first = await bot.call("SurfaceService.OpenPlace", _place())
    assert await bot.call("SurfaceService.OpenPlace", _place(agent=f"{PARENT}/agents/b")) == first
    by_thread = surface_pb2.GetPlaceRequest(name=first.thread)
    assert await bot.call("SurfaceService.GetPlace", by_thread) == first
    there = surface_pb2.GetPlaceRequest(place=_place().place)
    assert await bot.call("SurfaceService.GetPlace", there) == first
    nowhere = surface_pb2.GetPlaceRequest(place=_place("18.5").place)
    assert (await bot.refusal("SurfaceService.GetPlace", nowhere)).reason == "PLACE_NOT_FOUND"
    assert (await bot.call("SurfaceService.OpenPlace", _place("18.5"))).thread != first.thread


async def test_a_place_without_a_channel_is_refused(bot: Any) -> None:
    assert (await bot.refusal("SurfaceService.OpenPlace", _place(channel=""))).reason == "PLACE_INVALID"


async def test_of_two_bots_that_are_about_to_post_one_is_refused(bot: Any) -> None:
    first = await bot.call("SurfaceService.PutCard", _card())
    refused = await bot.refusal("SurfaceService.PutCard", _card(message="1.2"))
    assert (refused.code, refused.reason) == ("ABORTED", "ETAG_MISMATCH")
    posted = await bot.call("SurfaceService.PutCard", _card(message="1.1", etag=first.etag))
    assert (await bot.refusal("SurfaceService.PutCard", _card(etag=first.etag))).reason == "ETAG_MISMATCH"
    listed = await bot.call(
        "SurfaceService.ListCards", surface_pb2.ListCardsRequest(parent=PARENT, open_only=True)
    )
    assert list(listed.cards) == [posted]
    await bot.call("SurfaceService.PutCard", _card(message="1.1", final=True, etag=posted.etag))
    listed = await bot.call(
        "SurfaceService.ListCards", surface_pb2.ListCardsRequest(parent=PARENT, open_only=True)
    )
    assert not listed.cards


async def test_a_bot_acts_for_whom_an_account_is_linked_to_and_both_are_on_record(
    admin: Any, make: Any, bot: Any
) -> None:
    await make("ann", "APPROVER")
    await _link(admin)
    latch = await bot.call("LatchService.CreateLatch", _halt(ACCOUNT))
    assert (latch.created_by, latch.on_behalf_of) == (f"{PARENT}/principals/slack", ANN)


async def test_a_stranger_is_refused_and_so_is_whoever_was_unlinked_or_disabled_since(
    admin: Any, make: Any, bot: Any
) -> None:
    stranger = await bot.refusal("LatchService.CreateLatch", _halt(ACCOUNT))
    assert (stranger.code, stranger.reason) == ("PERMISSION_DENIED", "ACCOUNT_NOT_LINKED")
    await make("ann", "OPERATOR")
    await _link(admin)
    await bot.call("LatchService.CreateLatch", _halt(ACCOUNT))
    disabled = principal_pb2.Principal(name=ANN, roles=[principal_pb2.ROLE_OPERATOR], disabled=True)
    await admin.call(
        "PrincipalService.UpdatePrincipal", principal_pb2.UpdatePrincipalRequest(principal=disabled)
    )
    refused = await bot.refusal("LatchService.CreateLatch", _halt(ACCOUNT))
    assert refused.reason == "PRINCIPAL_NOT_FOUND"
    await admin.call("SurfaceService.DeleteLink", surface_pb2.DeleteLinkRequest(name=ACCOUNT))
    refused = await bot.refusal("LatchService.CreateLatch", _halt(ACCOUNT))
    assert refused.reason == "ACCOUNT_NOT_LINKED"


async def test_a_linked_account_has_the_rights_of_its_person_and_no_more(
    admin: Any, make: Any, bot: Any
) -> None:
    await make("ann", "VIEWER")
    await _link(admin)
    refused = await bot.refusal("LatchService.CreateLatch", _halt(ACCOUNT))
    assert refused.reason == "PERMISSION_DENIED"
    run = run_pb2.CreateRunRequest(parent=PARENT, agent=f"{PARENT}/agents/a", text="go", on_behalf_of=ACCOUNT)
    assert (await bot.refusal("RunService.CreateRun", run)).reason == "PERMISSION_DENIED"


async def test_a_code_links_the_account_to_whoever_redeems_it_and_only_once(make: Any, bot: Any) -> None:
    ann, eve = await make("ann", "VIEWER"), await make("eve", "VIEWER")
    request = surface_pb2.CreateLinkCodeRequest(name=ACCOUNT)
    ended = (await bot.call("SurfaceService.CreateLinkCode", request)).code
    code = (await bot.call("SurfaceService.CreateLinkCode", request)).code
    stale = await ann.refusal("SurfaceService.RedeemLinkCode", surface_pb2.RedeemLinkCodeRequest(code=ended))
    assert stale.reason == "LINK_CODE_UNKNOWN"
    typed = surface_pb2.RedeemLinkCodeRequest(code=code.lower().replace("-", " "))
    link = await ann.call("SurfaceService.RedeemLinkCode", typed)
    assert (link.name, link.principal, link.created_by) == (ACCOUNT, ANN, ANN)
    assert (await eve.refusal("SurfaceService.RedeemLinkCode", typed)).reason == "LINK_CODE_UNKNOWN"
    assert await bot.call("SurfaceService.GetLink", surface_pb2.GetLinkRequest(name=ACCOUNT)) == link


async def test_only_a_bot_makes_codes_and_only_a_person_is_linked(admin: Any, make: Any, bot: Any) -> None:
    request = surface_pb2.CreateLinkCodeRequest(name=ACCOUNT)
    assert (await admin.refusal("SurfaceService.CreateLinkCode", request)).reason == "NOT_A_BOT"
    link = surface_pb2.Link(name=ACCOUNT, principal=f"{PARENT}/principals/slack")
    refused = await admin.refusal("SurfaceService.CreateLink", surface_pb2.CreateLinkRequest(link=link))
    assert refused.reason == "NOT_A_PERSON"
    operator = await make("olga", "OPERATOR")
    own = surface_pb2.Link(name=ACCOUNT, principal=f"{PARENT}/principals/olga")
    refused = await operator.refusal("SurfaceService.CreateLink", surface_pb2.CreateLinkRequest(link=own))
    assert refused.reason == "PERMISSION_DENIED"


@pytest.mark.parametrize("name", ["slack.T1", "Slack.T1.U1", "slack..U1", "slack.T1.U1.more"])
async def test_an_account_that_is_not_surface_team_account_is_refused(bot: Any, name: str) -> None:
    request = surface_pb2.GetLinkRequest(name=f"{PARENT}/links/{name}")
    assert (await bot.refusal("SurfaceService.GetLink", request)).reason == "INVALID_NAME"
