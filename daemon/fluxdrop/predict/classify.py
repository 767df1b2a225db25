"""Convert a model's raw output to a probability per label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle

_ROUNDING_TOLERANCE = 1e-4


def label_probabilities(raw: NDArray[np.float32], bundle: Bundle) -> dict[str, float]:
    """Return the probability of each label, in the model's order, from *raw* [K], one picture's output.

    Raises:
        FluxdropError: Kind ``model``, when the output does not have one number per label, is not
            finite, or is not a probability although model.toml says so.
    """
    labels = bundle.spec.labels
    if raw.shape != (len(labels),):
        raise FluxdropError(
            f"The model {bundle.name} gives an output of shape {list(raw.shape)} a picture"
            f" and has {len(labels)} labels",
            hint=f"Correct the labels in {bundle.folder / 'model.toml'}.",
            kind="model",
        )
    values = raw.astype(np.float64)
    if not np.isfinite(values).all():
        raise FluxdropError(
            f"The model {bundle.name} gives numbers that are not finite for this picture",
            kind="model",
        )
    if bundle.spec.output == "logits":
        values = np.exp(values - values.max())
        values /= values.sum()
    elif values.min() < -_ROUNDING_TOLERANCE or values.max() > 1 + _ROUNDING_TOLERANCE:
        raise FluxdropError(
            f"The model {bundle.name} gives {values.min():g} to {values.max():g}; these are not probabilities",
            hint='If the model has no softmax at its end, use --output logits, or output = "logits" in model.toml.',
            kind="model",
        )
    # A softmax in float32 can exceed 1 by a rounding error.
    values = np.clip(values, 0.0, 1.0)
    return {label: float(np.float32(p)) for label, p in zip(labels, values, strict=True)}
