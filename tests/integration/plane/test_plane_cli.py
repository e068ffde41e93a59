"""The command line against a real plane: what scripts read, the exit codes they branch on, and the chat at a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.plane.harness import Driver, Effects, Plane, script
from tests.integration.plane.terminal import CommandLine, Ended, Terminal

from fermata.client import Client

pytestmark = pytest.mark.ray

GRAPHS = Path(__file__).parent / "graphs"


@pytest.fixture
def fermata(plane: Plane) -> CommandLine:
    return CommandLine(plane.data)


@pytest.fixture
def at_terminal(plane: Plane) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(plane.data, *arguments))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def pay(effects: Effects, amount: int) -> str:
    return script([("pay", {"mark": str(effects), "amount": amount})])


async def test_apply_run_and_read_back(fermata: CommandLine, effects: Effects) -> None:
    applied = (await fermata("agents", "apply", str(GRAPHS / "asynchronous.yaml"), "--json")).json["agents"][
        0
    ]
    assert applied["name"] == "tenants/default/agents/asynchronous"
    assert "pay" in {tool["name"] for tool in applied["revision"]["report"]["tools"]}
    listed = (await fermata("agents", "--json")).json["agents"]
    assert applied["name"] in {agent["name"] for agent in listed}

    text = script([("free", {"mark": str(effects)})])
    lines = (await fermata("run", "asynchronous", text, "--json")).lines
    events = [line["event"] for line in lines if "event" in line]
    assert events[0]["type"] == "EVENT_TYPE_CREATED"
    assert events[-1]["type"] == "EVENT_TYPE_SUCCEEDED"
    assert lines[-1]["run"]["state"] == "RUN_STATE_SUCCEEDED"
    assert effects.lines() == ["free"]

    name = lines[-1]["run"]["name"]
    runs = (await fermata("runs", "--agent", "asynchronous", "--json")).json["runs"]
    assert name in {run["name"] for run in runs}
    watched = (await fermata("watch", name.rsplit("/", 1)[1], "--json")).lines
    assert [line["event"] for line in watched if "event" in line] == events
    steps = (await fermata("steps", name, "--json")).json["steps"]
    assert [step["tool"] for step in steps if step["kind"] == "tool"] == ["free"]


async def waiting(fermata: CommandLine, effects: Effects, amount: int) -> tuple[str, str]:
    """Start a payment that waits; return the names of the run and its approval."""
    ended: Ended = await fermata("run", "asynchronous", pay(effects, amount), "--json", code=7)
    run = ended.lines[-1]["run"]
    assert run["state"] == "RUN_STATE_AWAITING"
    (approval,) = run["pending_approvals"]
    return run["name"], approval


async def test_what_waits_is_approved_edited_and_rejected(
    driver: Driver, client: Client, fermata: CommandLine, effects: Effects
) -> None:
    await driver.plane.agent(client, "asynchronous")
    run, approval = await waiting(fermata, effects, 20)
    listed = (await fermata("approvals", "--run", run, "--json")).json["approvals"]
    assert [(one["name"], one["tool"], one["args"]["amount"]) for one in listed] == [(approval, "pay", 20)]
    short = approval.rsplit("/", 1)[1]
    await fermata("approve", short, "--json", code=2)
    approved = (await fermata("approve", short, "--yes", "--json")).json
    assert approved["state"] == "APPROVAL_STATE_APPROVED"
    watched = (await fermata("watch", run, "--json")).lines
    assert watched[-1]["run"]["state"] == "RUN_STATE_SUCCEEDED"
    again = await fermata("reject", short, code=4)
    assert "[APPROVAL_DECIDED]" in again.err
    assert again.out == "" or "pay" in again.out

    run, approval = await waiting(fermata, effects, 21)
    await fermata("edit", approval, "--set", "amount=22", "--yes", "--json")
    await fermata("watch", run, "--json")
    run, approval = await waiting(fermata, effects, 23)
    await fermata("edit", approval, "--set", "amount=lots", "--yes", code=2)
    await fermata("reject", approval, "-m", "too dear", "--json")
    assert "too dear" in (await fermata("watch", run, "--json")).lines[-1]["run"]["answer"]
    assert effects.lines() == ["pay 20 EUR", "pay 22 EUR"]


async def test_hold_release_and_halt(
    driver: Driver,
    client: Client,
    fermata: CommandLine,
    effects: Effects,
    more_effects: Callable[[], Effects],
) -> None:
    run = await driver.talk(
        "asynchronous", [("slow_look", {"mark": str(effects)})], [("free", {"mark": str(effects)})]
    )
    await effects.pid()
    held = (await fermata("hold", run.name, "--no-wait", "-m", "wait", "--json")).lines[-1]
    assert held["kind"] == "LATCH_KIND_HOLD"
    latches = (await fermata("latches", "--json")).json["latches"]
    assert [latch["scope"] for latch in latches] == [{"run": run.name}]
    effects.let_go()
    await fermata("release", run.name, "--json")
    await run.succeeded()

    other = more_effects()
    run = await driver.talk("asynchronous", [("hang", {"mark": str(other)})])
    await other.wait_for("start")
    report = (await fermata("halt", "--agent", "asynchronous", "--json")).lines[-1]
    assert report["state"] == "LATCH_STATE_SETTLED"
    assert [step["status"] for step in report["steps"]] == ["LATCH_STEP_STATUS_FINISHED"]
    assert "[HALTED]" in (await fermata("run", "asynchronous", script(), code=4)).err
    assert (await fermata("watch", run.name, "--json", code=1)).lines[-1]["run"][
        "state"
    ] == "RUN_STATE_HALTED"
    await fermata("halt", "--all", code=2)
    await fermata("release", "--agent", "asynchronous")
    await fermata("run", "asynchronous", script())


async def test_documents_are_ingested_and_found_with_where_they_stand(
    fermata: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "ovens.md").write_text(
        "# Ovens\n\n## Cleaning\n\nThe oven is cleaned with vinegar on Fridays.\n"
    )
    (tmp_path / "empty.md").write_text("")
    source = f"{tmp_path.name}/ovens.md"
    stored = await fermata("ingest", str(tmp_path), "-c", "kitchen", "--json", code=1)
    assert [document["source"] for document in stored.json["documents"]] == [source]
    assert [error["reason"] for error in stored.json["errors"]] == ["DOCUMENT_EMPTY"]
    found = (await fermata("search", "how do I clean the oven?", "-c", "kitchen", "--json")).json
    best = found["passages"][0] if "passages" in found else next(iter(found.values()))[0]
    assert best["source"] == source
    assert best["first_line"] <= 5 <= best["last_line"]
    assert "vinegar" in best["text"]
    await fermata("search", "anything", "-c", "no-such", code=3)
    await fermata("ingest", str(tmp_path / "absent.md"), code=2)


async def test_policy_test_says_which_rule_decides(
    driver: Driver, client: Client, fermata: CommandLine, tmp_path: Path
) -> None:
    await driver.plane.agent(client, "asynchronous")
    asked = (await fermata("policy", "test", "pay", "amount=5", "--agent", "asynchronous", "--json")).json
    assert (asked["outcome"], asked["rule"]) == ("POLICY_OUTCOME_REQUIRE_APPROVAL", "payments")
    denied = await fermata(
        "policy", "test", "pay", "amount=5000", "--agent", "asynchronous", "--json", code=1
    )
    assert (denied.json["outcome"], denied.json["rule"]) == ("POLICY_OUTCOME_DENY", "too-much")
    (tmp_path / "policy.yaml").write_text("version: 1\nrules: [{id: a, decide: PERHAPS}]\n")
    malformed = await fermata("policy", "test", "pay", "-f", str(tmp_path / "policy.yaml"), code=2)
    assert "[POLICY_MALFORMED]" in malformed.err


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("run", "nobody", "hello"), 3, "AGENT_NOT_FOUND"),
        (("watch", "ffff"), 3, "RUN_NOT_FOUND"),
        (("approve", "ffff", "--yes"), 3, "APPROVAL_NOT_FOUND"),
        (("release", "ffff"), 3, "LATCH_NOT_FOUND"),
        (("agents", "apply", "/no/such/agent.yaml"), 2, "AGENT_FILE_MISSING"),
        (("halt",), 2, "SCOPE_AMBIGUOUS"),
        (("--address", "127.0.0.1:1", "runs"), 6, "UNAVAILABLE"),
    ],
)
async def test_errors_have_a_reason_and_an_exit_code(
    fermata: CommandLine, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    ended = await fermata(*arguments, code=code)
    assert f"[{reason}]" in ended.err
    assert ended.out == ""


async def test_a_failed_run_leaves_with_1(
    driver: Driver, client: Client, fermata: CommandLine, effects: Effects
) -> None:
    await driver.plane.agent(client, "misbehaving")
    values = json.dumps({"how": "raise", "mark": str(effects)})
    ended = await fermata("run", "misbehaving", "--values", values, "--json", code=1)
    assert ended.lines[-1]["run"]["error"]["reason"] == "GRAPH_RAISED"


async def test_a_conversation_at_a_terminal(
    driver: Driver, client: Client, effects: Effects, at_terminal: Callable[..., Terminal]
) -> None:
    await driver.plane.agent(client, "asynchronous")
    chat = at_terminal("chat", "asynchronous")
    await chat.until("/quit")
    chat.type(pay(effects, 30) + "\r")
    await chat.until("waits for you: pay")
    assert effects.lines() == []
    chat.type("a\r")
    await chat.until("paid 30 EUR")
    assert effects.lines() == ["pay 30 EUR"]
    chat.type(pay(effects, 31) + "\r")
    await chat.until('"amount": 31')
    await chat.until("waits for you: pay")
    chat.type("r\r")
    await chat.until("Why?")
    chat.type("no more money\r")
    await chat.until("no more money")
    chat.type("/quit\r")
    assert await chat.ended() == 0
    assert effects.lines() == ["pay 30 EUR"]


async def test_stop_at_a_terminal_halts_the_run(
    driver: Driver, client: Client, effects: Effects, at_terminal: Callable[..., Terminal]
) -> None:
    await driver.plane.agent(client, "asynchronous")
    chat = at_terminal("chat", "asynchronous")
    await chat.until("/quit")
    chat.type(script([("hang", {"mark": str(effects)})]) + "\r")
    await effects.wait_for("start")
    chat.type("stop\r")
    await chat.until("settled")
    chat.type("/quit\r")
    assert await chat.ended() == 0
    assert effects.lines() == ["start", "cancelled"]


async def test_a_conversation_through_a_pipe(
    driver: Driver, client: Client, fermata: CommandLine, effects: Effects
) -> None:
    await driver.plane.agent(client, "asynchronous")
    ended = await fermata("chat", "asynchronous", stdin=f"{pay(effects, 32)}\na\n")
    assert "paid 32 EUR" in ended.out
    assert effects.lines() == ["pay 32 EUR"]
