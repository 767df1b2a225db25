"""Resizing as other libraries do it: compared with them where they are installed, and with facts taken from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from fluxdrop.preprocess.crop_percentage import resize_to
from fluxdrop.preprocess.geometry import Placement, middle, place
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.preprocess.tensor import fit
from support.originals import levels, pictures, torchvision, transformers

CV2 = {
    "nearest": "INTER_NEAREST",
    "box": "INTER_AREA",
    "bilinear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "lanczos": "INTER_LANCZOS4",
}


@pytest.mark.parametrize("filter_name", CV2)
@pytest.mark.parametrize("size", [(224, 224), (48, 32), (300, 500)])
def test_opencv(filter_name: Any, size: tuple[int, int]) -> None:
    """The resampler opencv is cv2.resize, within one level on 20 pictures, whether it shrinks or enlarges."""
    cv2 = pytest.importorskip("cv2")
    of = InputSpec(size=size, filter=filter_name, resampler="opencv")

    for picture in pictures():
        expected = cv2.resize(
            np.asarray(picture), size, interpolation=getattr(cv2, CV2[filter_name])
        )

        assert 1 >= levels(expected, fit(picture, of))


def row_levels(filter_name: Any, resampler: Any, expected: list[int]) -> int:
    """How far a row of five pixels, resized to that of the *expected* ones, is from them."""
    row = Image.fromarray(np.array([[0, 100, 200, 50, 255]], np.uint8))
    size = (len(expected), 1)
    found = fit(row, InputSpec(size=size, mode="L", filter=filter_name, resampler=resampler))
    return levels([expected], found)


@pytest.mark.parametrize(
    ("filter_name", "three", "eight"),
    [
        ("nearest", [0, 100, 50], [0, 0, 100, 100, 200, 50, 50, 255]),
        ("box", [40, 150, 173], [0, 40, 100, 180, 170, 50, 173, 255]),
        ("bilinear", [33, 200, 187], [0, 44, 106, 169, 153, 59, 165, 255]),
        ("bicubic", [26, 200, 182], [0, 35, 109, 192, 157, 49, 155, 255]),
        ("lanczos", [15, 200, 176], [0, 23, 112, 207, 148, 50, 148, 255]),
    ],
)
def test_opencv_facts(filter_name: Any, three: list[int], eight: list[int]) -> None:
    """What cv2.resize of OpenCV 5.0 makes of one row of five pixels, shrunk to three and enlarged to eight."""
    assert 1 >= max(row_levels(filter_name, "opencv", expected) for expected in (three, eight))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(224, 224), (48, 32)])
def test_torch(mode: Any, size: tuple[int, int]) -> None:
    """The resampler torch is torchvision's resize of a tensor of uint8, to the last bit."""
    torch = pytest.importorskip("torch")
    of = InputSpec(size=size, filter=mode, resampler="torch")

    for picture in pictures():
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(pixels, size[::-1], mode=mode, antialias=True)

        assert 0 == levels(resized[0].permute(1, 2, 0).numpy(), fit(picture, of))


@pytest.mark.parametrize(("to", "crop"), [(256, 224), (33, 32), (32, 40)])
@pytest.mark.parametrize(("number", "filter_name"), [(2, "bilinear"), (3, "bicubic")])
def test_transformers_fast(to: int, crop: int, number: int, filter_name: Any) -> None:
    """The resampler torch is what transformers' fast processors do, to the last bit."""
    torchvision()
    processor = transformers().CLIPImageProcessor(
        size={"shortest_edge": to},
        crop_size={"height": crop, "width": crop},
        resample=number,
        do_rescale=False,
        do_normalize=False,
    )
    of = InputSpec(
        size=(crop, crop),
        resize="crop",
        resize_to=to,
        filter=filter_name,
        resampler="torch",
        background="#000000",
    )

    for picture in pictures():
        expected = np.asarray(processor(picture)["pixel_values"][0]).transpose(1, 2, 0)

        assert 0 == levels(expected, fit(picture, of))


@pytest.mark.parametrize("size", [(224, 224), (48, 32)])
def test_fit(size: tuple[int, int]) -> None:
    """fit is ImageOps.fit of Pillow, and may take the centre of it."""
    whole = InputSpec(size=size, resize="fit", filter="lanczos")
    centre = InputSpec(size=(20, 30), resize="fit", resize_to=(40, 40), filter="lanczos")

    for picture in pictures():
        expected = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        middle = ImageOps.fit(picture, (40, 40), Image.Resampling.LANCZOS).crop((10, 5, 30, 35))

        assert 0 == levels(expected, fit(picture, whole))
        assert 0 == levels(middle, fit(picture, centre))


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        ((640, 480), (224, 224), (80, 0, 560, 480)),
        ((480, 641), (224, 224), (0, 80, 480, 560)),
        ((101, 50), (2, 1), (0, 0, 100, 50)),
        ((3000, 1), (1, 4), (1499, 0, 1500, 1)),
    ],
)
def test_middle(
    size: tuple[int, int], target: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    """What Keras' smart_resize crops: the largest part with the aspect ratio of the target, in whole pixels."""
    assert expected == middle(size, target)


def test_fit_as_in_keras() -> None:
    """With a resampler that is not Pillow's, fit crops whole pixels and then resizes."""
    picture = pictures()[0]
    cropped = picture.crop(middle(picture.size, (48, 32)))
    options: dict[str, Any] = {"size": (48, 32), "resampler": "opencv"}

    found = fit(picture, InputSpec(resize="fit", **options))

    assert 0 == levels(fit(cropped, InputSpec(**options)), found)


@pytest.mark.parametrize(
    ("resampler", "name"), [("opencv", "hamming"), ("torch", "box"), ("torch", "hamming")]
)
def test_a_filter_that_is_not_there(resampler: Any, name: Any) -> None:
    """A filter that a library does not have is refused when the bundle is read."""
    problem = InputSpec(size=(8, 8), resampler=resampler, filter=name).problem()

    assert f"input.filter is {name}, which the resampler {resampler} does not have." == problem


@pytest.mark.parametrize(
    ("filter_name", "three", "eight"),
    [
        ("bilinear", [43, 144, 167], [0, 44, 106, 169, 153, 59, 165, 255]),
        ("bicubic", [43, 144, 168], [0, 34, 107, 187, 160, 50, 167, 255]),
    ],
)
def test_torch_facts(filter_name: Any, three: list[int], eight: list[int]) -> None:
    """What interpolate of torch 2.13 makes of one row of five pixels, with antialias, to the last bit."""
    assert 0 == max(row_levels(filter_name, "torch", expected) for expected in (three, eight))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_torch_without_antialias(mode: Any) -> None:
    """The resampler opencv is also torchvision's resize of a tensor without antialias, within one level."""
    torch = pytest.importorskip("torch")
    of = InputSpec(size=(96, 64), filter=mode, resampler="opencv")

    for picture in pictures():
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        resized = torch.nn.functional.interpolate(pixels, (64, 96), mode=mode)
        expected = resized.round().clamp(0, 255)[0].permute(1, 2, 0).numpy()

        assert 1 >= levels(expected, fit(picture, of))


TORCHVISION = [
    # Resize, CenterCrop, and what is the same here.
    (256, 224, {"resize": "crop", "resize_to": 256}),
    (33, 32, {"resize": "crop", "resize_to": 33}),
    (20, 32, {"resize": "crop", "resize_to": 20}),
    ((40, 37), 32, {"resize": "stretch", "resize_to": (37, 40)}),
]


@pytest.mark.parametrize(("to", "crop", "options"), TORCHVISION)
def test_torchvision(to: Any, crop: int, options: dict[str, Any]) -> None:
    """The resampler torchvision is Resize and CenterCrop of Pillow's pictures, to the last bit."""
    transforms = torchvision().transforms
    original = transforms.Compose([transforms.Resize(to), transforms.CenterCrop(crop)])
    of = InputSpec(size=(crop, crop), resampler="torchvision", background="#000000", **options)

    for picture in pictures():
        assert 0 == levels(original(picture), fit(picture, of))


@pytest.mark.parametrize("size", [(224, 224), (48, 32)])
@pytest.mark.parametrize("percentage", [0.875, 1.0])
@pytest.mark.parametrize(
    ("crop_mode", "resize"), [("center", "crop"), ("squash", "stretch"), ("border", "letterbox")]
)
def test_timm(size: tuple[int, int], percentage: float, crop_mode: str, resize: Any) -> None:
    """A crop percentage and a crop mode mean what they mean in timm's create_transform, to the last bit."""
    torchvision()
    create_transform = pytest.importorskip("timm.data").create_transform
    original = create_transform(
        (3, *size[::-1]),
        crop_pct=percentage,
        crop_mode=crop_mode,
        interpolation="bicubic",
        mean=(0.5, 0.4, 0.3),
        use_prefetcher=True,
    )
    of = InputSpec(
        size=size,
        resize=resize,
        resize_to=resize_to(size, percentage),
        filter="bicubic",
        resampler="torchvision",
        background="#80664c",
    )

    for picture in pictures():
        expected = np.asarray(original(picture)).transpose(1, 2, 0)

        assert 0 == levels(expected, fit(picture, of))


@pytest.mark.parametrize(("to", "crop"), [(256, 224), (40, 32), (32, 40)])
@pytest.mark.parametrize(("number", "filter_name"), [(2, "bilinear"), (3, "bicubic")])
def test_transformers(to: int, crop: int, number: int, filter_name: Any) -> None:
    """The resampler pillow is transformers' resize by the shortest edge and centre crop, to the last bit."""
    processor = transformers().CLIPImageProcessorPil(
        size={"shortest_edge": to},
        crop_size={"height": crop, "width": crop},
        resample=number,
        do_rescale=False,
        do_normalize=False,
    )
    of = InputSpec(
        size=(crop, crop), resize="crop", resize_to=to, filter=filter_name, background="#000000"
    )

    for picture in pictures():
        expected = np.asarray(processor(picture)["pixel_values"][0]).transpose(1, 2, 0)

        assert 0 == levels(expected, fit(picture, of))


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        # torchvision 0.28: Resize(256) and CenterCrop(224); halves are rounded to even numbers.
        ((640, 480), {"resize": "crop", "resize_to": 256, "resampler": "torchvision"}, (341, 256, 58, 16)),
        ((227, 225), {"resize": "crop", "resize_to": 225, "resampler": "torchvision"}, (227, 225, 2, 0)),
        # transformers 5.23: the same, rounded down.
        ((227, 225), {"resize": "crop", "resize_to": 225}, (227, 225, 1, 0)),
        # timm 1.0: crop_pct 0.875 and the crop modes squash and border.
        ((640, 480), {"resize": "stretch", "resize_to": 256}, (256, 256, 16, 16)),
        ((640, 480), {"resize": "letterbox", "resize_to": 256}, (256, 192, 16, -16)),
        # letterbox as it was, and in the corner.
        ((640, 480), {"resize": "letterbox"}, (224, 168, 0, -28)),
        ((640, 480), {"resize": "letterbox", "pad": "corner"}, (224, 168, 0, 0)),
    ],
)  # fmt: skip
def test_place(
    size: tuple[int, int], options: dict[str, Any], expected: tuple[int, int, int, int]
) -> None:
    """Where the window of 224 x 224 lies in the scaled picture, as the named library says."""
    width, height, left, top = expected

    found = place(size, InputSpec(size=(224, 224), **options))

    assert Placement((width, height), left, top) == found


def test_crop_percentage() -> None:
    """The sides are divided by the percentage and rounded down; a side that differs stays."""
    assert [256, 235, (54, 36)] == [
        resize_to((224, 224), 0.875),
        resize_to((224, 224), 0.95),
        resize_to((48, 32), 0.875),
    ]
