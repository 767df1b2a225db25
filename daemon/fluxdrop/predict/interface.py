"""What a model's declared inputs and outputs are for: one rule for every engine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fluxdrop.preprocess.spec import InputSpec

Shape = tuple[int, ...]
"""-1 is a free dimension."""


def picture_shape(declared: Shape | None, spec: InputSpec) -> Shape | None:
    """The shape in which a model with an input *declared* so takes one picture of *spec*.

    That is the picture's own, or all its numbers in a row, as scikit-learn's models have it, or for one channel
    (height, width). None where *declared* is none of these. The batch comes before it.
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


def label_output(outputs: Sequence[Shape | None], labels: int) -> int | None:
    """Which of a model's *outputs* has a number for each of *labels*.

    That is the only output, or the only [N, K] of floats, or the only one of these with as many as there are labels.
    None stands for an output that is no tensor of floats, and for an answer that is none.
    """
    if len(outputs) == 1:
        return 0
    rows = {index: shape[1] for index, shape in enumerate(outputs) if shape and len(shape) == 2}
    fitting = [index for index, size in rows.items() if len(rows) == 1 or size in (-1, labels)]
    return fitting[0] if len(fitting) == 1 else None
