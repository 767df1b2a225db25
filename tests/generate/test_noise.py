"""The noise that pictures are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from support.needs import needs_generation

pytestmark = [needs_generation, pytest.mark.slow]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype(dtype: str) -> None:
    """A seed gives the same noise in each dtype: it is drawn in float32 and rounded."""
    import torch
    from torch.overrides import TorchFunctionMode

    from fluxdrop.generate.noise import Float32Noise

    drawn = []

    class Observer(TorchFunctionMode):
        """Notes the dtype in which torch draws."""

        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Sequence[type],
            args: Sequence[Any] = (),
            kwargs: dict[str, Any] | None = None,
        ) -> Any:
            """Call *func*."""
            if func is torch.randn:
                drawn.append((kwargs or {})["dtype"])
            return func(*args, **(kwargs or {}))

    def noise(dtype: torch.dtype) -> torch.Tensor:
        """Draw as diffusers' randn_tensor does."""
        seeded = torch.Generator("cpu").manual_seed(7)
        return torch.randn((1, 4, 5, 3), generator=seeded, device="cpu", dtype=dtype)

    wanted = getattr(torch, dtype)
    with Observer(), Float32Noise():
        found = noise(wanted)

    assert [torch.float32] == drawn
    assert found.dtype == wanted
    assert torch.equal(found, noise(torch.float32).to(wanted))
