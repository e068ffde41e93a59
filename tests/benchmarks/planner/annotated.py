"""The annotated development set: which words ask for which call, over many domains.

``annotated/domains/*.json`` with ``annotated/cases/*.jsonl``, and ``annotated/short/*.txt`` in the notation of
``notation.py``. FORMAT.md says what a case holds. Here they become domains and cases of the common format, so that
``evaluate.py --set annotated`` plays them like the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.planner.notation import read_domains

FOLDER: Final = Path(__file__).parent / "annotated"
KEPT_BACK_SHARE: Final = 20
UNSEEN: Final = "unseen"
"""Kept back are every twentieth domain and those of ``short/unseen.txt``: the reader is trained on all others."""


@dataclass(frozen=True)
class AnnotatedDomain:
    """A domain with its cases, as they were written."""

    name: str
    context: str
    tools: list[dict[str, Any]]
    cases: list[dict[str, Any]]


def annotated_domains() -> Iterator[AnnotatedDomain]:
    """Every annotated domain, in a fixed order."""
    for path in sorted((FOLDER / "domains").glob("*.json")):
        domain = json.loads(path.read_text(encoding="utf-8"))
        lines = (FOLDER / "cases" / f"{path.stem}.jsonl").read_text(encoding="utf-8").splitlines()
        cases = [json.loads(line) for line in lines if line.strip()]
        yield AnnotatedDomain(path.stem, domain.get("context", ""), domain["tools"], cases)
    for path in sorted((FOLDER / "short").glob("*.txt")):
        for short in read_domains(path):
            yield AnnotatedDomain(short.name, short.context, short.tools, short.cases)


def kept_back() -> set[str]:
    """Names of the domains that the reader is not trained on."""
    unseen = {d.name for d in read_domains(FOLDER / "short" / f"{UNSEEN}.txt")}
    trained = [d.name for d in annotated_domains() if d.name not in unseen]
    return unseen | set(trained[3::KEPT_BACK_SHARE])


def common_domain(domain: AnnotatedDomain) -> dict[str, Any]:
    """The domain as FORMAT.md describes one."""
    tools = [
        {
            "name": t["name"],
            "description": t["description"],
            "effect": t["effect"],
            "parameters": {
                "type": "object",
                "properties": t["params"],
                "required": t.get("required", []),
                "additionalProperties": False,
            },
        }
        for t in domain.tools
    ]
    return {"domain": domain.name, "tools": tools, "context": domain.context}


def common_cases(domain: AnnotatedDomain) -> list[dict[str, Any]]:
    """The cases that can be played without results of readings: no conditions, and no steps of runbooks."""
    out = []
    for number, case in enumerate(domain.cases, 1):
        if case["k"] == "step" or any(c.get("if") or c.get("check") for c in case["calls"]):
            continue
        asks_back = case.get("missing") or case.get("either") or case["k"] in ("missing", "ambiguous")
        calls = [] if asks_back else [{"name": c["t"], "args": c["a"]} for c in case["calls"]]
        out.append(
            {
                "id": f"{domain.name}-{number:03d}",
                "domain": domain.name,
                "category": case["k"],
                "no_action": not calls,
                "messages": [*_history(case), {"role": "human", "content": case["m"]}],
                "expect": {"calls": calls} if calls else {"ask": True, "refuse": True, "ack": True},
            }
        )
    return out


def _history(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for number, (who, *said) in enumerate(case.get("h", ())):
        match who:
            case "human" | "ai":
                out.append({"role": who, "content": said[0]})
            case _:
                call = {"id": f"h{number}", "name": said[0], "args": said[1]}
                out.append({"role": "ai", "content": "", "tool_calls": [call]})
                out.append(
                    {
                        "role": "tool",
                        "content": '{"ok": true}',
                        "tool_call_id": call["id"],
                        "name": call["name"],
                    }
                )
    return out
