"""From files to what ``agents.apply`` takes.

``read`` takes an ``agent.yaml``, a ``langgraph.json``, or a folder with either. The graph's code is not
imported and not changed: it is packed as it is, and a run host on the server's side loads it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fermata.v1 import agent_pb2, run_pb2

from .agent_file import AgentText, is_file_reference
from .errors import LocalError
from .langgraph_file import LangGraphFile
from .pack import digest_of, pack_folder

FILE_NAMES = ("agent.yaml", "agent.yml", "langgraph.json")

_ON_EXCEEDED = {
    None: agent_pb2.ON_EXCEEDED_UNSPECIFIED,
    "ask": agent_pb2.ON_EXCEEDED_ASK,
    "halt": agent_pb2.ON_EXCEEDED_HALT,
}
_DURABILITIES = {
    "sync": agent_pb2.DURABILITY_UNSPECIFIED,
    "async": agent_pb2.DURABILITY_ASYNC,
    "exit": agent_pb2.DURABILITY_EXIT,
}

_EFFECTS = {
    None: run_pb2.EFFECT_CLASS_UNSPECIFIED,
    "READ": run_pb2.EFFECT_CLASS_READ,
    "IDEMPOTENT": run_pb2.EFFECT_CLASS_IDEMPOTENT,
    "UNSAFE": run_pb2.EFFECT_CLASS_UNSAFE,
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """One agent, ready to be applied.

    :param name: its ID.
    :param spec: its content.
    :param pack: its folder as a zip file; empty where nothing of it is needed.
    :param notes: what the person who applies it should know.
    """

    name: str
    spec: agent_pb2.AgentSpec
    pack: bytes = field(default=b"", repr=False)
    notes: tuple[str, ...] = ()


def read(path: Path, environment: Mapping[str, str] | None = None) -> list[Bundle]:
    """The agents that ``path`` describes: one for an ``agent.yaml``, one per graph for a ``langgraph.json``.

    :param environment: what ``${NAME}`` is looked up in; ``os.environ`` where None.
    :raises LocalError: AGENT_FILE_MISSING, AGENT_FILE_MALFORMED (naming file, line, key), PACK_TOO_LARGE,
        PACK_LINK.
    """
    variables = os.environ if environment is None else environment
    if path.is_dir():
        found = [path / name for name in FILE_NAMES if (path / name).is_file()]
        if not found:
            raise LocalError(
                f"The folder {path} holds none of {', '.join(FILE_NAMES)}.",
                reason="AGENT_FILE_MISSING",
                metadata={"file": str(path)},
            )
        path = found[0]
    if path.suffix == ".json":
        return _from_langgraph(LangGraphFile.read(path))
    return [_from_agent_file(AgentText(path), variables)]


def _from_agent_file(text: AgentText, variables: Mapping[str, str]) -> Bundle:
    content = text.content
    base = text.path.parent
    folder = (base / (content.folder or ".")).resolve()
    if not folder.is_dir():
        raise text.malformed(("folder",), f"there is no folder {folder}", "Name one beside the agent file.")
    references = [
        (("graph",), content.graph),
        *((("tools", i), tool) for i, tool in enumerate(content.tools)),
    ]
    placed = [_place(text, location, reference, base, folder) for location, reference in references]
    packed = content.folder is not None or any(is_file_reference(reference) for _, reference in references)
    pack = pack_folder(folder) if packed else b""
    policy = ""
    if content.policy is not None:
        try:
            policy = (base / content.policy).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            raise text.malformed(
                ("policy",),
                f"{base / content.policy} can't be read",
                "Name a policy file beside the agent file.",
            ) from failure
    limits = agent_pb2.RunLimits(
        super_steps=content.limits.super_steps or 0,
        tool_result_bytes=content.limits.tool_result_bytes or 0,
        concurrent_runs=content.limits.concurrent_runs or 0,
        tool_calls=content.limits.tool_calls or 0,
        tokens=content.limits.tokens or 0,
        repeated_calls=content.limits.repeated_calls or 0,
        on_exceeded=_ON_EXCEEDED[content.limits.on_exceeded],
    )
    for duration, seconds in (
        (limits.wall_time, content.limits.wall_seconds),
        (limits.tool_time, content.limits.tool_seconds),
        (limits.drain_time, content.limits.drain_seconds),
        (limits.cancel_time, content.limits.cancel_seconds),
    ):
        if seconds is not None:
            duration.FromNanoseconds(round(seconds * 1e9))
    spec = agent_pb2.AgentSpec(
        graph=placed[0],
        pack_digest=digest_of(pack) if pack else "",
        models=content.models,
        tools=placed[1:],
        tool_declarations={
            tool: agent_pb2.ToolDeclaration(effect=_EFFECTS[said.effect], risk=said.risk or "")
            for tool, said in content.effects.items()
        },
        policy=policy,
        collections=content.collections,
        limits=limits,
        environment=text.environment(variables),
        secrets=text.secrets(),
        instructions=content.instructions,
        description=content.description,
        durability=_DURABILITIES[content.durability],
    )
    return Bundle(content.name, spec, pack)


def _place(text: AgentText, location: tuple[str | int, ...], reference: str, base: Path, folder: Path) -> str:
    """The reference as a host sees it: a file's path is relative to the pack."""
    text.check_reference(location, reference)
    if not is_file_reference(reference):
        return reference
    path, attribute = reference.rsplit(":", 1)
    target = (base / path).resolve()
    if not target.is_file():
        raise text.malformed(location, f"there is no file {target}", "Paths are relative to the agent file.")
    if not target.is_relative_to(folder):
        raise text.malformed(
            location,
            f"{target} lies outside of the folder {folder}",
            "Name a folder that holds it: folder: PATH.",
        )
    return f"{target.relative_to(folder).as_posix()}:{attribute}"


def _from_langgraph(file: LangGraphFile) -> list[Bundle]:
    pack = pack_folder(file.path.parent)
    return [
        Bundle(
            graph.agent,
            agent_pb2.AgentSpec(
                graph=graph.reference,
                pack_digest=digest_of(pack),
                environment=file.environment,
                secrets=file.secrets,
                description=graph.description,
            ),
            pack,
            file.notes,
        )
        for graph in file.graphs
    ]
