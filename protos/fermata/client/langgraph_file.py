"""``langgraph.json``, as LangGraph's own tools read it: graphs by name, dependencies, environment.

Variables of its ``env`` that look like secrets are not sent: they become references to the same variable on
the worker's machine, and a note says so.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from .agent_file import NAME_PATTERN, is_file_reference, read_text
from .errors import LocalError
from .secrecy import looks_secret

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph: the agent's ID, ``path.py:attribute`` inside the pack, and a sentence for people."""

    agent: str
    reference: str
    description: str


@dataclass(frozen=True, slots=True)
class LangGraphFile:
    """The file's content, checked.

    :param path: the file; its folder is what is packed.
    :param environment: plain variables.
    :param secrets: variable name to ``env:NAME``.
    :param notes: what the person who applies it should know.
    """

    path: Path
    graphs: tuple[Graph, ...]
    environment: dict[str, str]
    secrets: dict[str, str]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> LangGraphFile:
        """Read ``path``. :raises LocalError: AGENT_FILE_MISSING, AGENT_FILE_MALFORMED."""
        text = read_text(path)
        try:
            data = json.loads(text)
        except ValueError as failure:
            line = getattr(failure, "lineno", 1)
            raise _malformed(
                path, text, "", f"it is no JSON: {failure}", "Check commas and quotes.", line
            ) from None
        if not isinstance(data, dict) or not isinstance(data.get("graphs"), dict) or not data["graphs"]:
            raise _malformed(
                path, text, "graphs", "it names no graph", 'Write {"graphs": {"agent": "./agent.py:graph"}}.'
            )
        graphs = tuple(_graph(path, text, name, value) for name, value in data["graphs"].items())
        plain, secret, notes = _environment(path, text, data.get("env", {}))
        return cls(
            path,
            graphs,
            plain,
            secret,
            (*_dependency_notes(path, text, data.get("dependencies", [])), *notes),
        )


def _graph(path: Path, text: str, name: str, value: object) -> Graph:
    key = f"graphs.{name}"
    description = ""
    if isinstance(value, dict):
        description = str(value.get("description", ""))
        value = value.get("path")
    if not isinstance(value, str) or not is_file_reference(value):
        raise _malformed(
            path, text, key, f"{value!r} names no Python graph", "Write ./path/to/file.py:attribute."
        )
    agent = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not re.fullmatch(NAME_PATTERN, agent):
        raise _malformed(
            path,
            text,
            key,
            "it gives no agent name",
            "Use at most 40 letters, digits and hyphens, a letter first.",
        )
    folder = path.parent.resolve()
    relative, attribute = value.rsplit(":", 1)
    target = (folder / relative).resolve()
    if not target.is_file() or not target.is_relative_to(folder):
        raise _malformed(
            path, text, key, f"there is no file {target} in its folder", "Paths are relative to the file."
        )
    return Graph(agent, f"{target.relative_to(folder).as_posix()}:{attribute}", description)


def _environment(path: Path, text: str, env: object) -> tuple[dict[str, str], dict[str, str], list[str]]:
    if isinstance(env, str):
        file = path.parent / env
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise _malformed(
                path, text, "env", f"{file} can't be read", "Name a file beside it, or remove env."
            ) from None
        found = [
            _ASSIGNMENT.fullmatch(line)
            for line in lines
            if line.strip() and not line.lstrip().startswith("#")
        ]
        values = {match[1]: match[2].strip("\"'") for match in found if match}
    elif isinstance(env, dict) and all(isinstance(value, str | int | float) for value in env.values()):
        values = {str(name): str(value) for name, value in env.items()}
    else:
        raise _malformed(
            path, text, "env", "it is neither a file nor a mapping", 'Write "env": ".env" or an object.'
        )
    plain = {name: value for name, value in values.items() if not looks_secret(name, value)}
    secret = {name: f"env:{name}" for name in values if name not in plain}
    notes = [f"{name} is not sent: set it in the environment of the workers." for name in secret]
    return plain, secret, notes


def _dependency_notes(path: Path, text: str, dependencies: object) -> list[str]:
    if not isinstance(dependencies, list) or not all(isinstance(item, str) for item in dependencies):
        raise _malformed(path, text, "dependencies", "it is no list of texts", 'Write "dependencies": ["."].')
    notes = []
    folder = path.parent.resolve()
    for item in dependencies:
        if not item.startswith("."):
            notes.append(f"{item} must be installed where the workers run.")
        elif not (folder / item).resolve().is_relative_to(folder):
            notes.append(f"{item} lies outside of {folder} and is not packed.")
    return notes


def _malformed(path: Path, text: str, key: str, what: str, mend: str, line: int | None = None) -> LocalError:
    if line is None:
        needle = json.dumps(key.rsplit(".", 1)[-1])
        line = text.count("\n", 0, text.find(needle)) + 1 if needle in text else 1
    return LocalError(
        f"{path}:{line}: {key + ': ' if key else ''}{what}. {mend}",
        reason="AGENT_FILE_MALFORMED",
        metadata={"file": str(path), "line": str(line), "key": key},
    )
