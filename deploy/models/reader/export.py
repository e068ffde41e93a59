"""Make the bundled reader from trained weights.

    python deploy/models/reader/export.py OUT_OF_TRAINING

It writes ``model.onnx`` and ``MODEL.toml`` into the package; the tokenizer is the embedding model's. The precision is
the embedding model's too (see ``minilm_graph``); the heads stay in fp32.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minilm_graph import BLOCK, LAYERS, Array, Graph, encoder

REPOSITORY = Path(__file__).resolve().parents[3]
MODEL_FOLDER = REPOSITORY / "agents/fermata/agents/inference/models/fermata-reader"
MAX_TOKENS = 384
KEY_WIDTH = 128

CARD = """\
name = "fermata-reader"
task = "reading a message with a tool: is a call asked for, by which words, with which arguments"
source = "fine-tuned from sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) on tests/benchmarks/planner/annotated"
source_sha256 = "{source}"
made_by = "deploy/models/reader/export.py"
license = "Apache-2.0"
language = "en"
dimensions = {width}
max_tokens = {max_tokens}
precision = "int8 weights (MatMulNBits, blocks of {block}, accuracy_level 4) and token table, fp32 elsewhere"

[sha256]
"model.onnx" = "{model}"
"""


def weights_of(folder: Path) -> dict[str, Array]:
    """The trained weights, named as in ``BertModel`` where it has them."""
    raw: dict[str, Array] = {}
    for path in sorted(folder.glob("weights*.npz")):
        raw.update({k: v.astype(np.float32) for k, v in np.load(path).items()})
    table = np.load(folder / "table.npz")
    out = {
        "embeddings.word_embeddings.weight": table["q8"].astype(np.float32) * table["scale"],
        "embeddings.position_embeddings.weight": raw["position.weight"],
        "embeddings.token_type_embeddings.weight": raw["segment.weight"],
        "embeddings.LayerNorm.weight": raw["norm.weight"],
        "embeddings.LayerNorm.bias": raw["norm.bias"],
    }
    for i in range(LAYERS):
        layer, to = f"layers.{i}", f"encoder.layer.{i}"
        for kind in ("weight", "bias"):
            for part, rows in zip(
                ("query", "key", "value"), np.split(raw[f"{layer}.qkv.{kind}"], 3), strict=True
            ):
                out[f"{to}.attention.self.{part}.{kind}"] = rows
            out[f"{to}.attention.output.dense.{kind}"] = raw[f"{layer}.out.{kind}"]
            out[f"{to}.attention.output.LayerNorm.{kind}"] = raw[f"{layer}.norm1.{kind}"]
            out[f"{to}.intermediate.dense.{kind}"] = raw[f"{layer}.up.{kind}"]
            out[f"{to}.output.dense.{kind}"] = raw[f"{layer}.down.{kind}"]
            out[f"{to}.output.LayerNorm.{kind}"] = raw[f"{layer}.norm2.{kind}"]
    for head in ("kind", "tags", "present", "query", "key"):
        for kind in ("weight", "bias"):
            out[f"{head}.{kind}"] = raw[f"{head}.{kind}"]
    return out


def build(weights: dict[str, Array]) -> bytes:
    """(input_ids, attention_mask, token_type_ids) to ``kind`` (batch, 4), and ``tags`` (4), ``present`` (1), ``query``
    and ``key`` (128) of each token; all of them before their sigmoid or softmax."""
    graph = Graph(weights)
    hidden = encoder(graph, MAX_TOKENS, segments="token_type_ids")
    graph.linear(_pooled(graph, hidden), "kind", "kind")
    for head in ("tags", "present", "query", "key"):
        graph.linear(hidden, head, head)
    by_token: list[str | int] = ["batch", "tokens"]
    model = graph.model(
        "fermata-reader",
        ["input_ids", "attention_mask", "token_type_ids"],
        {
            "kind": ["batch", 4],
            "tags": [*by_token, 4],
            "present": [*by_token, 1],
            "query": [*by_token, KEY_WIDTH],
            "key": [*by_token, KEY_WIDTH],
        },
    )
    return model.SerializeToString(deterministic=True)


def _pooled(graph: Graph, hidden: str) -> str:
    """The first token's state, the means over the text and over the tool, and their product."""
    axis = graph.constant("tokens", np.array([1], np.int64))
    row = graph.node("Gather", [hidden, graph.constant("first", np.array([0], np.int64))], "cls.row", axis=1)
    first = graph.node("Squeeze", [row, axis], "cls")
    there = graph.node("Cast", ["attention_mask"], "there", to=TensorProto.FLOAT)
    second = graph.node("Cast", ["token_type_ids"], "second", to=TensorProto.FLOAT)
    tool = graph.node("Mul", [there, second], "of_tool")
    parts = {"tool": tool, "said": graph.node("Sub", [there, tool], "of_text")}
    last = graph.constant("last", np.array([-1], np.int64))
    for name, weight in parts.items():
        column = graph.node("Unsqueeze", [weight, last], f"{name}.column")
        total = graph.node(
            "ReduceSum",
            [graph.node("Mul", [hidden, column], f"{name}.states"), axis],
            f"{name}.sum",
            keepdims=0,
        )
        parts[name] = graph.node("LpNormalization", [total], f"{name}.mean", axis=-1, p=2)
    product = graph.node("Mul", [parts["said"], parts["tool"]], "product")
    scaled = graph.node(
        "Mul", [product, graph.constant("twenty", np.array(20, np.float32))], "product.scaled"
    )
    return graph.node("Concat", [first, parts["said"], parts["tool"], scaled], "pooled", axis=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the bundled reader from trained weights.")
    parser.add_argument("trained", type=Path)
    folder: Path = parser.parse_args().trained
    model = build(weights_of(folder))
    source = hashlib.sha256()
    for path in sorted(folder.glob("*.npz")):
        source.update(path.read_bytes())
    MODEL_FOLDER.mkdir(parents=True, exist_ok=True)
    (MODEL_FOLDER / "model.onnx").write_bytes(model)
    card = CARD.format(
        source=source.hexdigest(), width=384, max_tokens=MAX_TOKENS, block=BLOCK,
        model=hashlib.sha256(model).hexdigest(),
    )  # fmt: skip
    (MODEL_FOLDER / "MODEL.toml").write_text(card, encoding="utf-8")
    print(f"model.onnx {len(model) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
