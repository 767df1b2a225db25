"""Tags of LoRAs, as people and programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.lora import split_tags


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "film.safetensors").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("tag", "weight", "rest"),
    [
        ("<lora:film>", 1, ""),
        ("<lora:film:0.8>", 0.8, ""),
        ("<lora:film:-0.5>", -0.5, ""),
        ("<lora:film:0.8:0.6>", 0.8, "0.6"),
        ("<lora:film:1:lbw=ALL>", 1, "lbw=ALL"),
        ("<lora:film:0.7:0.7:lbw=OUTD:stop=20>", 0.7, "0.7:lbw=OUTD:stop=20"),
        ("<lora:film:te=0.5:unet=0.6>", 0.6, "te=0.5"),
        ("<lora:film:lbw=ALL>", 1, "lbw=ALL"),
        ("<lyco:film:0.8>", 0.8, ""),
    ],
)
def test_weights(folder: Path, tag: str, weight: float, rest: str) -> None:
    """The first weight counts, and what else a tag has is a warning."""
    text, (lora,), warnings = split_tags(f"a red circle {tag}", str(folder))

    assert ("a red circle", "film", weight) == (text, lora.file.stem, lora.weight)
    assert (
        [f"Of {tag} only the weight {weight:g} is used, not {rest}."] if rest else []
    ) == warnings


@pytest.mark.parametrize("tag", ["<lora:film:x>", "<lora:film:99>", "<lora:film:x:0.5>"])
def test_refused(folder: Path, tag: str) -> None:
    """A weight that is no number, or out of range, is refused."""
    with pytest.raises(FluxdropError, match="is not a number from -10 to 10"):
        split_tags(f"a red circle {tag}", str(folder))


def test_hypernetworks(folder: Path) -> None:
    """A hypernetwork's tag is taken out of the prompt, with a warning."""
    assert (
        "a red circle",
        [],
        ["Hypernetworks are not supported: <hypernet:ink:0.5> is not used."],
    ) == split_tags("a red circle <hypernet:ink:0.5>", str(folder))
