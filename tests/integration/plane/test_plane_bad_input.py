"""What is wrong is refused with a stable reason that says what, where and how to mend it, and nothing breaks by it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.plane.harness import CHROMA, Driver, Effects, Plane, Watched, eventually, script

from fermata.client import Client, Connection, FermataError, LocalError
from fermata.client.bundle import read
from fermata.client.retry import RetryPolicy
from fermata.v1 import agent_pb2, approval_pb2, policy_pb2, principal_pb2, run_pb2, run_pb2_grpc

pytestmark = pytest.mark.ray

AsRole = Callable[..., Awaitable[Client]]


async def refused(call: Awaitable[object]) -> FermataError:
    with pytest.raises(FermataError) as caught:
        await call
    assert caught.value.message
    return caught.value


# -- names


async def test_names_that_nobody_has(client: Client) -> None:
    expected: dict[str, list[Awaitable[object]]] = {
        "AGENT_NOT_FOUND": [client.runs.create("nobody", "hello"), client.agents.get("nobody")],
        "RUN_NOT_FOUND": [
            client.runs.get("ffff"),
            client.latches.halt(run="ffff"),
            client.runs.steps("ffff"),
        ],
        "APPROVAL_NOT_FOUND": [client.approvals.get("ffff")],
        "LATCH_NOT_FOUND": [client.latches.get("ffff"), client.latches.release("ffff")],
        "THREAD_NOT_FOUND": [client.threads.get("ffff")],
        "COLLECTION_NOT_FOUND": [client.collections.get("nothing")],
        "PRINCIPAL_NOT_FOUND": [client.principals.get("nobody")],
    }
    for reason, calls in expected.items():
        for call in calls:
            error = await refused(call)
            assert error.reason == reason, error


async def test_an_unknown_approval_can_not_be_decided(client: Client) -> None:
    error = await refused(client.approvals.decide("ffff", approval_pb2.DECISION_APPROVE, digest="00"))
    assert error.reason == "APPROVAL_NOT_FOUND"


async def test_a_watch_of_an_unknown_run_ends_at_once(client: Client) -> None:
    assert (await refused(anext(client.runs.watch("ffff")))).reason == "RUN_NOT_FOUND"


async def test_the_policy_test_of_an_unknown_tool_says_what_would_happen(
    driver: Driver, client: Client
) -> None:
    await driver.plane.agent(client, "asynchronous")
    known = await client.policies.test("pay", {"amount": 5}, agent="asynchronous")
    assert (known.outcome, known.rule) == (policy_pb2.POLICY_OUTCOME_REQUIRE_APPROVAL, "payments")
    denied = await client.policies.test("pay", {"amount": 5000}, agent="asynchronous")
    assert (denied.outcome, denied.rule) == (policy_pb2.POLICY_OUTCOME_DENY, "too-much")
    error_or_outcome = await _outcome(client.policies.test("no_such_tool", {}, agent="asynchronous"))
    assert error_or_outcome in ("TOOL_NOT_FOUND", "POLICY_OUTCOME_ALLOW")


async def _outcome(call: Awaitable[policy_pb2.TestPolicyResponse]) -> str:
    try:
        return policy_pb2.PolicyOutcome.Name((await call).outcome)
    except FermataError as error:
        return error.reason


# -- agents and policies


async def test_malformed_policies_change_nothing(driver: Driver, client: Client) -> None:
    before = await client.policies.get()
    for text in (
        "rules: [",
        "version: 1\nrules:\n  - id: a\n    match: { tool: pay }\n    when: args.amount >\n    decide: DENY\n",
        "version: 1\nrules:\n  - id: a\n    match: { tool: pay }\n    decide: PERHAPS\n",
        "",
    ):
        error = await refused(client.policies.update(text))
        assert error.reason == "POLICY_MALFORMED"
    assert await client.policies.get() == before
    (bundle,) = read(Path(__file__).parent / "graphs" / "mixed.yaml", {})
    bundle.spec.policy = "version: 1\nrules:\n  - id: a\n    decide: MAYBE\n"
    error = await refused(client.agents.apply("bad-policy", bundle.spec, pack=bundle.pack))
    assert error.reason == "POLICY_MALFORMED"
    assert (await refused(client.agents.get("bad-policy"))).reason == "AGENT_NOT_FOUND"


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ("./graph.py:missing", "missing"),
        ("./absent.py:graph", "absent.py"),
        ("no_such_module:graph", "no_such_module"),
        ("./graph.py:number", "number"),
        ("./broken.py:graph", "broken.py"),
        ("./raises.py:graph", "out of order"),
    ],
)
async def test_a_graph_that_can_not_be_loaded_is_refused_at_apply(
    client: Client, tmp_path: Path, graph: str, said: str
) -> None:
    (tmp_path / "graph.py").write_text("number = 7\n")
    (tmp_path / "broken.py").write_text("graph = (\n")
    (tmp_path / "raises.py").write_text("raise RuntimeError('out of order')\n")
    (tmp_path / "agent.yaml").write_text(f"name: bad-graph\nfolder: .\ngraph: {graph}\n")

    async def apply() -> None:
        (bundle,) = read(tmp_path, {})
        await client.agents.apply("bad-graph", bundle.spec, pack=bundle.pack)

    error = await refused(apply())
    reasons = ("AGENT_FILE_MALFORMED", "GRAPH_INVALID", "GRAPH_MISSING", "GRAPH_REFERENCE")
    assert error.reason in reasons, error
    assert said in error.message, error
    assert (await refused(client.agents.get("bad-graph"))).reason == "AGENT_NOT_FOUND"


async def test_a_graph_that_ends_its_process_while_it_loads_is_refused(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "graph.py").write_text("import os\nos._exit(3)\n")
    (tmp_path / "agent.yaml").write_text("name: bad-graph\nfolder: .\ngraph: ./graph.py:graph\n")
    (bundle,) = read(tmp_path, {})
    error = await refused(client.agents.apply("bad-graph", bundle.spec, pack=bundle.pack))
    assert error.reason in ("GRAPH_INVALID", "GRAPH_PROCESS_DIED")
    assert "exit code 3" in error.message


async def test_a_pack_that_is_not_what_its_digest_says_is_refused(client: Client) -> None:
    (bundle,) = read(Path(__file__).parent / "graphs" / "mixed.yaml", {})
    error = await refused(client.agents.apply("bad-pack", bundle.spec, pack=b"PK" + bundle.pack))
    assert error.reason == "PACK_DIGEST"
    error = await refused(
        client.agents.apply("bad-pack", agent_pb2.AgentSpec(graph="a.py:b", pack_digest="0" * 64))
    )
    assert error.reason in ("PACK_MISSING", "PACK_DIGEST")


def test_malformed_agent_files_name_file_line_and_key(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    for text, line, key in (
        ("name: [\n", "2", ""),
        ("name: Bad Name\ngraph: a:b\n", "1", "name"),
        ("name: a\ngraph: a:b\nlimts: {}\n", "3", "limts"),
        ("name: a\ngraph: nonsense\n", "2", "graph"),
        ("name: a\ngraph: a:b\neffects:\n  pay: SOMETIMES\n", "4", "effects.pay.effect"),
    ):
        file.write_text(text)
        with pytest.raises(LocalError) as caught:
            read(tmp_path, {})
        assert caught.value.reason == "AGENT_FILE_MALFORMED"
        assert caught.value.metadata["line"] in (line, "1"), (text, caught.value)
        assert caught.value.metadata["key"].startswith(key.split(".")[0]), (text, caught.value)


async def test_a_stale_etag_is_refused(driver: Driver, client: Client) -> None:
    await driver.plane.agent(client, "mixed")
    agent = await client.agents.get("mixed")
    (bundle,) = read(Path(__file__).parent / "graphs" / "mixed.yaml", {})
    bundle.spec.description = "changed"
    error = await refused(client.agents.apply("mixed", bundle.spec, pack=bundle.pack, etag="stale"))
    assert error.reason == "ETAG_MISMATCH"
    assert (await client.agents.get("mixed")).etag == agent.etag
    error = await refused(client.policies.update("version: 1\nrules: []\n", etag="stale"))
    assert error.reason == "ETAG_MISMATCH"


async def test_another_attribute_of_one_request_id_is_refused(
    driver: Driver, client: Client, effects: Effects
) -> None:
    await driver.plane.agent(client, "asynchronous")
    request_id = str(uuid.uuid4())
    text = script([("free", {"mark": str(effects)})])
    first = await client.runs.create("asynchronous", text, request_id=request_id)
    again = await client.runs.create("asynchronous", text, request_id=request_id)
    assert again.name == first.name
    error = await refused(client.runs.create("asynchronous", script(), request_id=request_id))
    assert error.reason == "REQUEST_ID_REUSED"
    await Watched(client, first).succeeded()
    assert effects.lines() == ["free"], "twice asked for, once done"


async def test_a_busy_thread_refuses_a_second_run(driver: Driver, client: Client, effects: Effects) -> None:
    run = await driver.talk("asynchronous", [("slow_look", {"mark": str(effects)})])
    error = await refused(client.runs.create("asynchronous", script(), thread=run.run.thread))
    assert error.reason == "THREAD_BUSY"
    effects.let_go()
    await run.succeeded()


# -- graphs and tools that misbehave


@pytest.mark.parametrize(
    ("how", "reason", "said"),
    [
        ("raise", "GRAPH_RAISED", "the graph has had enough"),
        ("opaque", "", "object"),
        ("not json", "OUTPUT_NOT_SERIALIZABLE", "nan"),
        ("die", "HOST_DIED", "3 times"),
    ],
)
async def test_a_graph_that_misbehaves_fails_its_run_and_no_other(
    driver: Driver, effects: Effects, how: str, reason: str, said: str
) -> None:
    run = await driver.start("misbehaving", {"how": how, "mark": str(effects)})
    done = await run.ended(run_pb2.RUN_STATE_FAILED)
    assert done.error.reason == reason or (not reason and "SERIALIZABLE" in done.error.reason), done.error
    assert said in done.error.message, done.error
    fine = await driver.start("misbehaving", {"how": "fine", "mark": str(effects)})
    await fine.succeeded()


@pytest.mark.parametrize(("how", "limit"), [("loop", "super_steps"), ("sleep", "wall_seconds")])
async def test_a_graph_that_never_ends_is_halted_at_its_limit(
    driver: Driver, client: Client, effects: Effects, how: str, limit: str
) -> None:
    run = await driver.start("misbehaving", {"how": how, "mark": str(effects)})
    await run.ended(run_pb2.RUN_STATE_HALTED)
    [latch] = [latch for latch in await client.latches.list() if latch.scope.run == run.run.name]
    assert latch.created_by.endswith(f"limit:{limit}")
    await client.latches.release(latch.name)


async def test_a_tool_that_raises_fails_the_run_with_its_words(driver: Driver, effects: Effects) -> None:
    run = await driver.talk("asynchronous", [("broken", {"mark": str(effects)})])
    done = await run.ended(run_pb2.RUN_STATE_FAILED)
    assert done.error.reason == "GRAPH_RAISED"
    assert "the pump is on fire" in done.error.message
    assert "in broken" in done.error.detail, "the traceback leads into the agent's own code"
    assert effects.lines() == ["broken"]


@pytest.mark.parametrize("tool", ["hang", "hang_sync"])
async def test_a_tool_that_hangs_ends_at_its_limit(
    driver: Driver, client: Client, effects: Effects, tool: str
) -> None:
    run = await driver.talk("limited", [(tool, {"mark": str(effects)})])
    done = await run.ended()
    assert "0.5 s" in (done.error.message or done.answer), done
    (step,) = [step for step in await client.runs.steps(run.name) if step.kind == "tool"]
    assert step.outcome == run_pb2.STEP_OUTCOME_FAILED
    assert "TOOL_TIMEOUT" in step.error
    assert "end" not in effects.lines()


async def test_a_result_of_10_mb_is_refused_and_the_agent_is_told(driver: Driver, effects: Effects) -> None:
    for agent in ("limited", "asynchronous"):
        run = await driver.talk(agent, [("big", {"mark": str(effects), "size": 10_000_000})])
        (answer,) = await run.answers()
        assert answer["status"] == "error"
        assert "TOOL_RESULT_TOO_LARGE" in answer["content"]
        assert len(answer["content"]) < 1000


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"count": "many", "unit": "mm"}, "count"),
        ({"count": 1, "unit": "miles"}, "unit"),
        ({"unit": "mm"}, "count"),
        ({}, "count"),
    ],
)
async def test_wrong_and_missing_arguments_start_nothing(
    driver: Driver, client: Client, effects: Effects, args: dict[str, Any], said: str
) -> None:
    run = await driver.talk("asynchronous", [("typed", {"mark": str(effects), **args})])
    (answer,) = await run.answers()
    assert answer["status"] == "error"
    assert said in answer["content"]
    assert effects.lines() == []
    assert not [step for step in await client.runs.steps(run.name) if step.kind == "tool"]


async def test_a_tool_that_is_not_there_is_told_to_the_agent(driver: Driver, effects: Effects) -> None:
    run = await driver.talk("asynchronous", [("teleport", {"mark": str(effects)})])
    (answer,) = await run.answers()
    assert answer["status"] == "error"
    assert "teleport" in answer["content"]


# -- approvals


async def test_an_approval_is_decided_once(driver: Driver, client: Client, effects: Effects) -> None:
    run = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 1})])
    (shown,) = await run.asked()
    error = await refused(client.approvals.decide(shown.name, approval_pb2.DECISION_APPROVE, digest="0" * 64))
    assert error.reason == "APPROVAL_DIGEST_MISMATCH"
    error = await refused(
        client.approvals.decide(shown.name, approval_pb2.DECISION_ANSWER, digest=shown.digest, value=1)
    )
    assert error.reason == "DECISION_NOT_ALLOWED"
    await client.approvals.approve(shown)
    await run.succeeded()
    assert (await client.approvals.approve(shown)).state == approval_pb2.APPROVAL_STATE_APPROVED, (
        "the same again"
    )
    error = await refused(client.approvals.reject(shown))
    assert error.reason == "APPROVAL_DECIDED"
    assert effects.lines() == ["pay 1 EUR"]


@pytest.mark.parametrize(
    "edited",
    [{"amount": "much"}, {"amount": 1, "colour": "red"}, {}],
    ids=["wrong type", "unknown", "missing"],
)
async def test_edited_arguments_that_the_tool_does_not_take_are_refused(
    driver: Driver, client: Client, effects: Effects, edited: dict[str, Any]
) -> None:
    run = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 1})])
    (shown,) = await run.asked()
    error = await refused(client.approvals.edit(shown, {"mark": str(effects), **edited}))
    assert error.reason == "ARGS_INVALID"
    await client.approvals.reject(shown)
    await run.succeeded()
    assert effects.lines() == []


async def test_who_lacks_the_role_decides_nothing(
    driver: Driver, client: Client, effects: Effects, as_role: AsRole
) -> None:
    run = await driver.talk("asynchronous", [("pay", {"mark": str(effects), "amount": 1})])
    (shown,) = await run.asked()
    operator = await as_role(principal_pb2.ROLE_OPERATOR)
    error = await refused(operator.approvals.approve(shown))
    assert error.reason in ("NOT_APPROVER", "PERMISSION_DENIED")
    viewer = await as_role(principal_pb2.ROLE_VIEWER)
    assert (await refused(viewer.approvals.approve(shown))).reason in ("NOT_APPROVER", "PERMISSION_DENIED")
    assert (await refused(viewer.runs.create("asynchronous", "hello"))).reason == "PERMISSION_DENIED"
    assert (await refused(viewer.latches.halt(run=run.name))).reason == "PERMISSION_DENIED"
    assert (await viewer.runs.get(run.name)).name == run.name
    approver = await as_role(principal_pb2.ROLE_APPROVER)
    await approver.approvals.approve(shown)
    await run.succeeded()
    assert effects.lines() == ["pay 1 EUR"]


async def test_where_two_people_must_agree_one_does_not_count_twice(
    driver: Driver, client: Client, effects: Effects, as_role: AsRole
) -> None:
    run = await driver.talk("asynchronous", [("pay_twice_signed", {"mark": str(effects)})])
    (shown,) = await run.asked()
    first, second = await as_role(principal_pb2.ROLE_APPROVER), await as_role(principal_pb2.ROLE_APPROVER)
    assert (await first.approvals.approve(shown)).state == approval_pb2.APPROVAL_STATE_PENDING
    assert (await first.approvals.approve(shown)).state == approval_pb2.APPROVAL_STATE_PENDING
    assert effects.lines() == []
    assert (await second.approvals.approve(shown)).state == approval_pb2.APPROVAL_STATE_APPROVED
    await run.succeeded()
    assert effects.lines() == ["pay_twice_signed"]


async def test_an_approval_that_has_expired_counts_as_a_no(
    driver: Driver, client: Client, effects: Effects
) -> None:
    run = await driver.talk("asynchronous", [("pay_soon", {"mark": str(effects)})])
    await run.until("asks", lambda event: event.type == run_pb2.EVENT_TYPE_APPROVAL_REQUESTED)
    name = str(run.events[-1].data["approval"])
    (answer,) = await run.answers()
    assert answer["status"] == "error"
    shown = await client.approvals.get(name)
    assert shown.state == approval_pb2.APPROVAL_STATE_EXPIRED
    error = await refused(client.approvals.approve(shown))
    assert error.reason in ("APPROVAL_EXPIRED", "APPROVAL_DECIDED", "RUN_ENDED")
    assert effects.lines() == []


async def test_a_token_that_nobody_has_and_none_at_all_are_refused(plane: Plane) -> None:
    for token, reason in (("nonsense", "TOKEN_INVALID"), ("", "TOKEN_MISSING")):
        async with Client(Connection(plane.address, token)) as stranger:
            error = await refused(stranger.agents.list())
            assert error.reason == reason


# -- documents


@pytest.mark.parametrize(
    ("source", "content", "reason"),
    [
        ("empty.md", b"", "DOCUMENT_EMPTY"),
        ("blank.md", b" \n\n ", "DOCUMENT_EMPTY"),
        ("big.md", b"a line of a very long document\n" * (50 * 1024 * 1024 // 31), "DOCUMENT_TOO_LARGE"),
        ("binary.md", bytes(range(256)), "DOCUMENT_NOT_TEXT"),
        ("sheet.xlsx", b"text", "DOCUMENT_TYPE_UNSUPPORTED"),
        ("two\nlines.md", b"text", "DOCUMENT_SOURCE_INVALID"),
        ("book.md", b"---\nkind: runbook\n---\n# Vibration\n\nNo steps at all.\n", "RUNBOOK_MALFORMED"),
    ],
    ids=["empty", "blank", "50 MB", "binary", "type", "source", "runbook"],
)
async def test_documents_that_can_not_be_stored(
    client: Client, source: str, content: bytes, reason: str
) -> None:
    error = await refused(client.collections.ingest("bad", source, content))
    assert error.reason == reason, error
    if any(known.name.endswith("/bad") for known in await client.collections.list()):
        assert not await client.collections.documents("bad")


async def test_search_fails_clearly_while_chroma_is_gone_and_works_again_after(
    plane: Plane, client: Client
) -> None:
    await client.collections.ingest(
        "vibration", "guide.md", "# Bearings\n\nA worn bearing makes a line vibrate.\n"
    )
    (hit, *_) = await client.collections.search("why does it vibrate?", collections=["vibration"])
    assert "bearing" in hit.text
    hasty = Client(plane.connection(), retry=RetryPolicy(attempts=1))
    old = plane.kill(CHROMA)
    try:
        reasons: set[str] = set()

        async def works_again() -> bool:
            try:
                found = await hasty.collections.search("why does it vibrate?", collections=["vibration"])
            except FermataError as error:
                reasons.add(error.reason)
                return False
            return bool(found)

        await eventually("search works again", works_again)
    finally:
        await hasty.close()
    assert reasons == {"CHROMA_UNAVAILABLE"}
    assert plane.child(CHROMA) != old


# -- pages and cursors


async def test_pages_hold_all_runs_once(driver: Driver, client: Client) -> None:
    runs = [await driver.talk("asynchronous") for _ in range(5)]
    for run in runs:
        await run.succeeded()
    stub = run_pb2_grpc.RunServiceStub(client.transport.channel)
    names: list[str] = []
    request = run_pb2.ListRunsRequest(
        parent="tenants/default", agent="tenants/default/agents/asynchronous", page_size=2
    )
    while True:
        page = await stub.ListRuns(request, metadata=client.transport.call_metadata)
        assert len(page.runs) <= 2
        names += [run.name for run in page.runs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert len(names) == len(set(names))
    assert names[:5] == [run.name for run in reversed(runs)]


async def test_cursors_and_page_tokens_that_were_never_given_are_refused(client: Client) -> None:
    stub = run_pb2_grpc.RunServiceStub(client.transport.channel)
    request = run_pb2.ListRunsRequest(parent="tenants/default", page_token="made up")
    error = await refused(client.transport.unary(stub.ListRuns, request))
    assert error.reason == "PAGE_TOKEN"
    error = await refused(asyncio.wait_for(anext(client.runs.watch(cursor="made up")), 10))
    assert error.reason == "CURSOR_INVALID"


async def test_a_host_that_is_gone_says_so(tmp_path: Path) -> None:
    async with Client(Connection("127.0.0.1:1", "token"), deadline_seconds=2) as lost:
        error = await refused(lost.agents.list())
    assert error.reason in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
