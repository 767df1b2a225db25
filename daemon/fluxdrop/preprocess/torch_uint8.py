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

_MAX_SIDE = 1 << 16
_MAX_PIXELS = 1 << 25

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
    passes = []
    for axis, source, length, start, end in (
        (1, image.width, scaled[0], box[0], box[2]),
        (0, image.height, scaled[1], box[1], box[3]),
    ):
        taps = _taps(source, length, name, start, end)
        if taps is not None:
            first, weights, bits = taps
            start, end = int(first.min()), int(first.max()) + weights.shape[1]
            passes.append((axis, first - start, weights, bits))
        pixels = pixels[:, start:end] if axis else pixels[start:end]
    if len(pixels) * (box[2] - box[0]) > _MAX_PIXELS:
        # A picture as thin as a line: in torch's order, the first pass would take too much memory.
        passes.reverse()
    for axis, first, weights, bits in passes:
        pixels = _pass(pixels, axis, first, weights, bits)
    return Image.fromarray(pixels)


Taps = tuple[NDArray[np.intp], NDArray[np.int32], int]
"""For each pixel of the result, the first pixel of the source; the weights, (pixels, taps); and their bits."""


def _taps(source: int, scaled: int, name: str, start: int, end: int) -> Taps | None:
    """Return how the pixels from *start* to *end* of a resized side are computed; None if the side stays."""
    if source == scaled:
        return None
    kernel, radius = _KERNELS[name]
    scale = source / scaled
    support = radius * max(scale, 1.0)
    # The bits depend on all weights of a side. Of one that is scaled to more, the part is enough: they repeat.
    part = (0, scaled) if scaled <= _MAX_SIDE else (start, end)
    centres = scale * (np.arange(*part) + 0.5)
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
    weights = np.trunc(exact + np.copysign(0.5, exact)).astype(np.int32)
    wanted = slice(start - part[0], end - part[0])
    return first[wanted], weights[wanted], bits


def _pass(
    pixels: NDArray[np.uint8],
    axis: int,
    first: NDArray[np.intp],
    weights: NDArray[np.int32],
    bits: int,
) -> NDArray[np.uint8]:
    """Resize one *axis*."""
    last = pixels.shape[axis] - 1
    outputs, taps = weights.shape
    half = 1 << (bits - 1)
    total: NDArray[np.int32]
    if taps > outputs:
        parts = (
            np.tensordot(
                weights[output],
                pixels.take((first[output] + np.arange(taps)).clip(0, last), axis),
                ([0], [axis]),
            )
            for output in range(outputs)
        )
        total = np.stack(list(parts), axis) + np.int32(half)
    else:
        shape = [1] * pixels.ndim
        shape[axis] = -1
        total = np.array(half, np.int32)
        for tap in range(taps):
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
