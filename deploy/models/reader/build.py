"""The training set in one file: every case and its variants as token ids, and which tools it has labels for.

    python deploy/models/reader/build.py /tmp/reader.pickle.xz

Variants, all derived from what people wrote: the same words without capitals or full stops, with a slip of the
keyboard, behind a greeting; two messages of a domain in one; an order turned into a ban, a doubt or a question.
"""

from __future__ import annotations

import argparse
import json
import lzma
import pickle
import random
import re
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from encode import LostQuotationError, label
from tests.benchmarks.planner.annotated import FOLDER, annotated_domains, common_domain, kept_back

from fermata.agents.inference.card import BUNDLED_MODEL
from fermata.agents.planner.reader.pairs import Encoder, Said, said_call
from fermata.agents.planner.text import known_verbs, split_name
from fermata.agents.planner.tools import make_tools

SEED = 20260821

_BANS = (
    "don't {}",
    "do not {}",
    "please don't {}",
    "never {}",
    "we must not {}",
    "nobody should {}",
    "you are not to {}",
    "whatever you do, don't {}",
    "no need to {}",
    "I'd rather you didn't {}",
    "let's not {}",
    "let's hold off and not {}",
)
_DOUBTS = (
    "should we {}?",
    "what would happen if we {}?",
    "is it wise to {}?",
    "I wonder whether we should {}",
    "would it help to {}?",
    "can we safely {}?",
    "how do I {}?",
    "maybe we should {} at some point",
    "if only we could {}",
    "I was thinking about whether to {}",
    "is it too late to {}?",
    "who may {}?",
    "why would anyone {}?",
    "Tom suggested to {}, what do you think?",
)
_REPORTS = (
    "they told me to {} but I didn't",
    "the night shift will {}",
    "I'm going to {} myself",
    "Ana is about to {}",
    "I've asked Marco to {}",
    "somebody already went to {}",
    "the vendor is scheduled to {}",
)
_OPENERS = (
    "please ",
    "hi, ",
    "hey, could you ",
    "can you ",
    "could you please ",
    "ok, ",
    "morning! ",
    "I need you to ",
    "would you mind, ",
    "quick one: ",
    "right, ",
    "go ahead and ",
    "be so kind and ",
    "we need to ",
    "I'd like you to ",
    "so ",
)
_CLOSERS = (
    " please",
    " thanks",
    " asap",
    ", thank you",
    " now",
    " when you get a minute",
    ", cheers",
    ". Thanks!",
    "!",
    " pls",
)
_JOINTS = (
    " and ",
    ", ",
    ". ",
    "; ",
    " and then ",
    ", then ",
    ". Also ",
    ", and ",
    ". And ",
    " - ",
    "\n",
    ". After that ",
    " plus ",
    ". Oh and ",
    ", also ",
    ". Next, ",
)


def of_evaluation(folder: Path) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """The planner's development sets as training cases: they say which calls are right, and not which words say so."""
    cases: dict[str, list[dict[str, Any]]] = {}
    for which in ("dev", "dev2"):
        for line in (folder / f"{which}.jsonl").read_text().splitlines():
            case = json.loads(line)
            if case["category"] in ("runbook", "conditional", "injection", "missing", "ambiguous"):
                continue
            *before, last = case["messages"]
            if last["role"] != "human":
                continue
            made: list[list[Any]] = []
            for m in before:
                if m["role"] == "human":
                    made.append(["human", m["content"]])
                elif m["role"] == "ai":
                    made.extend(["did", c["name"], c["args"]] for c in m.get("tool_calls", ()))
                    if m["content"]:
                        made.append(["ai", m["content"]])
            wanted = case["expect"].get("calls", ())
            if case["no_action"] and wanted:
                continue
            calls = []
            for call in wanted:
                args = {
                    k: (v["any_of"][0] if isinstance(v, dict) and "any_of" in v else v)
                    for k, v in call["args"].items()
                }
                calls.append({"t": call["name"], "a": args, "q": last["content"]})
            cases.setdefault(case["domain"], []).append(
                {
                    "k": case["category"], "m": last["content"], "calls": calls, "h": made,
                    "whole": len(calls) != 1,
                }
            )  # fmt: skip
    for name, found in sorted(cases.items()):
        domain = json.loads((folder / "domains" / f"{name}.json").read_text())
        yield name, domain, found


def history(case: Mapping[str, Any]) -> list[Said]:
    """What was said and done before the case's message, oldest first."""
    return [
        Said("did", said_call(" ".join(split_name(h[1])), h[2])) if h[0] == "did" else Said(h[0], h[1])
        for h in case.get("h", [])
    ]


def mapped(case: dict[str, Any], change: Any) -> dict[str, Any]:
    """The case with its message and every quotation of it changed in the same way."""
    new = deepcopy(case)
    old = case["m"]
    new["m"] = change(old)
    for call in new["calls"]:
        for key in ("q", "if"):
            if call.get(key):
                call[key] = change(call[key])
        for p, s in call.get("s", {}).items():
            if s in old:
                call["s"][p] = change(s)
    if new.get("mq"):
        new["mq"] = change(new["mq"])
    return new


def plain(text: str) -> str:
    """Typed in a hurry: no capitals, commas, apostrophes or final marks."""
    return text.replace(",", "").replace("'", "").rstrip(".!?").lower()


def with_slip(case: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One word with two letters swapped, one lost or one twice."""
    words = re.findall(r"[a-z]{5,}", case["m"])
    if not words:
        return case
    word = rng.choice(words)
    i = rng.randrange(1, len(word) - 2)
    kind = rng.randrange(3)
    slip = (
        word[:i] + word[i + 1] + word[i] + word[i + 2 :] if kind == 0
        else word[:i] + word[i + 1 :] if kind == 1
        else word[:i] + word[i] + word[i:]
    )  # fmt: skip
    return mapped(case, lambda t: re.sub(rf"\b{word}\b", slip, t))


def framed(case: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A greeting before, a word of thanks behind; the quotations stay."""
    new = deepcopy(case)
    body = case["m"]
    first = re.match(r"[A-Za-z']+", body)
    imperative = bool(first) and first.group().lower() in known_verbs()
    if imperative and rng.random() < 0.8:
        low = body[0].lower() + body[1:]
        new = mapped(case, lambda t: low[: len(t)] if body.startswith(t) else t)
        new["m"] = rng.choice(_OPENERS) + low
    if rng.random() < 0.5:
        new["m"] = new["m"].rstrip(".!") + rng.choice(_CLOSERS)
    return new


def revalued(case: dict[str, Any], rng: random.Random) -> dict[str, Any] | None:
    """Other numbers in the same places: what is learned is where a value stands, not which."""
    said = [str(v) for c in case["calls"] for v in c["a"].values()]
    if not said or any(re.search(r"\d{4}-\d\d-\d\d|^\d\d:\d\d$", v) for v in said):
        return None
    runs = {
        r
        for v in said
        for r in re.findall(r"(?<![\d.])\d+(?![\d.])", v)
        if re.search(rf"(?<!\d){r}(?!\d)", case["m"])
    }
    other = {r: str(rng.randint(1, 9)) + "".join(str(rng.randint(0, 9)) for _ in r[1:]) for r in sorted(runs)}
    if not other:
        return None

    def change(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"(?<![\d.,])\d+(?![\d]|[.,]\d)", lambda m: other.get(m.group(), m.group()), value)
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            new = other.get(f"{value:g}")
            return value if new is None else type(value)(new)
        if isinstance(value, list):
            return [change(v) for v in value]
        if isinstance(value, dict):
            return {k: change(v) for k, v in value.items()}
        return value

    new = {k: change(v) if k in ("m", "mq", "h") else deepcopy(v) for k, v in case.items()}
    for call in new["calls"]:
        for key in ("a", "q", "s", "if"):
            if key in call:
                call[key] = change(call[key])
    return new


def joined(a: dict[str, Any], b: dict[str, Any], rng: random.Random) -> dict[str, Any] | None:
    """Two messages of a domain in one."""
    if any(x.get("whole") for x in (a, b)):
        return None
    if b.get("h") or a.get("either") or b.get("either") or len(a["m"]) + len(b["m"]) > 260:
        return None
    if any(x["k"] in ("reference", "step", "question") for x in (a, b)):
        return None
    joint = rng.choice(_JOINTS)
    first, second = (
        a["m"].rstrip(" .!,") if "." not in joint or a["m"].endswith("?") else a["m"].rstrip(" ."),
        b["m"],
    )
    if a["m"].endswith("?") and joint.strip() in (",", "and", "and then", ", then"):
        joint = "? "
        first = a["m"].rstrip("? ")
    if not joint.strip().endswith((".", ";", "-")) and "\n" not in joint and joint[0] != ".":
        second = (
            second[0].lower() + second[1:]
            if not re.match(r"[A-Z]{2}|[A-Z]-|I\b|[A-Z]\w*\d", second)
            else second
        )
    low = mapped(b, lambda t: second[: len(t)] if b["m"].startswith(t) else t)
    calls = [c for c in a["calls"] if c["q"] in first] + low["calls"]
    if len(calls) != len(a["calls"]) + len(b["calls"]) or any(
        c.get("if") and c["if"] not in first for c in a["calls"]
    ):
        return None
    return {
        "k": "joined", "m": first + joint + second, "calls": deepcopy(calls), **({"h": a["h"]} if a.get("h") else {}),
        "mentions": [m for m in {*a.get("mentions", ()), *b.get("mentions", ())} if m not in {c["t"] for c in calls}],
    }  # fmt: skip


def turned(case: dict[str, Any], rng: random.Random) -> dict[str, Any] | None:
    """An order as a ban, a doubt or a report: the same words, and nothing is asked for."""
    body = case["m"].strip().rstrip(".!")
    first = re.match(r"[A-Za-z]+", body)
    if (
        not first
        or first.group().lower() not in known_verbs()
        or not case["calls"]
        or "?" in body
        or re.search(r"[.;]\s|\bif\b|\bplease\b|n't\b|\bnot\b", body)
    ):
        return None
    if len({c["t"] for c in case["calls"]}) > 1:
        return None
    frames = rng.choice((_BANS, _BANS, _DOUBTS, _DOUBTS, _REPORTS))
    return {
        "k": "turned", "m": rng.choice(frames).format(body[0].lower() + body[1:]), "calls": [],
        "mentions": [case["calls"][0]["t"]], **({"h": case["h"]} if case.get("h") else {}),
    }  # fmt: skip


def variants(cases: list[dict[str, Any]], rng: random.Random, rounds: int) -> Iterator[dict[str, Any]]:
    """Each case as it is and, in each round, some of its variants, which may be variants of variants."""
    for case in cases:
        yield case
        for _ in range(rounds):
            one = (revalued(case, rng) if rng.random() < 0.6 else None) or case
            draw = rng.random()
            if draw < 0.3:
                one = mapped(one, plain)
            elif draw < 0.5:
                one = with_slip(one, rng)
            if one["calls"] and rng.random() < 0.35:
                one = framed(one, rng)
            yield one
            for made in (
                joined(one, rng.choice(cases), rng) if rng.random() < 0.5 else None,
                turned(case, rng) if rng.random() < 0.5 else None,
            ):
                if made is not None:
                    yield made


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the reader's training set.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encoder = Encoder(tokenizer)
    rng = random.Random(SEED)  # noqa: S311 - nothing secret
    tools_out: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    lost = 0
    counts: dict[str, int] = {}
    written = [(d.name, common_domain(d), d.cases) for d in annotated_domains()]
    unseen = kept_back()
    given = [(*x, x[0] in unseen) for x in written]
    given += [(*x, False) for x in of_evaluation(FOLDER.parent)]
    for number, (_, domain, cases, validation) in enumerate(given):
        tools = {t.name: t for t in make_tools(domain["tools"])}
        encoded = {n: encoder.tool(t) for n, t in tools.items()}
        base = len(tools_out)
        index = {n: base + i for i, n in enumerate(tools)}
        tools_out.extend(
            {"ids": e.ids, "domain": number, "name": n, "reads": tools[n].reads} for n, e in encoded.items()
        )
        for case in cases if validation else variants(cases, rng, options.rounds):
            try:
                text = encoder.text(history(case), case["m"])
                labels = label(case, text, tools, encoded)
            except LostQuotationError:
                if case in cases:
                    raise
                lost += 1  # a variant's words were cut off; there are others
                continue
            counts[case["k"]] = counts.get(case["k"], 0) + 1
            texts.append(
                {
                    "whole": case.get("whole", False), "ids": text.ids, "domain": number, "validation": validation, "kind": case["k"],
                    "labels": {
                        index[n]: (said.kind, [(int(t), int(k)) for t, k in zip(*said.tags.nonzero(), strict=True)],
                                   {m: sorted(s) for m, s in said.spans.items()}, sorted(said.present), sorted(said.unknown))
                        for n, said in labels.items()
                    },
                }
            )  # fmt: skip
    with lzma.open(options.out, "wb", preset=4) as file:
        pickle.dump({"tools": tools_out, "texts": texts}, file)
    print(f"{len(texts)} texts, {len(tools_out)} tools, {lost} variants without their words; {counts}")


if __name__ == "__main__":
    main()
