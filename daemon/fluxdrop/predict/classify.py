"""Convert a model's raw output to a probability per label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle

_ROUNDING_TOLERANCE = 1e-4


def label_probabilities(raw: NDArray[np.float32], bundle: Bundle) -> dict[str, float]:
    """Return the probability of each label, in the model's order, from *raw* [K], one picture's output.

    Args:
        raw: The output of a model whose ``output`` is softmax, logits, sigmoid or multi-label.
        bundle: The model.

    Raises:
        FluxdropError: Kind ``model``, when the output does not have as many numbers as the labels need, is not
            finite, or is not a probability although model.toml says so.
    """
    spec = bundle.spec
    values = finite_numbers(raw, bundle)
    if spec.output == "logits":
        values = np.exp(values - values.max())
        values /= values.sum()
    elif spec.activation == "sigmoid":
        # Written with tanh, as the exponential of a large number overflows.
        values = 0.5 * (1 + np.tanh(0.5 * values))
    elif values.min() < -_ROUNDING_TOLERANCE or values.max() > 1 + _ROUNDING_TOLERANCE:
        raise _no_probabilities(values, bundle)
    # A softmax in float32 can exceed 1 by a rounding error.
    values = np.clip(values, 0.0, 1.0)
    if spec.output == "sigmoid" and len(spec.labels) == 2:
        values = np.array([1 - values[0], values[0]])
    return {label: float(np.float32(p)) for label, p in zip(spec.labels, values, strict=True)}


def finite_numbers(raw: NDArray[np.float32], bundle: Bundle) -> NDArray[np.float64]:
    """Return *raw* [K], one picture's output, if it has as many numbers as model.toml says.

    Raises:
        FluxdropError: Kind ``model``, when it has not, or when they are not finite.
    """
    spec = bundle.spec
    if raw.ndim != 1 or not raw.size or spec.columns not in (None, len(raw)):
        has = f"has {len(spec.names)} labels" if spec.labels else f"is for output {spec.output}"
        raise FluxdropError(
            f"The model {bundle.name} gives an output of shape {list(raw.shape)} a picture and {has}",
            hint=f"Correct the labels in {bundle.folder / 'model.toml'}.",
            kind="model",
        )
    values = raw.astype(np.float64)
    if not np.isfinite(values).all():
        raise FluxdropError(
            f"The model {bundle.name} gives numbers that are not finite for this picture",
            kind="model",
        )
    return values


def _no_probabilities(values: NDArray[np.float64], bundle: Bundle) -> FluxdropError:
    hint = 'If the model has no softmax at its end, use --output logits, or output = "logits" in model.toml.'
    if bundle.spec.output in ("sigmoid", "multi-label"):
        hint = (
            "If the model has no sigmoid at its end, use --activation sigmoid,"
            ' or activation = "sigmoid" in model.toml.'
        )
    return FluxdropError(
        f"The model {bundle.name} gives {values.min():g} to {values.max():g}; these are not probabilities",
        hint=hint,
        kind="model",
    )
