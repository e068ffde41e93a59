"""``agent.yaml``: what an agent is, in one file that people write.

::

    name: operator graph: ./agent.py:graph          # or installed.module:attribute folder: .
    # packed where the graph or a tool is a file in it, or where this is given models: {planner:
    fermata:planner} tools: [plant.tools:set_speed] effects: {set_speed: {effect: UNSAFE, risk: high}}
    policy: policy.yaml collections: [manuals] limits: {wall_seconds: 600, super_steps: 50, tool_seconds:
    30, tool_result_bytes: 65536} env: {PLANT_URL: "${PLANT_URL}"} secrets: {OPENAI_API_KEY:
    env:OPENAI_API_KEY} instructions: Be brief. durability: sync

Every fault is reported with file, line and key, and says how to mend it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import LocalError
from .secrecy import is_reference, looks_secret

MAX_FILE_BYTES = 1024 * 1024
NAME_PATTERN = r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_FILE_ATTRIBUTE = re.compile(r"[^:\0]+\.py:[A-Za-z_]\w*")

Location = tuple[Hashable, ...]


class Effect(BaseModel):
    """What a tool does to the world, over what the tool itself declares."""

    model_config = ConfigDict(extra="forbid")
    effect: Literal["READ", "IDEMPOTENT", "UNSAFE"] | None = None
    risk: Literal["low", "medium", "high"] | None = None


class Limits(BaseModel):
    """Bounds of each run, and of how many there are at once; what is left out is the server's default."""

    model_config = ConfigDict(extra="forbid")
    wall_seconds: float | None = Field(default=None, gt=0)
    super_steps: int | None = Field(default=None, gt=0)
    tool_seconds: float | None = Field(default=None, gt=0)
    tool_result_bytes: int | None = Field(default=None, gt=0)
    concurrent_runs: int | None = Field(default=None, gt=0)
    tool_calls: int | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    repeated_calls: int | None = Field(default=None, gt=0)
    on_exceeded: Literal["ask", "halt"] | None = None
    drain_seconds: float | None = Field(default=None, gt=0)
    cancel_seconds: float | None = Field(default=None, gt=0)


class AgentFile(BaseModel):
    """The file's content, checked."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    graph: str
    description: str = ""
    folder: str | None = None
    models: dict[str, str] = {}
    tools: list[str] = []
    effects: dict[str, Effect] = {}
    policy: str | None = None
    collections: list[str] = []
    limits: Limits = Limits()
    env: dict[str, str | int | float | bool] = {}
    secrets: dict[str, str] = {}
    instructions: str = ""
    durability: Literal["sync", "async", "exit"] = "sync"

    @field_validator("effects", mode="before")
    @classmethod
    def _short_effects(cls, effects: object) -> object:
        """``set_speed: READ`` is short for ``set_speed: {effect: READ}``."""
        if not isinstance(effects, dict):
            return effects
        return {
            tool: {"effect": value} if isinstance(value, str) else value for tool, value in effects.items()
        }


class AgentText:
    """A parsed agent file: its content, and where in the file each key stands.

    :param path: the file.
    :raises LocalError: AGENT_FILE_MISSING, AGENT_FILE_MALFORMED.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = read_text(path)
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            data = yaml.safe_load(text)
        except yaml.YAMLError as failure:
            mark = getattr(failure, "problem_mark", None)
            problem = getattr(failure, "problem", None) or "it is no YAML"
            raise self.malformed(
                (), f"{problem}", "Check indentation, colons and quotes.", line=mark.line + 1 if mark else 1
            ) from failure
        self._lines: dict[Location, int] = {}
        for location, line, again in _locate(node, ()):
            if again:
                raise self.malformed(location, "the key stands there twice", "Remove one of them.", line=line)
            self._lines[location] = line
        if not isinstance(data, dict):
            raise self.malformed((), "it should be a mapping of keys", f"Known keys: {known_keys()}.")
        try:
            self.content = AgentFile.model_validate(data)
        except ValidationError as invalid:
            first = invalid.errors(include_input=False, include_url=False)[0]
            location = self._real(first["loc"])
            raise self.malformed(
                location, _fault(first["type"], first["msg"]), _mend(location, first["type"])
            ) from None

    def malformed(self, location: Location, what: str, mend: str, *, line: int | None = None) -> LocalError:
        """The error for the key at ``location``."""
        key = ".".join(str(part) for part in location)
        number = line if line is not None else self._line(location)
        where = f"{self.path}:{number}"
        return LocalError(
            f"{where}: {key + ': ' if key else ''}{what}. {mend}",
            reason="AGENT_FILE_MALFORMED",
            metadata={"file": str(self.path), "line": str(number), "key": key},
        )

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """``env`` with every ``${NAME}`` replaced. :raises LocalError: for a missing variable, or a
        secret."""
        expanded = {}
        for name, value in self.content.env.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            for variable in _VARIABLE.findall(text):
                if variable not in variables:
                    raise self.malformed(
                        ("env", name), f"the variable {variable} is not set", f"Set it: export {variable}=…"
                    )
            text = _VARIABLE.sub(lambda found: variables[found[1]], text)
            if looks_secret(name, text):
                raise self.malformed(
                    ("env", name),
                    "it looks like a secret, and env is stored in plain text",
                    f"Write it as a reference: secrets: {{{name}: env:{name}}}.",
                )
            expanded[name] = text
        return expanded

    def secrets(self) -> dict[str, str]:
        """``secrets``, which hold references only. :raises LocalError: for a literal; its value is not
        shown."""
        for name, reference in self.content.secrets.items():
            if not is_reference(reference):
                raise self.malformed(
                    ("secrets", name),
                    "it is no reference, and a secret itself must not stand here",
                    f"Write {name}: env:{name}, or {name}: file:/path/on/the/worker.",
                )
        return dict(self.content.secrets)

    def check_reference(self, location: Location, value: str) -> str:
        """``value`` if it is ``module:attribute`` or ``path.py:attribute``."""
        if not (_FILE_ATTRIBUTE.fullmatch(value) or _ATTRIBUTE.fullmatch(value)):
            raise self.malformed(
                location,
                f"{value!r} names no object",
                "Write module:attribute, or ./path/to/file.py:attribute.",
            )
        return value

    def _line(self, location: Location) -> int:
        while location and location not in self._lines:
            location = location[:-1]
        return self._lines.get(location, 1)

    def _real(self, location: tuple[int | str, ...]) -> Location:
        """pydantic names union branches as well; only what stands in the file is of use."""
        for length in range(len(location), 0, -1):
            if location[:length] in self._lines:
                return location[:length]
        return location[:1]


def is_file_reference(reference: str) -> bool:
    """True where ``reference`` is ``path.py:attribute``, not ``module:attribute``."""
    return _FILE_ATTRIBUTE.fullmatch(reference) is not None


def known_keys() -> str:
    """The keys of an agent file, for messages."""
    return ", ".join(AgentFile.model_fields)


def read_text(path: Path) -> str:
    """The file's text. :raises LocalError: AGENT_FILE_MISSING, AGENT_FILE_MALFORMED where it is no UTF-8 or
    far too large."""
    try:
        content = path.read_bytes()
    except OSError as failure:
        raise LocalError(
            f"{path} can't be read: {failure.strerror}.",
            reason="AGENT_FILE_MISSING",
            metadata={"file": str(path)},
        ) from failure
    if len(content) > MAX_FILE_BYTES:
        raise LocalError(
            f"{path}:1: it is larger than {MAX_FILE_BYTES // 2**20} MiB. Keep data in files of their own.",
            reason="AGENT_FILE_MALFORMED",
            metadata={"file": str(path), "line": "1", "key": ""},
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as failure:
        line = content.count(b"\n", 0, failure.start) + 1
        raise LocalError(
            f"{path}:{line}: it is no UTF-8 text. Save it as UTF-8.",
            reason="AGENT_FILE_MALFORMED",
            metadata={"file": str(path), "line": str(line), "key": ""},
        ) from None


def _locate(node: yaml.Node | None, location: Location) -> Iterator[tuple[Location, int, bool]]:
    """Each key's location, its line from 1, and whether it was there before."""
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            here = (*location, key.value)
            yield here, key.start_mark.line + 1, key.value in seen
            seen.add(key.value)
            yield from _locate(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            here = (*location, index)
            yield here, item.start_mark.line + 1, False
            yield from _locate(item, here)


_MENDS: dict[str, Any] = {
    "name": "Use a to z, 0 to 9 and hyphens, at most 40 characters, a letter first.",
    "graph": "Write graph: module:attribute, or graph: ./path/to/file.py:attribute.",
    "effects": "Write TOOL: {effect: READ | IDEMPOTENT | UNSAFE, risk: low | medium | high}.",
    "limits": "Known limits: "
    + ", ".join(Limits.model_fields)
    + "; numbers above 0, but for on_exceeded: ask or halt.",
    "models": "Write NAME: PROVIDER:MODEL, such as planner: fermata:planner.",
    "tools": "Write a list of module:attribute.",
    "collections": "Write a list of names.",
    "env": "Write NAME: value.",
    "secrets": "Write NAME: env:NAME.",
    "durability": "Write sync, or where every tool is READ async or exit.",
}


def _fault(kind: str, message: str) -> str:
    """pydantic's words, where there are none that say it better."""
    plain = {
        "extra_forbidden": "there is no such key",
        "missing": "it is missing",
        "string_pattern_mismatch": "it is no name",
    }
    return plain.get(kind, message[:1].lower() + message[1:])


def _mend(location: Location, kind: str) -> str:
    if kind == "extra_forbidden" and len(location) == 1:
        return f"Known keys: {known_keys()}."
    return str(_MENDS.get(str(location[0]) if location else "", "Write a text."))
