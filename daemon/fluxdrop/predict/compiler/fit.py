"""Does a model fit its model.toml? And the model such that it takes what every engine is given."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.compiler.source import FLOATS, OLDEST_OPSET, opset_of, value_shape
from fluxdrop.predict.interface import Shape, label_output, picture_shape

NAME_THE_OUTPUT = "Name it with --output-name, which is output_name in model.toml."

_PICTURES = "fluxdrop/pictures"


def fitted(model: ModelProto, bundle: Bundle) -> ModelProto:
    """*model* with one input of the shape that *bundle*'s model.toml makes, and one output.

    Raises FluxdropError, kind ``model``, where the two do not fit.
    """
    opset = opset_of(model)
    if opset < OLDEST_OPSET:
        raise FluxdropError(
            f"{bundle.onnx} cannot be used: it has opset {opset}, older than {OLDEST_OPSET}",
            hint="Export it again, with a newer opset.",
            kind="model",
        )
    _refuse_training(model, bundle)
    changed = ModelProto()
    changed.CopyFrom(model)
    _fit_input(changed, bundle)
    _fit_output(changed, bundle)
    return changed


def refused(bundle: Bundle, reason: str, hint: str = "") -> FluxdropError:
    """That *bundle*'s model cannot be used, to be raised."""
    return FluxdropError(f"{bundle.onnx} cannot be used: {reason}", hint=hint, kind="model")


def _refuse_training(model: ModelProto, bundle: Bundle) -> None:
    for node in model.graph.node:
        if any(item.name == "training_mode" and item.i for item in node.attribute):
            raise refused(
                bundle,
                f"node {node.name or node.output[0]} ({node.op_type}) is in training mode, in which"
                " a picture's answer depends on the pictures beside it",
                hint="Export the model for inference; in PyTorch: model.eval().",
            )


def _fit_input(model: ModelProto, bundle: Bundle) -> None:
    given = _only_input(model, bundle)
    declared = value_shape(given)
    wanted = bundle.spec.input.shape[1:]
    shape = picture_shape(declared, bundle.spec.input)
    if shape is None:
        raise refused(
            bundle,
            f"its input {given.name} has shape {_readable(declared)},"
            f" and its model.toml makes {_readable((-1, *wanted))}",
        )
    if given.type.tensor_type.elem_type not in FLOATS:
        kind = TensorProto.DataType.Name(given.type.tensor_type.elem_type).lower()
        raise refused(bundle, f"its input {given.name} holds {kind}, not float32")
    pictures = ValueInfoProto()
    pictures.CopyFrom(given)
    dims = pictures.type.tensor_type.shape.dim
    del dims[1:]
    for size in wanted:
        dims.add().dim_value = size
    graph = model.graph
    if shape != wanted:
        pictures.name = _PICTURES
        target = f"{_PICTURES}/shape"
        value = numpy_helper.from_array(np.array([0, *shape]))
        graph.node.insert(0, helper.make_node("Constant", [], [target], value=value))
        graph.node.insert(1, helper.make_node("Reshape", [_PICTURES, target], [given.name]))
    position = list(graph.input).index(given)
    graph.input[position].CopyFrom(pictures)


def _only_input(model: ModelProto, bundle: Bundle) -> ValueInfoProto:
    initialised = {item.name for item in model.graph.initializer}
    inputs: list[ValueInfoProto] = [
        item for item in model.graph.input if item.name not in initialised
    ]
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs)
        raise refused(bundle, f"it has {len(inputs)} inputs ({names}), not one")
    return inputs[0]


def _fit_output(model: ModelProto, bundle: Bundle) -> None:
    graph = model.graph
    # scikit-learn's models end in one dictionary a picture, of the labels and a row of this tensor.
    tables = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "ZipMap"}
    labels = len(bundle.spec.labels)
    outputs = {item.name: item for item in graph.output}
    shapes = {
        name: (-1, -1) if name in tables else _float_shape(item) for name, item in outputs.items()
    }
    try:
        chosen = label_output(shapes, labels, bundle.spec.output_name)
    except ValueError as error:
        raise refused(bundle, str(error), hint=NAME_THE_OUTPUT) from error
    if shapes[chosen] is None:
        kind = TensorProto.DataType.Name(outputs[chosen].type.tensor_type.elem_type).lower()
        raise refused(bundle, f"its output {chosen} holds {kind}, not float32")
    output = ValueInfoProto()
    output.CopyFrom(outputs[chosen])
    if output.name in tables:
        output = helper.make_tensor_value_info(tables[output.name], TensorProto.FLOAT, None)
    del graph.output[:]
    graph.output.append(output)
    nodes = _needed(graph.node, output.name)
    del graph.node[:]
    graph.node.extend(nodes)


def _float_shape(item: ValueInfoProto) -> Shape | None:
    if item.type.tensor_type.elem_type not in FLOATS:
        return None
    return value_shape(item) or (-1, -1)


def _needed(nodes: Iterable[NodeProto], output: str) -> list[NodeProto]:
    """Those of *nodes* that *output* depends on."""
    read = {output}
    needed = []
    for node in reversed(list(nodes)):
        if read.intersection(node.output):
            read |= _read(node)
            needed.append(node)
    return needed[::-1]


def _read(node: NodeProto) -> set[str]:
    """What *node* reads, and what the graphs do that it holds."""
    graphs = [graph for item in node.attribute for graph in (item.g, *item.graphs)]
    return set(node.input).union(*(_read(inner) for graph in graphs for inner in graph.node))


def _readable(shape: Shape | None) -> str:
    if shape is None:
        return "(unknown)"
    return "[" + ", ".join("N" if size < 0 else str(size) for size in shape) + "]"
