"""Samplers by the names that Stable Diffusion users know."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from PIL import Image

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.parameters import PromptParameters
from support.generators import ONE_STEP, PARAMETERS, PROMPT, generate
from support.needs import needs_generation

pytestmark = [needs_generation, pytest.mark.slow]


@pytest.mark.parametrize(
    ("sampler", "sentence"),
    [
        ("Wonder", "Sampler 'Wonder' is not known. Known are Euler, Euler a, DPM++ 2M, "),
        ("DDIM Karras", "Sampler 'DDIM' has no schedule 'Karras'."),
    ],
)
def test_samplers_refused(
    generator: Generator, tmp_path: Path, sampler: str, sentence: str
) -> None:
    """A sampler that is not known is refused with those that are."""
    with pytest.raises(FluxdropError) as caught:
        generate(generator, PromptParameters(prompt=PROMPT, sampler=sampler), tmp_path / "a.png")

    assert "prompt" == caught.value.kind
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    "sampler", ["Heun", "DPM2", "DPM2 a", "DPM++ 3M SDE Karras", "Heun Simple"]
)
def test_samplers_from_a_finite_sigma(generator: Generator, tmp_path: Path, sampler: str) -> None:
    """Samplers that would magnify the first step's error draw in the colours that the prompt says."""
    parameters = msgspec.structs.replace(PARAMETERS, sampler=sampler)

    generated = generate(generator, parameters, tmp_path / "a.png")

    with Image.open(tmp_path / "a.png") as image:
        middle, corner = (image.crop((x, x, x + 1, x + 1)).tobytes() for x in (32, 1))
    assert middle[0] > 180
    assert max(middle[1:]) < 100
    assert min(corner) > 220
    assert (sampler, []) == (generated.parameters.sampler, generated.warnings)


def test_sampler_that_is_known_to_fail(generator: Generator, tmp_path: Path) -> None:
    """A sampler that is known to draw wrong with the pipeline's schedule says so in the result."""
    parameters = msgspec.structs.replace(ONE_STEP, sampler="DPM++ 3M SDE Beta", steps=2)

    generated = generate(generator, parameters, tmp_path / "a.png")

    assert [
        "Sampler DPM++ 3M SDE Beta is known to draw wrong colours with this pipeline; others do not."
    ] == generated.warnings
