"""Keep large weights out of the copies that onnx and onnxruntime make of a model.

onnx's functions copy a model to and from C++ up to five times, and a message of protobuf has at most 2 GiB.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper
from onnx.external_data_helper import set_external_data

_LARGE = 1 << 14
"""From so many numbers on, a weight is no shape, axis or the like, whose value says something about a graph."""

_WEIGHTS = "weights"

OPTIMISED_WEIGHTS = {
    "session.optimized_model_external_initializers_file_name": "optimised-weights",
    "session.optimized_model_external_initializers_min_size_in_bytes": str(4 * _LARGE),
}
"""Entries of onnxruntime's session options that make it write large weights to a file of their own."""


def change_without_weights(
    model: ModelProto, change: Callable[[ModelProto], ModelProto]
) -> ModelProto:
    """Change *model* in place to what *change* makes of it, and return it.

    *change* gets a copy that has the large weights as inputs, and must keep these.
    """
    light = _copy_without_weights(model)
    large = [tensor for tensor in model.graph.initializer if _is_large(tensor)]
    light.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in large
    )
    changed = change(light)
    names = {tensor.name for tensor in large}
    graph = model.graph
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in names:
            del graph.initializer[index]
    graph.initializer.extend(changed.graph.initializer)
    inputs = [item for item in changed.graph.input if item.name not in names]
    for field, values in (
        (graph.node, changed.graph.node),
        (graph.input, inputs),
        (graph.output, changed.graph.output),
        (graph.value_info, changed.graph.value_info),
        (model.opset_import, changed.opset_import),
    ):
        del field[:]
        field.extend(values)
    model.ir_version = changed.ir_version
    return model


def structure(model: ModelProto) -> ModelProto:
    """Return a copy of *model* without its large weights, for `restore`."""
    return _copy_without_weights(model)


def restore(model: ModelProto, kept: ModelProto) -> None:
    """Make *model*, whose large weights are still the same, what it was when `structure` returned *kept*."""
    change_without_weights(model, lambda _: kept)


def save(model: ModelProto, folder: Path) -> Path:
    """Write *model* to *folder*, its large weights to a file of their own, and return its path."""
    light = _copy_without_weights(model)
    with (folder / _WEIGHTS).open("wb") as file:
        for tensor in model.graph.initializer:
            if not _is_large(tensor):
                continue
            if not tensor.HasField("raw_data"):
                light.graph.initializer.append(tensor)
                continue
            reference = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            data = tensor.raw_data
            # An empty value, because onnx wants one to be there.
            reference.raw_data = b""
            set_external_data(reference, _WEIGHTS, offset=file.tell(), length=len(data))
            reference.ClearField("raw_data")
            light.graph.initializer.append(reference)
            file.write(data)
            # onnxruntime maps what begins at a page.
            file.write(bytes(-file.tell() % 4096))
    path = folder / "model.onnx"
    path.write_bytes(light.SerializeToString())
    return path


def load(path: Path) -> ModelProto:
    """Return the model that `save`, or onnxruntime in the same way, wrote to *path*."""
    return onnx.load(path)


def _is_large(tensor: TensorProto) -> bool:
    return bool(math.prod(tensor.dims) >= _LARGE)


def _copy_without_weights(model: ModelProto) -> ModelProto:
    """Return a copy of *model* without its large initializers."""
    copy = ModelProto()
    graph = GraphProto()
    for source, target, apart in ((model, copy, "graph"), (model.graph, graph, "initializer")):
        for descriptor, value in source.ListFields():
            if descriptor.name == apart:
                continue
            if descriptor.is_repeated:
                getattr(target, descriptor.name).extend(value)
            elif descriptor.message_type is not None:
                getattr(target, descriptor.name).CopyFrom(value)
            else:
                setattr(target, descriptor.name, value)
    graph.initializer.extend(tensor for tensor in model.graph.initializer if not _is_large(tensor))
    copy.graph.CopyFrom(graph)
    return copy
