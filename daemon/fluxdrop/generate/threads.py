"""How many threads make a picture on a CPU, which depends on the sizes of pipeline and picture alone.

The number of threads decides in which order numbers are added up, and so the last bits of a picture.

A process that is forked from one that has computed with threads of OpenMP would wait forever for those threads, which
do not exist in it. So a generator that forks twins computes with one thread, and one that has used threads forks none.

This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

_ALL = torch.get_num_threads()
_MAX_TWINS = 8
# Parameters of the denoiser times pixels. Threads that sleep while they wait for each other take longer than
# one alone below about this: on two processors, U-Nets of 3 to 300 million parameters did.
_SMALL = 250e9

_may_fork = sys.platform == "linux"


def twins(device: str) -> int:
    """Return how many twins may make pictures on *device* at a time; 0 if the generator itself makes them."""
    return min(_ALL, _MAX_TWINS) if device == "cpu" and _may_fork else 0


def prepare(device: str) -> None:
    """Set the number of threads for loading a pipeline on *device*, in the generator."""
    global _may_fork
    _may_fork = twins(device) > 0
    torch.set_num_threads(1 if _may_fork else _ALL)


def use(*, small: bool) -> None:
    """Set the number of threads for a picture, in the process that makes it."""
    torch.set_num_threads(1 if small else _ALL)


def is_small(pipe: Any, width: int | None, height: int | None) -> bool:
    """Return whether one thread makes a picture of this size; None is the pipeline's own size."""
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    scale = getattr(pipe, "vae_scale_factor", None)
    own = getattr(getattr(denoiser, "config", None), "sample_size", None)
    if isinstance(own, int) and isinstance(scale, int):
        width, height = width or own * scale, height or own * scale
    if denoiser is None or width is None or height is None:
        return False
    parameters: int = sum(parameter.numel() for parameter in denoiser.parameters())
    return parameters * width * height <= _SMALL
