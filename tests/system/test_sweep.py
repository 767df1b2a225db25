"""A sample of the sweep, which `make models` runs as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import originals
from support.needs import needs_julia
from support.sweep.networks import makers, missing, results
from support.sweep.photographs import photograph_files

pytestmark = [pytest.mark.slow, needs_julia]


@pytest.mark.parametrize(
    ("library", "name"), [("timm", "test_efficientnet"), ("transformers", "vit")]
)
def test_network(tmp_path: Path, library: str, name: str) -> None:
    """A folder as timm or transformers writes it is added without an option, and answers as the library does."""
    if missing():
        pytest.skip(f"not installed: {', '.join(missing())}")
    originals.torchvision()

    found = list(results(library, name, makers([23])[library, name], photograph_files(), tmp_path))

    assert [True] * (2 if library == "timm" else 1) == [result.passed for result in found], found
    assert {20} == {result.same_first for result in found}
