"""The message history as data: system text, passages, and turns with their calls and results.

Everything that a plan rests on comes from here, so the same history gives the same plan. Text of passages and results
is kept apart from what people said: it is evidence, never a request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

_PASSAGE: Final = re.compile(
    r"<passage\s+(?P<attributes>(?:[^\">]|\"[^\"]*\")*)>\s*\n?(?P<text>.*?)\n?\s*</passage>", re.DOTALL
)
_ATTRIBUTE: Final = re.compile(r"([\w-]+)\s*=\s*\"([^\"]*)\"")
#: What LangChain's human-in-the-loop middleware writes in front of the result of a call that a person has edited.
_EXECUTED: Final = re.compile(r"Executed instead: (?P<name>[\w.-]+) with arguments\s+(?=\{)")
_REJECTED: Final = re.compile(
    r"^\s*(?:\W*)(?:rejected|denied|declined|refused|user rejected|not approved)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved passage. `trusted` says that it came by a system message, not out of a tool's result."""

    id: str
    source: str
    heading: str
    line: int
    kind: str
    text: str
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as it stands in the history (a person may have edited its arguments)."""

    id: str
    name: str
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What came back for a call. `data` is the parsed JSON, or the text itself."""

    call: Call
    text: str
    data: Any
    failed: bool = False
    rejected: bool = False

    @property
    def ok(self) -> bool:
        return not self.failed and not self.rejected


@dataclass(slots=True)
class Turn:
    """A person's message and what followed it; `continued` counts later messages that were joined to it."""

    human: str
    calls: list[Call] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)
    said: str = ""
    continued: int = 0

    def result_of(self, call: Call) -> Result | None:
        return self.results.get(call.id)


@dataclass(slots=True)
class Conversation:
    """A whole history. `context` is the system text without passages."""

    context: str
    passages: list[Passage]
    turns: list[Turn]

    def before(self, turn: int) -> Conversation:
        """The history up to and with turn number `turn`."""
        return Conversation(self.context, self.passages, self.turns[: turn + 1])


def read_conversation(messages: Sequence[BaseMessage]) -> Conversation:
    """Read a LangChain message history."""
    context: list[str] = []
    passages: dict[str, Passage] = {}
    turns: list[Turn] = []
    for message in messages:
        text = text_of(message)
        if isinstance(message, SystemMessage):
            found, rest = read_passages(text, trusted=True)
            passages.update({p.id: p for p in found})
            if rest.strip():
                context.append(rest.strip())
        elif isinstance(message, HumanMessage):
            turns.append(Turn(text.strip()))
        elif isinstance(message, AIMessage):
            if not turns:
                turns.append(Turn(""))
            turns[-1].calls.extend(Call(c["id"] or "", c["name"], c["args"]) for c in message.tool_calls)
            turns[-1].said = text
        elif isinstance(message, ToolMessage):
            if not turns:
                turns.append(Turn(""))
            found, rest = read_passages(text, trusted=False)
            for p in found:
                passages.setdefault(p.id, p)
            _add_result(turns, message, rest if found else text)
    return Conversation("\n".join(context), list(passages.values()), turns)


def text_of(message: BaseMessage) -> str:
    """The text of a message, whatever its content blocks are."""
    content = message.content
    if isinstance(content, str):
        return content
    return "\n".join(
        b if isinstance(b, str) else str(b.get("text", ""))
        for b in content
        if isinstance(b, str) or b.get("type", "text") == "text"
    )


def read_passages(text: str, *, trusted: bool) -> tuple[list[Passage], str]:
    """(passages, the text around them)."""
    out: list[Passage] = []
    for m in _PASSAGE.finditer(text):
        a = dict(_ATTRIBUTE.findall(m["attributes"]))
        line = a.get("line", "0")
        out.append(
            Passage(
                a.get("id", str(len(out) + 1)), a.get("source", ""), a.get("heading", ""),
                int(line) if line.isdigit() else 0, a.get("kind", ""), m["text"], trusted,
            )
        )  # fmt: skip
    return out, _PASSAGE.sub("", text)


def parse_data(text: str) -> Any:
    """JSON of a result, or a mapping of its `key: value` lines, or the text."""
    stripped = text.strip()
    if stripped[:1] in '{["' or re.fullmatch(r"-?\d+(?:\.\d+)?|true|false|null", stripped):
        try:
            return json.loads(stripped)
        except ValueError:
            pass
    pairs = [
        re.match(r"^\s*[-*]?\s*([A-Za-z][\w /%()-]{0,40}?)\s*[:=]\s*(\S.*)$", line)
        for line in re.split(r"\n|;|,\s(?=[A-Za-z][\w ]{0,30}[:=])", stripped)
        if line.strip()
    ]
    if pairs and all(pairs):
        return {m[1]: _scalar(m[2]) for m in pairs if m}
    return text


def _scalar(text: str) -> Any:
    text = text.strip()
    if text.lower() in ("true", "yes"):
        return True
    if text.lower() in ("false", "no"):
        return False
    try:
        return float(text) if re.fullmatch(r"-?\d+\.\d+", text) else int(text)
    except ValueError:
        return text


def _as_executed(call: Call, edited: re.Match[str], text: str) -> tuple[Call, str]:
    """(the call as it was really made, its own result) of a result that says that a person had edited the call."""
    decoder = json.JSONDecoder()
    try:
        args, end = decoder.raw_decode(text, edited.end())
    except ValueError:
        return call, text
    response = text[end:].partition("Tool response:")[2].strip()
    return Call(call.id, edited["name"], args if isinstance(args, dict) else call.args), response or text


def _add_result(turns: list[Turn], message: ToolMessage, text: str) -> None:
    for turn in reversed(turns):
        for call in turn.calls:
            if call.id == message.tool_call_id:
                edited = _EXECUTED.search(text)
                if edited:
                    call, text = _as_executed(call, edited, text)
                data = parse_data(text)
                if isinstance(data, Mapping) and str(data.get("error", "")).lower() in ("rejected", "denied"):
                    said = f"Rejected: {data.get('reason') or data.get('message') or ''}"
                    turn.results[call.id] = Result(call, said, data, rejected=True)
                    return
                error = message.status == "error"
                rejected = bool(_REJECTED.match(text)) and (error or len(text) < 400)
                turn.results[call.id] = Result(call, text, parse_data(text), error and not rejected, rejected)
                return
