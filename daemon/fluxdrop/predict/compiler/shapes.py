"""The shapes of an ONNX model's values."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto, helper, shape_inference
from onnx.shape_inference import InferenceError

from fluxdrop.predict.compiler.weights import change_without_weights
from fluxdrop.telemetry import import_onnxruntime


def value_shape(item: ValueInfoProto) -> tuple[int, ...] | None:
    """Return the shape of *item*: -1 is a dynamic dimension; None when it declares no shape."""
    tensor = item.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)


def with_inferred_shapes(model: ModelProto) -> ModelProto:
    """Add to *model* all shapes that onnx can infer, and return it."""
    try:
        return change_without_weights(
            model, lambda light: shape_inference.infer_shapes(light, data_prop=True)
        )
    except (InferenceError, ValueError):
        return model


def known_shapes(model: ModelProto) -> dict[str, tuple[int, ...] | None]:
    """Return the shapes of the values of *model* by name, as `value_shape` does."""
    graph = model.graph
    shapes = {
        item.name: value_shape(item) for item in (*graph.input, *graph.value_info, *graph.output)
    }
    return shapes | {item.name: tuple(item.dims) for item in graph.initializer}


def known_types(model: ModelProto) -> dict[str, TypeProto]:
    """Return the types of the values of *model* by name; only those that are known."""
    graph = model.graph
    types = {item.name: item.type for item in (*graph.input, *graph.value_info, *graph.output)}
    types |= {
        item.name: helper.make_tensor_type_proto(item.data_type, item.dims)
        for item in graph.initializer
    }
    return {name: kind for name, kind in types.items() if kind.WhichOneof("value")}


def with_onnxruntime_shapes(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """Return *model* with the shapes of the values *names*, as onnxruntime infers them for its own operators.

    It is returned without them when onnxruntime does not take the model.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    asked = ModelProto()
    asked.CopyFrom(model)
    del asked.graph.output[:]
    asked.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    try:
        session = ort.InferenceSession(
            asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # onnxruntime's exceptions share no class below Exception
        return model
    for item in session.get_outputs():
        if item.type == "tensor(float)" and item.shape:
            sizes = [size if isinstance(size, int) else None for size in item.shape]
            kind = TensorProto.FLOAT
            model.graph.value_info.append(helper.make_tensor_value_info(item.name, kind, sizes))
    return with_inferred_shapes(model)
