"""Pictures to compare two pipelines with, where the user gave none."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

_SEED = 17
_SIZES = ((640, 480), (333, 500), (300, 300), (257, 384), (1200, 300), (90, 120))
"""Landscape and portrait, square, odd, narrow and small: what is rounded in another way shows in one of them."""


@cache
def trial_pictures() -> list[Image.Image]:
    """Return the same RGB pictures each time, with areas, gradients, edges and texture as photographs have."""
    random = np.random.default_rng(_SEED)
    return [_picture(size, random) for size in _SIZES]


def _picture(size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """Return one picture: noise of several scales, and shapes of one colour."""
    total = np.zeros((size[1], size[0], 3))
    for cells in (2, 5, 16, 60):
        grid = random.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
        layer = Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)
        total += np.asarray(layer, dtype=np.float64) / cells**0.5
    total = (total - total.min()) / (total.max() - total.min()) * 255
    picture = Image.fromarray(total.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for index in range(6):
        x, y = (int(random.integers(0, side)) for side in size)
        reach = int(random.integers(8, max(9, min(size) // 3)))
        colour = (*(int(level) for level in random.integers(0, 256, 3)),)
        box = (x - reach, y - reach, x + reach, y + reach // 2)
        (draw.ellipse if index % 2 else draw.rectangle)(box, fill=colour)
    return picture
