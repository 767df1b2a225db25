"""Compare what an engine computes with onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.natural_noise import natural_noise
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import fit, normalise, to_tensor

TOLERANCE = 1e-4
"""The largest `relative_difference` at which two outputs count as equal."""

NOISE_FACTOR = 4
"""How many times the change that rounding makes in onnxruntime's own output still counts as rounding.

Other ways to sum, such as Winograd's, round more often than onnxruntime does.
"""

_MADE_PICTURES = 3
_SEED = 20
_TINY = float(np.finfo(np.float32).tiny)


def samples(bundle: Bundle, settings: Settings) -> NDArray[np.float32]:
    """Return the tensors to compare with: the pictures in the bundle's samples/, else `natural_noise`.

    Raises:
        FluxdropError: Kind ``picture``, when a file in samples/ cannot be decoded.
    """
    spec = bundle.spec.input
    pictures = sorted(path for path in Path(bundle.folder, "samples").glob("*") if path.is_file())
    if not pictures:
        made = natural_noise(_MADE_PICTURES, spec.size)
        return normalise([fit(image, spec) for image in made], spec)
    tensors = []
    for path in pictures:
        image, _ = open_picture(
            path,
            max_file_bytes=settings.max_file_bytes,
            max_pixels=settings.max_pixels,
            deep=True,
        )
        tensors.append(to_tensor(image, spec))
    return np.concatenate(tensors)


def relative_difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Return the largest absolute difference divided by the largest absolute value of *expected*.

    It is inf when the shapes differ or *found* is not finite.
    """
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    scale = max(float(np.abs(expected).max()), _TINY)
    worst = float(np.abs(expected - found).max()) / scale
    return worst if np.isfinite(worst) else float("inf")


def perturbed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return *values*, each changed by one rounding step up or down, always in the same way."""
    up = np.random.default_rng(_SEED).random(values.shape) < 0.5
    return np.nextafter(values, np.where(up, np.inf, -np.inf).astype(np.float32))
