"""Noise that depends on the seed alone.

This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_HALVES = (torch.float16, torch.bfloat16)


class Float32Noise(TorchFunctionMode):
    """Within its ``with`` statement, `torch.randn` draws in float32 and then rounds to the dtype asked for.

    diffusers draws noise in the pipeline's dtype. torch 2.11 draws other numbers in float16 than in
    float32 for the same seed, so that a seed gave one picture on a CPU and another one on a GPU.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call *func*, a function of torch; see `torch.overrides`."""
        options = kwargs or {}
        if func is torch.randn and options.get("dtype") in _HALVES:
            return func(*args, **{**options, "dtype": torch.float32}).to(options["dtype"])
        return func(*args, **options)
