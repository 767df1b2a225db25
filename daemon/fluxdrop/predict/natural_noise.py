"""Random pictures with the statistics of photographs, for models that come without samples."""

from __future__ import annotations

import numpy as np
from PIL import Image

_SEED = 20
_SHARED = 0.8
"""The part of each channel that is the same in all three; photographs have little colour."""


def natural_noise(count: int, size: tuple[int, int]) -> list[Image.Image]:
    """Return *count* RGB pictures of *size* (width, height), always the same ones.

    Their amplitudes fall with the frequency f as 1/f, as those of photographs do (D. J. Field,
    "Relations between the statistics of natural images and the response properties of cortical
    cells", J. Opt. Soc. Am. A 4, 1987). The pixels take all values from 0 to 255.
    """
    random = np.random.default_rng(_SEED)
    width, height = size
    down, across = np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij")
    amplitudes = 1 / np.maximum(np.hypot(down, across), 1 / max(size))
    pictures = []
    for _ in range(count):
        noise = np.fft.rfft2(random.standard_normal((4, height, width)), axes=(1, 2))
        planes = np.fft.irfft2(noise * amplitudes, s=(height, width), axes=(1, 2))
        channels = _SHARED * planes[0] + (1 - _SHARED) * planes[1:]
        low, high = channels.min(), channels.max()
        pixels = np.rint((channels - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
        pictures.append(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))))
    return pictures
