"""Check that a model fits its model.toml, and adapt its input and output to what every engine takes."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.class_maps import TAKE_THE_LABELS, class_order
from fluxdrop.predict.compiler.float_types import FLOATS
from fluxdrop.predict.compiler.quantised import dequantised, is_dynamically_quantised
from fluxdrop.predict.compiler.shapes import value_shape
from fluxdrop.predict.compiler.source import OLDEST_OPSET, opset_of
from fluxdrop.predict.compiler.tidy import dependencies
from fluxdrop.predict.model_signature import (
    INTEGERS,
    Shape,
    integer_problem,
    label_output,
    picture_shape,
)

NAME_THE_OUTPUT = "Name it with --output-name, which is output_name in model.toml."

_PICTURES = "fluxdrop/pictures"
_PIXELS = (
    "Such a model takes the pixels as they are: --scale 1 and no --std, and --mean 128 only for int8;"
    " these are also keys of model.toml."
)
_ORDERED = "fluxdrop/ordered"


def fit_to_spec(model: ModelProto, bundle: Bundle) -> ModelProto:
    """Change *model* so that it has one input, of the shape of *bundle*'s pictures, and one output; return it.

    Nodes are added where the model takes the pictures in another shape or type; nodes that the
    output does not depend on are removed.

    Raises:
        FluxdropError: Kind ``model``, when the model does not fit model.toml, is in training mode, or
            has an unsupported opset.
    """
    opset = opset_of(model)
    if opset < OLDEST_OPSET:
        raise FluxdropError(
            f"{bundle.onnx} cannot be used: it has opset {opset}, older than {OLDEST_OPSET}",
            hint="Export it again with a newer one, in PyTorch by torch.onnx.export(..., opset_version=18), or convert"
            " it with onnx.version_converter.",
            kind="model",
        )
    _check_not_training(model, bundle)
    _fit_input(model, bundle)
    _fit_output(model, bundle)
    return model


def unusable_error(bundle: Bundle, reason: str, hint: str = "") -> FluxdropError:
    """Return the error, of kind ``model``, that says for what *reason* the model of *bundle* cannot be used."""
    return FluxdropError(f"{bundle.onnx} cannot be used: {reason}", hint=hint, kind="model")


def _check_not_training(model: ModelProto, bundle: Bundle) -> None:
    """Refuse a model with a node in training mode."""
    for node in model.graph.node:
        if any(item.name == "training_mode" and item.i for item in node.attribute):
            raise unusable_error(
                bundle,
                f"node {node.name or node.output[0]} ({node.op_type}) is in training mode, in which"
                " the result for a picture depends on the other pictures of its batch",
                hint="Export the model for inference; in PyTorch: model.eval().",
            )


def _fit_input(model: ModelProto, bundle: Bundle) -> None:
    """Declare the model's input as float32 in the shape of the pictures.

    A Reshape and a Cast are added where the model wants another shape or integers.
    """
    given = _only_input(model, bundle)
    declared = value_shape(given)
    wanted = bundle.spec.input.shape[1:]
    shape = picture_shape(declared, bundle.spec.input)
    if shape is None:
        raise unusable_error(
            bundle,
            f"its input {given.name} has shape {_format_shape(declared)},"
            f" and its model.toml makes {_format_shape((-1, *wanted))}",
            hint="Say how it takes pictures: --size WIDTHxHEIGHT, --mode L for one channel, --layout NHWC for"
            " channels last.",
        )
    kind = given.type.tensor_type.elem_type
    if kind not in FLOATS:
        problem = _pixel_problem(given, bundle)
        if problem:
            raise unusable_error(bundle, f"its input {given.name} {problem}", hint=_PIXELS)
    pictures = ValueInfoProto()
    pictures.CopyFrom(given)
    dims = pictures.type.tensor_type.shape.dim
    if is_dynamically_quantised(model):
        # Else the result for a picture would depend on the other pictures of its batch.
        dims[0].dim_value = 1
    del dims[1:]
    for size in wanted:
        dims.add().dim_value = size
    graph = model.graph
    nodes = []
    if shape != wanted:
        target = f"{_PICTURES}/shape"
        value = numpy_helper.from_array(np.array([0, *shape]))
        nodes.append(helper.make_node("Constant", [], [target], value=value))
        nodes.append(helper.make_node("Reshape", [_PICTURES, target], [f"{_PICTURES}/reshaped"]))
    if kind not in FLOATS:
        pictures.type.tensor_type.elem_type = TensorProto.FLOAT
        source = nodes[-1].output[0] if nodes else _PICTURES
        nodes.append(helper.make_node("Cast", [source], [f"{_PICTURES}/cast"], to=kind))
    if nodes:
        pictures.name = _PICTURES
        nodes[-1].output[0] = given.name
        for index, node in enumerate(nodes):
            graph.node.insert(index, node)
    position = list(graph.input).index(given)
    graph.input[position].CopyFrom(pictures)


def _pixel_problem(given: ValueInfoProto, bundle: Bundle) -> str:
    """Return why the input *given*, which is not of floats, cannot take the pictures; empty if it can."""
    kind = given.type.tensor_type.elem_type
    name = TensorProto.DataType.Name(kind).lower()
    if name not in INTEGERS:
        return f"holds {name}, not numbers"
    return integer_problem(name, bundle.spec.input)


def _only_input(model: ModelProto, bundle: Bundle) -> ValueInfoProto:
    """Return the model's only input; raise if there is not exactly one."""
    inputs: list[ValueInfoProto] = list(model.graph.input)
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs)
        raise unusable_error(
            bundle,
            f"it has {len(inputs)} inputs ({names}), not one",
            hint="Export it with the picture as its only input; in PyTorch, of a module whose forward(picture) passes"
            " constants for the others.",
        )
    return inputs[0]


def _fit_output(model: ModelProto, bundle: Bundle) -> None:
    """Keep only the output with the answer, and the nodes that it depends on."""
    graph = model.graph
    chosen = chosen_output(model, bundle)
    (declared,) = [item for item in graph.output if item.name == chosen]
    output = ValueInfoProto()
    output.CopyFrom(declared)
    for node in graph.node:
        if node.op_type == "ZipMap" and output.name in node.output:
            # Of a class map its tensor is used, in the order of the labels in model.toml.
            output = _by_label(model, bundle, output.name, node.input[0])
            break
    if output.type.tensor_type.elem_type not in FLOATS:
        output.type.tensor_type.elem_type = TensorProto.FLOAT
        output.name = f"{chosen}/real"
        graph.node.extend(_real_numbers(model, chosen, output.name))
    del graph.output[:]
    graph.output.append(output)
    nodes = dependencies(graph.node, output.name)
    del graph.node[:]
    graph.node.extend(nodes)


def chosen_output(model: ModelProto, bundle: Bundle) -> str:
    """Return the name of the output of *model* that has the answer of *bundle*.

    Raises:
        FluxdropError: Kind ``model``, when it is not clear which one has, or when that one has no floats.
    """
    maps = {name for node in model.graph.node if node.op_type == "ZipMap" for name in node.output}
    shapes = {
        item.name: (-1, -1) if item.name in maps else _number_shape(model, item)
        for item in model.graph.output
    }
    try:
        chosen = label_output(shapes, bundle.spec.columns, bundle.spec.output_name)
    except ValueError as error:
        raise unusable_error(bundle, str(error), hint=NAME_THE_OUTPUT) from error
    if shapes[chosen] is None:
        (item,) = [item for item in model.graph.output if item.name == chosen]
        kind = TensorProto.DataType.Name(item.type.tensor_type.elem_type).lower()
        raise unusable_error(
            bundle,
            f"its output {chosen} holds {kind}, not float32",
            hint="Export it with the numbers before they are decided upon, such as probabilities, as an output.",
        )
    return chosen


def _by_label(model: ModelProto, bundle: Bundle, output: str, numbers: str) -> ValueInfoProto:
    """Return the output to use instead of the class map *output* of the tensor *numbers*: by bundle's labels."""
    try:
        order = class_order(model, output, bundle.spec.labels)
    except ValueError as error:
        raise unusable_error(bundle, str(error), hint=TAKE_THE_LABELS) from error
    if order != list(range(len(order))):
        places = numpy_helper.from_array(np.array(order))
        made = [f"{_ORDERED}/places", _ORDERED]
        model.graph.node.append(helper.make_node("Constant", [], made[:1], value=places))
        model.graph.node.append(helper.make_node("Gather", [numbers, made[0]], made[1:], axis=1))
        numbers = _ORDERED
    return helper.make_tensor_value_info(numbers, TensorProto.FLOAT, None)


def _number_shape(model: ModelProto, item: ValueInfoProto) -> Shape | None:
    """Return the shape of the output *item*, [-1, -1] if unknown; None when it is no tensor of real numbers."""
    is_float = item.type.tensor_type.elem_type in FLOATS
    if not is_float and not _real_numbers(model, item.name, ""):
        return None
    return value_shape(item) or (-1, -1)


def _real_numbers(model: ModelProto, name: str, result: str) -> list[NodeProto]:
    """Return the node that makes real numbers of the quantised tensor *name*; none if it is not quantised."""
    producers = [node for node in model.graph.node if name in node.output]
    made = [dequantised(node, result) for node in producers]
    return [node for node in made if node is not None]


def _format_shape(shape: Shape | None) -> str:
    """Format *shape* for an error message."""
    if shape is None:
        return "(unknown)"
    return "[" + ", ".join("N" if size < 0 else str(size) for size in shape) + "]"
