"""The size of pictures in what Keras exports to ONNX.

On PyTorch it traces the network with an input of one pixel where the size is free (keras/src/export/onnx.py), and the
padding of layers with ``padding="same"`` becomes that for one pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxdrop.errors import FluxdropError

if TYPE_CHECKING:
    from onnx import ModelProto

EXPORT = (
    "model.export('model.onnx', format='onnx', input_signature=[keras.InputSpec(shape=(None, HEIGHT, WIDTH, 3),"
    " dtype='float32')])"
)
"""The call that exports a model for pictures of one size; with a free size the answers may be wrong."""


def free_size_note(model: ModelProto, file: str) -> str | None:
    """Return a warning if the padding of *model*, read from *file*, may be that for one pixel; else None.

    Raises:
        FluxdropError: Kind ``model``, when it takes pictures of one pixel only.
    """
    from fluxdrop.predict.compiler.shapes import value_shape

    constants = {item.name for item in model.graph.initializer}
    shapes = [value_shape(item) for item in model.graph.input if item.name not in constants]
    if len(shapes) != 1 or shapes[0] is None or len(shapes[0]) != 4 or shapes[0][3] not in (1, 3):
        return None
    sides = shapes[0][1:3]
    if sides == (1, 1):
        raise FluxdropError(
            f"{file} takes pictures of one pixel: it was exported without their size",
            hint=f"If it is of Keras, export it again for their size: {EXPORT}.",
            kind="model",
        )
    if model.producer_name == "pytorch" and sides == (-1, -1) and _pads_strided(model):
        return (
            f"{file} leaves the size of its pictures free. If Keras exported it on PyTorch, it pads as for one"
            f" pixel, and its answers are wrong for most sizes; then export it again for one size: {EXPORT}"
        )
    return None


def _pads_strided(model: ModelProto) -> bool:
    """Return whether a window of *model* has padding and a stride: only then padding depends on the size."""
    for node in model.graph.node:
        lists = {item.name: list(item.ints) for item in node.attribute}
        if any(step > 1 for step in lists.get("strides", [])) and any(lists.get("pads", [])):
            return True
    return False
