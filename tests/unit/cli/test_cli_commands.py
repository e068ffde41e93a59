"""Commands: what they send, print and exit with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fermata.bots.terminal import exits
from fermata.bots.terminal import server as server_commands
from fermata.client import UnavailableError
from fermata.v1 import approval_pb2, latch_pb2, run_pb2, thread_pb2

T = "tenants/default"

ALL_JSON = [
    ["runs"],
    ["approvals"],
    ["latches"],
    ["agents"],
    ["agents", "list"],
    ["agents", "show", "operator"],
    ["documents"],
    ["documents", "factory"],
    ["search", "vibration"],
    ["workers"],
    ["whoami"],
    ["version"],
    ["policy", "show"],
    ["policy", "test", "set_speed"],
    ["principals"],
    ["principals", "list"],
    ["principals", "create", "bob"],
    ["run", "operator", "hello", "--detach"],
]


@pytest.mark.parametrize("command", ALL_JSON, ids=" ".join)
def test_json_is_one_document_and_nothing_else(cli: Any, command: list[str]) -> None:
    code, out, err = cli(*command, "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize("command", ALL_JSON, ids=" ".join)
def test_people_get_no_escape_that_came_from_the_server(cli: Any, command: list[str]) -> None:
    _, out, err = cli(*command)
    assert out
    assert not set(out + err) & set("\x1b\x07\x9b")


def test_markup_in_a_description_is_shown_as_it_is(cli: Any) -> None:
    assert "[bold]well[/bold]" in cli("agents")[1]


def test_a_run_that_succeeds(cli: Any) -> None:
    code, out, _ = cli("run", "operator", "how is line 3?")
    assert code == exits.OK
    assert "Line 3 is fine [1]." in out
    assert "[1] runbooks/a.md:12  High vibration > Steps" in out
    assert "> how is line 3?" not in out


@pytest.mark.parametrize("strategy", ["", "reject", "enqueue", "interrupt", "rollback"])
def test_what_a_run_does_on_a_busy_thread_is_said_with_on_busy(cli: Any, server: Any, strategy: str) -> None:
    option = ["--on-busy", strategy] if strategy else []
    code, _, _ = cli("run", "operator", "how is line 3?", "--thread", "t1", *option)
    assert code == 0
    wanted = f"MULTITASK_STRATEGY_{strategy.upper() or 'UNSPECIFIED'}"
    [request] = server.created
    assert request.multitask_strategy == thread_pb2.MultitaskStrategy.Value(wanted)


def test_a_run_as_lines_of_json(cli: Any) -> None:
    code, out, _ = cli("run", "operator", "how is line 3?", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == exits.OK
    assert [line["event"]["sequence"] for line in lines[:-1]] == ["1", "2", "3", "4"]
    assert lines[-1]["run"]["answer"] == "Line 3 is fine [1]."
    assert lines[1]["event"]["data"] == {"worker": "w1", "epoch": 1}


def test_a_run_that_fails_exits_with_1_and_its_text_is_harmless(cli: Any) -> None:
    code, out, _ = cli("run", "operator", "please fail")
    assert code == exits.FAILED
    assert "[GRAPH_RAISED] it broke [red]here[/red]" in out
    assert "\x1b" not in out


def test_a_run_that_waits_exits_with_7_and_says_for_what(cli: Any) -> None:
    code, out, err = cli("run", "operator", "deal with it")
    assert code == exits.WAITING
    assert "May operator call set_speed?" in out
    assert "ap-1x" in err


def test_an_edit_is_typed_sent_with_the_digest_and_shown(cli: Any, server: Any) -> None:
    cli("run", "operator", "deal with it")
    code, out, _ = cli("edit", "ap-1", "--set", "rpm=900", "--yes", "-m", "slower")
    assert code == 0
    assert "rpm: 1000 → 900" in out
    (request,) = server.requests
    assert request.decision == approval_pb2.DECISION_EDIT
    assert (request.digest, request.comment) == ("d1", "slower")
    assert dict(request.edited_args) == {"line": 3.0, "rpm": 900.0}
    code, out, _ = cli("watch", "r1")
    assert code == 0
    assert "Slowed down to 900." in out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--set", "rpm=5"], "minimum of 600"),
        (["--set", "rpm=fast"], "takes integer"),
        (["--set", "speed=5"], "Known:"),
        (["--set", "rpm=1000"], "Nothing has changed"),
        ([], "--set name=value"),
    ],
)
def test_an_edit_that_the_schema_refuses_is_not_sent(
    cli: Any, server: Any, changes: list[str], words: str
) -> None:
    cli("run", "operator", "deal with it")
    code, _, err = cli("edit", "ap-1", *changes, "--yes")
    assert code == exits.USAGE
    assert words in err
    assert not server.requests


def test_approving_shows_what_is_approved(cli: Any, server: Any) -> None:
    cli("run", "operator", "deal with it")
    code, out, _ = cli("approve", "ap-1", "--yes")
    assert code == 0
    assert "set_speed" in out
    assert "1000" in out
    assert server.requests[0].digest == "d1"


def test_approving_without_a_terminal_needs_yes(cli: Any, server: Any) -> None:
    cli("run", "operator", "deal with it")
    code, _, err = cli("approve", "ap-1")
    assert code == exits.USAGE
    assert "--yes" in err
    assert not server.requests


def test_an_approval_that_has_changed_since_is_refused(cli: Any, server: Any) -> None:
    cli("run", "operator", "deal with it")
    code, _, err = cli("approve", "ap-1", "--yes", "--digest", "other")
    assert code == exits.USAGE
    assert "APPROVAL_DIGEST_MISMATCH" in err
    assert not server.requests


def test_a_decision_comes_once(cli: Any) -> None:
    cli("run", "operator", "deal with it")
    assert cli("reject", "ap-1", "--reason", "not today")[0] == 0
    code, _, err = cli("approve", "ap-1", "--yes")
    assert code == exits.CONFLICT
    assert "error [APPROVAL_DECIDED]" in err


def test_a_reason_reaches_the_agent(cli: Any, server: Any) -> None:
    cli("run", "operator", "deal with it")
    cli("reject", "ap-1", "--reason", "not today", "--json")
    assert (server.requests[0].comment, server.requests[0].decision) == (
        "not today",
        approval_pb2.DECISION_REJECT,
    )


def test_a_halt_says_halting_until_it_has_settled(cli: Any) -> None:
    cli("run", "operator", "a long one", "--detach")
    code, out, _ = cli("halt", "r1", "--reason", "smoke")
    assert code == 0
    halting, settled = out.index("halting"), out.index("settled in 4.2 ms")
    assert halting < settled
    assert "slow_tool: killed; its outcome is unknown" in out
    assert cli("watch", "r1")[0] == exits.FAILED


def test_a_halts_report_as_lines_of_json(cli: Any) -> None:
    cli("run", "operator", "a long one", "--detach")
    lines = [json.loads(line) for line in cli("halt", "r1", "--json")[1].splitlines()]
    assert [line["state"] for line in lines] == ["LATCH_STATE_LATCHED", "LATCH_STATE_SETTLED"]


def test_halting_everything_needs_a_yes(cli: Any, server: Any) -> None:
    code, _, err = cli("halt", "--all")
    assert (code, server.latches) == (exits.USAGE, {})
    assert "--yes" in err
    assert cli("halt", "--all", "--yes")[0] == 0
    assert next(iter(server.latches.values())).scope.tenant


def test_releasing_everything_needs_a_yes(cli: Any, server: Any) -> None:
    cli("hold", "--all", "--yes")
    code, _, err = cli("release", "--all")
    assert (code, "--yes" in err) == (exits.USAGE, True)
    assert cli("release", "--all", "--yes")[0] == 0
    assert [latch.state for latch in server.latches.values()] == [3]


@pytest.mark.parametrize(
    ("arguments", "field", "name", "shown"),
    [
        (["r1", "--descendants"], "run_tree", f"{T}/runs/r1-abc", "run r1-abc with its descendants"),
        (["--thread", "t1"], "thread", f"{T}/threads/t1", "thread t1"),
        (["--agent", "operator"], "agent", f"{T}/agents/operator", "agent operator"),
        (["--revision", "operator@5f"], "revision", f"{T}/agents/operator/revisions/5f", "operator@5f"),
        (["--tool", "turn"], "tool", "turn", "tool turn"),
        (["--all", "--yes"], "tenant", True, "everything"),
        (["--all-tenants", "--yes"], "everything", True, "all tenants"),
    ],
)
@pytest.mark.parametrize("verb", ["hold", "halt"])
def test_whatever_can_be_named_is_held_and_halted_and_released(
    cli: Any, server: Any, verb: str, arguments: list[str], field: str, name: Any, shown: str
) -> None:
    cli("run", "operator", "a long one", "--detach")
    code, out, _ = cli(verb, *arguments)
    assert code == 0
    assert shown in " ".join(out.split())
    [latch] = server.latches.values()
    assert (latch.scope.WhichOneof("target"), getattr(latch.scope, field)) == (field, name)
    assert cli("release", *(argument for argument in arguments if argument != "--descendants"))[0] == 0
    assert latch.state == 3


def test_all_tenants_are_not_halted_without_a_yes(cli: Any, server: Any) -> None:
    code, _, err = cli("halt", "--all-tenants")
    assert (code, server.latches) == (exits.USAGE, {})
    assert "all tenants" in err


def test_a_hold_for_two_hours_stays_unless_it_is_told_to_end(cli: Any, server: Any) -> None:
    cli("run", "operator", "a long one", "--detach")
    assert "its time is over at" in cli("hold", "r1", "--for", "2h")[1]
    cli("hold", "r1", "--for", "2h", "--then-release")
    stays, ends = server.latches.values()
    left = stays.expire_time.ToSeconds() - time.time()
    assert 7100 < left <= 7200
    assert (stays.on_expiry, ends.on_expiry) == (0, latch_pb2.ON_EXPIRY_RELEASE)
    assert cli("hold", "r1", "--then-release")[0] == exits.USAGE


@pytest.mark.parametrize(
    "arguments",
    [[], ["r1", "--tool", "t"], ["--tool", "t", "--descendants"], ["--agent", "a", "--all", "--yes"]],
)
def test_exactly_one_thing_is_halted(cli: Any, server: Any, arguments: list[str]) -> None:
    cli("run", "operator", "a long one", "--detach")
    code, _, err = cli("halt", *arguments)
    assert code == exits.USAGE
    assert "SCOPE_AMBIGUOUS" in err
    assert not server.latches


def test_a_hold_is_released_by_its_run_or_by_its_own_name(cli: Any, server: Any) -> None:
    cli("run", "operator", "a long one", "--detach")
    for target in ("r1", "l2"):
        assert cli("hold", "r1")[0] == 0
        assert cli("release", target)[0] == 0
    assert all(latch.state == 3 for latch in server.latches.values())
    code, _, err = cli("release", "r1")
    assert code == exits.NOT_FOUND
    assert "LATCH_NOT_FOUND" in err


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["watch", "r9"], "RUN_NOT_FOUND"),
        (["approve", "nope", "--yes"], "APPROVAL_NOT_FOUND"),
        (["agents", "show", "nobody"], "AGENT_NOT_FOUND"),
        (["run", "nobody", "hi"], "AGENT_NOT_FOUND"),
        (["chat", "nobody"], "AGENT_NOT_FOUND"),
    ],
)
def test_what_is_not_there(cli: Any, command: list[str], reason: str) -> None:
    code, out, err = cli(*command)
    assert (code, out) == (exits.NOT_FOUND, "")
    assert f"error [{reason}]" in err


def test_a_short_name_that_fits_several_lists_them(cli: Any) -> None:
    for _ in range(2):
        cli("run", "operator", "hello", "--detach")
    code, _, err = cli("steps", "r")
    assert code == exits.USAGE
    assert "r1-abc" in err
    assert "r2-abc" in err


@pytest.mark.parametrize(
    "command",
    [
        ["run", "operator"],
        ["run", "operator", "--values", "{"],
        ["run", "operator", "--values", "[1]"],
        ["runs", "--state", "sleeping"],
        ["release"],
        ["recover", "x", "perhaps"],
        ["answer", "x", "{", "--parse"],
        ["policy", "test", "t", "--effect", "MAGIC"],
        ["policy", "test", "t", "--args", "[]"],
        ["policy", "set", "/no/such/file"],
        ["ingest", "/no/such/file"],
        ["principals", "create", "bob", "--role", "king"],
        ["agents", "apply", "/no/such/file"],
        ["nonsense"],
        ["runs", "--limit", "x"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_prints_nothing_on_stdout(cli: Any, command: list[str]) -> None:
    code, out, err = cli(*command)
    assert (code, out) == (exits.USAGE, "")
    assert err


def test_nothing_listens(cli: Any, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class OnceClient:
        def __init__(self, *_: object, **__: object) -> None:
            raise UnavailableError("connection refused")

    monkeypatch.setattr("fermata.bots.terminal.session.SyncClient", OnceClient)
    code, _, err = cli("--address", f"127.0.0.1:{unused_tcp_port}", "runs")
    assert code == exits.UNAVAILABLE
    assert "fermata up" in err


def test_the_token_is_read_from_its_file_and_never_printed(cli: Any, server: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("tok-wrong-one\n")
    token.chmod(0o600)
    code, out, err = cli("--token-file", str(token), "whoami")
    assert code == exits.DENIED
    assert server.tokens == ["Bearer tok-wrong-one"]
    assert "tok-wrong-one" not in out + err
    token.chmod(0o644)
    code, out, err = cli("--token-file", str(token), "whoami")
    assert (code, "TOKEN_FILE_EXPOSED" in err) == (exits.DENIED, True)


def test_an_agent_file_is_applied(cli: Any, server: Any, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("graph = 1\n")
    (tmp_path / "agent.yaml").write_text("name: mine\ngraph: ./agent.py:graph\ndescription: Mine.\n")
    code, out, _ = cli("agents", "apply", str(tmp_path), "--dry-run")
    assert (code, "would be applied" in out) == (0, True)
    assert "tenants/default/agents/mine" not in server.agents
    code, out, _ = cli("agents", "apply", str(tmp_path))
    assert code == 0
    assert "set_speed" in out
    assert server.requests[-1].pack
    assert cli("agents", "delete", "mine", "--yes")[0] == 0


def test_a_malformed_agent_file_is_told_with_its_line(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("name: mine\ngraph: a.b:c\nlimits:\n  steps: 3\n")
    code, _, err = cli("agents", "apply", str(path))
    assert code == exits.USAGE
    assert f"{path}:4: limits.steps" in err


def test_a_folder_is_ingested_and_failures_are_listed(cli: Any, server: Any, tmp_path: Path) -> None:
    books = tmp_path / "runbooks"
    (books / "deep").mkdir(parents=True)
    (books / "a.md").write_text("# A\n")
    (books / "deep" / "b.txt").write_text("B\n")
    (books / "empty.md").write_text("")
    (books / "picture.png").write_bytes(b"x")
    code, out, err = cli("ingest", str(books), "--collection", "factory")
    assert code == exits.FAILED
    assert sorted(server.documents) == ["runbooks/a.md", "runbooks/deep/b.txt"]
    assert "2 stored, 0 unchanged, 1 failed" in out
    assert "DOCUMENT_EMPTY" in err
    code, out, _ = cli("ingest", str(books / "a.md"), str(books), "--json")
    document = json.loads(out)
    assert [error["reason"] for error in document["errors"]] == ["DOCUMENT_EMPTY"]
    assert len(document["documents"]) == 3


def test_a_policy_test_exits_with_1_where_it_denies(cli: Any, server: Any) -> None:
    assert cli("policy", "test", "set_speed", "rpm=900", "note=hi")[0] == 0
    assert dict(server.requests[0].args) == {"rpm": 900.0, "note": "hi"}
    code, out, _ = cli("policy", "test", "format_disk")
    assert code == exits.FAILED
    assert "deny" in out


def test_a_policy_is_set_unless_it_was_changed_in_between(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("rules: []\n")
    assert cli("policy", "set", str(path))[0] == 0
    code, _, err = cli("policy", "set", str(path), "--etag", "old")
    assert (code, "ETAG_MISMATCH" in err) == (exits.CONFLICT, True)


def test_a_token_is_printed_once(cli: Any) -> None:
    code, out, _ = cli("principals", "create", "bob", "--role", "operator", "--role", "approver")
    assert code == 0
    assert "tok-shown-once" in out
    assert "operator, approver" in out


def test_up_hands_everything_to_the_server_unchanged(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: called.append([path, *arguments]))
    monkeypatch.setenv("FERMATA_DATA", "/before")
    assert cli("up", "--port", "0", "--json", "-x", "--help", "extra")[0] == 0
    command = [sys.executable, "-m", server_commands.SERVER_MODULE]
    assert called == [[sys.executable, *command, "--port", "0", "--json", "-x", "--help", "extra"]]
    cli("--data", "/elsewhere", "up")
    assert os.environ["FERMATA_DATA"] == "/elsewhere"


def test_completion_asks_the_server(server: Any) -> None:
    environment = {
        **os.environ,
        "FERMATA_ADDRESS": server.target,
        "_FERMATA_COMPLETE": "complete_bash",
        "COMP_WORDS": "fermata run op",
        "COMP_CWORD": "2",
    }
    script = Path(sys.executable).parent / "fermata"
    found = subprocess.run([script], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert found.stdout.split() == ["operator"]


def test_bots_import_neither_server_nor_agents() -> None:
    script = (
        "import sys, fermata.bots.terminal.main as m;"
        "print([n for n in sys.modules if n.startswith(('fermata.server', 'fermata.agents', 'ray', 'langchain'))])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"


def test_every_state_of_a_run_has_a_name() -> None:
    from fermata.bots.terminal.runs import STATES

    assert set(STATES.values()) == set(run_pb2.RunState.values()) - {0}


@pytest.mark.parametrize(
    "command", [["watch", "r1"], ["watch"], ["approvals", "--watch"], ["chat"]], ids=" ".join
)
def test_an_interrupt_ends_a_watch_quietly(cli: Any, server: Any, command: list[str]) -> None:
    cli("run", "operator", "a long one", "--detach")
    process = subprocess.Popen(
        [sys.executable, "-m", "fermata.bots.terminal.main", *command, "--json"],
        env={**os.environ, "FERMATA_ADDRESS": server.target},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    if command == ["chat"]:
        process.stdin.write("a long one\n")
        process.stdin.flush()
    if command[0] == "watch" and len(command) == 1:
        server.wait_for_watcher()
    else:
        assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == exits.INTERRUPTED
    assert process.stderr.read() == ""
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def test_a_reader_that_leaves_early_is_no_error(cli: Any, server: Any) -> None:
    cli("run", "operator", "hello", "--detach")
    script = (
        f"{sys.executable} -m fermata.bots.terminal.main watch r1 --json | head -n 1; exit ${{PIPESTATUS[0]}}"
    )
    found = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "FERMATA_ADDRESS": server.target},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert found.stdout.count("\n") == 1
    assert found.stderr == ""
