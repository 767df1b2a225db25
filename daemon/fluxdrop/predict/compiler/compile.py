"""Compile a bundle's ONNX model: read it safely, infer shapes, and map each node."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)
from onnx.checker import ValidationError as CheckError
from onnx.shape_inference import InferenceError

from fluxdrop.durable import write
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.compiler.graph_file import VERSION, Graph, Node
from fluxdrop.predict.compiler.operators import OPERATORS, NodeView, UnsupportedError

# Before it, operators took attributes for what is now broadcasting; onnxruntime takes none older.
_OLDEST_OPSET = 7

COMPILER_VERSION = 1
"""Raised whenever the same model compiles to something else, so that no old compilation is taken."""


def compiled(bundle: Bundle, cache: Path | None) -> bytes:
    """The graph file of *bundle*, out of the folder *cache* where it was compiled before."""
    if cache is None:
        return compile_bundle(bundle)
    path = cache / f"{bundle.sha256}-{VERSION}.{COMPILER_VERSION}.graph"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        graph = compile_bundle(bundle)
        # Without room for a copy the next start compiles again.
        with contextlib.suppress(OSError):
            write(path, graph)
        return graph


def compile_bundle(bundle: Bundle) -> bytes:
    """Compile *bundle* to a graph file.

    Raises FluxdropError, kind ``model``, that names the file, and the node with its operator where it is one node's
    doing, when the model is damaged, does not fit its model.toml, or needs something that the worker cannot do.
    """
    data = bundle.onnx.read_bytes()
    if hashlib.sha256(data).hexdigest() != bundle.sha256:
        raise _refused(bundle, "it changed while it was being read")
    try:
        return _compile(bundle, _checked(bundle, data)).to_bytes()
    except (CheckError, DecodeError, InferenceError, LookupError, ValueError) as error:
        # What the checker lets pass of a damaged model shows when it is used.
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise FluxdropError(
            f"{bundle.onnx} is not a sound ONNX model: {reason}",
            hint="Export it again.",
            kind="model",
        ) from error


def _checked(bundle: Bundle, data: bytes) -> ModelProto:
    model = ModelProto.FromString(data)
    # Before the checker, which looks for external data in the working folder.
    _refuse_external(bundle, model)
    onnx.checker.check_model(model)
    return shape_inference.infer_shapes(model)


def _compile(bundle: Bundle, model: ModelProto) -> Graph:
    opset = _opset(bundle, model)
    model_input = _only_input(bundle, model)
    if len(model.graph.output) != 1:
        names = ", ".join(output.name for output in model.graph.output)
        raise _refused(bundle, f"it has {len(model.graph.output)} outputs ({names}), not one")
    graph = Graph(
        input=model_input.name,
        input_shape=_free_batch(_shape(model_input) or ()),
        output=model.graph.output[0].name,
    )
    constants = {item.name: _constant(bundle, item) for item in model.graph.initializer}
    shapes = _shapes(model)
    wanted = {name for proto in model.graph.node for name in proto.input if name}
    wanted.add(graph.output)
    for index, proto in enumerate(model.graph.node):
        try:
            if proto.op_type == "Constant":
                constants[proto.output[0]] = _constant_node(bundle, proto)
                continue
            if wanted & set(proto.output[1:]):
                raise UnsupportedError("another output of it than the first is used")
            graph.nodes.append(_node(proto, index, opset, shapes, constants))
        except UnsupportedError as error:
            name = proto.name or f"number {index}"
            raise _refused(bundle, f"node {name} ({proto.op_type}): {error}") from error
    used = {name for node in graph.nodes for name in node.inputs}
    graph.tensors = {name: value for name, value in constants.items() if name in used}
    return graph


def _opset(bundle: Bundle, model: ModelProto) -> int:
    opset = max(
        (item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0
    )
    if opset < _OLDEST_OPSET:
        raise FluxdropError(
            f"{bundle.onnx} cannot be used: it has opset {opset}, older than {_OLDEST_OPSET}",
            hint="Export it again, with a newer opset.",
            kind="model",
        )
    return opset


def _only_input(bundle: Bundle, model: ModelProto) -> ValueInfoProto:
    initialised = {item.name for item in model.graph.initializer}
    inputs: list[ValueInfoProto] = [
        item for item in model.graph.input if item.name not in initialised
    ]
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs)
        raise _refused(bundle, f"it has {len(inputs)} inputs ({names}), not one")
    shape = _shape(inputs[0])
    wanted = bundle.spec.input.shape
    fits = shape is not None and len(shape) == 4
    if (
        shape is None
        or not fits
        or any(have not in (-1, want) for have, want in zip(shape[1:], wanted[1:], strict=True))
    ):
        raise _refused(
            bundle,
            f"its input {inputs[0].name} has shape {_readable(shape)},"
            f" and its model.toml makes {_readable((-1, *wanted[1:]))}",
        )
    if inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise _refused(bundle, f"its input {inputs[0].name} is not float32")
    return inputs[0]


def _node(
    proto: NodeProto,
    index: int,
    opset: int,
    shapes: dict[str, tuple[int, ...] | None],
    constants: dict[str, NDArray[Any]],
) -> Node:
    build = OPERATORS.get(proto.op_type)
    if build is None or proto.domain not in ("", "ai.onnx"):
        raise UnsupportedError("this operator is not supported")
    attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
    view = NodeView(proto.op_type, proto.input, attributes, opset, shapes, constants)
    return Node(
        operator=proto.op_type,
        inputs=list(proto.input),
        outputs=list(proto.output)[:1],
        name=proto.name or f"{proto.op_type}_{index}",
        attributes=build(view),
    )


def _refuse_external(bundle: Bundle, model: ModelProto) -> None:
    """A file beside the model is nothing that the model may choose."""
    attributes = [item for node in model.graph.node for item in node.attribute]
    for tensor in (*model.graph.initializer, *(item.t for item in attributes)):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise FluxdropError(
                f"{bundle.onnx} cannot be used: its tensor {tensor.name} lies outside the file",
                hint="Save the model as one file: onnx.save(onnx.load(FILE), FILE).",
                kind="model",
            )


def _constant(bundle: Bundle, tensor: TensorProto) -> NDArray[Any]:
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind in "iub":
        return array.astype("<i8")
    if array.dtype.kind != "f":
        raise _refused(bundle, f"its tensor {tensor.name} holds {array.dtype}, not numbers")
    return array.astype("<f4")


def _constant_node(bundle: Bundle, proto: NodeProto) -> NDArray[Any]:
    for attribute in proto.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return _constant(bundle, value)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(value, dtype="<f4")
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(value, dtype="<i8")
    raise UnsupportedError("its value is neither a tensor nor numbers")


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...] | None]:
    graph = model.graph
    shapes = {item.name: _shape(item) for item in (*graph.input, *graph.value_info, *graph.output)}
    return shapes | {item.name: tuple(item.dims) for item in graph.initializer}


def _shape(item: ValueInfoProto) -> tuple[int, ...] | None:
    tensor = item.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)


def _free_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (-1, *shape[1:])


def _readable(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return "(unknown)"
    return "[" + ", ".join("N" if size < 0 else str(size) for size in shape) + "]"


def _refused(bundle: Bundle, reason: str) -> FluxdropError:
    return FluxdropError(f"{bundle.onnx} cannot be used: {reason}.", kind="model")
