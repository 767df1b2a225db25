"""Lower an ONNX graph in its normal form to the worker's graph, node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

# Imported because they register operators.
from fluxdrop.predict.compiler import elementwise, shaping, windows  # noqa: F401
from fluxdrop.predict.compiler.graph_file import Graph, Node
from fluxdrop.predict.compiler.operators import OPERATORS, NodeView, UnsupportedError
from fluxdrop.predict.compiler.source import opset_of, value_shape


def lower(model: ModelProto) -> Graph:
    """Return the worker's graph for *model*, which has one input and one output.

    Raises:
        UnsupportedError: When the worker cannot run a node. The message names the node, its operator
            and the reason.
    """
    graph = model.graph
    constants = {item.name: _constant(item) for item in graph.initializer}
    (model_input,) = [item for item in graph.input if item.name not in constants]
    shapes = {
        item.name: value_shape(item) for item in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes |= {item.name: tuple(item.dims) for item in graph.initializer}
    lowered = Graph(
        input=model_input.name,
        input_shape=shapes[model_input.name] or (),
        output=graph.output[0].name,
    )
    opset = opset_of(model)
    for index, proto in enumerate(graph.node):
        name = proto.name or f"{proto.op_type}_{index}"
        try:
            if proto.op_type == "Constant":
                constants[proto.output[0]] = _constant_node(proto)
            else:
                lowered.nodes.append(_node(proto, name, opset, shapes, constants))
        except UnsupportedError as error:
            raise UnsupportedError(f"node {name} ({proto.op_type}): {error}") from error
    used = {name for node in lowered.nodes for name in node.inputs}
    lowered.tensors = {name: value for name, value in constants.items() if name in used}
    return lowered


def _node(
    proto: NodeProto,
    name: str,
    opset: int,
    shapes: dict[str, tuple[int, ...] | None],
    constants: dict[str, NDArray[Any]],
) -> Node:
    """Return the graph's node for *proto*; raise UnsupportedError if its operator is not registered."""
    build = OPERATORS.get(proto.op_type)
    if build is None or proto.domain not in ("", "ai.onnx"):
        raise UnsupportedError("this operator is not supported")
    attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
    view = NodeView(proto.op_type, proto.input, attributes, opset, shapes, constants)
    return Node(proto.op_type, list(proto.input), list(proto.output), name, build(view))


def _constant(tensor: TensorProto) -> NDArray[Any]:
    """Return *tensor* as float32 or int64, little-endian."""
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind in "iub":
        return array.astype("<i8")
    if array.dtype.kind != "f":
        raise UnsupportedError(f"the tensor {tensor.name} holds {array.dtype}, not numbers")
    return array.astype("<f4")


def _constant_node(proto: NodeProto) -> NDArray[Any]:
    """Return the value of a Constant node."""
    for attribute in proto.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return _constant(value)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(value, dtype="<f4")
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(value, dtype="<i8")
    raise UnsupportedError("its value is neither a tensor nor numbers")
