"""What PaddleX's inference.yml says, in files as it writes them for its classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin.gather import gather

pytest.importorskip("yaml", reason="needs PyYAML")

NORMALISE = """
  - NormalizeImage:
      channel_num: 3
      mean: [0.485, 0.456, 0.406]
      order: ''
      scale: 0.00392156862745098
      std: [0.229, 0.224, 0.225]
  - ToCHWImage: null
PostProcess:
  Topk:
    topk: 1
    label_list:
    - 0_degree
    - 180_degree
"""
IMAGENET = {
    "mode": "RGB",
    "scale": 255.0,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "filter": "bilinear",
    "resampler": "opencv",
}


def written(folder: Path, *operators: str, rest: str = NORMALISE) -> Path:
    """A folder with an inference.yml that begins with *operators*."""
    lines = "\n".join(f"  - {operator}" for operator in operators)
    (folder / "inference.yml").write_text(f"PreProcess:\n  transform_ops:\n{lines}{rest}")
    return folder


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        (["ResizeImage: {size: [160, 80]}"], {"size": [160, 80], "resize": "stretch"}),
        (
            ["ResizeImage: {resize_short: 256}", "CropImage: {size: 224}"],
            {"size": [224, 224], "resize": "crop", "resize_to": 256},
        ),
    ],
)
def test_classifiers(tmp_path: Path, operators: list[str], expected: dict[str, Any]) -> None:
    """The two ways in which PaddleX's classifiers make pictures, and their labels, are read."""
    facts = gather(written(tmp_path, *operators), None, None)

    assert IMAGENET | expected == facts.input
    assert ["0_degree", "180_degree"] == facts.top["labels"]
    assert facts.unusable is None


def test_scale_as_text(tmp_path: Path) -> None:
    """The scale may be text that divides, as PaddleClas has it."""
    rest = NORMALISE.replace("0.00392156862745098", "1.0/255.0")

    facts = gather(written(tmp_path, "ResizeImage: {size: 64}", rest=rest), None, None)

    assert (255.0, [64, 64]) == (facts.input["scale"], facts.input["size"])


@pytest.mark.parametrize("operator", ["DetResizeForTest: {resize_long: 960}", "ToCHWImage: null"])
def test_other_tasks(tmp_path: Path, operator: str) -> None:
    """What makes pictures in another way is refused, unless the user says how."""
    facts = gather(written(tmp_path, operator), None, None)

    with pytest.raises(FluxdropError, match=r"inference\.yml makes pictures in a way"):
        facts.override({}, {})
    facts.override({}, {"size": [8, 8]})


@pytest.mark.parametrize("text", ["[", "a: b", "PreProcess: 3", "PreProcess: {transform_ops: [x]}"])
def test_damaged(tmp_path: Path, text: str) -> None:
    """A file that is no such description is refused by its name."""
    (tmp_path / "inference.yml").write_text(text)

    with pytest.raises(FluxdropError, match=r"inference\.yml"):
        gather(tmp_path, None, None)
