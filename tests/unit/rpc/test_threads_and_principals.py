"""Conversations, and who may do what."""

from __future__ import annotations

from typing import Any

import pytest

from fermata.v1 import principal_pb2, run_pb2, thread_pb2

PARENT = "tenants/default"
USER = principal_pb2.PRINCIPAL_KIND_USER
VIEWER, OPERATOR = principal_pb2.ROLE_VIEWER, principal_pb2.ROLE_OPERATOR
APPROVER, ADMIN = principal_pb2.ROLE_APPROVER, principal_pb2.ROLE_ADMIN


def _thread(request_id: str = "", **labels: Any) -> thread_pb2.CreateThreadRequest:
    request = thread_pb2.CreateThreadRequest(parent=PARENT, request_id=request_id)
    request.thread.labels.update(labels)
    return request


def _create(principal: str = "ann", request_id: str = "", **values: Any) -> Any:
    wanted: dict[str, Any] = {"kind": USER, "roles": [VIEWER]} | values
    return principal_pb2.CreatePrincipalRequest(
        parent=PARENT,
        principal_id=principal,
        principal=principal_pb2.Principal(**wanted),
        request_id=request_id,
    )


async def _caller(caller: Any) -> Any:
    return await caller.call("PrincipalService.GetCaller", principal_pb2.GetCallerRequest())


async def test_a_thread_keeps_its_labels_and_who_made_it(admin: Any) -> None:
    made = await admin.call("ThreadService.CreateThread", _thread(channel="C1", number=7))
    found = await admin.call("ThreadService.GetThread", thread_pb2.GetThreadRequest(name=made.name))
    assert found == made
    assert dict(found.labels.items()) == {"channel": "C1", "number": 7.0}
    assert found.created_by == "tenants/default/principals/local"
    assert found.active_run == ""


async def test_the_same_request_id_makes_one_thread_and_another_body_is_refused(admin: Any) -> None:
    first = await admin.call("ThreadService.CreateThread", _thread("r1", channel="C1"))
    assert await admin.call("ThreadService.CreateThread", _thread("r1", channel="C1")) == first
    refused = await admin.refusal("ThreadService.CreateThread", _thread("r1", channel="C2"))
    assert (refused.code, refused.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    # One id is one call, whatever its method is.
    other = await admin.refusal("PrincipalService.CreatePrincipal", _create(request_id="r1"))
    assert other.reason == "REQUEST_ID_REUSED"


async def test_two_callers_may_use_the_same_request_id(admin: Any, make: Any) -> None:
    ann = await make("ann", "OPERATOR")
    first = await admin.call("ThreadService.CreateThread", _thread("r1"))
    assert (await ann.call("ThreadService.CreateThread", _thread("r1"))).name != first.name


async def test_pages_hold_every_thread_once_newest_first(admin: Any) -> None:
    made = [(await admin.call("ThreadService.CreateThread", _thread())).name for _ in range(5)]
    seen, token, sizes = [], "", []
    while True:
        page = await admin.call(
            "ThreadService.ListThreads",
            thread_pb2.ListThreadsRequest(parent=PARENT, page_size=2, page_token=token),
        )
        seen += [thread.name for thread in page.threads]
        sizes.append(len(page.threads))
        token = page.next_page_token
        if not token:
            break
    assert seen == made[::-1]
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(
    "token", ["x", "bm8=", "eyJhIjoxfQ==", "ImEi", "LTE=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk="]
)
async def test_a_page_token_that_is_not_ours_is_refused(admin: Any, token: str) -> None:
    refused = await admin.refusal(
        "ThreadService.ListThreads", thread_pb2.ListThreadsRequest(parent=PARENT, page_token=token)
    )
    assert (refused.code, refused.reason, refused.field) == ("INVALID_ARGUMENT", "PAGE_TOKEN", "page_token")


async def test_a_negative_page_size_is_refused_and_a_large_one_is_cut(admin: Any) -> None:
    refused = await admin.refusal(
        "ThreadService.ListThreads", thread_pb2.ListThreadsRequest(parent=PARENT, page_size=-1)
    )
    assert (refused.reason, refused.field) == ("PAGE_SIZE", "page_size")
    request = thread_pb2.ListThreadsRequest(parent=PARENT, page_size=2_000_000)
    assert not (await admin.call("ThreadService.ListThreads", request)).threads


async def test_what_belongs_to_another_tenant_is_not_there(admin: Any) -> None:
    for method, request in (
        ("ThreadService.CreateThread", thread_pb2.CreateThreadRequest(parent="tenants/other")),
        ("ThreadService.GetThread", thread_pb2.GetThreadRequest(name="tenants/other/threads/t")),
        ("ThreadService.ListThreads", thread_pb2.ListThreadsRequest(parent="tenants/other")),
        ("RunService.GetRun", run_pb2.GetRunRequest(name="tenants/other/runs/r")),
    ):
        refused = await admin.refusal(method, request)
        assert (refused.code, refused.reason) == ("NOT_FOUND", "OTHER_TENANT")


async def test_an_unknown_thread_and_a_name_of_another_kind_are_told_apart(admin: Any) -> None:
    request = thread_pb2.GetThreadRequest(name=f"{PARENT}/threads/none")
    missing = await admin.refusal("ThreadService.GetThread", request)
    assert (missing.code, missing.reason) == ("NOT_FOUND", "THREAD_NOT_FOUND")
    request = thread_pb2.GetThreadRequest(name=f"{PARENT}/runs/none")
    wrong = await admin.refusal("ThreadService.GetThread", request)
    assert (wrong.code, wrong.reason) == ("INVALID_ARGUMENT", "INVALID_NAME")
    assert wrong.metadata["form"] == "tenants/{tenant}/threads/{id}"


async def test_labels_are_bounded_and_finite(admin: Any) -> None:
    refused = await admin.refusal("ThreadService.CreateThread", _thread(text="x" * 20_000))
    assert (refused.reason, refused.field) == ("LABELS_TOO_LARGE", "thread.labels")
    refused = await admin.refusal("ThreadService.CreateThread", _thread(number=float("nan")))
    assert (refused.reason, refused.field) == ("VALUE_INVALID", "thread.labels")


async def test_a_principals_token_is_shown_once_and_works(admin: Any) -> None:
    first = await admin.call("PrincipalService.CreatePrincipal", _create(request_id="p1"))
    assert first.token.startswith("fmt_")
    repeat = await admin.call("PrincipalService.CreatePrincipal", _create(request_id="p1"))
    assert (repeat.principal, repeat.token) == (first.principal, "")
    ann = type(admin)(admin._channel, first.token)
    assert await _caller(ann) == first.principal


async def test_the_store_holds_no_token(admin: Any, server: Any) -> None:
    response = await admin.call("PrincipalService.CreatePrincipal", _create(request_id="p1"))
    await server.plane.write(lambda tx: None)
    files = [path.read_bytes() for path in server.plane.database.path.parent.glob("fermata.db*")]
    assert not any(response.token.encode() in content for content in files)


async def test_an_id_is_taken_once(admin: Any) -> None:
    await admin.call("PrincipalService.CreatePrincipal", _create())
    refused = await admin.refusal("PrincipalService.CreatePrincipal", _create())
    assert (refused.code, refused.reason) == ("ALREADY_EXISTS", "PRINCIPAL_EXISTS")


@pytest.mark.parametrize(
    ("principal", "values", "reason"),
    [
        ("a", {}, "INVALID_ID"),
        ("Ann", {}, "INVALID_ID"),
        ("ann\n", {}, "INVALID_ID"),
        ("x" * 41, {}, "INVALID_ID"),
        ("ann-", {}, "INVALID_ID"),
        ("ann", {"kind": 0}, "KIND_INVALID"),
        ("ann", {"kind": 77}, "KIND_INVALID"),
        ("ann", {"roles": [0]}, "ROLE_INVALID"),
        ("ann", {"roles": [99]}, "ROLE_INVALID"),
        ("ann", {"kind": principal_pb2.PRINCIPAL_KIND_WORKER, "roles": [ADMIN]}, "ROLE_INVALID"),
        ("ann", {"display_name": "x" * 201}, "DISPLAY_NAME_TOO_LONG"),
    ],
)
async def test_a_principal_that_makes_no_sense_is_refused(
    admin: Any, principal: str, values: dict[str, Any], reason: str
) -> None:
    refused = await admin.refusal("PrincipalService.CreatePrincipal", _create(principal, **values))
    assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", reason)


async def test_principals_are_listed_by_name(admin: Any, make: Any) -> None:
    for name in ("cat", "ann", "bob"):
        await make(name)
    request = principal_pb2.ListPrincipalsRequest(parent=PARENT, page_size=3)
    first = await admin.call("PrincipalService.ListPrincipals", request)
    request.page_token = first.next_page_token
    second = await admin.call("PrincipalService.ListPrincipals", request)
    names = [entry.name.rsplit("/", 1)[1] for page in (first, second) for entry in page.principals]
    assert names == ["ann", "bob", "cat", "local", "worker"]


async def test_new_roles_count_from_the_answer_on(admin: Any, make: Any) -> None:
    ann = await make("ann", "VIEWER")
    assert (await ann.refusal("ThreadService.CreateThread", _thread())).reason == "PERMISSION_DENIED"
    changed = await admin.call(
        "PrincipalService.UpdatePrincipal",
        principal_pb2.UpdatePrincipalRequest(
            principal=principal_pb2.Principal(
                name=f"{PARENT}/principals/ann", roles=[OPERATOR, OPERATOR], display_name="Ann"
            )
        ),
    )
    assert (list(changed.roles), changed.display_name, changed.kind) == ([OPERATOR], "Ann", USER)
    await ann.call("ThreadService.CreateThread", _thread())


async def test_a_disabled_principal_is_not_known_any_more(admin: Any, make: Any) -> None:
    ann = await make("ann", "VIEWER")
    present = await _caller(ann)
    present.disabled = True
    await admin.call(
        "PrincipalService.UpdatePrincipal", principal_pb2.UpdatePrincipalRequest(principal=present)
    )
    refused = await ann.refusal("PrincipalService.GetCaller", principal_pb2.GetCallerRequest())
    assert (refused.code, refused.reason) == ("UNAUTHENTICATED", "TOKEN_INVALID")


async def test_a_stale_etag_is_refused_and_the_same_values_change_nothing(admin: Any, make: Any) -> None:
    seen = await _caller(await make("ann", "VIEWER"))
    changed = principal_pb2.Principal()
    changed.CopyFrom(seen)
    changed.display_name = "Ann"
    request = principal_pb2.UpdatePrincipalRequest(principal=changed)
    after = await admin.call("PrincipalService.UpdatePrincipal", request)
    assert after.etag != seen.etag
    refused = await admin.refusal("PrincipalService.UpdatePrincipal", request)
    assert (refused.code, refused.reason) == ("ABORTED", "ETAG_MISMATCH")
    request.principal.etag = after.etag
    assert await admin.call("PrincipalService.UpdatePrincipal", request) == after


async def test_a_principal_stays_what_it_is(admin: Any, make: Any) -> None:
    await make("ann", "VIEWER")
    changed = principal_pb2.Principal(name=f"{PARENT}/principals/ann", kind=principal_pb2.PRINCIPAL_KIND_BOT)
    refused = await admin.refusal(
        "PrincipalService.UpdatePrincipal", principal_pb2.UpdatePrincipalRequest(principal=changed)
    )
    assert refused.reason == "KIND_FIXED"


async def test_a_new_token_ends_the_old_one(admin: Any, make: Any) -> None:
    ann = await make("ann", "VIEWER")
    request = principal_pb2.RotateTokenRequest(name=f"{PARENT}/principals/ann")
    response = await admin.call("PrincipalService.RotateToken", request)
    refused = await ann.refusal("PrincipalService.GetCaller", principal_pb2.GetCallerRequest())
    assert refused.reason == "TOKEN_INVALID"
    assert (await _caller(type(admin)(admin._channel, response.token))).name == request.name


async def test_a_deleted_principal_is_gone_at_once(admin: Any, make: Any) -> None:
    ann = await make("ann", "VIEWER")
    request = principal_pb2.DeletePrincipalRequest(name=f"{PARENT}/principals/ann")
    await admin.call("PrincipalService.DeletePrincipal", request)
    refused = await ann.refusal("PrincipalService.GetCaller", principal_pb2.GetCallerRequest())
    assert refused.reason == "TOKEN_INVALID"
    again = await admin.refusal("PrincipalService.DeletePrincipal", request)
    assert (again.code, again.reason) == ("NOT_FOUND", "PRINCIPAL_NOT_FOUND")


async def test_the_last_admin_can_be_neither_deleted_nor_disabled_nor_demoted(admin: Any, make: Any) -> None:
    name = f"{PARENT}/principals/local"
    attempts = [
        (
            "PrincipalService.UpdatePrincipal",
            principal_pb2.UpdatePrincipalRequest(principal=principal_pb2.Principal(name=name, **values)),
        )
        for values in ({"roles": [OPERATOR]}, {"roles": [ADMIN], "disabled": True})
    ]
    attempts.append(
        ("PrincipalService.DeletePrincipal", principal_pb2.DeletePrincipalRequest(name=name))  # type: ignore[arg-type]
    )
    for method, request in attempts:
        refused = await admin.refusal(method, request)
        assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "LAST_ADMIN")
    # A disabled admin is none.
    await admin.call("PrincipalService.CreatePrincipal", _create("bob", roles=[ADMIN], disabled=True))
    assert (await admin.refusal(*attempts[2])).reason == "LAST_ADMIN"
    await make("cat", "ADMIN")
    await admin.call(*attempts[2])
    assert (await admin.refusal(*attempts[2])).reason == "TOKEN_INVALID"


async def test_a_bot_acts_for_people_within_their_rights_and_nobody_else_does(
    admin: Any, make: Any, agent: str
) -> None:
    bot = await make("chat", "OPERATOR", "APPROVER", kind="BOT")
    await make("ann", "OPERATOR")
    await make("eve", "VIEWER")

    def request(person: str) -> run_pb2.CreateRunRequest:
        return run_pb2.CreateRunRequest(
            parent=PARENT, agent=agent, text="go", on_behalf_of=f"{PARENT}/principals/{person}"
        )

    run = await bot.call("RunService.CreateRun", request("ann"))
    assert (run.requested_by, run.on_behalf_of) == (
        f"{PARENT}/principals/chat",
        f"{PARENT}/principals/ann",
    )
    assert (await bot.refusal("RunService.CreateRun", request("eve"))).reason == "PERMISSION_DENIED"
    assert (await bot.refusal("RunService.CreateRun", request("none"))).reason == "PRINCIPAL_NOT_FOUND"
    assert (await admin.refusal("RunService.CreateRun", request("ann"))).reason == "NOT_A_BOT"
