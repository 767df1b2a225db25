"""The presets, compared with the preprocessing that they name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fluxdrop.cli.model.input_options import with_preset
from fluxdrop.preprocess import crop_percentage
from fluxdrop.preprocess.presets import PRESETS
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.preprocess.tensor import to_tensor
from support.originals import pictures, torchvision, transformers

Original = Callable[[Image.Image], Any]


def spec(preset: str, size: int = 224, **options: Any) -> InputSpec:
    """What `model add --preset` makes of a model of this *size*."""
    table: dict[str, Any] = {"size": (size, size)}
    crop_percentage.resolve(table, with_preset(preset, options)[0])
    return InputSpec(**table)


def same(original: Original, of: InputSpec, tolerance: float = 1e-5) -> None:
    """Check that *original* makes the same tensor of each picture."""
    for picture in pictures():
        expected: NDArray[np.float32] = np.asarray(original(picture))

        np.testing.assert_allclose(expected, to_tensor(picture, of)[0], atol=tolerance)


def test_imagenet() -> None:
    """imagenet is the preset ImageClassification of torchvision, which most of its weights have."""
    torchvision()
    from torchvision.transforms._presets import ImageClassification

    same(ImageClassification(crop_size=224, antialias=True), spec("imagenet"))


def test_timm() -> None:
    """imagenet and inception are timm's transforms with the mean and deviation of that name."""
    torchvision()
    timm = pytest.importorskip("timm.data")
    half = timm.IMAGENET_INCEPTION_MEAN, timm.IMAGENET_INCEPTION_STD

    same(timm.create_transform(224), spec("imagenet"))
    same(
        timm.create_transform(299, interpolation="bicubic", mean=half[0], std=half[1]),
        spec("inception", 299),
    )


def test_clip() -> None:
    """clip is the transform of OpenAI's CLIP: resize, crop, and these constants."""
    transforms = torchvision().transforms
    original = transforms.Compose(
        [
            transforms.Resize(224, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(
                (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
            ),
        ]
    )

    same(original, spec("clip"))


@pytest.mark.parametrize(
    ("preset", "name"), [("vit", "ViTImageProcessorPil"), ("siglip", "SiglipImageProcessorPil")]
)
def test_transformers(preset: str, name: str) -> None:
    """vit and siglip are what the processors of transformers do that are called so."""
    processor = getattr(transformers(), name)()

    same(lambda picture: processor(picture)["pixel_values"][0], spec(preset))


@pytest.mark.parametrize(
    ("preset", "options", "expected"),
    [
        # keras.applications: x / 127.5 - 1, and BGR with the means of ImageNet.
        ("tf", {}, [-1.0, 1.0, 0.0]),
        ("caffe", {}, [127.5 - 103.939, 255 - 116.779, 0 - 123.68]),
        ("ultralytics", {}, [0.0, 1.0, 0.5]),
        ("tf", {"mean": [0.0]}, [0.0, 2.0, 1.0]),
        ("imagenet", {"std": [1.0]}, [-0.485, 1 - 0.456, 0.5 - 0.406]),
    ],
)
def test_values(preset: str, options: dict[str, Any], expected: list[float]) -> None:
    """What becomes of a colour; an option takes precedence over the preset."""
    colour = Image.fromarray(np.array([[[0, 255, 127.5]]], np.uint8))

    found = to_tensor(colour, spec(preset, 1, **options)).ravel()

    np.testing.assert_allclose(expected, found, atol=0.6 if preset == "caffe" else 0.005)


@pytest.mark.parametrize(
    ("table", "options", "resize", "resize_to"),
    [
        ({}, {"crop_pct": 0.875}, "crop", 256),
        ({"resize": "letterbox"}, {"crop_pct": 0.875}, "letterbox", 256),
        ({}, {"resize_to": 256}, "crop", 256),
        ({"resize_to": 256}, {}, "stretch", 256),
        ({"resize_to": 256}, {"crop_pct": 1.0}, "crop", 224),
        ({}, {"resize_to": [256, 256]}, "stretch", [256, 256]),
        ({}, with_preset("imagenet", {"resize_to": 232})[0], "crop", 232),
        ({}, with_preset("imagenet", {"crop_pct": 1.0})[0], "crop", 224),
        ({}, with_preset("imagenet", {"resize": "crop"})[0], "crop", 256),
        ({}, with_preset("imagenet", {"resize": "letterbox"})[0], "letterbox", None),
        ({"resize": "crop", "resize_to": 256}, {"resize": "letterbox"}, "letterbox", None),
        ({"resize": "crop", "resize_to": 256}, {"resize": "crop"}, "crop", 256),
    ],
)
def test_options(
    table: dict[str, Any], options: dict[str, Any], resize: str, resize_to: Any
) -> None:
    """Options replace what a model.toml or preset says; those about the shorter side mean a crop where nothing is said.

    Another way to resize has no size before the crop, unless that is said, too: a letterbox would lose its border.
    """
    table = {"size": [224, 224], **table}

    crop_percentage.resolve(table, options)

    assert (resize, resize_to) == (table.get("resize", "stretch"), table.get("resize_to"))


def test_presets_are_valid() -> None:
    """Each preset makes an input without a contradiction."""
    assert dict.fromkeys(PRESETS, "") == {name: spec(name).problem() for name in PRESETS}
