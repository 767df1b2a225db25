"""Noise that depends on the seed alone.

This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

_HALVES = (torch.float16, torch.bfloat16)


@contextmanager
def float32_noise() -> Iterator[None]:
    """Within its ``with`` statement, `torch.randn` draws in float32 and then rounds to the dtype asked for.

    diffusers draws noise in the pipeline's dtype. torch 2.11 draws other numbers in float16 than in
    float32 for the same seed, so that a seed gave one picture on a CPU and another one on a GPU. The
    function is replaced for the whole process: a `TorchFunctionMode` would be called for each operation,
    which costs a small pipeline on a CPU a quarter of its time.
    """
    draw = torch.randn

    def randn(*args: Any, **options: Any) -> Any:
        if options.get("dtype") in _HALVES:
            return draw(*args, **{**options, "dtype": torch.float32}).to(options["dtype"])
        return draw(*args, **options)

    with mock.patch.object(torch, "randn", randn):
        yield
