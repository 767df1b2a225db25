"""Say what a model is that gives no single row of numbers a picture, and that it is not served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.graph_end import operators
from fluxdrop.predict.model_signature import is_row

if TYPE_CHECKING:
    from onnx import ModelProto

_SERVED = (
    "Served are models with one row of numbers a picture: classifiers, regressions and embeddings."
)
_TASKS = {
    "detect": "an object detector",
    "segment": "a segmenter",
    "pose": "a pose detector",
    "obb": "an object detector",
}
"""By the key ``task`` of the metadata that ultralytics writes."""
_BOXES = {"boxes", "detection_boxes", "num_detections", "pred_boxes"}
_BOX_NUMBERS = (4, 5)
"""The numbers of a box, without and with its score."""
_MASKS = {"masks", "pred_masks", "detection_masks"}


class UnservedError(FluxdropError):
    """A model that gives no single row of numbers a picture."""


def refuse_unserved(file: Path, model: ModelProto) -> None:
    """Check that *model*, read from *file*, does not say itself that it is a detector, a segmenter or the like.

    Raises:
        FluxdropError: Kind ``model``, when it does.
    """
    task = next((item.value for item in model.metadata_props if item.key == "task"), "")
    outputs = {item.name.lower() for item in model.graph.output}
    if task in _TASKS:
        raise unserved(file, _TASKS[task], f"the task in its metadata is {task}")
    if outputs & _MASKS:
        raise unserved(file, "a segmenter", f"it has an output {min(outputs & _MASKS)}")
    if outputs & _BOXES:
        raise unserved(file, "an object detector", f"it has an output {min(outputs & _BOXES)}")
    if "NonMaxSuppression" in operators(model):
        raise unserved(file, "an object detector", "it selects boxes (NonMaxSuppression)")
    _check_some_row(file, model)


def _check_some_row(file: Path, model: ModelProto) -> None:
    """Refuse a model with several outputs of which none can be one row of numbers a picture."""
    from fluxdrop.predict.compiler.float_types import FLOATS
    from fluxdrop.predict.compiler.shapes import value_shape

    shapes = {
        item.name: value_shape(item)
        for item in model.graph.output
        if item.type.tensor_type.elem_type in FLOATS
    }
    is_map = any(item.type.WhichOneof("value") != "tensor_type" for item in model.graph.output)
    known = [shape for shape in shapes.values() if shape]
    if is_map or len(known) < len(shapes) or any(len(s) < 2 or is_row(s) for s in known):
        return
    if len(model.graph.output) > 1:
        has_boxes = any(shape[-1] in _BOX_NUMBERS for shape in known)
        what = "an object detector" if has_boxes else "a detector, a segmenter or the like"
        says = f"none of its outputs ({', '.join(shapes)}) has one row of numbers a picture"
        raise unserved(file, what, says)


def shape_error(file: Path, shape: list[int], *, ends_in_softmax: bool = False) -> UnservedError:
    """Return the error, kind ``model``, for outputs of *shape* a picture, which is not one row.

    Args:
        file: The model.
        shape: The shape, without the batch dimension.
        ends_in_softmax: Whether the model ends in a softmax, as text recognisers do.
    """
    if len(shape) == 3 and min(shape[1:]) > 1:
        says = (
            f"it gives {_count(shape[0])} for each of {shape[1]} x {shape[2]} places in a picture"
        )
        return unserved(file, "a segmenter, a text detector or another model of places", says)
    if len(shape) == 2 and min(shape) > 1:
        says = f"it gives {shape[0]} rows of {_count(shape[1])} a picture"
        if ends_in_softmax:
            return unserved(file, "a text recogniser", says)
        what = "a detector, a text recogniser or a model with a vector for each patch"
        return unserved(
            file, what, says, hint=f"{_SERVED} Of patches, export the vector of the whole."
        )
    return UnservedError(
        f"{file} gives an output of shape {shape} a picture, not one row of numbers",
        hint=f"{_SERVED} Export it with an output [N, K].",
        kind="model",
    )


def batch_error(file: Path, shape: tuple[int, ...], count: int) -> UnservedError:
    """Return the error, kind ``model``, for an output of *shape* for *count* pictures that does not begin with them."""
    if len(shape) == 3 and shape[1] == count:
        says = f"it gives an output [{shape[0]}, N, {shape[2]}], with a row for each step in time"
        return unserved(file, "a text recogniser", says)
    return UnservedError(
        f"{file} gives an output of shape {list(shape)} for {count} pictures",
        hint=f"{_SERVED} Export it with an output [N, K].",
        kind="model",
    )


def unserved(file: Path, what: str, says: str, hint: str = _SERVED) -> UnservedError:
    """Return the error that the model in *file* is *what*, as *says* shows, and is not served."""
    return UnservedError(
        f"{file} is {what}, which fluxdrop does not serve: {says}", hint=hint, kind="model"
    )


def _count(numbers: int) -> str:
    return "1 number" if numbers == 1 else f"{numbers} numbers"
