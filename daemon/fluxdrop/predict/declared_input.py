"""What an ONNX model declares of the pictures that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto


def derive_input(model: ModelProto) -> dict[str, Any]:
    """Derive size, mode and layout from the model's declared input, as far as that is possible.

    A side of the size that the model leaves free is -1.
    """
    from fluxdrop.predict.compiler.shapes import value_shape
    from fluxdrop.predict.compiler.source import integer_type

    weights = {item.name for item in model.graph.initializer}
    for item in model.graph.input:
        shape = value_shape(item)
        if shape is None or len(shape) != 4 or item.name in weights:
            continue
        channels_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
        height, width = shape[1:3] if channels_last else shape[2:4]
        channels = shape[3] if channels_last else shape[1]
        found: dict[str, Any] = {
            "mode": "L" if channels == 1 else "RGB",
            "layout": "NHWC" if channels_last else "NCHW",
        }
        if (kind := integer_type(item)) is not None:
            # Such a model takes the pixels as they are; int8 only if 128 is subtracted.
            found |= {"scale": 1.0} | ({"mean": [128.0]} if kind == "int8" else {})
        return found | {"size": [width, height]}
    return {}
