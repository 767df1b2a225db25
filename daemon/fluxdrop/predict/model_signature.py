"""Match a model's declared inputs and outputs with its model.toml, by one rule for all engines."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fluxdrop.preprocess.spec import InputSpec

Shape = tuple[int, ...]
"""The sizes of a tensor's dimensions; -1 is a dynamic one."""


INTEGERS = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
}
"""The smallest and the largest value of the integer types that a model may take pictures in."""


def integer_problem(kind: str, spec: InputSpec) -> str:
    """Return why pictures made by *spec* are no tensors of the integer type *kind*; empty if they are."""
    low, high = INTEGERS[kind]
    for mean in spec.mean:
        exact = spec.scale == 1 and set(spec.std) == {1} and float(mean).is_integer()
        if not exact:
            return f"holds {kind}, and its model.toml makes fractions of the pixels"
        if -mean < low or 255 - mean > high:
            return f"holds {kind}, and its model.toml makes {0 - mean:g} to {255 - mean:g}"
    return ""


def picture_shape(declared: Shape | None, spec: InputSpec) -> Shape | None:
    """Return the shape in which a model takes one picture, without the batch dimension.

    Args:
        declared: The shape of the model's input, batch first; None when it declares none.
        spec: How the pictures are made.

    Returns:
        The shape of the picture itself, or one dimension with all its numbers, as in scikit-learn's
        models, or for one channel (height, width); None when *declared* is none of these.
    """
    whole = spec.shape[1:]
    shapes: list[Shape] = [whole, (math.prod(whole),)]
    if spec.channels == 1:
        shapes.append((spec.size[1], spec.size[0]))
    for shape in shapes:
        if declared is not None and len(declared) == 1 + len(shape):
            pairs = zip(declared[1:], shape, strict=True)
            return shape if all(have in (-1, want) for have, want in pairs) else None
    return None


def label_output(outputs: Mapping[str, Shape | None], labels: int | None, name: str | None) -> str:
    """Return the name of the output that has the answer: for a classifier, one number per label.

    That is the output *name*, if given; else the only output, else the only one of
    shape [N, K] or [N, K, 1, 1], else the only one of these whose K is the number of labels or dynamic.

    Args:
        outputs: The shapes of the model's outputs by name; None for one that is not a float tensor.
        labels: How many numbers the answer has; None if that is not known.
        name: The output that model.toml names, or None.

    Raises:
        ValueError: When there is no such output, or more than one. The message lists the outputs.
    """
    names = ", ".join(outputs)
    if name is not None:
        if name not in outputs:
            raise ValueError(f"it has no output {name!r}; its outputs are {names}")
        return name
    if len(outputs) == 1:
        return next(iter(outputs))
    rows = {key: shape[1] for key, shape in outputs.items() if shape and is_row(shape)}
    fitting = [
        key
        for key, size in rows.items()
        if len(rows) == 1 or (labels is not None and size in (-1, labels))
    ]
    if len(fitting) != 1:
        shown = ", ".join(f"{key} {_format(shape)}".strip() for key, shape in outputs.items())
        raise ValueError(
            f"it has {len(outputs)} outputs ({names}), and it is not clear which of them"
            f" has a number for each label: {shown}"
        )
    return fitting[0]


def _format(shape: Shape | None) -> str:
    if shape is None:
        return "of no floats"
    return "[" + ", ".join("N" if size < 0 else str(size) for size in shape) + "]"


def is_row(shape: Shape) -> bool:
    """Return whether an output of this shape has one row a picture: [N, K], or [N, K, 1, 1]."""
    return len(shape) == 2 or (len(shape) > 2 and set(shape[2:]) == {1})
