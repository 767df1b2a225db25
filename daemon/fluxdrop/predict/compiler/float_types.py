"""Convert models of other float types to float32, the only float type of the normal form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

_OTHER_FLOATS = {TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
FLOATS = {TensorProto.FLOAT, *_OTHER_FLOATS}
"""The element types that the normal form has as float32."""

_TYPE_ATTRIBUTES = {"to", "dtype", "output_dtype", "stash_type"}
_LARGEST = float(np.finfo(np.float32).max)


def other_floats(model: ModelProto) -> set[str]:
    """Return the names of the float types of *model* other than float32, such as ``float16``."""
    found = {item.type.tensor_type.elem_type for item in (*model.graph.input, *model.graph.output)}
    for graph in _graphs(model.graph):
        found |= {tensor.data_type for tensor in graph.initializer}
        for node in graph.node:
            found |= {item.t.data_type for item in node.attribute if item.HasField("t")}
            found |= {item.i for item in node.attribute if item.name in _TYPE_ATTRIBUTES}
    return {TensorProto.DataType.Name(kind).lower() for kind in found & _OTHER_FLOATS}


def as_float32(model: ModelProto) -> ModelProto:
    """Return *model* with all float tensors, inputs, outputs and casts as float32: a copy if there are others.

    Numbers beyond the range of float32 become its largest.
    """
    if not other_floats(model):
        return model
    changed = ModelProto()
    changed.CopyFrom(model)
    for graph in _graphs(changed.graph):
        for tensor in graph.initializer:
            _convert_tensor(tensor)
        for item in (*graph.input, *graph.output):
            if item.type.tensor_type.elem_type in _OTHER_FLOATS:
                item.type.tensor_type.elem_type = TensorProto.FLOAT
        # These state the original types, and are inferred again.
        del graph.value_info[:]
        for node in graph.node:
            _convert_attributes(node)
    return changed


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield *graph* and all graphs in its nodes."""
    yield graph
    for node in graph.node:
        for item in node.attribute:
            for inner in (item.g, *item.graphs) if item.HasField("g") else item.graphs:
                yield from _graphs(inner)


def _convert_attributes(node: NodeProto) -> None:
    """Convert the tensors and the types among the attributes of *node*."""
    for item in node.attribute:
        if item.HasField("t"):
            _convert_tensor(item.t)
        elif item.name in _TYPE_ATTRIBUTES and item.i in _OTHER_FLOATS:
            item.i = TensorProto.FLOAT


def _convert_tensor(tensor: TensorProto) -> None:
    """Convert *tensor* to float32 in place, if it holds other floats."""
    if tensor.data_type in _OTHER_FLOATS:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.DOUBLE:
            array = np.where(np.isinf(array), array, np.clip(array, -_LARGEST, _LARGEST))
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
