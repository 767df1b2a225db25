"""onnxruntime's own operators, which its optimisers write into a file, as combinations of ONNX's.

Semantics: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fluxdrop.predict.compiler.attention import attend, with_heads
from fluxdrop.predict.compiler.operators import NodeView, UnsupportedError
from fluxdrop.predict.compiler.rewriters import Replacement, Rewriter, rewriter

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators."""

_LINEAR = ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish")
_ALPHA = ("LeakyRelu", "Elu")


def _microsoft(*names: str) -> Callable[[Rewriter], Rewriter]:
    return rewriter(*names, domain=MICROSOFT)


def _input(node: NodeView, index: int) -> str:
    """Return the name of input *index*; an empty string if it is absent."""
    return node.inputs[index] if index < len(node.inputs) else ""


def _refuse(node: NodeView, inputs: Sequence[int], reason: str) -> None:
    """Raise UnsupportedError for *reason* if the node has one of the *inputs*."""
    if any(_input(node, index) for index in inputs):
        raise UnsupportedError(reason)


@_microsoft("Gelu", "FastGelu", "BiasGelu")
def _gelu(node: NodeView, new: Replacement) -> None:
    value = node.inputs[0]
    if _input(node, 1):
        value = new.add("Add", value, node.inputs[1])
    new.finish("Gelu", value, approximate="tanh" if node.operator == "FastGelu" else "none")


@_microsoft("QuickGelu")
def _quick_gelu(node: NodeView, new: Replacement) -> None:
    gate = new.add("Sigmoid", new.add("Mul", node.inputs[0], node.number("alpha", 1.702)))
    new.finish("Mul", node.inputs[0], gate)


@_microsoft("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def _skip_layer_normalization(node: NodeView, new: Replacement) -> None:
    """Add the nodes for the norm of the sum of input, skip and bias; the fourth output is that sum."""
    is_simple = node.operator.startswith("SkipSimplified")
    bias = _input(node, 3 if is_simple else 4)
    total = new.add("Add", node.inputs[0], node.inputs[1])
    if bias:
        total = new.add("Add", total, bias)
    if new.reads(3):
        new.finish("Identity", total, output=3)
    epsilon = node.number("epsilon", 1e-12)
    if is_simple:
        new.finish("Mul", _root_mean_square_norm(new, total, epsilon), node.inputs[2])
    else:
        shift = _input(node, 3) or None
        new.finish("LayerNormalization", total, node.inputs[2], shift, axis=-1, epsilon=epsilon)
    if new.reads(1) or new.reads(2):
        raise UnsupportedError("its mean or variance is read")


def _root_mean_square_norm(new: Replacement, value: str, epsilon: float) -> str:
    mean = new.add("ReduceMean", new.add("Mul", value, value), [-1], keepdims=1)
    return new.add("Div", value, new.add("Sqrt", new.add("Add", mean, epsilon)))


@_microsoft("FusedConv")
def _fused_conv(node: NodeView, new: Replacement) -> None:
    own = {"activation", "activation_params"}
    attributes = {name: value for name, value in node.attributes.items() if name not in own}
    result = new.add("Conv", *node.inputs[:3], **attributes)
    if _input(node, 3):
        result = new.add("Add", result, node.inputs[3])
    _activate(node, new, result, node.attributes.get("activation_params", []))


def _activate(node: NodeView, new: Replacement, value: str, parameters: Sequence[float]) -> None:
    """Add the function that the attribute ``activation`` names as the last node."""
    name = node.attributes.get("activation", b"").decode()
    if not name:
        new.finish("Identity", value)
    elif name in _LINEAR:
        new.finish(name, value)
    elif name in _ALPHA and len(parameters) == 1:
        new.finish(name, value, alpha=float(parameters[0]))
    elif name == "HardSigmoid" and len(parameters) == 2:
        new.finish(name, value, alpha=float(parameters[0]), beta=float(parameters[1]))
    elif name == "Clip" and len(parameters) == 2:
        new.finish(name, value, *map(float, parameters))
    else:
        raise UnsupportedError(f"its activation {name} is not supported")


@_microsoft("FusedGemm")
def _fused_gemm(node: NodeView, new: Replacement) -> None:
    attributes = {
        name: value for name, value in node.attributes.items() if not name.startswith("activation")
    }
    names = [f"activation_{name}" for name in ("alpha", "beta", "gamma")]
    parameters = [node.attributes[name] for name in names if name in node.attributes]
    _activate(node, new, new.add("Gemm", *node.inputs, **attributes), parameters)


@_microsoft("FusedMatMul", "TransposeMatMul")
def _fused_matmul(node: NodeView, new: Replacement) -> None:
    operands = []
    for index, side in enumerate("AB"):
        order = list(range(node.rank(index)))
        if node.attributes.get(f"transBatch{side}", 0):
            # The batches but the last axis come first; the first axis becomes the last but one.
            order = [*order[1:-1], order[0], order[-1]]
        if node.attributes.get(f"trans{side}", 0):
            order[-2:] = order[:-3:-1]
        is_moved = order != sorted(order)
        name = node.inputs[index]
        operands.append(new.add("Transpose", name, perm=order) if is_moved else name)
    alpha = node.number("alpha", 1.0)
    new.finish("Mul", new.add("MatMul", *operands), alpha) if alpha != 1 else new.finish(
        "MatMul", *operands
    )


@_microsoft("MultiHeadAttention")
def _multi_head_attention(node: NodeView, new: Replacement) -> None:
    _refuse(node, (4, 6, 7, 8, 9), "it has a padding mask, or continues an earlier call")
    if node.attributes.get("unidirectional", 0) or not (_input(node, 1) and _input(node, 2)):
        raise UnsupportedError("it is causal, or its query, key and value are packed")
    if any(node.rank(index) != 3 for index in range(3)) or any(new.outputs[1:]):
        raise UnsupportedError("its key and value have heads already")
    parts = list(node.inputs[:3])
    if _input(node, 3):
        shapes = [node.shapes.get(name) or (-1,) for name in parts]
        cuts = np.cumsum([shape[-1] for shape in shapes])
        biases = np.split(node.constant(3), cuts[:-1])
        parts = [new.add("Add", part, bias) for part, bias in zip(parts, biases, strict=True)]
    _finish_attention(node, new, parts, _input(node, 5))


@_microsoft("Attention")
def _packed_attention(node: NodeView, new: Replacement) -> None:
    _refuse(node, (3, 4, 6), "it has a mask, or continues an earlier call")
    if node.attributes.get("unidirectional", 0) or node.attributes.get("do_rotary", 0):
        raise UnsupportedError("it is causal, or turns its inputs")
    if any(new.outputs[1:]):
        raise UnsupportedError("its keys and values are read")
    total = (node.shapes.get(node.inputs[1]) or (-1, -1))[-1]
    sizes = node.ints("qkv_hidden_sizes", [total // 3] * 3)
    if total < 1 or sum(sizes) != total:
        raise UnsupportedError("the size of its weights is not known")
    joined = new.add("MatMul", *node.inputs[:2])
    if _input(node, 2):
        joined = new.add("Add", joined, node.inputs[2])
    ends = np.cumsum([0, *sizes]).tolist()
    parts = [new.add("Slice", joined, [ends[part]], [ends[part + 1]], [2]) for part in range(3)]
    _finish_attention(node, new, parts, _input(node, 5))


def _finish_attention(node: NodeView, new: Replacement, parts: list[str], bias: str) -> None:
    """Add the nodes from query, key and value, each of [N, length, heads * width], to the result of that shape."""
    heads = int(node.attributes.get("num_heads", 0))
    width = _width(node, heads)
    scale = node.attributes.get("scale") or width**-0.5
    query, key, value = (with_heads(new, part, heads) for part in parts)
    result = attend(new, (query, key, value), float(scale), bias or None)
    new.finish("Reshape", new.add("Transpose", result, perm=[0, 2, 1, 3]), [0, 0, -1])


def _width(node: NodeView, heads: int) -> int:
    """Return the numbers of a head of the query."""
    if node.operator == "Attention":
        shape: Any = node.shapes.get(node.inputs[1]) or (-1,)
        total = node.ints("qkv_hidden_sizes", [shape[-1] // 3])[0]
    else:
        total = (node.shapes.get(node.inputs[0]) or (-1,))[-1]
    if heads < 1 or total < heads:
        raise UnsupportedError("the number of its heads is not known")
    return total // heads
