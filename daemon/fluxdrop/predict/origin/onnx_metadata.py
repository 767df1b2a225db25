"""Read what an ONNX file says of its pictures: its metadata, and how its graph begins.

The metadata is a list of keys and values, which each exporter fills in its own way:

- ultralytics: ``task``, ``names`` and ``imgsz`` (ultralytics/engine/exporter.py). Its classifiers see what
  ``classify_transforms`` of ultralytics/data/augment.py makes.
- Windows ML and Custom Vision: ``Image.BitmapPixelFormat`` and ``Image.NominalPixelRange``
  (https://onnx.ai/onnx/repo-docs/MetadataProps.html).
- PaddleOCR's classifiers, as RapidOCR has them: ``character``, with a label a line.
- Others: a list of names under a usual key.
"""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

from fluxdrop.predict.origin.facts import Facts, class_names, numbers
from fluxdrop.predict.origin.keras_size import free_size_note

if TYPE_CHECKING:
    from onnx import ModelProto

_NAME_KEYS = ("names", "labels", "classes", "class_names", "id2label", "label_names")
_PIXEL_FORMATS = {
    "gray8": "L",
    "rgb8": "RGB",
    "bgr8": "BGR",
    "rgba8": "RGB",
    "bgra8": "BGR",
}
_PIXEL_RANGES = {
    "nominalrange_0_255": (1.0, 0.0, 1.0),
    "normalized_0_1": (255.0, 0.0, 1.0),
    "normalized_1_1": (255.0, 0.5, 0.5),
}
"""By name: scale, mean and std."""
_PASSING = ("Identity", "Cast", "Transpose", "Reshape", "Unsqueeze", "Squeeze")
_WHOLE_LEVELS = 2.0
"""A number that is subtracted from pixels and larger than this is meant for pixels of 0 to 255."""


def read(model: ModelProto, file: str) -> Facts:
    """Return what *model*, read from *file*, says.

    Raises:
        FluxdropError: As `free_size_note` does.
    """
    facts = Facts()
    note = free_size_note(model, file)
    facts.notes += [note] if note else []
    _read_start(model, file, facts)
    stated = {item.key: item.value for item in model.metadata_props}
    lowered = {key.lower(): value for key, value in stated.items()}
    for key in _NAME_KEYS:
        labels = class_names(_literal(stated.get(key)))
        if labels:
            facts.name_classes(labels, f"{file}: its metadata {key}")
            break
    if stated.get("character"):
        labels = stated["character"].splitlines()
        facts.name_classes(labels, f"{file}: its metadata character")
    if stated.get("task") == "classify" and "names" in stated:
        _read_ultralytics(stated, file, facts)
    _read_image_category(lowered, file, facts)
    return facts


def _literal(text: str | None) -> Any:
    """Return the list or dictionary that *text* writes in JSON or in Python, else its parts between commas."""
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    parts = [part.strip() for part in text.replace("\n", ",").split(",")]
    return [part for part in parts if part] if len(parts) > 1 else None


def _read_ultralytics(stated: dict[str, str], file: str, facts: Facts) -> None:
    """Add what a classifier of ultralytics sees: the shorter side resized, the centre, from 0 to 1."""
    source = f"{file}: ultralytics' classifiers are such"
    sides = numbers(_literal(stated.get("imgsz")))
    if sides:
        height, width = int(sides[0]), int(sides[-1])
        facts.take("size", [width, height], f"{file}: its metadata imgsz")
    for key, value in {
        "resize": "crop",
        "filter": "bilinear",
        "resampler": "torchvision",
        "scale": 255.0,
        "mean": [0.0],
        "std": [1.0],
    }.items():
        facts.take(key, value, source)


def _read_image_category(lowered: dict[str, str], file: str, facts: Facts) -> None:
    """Add what the metadata of the category Image says; its keys and values are case insensitive."""
    mode = _PIXEL_FORMATS.get(lowered.get("image.bitmappixelformat", "").lower())
    if mode:
        facts.take("mode", mode, f"{file}: its metadata Image.BitmapPixelFormat")
    pixel_range = _PIXEL_RANGES.get(lowered.get("image.nominalpixelrange", "").lower())
    if pixel_range:
        source = f"{file}: its metadata Image.NominalPixelRange"
        scale, mean, std = pixel_range
        facts.take("scale", scale, source)
        facts.take("mean", [mean], source)
        facts.take("std", [std], source)
    if lowered.get("customvision.postprocess.method", "").lower() == "classificationmultilabel":
        facts.say("output", "multi-label", f"{file}: its metadata CustomVision.Postprocess.Method")


def _read_start(model: ModelProto, file: str, facts: Facts) -> None:
    """Add that the pixels are wanted from 0 to 255, where the graph itself begins by rescaling them.

    Networks of Keras often do, such as its EfficientNet.
    """
    from onnx import numpy_helper

    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            values = [item.t for item in node.attribute if item.name == "value"]
            constants |= dict(zip(node.output, values, strict=False))
    inputs = [item.name for item in model.graph.input if item.name not in constants]
    if len(inputs) != 1:
        return
    name = inputs[0]
    users: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for used in node.input:
            users.setdefault(used, []).append(node)
    while len(users.get(name, [])) == 1 and users[name][0].op_type in _PASSING:
        name = users[name][0].output[0]
    if len(users.get(name, [])) != 1:
        return
    node = users[name][0]
    others = [constants[used] for used in node.input if used != name and used in constants]
    if len(others) != 1 or (node.op_type in ("Div", "Sub") and node.input[0] != name):
        return
    by_channel = abs(numpy_helper.to_array(others[0]).astype(float))
    if not by_channel.size or by_channel.size > 3:
        return
    by = float(by_channel.max())
    rescales = {
        "Mul": 0 < by < 1 / 50,
        "Div": by > 50,
        "Sub": by > _WHOLE_LEVELS,
        "Add": by > _WHOLE_LEVELS,
    }.get(node.op_type, False)
    if rescales:
        source = f"{file}: it begins by rescaling the pixels itself ({node.op_type})"
        facts.take("scale", 1.0, source)
        facts.take("mean", [0.0], source)
        facts.take("std", [1.0], source)
