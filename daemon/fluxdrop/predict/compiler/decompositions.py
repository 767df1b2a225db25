"""Standard operators as combinations of others that the worker has.

Semantics: the operator's page in the ONNX documentation, https://onnx.ai/onnx/operators/onnx__NAME.html.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from fluxdrop.predict.compiler.operators import NodeView, UnsupportedError
from fluxdrop.predict.compiler.rewriters import Replacement, rewriter


@rewriter("Shape")
def _shape(node: NodeView, new: Replacement) -> None:
    """Return a constant where the sizes are known; onnxruntime folds it only where all of them are."""
    shape = node.shapes.get(node.inputs[0])
    sizes = (-1,) if shape is None else shape[_shape_slice(node.attributes)]
    if min(sizes, default=0) < 0:
        raise UnsupportedError("the size of its input is not known")
    new.finish("Identity", np.array(sizes, dtype=np.int64))


@rewriter("Gather")
def _size(node: NodeView, new: Replacement) -> None:
    """Return a constant for a known size that is taken out of a Shape."""
    source = node.producers.get(node.inputs[0])
    if source is None or source.op_type != "Shape" or source.attribute:
        raise UnsupportedError("it gathers no sizes")
    shape = node.shapes.get(source.input[0]) or ()
    places = node.constant(1)
    if not shape or (np.abs(places + 0.5) > len(shape)).any():
        raise UnsupportedError("the size is not known")
    sizes = np.array(shape, dtype=np.int64)[places]
    if (sizes < 0).any():
        raise UnsupportedError("the size is not known")
    new.finish("Identity", sizes)


def _shape_slice(attributes: dict[str, Any]) -> slice:
    return slice(attributes.get("start", 0), attributes.get("end"))


@rewriter("Trilu")
def _trilu(node: NodeView, new: Replacement) -> None:
    diagonal = int(node.constant(1).item()) if len(node.inputs) > 1 and node.inputs[1] else 0
    rows, columns = _sizes(node)[-2:]
    is_upper = bool(node.attributes.get("upper", 1))
    below = np.tri(rows, columns, diagonal - is_upper, dtype=np.bool_)
    zero = np.zeros((), _dtype(node))
    new.finish("Where", ~below if is_upper else below, node.inputs[0], zero)


@rewriter("EyeLike")
def _eye_like(node: NodeView, new: Replacement) -> None:
    rows, columns = _sizes(node)
    dtype = helper.tensor_dtype_to_np_dtype(int(node.attributes.get("dtype", node.element_type())))
    new.finish("Identity", np.eye(rows, columns, int(node.attributes.get("k", 0)), dtype))


@rewriter("OneHot")
def _one_hot(node: NodeView, new: Replacement) -> None:
    rank = node.rank() + 1
    axis = int(node.attributes.get("axis", -1)) % rank
    depth = new.add("Reshape", new.add("Cast", node.inputs[1], to=TensorProto.INT64), np.array([1]))
    count = new.add("Range", np.array(0), new.add("Squeeze", depth), np.array(1))
    sides = np.array([-1 if dim == axis else 1 for dim in range(rank)])
    places = new.add("Reshape", count, sides)
    indices = new.add("Unsqueeze", new.add("Cast", node.inputs[0], to=TensorProto.INT64), [axis])
    from_end = new.add("Equal", indices, new.add("Sub", places, depth))
    chosen = new.add("Or", new.add("Equal", indices, places), from_end)
    off, on = (new.add("Gather", node.inputs[2], np.array(index)) for index in (0, 1))
    new.finish("Where", chosen, on, off)


@rewriter("Compress")
def _compress(node: NodeView, new: Replacement) -> None:
    places = np.flatnonzero(node.constant(1))
    if "axis" in node.attributes:
        new.finish("Gather", node.inputs[0], places, axis=int(node.attributes["axis"]))
    else:
        new.finish("Gather", new.add("Reshape", node.inputs[0], [-1]), places, axis=0)


@rewriter("ReverseSequence")
def _reverse_sequence(node: NodeView, new: Replacement) -> None:
    batch, time = (
        int(node.attributes.get(f"{name}_axis", of)) for name, of in (("batch", 1), ("time", 0))
    )
    lengths = node.constant(1)
    steps = np.arange(_sizes(node)[time])
    ends = lengths.reshape(-1, 1)
    indices = np.where(steps < ends, ends - 1 - steps, steps)
    order = [batch, time, *(dim for dim in range(node.rank()) if dim not in (batch, time))]
    picked = new.add(
        "GatherND",
        new.add("Transpose", node.inputs[0], perm=order),
        indices[..., None],
        batch_dims=1,
    )
    new.finish("Transpose", picked, perm=[order.index(dim) for dim in range(len(order))])


@rewriter("IsInf")
def _is_inf(node: NodeView, new: Replacement) -> None:
    positive, negative = (
        new.add("Equal", node.inputs[0], value) for value in (math.inf, -math.inf)
    )
    detected = [
        name
        for name, sign in ((positive, "positive"), (negative, "negative"))
        if node.attributes.get(f"detect_{sign}", 1)
    ]
    # No number is both.
    operator = "Or" if detected else "And"
    new.finish(operator, *(detected * 2 if len(detected) == 1 else (positive, negative)))


@rewriter("AffineGrid")
def _affine_grid(node: NodeView, new: Replacement) -> None:
    sizes = node.constant(1).tolist()[2:]
    # The places of the pixels, from -1 to 1, innermost axis first, and a one for the shift.
    is_aligned = bool(node.attributes.get("align_corners", 0))
    axes = [
        np.linspace(-1, 1, size) if is_aligned else (2 * np.arange(size) + 1) / size - 1
        for size in sizes
    ]
    places = [grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")][::-1]
    base = np.stack([*places, np.ones(math.prod(sizes))], axis=1).astype(np.float32)
    moved = new.add("MatMul", base, new.add("Transpose", node.inputs[0], perm=[0, 2, 1]))
    new.finish("Reshape", moved, [0, *sizes, len(sizes)])


@rewriter("Swish")
def _swish(node: NodeView, new: Replacement) -> None:
    # onnxruntime has no kernel for Swish; `fusion` makes one again, where alpha is 1.
    alpha = node.number("alpha", 1.0)
    scaled = node.inputs[0] if alpha == 1 else new.add("Mul", node.inputs[0], alpha)
    new.finish("Mul", node.inputs[0], new.add("Sigmoid", scaled))


@rewriter("LpNormalization")
def _lp_normalization(node: NodeView, new: Replacement) -> None:
    operator = "ReduceL1" if node.attributes.get("p", 2) == 1 else "ReduceL2"
    norm = new.add(operator, node.inputs[0], [int(node.attributes.get("axis", -1))], keepdims=1)
    # A row of zeros stays zero, instead of a division by zero.
    new.finish("Div", node.inputs[0], new.add("Max", norm, float(np.finfo(np.float32).tiny)))


@rewriter("Col2Im")
def _col2im(node: NodeView, new: Replacement) -> None:
    """Add the blocks up by a ConvTranspose, whose kernels have a single one each."""
    image, block = (node.constant(index).tolist() for index in (1, 2))
    dimensions = range(len(block))
    strides = node.ints("strides", [1] * len(block))
    dilations = node.ints("dilations", [1] * len(block))
    pads = node.ints("pads", [0] * (2 * len(block)))
    blocks, rest = [], []
    for dim in dimensions:
        extent = dilations[dim] * (block[dim] - 1) + 1
        room = image[dim] + pads[dim] + pads[dim + len(block)] - extent
        blocks.append(room // strides[dim] + 1)
        rest.append(room % strides[dim])
    size = math.prod(block)
    channels = _sizes(node, 1)[1] // size
    kernels = np.tile(np.eye(size, dtype=np.float32), (channels, 1)).reshape(-1, 1, *block)
    new.finish(
        "ConvTranspose",
        new.add("Reshape", node.inputs[0], [0, channels * size, *blocks]),
        kernels,
        group=channels,
        strides=strides,
        dilations=dilations,
        pads=pads,
        output_padding=rest,
    )


def _sizes(node: NodeView, first: int = 0) -> tuple[int, ...]:
    """Return the shape of the first input, whose sizes from the axis *first* on have to be known.

    Raises:
        UnsupportedError: When they are not.
    """
    shape = node.shapes.get(node.inputs[0])
    if shape is None or min(shape[first:], default=0) < 0:
        raise UnsupportedError("the size of its input is not known")
    return shape


def _dtype(node: NodeView) -> Any:
    """Return NumPy's type of the first input's elements."""
    return helper.tensor_dtype_to_np_dtype(node.element_type())
