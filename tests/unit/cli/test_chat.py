"""The chat, through a pipe and at a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyte
import pytest

from fermata.bots.terminal import exits
from fermata.v1 import approval_pb2, thread_pb2

COLUMNS, LINES = 110, 45
PATIENCE_SECONDS = 40


def test_a_question_is_answered_with_citations(cli: Any) -> None:
    code, out, _ = cli("chat", stdin="how is line 3?\n")
    assert code == 0
    assert out.index("> how is line 3?") < out.index("Line 3 is fine [1].")
    assert "[1] runbooks/a.md:12" in out


def test_a_card_is_edited_on_one_line(cli: Any, server: Any) -> None:
    code, out, err = cli("chat", "operator", stdin="deal with it\ne rpm=5\ne rpm=900\n")
    assert code == 0
    assert "ARGUMENT_INVALID" in err
    assert "rpm: 1000 → 900" in out
    assert "Slowed down to 900." in out
    (request,) = server.requests
    assert request.digest == "d1"


def test_a_card_is_edited_argument_by_argument(cli: Any, server: Any) -> None:
    code, out, err = cli("chat", stdin="deal with it\ne\n\nfast\n950\n")
    assert code == 0
    assert "takes integer" in err
    assert "Slowed down to 950." in out


def test_a_rejection_asks_why(cli: Any, server: Any) -> None:
    code, out, _ = cli("chat", stdin="deal with it\nr\ntoo risky\n")
    assert code == 0
    assert server.requests[0].comment == "too risky"
    assert server.requests[0].decision == approval_pb2.DECISION_REJECT
    assert "rejected by ann: too risky" in out
    assert "Left as it is." in out


def test_a_message_does_not_pass_a_waiting_card(cli: Any, server: Any) -> None:
    code, out, _ = cli("chat", stdin="deal with it\nand line 4?\n")
    assert code == exits.WAITING
    assert "A card waits" in out
    assert len(server.runs) == 1


@pytest.mark.parametrize("strategy", ["enqueue", "interrupt", "rollback"])
def test_a_message_passes_a_waiting_card_where_the_person_has_said_so(
    cli: Any, server: Any, strategy: str
) -> None:
    _, out, _ = cli("chat", "--on-busy", strategy, stdin="deal with it\nhow is line 3?\n")
    assert "A card waits" not in out
    wanted = thread_pb2.MultitaskStrategy.Value(f"MULTITASK_STRATEGY_{strategy.upper()}")
    assert [request.multitask_strategy for request in server.created] == [wanted, wanted]


def test_stop_halts_the_run_at_once(cli: Any, server: Any) -> None:
    code, out, _ = cli("chat", stdin="a long one\nstop\nhow is line 3?\n")
    assert code == 0
    assert out.index("halting") < out.index("settled in 4.2 ms") < out.index("> how is line 3?")
    assert next(iter(server.latches.values())).scope.run.endswith("r1-abc")


def test_commands(cli: Any, server: Any) -> None:
    code, out, _ = cli("chat", stdin="/help\n/runs\n/hold\n/halt\n/nonsense\n/quit\nnever sent\n")
    assert code == 0
    assert "/release" in out
    assert "No runs." in out
    assert out.count("No run is going on.") == 2
    assert "There is no command /nonsense" in out
    assert not server.runs


def test_a_conversation_is_taken_up_again(cli: Any) -> None:
    cli("chat", stdin="how is line 3?\n")
    code, out, _ = cli("chat", "--thread", "t1", stdin="and now?\n")
    assert code == 0
    assert out.index("> how is line 3?") < out.index("> and now?")


def test_lines_of_json(cli: Any) -> None:
    code, out, _ = cli("chat", "--json", stdin="deal with it\na\n")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    kinds = [line["event"]["type"] for line in lines if "event" in line]
    assert kinds[0] == "EVENT_TYPE_CREATED"
    assert kinds[-1] == "EVENT_TYPE_SUCCEEDED"
    assert next(line["approval"]["state"] for line in lines if "approval" in line) == "APPROVAL_STATE_PENDING"


class Terminal:
    """A process at a pseudo-terminal, with a screen that can be read."""

    def __init__(self, target: str, *command: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        environment = {**os.environ, "FERMATA_ADDRESS": target, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fermata.bots.terminal.main", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def text(self) -> str:
        """What can be seen."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    def until(self, words: str) -> None:
        """Read until ``words`` can be seen."""
        end = time.monotonic() + PATIENCE_SECONDS
        while words not in self.text:
            assert time.monotonic() < end, f"{words!r} did not appear:\n{self.text}"
            self._read(end - time.monotonic())

    def until_asked(self) -> None:
        """Read until the chat waits for a line: a key pressed before that is a signal to nobody."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self._screen.display[self._screen.cursor.y].strip() != "›":
            assert time.monotonic() < end, f"no prompt appeared:\n{self.text}"
            self._read(end - time.monotonic())

    def wait(self) -> int:
        """Read until the process has ended; its exit code."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            self._read(0.05)
        return self.process.wait(1)

    def close(self) -> None:
        """End the process if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def _read(self, seconds: float) -> None:
        ready, _, _ = select.select([self._ours], [], [], max(seconds, 0))
        if not ready:
            return
        try:
            found = os.read(self._ours, 65536)
        except OSError:
            return
        self._stream.feed(found)
        if b"\x1b[6n" in found:
            self.type(f"\x1b[{self._screen.cursor.y + 1};{self._screen.cursor.x + 1}R")


@pytest.fixture
def at_terminal(server: Any) -> Iterator[Callable[..., Terminal]]:
    """Starts a command at a terminal."""
    opened: list[Terminal] = []

    def start(*command: str) -> Terminal:
        opened.append(Terminal(server.target, *command))
        return opened[-1]

    yield start
    for found in opened:
        found.close()


@pytest.fixture
def terminal(at_terminal: Callable[..., Terminal]) -> Terminal:
    """``fermata chat`` at a terminal."""
    return at_terminal("chat")


def test_the_story_at_a_terminal(terminal: Terminal, server: Any) -> None:
    terminal.until("›")
    terminal.type("deal with it\r")
    terminal.until("waits for you: set_speed")
    terminal.until("May operator call set_speed?")
    terminal.type("e\r")
    terminal.until("line = 3")
    terminal.type("\r")
    terminal.until("rpm = 1000")
    terminal.type("\x15900\r")
    terminal.until("Slowed down to 900.")
    terminal.until("[1] runbooks/a.md:12")
    terminal.type("a long one\r")
    terminal.until("running: slow_tool()")
    terminal.type("stop\r")
    terminal.until("settled in 4.2 ms")
    assert "[bold]well[/bold]" in terminal.text
    terminal.type("/quit\r")
    assert terminal.wait() == 0


def test_ctrl_c_asks_whether_to_halt(terminal: Terminal, server: Any) -> None:
    terminal.until("›")
    terminal.type("a long one\r")
    terminal.until("running: slow_tool()")
    terminal.type("\x03")
    terminal.until("A run is going on.")
    terminal.type("h\r")
    terminal.until("settled in 4.2 ms")
    terminal.until_asked()
    terminal.type("\x03")
    assert terminal.wait() == 0


def test_a_run_asks_about_its_approvals_at_a_terminal(
    at_terminal: Callable[..., Terminal], server: Any
) -> None:
    terminal = at_terminal("run", "operator", "deal with it")
    terminal.until("[a/e/r/d/h, empty: later]")
    terminal.type("e rpm=5\r")
    terminal.until("minimum of 600")
    terminal.type("e rpm=900\r")
    terminal.until("Slowed down to 900.")
    assert terminal.wait() == 0
    assert len(server.requests) == 1


def test_leaving_a_run_says_that_it_goes_on(at_terminal: Callable[..., Terminal]) -> None:
    terminal = at_terminal("run", "operator", "a long one")
    terminal.until("slow_tool()")
    terminal.process.send_signal(signal.SIGINT)
    terminal.until("r1-abc goes on.")
    assert terminal.wait() == exits.INTERRUPTED


def test_confirmations_at_a_terminal(at_terminal: Callable[..., Terminal], server: Any) -> None:
    terminal = at_terminal("halt", "--all")
    terminal.until("Halt everything?")
    terminal.type("n\r")
    assert terminal.wait() == exits.FAILED
    assert not server.latches
    terminal = at_terminal("halt", "--all")
    terminal.until("Halt everything?")
    terminal.type("y\r")
    terminal.until("settled in 4.2 ms")
    assert terminal.wait() == 0
