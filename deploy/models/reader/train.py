"""Train the reader: MiniLM, fine-tuned to read a message with one tool at a time. Runs on one GPU in minutes.

    python deploy/models/reader/train.py reader.pickle.xz init.npz OUT

Design note. Chosen: a cross-encoder (text and tool in one sequence), since "no" and "don't" change what a tool's name
means; one pass gives a class for the tool, a tag for each word, and how much each word expresses each parameter and
option. Refused: one pass over all tools, which has a fixed room and an order; generating the call, which can invent.
"""

from __future__ import annotations

import argparse
import lzma
import math
import pickle
import random
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

LAYERS, HEADS, WIDTH, INNER, POSITIONS = 6, 12, 384, 1536, 384
KEY_WIDTH, CLASSES, TAGS = 128, 4, 4
CLS, SEP, MASK = 101, 102, 103
LAST_MARKER = 99
REQUIRED, OPTIONAL, OPTION = 5, 6, 7
"""Markers, as in ``pairs.py``, which needs more than torch and numpy."""


class Layer(nn.Module):
    """A layer of BERT: attention and a feed-forward part, each added and normalised."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-12)
        self.up = nn.Linear(WIDTH, INNER)
        self.down = nn.Linear(INNER, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-12)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.norm1(x + self.drop(self.out(a.transpose(1, 2).reshape(b, t, WIDTH))))
        return self.norm2(x + self.drop(self.down(F.gelu(self.up(x)))))


class Reader(nn.Module):
    """MiniLM with the reader's heads.

    (ids, segments), int64 (batch, tokens), to logits: ``kind`` (batch, CLASSES), ``tags`` (batch, tokens, TAGS), ``present``
    (batch, tokens), and ``query`` and ``key`` (batch, tokens, KEY_WIDTH), which ``match_logits`` compares.
    """

    def __init__(self, drop: float = 0.15) -> None:
        super().__init__()
        self.token = nn.Embedding(30522, WIDTH)
        self.position = nn.Embedding(POSITIONS, WIDTH)
        self.segment = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer(drop) for _ in range(LAYERS))
        self.kind = nn.Linear(4 * WIDTH, CLASSES)
        self.tags = nn.Linear(WIDTH, TAGS)
        self.present = nn.Linear(WIDTH, 1)
        self.query = nn.Linear(WIDTH, KEY_WIDTH)
        self.key = nn.Linear(WIDTH, KEY_WIDTH)
        self.drop = nn.Dropout(drop)

    def forward(self, ids: Tensor, segments: Tensor) -> tuple[Tensor, ...]:
        mask = (ids != 0)[:, None, None, :]
        where = torch.arange(ids.shape[1], device=ids.device)
        x = self.drop(self.norm(self.token(ids) + self.position(where)[None] + self.segment(segments)))
        for layer in self.layers:
            x = layer(x, mask)
        x = self.drop(x)
        there = (ids != 0).float()
        said, tool = (_mean(x, there * (segments == part).float()) for part in (0, 1))
        pooled = torch.cat([x[:, 0], said, tool, 20 * said * tool], dim=-1)
        return self.kind(pooled), self.tags(x), self.present(x)[..., 0], self.query(x), self.key(x)


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    """Means over tokens: what the sentence model that this one starts from was trained to compare."""
    return F.normalize((x * weight[..., None]).sum(1), dim=-1)


def initialise(model: Reader, path: Path) -> None:
    """Load the published weights of ``init.py``; the heads stay random."""
    w = {k: torch.from_numpy(v.astype(np.float32)) for k, v in np.load(path).items()}
    table = w["token.q8"] * w["token.scale"]
    state = {"token.weight": table, "position.weight": w["position"][:POSITIONS], "segment.weight": w["segment"],
             "norm.weight": w["norm.weight"], "norm.bias": w["norm.bias"]}  # fmt: skip
    for i in range(LAYERS):
        for part in ("qkv", "out", "norm1", "up", "down", "norm2"):
            for kind in ("weight", "bias"):
                state[f"layers.{i}.{part}.{kind}"] = w[f"{i}.{part}.{kind}"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(m.split(".")[0] in ("kind", "tags", "present", "query", "key") for m in missing), missing


class Pairs:
    """Pairs of a text and a tool, drawn anew each epoch."""

    def __init__(self, data: dict, rng: random.Random) -> None:
        self.tools, self.rng = data["tools"], rng
        self.texts = [t for t in data["texts"] if not t["validation"]]
        self.validation = [t for t in data["texts"] if t["validation"]]
        self.by_domain = defaultdict(list)
        for i, tool in enumerate(self.tools):
            self.by_domain[tool["domain"]].append(i)

    def epoch(self, negatives: int) -> list[tuple[dict, int]]:
        """Each text with the tools that it speaks of, and with some of those that it doesn't."""
        out = []
        for text in self.texts:
            own = list(text["labels"])
            others = [t for t in self.by_domain[text["domain"]] if t not in text["labels"]]
            self.rng.shuffle(others)
            chosen = own + others[:negatives]
            if self.rng.random() < 0.3:
                chosen.append(self.rng.randrange(len(self.tools)))
            out.extend((text, t) for t in chosen)
        self.rng.shuffle(out)
        return out

    def all_of(self, texts: list[dict]) -> list[tuple[dict, int]]:
        """Each text with every tool of its domain."""
        return [(x, t) for x in texts for t in self.by_domain[x["domain"]]]


def batch(
    pairs: list[tuple[dict, int]],
    tools: list[dict],
    device: str,
    augment: random.Random | None = None,
    hidden: float = 0.0,
) -> dict[str, Tensor]:
    """Pairs as padded tensors: ids and segments, and each label with the mask of where it counts.

    :param augment: draws which tokens are hidden; none are without it.
    :param hidden: share of the text's and the tool's tokens.
    """
    rows = []
    for text, tool in pairs:
        ids = [CLS, *text["ids"], SEP]
        tool_ids = list(tools[tool]["ids"])
        if augment is not None:
            ids = [
                MASK if x > LAST_MARKER and x not in (CLS, SEP) and augment.random() < hidden else x
                for x in ids
            ]
            tool_ids = [MASK if x > LAST_MARKER and augment.random() < hidden else x for x in tool_ids]
        rows.append((ids, tool_ids))
    length = min(POSITIONS, max(len(a) + len(b) + 1 for a, b in rows))
    b = len(rows)
    out_ids = np.zeros((b, length), np.int64)
    segments = np.zeros((b, length), np.int64)
    kind = np.zeros(b, np.int64)
    tags = np.zeros((b, length, TAGS), np.float32)
    tag_mask = np.zeros((b, length), np.float32)
    present = np.zeros((b, length), np.float32)
    present_mask = np.zeros((b, length), np.float32)
    most = 1
    markers_of = []
    for i, (ids, tool_ids) in enumerate(rows):
        seq = [*(ids + tool_ids)[: length - 1], SEP]
        out_ids[i, : len(seq)] = seq
        segments[i, len(ids) : len(seq)] = 1
        tag_mask[i, 1 : len(ids) - 1] = 1
        at = [
            len(ids) + j
            for j, x in enumerate(tool_ids)
            if x in (REQUIRED, OPTIONAL, OPTION) and len(ids) + j < length - 1
        ]
        markers_of.append(at)
        most = max(most, len(at))
    marker_index = np.zeros((b, most), np.int64)
    match = np.zeros((b, most, length), np.float32)
    match_mask = np.zeros((b, most, length), np.float32)
    for i, ((text, tool), (ids, _)) in enumerate(zip(pairs, rows, strict=True)):
        at = markers_of[i]
        marker_index[i, : len(at)] = at
        label = text["labels"].get(tool)
        calls = label is not None and label[0] == 1
        match_mask[i, : len(at), 1 : len(ids) - 1] = 1.0 if calls else 0.15
        present_mask[i, at] = 1.0 if calls else 0.15
        if label is None:
            continue
        kind[i] = label[0]
        if text["whole"] and calls:  # which words ask for it is not on record
            tag_mask[i] = 0
        for t, k in label[1]:
            tags[i, t + 1, k] = 1
        where = {m - len(ids): j for j, m in enumerate(at)}
        for marker, tokens in label[2].items():
            if marker in where:
                match[i, where[marker], [t + 1 for t in tokens]] = 1
        for marker in label[3]:
            if marker in where:
                present[i, at[where[marker]]] = 1
        for marker in label[4]:
            if marker in where:
                match_mask[i, where[marker]] = 0

    def make(a: np.ndarray) -> Tensor:
        return torch.from_numpy(a).to(device, non_blocking=True)

    return {
        "ids": make(out_ids), "segments": make(segments), "kind": make(kind),
        "tags": make(tags), "tag_mask": make(tag_mask),
        "present": make(present), "present_mask": make(present_mask),
        "marker": make(marker_index), "match": make(match), "match_mask": make(match_mask),
    }  # fmt: skip


def match_logits(query: Tensor, key: Tensor, marker: Tensor) -> Tensor:
    """(batch, markers, tokens): how much each token expresses each marker."""
    chosen = torch.gather(key, 1, marker[..., None].expand(-1, -1, key.shape[-1]))
    return chosen @ query.transpose(1, 2) / math.sqrt(KEY_WIDTH) - 4.0


def losses(model: Reader, x: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum of the heads' losses, and each of them."""
    kind, tags, present, query, key = model(x["ids"], x["segments"])
    k = F.cross_entropy(kind.float(), x["kind"], label_smoothing=0.02)
    t = F.binary_cross_entropy_with_logits(
        tags.float(),
        x["tags"],
        reduction="none",
        pos_weight=torch.tensor([4.0, 1.0, 1.0, 1.0], device=kind.device),
    ).sum(-1)
    t = (t * x["tag_mask"]).sum() / x["tag_mask"].sum()
    p = F.binary_cross_entropy_with_logits(present.float(), x["present"], reduction="none")
    p = (p * x["present_mask"]).sum() / x["present_mask"].sum().clamp(min=1)
    m = F.binary_cross_entropy_with_logits(
        match_logits(query.float(), key.float(), x["marker"]),
        x["match"],
        reduction="none",
        pos_weight=torch.tensor(2.0, device=kind.device),
    )
    m = (m * x["match_mask"]).sum() / x["match_mask"].sum().clamp(min=1)
    return 2.0 * k + 2.0 * t + 1.0 * p + 8.0 * m, {
        "kind": k.item(),
        "tags": t.item(),
        "present": p.item(),
        "match": m.item(),
    }


@torch.no_grad()
def evaluate(model: Reader, pairs: Pairs, device: str) -> dict[str, float]:
    """Over whole validation domains: message by message, are exactly the right tools called?"""
    model.eval()
    todo = pairs.all_of(pairs.validation)
    calls: dict[int, dict[int, float]] = defaultdict(dict)
    match_right = match_all = tag_right = tag_all = 0.0
    for i in range(0, len(todo), 512):
        part = todo[i : i + 512]
        x = batch(part, pairs.tools, device)
        with torch.autocast(device, dtype=torch.bfloat16):
            kind, tags, _, query, key = model(x["ids"], x["segments"])
        p = kind.float().softmax(-1)[:, 1].tolist()
        for (text, tool), value in zip(part, p, strict=True):
            calls[id(text)][tool] = value
        pos = x["kind"] == 1
        if pos.any():
            got = match_logits(query.float(), key.float(), x["marker"])[pos] > 0
            want, mask = x["match"][pos] > 0, x["match_mask"][pos] > 0
            ok = ((got == want) | ~mask).all(-1)
            some = want.any(-1)
            match_right += ok[some].sum().item()
            match_all += some.sum().item()
            got_tags = tags.float()[pos] > 0
            want_tags = x["tags"][pos] > 0
            tm = x["tag_mask"][pos] > 0
            good = ((got_tags == want_tags).all(-1) | ~tm).all(-1)
            tag_right += good.sum().item()
            tag_all += len(good)
    right = {"call": [0, 0], "none": [0, 0]}
    by_kind: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for text in pairs.validation:
        want = {t for t, said in text["labels"].items() if said[0] == 1}
        got = {t for t, v in calls[id(text)].items() if v > 0.5}
        acts_got = {t for t in got if not pairs.tools[t]["reads"]}
        which = "call" if want else "none"
        ok = got == want if want else not acts_got
        right[which][0] += ok
        right[which][1] += 1
        by_kind[text["kind"]][0] += ok
        by_kind[text["kind"]][1] += 1
    one = [x for x in pairs.validation if sum(said[0] == 1 for said in x["labels"].values()) == 1]
    best = sum(
        max(calls[id(x)], key=calls[id(x)].get) == next(t for t, said in x["labels"].items() if said[0] == 1)
        for x in one
    )
    model.train()
    out = {
        "best": best / max(1, len(one)),
        "calls": right["call"][0] / max(1, right["call"][1]),
        "quiet": right["none"][0] / max(1, right["none"][1]),
        "spans": match_right / max(1, match_all),
        "tags": tag_right / max(1, tag_all),
    }
    out.update({k: round(a / b, 3) for k, (a, b) in sorted(by_kind.items())})
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("init", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1.5e-4)
    parser.add_argument("--negatives", type=int, default=9)
    parser.add_argument("--hidden", type=float, default=0.08, help="share of tokens that are masked")
    parser.add_argument(
        "--average", type=float, default=0.998, help="decay of the averaged weights, which are kept"
    )
    parser.add_argument("--drop", type=float, default=0.15)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with lzma.open(options.data) as file:
        data = pickle.load(file)  # noqa: S301 - one's own file, from build.py
    pairs = Pairs(data, random.Random(options.seed))  # noqa: S311 - nothing secret
    model = Reader(options.drop).to(device)
    initialise(model, options.init)
    decay = [p for n, p in model.named_parameters() if p.ndim > 1]
    rest = [p for n, p in model.named_parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}],
        lr=options.rate,
        fused=device == "cuda",
    )
    steps_per_epoch = math.ceil(len(pairs.epoch(options.negatives)) / options.batch)
    total = steps_per_epoch * options.epochs
    began = time.monotonic()

    def rate(step: int) -> float:
        """Up, then down to nearly nothing at the last step, or at the end of the time where that comes first."""
        done = max(step / total, (time.monotonic() - began) / options.seconds)
        return min(1.0, (step + 1) / (0.06 * total)) * max(0.02, 1 - done)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.average))
    pool = ThreadPoolExecutor(1)
    print(
        f"{len(pairs.texts)} texts, {len(pairs.validation)} for validation, {steps_per_epoch} steps an epoch on {device}",
        flush=True,
    )
    for epoch in range(options.epochs):
        todo = pairs.epoch(options.negatives)
        # batches of like length: less padding
        chunks = []
        for i in range(0, len(todo), options.batch * 32):
            part = sorted(
                todo[i : i + options.batch * 32],
                key=lambda p: len(p[0]["ids"]) + len(pairs.tools[p[1]]["ids"]),
            )
            chunks.extend(part[j : j + options.batch] for j in range(0, len(part), options.batch))
        pairs.rng.shuffle(chunks)
        sums: dict[str, float] = defaultdict(float)
        ahead = pool.submit(batch, chunks[0], pairs.tools, device, pairs.rng, options.hidden)
        for n, _ in enumerate(chunks):
            x = ahead.result()
            if n + 1 < len(chunks):
                ahead = pool.submit(batch, chunks[n + 1], pairs.tools, device, pairs.rng, options.hidden)
            with torch.autocast(device, dtype=torch.bfloat16):
                loss, parts = losses(model, x)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            averaged.update_parameters(model)
            for k, v in parts.items():
                sums[k] += v
            if time.monotonic() - began > options.seconds:
                break
        print(
            f"epoch {epoch + 1}: {time.monotonic() - began:.0f} s",
            {k: round(v / len(chunks), 4) for k, v in sums.items()},
            flush=True,
        )
        print(
            "   ", {k: round(v, 3) for k, v in evaluate(averaged.module, pairs, device).items()}, flush=True
        )
        if time.monotonic() - began > options.seconds:
            break
    state = {k: v.detach().float().cpu().numpy() for k, v in averaged.module.state_dict().items()}
    table = state.pop("token.weight")
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
    options.out.mkdir(parents=True, exist_ok=True)
    np.savez(
        options.out / "table.npz",
        q8=np.clip(np.rint(table / scale), -127, 127).astype(np.int8),
        scale=scale.astype(np.float32),
    )
    names = sorted(state)
    half = {0: {}, 1: {}, 2: {}}
    for name in names:
        which = int(name.split(".")[1]) // 3 if name.startswith("layers.") else 2
        half[which][name] = state[name].astype(np.float16)
    for which, part in half.items():
        np.savez(options.out / f"weights{which}.npz", **part)
    print("saved", flush=True)


if __name__ == "__main__":
    main()
