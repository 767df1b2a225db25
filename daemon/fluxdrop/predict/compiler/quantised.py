"""Rewrite the operators of quantised models with float operators that round to the same steps.

A quantised tensor becomes a float32 tensor of the same whole numbers. Semantics: the operator's page in
the ONNX documentation, https://onnx.ai/onnx/operators/, or, for those of onnxruntime's domain
com.microsoft, https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper

from fluxdrop.predict.compiler.quantised_tensors import CannotRewrite, Rewriter, Rewriting

_DOMAINS = ("", "ai.onnx", "com.microsoft")
_DYNAMIC = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul")


def is_quantised(model: ModelProto) -> bool:
    """Return whether *model* computes with quantised tensors."""
    return any(_find(node) for node in model.graph.node)


def is_dynamically_quantised(model: ModelProto) -> bool:
    """Return whether *model* quantises a batch by its largest values, so that its pictures depend on each other."""
    return any(node.op_type in _DYNAMIC for node in model.graph.node)


def rewrite_quantised(model: ModelProto, ranks: dict[str, int]) -> ModelProto:
    """Replace the quantised operators of *model*, of opset 11 or newer, and return it.

    Variants that cannot be rewritten are kept.

    Args:
        model: A model whose floats are all float32.
        ranks: The numbers of dimensions of its values, by name, as far as they are known.
    """
    if not is_quantised(model):
        return model
    Rewriter(model, ranks).run(_find)
    return model


def dequantised(node: NodeProto, result: str) -> NodeProto | None:
    """Return a node that makes real numbers of the output of *node*; None if that is not a quantised tensor.

    Args:
        node: The node that computes the output.
        result: The name of the output of the returned node.
    """
    match node.op_type:
        case "QuantizeLinear":
            step = node.input[1:3]
        case "QLinearConv" | "QLinearMatMul" | "QLinearAdd" | "QLinearMul":
            step = node.input[6:8]
        case "QGemm":
            step = node.input[7:9]
        case "QLinearSoftmax" | "QLinearSigmoid" | "QLinearGlobalAveragePool":
            step = node.input[3:5]
        case _:
            return None
    return helper.make_node("DequantizeLinear", [node.output[0], *step], [result])


def _find(node: NodeProto) -> Rewriting | None:
    return _REWRITINGS.get(node.op_type) if node.domain in _DOMAINS else None


def _inputs(node: NodeProto, count: int) -> list[str]:
    """Return the inputs of *node*, with empty strings for absent ones at the end."""
    return [*node.input, *[""] * (count - len(node.input))]


def _quantize_linear(to: Rewriter, node: NodeProto, attributes: dict[str, Any]) -> None:
    x, scale, zero = _inputs(node, 3)
    if attributes.get("block_size"):
        raise CannotRewrite
    trailing = _trailing(to, x, scale, attributes)
    steps = to.add("Div", x, to.along(scale, trailing))
    to.rounded(steps, zero, node.output[0], attributes.get("output_dtype", 0), trailing)


def _dequantize_linear(to: Rewriter, node: NodeProto, attributes: dict[str, Any]) -> None:
    x, scale, zero = _inputs(node, 3)
    if block := attributes.get("block_size"):
        scales, zeros = to.value(scale), to.value(zero)
        if scales is None or (zero and zeros is None):
            raise CannotRewrite
        axis = attributes.get("axis", 1)
        scale = to.constant(np.repeat(scales.astype(np.float32), block, axis))
        centred = to.real(x)
        if zeros is not None:
            points = np.repeat(zeros.astype(np.float32), block, axis)
            centred = to.add("Sub", centred, to.constant(points))
        to.add("Mul", centred, scale, output=node.output[0])
        return
    trailing = _trailing(to, x, scale, attributes)
    centred = to.centred(x, zero, trailing)
    to.add("Mul", centred, to.along(scale, trailing), output=node.output[0])


def _trailing(to: Rewriter, x: str, scale: str, attributes: dict[str, Any]) -> int:
    """Return how many dimensions of *x* follow the one that *scale* is for; 0 if it has one scale for all."""
    if to.has_one_number(scale):
        return 0
    axis: int = attributes.get("axis", 1)
    return -axis - 1 if axis < 0 else to.rank(x) - axis - 1


def _dynamic_quantize_linear(to: Rewriter, node: NodeProto, _: dict[str, Any]) -> None:
    _quantise_by_range(to, node.input[0], *_outputs(node, 3))


def _quantise_by_range(to: Rewriter, x: str, y: str, scale: str, zero: str) -> None:
    """Quantise *x* to uint8 by its smallest and largest value; name the results if they have no names."""
    nothing = to.constant(0.0)
    low = to.add("Min", to.add("ReduceMin", x, keepdims=0), nothing)
    high = to.add("Max", to.add("ReduceMax", x, keepdims=0), nothing)
    step = to.add("Div", to.add("Sub", high, low), to.constant(255.0))
    # A tensor of zeros stays zero, instead of a division by zero.
    to.add("Max", step, to.constant(float(np.finfo(np.float32).tiny)), output=scale)
    bounds = (nothing, to.constant(255.0))
    point = to.add("Round", to.add("Div", to.add("Neg", low), scale))
    to.add("Clip", point, *bounds, output=zero)
    steps = to.add("Add", to.add("Round", to.add("Div", x, scale)), zero)
    to.add("Clip", steps, *bounds, output=y)
    to.are_floats([y, zero])


def _outputs(node: NodeProto, count: int) -> list[str]:
    """Return the outputs of *node*, with other names for absent ones."""
    names = [*node.output, *[""] * (count - len(node.output))]
    return [name or f"{node.output[0]}/output/{index}" for index, name in enumerate(names)]


def _qlinear_conv(to: Rewriter, node: NodeProto, attributes: dict[str, Any]) -> None:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = _inputs(node, 9)
    spatial = to.rank(w) - 2
    centred = (to.centred(x, x_zero), to.centred(w, w_zero, spatial + 1))
    sums = to.add("Conv", *centred, *([to.real(bias)] if bias else []), **attributes)
    steps = to.scaled(sums, (x_scale, w_scale), y_scale, spatial)
    to.rounded(steps, y_zero, node.output[0])


def _qlinear_matmul(to: Rewriter, node: NodeProto, _: dict[str, Any]) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = _inputs(node, 8)
    if not to.has_one_number(a_scale):
        raise CannotRewrite
    sums = to.add("MatMul", to.centred(a, a_zero), to.centred(b, b_zero))
    to.rounded(to.scaled(sums, (a_scale, b_scale), y_scale, 0), y_zero, node.output[0])


def _qgemm(to: Rewriter, node: NodeProto, attributes: dict[str, Any]) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = _inputs(node, 9)
    alpha = attributes.pop("alpha", 1.0)
    centred = (to.centred(a, a_zero), to.centred(b, b_zero, int(attributes.get("transB", 0))))
    sums = to.add("Gemm", *centred, *([to.real(c)] if c else []), **attributes)
    if alpha != 1:
        sums = to.add("Mul", sums, to.constant(alpha))
    result = to.scaled(sums, (a_scale, b_scale), y_scale, 0)
    if y_scale:
        to.rounded(result, y_zero, node.output[0])
    else:
        to.add("Identity", result, output=node.output[0])


def _conv_integer(to: Rewriter, node: NodeProto, attributes: dict[str, Any]) -> None:
    x, w, x_zero, w_zero = _inputs(node, 4)
    centred = (to.centred(x, x_zero), to.centred(w, w_zero, to.rank(w) - 1))
    to.add("Conv", *centred, output=node.output[0], **attributes)
    to.are_floats(node.output)


def _matmul_integer(to: Rewriter, node: NodeProto, _: dict[str, Any]) -> None:
    a, b, a_zero, b_zero = _inputs(node, 4)
    to.add("MatMul", to.centred(a, a_zero), to.centred(b, b_zero), output=node.output[0])
    to.are_floats(node.output)


def _matmul_to_float(to: Rewriter, node: NodeProto, _: dict[str, Any]) -> None:
    a, b, a_scale, b_scale, a_zero, b_zero, bias = _inputs(node, 7)
    sums = to.add("MatMul", to.centred(a, a_zero), to.centred(b, b_zero))
    _with_bias(to, to.scaled(sums, (a_scale, b_scale), "", 0), bias, node)


def _dynamic_quantize_matmul(to: Rewriter, node: NodeProto, _: dict[str, Any]) -> None:
    a, b, b_scale, b_zero, bias = _inputs(node, 5)
    names = [f"{node.output[0]}/{part}" for part in ("steps", "scale", "zero")]
    _quantise_by_range(to, a, *names)
    to.are_floats([names[1]])
    sums = to.add("MatMul", to.centred(names[0], names[2]), to.centred(b, b_zero))
    _with_bias(to, to.scaled(sums, (names[1], b_scale), "", 0), bias, node)


def _with_bias(to: Rewriter, value: str, bias: str, node: NodeProto) -> None:
    """Compute the output of *node*: *value* and *bias*, if there is one."""
    to.add("Add" if bias else "Identity", value, *([bias] if bias else []), output=node.output[0])


def _binary(operator: str) -> Rewriting:
    """Return the rewriting of an element-wise operator of two quantised tensors."""

    def rewrite(to: Rewriter, node: NodeProto, _: dict[str, Any]) -> None:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = _inputs(node, 8)
        real = (to.dequantised(a, a_scale, a_zero), to.dequantised(b, b_scale, b_zero))
        steps = to.add("Div", to.add(operator, *real), to.real(y_scale))
        to.rounded(steps, y_zero, node.output[0])

    return rewrite


def _unary(operator: str) -> Rewriting:
    """Return the rewriting of an operator of one quantised tensor."""

    def rewrite(to: Rewriter, node: NodeProto, attributes: dict[str, Any]) -> None:
        x, x_scale, x_zero, y_scale, y_zero = _inputs(node, 5)
        if attributes.pop("channels_last", 0):
            raise CannotRewrite
        # This is the opset of Softmax; only the last axis means the same in all.
        attributes.pop("opset", None)
        real = to.add(operator, to.dequantised(x, x_scale, x_zero), **attributes)
        to.rounded(to.add("Div", real, to.real(y_scale)), y_zero, node.output[0])

    return rewrite


def _qlinear_concat(to: Rewriter, node: NodeProto, attributes: dict[str, Any]) -> None:
    scale, zero, *rest = node.input
    parts = [to.dequantised(*rest[index : index + 3]) for index in range(0, len(rest), 3)]
    steps = to.add("Div", to.add("Concat", *parts, **attributes), to.real(scale))
    to.rounded(steps, zero, node.output[0])


_REWRITINGS: dict[str, Rewriting] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
    "DynamicQuantizeLinear": _dynamic_quantize_linear,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QGemm": _qgemm,
    "ConvInteger": _conv_integer,
    "MatMulInteger": _matmul_integer,
    "MatMulIntegerToFloat": _matmul_to_float,
    "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearSoftmax": _unary("Softmax"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearConcat": _qlinear_concat,
}
