"""The libraries whose resizing fluxdrop does, where they are installed, and pictures to compare on."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from PIL import Image

SIZES = [
    (301, 200), (200, 301), (37, 90), (333, 251), (640, 480), (517, 391), (64, 64), (225, 224),
    (227, 300), (500, 223), (9, 7), (224, 224), (31, 400),
]  # fmt: skip


@cache
def pictures() -> list[Image.Image]:
    """20 pictures or more: noise and waves in sizes of every kind, and scikit-image's where it is installed."""
    noise = np.random.default_rng(20)
    made = []
    for width, height in SIZES:
        y, x = np.mgrid[:height, :width]
        waves = [127 + 127 * np.sin(x * y / 500), x * 255 / width, 127 + 127 * np.cos(y / 3)]
        made.append(np.stack(waves, axis=-1).astype(np.uint8))
        made.append(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return [*map(Image.fromarray, made), *_photographs()]


def _photographs() -> list[Image.Image]:
    """The photographs that scikit-image's wheel has in it; none without it."""
    try:
        from skimage import data
    except ImportError:
        return []
    return [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee")]


@cache
def torchvision() -> Any:
    """The package torchvision, or skip the test."""
    torch = pytest.importorskip("torch")
    try:
        import torchvision.transforms
    except ImportError:
        pytest.skip("no torchvision")
    except RuntimeError:
        # PyPI's wheel is for CUDA. Its compiled operators do not load beside a torch for CPUs, and the import wants
        # two of them declared; no transform uses them.
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
        import torchvision.transforms
    return torchvision


@cache
def transformers() -> Any:
    """The package transformers, or skip the test."""
    if find_spec("torchvision") is not None:
        # transformers imports it, where it is.
        torchvision()
    return pytest.importorskip("transformers")


def levels(expected: Any, found: Any) -> int:
    """The largest difference of two pictures of one size, in levels of 255."""
    a, b = (np.asarray(picture).astype(int) for picture in (expected, found))
    assert a.shape == b.shape
    return int(np.abs(a - b).max())
