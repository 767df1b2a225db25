"""Pictures into tensors and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fluxdrop.predict.bundle import load_bundle
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.preprocess.tensor import to_preview, to_tensor
from support.originals import transformers

NOISE = np.random.default_rng(20)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def picture(*rows: list[tuple[int, ...]]) -> Image.Image:
    """A picture of these pixels."""
    return Image.fromarray(np.array(rows, np.uint8))


def spec(width: int, height: int, **options: Any) -> InputSpec:
    return InputSpec(size=(width, height), **{"scale": 1, "filter": "nearest", **options})


def pixels(image: Image.Image, of: InputSpec) -> list[Any]:
    """The pixels of *image*'s tensor as whole numbers, row by row."""
    tensor = to_tensor(image, of)[0]
    by_rows = tensor.transpose(1, 2, 0) if of.layout == "NCHW" else tensor
    return [[tuple(map(int, pixel)) for pixel in row] for row in by_rows]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mode": "RGB"}, [[[[10, 40]], [[20, 50]], [[30, 60]]]]),
        ({"mode": "BGR"}, [[[[30, 60]], [[20, 50]], [[10, 40]]]]),
        ({"mode": "RGB", "layout": "NHWC"}, [[[[10, 20, 30], [40, 50, 60]]]]),
        ({"mode": "BGR", "layout": "NHWC"}, [[[[30, 20, 10], [60, 50, 40]]]]),
        # Luma as ITU-R 601 has it: 0.299 R + 0.587 G + 0.114 B.
        ({"mode": "L"}, [[[[18, 48]]]]),
        ({"mode": "L", "layout": "NHWC"}, [[[[18], [48]]]]),
        ({"scale": 10}, [[[[1, 4]], [[2, 5]], [[3, 6]]]]),
        ({"mean": (10,), "std": (2,)}, [[[[0, 15]], [[5, 20]], [[10, 25]]]]),
        ({"mean": (10, 20, 30), "std": (1, 2, 3)}, [[[[0, 30]], [[0, 15]], [[0, 10]]]]),
        ({"mode": "BGR", "mean": (30, 20, 10)}, [[[[0, 30]], [[0, 30]], [[0, 30]]]]),
    ],
)
def test_values(options: dict[str, Any], expected: list[Any]) -> None:
    """(p / scale - mean) / std, channel by channel in the model's order, float32 and row-major."""
    image = picture([(10, 20, 30), (40, 50, 60)])
    of = spec(2, 1, **options)

    tensor = to_tensor(image, of)

    assert expected == tensor.tolist()
    assert (np.dtype(np.float32), of.shape) == (tensor.dtype, tensor.shape)
    assert tensor.flags.c_contiguous


WIDE = picture([RED, GREEN, BLUE, WHITE])
HIGH = picture([RED], [GREEN], [BLUE], [WHITE])
G = (1, 2, 3)


@pytest.mark.parametrize(
    ("image", "resize", "expected"),
    [
        (WIDE, "stretch", [[GREEN, WHITE], [GREEN, WHITE]]),
        (WIDE, "crop", [[GREEN, BLUE], [GREEN, BLUE]]),
        (HIGH, "crop", [[GREEN, GREEN], [BLUE, BLUE]]),
        (picture([RED, GREEN]), "letterbox", [[RED, GREEN], [G, G]]),
        (picture([RED], [GREEN]), "letterbox", [[RED, G], [GREEN, G]]),
        (picture([RED]), "letterbox", [[RED, RED], [RED, RED]]),
    ],
)
def test_resize(image: Image.Image, resize: str, expected: list[Any]) -> None:
    """stretch takes all of the picture, crop its centre, letterbox all of it and background."""
    assert expected == pixels(image, spec(2, 2, resize=resize, background="#010203"))


def test_letterbox_is_centred() -> None:
    """A letterboxed picture has as much background before it as behind it."""
    found = pixels(picture([RED, GREEN, BLUE]), spec(3, 3, resize="letterbox"))

    assert [[WHITE] * 3, [RED, GREEN, BLUE], [WHITE] * 3] == found


@pytest.mark.parametrize("resampler", ["pillow", "torchvision", "torch", "opencv"])
@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox", "fit"])
@pytest.mark.parametrize("filter_name", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(300_000, 1), (1, 60_000), (1, 1)])
def test_thin_pictures(
    resampler: str, resize: str, filter_name: str, size: tuple[int, int]
) -> None:
    """Of a picture as thin as a line something is left, whatever the policy and the resampler."""
    of = spec(4, 4, resize=resize, resampler=resampler, filter=filter_name)

    tensor = to_tensor(Image.new("RGB", size, RED), of)

    assert ((1, 3, 4, 4), True) == (tensor.shape, bool((tensor[0, 1] == 0).any()))


@pytest.mark.parametrize(
    "filter_name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
)
def test_filters(filter_name: str) -> None:
    """Each filter is Pillow's of that name."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (9, 7), dtype=np.uint8))
    expected = np.asarray(image.resize((4, 5), Image.Resampling[filter_name.upper()]))

    found = to_tensor(image, spec(4, 5, mode="L", filter=filter_name))

    assert np.array_equal(expected, found[0, 0])


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.new("RGBA", (1, 1), (*RED, 0)), {}, [[WHITE]]),
        (Image.new("RGBA", (1, 1), (*RED, 255)), {}, [[RED]]),
        (Image.new("RGBA", (1, 1), (0, 0, 0, 51)), {}, [[(204, 204, 204)]]),
        (Image.new("RGBA", (1, 1), (*RED, 0)), {"background": "#010203"}, [[(1, 2, 3)]]),
        (Image.new("LA", (1, 1), (0, 51)), {"mode": "L"}, [[(204,)]]),
        (Image.new("LA", (1, 1), (9, 0)), {"background": "#010203"}, [[(1, 2, 3)]]),
        (Image.new("L", (1, 1), 9), {}, [[(9, 9, 9)]]),
    ],
)
def test_transparent_pictures(
    image: Image.Image, options: dict[str, Any], expected: list[Any]
) -> None:
    """The background shows through as much as the picture is transparent."""
    assert expected == pixels(image, spec(1, 1, **options))


SIZES = [(301, 200), (200, 301), (37, 90), (33, 32), (65, 64), (31, 77), (8, 8), (255, 32)]


@pytest.mark.parametrize("size", SIZES)
def test_crop_as_in_training(size: tuple[int, int]) -> None:
    """crop is what transformers does for CLIP, to the last bit: the shorter side in bicubic, then the centre."""
    image = Image.fromarray(NOISE.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    processor = transformers().CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)

    found = to_tensor(
        image, InputSpec(size=(32, 32), resize="crop", filter="bicubic", mean=mean, std=std)
    )

    expected = processor(image, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(expected, found, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_stretch_as_in_training(size: tuple[int, int], mode: str) -> None:
    """stretch is what transformers does for ViT, whatever the picture's mode, but for the background."""
    image = Image.fromarray(NOISE.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).convert(mode)
    processor = transformers().ViTImageProcessorPil(size={"height": 32, "width": 48})

    found = to_tensor(image, InputSpec(size=(48, 32), mean=(0.5,), std=(0.5,)))

    expected = processor(image.convert("RGB"), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(expected, found, atol=1e-6)


@pytest.mark.parametrize("resampler", ["pillow", "torchvision", "torch", "opencv"])
def test_crop_of_a_line(resampler: str) -> None:
    """The centre of a picture as thin as a line is what it is, whatever its whole would take in memory."""
    image = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8), 4000)[np.newaxis])
    of = spec(1024, 4096, mode="L", resize="crop", resampler=resampler, filter="bilinear")

    found = to_tensor(image, of)

    assert {127.0, 128.0} >= set(np.unique(found))


def test_colours_of_hidden_pixels_do_not_bleed() -> None:
    """What a transparent pixel would be if it were seen has no part in its neighbours."""
    image = picture([(*RED, 255), (*GREEN, 0)])

    (((_, green, _),),) = pixels(image, spec(1, 1, filter="box", background="#ff0000"))

    assert 0 == green


channels = st.sampled_from(["L", "RGB", "BGR"])


@given(
    channels,
    st.sampled_from(["NCHW", "NHWC"]),
    st.sampled_from([1.0, 127.5, 255.0]),
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    st.lists(st.floats(0.1, 4), min_size=3, max_size=3),
    st.integers(0, 2**32 - 1),
)
def test_preview_is_what_the_model_saw(
    mode: Any, layout: Any, scale: float, mean: list[float], std: list[float], seed: int
) -> None:
    """Where nothing is resized, the preview is the picture itself, pixel by pixel."""
    count = 1 if mode == "L" else 3
    of = spec(5, 3, mode=mode, layout=layout, scale=scale, mean=mean[:count], std=std[:count])
    shape = (3, 5) if mode == "L" else (3, 5, 3)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    preview = to_preview(to_tensor(Image.fromarray(values), of), of)

    assert np.array_equal(values, np.asarray(preview))


def test_preview_of_any_tensor() -> None:
    """Numbers that no pixel gives are shown as the nearest that one can have."""
    preview = to_preview(np.array([[[[-9.0, 300.0, 12.6]]]], np.float32), spec(3, 1, mode="L"))

    assert [[0, 255, 13]] == np.asarray(preview).tolist()


def test_embedded_bundle(samples: Path) -> None:
    """The embedded model sees a sample as its card says: grey, 64 x 64, from -1 to 1."""
    path = samples / "round_circle_01.png"
    image, _ = open_picture(path, max_file_bytes=10**6, max_pixels=10**6)
    with Image.open(path) as source:
        grey = source.convert("L").resize((64, 64), Image.Resampling.BILINEAR)
        expected = np.asarray(grey, np.float32)[None, None] / 127.5 - 1

    tensor = to_tensor(image, load_bundle("round-or-angular").spec.input)

    assert ((1, 1, 64, 64), True) == (tensor.shape, np.allclose(expected, tensor, atol=1e-6))
