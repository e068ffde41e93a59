"""Record the pictures of the README: ``python docs/record.py [demo] [chat]``.

Both are what a terminal showed: the programs run at a pseudo-terminal, real keys are sent to the chat, and a terminal
emulator's screen is drawn as SVG. Of the demo's lines those are left out that only repeat what another one says
(``KEPT``), and long ones are cut at the right edge. A recording fails where the demo fails.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

import pyte

from fermata.agents.factory.client import PLANT_URL_VARIABLE
from fermata.agents.factory.demo.processes import start_plane, start_plant, stop

HERE = Path(__file__).parent
FACTORY = HERE.parent / "agents" / "fermata" / "agents" / "factory"
BIN = Path(sys.executable).parent
COLUMNS = 116
DEMO_SECONDS = 300.0
ANSWER_SECONDS = 60.0
KEY_SECONDS = 0.02

KEPT = re.compile(
    r"^\S.*─$|^ *\d+\.\d+s [·»✓✗]|^ *\d+\.\d+s +(approval_requested|step_started|halting|halted|lease_lost|step_refused)\b"
)
"""Lines of the demo that the picture shows: scenes, what is done, said and checked, and the events that matter most."""

# -- drawing

CELL_WIDTH, CELL_HEIGHT, FONT_SIZE = 8.4, 19.0, 14
MARGIN, TITLE_HEIGHT = 16.0, 34.0
BACKGROUND, FOREGROUND, DIMMED = "#15181e", "#d5d9e0", "#8b93a1"
COLORS = {
    "black": "#4b5261", "red": "#ef6b73", "green": "#8fc97a", "brown": "#e2b865", "blue": "#6cb2f2",
    "magenta": "#c98be0", "cyan": "#5cc4cf", "white": "#d5d9e0", "brightblack": "#8b93a1", "brightred": "#ff8a91",
    "brightgreen": "#aee39a", "brightbrown": "#f4d58a", "brightblue": "#93c9fb", "brightmagenta": "#dda8ef",
    "brightcyan": "#84dfe8", "brightwhite": "#ffffff",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """One character as a terminal shows it."""

    text: str
    color: str = FOREGROUND
    background: str = ""
    bold: bool = False
    italic: bool = False


Row = list[Cell]


def svg(rows: Sequence[Row], title: str) -> str:
    """Rows of cells as a picture of a terminal window; it needs no font but the reader's own monospace."""
    width = COLUMNS * CELL_WIDTH + 2 * MARGIN
    height = len(rows) * CELL_HEIGHT + TITLE_HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="10" fill="{BACKGROUND}"/>',
        *(
            f'<circle cx="{MARGIN + 6 + 20 * i:g}" cy="{TITLE_HEIGHT / 2 + 3:g}" r="6" fill="{color}"/>'
            for i, color in enumerate(("#ef6b73", "#e2b865", "#8fc97a"))
        ),
        f'<text x="{width / 2:.0f}" y="{TITLE_HEIGHT / 2 + 8:g}" fill="{DIMMED}" text-anchor="middle" '
        f'font-family="sans-serif" font-size="13">{escape(title)}</text>',
        f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" '
        f'font-size="{FONT_SIZE}" xml:space="preserve">',
    ]
    for number, row in enumerate(rows):
        top = TITLE_HEIGHT + MARGIN + number * CELL_HEIGHT
        parts += _row(row, top)
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _row(row: Row, top: float) -> Iterator[str]:
    column = 0
    for _, group in groupby(row, key=lambda cell: (cell.color, cell.background, cell.bold, cell.italic)):
        cells = list(group)
        text = "".join(cell.text for cell in cells)
        x, wide = MARGIN + column * CELL_WIDTH, len(cells) * CELL_WIDTH
        column += len(cells)
        first = cells[0]
        if first.background:
            yield (
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{CELL_HEIGHT:g}" '
                f'fill="{first.background}"/>'
            )
        if text.strip():
            style = (' font-weight="bold"' if first.bold else "") + (
                ' font-style="italic"' if first.italic else ""
            )
            # The length keeps columns in line whatever the reader's font is.
            yield (
                f'<text x="{x:.1f}" y="{top + CELL_HEIGHT * 0.76:.1f}" fill="{first.color}"{style} '
                f'textLength="{wide:.1f}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
            )


# -- a terminal


class Terminal:
    """A program at a pseudo-terminal.

    :param lines: as many as the whole session takes: what scrolled away would not be drawn.
    """

    def __init__(
        self, command: Sequence[str], lines: int, columns: int, environment: Mapping[str, str]
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._here = here
        self._process = subprocess.Popen(  # noqa: S603 - our own programs
            command, stdin=there, stdout=there, stderr=there, start_new_session=True,
            env={**os.environ, **environment, "TERM": "xterm-256color", "COLORTERM": ""},
        )  # fmt: skip
        os.close(there)

    def type(self, text: str) -> None:
        """Press keys, one after another."""
        for key in text:
            os.write(self._here, key.encode())
            self._read(KEY_SECONDS)

    def until(self, pattern: str, seconds: float) -> None:
        """Show what comes until the screen has ``pattern``.

        :raises TimeoutError: it does not come.
        """
        deadline = time.monotonic() + seconds
        while not re.search(pattern, "\n".join(self._screen.display)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{pattern!r} did not come:\n" + "\n".join(self._screen.display).rstrip())
            self._read(0.1)

    def settle(self, seconds: float = 1.0) -> None:
        """Show what comes until nothing has come for a while."""
        while self._read(seconds):
            pass

    def end(self, seconds: float) -> int:
        """Wait for the program's end; its exit code."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            self._read(0.2)
        self.settle(0.2)
        return self._process.wait(1)

    def rows(self) -> list[Row]:
        """What the screen shows, without empty lines at its end."""
        rows = [
            [_cell(self._screen.buffer[line][column]) for column in range(self._screen.columns)]
            for line in range(self._screen.lines)
        ]
        while rows and not _text(rows[-1]):
            rows.pop()
        return rows

    def close(self) -> None:
        """End the program, where it has not ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
        os.close(self._here)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._here], [], [], seconds)
        if not ready:
            return False
        try:
            read = os.read(self._here, 65536)
        except OSError:  # the program has closed its end
            return False
        self._stream.feed(read)
        # Programs that draw prompts ask the terminal where its cursor is, and wait for the answer.
        if b"\x1b[6n" in read:
            cursor = self._screen.cursor
            os.write(self._here, f"\x1b[{cursor.y + 1};{cursor.x + 1}R".encode())
        return bool(read)


def _cell(char: pyte.screens.Char) -> Cell:
    color, background = _color(char.fg, FOREGROUND), _color(char.bg, "")
    if char.reverse:
        color, background = background or BACKGROUND, color
    return Cell(char.data, color, background, char.bold, char.italics)


def _color(name: str, default: str) -> str:
    if name == "default":
        return default
    return COLORS.get(name) or f"#{name}"


def _text(row: Row) -> str:
    return "".join(cell.text for cell in row).rstrip()


def _cut(row: Row) -> Row:
    if len(_text(row)) <= COLUMNS:
        return row[:COLUMNS]
    return [*row[: COLUMNS - 1], Cell("…", DIMMED)]


# -- what is recorded


def demo() -> list[Row]:
    """The whole demo, played without a person."""
    # As wide as its longest line, so that nothing wraps; as high as all of them.
    command = [sys.executable, "-m", "fermata.agents.factory.demo", "--no-chat"]
    terminal = Terminal(command, lines=400, columns=400, environment={})
    try:
        code = terminal.end(DEMO_SECONDS)
        rows = terminal.rows()
    finally:
        terminal.close()
    if code:
        raise SystemExit(f"the demo ended with {code}:\n" + "\n".join(map(_text, rows[-20:])))
    shown: list[Row] = [_prompt("make demo")]
    for row in rows:
        text = _text(row)
        if KEPT.search(text):
            if text.endswith("─"):
                title = re.split(r" ─", text)[0]
                shown += [[], [*row[: len(title) + 1], *(Cell("─", COLORS["green"]) for _ in range(40))]]
            else:
                shown.append(_cut(row))
    return shown


def chat() -> list[Row]:
    """A conversation: a request, the approval's card, an edit, and what came of it."""
    with tempfile.TemporaryDirectory(prefix="fermata-") as folder, _factory(Path(folder)) as environment:
        terminal = Terminal([str(BIN / "fermata"), "chat"], 150, COLUMNS, environment)
        try:
            terminal.until("›", ANSWER_SECONDS)
            terminal.settle()
            terminal.type("line 3 vibrates badly, deal with it\r")
            terminal.until(r"a approve", ANSWER_SECONDS)
            terminal.settle()
            terminal.type("e rpm=1100\r")
            terminal.until(r"notify_person\(", ANSWER_SECONDS)
            terminal.until(r"\[\d\] runbooks/", ANSWER_SECONDS)
            terminal.settle()
            rows = terminal.rows()
            terminal.type("/quit\r")
            terminal.end(10)
        finally:
            terminal.close()
    while rows and (not _text(rows[-1]) or _text(rows[-1]).startswith(("›", "/help"))):
        rows.pop()
    return [_prompt("fermata chat"), *rows]


def _prompt(command: str) -> Row:
    return [Cell("$", COLORS["green"], bold=True), Cell(" "), *(Cell(key) for key in command)]


@contextmanager
def _factory(data: Path) -> Iterator[Mapping[str, str]]:
    """The plant and a control plane with the factory's agent; yields the environment of its clients."""
    with asyncio.Runner() as runner:
        plant = runner.run(start_plant())
        plane = runner.run(start_plane(data / "data"))
        environment = {"FERMATA_DATA": str(data / "data"), PLANT_URL_VARIABLE: plant.url}
        try:
            for arguments in (
                ["ingest", "--collection=factory", str(FACTORY / "runbooks"), str(FACTORY / "manuals")],
                ["agents", "apply", str(FACTORY / "agent.yaml")],
            ):
                subprocess.run(  # noqa: S603 - our own program
                    [str(BIN / "fermata"), *arguments],
                    env={**os.environ, **environment},
                    stdout=subprocess.DEVNULL,
                    check=True,
                )
            yield environment
        finally:
            runner.run(stop(plane.process))
            runner.run(stop(plant.process))


def main(wanted: Sequence[str]) -> int:
    """Record what is named, or both."""
    for name, record in (("demo", demo), ("chat", chat)):
        if name in wanted or not wanted:
            (HERE / f"{name}.svg").write_text(svg(record(), _TITLES[name]), encoding="utf-8")
            print(f"docs/{name}.svg recorded")
    return 0


_TITLES = {"demo": "make demo", "chat": "fermata chat"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
