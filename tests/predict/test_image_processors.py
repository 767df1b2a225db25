"""The image processors of transformers: what their files say, and that fluxdrop's pictures are theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin import huggingface
from fluxdrop.predict.origin.trial_pictures import trial_pictures
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.preprocess.tensor import to_tensor
from support.needs import needs_generation

pytestmark = [pytest.mark.slow, needs_generation]

CONFIG = {"architectures": ["ViTForImageClassification"], "model_type": "vit"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("Beit", {}),
    ("Bit", {}),
    ("CLIP", {"size": {"shortest_edge": 97}, "crop_size": {"height": 64, "width": 96}}),
    ("ConvNext", {"size": {"shortest_edge": 64}, "crop_pct": 0.9}),
    ("ConvNext", {"size": {"shortest_edge": 384}}),
    ("DeiT", {}),
    ("EfficientNet", {"size": {"height": 64, "width": 64}}),
    ("EfficientNet", {"rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False}),
    ("EfficientNet", {"do_center_crop": True}),
    ("Levit", {"size": {"shortest_edge": 65}, "crop_size": {"height": 65, "width": 65}}),
    ("MobileNetV1", {}),
    ("MobileNetV2", {"resample": 0}),
    ("MobileViT", {}),
    ("MobileViT", {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}),
    ("PoolFormer", {"crop_pct": 0.95}),
    ("Pvt", {}),
    ("Segformer", {"size": {"height": 64, "width": 48}}),
    ("Siglip", {"do_normalize": False}),
    ("ViT", {}),
    ("ViT", {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}),
    ("ViT", {"resample": 1, "image_mean": [0.1, 0.2, 0.3]}),
]


def facts_of(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The `[input]` table that a preprocessor_config.json with *values* leads to."""
    folder.mkdir(exist_ok=True)
    (folder / huggingface.PROCESSOR).write_text(json.dumps(values))
    facts = huggingface.read(folder, CONFIG)
    if facts.unusable:
        raise facts.unusable
    return facts.input


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_pixels(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    """fluxdrop's tensors are those of the image processor, for pictures of all proportions."""
    import transformers

    processor = getattr(transformers, f"{name}ImageProcessorPil")(**changes)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / huggingface.PROCESSOR).read_text())
    spec = InputSpec(**facts_of(tmp_path / "model", saved))

    for picture in trial_pictures():
        expected = processor(picture, return_tensors="np")["pixel_values"]
        found = to_tensor(picture, spec)

        assert (expected.shape, True) == (
            found.shape,
            bool(np.allclose(expected, found, rtol=1e-4, atol=1e-4)),
        )


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_defaults(tmp_path: Path, name: str) -> None:
    """What a file leaves out is what the class itself takes: it may be as short as those of years ago."""
    import transformers

    getattr(transformers, f"{name}ImageProcessorPil")().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / huggingface.PROCESSOR).read_text())
    whole = facts_of(tmp_path / "whole", saved)

    for ending in ("ImageProcessor", "ImageProcessorFast", "FeatureExtractor"):
        key = "feature_extractor_type" if "Extractor" in ending else "image_processor_type"
        resampler = "torch" if ending.endswith("Fast") else "pillow"
        found = facts_of(tmp_path / "short", {key: f"{name}{ending}"})

        assert whole | {"resampler": resampler} == found


def test_earlier_form(tmp_path: Path) -> None:
    """A size of one number means a square or the shorter side, as the class takes it."""
    vit = facts_of(tmp_path / "vit", {"feature_extractor_type": "ViTFeatureExtractor", "size": 96})
    clip = facts_of(
        tmp_path / "clip", {"feature_extractor_type": "CLIPFeatureExtractor", "size": 96}
    )

    assert ([96, 96], "stretch") == (vit["size"], vit["resize"])
    assert ([224, 224], "crop", 96) == (clip["size"], clip["resize"], clip["resize_to"])


@pytest.mark.parametrize(
    "values",
    [
        {"image_processor_type": "DonutImageProcessor"},
        {"image_processor_type": "PerceiverImageProcessor"},
        {"image_processor_type": "PPLCNetImageProcessor"},
        {"image_processor_type": "ViTImageProcessor", "do_resize": False},
        {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 224}},
        {
            "image_processor_type": "ViTImageProcessor",
            "size": {"shortest_edge": 224, "longest_edge": 448},
            "do_center_crop": True,
        },
    ],
)
def test_what_is_not_done(tmp_path: Path, values: dict[str, Any]) -> None:
    """Pictures that fluxdrop cannot make so are refused, and not made in another way."""
    with pytest.raises(FluxdropError, match="in a way that fluxdrop does not"):
        facts_of(tmp_path / "model", values)
