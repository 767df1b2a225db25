"""Read inference.yml, which PaddleX writes beside inference.onnx (PaddleOCR 3 and PaddleClas use it).

Its operators mean what paddlex/inference/models/image_classification/predictor.py makes of them: pictures are RGB, and
OpenCV resizes them.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin.facts import Facts, class_names, numbers

CONFIG = "inference.yml"

_MAX_BYTES = 16 << 20
_FILTERS = {
    "NEAREST": "nearest",
    "LINEAR": "bilinear",
    "CUBIC": "bicubic",
    "BICUBIC": "bicubic",
    "AREA": "box",
    "LANCZOS4": "lanczos",
}
_RESAMPLERS = {"cv2": "opencv", "pil": "pillow"}
_OPERATORS = ("ResizeImage", "CropImage", "NormalizeImage", "ToCHWImage")


def read(folder: Path) -> Facts | None:
    """Return what the folder's inference.yml says; None if there is none.

    Raises:
        FluxdropError: Kind ``model``, when it cannot be read.
        LookupError, TypeError, ValueError: A value in it is not of the kind that belongs there.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    stated = _content(path)
    facts = Facts()
    operators: dict[str, dict[str, Any]] = {}
    for item in stated["PreProcess"]["transform_ops"]:
        operators |= {name: options or {} for name, options in item.items()}
    _read_size(operators, facts)
    facts.take("mode", "RGB", f"{CONFIG}: PaddleX reads pictures so")
    normalise = operators.get("NormalizeImage", {})
    source = f"{CONFIG}: NormalizeImage"
    # Written as a number with fewer digits than 1/255 has, or as text such as 1./255.
    upper, _, lower = str(normalise.get("scale", "1/255")).partition("/")
    scale = Fraction(lower.rstrip(".") or 1) / Fraction(upper.rstrip("."))
    facts.take("scale", round(float(scale), 6), source)
    for key, usual in (("mean", [0.485, 0.456, 0.406]), ("std", [0.229, 0.224, 0.225])):
        facts.take(key, numbers(normalise.get(key, usual)), source)
    labels = class_names(((stated.get("PostProcess") or {}).get("Topk") or {}).get("label_list"))
    if labels:
        facts.name_classes(labels, f"{CONFIG}: label_list")
    strange = [name for name in operators if name not in _OPERATORS]
    if strange or "size" not in facts.input or "NormalizeImage" not in operators:
        facts.unusable = FluxdropError(
            f"{path} makes pictures in a way that fluxdrop does not know: {', '.join(operators)}",
            hint="Only PaddleX's image classifiers are served. Say how pictures are made with --size, --resize, --mean"
            " and --std to add it all the same.",
            kind="model",
        )
    return facts


def _content(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_BYTES:
        raise FluxdropError(f"{path} is too large", kind="model")
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=dict[str, Any])
    except ImportError as error:
        raise FluxdropError(
            f"{path} cannot be read without PyYAML", hint="Run: pip install pyyaml", kind="model"
        ) from error
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        raise FluxdropError(f"{path} cannot be read: {error}", kind="model") from error


def _read_size(operators: dict[str, dict[str, Any]], facts: Facts) -> None:
    """Add the size and how pictures are resized, as far as the operators say both."""
    resize, crop = operators.get("ResizeImage", {}), operators.get("CropImage")
    source = f"{CONFIG}: ResizeImage"
    if crop is not None:
        facts.take("size", _pair(crop.get("size", 224)), f"{CONFIG}: CropImage")
    if "resize_short" in resize:
        facts.take("resize", "crop", source)
        facts.take("resize_to", int(resize["resize_short"]), source)
    elif "size" in resize:
        facts.take("resize", "stretch", source)
        facts.take("resize_to" if crop is not None else "size", _pair(resize["size"]), source)
    if resize:
        facts.take("filter", _FILTERS[str(resize.get("interpolation", "LINEAR")).upper()], source)
        facts.take("resampler", _RESAMPLERS[str(resize.get("backend", "cv2")).lower()], source)


def _pair(size: Any) -> list[int]:
    """Return *size*, one number or width and height, as width and height."""
    width, height = size if isinstance(size, list) else (size, size)
    return [int(width), int(height)]
