"""MiniLM as an ONNX graph, written down node by node: what the bundled models have in common.

Chosen: weights only in 8 bits (``MatMulNBits``, blocks of 32, ``accuracy_level`` 4, symmetric) and an int8 token table
with one scale per row, because the activations keep a scale per row and block, so that a text's result does not depend
on its batch; dynamic int8 quantization fails exactly there. Chosen: nodes by hand, which makes the graph fused, small
and independent of an exporter's version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

LAYERS, HEADS, WIDTH = 6, 12, 384
BLOCK = 32
LAYER_NORM_EPSILON = 1e-12
OPSET, CONTRIB_OPSET, IR_VERSION = 20, 1, 10

Array = NDArray[np.float32]


class Graph:
    """Nodes and initializers in the order in which they were added; each method returns the name of its
    output.

    :param weights: named as in transformers' ``BertModel``.
    """

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def matmul(self, source: str, name: str, matrix: Array) -> str:
        """``source @ matrix.T`` for a torch-layout (out, in) matrix in 8 bits, one scale per 32 inputs."""
        rows, columns = matrix.shape
        blocks = matrix.reshape(rows, columns // BLOCK, BLOCK)
        scale = np.maximum(np.abs(blocks).max(axis=2), np.float32(1e-12)) / np.float32(127)
        packed = (np.clip(np.rint(blocks / scale[:, :, None]), -127, 127) + 128).astype(np.uint8)
        inputs = [
            source,
            self.constant(f"{name}.q8", packed),
            self.constant(f"{name}.scale", scale.astype(np.float32).reshape(-1)),
        ]
        return self.node(
            "MatMulNBits", inputs, f"{name}.out", "com.microsoft",
            K=columns, N=rows, bits=8, block_size=BLOCK, accuracy_level=4,
        )  # fmt: skip

    def linear(self, source: str, name: str, output: str) -> str:
        """``source @ weight.T + bias`` in fp32: for small heads."""
        weight = self.constant(f"{name}.weight.T", self.weights[f"{name}.weight"].T)
        product = self.node("MatMul", [source, weight], f"{name}.product")
        return self.node("Add", [product, self.weight(f"{name}.bias")], output)

    def add_and_normalise(self, source: str, skip: str, norm: str, bias: str, output: str) -> str:
        inputs = [source, skip, self.weight(f"{norm}.weight"), self.weight(f"{norm}.bias"), self.weight(bias)]
        return self.node(
            "SkipLayerNormalization", inputs, output, "com.microsoft", epsilon=LAYER_NORM_EPSILON
        )

    def model(self, name: str, inputs: list[str], outputs: dict[str, list[str | int]]) -> ModelProto:
        """The graph as a checked model of int64 (batch, tokens) inputs and fp32 outputs."""
        ids = [helper.make_tensor_value_info(i, TensorProto.INT64, ["batch", "tokens"]) for i in inputs]
        out = [helper.make_tensor_value_info(o, TensorProto.FLOAT, shape) for o, shape in outputs.items()]
        model = helper.make_model(
            helper.make_graph(self.nodes, name, ids, out, self.initializers),
            opset_imports=[
                helper.make_opsetid("", OPSET),
                helper.make_opsetid("com.microsoft", CONTRIB_OPSET),
            ],
            ir_version=IR_VERSION,
            producer_name="fermata-export",
        )
        checker.check_model(model)
        return model


def encoder(graph: Graph, max_tokens: int, *, segments: str = "") -> str:
    """The name of the last layer's states, (batch, tokens, 384), of ``input_ids`` under ``attention_mask``.

    :param segments: an input of segment ids; without one there is only ever the first segment.
    """
    hidden = _embed_tokens(graph, max_tokens, segments)
    mask = graph.node("Cast", ["attention_mask"], "mask_int32", to=TensorProto.INT32)
    for index in range(LAYERS):
        hidden = _layer(graph, index, hidden, mask)
    return hidden


def _embed_tokens(graph: Graph, max_tokens: int, segments: str) -> str:
    table = graph.weights["embeddings.word_embeddings.weight"]
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), np.float32(1e-12)) / np.float32(127)
    graph.constant("token.q8", np.clip(np.rint(table / scale), -127, 127).astype(np.int8))
    graph.constant("token.scale", scale.astype(np.float32))
    positions = graph.weights["embeddings.position_embeddings.weight"][:max_tokens]
    kinds = graph.weights["embeddings.token_type_embeddings.weight"]
    # The first segment's row can be part of the positions; what is left is how the second differs.
    graph.constant("position", positions + kinds[0])

    quantized = graph.node("Gather", ["token.q8", "input_ids"], "token.row")
    floats = graph.node("Cast", [quantized], "token.float", to=TensorProto.FLOAT)
    tokens = graph.node(
        "Mul", [floats, graph.node("Gather", ["token.scale", "input_ids"], "token.row_scale")], "token"
    )
    length = graph.node("Shape", ["input_ids"], "length", start=1, end=2)
    start = graph.constant("zero", np.array([0], np.int64))
    placed = graph.node("Slice", ["position", start, length, start], "position.used")
    summed = graph.node("Add", [tokens, placed], "embeddings")
    if segments:
        graph.constant("segment", np.stack([np.zeros_like(kinds[0]), kinds[1] - kinds[0]]))
        summed = graph.node(
            "Add",
            [summed, graph.node("Gather", ["segment", segments], "segment.row")],
            "embeddings.segmented",
        )
    norm = "embeddings.LayerNorm"
    return graph.node(
        "LayerNormalization",
        [summed, graph.weight(f"{norm}.weight"), graph.weight(f"{norm}.bias")],
        "hidden.0",
        epsilon=LAYER_NORM_EPSILON,
    )


def _layer(graph: Graph, index: int, hidden: str, mask: str) -> str:
    layer = f"encoder.layer.{index}"
    parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    packed = graph.matmul(
        hidden, f"{layer}.qkv", np.concatenate([graph.weights[f"{p}.weight"] for p in parts])
    )
    split = [f"{part}.out" for part in parts]
    graph.nodes.append(
        helper.make_node("Split", [packed], split, name=f"{layer}.split", axis=-1, num_outputs=3)
    )
    bias = graph.constant(f"{layer}.qkv.bias", np.concatenate([graph.weights[f"{p}.bias"] for p in parts]))
    attended = graph.node(
        "MultiHeadAttention", [*split, bias, mask], f"{layer}.attended", "com.microsoft", num_heads=HEADS
    )
    out = f"{layer}.attention.output"
    projected = graph.matmul(attended, f"{out}.dense", graph.weights[f"{out}.dense.weight"])
    attention = graph.add_and_normalise(
        projected, hidden, f"{out}.LayerNorm", f"{out}.dense.bias", f"{out}.sum"
    )

    inner = f"{layer}.intermediate.dense"
    widened = graph.matmul(attention, inner, graph.weights[f"{inner}.weight"])
    active = graph.node(
        "BiasGelu", [widened, graph.weight(f"{inner}.bias")], f"{layer}.gelu", "com.microsoft"
    )
    narrowed = graph.matmul(active, f"{layer}.output.dense", graph.weights[f"{layer}.output.dense.weight"])
    return graph.add_and_normalise(
        narrowed, attention, f"{layer}.output.LayerNorm", f"{layer}.output.dense.bias", f"hidden.{index + 1}"
    )
