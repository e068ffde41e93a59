"""The examples in README and docs: every fence, with what its first line says that it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

KINDS = frozenset(
    {
        "sh",
        "text",
        "mermaid",
        "toml fermata.toml",
        "yaml agent.yaml",
        "yaml policy.yaml",
        "json langgraph.json",
        "markdown runbook",
        "python stock.py",
        "python greeter.py",
        "python tool",
        "python run",
    }
)
"""All that an example may be, and each is tested by its kind (text and mermaid are drawings)."""


@dataclass(frozen=True, slots=True)
class Fence:
    """One example. ``line`` counts from 1 and is that of its first line of code."""

    page: Path
    line: int
    kind: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def fences(kind: str = "") -> list[Fence]:
    """The examples of a kind, or all of them, in order."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start(2)) + 1
            found.append(Fence(page, line, match[1].strip(), match[2]))
    return [fence for fence in found if kind in ("", fence.kind)]


def the_project(folder: Path) -> Path:
    """Write README's own agent, its three files, into a folder."""
    for name in ("stock.py", "agent.yaml", "policy.yaml"):
        (fence,) = [
            fence
            for fence in fences()
            if fence.page.name == "README.md" and fence.kind.endswith(name) and fence.kind != name
        ]
        (folder / name).write_text(fence.code, encoding="utf-8")
    return folder
