"""What a model's declared inputs and outputs are for: one rule for every engine."""

from __future__ import annotations

import math
from collections.abc import Mapping

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


def label_output(outputs: Mapping[str, Shape | None], labels: int, name: str | None) -> str:
    """Which of a model's *outputs* has a number for each of *labels*: the one called *name*, if that is not None.

    Else that is the only output, or the only [N, K] of floats, or the only one of these with as many as there are
    labels. A shape of None stands for an output that is no tensor of floats. Raises ValueError, with the names, where
    there is no such output.
    """
    names = ", ".join(outputs)
    if name is not None:
        if name not in outputs:
            raise ValueError(f"it has no output {name}, which its model.toml names: it has {names}")
        return name
    if len(outputs) == 1:
        return next(iter(outputs))
    rows = {key: shape[1] for key, shape in outputs.items() if shape and len(shape) == 2}
    fitting = [key for key, size in rows.items() if len(rows) == 1 or size in (-1, labels)]
    if len(fitting) != 1:
        raise ValueError(
            f"it has {len(outputs)} outputs ({names}), and it is not clear which of them"
            " has a number for each label"
        )
    return fitting[0]
