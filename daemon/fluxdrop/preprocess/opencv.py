"""Resize as OpenCV's ``cv2.resize`` does, within one level of 255.

OpenCV does not smooth before it samples: except with INTER_AREA, a filter sees as many pixels when it shrinks as when
it enlarges. torchvision with ``antialias=False`` and Keras do the same with bilinear and bicubic.

Source: modules/imgproc/src/resize.cpp of OpenCV 4 and 5. OpenCV rounds the weights to 11 bits for 8-bit pictures; this
module computes in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Weights = tuple[NDArray[np.intp], NDArray[np.float32]]
"""For each pixel of the result, the indices of the source's pixels, and their weights: both (pixels, taps)."""


def resize(
    image: Image.Image, scaled: tuple[int, int], box: tuple[int, int, int, int], name: str
) -> Image.Image:
    """Return the part *box* of *image* resized to *scaled*.

    Args:
        image: A picture of mode L, RGB or F.
        scaled: The width and height of the whole result.
        box: The part of it that is computed: left, top, right, bottom.
        name: ``nearest``, ``bilinear``, ``bicubic``, ``lanczos`` (INTER_LANCZOS4) or ``box`` (INTER_AREA).
    """
    pixels = np.asarray(image)
    weights = _WEIGHTS[name]
    if name == "box" and (scaled[0] > image.width or scaled[1] > image.height):
        weights = _area_enlarged
    horizontal = weights(image.width, scaled[0], np.arange(box[0], box[2]))
    vertical = weights(image.height, scaled[1], np.arange(box[1], box[3]))
    if name == "nearest":
        return Image.fromarray(pixels[vertical[0], horizontal[0][:, 0]])
    pixels, vertical = _needed(pixels, vertical, 0)
    pixels, horizontal = _needed(pixels, horizontal, 1)
    rows, columns = len(vertical[0]), len(horizontal[0])
    # The order matters for no more than a rounding error, and for the memory that a picture as thin as a line takes.
    if rows * pixels.shape[1] <= pixels.shape[0] * columns:
        resized = _apply(_apply(pixels, vertical, 0), horizontal, 1)
    else:
        resized = _apply(_apply(pixels, horizontal, 1), vertical, 0)
    if image.mode == "F":
        return Image.fromarray(resized)
    return Image.fromarray(np.clip(np.rint(resized), 0, 255).astype(np.uint8))


def _needed(
    pixels: NDArray[np.uint8], weights: Weights, axis: int
) -> tuple[NDArray[np.uint8], Weights]:
    """Return the part of *pixels* that the *weights* along *axis* read, and the weights for it."""
    indices, factors = weights
    start, end = int(indices.min()), int(indices.max()) + 1
    part = pixels[start:end] if axis == 0 else pixels[:, start:end]
    return part, (indices - start, factors)


def _apply(
    pixels: NDArray[np.float32] | NDArray[np.uint8], weights: Weights, axis: int
) -> NDArray[np.float32]:
    """Weigh *pixels* along *axis*, which gets the length of the result."""
    indices, factors = weights
    outputs, taps = indices.shape
    if taps > outputs:
        parts = [
            np.tensordot(factors[output], pixels.take(indices[output], axis), ([0], [axis]))
            for output in range(outputs)
        ]
        return np.stack(parts, axis)
    shape = [1] * pixels.ndim
    shape[axis] = -1
    total = pixels.take(indices[:, 0], axis) * factors[:, 0].reshape(shape)
    for tap in range(1, taps):
        total += pixels.take(indices[:, tap], axis) * factors[:, tap].reshape(shape)
    return total


def _interpolated(
    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]], taps: int
) -> Callable[[int, int, NDArray[np.intp]], Weights]:
    """Return the weights of *kernel*, a function of the distance in source pixels, with so many *taps*."""

    def weights(source: int, scaled: int, wanted: NDArray[np.intp]) -> Weights:
        centres = (wanted + 0.5) * (source / scaled) - 0.5
        first = np.floor(centres).astype(np.intp) - (taps // 2 - 1)
        indices = first[:, np.newaxis] + np.arange(taps)
        factors = kernel(centres[:, np.newaxis] - indices)
        factors /= factors.sum(axis=1, keepdims=True)
        # Beyond the edge, OpenCV repeats the last pixel.
        return indices.clip(0, source - 1), factors.astype(np.float32)

    return weights


def _scale(source: int, scaled: int) -> float:
    """Return the source's pixels a pixel of the result, rounded as OpenCV does: it decides where a pixel begins."""
    return 1 / (scaled / source)


def _linear(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 - np.abs(distance)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic with a = -0.75; Pillow's has -0.5."""
    a, x = -0.75, np.abs(distance)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, inner, outer)


def _lanczos(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sinc(distance) * np.sinc(distance / 4)


def _nearest(source: int, scaled: int, wanted: NDArray[np.intp]) -> Weights:
    """Return the pixel below the left edge of each pixel of the result, not below its centre."""
    indices = np.floor(wanted * _scale(source, scaled)).astype(np.intp).clip(0, source - 1)
    return indices[:, np.newaxis], np.ones((len(wanted), 1), np.float32)


def _area(source: int, scaled: int, wanted: NDArray[np.intp]) -> Weights:
    """Return each source pixel's share of the area of a pixel of the result; it has to be shrunk."""
    scale = source / scaled
    start, end = wanted * scale, (wanted + 1) * scale
    indices = np.floor(start).astype(np.intp)[:, np.newaxis] + np.arange(int(np.ceil(scale)) + 1)
    share = np.minimum(indices + 1, end[:, np.newaxis]) - np.maximum(indices, start[:, np.newaxis])
    factors = share.clip(0, None)
    factors /= factors.sum(axis=1, keepdims=True)
    return indices.clip(0, source - 1), factors.astype(np.float32)


def _area_enlarged(source: int, scaled: int, wanted: NDArray[np.intp]) -> Weights:
    """Return the weights of INTER_AREA where a side is enlarged: two taps, and whole pixels where that is possible."""
    first = np.floor(wanted * _scale(source, scaled)).astype(np.intp)
    fraction = ((wanted + 1) - (first + 1) * (scaled / source)).astype(np.float32)
    fraction = np.where(fraction <= 0, 0, fraction - np.floor(fraction))
    fraction = np.where(first >= source - 1, 0, fraction)
    indices = np.stack([first, first + 1], axis=1).clip(0, source - 1)
    return indices, np.stack([1 - fraction, fraction], axis=1).astype(np.float32)


_WEIGHTS: dict[str, Callable[[int, int, NDArray[np.intp]], Weights]] = {
    "nearest": _nearest,
    "box": _area,
    "bilinear": _interpolated(_linear, 2),
    "bicubic": _interpolated(_cubic, 4),
    "lanczos": _interpolated(_lanczos, 8),
}
FILTERS = frozenset(_WEIGHTS)
"""The names of the filters that OpenCV has."""
