"""Element-wise operators, reductions and matrix products: the attributes that the worker needs.

Semantics: the operator's page in the ONNX documentation, https://onnx.ai/onnx/operators/onnx__NAME.html.
"""

from __future__ import annotations

from onnx import TensorProto

from fluxdrop.predict.compiler.graph_file import Attribute
from fluxdrop.predict.compiler.operators import NodeView, UnsupportedError, no_attributes, operator
from fluxdrop.predict.compiler.shaping import resolve_axis_if_known

_WITHOUT_ATTRIBUTES = (
    "Relu Sigmoid Tanh Softplus Softsign Mish HardSwish Erf PRelu"
    " Abs Neg Reciprocal Exp Log Sqrt Floor Ceil Round Sign"
    " Sin Cos Tan Asin Acos Atan"
    " Sinh Cosh Asinh Acosh Atanh"
    " Add Sub Mul Div Pow Min Max Sum Mean Clip MatMul"
    " Equal Greater Less GreaterOrEqual LessOrEqual"
    " Not And Or Xor Where IsNaN Identity"
)
operator(*_WITHOUT_ATTRIBUTES.split())(no_attributes)


@operator("LeakyRelu")
def _leaky_relu(node: NodeView) -> dict[str, Attribute]:
    return {"alpha": node.number("alpha", 0.01)}


@operator("Elu", "Celu", "ThresholdedRelu", "Swish")
def _alpha_activation(node: NodeView) -> dict[str, Attribute]:
    return {"alpha": node.number("alpha", 1.0)}


@operator("Selu")
def _selu(node: NodeView) -> dict[str, Attribute]:
    return {
        "alpha": node.number("alpha", 1.67326319217681884765625),
        "gamma": node.number("gamma", 1.05070102214813232421875),
    }


@operator("HardSigmoid")
def _hard_sigmoid(node: NodeView) -> dict[str, Attribute]:
    return {"alpha": node.number("alpha", 0.2), "beta": node.number("beta", 0.5)}


@operator("Gelu")
def _gelu(node: NodeView) -> dict[str, Attribute]:
    return {"approximate": node.attributes.get("approximate", b"none").decode()}


@operator("Mod")
def _mod(node: NodeView) -> dict[str, Attribute]:
    return {"fmod": int(node.attributes.get("fmod", 0))}


@operator("Softmax", "LogSoftmax", "Hardmax")
def _softmax(node: NodeView) -> dict[str, Attribute]:
    # Before opset 13 the dimensions from the axis on were flattened into one ("coerce"). That makes no
    # difference when the axis is the last one.
    shape = node.shapes.get(node.inputs[0])
    value = resolve_axis_if_known(node, -1 if node.opset >= 13 else 1)
    is_last = value == -1 or (shape is not None and value == len(shape) - 1)
    return {"axis": value, "coerce": int(node.opset < 13 and not is_last)}


@operator("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2")
@operator("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
def _reduce(node: NodeView) -> dict[str, Attribute]:
    return {
        "keepdims": int(node.attributes.get("keepdims", 1)),
        "noop_with_empty_axes": int(node.attributes.get("noop_with_empty_axes", 0)),
    }


@operator("ArgMax", "ArgMin")
def _arg_max_min(node: NodeView) -> dict[str, Attribute]:
    return {
        "axis": resolve_axis_if_known(node, 0),
        "keepdims": int(node.attributes.get("keepdims", 1)),
        "select_last_index": int(node.attributes.get("select_last_index", 0)),
    }


@operator("Gemm")
def _gemm(node: NodeView) -> dict[str, Attribute]:
    return {
        "alpha": node.number("alpha", 1.0),
        "beta": node.number("beta", 1.0),
        "transA": int(node.attributes.get("transA", 0)),
        "transB": int(node.attributes.get("transB", 0)),
    }


@operator("Einsum")
def _einsum(node: NodeView) -> dict[str, Attribute]:
    return {"equation": node.attributes["equation"].decode()}


@operator("Dropout")
def _dropout(node: NodeView) -> dict[str, Attribute]:
    # Dropout does something in training mode only: the third input is true and the ratio, the second
    # input, is above zero.
    if len(node.inputs) > 2 and node.inputs[2] and node.constant(2).any():
        ratio = node.constant(1).max() if node.inputs[1] else 0.5
        if ratio > 0:
            raise UnsupportedError("it is in training mode; export the model for inference")
    return {}


_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_INTEGERS = (
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.UINT32,
    TensorProto.UINT64,
)


@operator("Cast")
def _cast(node: NodeView) -> dict[str, Attribute]:
    """Return the target type; all float types become float32."""
    to = int(node.attributes["to"])
    if to in _FLOATS:
        return {"to": int(TensorProto.FLOAT)}
    if to not in (*_INTEGERS, TensorProto.BOOL):
        raise UnsupportedError(f"it casts to {TensorProto.DataType.Name(to)}")
    return {"to": to}
