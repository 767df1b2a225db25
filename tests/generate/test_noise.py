"""The noise that pictures are made from."""

from __future__ import annotations

import pytest

from support.needs import needs_generation

pytestmark = [needs_generation, pytest.mark.slow]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype(dtype: str) -> None:
    """A seed gives the noise of diffusers in each dtype: it is drawn in float32 and rounded."""
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    from fluxdrop.generate.noise import float32_noise

    def noise(dtype: torch.dtype) -> torch.Tensor:
        seeded = torch.Generator("cpu").manual_seed(7)
        made: torch.Tensor = randn_tensor((1, 4, 5, 3), generator=seeded, dtype=dtype)
        return made

    drawn = []
    draw = torch.randn

    def observed(*args: object, **options: object) -> torch.Tensor:
        drawn.append(options["dtype"])
        return draw(*args, **options)  # type: ignore[call-overload, no-any-return]

    wanted = getattr(torch, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", observed)
        with float32_noise():
            found = noise(wanted)

    assert [torch.float32] == drawn
    assert found.dtype == wanted
    assert torch.equal(found, noise(torch.float32).to(wanted))


def test_other_operations() -> None:
    """Only drawing costs more: no operation of torch is intercepted, and torch is as before afterwards."""
    import torch
    from torch.overrides import _get_current_function_mode_stack

    from fluxdrop.generate.noise import float32_noise

    before = torch.randn
    with float32_noise():
        assert [] == _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    assert before is torch.randn
