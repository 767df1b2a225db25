"""Convolution, pooling, normalisation, resizing and padding: the attributes that the worker needs.

Semantics: the operator's page in the ONNX documentation, https://onnx.ai/onnx/operators/onnx__NAME.html.
"""

from __future__ import annotations

from collections.abc import Sequence

from fluxdrop.predict.compiler.graph_file import Attribute
from fluxdrop.predict.compiler.operators import NodeView, UnsupportedError, operator, resolve_axis

_EPSILON = 1e-5


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: NodeView) -> dict[str, Attribute]:
    return {}


@operator("GlobalLpPool")
def _global_lp_pool(node: NodeView) -> dict[str, Attribute]:
    return {"p": _int(node, "p", 2)}


@operator("Conv")
def _conv(node: NodeView) -> dict[str, Attribute]:
    return {**_window(node, _kernel_sizes(node)), "group": _int(node, "group", 1)}


@operator("ConvTranspose")
def _conv_transpose(node: NodeView) -> dict[str, Attribute]:
    """Return the attributes; ``auto_pad`` and ``output_shape`` are resolved to explicit padding."""
    kernel = _kernel_sizes(node)
    strides = node.ints("strides", [1] * len(kernel))
    dilations = node.ints("dilations", [1] * len(kernel))
    padding = node.ints("output_padding", [0] * len(kernel))
    mode = node.text("auto_pad", "NOTSET")
    begin, end = _split_pads(node.ints("pads", [0] * (2 * len(kernel))))
    if mode != "NOTSET":
        begin, end = [0] * len(kernel), [0] * len(kernel)
    if mode.startswith("SAME") or "output_shape" in node.attributes:
        sizes = _spatial_sizes(node, len(kernel))
        outputs = node.ints("output_shape", [s * n for s, n in zip(strides, sizes, strict=True)])
        for i, output in enumerate(outputs[-len(kernel) :]):
            extent = strides[i] * (sizes[i] - 1) + dilations[i] * (kernel[i] - 1) + 1
            total = extent + padding[i] - output
            # Padding cannot be negative; the rest is added at the end of the output instead.
            padding[i] += max(0, -total)
            small, large = max(0, total) // 2, -(-max(0, total) // 2)
            begin[i], end[i] = (small, large) if mode == "SAME_UPPER" else (large, small)
    return {
        "strides": strides,
        "dilations": dilations,
        "pads": begin + end,
        "output_padding": padding,
        "group": _int(node, "group", 1),
    }


@operator("MaxPool")
def _max_pool(node: NodeView) -> dict[str, Attribute]:
    return {**_pool(node), "storage_order": _int(node, "storage_order", 0)}


@operator("AveragePool")
def _average_pool(node: NodeView) -> dict[str, Attribute]:
    return {**_pool(node), "count_include_pad": _int(node, "count_include_pad", 0)}


@operator("LpPool")
def _lp_pool(node: NodeView) -> dict[str, Attribute]:
    return {**_pool(node), "p": _int(node, "p", 2)}


@operator("BatchNormalization")
def _batch_normalization(node: NodeView) -> dict[str, Attribute]:
    return {
        "epsilon": node.number("epsilon", _EPSILON),
        "momentum": node.number("momentum", 0.9),
        "training_mode": _int(node, "training_mode", 0),
    }


@operator("InstanceNormalization")
def _instance_normalization(node: NodeView) -> dict[str, Attribute]:
    return {"epsilon": node.number("epsilon", _EPSILON)}


@operator("LayerNormalization")
def _layer_normalization(node: NodeView) -> dict[str, Attribute]:
    return {"axis": resolve_axis(node, -1), "epsilon": node.number("epsilon", _EPSILON)}


@operator("GroupNormalization")
def _group_normalization(node: NodeView) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {
        "num_groups": _int(node, "num_groups", 1),
        "epsilon": node.number("epsilon", _EPSILON),
    }
    if node.opset < 21:
        # Before opset 21 scale and bias are per group, so the worker needs the number of channels.
        shape = node.shapes.get(node.inputs[0]) or ()
        if len(shape) < 2 or shape[1] < 1:
            raise UnsupportedError("the number of channels of its input is not known")
        attributes["channels"] = shape[1]
    return attributes


@operator("LRN")
def _lrn(node: NodeView) -> dict[str, Attribute]:
    return {
        "size": _int(node, "size", 1),
        "alpha": node.number("alpha", 1e-4),
        "beta": node.number("beta", 0.75),
        "bias": node.number("bias", 1.0),
    }


@operator("Resize")
def _resize(node: NodeView) -> dict[str, Attribute]:
    rank = node.rank()
    old = node.opset < 11
    return {
        "mode": node.text("mode", "nearest"),
        "coordinate_transformation_mode": node.text(
            "coordinate_transformation_mode", "asymmetric" if old else "half_pixel"
        ),
        # Opset 10 has no such attribute, and rounds in a way that no later mode has.
        "nearest_mode": node.text("nearest_mode", "simple" if old else "round_prefer_floor"),
        "keep_aspect_ratio_policy": node.text("keep_aspect_ratio_policy", "stretch"),
        "antialias": _int(node, "antialias", 0),
        "exclude_outside": _int(node, "exclude_outside", 0),
        "cubic_coeff_a": node.number("cubic_coeff_a", -0.75),
        "extrapolation_value": node.number("extrapolation_value", 0.0),
        "axes": [value % rank for value in node.ints("axes", range(rank))],
    }


@operator("Upsample")
def _upsample(node: NodeView) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {"mode": node.text("mode", "nearest")}
    if "scales" in node.attributes:
        attributes["scales"] = [float(value) for value in node.attributes["scales"]]
    return attributes


@operator("GridSample")
def _grid_sample(node: NodeView) -> dict[str, Attribute]:
    # Before opset 20 the modes were called bilinear and bicubic.
    return {
        "mode": node.text("mode", "linear").removeprefix("bi"),
        "padding_mode": node.text("padding_mode", "zeros"),
        "align_corners": _int(node, "align_corners", 0),
    }


@operator("Pad")
def _pad(node: NodeView) -> dict[str, Attribute]:
    return {"mode": node.text("mode", "constant")}


@operator("DepthToSpace", "SpaceToDepth")
def _depth_space(node: NodeView) -> dict[str, Attribute]:
    return {"blocksize": _int(node, "blocksize", 1), "mode": node.text("mode", "DCR")}


def _int(node: NodeView, name: str, default: int) -> int:
    return int(node.attributes.get(name, default))


def _pool(node: NodeView) -> dict[str, Attribute]:
    """Return the attributes of a pooling window; ``ceil_mode`` only where it changes the output."""
    kernel = node.ints("kernel_shape", ())
    window = _window(node, kernel)
    ceil_mode = _int(node, "ceil_mode", 0)
    sizes = (node.shapes.get(node.inputs[0]) or ())[2:]
    if ceil_mode and len(sizes) == len(kernel) and all(size > 0 for size in sizes):
        begin, end = _split_pads(window["pads"])
        ceil_mode = 0
        for i, size in enumerate(sizes):
            padded = size + begin[i] + end[i]
            if window["dilations"][i] == 1:
                # EfficientNet's last window is a thousand wide, over a few pixels: limit it to the input.
                kernel[i] = min(kernel[i], padded)
            extent = window["dilations"][i] * (kernel[i] - 1) + 1
            ceil_mode |= int((padded - extent) % window["strides"][i] != 0)
    return {**window, "kernel_shape": kernel, "ceil_mode": ceil_mode}


def _kernel_sizes(node: NodeView) -> tuple[int, ...]:
    """Return the spatial sizes of a convolution's weights."""
    sizes = (node.shapes.get(node.inputs[1]) or ())[2:]
    if not sizes or any(size < 1 for size in sizes):
        raise UnsupportedError("the size of its weights is not known")
    return sizes


def _window(node: NodeView, kernel: Sequence[int]) -> dict[str, list[int]]:
    """Return strides, dilations and explicit padding of a convolution or pooling."""
    strides = node.ints("strides", [1] * len(kernel))
    dilations = node.ints("dilations", [1] * len(kernel))
    return {
        "strides": strides,
        "dilations": dilations,
        "pads": _pads(node, kernel, strides, dilations),
    }


def _pads(
    node: NodeView, kernel: Sequence[int], strides: list[int], dilations: list[int]
) -> list[int]:
    """Return the explicit padding: all beginnings, then all ends; ``auto_pad`` is resolved."""
    mode = node.text("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return node.ints("pads", [0] * (2 * len(kernel)))
    if mode == "VALID":
        return [0] * (2 * len(kernel))
    begin, end = [], []
    sizes = _spatial_sizes(node, len(kernel))
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        extent = (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1
        total = max(0, extent - size)
        small, large = total // 2, total - total // 2
        begin.append(large if mode == "SAME_LOWER" else small)
        end.append(small if mode == "SAME_LOWER" else large)
    return begin + end


def _spatial_sizes(node: NodeView, dimensions: int) -> tuple[int, ...]:
    """Return the spatial sizes of the input; raise UnsupportedError if they are not known."""
    sizes = (node.shapes.get(node.inputs[0]) or ())[2:]
    if len(sizes) != dimensions or any(size < 1 for size in sizes):
        raise UnsupportedError("the size of its output needs an input of known size")
    return sizes


def _split_pads(pads: list[int]) -> tuple[list[int], list[int]]:
    """Split *pads* into the beginnings and the ends."""
    return pads[: len(pads) // 2], pads[len(pads) // 2 :]
