"""Resize as torchvision does with tensors of uint8, to the last bit: transformers' fast image processors use it.

Both smooth as Pillow does, but torch rounds the weights of a pass to 15 bits, where Pillow has 22. So their results
differ by a level, or two.

Source: _compute_index_ranges_int16_weights in aten/src/ATen/native/cpu/UpSampleKernel.cpp of PyTorch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Kernel = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def resize(
    image: Image.Image, scaled: tuple[int, int], box: tuple[int, int, int, int], name: str
) -> Image.Image:
    """Return the part *box* of *image* resized to *scaled*.

    Args:
        image: A picture of mode L or RGB.
        scaled: The width and height of the whole result.
        box: The part of it that is computed: left, top, right, bottom.
        name: ``bilinear``, ``bicubic`` or ``lanczos``.
    """
    pixels = np.asarray(image)
    vertical = _taps(image.height, scaled[1], name)
    if vertical is not None:
        # Only rows that the second pass reads are worth the first.
        first, weights, _ = vertical
        start = int(first[box[1]])
        pixels = pixels[start : int(first[box[3] - 1]) + weights.shape[1]]
    horizontal = _taps(image.width, scaled[0], name)
    pixels = _pass(pixels, horizontal, box[0], box[2], 1, 0)
    pixels = _pass(pixels, vertical, box[1], box[3], 0, 0 if vertical is None else start)
    return Image.fromarray(pixels)


Taps = tuple[NDArray[np.intp], NDArray[np.int32], int]
"""For each pixel of the result, the first pixel of the source; the weights, (pixels, taps); and their bits."""


def _taps(source: int, scaled: int, name: str) -> Taps | None:
    """Return how a side is resized; None if it stays."""
    if source == scaled:
        return None
    kernel, radius = _KERNELS[name]
    scale = source / scaled
    support = radius * max(scale, 1.0)
    centres = scale * (np.arange(scaled) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(np.intp), 0)
    ends = np.minimum((centres + support + 0.5).astype(np.intp), source)
    taps = int((ends - first).max())
    indices = first[:, np.newaxis] + np.arange(taps)
    factors = kernel((indices - centres[:, np.newaxis] + 0.5) / max(scale, 1.0))
    factors[indices >= ends[:, np.newaxis]] = 0
    factors /= factors.sum(axis=1, keepdims=True)
    bits = 0
    while bits < 22 and int(0.5 + factors.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    exact = factors * (1 << bits)
    return first, np.trunc(exact + np.copysign(0.5, exact)).astype(np.int32), bits


def _pass(
    pixels: NDArray[np.uint8], taps: Taps | None, start: int, end: int, axis: int, offset: int
) -> NDArray[np.uint8]:
    """Resize one *axis*, and return its pixels from *start* to *end*; *offset* is that of *pixels* in the source."""
    if taps is None:
        return pixels[:, start:end] if axis else pixels[start - offset : end - offset]
    first, weights, bits = taps
    first, weights = first[start:end] - offset, weights[start:end]
    shape = [1] * pixels.ndim
    shape[axis] = -1
    last = pixels.shape[axis] - 1
    total: NDArray[np.int32] = np.array(1 << (bits - 1), np.int32)
    for tap in range(weights.shape[1]):
        seen = pixels.take((first + tap).clip(0, last), axis).astype(np.int32)
        total = total + seen * weights[:, tap].reshape(shape)
    return (total >> bits).clip(0, 255).astype(np.uint8)


def _linear(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return (1 - np.abs(distance)).clip(0, None)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic with a = -0.5."""
    a, x = -0.5, np.abs(distance)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def _lanczos(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)


_KERNELS: dict[str, tuple[Kernel, float]] = {
    "bilinear": (_linear, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
