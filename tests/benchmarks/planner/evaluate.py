"""Play the planner's evaluation cases and print the figures.

Run: ``python tests/benchmarks/planner/evaluate.py [--set dev|dev2|annotated|kept-back|heldout] [--domains A,B] [--json]
[--failures]``. The format of the data
and the rules of comparison are in FORMAT.md beside this file. ``--failures`` prints cases and is refused for the held-out
set: what one has seen, one tunes on.
"""

# ruff: noqa: E501 - a step or a message is kept as one line

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import Runnable

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.benchmarks.planner.annotated import (
    AnnotatedDomain,
    annotated_domains,
    common_cases,
    common_domain,
    kept_back,
)

HERE: Final = Path(__file__).parent
MAX_TURNS: Final = 6
REFUSING: Final = re.compile(
    r"\b(?:can't|cannot|can not|won't|will not|none of my tools|no tool|not able|unable|must be|nothing about|have done nothing)\b",
    re.IGNORECASE,
)


@dataclass
class Outcome:
    """What the planner did in a case."""

    case: Mapping[str, Any]
    calls: list[dict[str, Any]]
    text: str
    names_right: bool = False
    args_right: bool = False
    false_action: bool = False
    text_right: bool = False


@dataclass
class Figures:
    """Sums over cases; shares are None where nothing was counted."""

    calls: int = 0
    names: int = 0
    exact: int = 0
    no_action: int = 0
    false_actions: int = 0
    any_no_action: int = 0
    any_false_actions: int = 0
    texts: int = 0
    texts_right: int = 0
    cases: int = 0
    failed: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.cases += 1
        expect, no_action = outcome.case["expect"], outcome.case["no_action"]
        if "calls" in expect:
            self.calls += 1
            self.names += outcome.names_right
            self.exact += outcome.args_right
        if no_action:
            self.any_no_action += 1
            self.any_false_actions += outcome.false_action
            if not {"calls", "answer"} & set(expect):
                self.no_action += 1
                self.false_actions += outcome.false_action
        if "calls" not in expect:
            self.texts += 1
            self.texts_right += outcome.text_right
        if outcome.false_action or not (outcome.args_right if "calls" in expect else outcome.text_right):
            self.failed.append(outcome)

    @property
    def tool_accuracy(self) -> float | None:
        return self.names / self.calls if self.calls else None

    @property
    def exact_arguments(self) -> float | None:
        return self.exact / self.calls if self.calls else None

    @property
    def false_action_rate(self) -> float | None:
        return self.false_actions / self.no_action if self.no_action else None

    @property
    def wide_false_action_rate(self) -> float | None:
        """Over every case in which nothing may be done, lookups and answers included."""
        return self.any_false_actions / self.any_no_action if self.any_no_action else None

    @property
    def text_share(self) -> float | None:
        return self.texts_right / self.texts if self.texts else None


@lru_cache(maxsize=128)
def load_domain(name: str) -> dict[str, Any]:
    """A domain's tools, context and passages."""
    path = HERE / "domains" / f"{name}.json"
    if not path.exists():
        return next(common_domain(d) for d in _annotated() if d.name == name)
    domain: dict[str, Any] = json.loads(path.read_text())
    return domain


@lru_cache(maxsize=1)
def _annotated() -> tuple[AnnotatedDomain, ...]:
    return tuple(annotated_domains())


def load_cases(which: str) -> list[dict[str, Any]]:
    """The cases of "dev", "dev2", "annotated", "kept-back" (annotated domains that the reader was not trained on) or
    "heldout"."""
    if which == "annotated":
        return [case for domain in _annotated() for case in common_cases(domain)]
    if which == "kept-back":
        unseen = kept_back()
        return [case for domain in _annotated() if domain.name in unseen for case in common_cases(domain)]
    return [json.loads(line) for line in (HERE / f"{which}.jsonl").read_text().splitlines() if line.strip()]


def bound(model: Any, domain: Mapping[str, Any]) -> Runnable[Any, AIMessage]:
    """The model with the domain's tools, as schemas that declare their effect."""
    tools = [
        {
            "title": t["name"],
            "name": t["name"],
            "description": t["description"],
            "parameters": t["parameters"],
            "metadata": {"fermata.effect": t["effect"]},
        }
        for t in domain["tools"]
    ]
    runnable: Runnable[Any, AIMessage] = model.bind_tools(tools)
    return runnable


def history(case: Mapping[str, Any], domain: Mapping[str, Any]) -> list[BaseMessage]:
    """The messages that the model is shown first."""
    shown = set(case.get("passages", ()))
    parts = [domain.get("context", "")]
    parts += [
        f'<passage id="{p["id"]}" source="{p["source"]}" heading="{p["heading"]}" line="{p["line"]}">\n{p["text"]}\n</passage>'
        for wanted in case.get("passages", ())
        for p in domain.get("passages", ())
        if p["id"] == wanted and wanted in shown
    ]
    messages: list[BaseMessage] = [SystemMessage("\n\n".join(x for x in parts if x))]
    for m in case["messages"]:
        match m["role"]:
            case "human":
                messages.append(HumanMessage(m["content"]))
            case "ai":
                messages.append(AIMessage(m["content"], tool_calls=m.get("tool_calls", [])))
            case "tool":
                messages.append(ToolMessage(m["content"], tool_call_id=m["tool_call_id"], name=m.get("name")))
            case _:
                messages.append(SystemMessage(m["content"]))
    return messages


def play(case: Mapping[str, Any], model: Any) -> Outcome:
    """Play one case to its end and judge it."""
    domain = load_domain(case["domain"])
    runnable, messages = bound(model, domain), history(case, domain)
    made: list[dict[str, Any]] = []
    used: dict[str, int] = defaultdict(int)
    text = ""
    for _ in range(MAX_TURNS):
        reply = runnable.invoke(messages)
        messages.append(reply)
        text = str(reply.content)
        if not reply.tool_calls:
            break
        for call in reply.tool_calls:
            made.append({"name": call["name"], "args": call["args"]})
            result = case.get("results", {}).get(call["name"], {"ok": True})
            if isinstance(result, list):
                index = min(used[call["name"]], len(result) - 1)
                used[call["name"]] += 1
                result = result[index]
            messages.append(
                ToolMessage(
                    json.dumps(result, ensure_ascii=False), tool_call_id=call["id"] or "", name=call["name"]
                )
            )
    outcome = Outcome(case, made, text)
    _judge(outcome, domain)
    return outcome


def _judge(outcome: Outcome, domain: Mapping[str, Any]) -> None:
    tools = {t["name"]: t for t in domain["tools"]}
    case = outcome.case
    acted = [c for c in outcome.calls if tools.get(c["name"], {}).get("effect") != "READ"]
    outcome.false_action = case["no_action"] and bool(acted)
    if "calls" not in case["expect"]:
        outcome.text_right = not acted and _text_right(case["expect"], outcome.text)
        return
    wanted, strict = case["expect"]["calls"], not case["no_action"]
    outcome.names_right = _matches(wanted, outcome.calls, tools, with_args=False, strict=strict)
    outcome.args_right = outcome.names_right and _matches(
        wanted, outcome.calls, tools, with_args=True, strict=strict
    )


def _matches(
    wanted: Sequence[Mapping[str, Any]],
    made: Sequence[Mapping[str, Any]],
    tools: Mapping[str, Any],
    *,
    with_args: bool,
    strict: bool,
) -> bool:
    """Whether the calls made are the wanted ones: further READ calls are permitted only where an action is wanted."""

    def reads(call: Mapping[str, Any]) -> bool:
        return bool(tools.get(call["name"], {}).get("effect") == "READ")

    def same(want: Mapping[str, Any], call: Mapping[str, Any]) -> bool:
        return want["name"] == call["name"] and (
            not with_args or _args_equal(want, call["args"], tools[want["name"]]["parameters"])
        )

    if strict and all(reads(w) for w in wanted):
        return len(wanted) == len(made) and all(same(w, c) for w, c in zip(wanted, made, strict=True))
    at = 0
    for call in made:
        if at < len(wanted) and same(wanted[at], call):
            at += 1
        elif not reads(call):
            return False
    return at == len(wanted)


def _args_equal(want: Mapping[str, Any], made: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    properties = schema.get("properties", {})
    may = want.get("may", {})
    for name in {*want["args"], *made, *may}:
        sub = properties.get(name, {})
        got = made.get(name)
        got = sub.get("default") if got is None else got
        if name in want["args"]:
            expected = want["args"][name]
            expected = sub.get("default") if expected is None else expected
            if not _value_equal(expected, got, unordered=bool(sub.get("uniqueItems"))):
                return False
        elif name in may:
            if (
                got is not None
                and not _value_equal(may[name], got, unordered=bool(sub.get("uniqueItems")))
                and got != sub.get("default")
            ):
                return False
        elif got is not None and got != sub.get("default"):
            return False
    return True


def _value_equal(expected: Any, got: Any, *, unordered: bool = False) -> bool:
    if isinstance(expected, dict) and set(expected) == {"any_of"}:
        return any(_value_equal(e, got, unordered=unordered) for e in expected["any_of"])
    if isinstance(expected, dict) and set(expected) == {"contains"}:
        return all(_fold(str(part)) in _fold(str(got)) for part in expected["contains"])
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return abs(float(expected) - float(got)) <= 1e-6 * max(1.0, abs(float(expected)))
    if isinstance(expected, str) and isinstance(got, str):
        return _fold(expected) == _fold(got)
    if isinstance(expected, list) and isinstance(got, list):
        if unordered:
            return len(expected) == len(got) and all(any(_value_equal(e, g) for g in got) for e in expected)
        return len(expected) == len(got) and all(
            _value_equal(e, g) for e, g in zip(expected, got, strict=True)
        )
    if isinstance(expected, dict) and isinstance(got, dict):
        return set(expected) == set(got) and all(_value_equal(expected[k], got[k]) for k in expected)
    return bool(expected == got)


def _fold(text: str) -> str:
    return re.sub(r"\s+", " ", text.casefold()).strip().strip("\"'“”").rstrip(".!?,;:").strip()


def _text_right(expect: Mapping[str, Any], text: str) -> bool:
    if (
        "answer" in expect
        and all(f"[{c}]" in text for c in expect["answer"].get("cites", ()))
        and all(s.casefold() in text.casefold() for s in expect["answer"].get("contains", ()))
    ):
        return True
    if expect.get("ack") and text.strip():
        return True
    if expect.get("ask") and "?" in text:
        return True
    return bool(expect.get("refuse") and REFUSING.search(text))


def measure(
    cases: Iterable[Mapping[str, Any]], model: Any
) -> tuple[Figures, dict[str, Figures], dict[str, Figures]]:
    """(over all, by domain, by category)."""
    total = Figures()
    domains: dict[str, Figures] = defaultdict(Figures)
    categories: dict[str, Figures] = defaultdict(Figures)
    for case in cases:
        outcome = play(case, model)
        for figures in (total, domains[case["domain"]], categories[case["category"]]):
            figures.add(outcome)
    return total, dict(domains), dict(categories)


def _row(name: str, f: Figures) -> str:
    def share(value: float | None) -> str:
        return "      " if value is None else f"{value:6.3f}"

    return f"{name:<16}{f.cases:>5}   {share(f.tool_accuracy)}   {share(f.exact_arguments)}   {share(f.false_action_rate)}   {share(f.wide_false_action_rate)}   {share(f.text_share)}"


def _as_json(f: Figures) -> dict[str, Any]:
    return {
        "cases": f.cases,
        "tool_accuracy": f.tool_accuracy,
        "exact_arguments": f.exact_arguments,
        "false_action_rate": f.false_action_rate,
        "false_action_rate_wide": f.wide_false_action_rate,
        "texts_as_expected": f.text_share,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--set", choices=("dev", "dev2", "annotated", "kept-back", "heldout"), default="heldout"
    )
    parser.add_argument("--domains", default="", help="only these, divided by commas")
    parser.add_argument("--rules-alone", action="store_true", help="without the learned reader")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--failures", action="store_true", help="print what went wrong (development sets only)"
    )
    options = parser.parse_args()
    if options.failures and options.set == "heldout":
        parser.error("the held-out set is for measuring only: --failures needs another set")
    from fermata.agents.planner import PlannerChatModel

    only = set(filter(None, options.domains.split(",")))
    cases = load_cases(options.set)
    known = {c["domain"] for c in cases}
    if only - known:
        parser.error(
            f"no domain {', '.join(sorted(only - known))}; {options.set} has {', '.join(sorted(known))}"
        )
    cases = [c for c in cases if not only or c["domain"] in only]
    total, domains, categories = measure(
        cases, PlannerChatModel(reader=None) if options.rules_alone else PlannerChatModel()
    )
    if options.json:
        print(
            json.dumps(
                {
                    "set": options.set,
                    "all": _as_json(total),
                    "domains": {k: _as_json(v) for k, v in domains.items()},
                    "categories": {k: _as_json(v) for k, v in categories.items()},
                },
                indent=2,
            )
        )
        return 0
    print(
        f"{options.set + ' set':<16}{'n':>5}   {'tool':>6}   {'exact':>6}   {'false':>6}   {'wide':>6}   {'texts':>6}"
    )
    for name, figures in sorted(domains.items()):
        print(_row(name, figures))
    print("-" * 66)
    for name, figures in sorted(categories.items()):
        print(_row(name, figures))
    print("-" * 66)
    print(_row("all", total))
    if options.failures:
        for outcome in total.failed:
            said = " // ".join(f"{m['role'][0]}: {m['content']}" for m in outcome.case["messages"])
            print(
                f"\n{outcome.case['id']} [{outcome.case['category']}] {said}\n   want {json.dumps(outcome.case['expect'], ensure_ascii=False)}"
            )
            print(f"   made {json.dumps(outcome.calls, ensure_ascii=False)}\n   said {outcome.text[:300]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
