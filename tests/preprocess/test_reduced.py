"""JPEGs that are decoded smaller, as the setting ``fast_jpeg`` asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from fluxdrop.errors import FluxdropError
from fluxdrop.preprocess.deep import Deep
from fluxdrop.preprocess.geometry import Size, source_of
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.reduced import MARGIN, SCALES, Reduced, scale_for
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.preprocess.tensor import fit
from support.pictures import scene
from support.profiles import rgb_profile

EXIF_ORIENTATION = 0x0112
LEVELS = 3
"""By how many levels of 255 a pixel may differ, of a picture as smooth as these."""


def spec(width: int = 32, height: int = 32, **options: Any) -> InputSpec:
    return InputSpec(size=(width, height), **options)


def saved(folder: Path, image: Image.Image, **options: Any) -> Path:
    path = folder / "photo.jpg"
    image.save(path, **{"format": "JPEG", "quality": 95, **options})
    return path


def opened(
    path: Path,
    *specs: InputSpec,
    notes: list[str] | None = None,
    max_pixels: int = 10**7,
    reserve: Callable[[int], None] = lambda _pixels: None,
) -> tuple[Image.Image | Deep | Reduced, str]:
    """The picture as it is decoded for the models of *specs*; all of its pixels if there are none."""
    return open_picture(
        path,
        max_file_bytes=10**7,
        max_pixels=max_pixels,
        deep=True,
        notes=notes,
        reserve=reserve,
        shrink=lambda size: scale_for(size, specs) if specs else 1,
    )


def reduced(path: Path, *specs: InputSpec, notes: list[str] | None = None) -> Reduced:
    """The picture, which is decoded smaller for the models of *specs*."""
    image, _ = opened(path, *specs, notes=notes)
    assert isinstance(image, Reduced)
    return image


def seen(path: Path, of: InputSpec, *specs: InputSpec) -> NDArray[np.int16]:
    """What the model of the spec *of* sees of the picture that was decoded for *specs*, as levels."""
    image, _ = opened(path, *specs)
    fitted = fit(image, of)
    assert isinstance(fitted, Image.Image)
    assert fitted.size == tuple(of.size)
    levels: NDArray[np.int16] = np.asarray(fitted).astype(np.int16)
    return levels


def differences(path: Path, of: InputSpec) -> NDArray[np.int16]:
    """By how many levels each pixel differs that the model sees of the picture, as it is decoded smaller."""
    by: NDArray[np.int16] = np.abs(seen(path, of, of) - seen(path, of))
    return by


@pytest.mark.parametrize("specs", [(), (spec(300, 300),)])
def test_all_pixels(tmp_path: Path, specs: tuple[InputSpec, ...]) -> None:
    """Without the setting, and where a model needs all pixels, they are those that Pillow decodes, to the last bit."""
    path = saved(tmp_path, scene(601, 401))
    notes: list[str] = []

    image, name = opened(path, *specs, notes=notes)

    assert isinstance(image, Image.Image)
    assert ("JPEG", []) == (name, notes)
    with Image.open(path) as expected:
        assert expected.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((4000, 3000), {"width": 64, "height": 64}, 8),
        ((4000, 3000), {"width": 224, "height": 224, "resize": "crop", "resize_to": 256}, 4),
        ((3000, 4000), {"width": 224, "height": 224, "resize": "crop", "resize_to": 256}, 4),
        ((1023, 4000), {"width": 224, "height": 224, "resize": "crop", "resize_to": 256}, 1),
        ((1024, 4000), {"width": 224, "height": 224, "resize": "crop", "resize_to": 256}, 2),
        ((255, 8000), {"width": 64, "height": 64}, 1),
        ((8000, 256), {"width": 64, "height": 64}, 2),
        ((8000, 256), {"width": 64, "height": 64, "resize": "crop"}, 2),
        ((8000, 256), {"width": 64, "height": 64, "resize": "fit"}, 2),
        ((8000, 256), {"width": 64, "height": 64, "resize": "letterbox"}, 8),
        ((8000, 16), {"width": 64, "height": 64, "resize": "letterbox"}, 8),
        ((8000, 7), {"width": 64, "height": 64, "resize": "letterbox"}, 2),
        ((8000, 3), {"width": 64, "height": 64, "resize": "letterbox"}, 1),
        ((8000, 4000), {"width": 64, "height": 1000}, 2),
        ((8000, 6000), {"width": 2001, "height": 64}, 1),
        ((4000, 3000), {"width": 64, "height": 64, "filter": "nearest"}, 1),
        ((4000, 3000), {"width": 64, "height": 64, "resampler": "opencv"}, 1),
        ((4000, 3000), {"width": 64, "height": 64, "resampler": "torch"}, 8),
        ((64, 64), {"width": 64, "height": 64}, 1),
    ],
)
def test_scale(size: Size, options: dict[str, Any], expected: int) -> None:
    """A picture is decoded as small as leaves twice what the resize needs on both sides, and whole where the resize
    does not smooth."""
    allowed = scale_for(size, [spec(**options)])

    assert expected == next((scale for scale in SCALES if scale <= allowed), 1)


def test_scale_of_several_models() -> None:
    """What several models are to see suffices for the one that needs most."""
    size = (4000, 3000)
    models = [spec(64, 64), spec(512, 512), spec(224, 224)]

    assert scale_for(size, models) == min(scale_for(size, [one]) for one in models)
    assert 2 == int(scale_for(size, models))
    assert (8, 4) == (scale_for(size, []), scale_for(size, [], most=4))


@given(
    size=st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
    wanted=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    resize=st.sampled_from(["stretch", "crop", "letterbox", "fit"]),
    resampler=st.sampled_from(["pillow", "torchvision", "torch"]),
    resize_to=st.one_of(st.none(), st.integers(1, 700)),
)
def test_never_too_small(
    size: Size, wanted: Size, resize: Any, resampler: Any, resize_to: int | None
) -> None:
    """Whatever the sides and the way of resizing, both sides of what is resized are at least twice as long as after."""
    of = spec(*wanted, resize=resize, resampler=resampler, resize_to=resize_to)
    allowed = scale_for(size, [of])
    scale = next((scale for scale in SCALES if scale <= allowed), 1)
    (left, top, right, bottom), scaled = source_of(size, of)

    assert scale == 1 or (
        (right - left) / scale >= MARGIN * scaled[0]
        and (bottom - top) / scale >= MARGIN * scaled[1]
    )


@pytest.mark.parametrize("size", [(640, 480), (641, 481), (647, 487), (1003, 530), (530, 1003)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "L"},
        {"mode": "BGR", "filter": "bicubic"},
        {"resize": "crop"},
        {"resize": "crop", "resize_to": 40},
        {"resize": "crop", "resize_to": 20},
        {"resize": "crop", "resize_to": 20, "pad": "corner"},
        {"resize": "letterbox"},
        {"resize": "letterbox", "pad": "corner", "background": "#102030"},
        {"resize": "fit", "width": 40},
        {"resize": "fit", "width": 40, "resampler": "torch"},
        {"resize": "crop", "resampler": "torchvision", "filter": "lanczos"},
        {"resize": "crop", "resampler": "torch", "resize_to": 37},
    ],
)
def test_pixels(tmp_path: Path, size: Size, options: dict[str, Any]) -> None:
    """Each way of resizing gives the same picture in the same place within three levels, of sides of any length."""
    path = saved(tmp_path, scene(*size))
    of = spec(**options)

    image = reduced(path, of)

    assert (size, size) == (image.size, (image.width, image.height))
    assert image.scale >= 2
    assert image.image.size == (-(-size[0] // image.scale), -(-size[1] // image.scale))
    assert differences(path, of).max() <= LEVELS


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 99])
def test_orientation(tmp_path: Path, orientation: int) -> None:
    """A picture is turned upright, its sides are those of the upright one, and nothing moves, though what was decoded
    begins or ends beyond it."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    size = (643, 389)
    path = saved(tmp_path, scene(*size), exif=exif)
    of = spec(24, 48)

    image = reduced(path, of)

    upright = size[::-1] if orientation in (5, 6, 7, 8) else size
    whole, _ = opened(path)
    assert (upright, upright) == (image.size, (whole.width, whole.height))
    assert differences(path, of).max() <= LEVELS


def test_nothing_moves(tmp_path: Path) -> None:
    """A ramp over a picture whose sides are no multiples of 8 stays where it is, up to a tenth of the model's pixel,
    also at its end: what was decoded there is of a column that reaches 7 pixels beyond the picture."""
    size = (521, 521)
    ramp = np.linspace(0, 255, size[0], dtype=np.float32)
    path = saved(tmp_path, Image.fromarray(np.rint(np.tile(ramp, (size[1], 1))).astype(np.uint8)))
    of = spec(32, 32, mode="L")

    moved = (seen(path, of, of) - seen(path, of)).reshape(32, 4, 8).mean(axis=(0, 2))

    assert 8 == reduced(path, of).scale
    assert np.abs(moved).max() <= 255 / 32 / 10


@pytest.mark.parametrize(
    ("mode", "options", "decoded"),
    [
        ("L", {}, "L"),
        ("RGB", {"progressive": True}, "RGB"),
        ("RGB", {"subsampling": "4:4:4"}, "RGB"),
        ("RGB", {"subsampling": "4:2:0"}, "RGB"),
        ("RGB", {"keep_rgb": True}, "RGB"),
        ("CMYK", {}, "RGB"),
        ("CMYK", {"progressive": True}, "RGB"),
        ("RGB", {"format": "MPO", "save_all": True, "append_images": [scene(8, 8)]}, "RGB"),
    ],
)
def test_kinds_of_jpeg(tmp_path: Path, mode: str, options: dict[str, Any], decoded: str) -> None:
    """Grey, CMYK, progressive ones and those of several pictures are decoded smaller, too, in their own mode."""
    path = saved(tmp_path, scene(523, 391).convert(mode), **options)
    of = spec(16, 16)

    image = reduced(path, of)

    assert (8, decoded, (66, 49)) == (image.scale, image.image.mode, image.image.size)
    assert differences(path, of).max() <= LEVELS


def test_grey_model(tmp_path: Path) -> None:
    """For a grey model, a colour picture is decoded in colours: Pillow makes the grey of them, as of all pixels."""
    path = saved(tmp_path, scene(512, 512))

    assert "RGB" == reduced(path, spec(mode="L")).image.mode


def test_profile(tmp_path: Path) -> None:
    """A profile of a wide gamut is applied to what was decoded."""
    wide = rgb_profile(
        (0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446), 2.2
    )
    path = saved(tmp_path, scene(512, 512), icc_profile=wide)
    notes: list[str] = []

    image = reduced(path, spec(), notes=notes)

    converted = "Its colours were converted to sRGB, because of its colour profile."
    assert [f"It was decoded at 1/{image.scale} of its size (fast_jpeg).", converted] == notes
    assert "icc_profile" not in image.image.info
    # Saturated colours are stretched.
    assert differences(path, spec()).max() <= 3 * LEVELS


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_other_formats(tmp_path: Path, file_format: str) -> None:
    """Pictures of other formats are decoded whole."""
    path = saved(tmp_path, scene(512, 512), format=file_format)

    image, name = opened(path, spec())

    assert isinstance(image, Image.Image)
    assert (file_format, (512, 512)) == (name, image.size)
    assert image.tobytes() == opened(path)[0].tobytes()  # type: ignore[union-attr]


@pytest.mark.parametrize("is_progressive", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99, "scan"])
def test_cut_off(tmp_path: Path, is_progressive: bool, share: float | str) -> None:
    """A JPEG that is cut off is refused for the same reason as without the setting, wherever it is cut."""
    path = saved(tmp_path, scene(512, 512), progressive=is_progressive)
    data = path.read_bytes()
    path.write_bytes(data[:-40] if isinstance(share, str) else data[: int(len(data) * share)])
    messages = []
    for specs in ((), (spec(),)):
        with pytest.raises(FluxdropError, match="is damaged or cut off") as caught:
            opened(path, *specs)
        messages.append(caught.value.message)

    assert messages[0] == messages[1]


def test_without_end(tmp_path: Path) -> None:
    """A JPEG that lacks the mark of its end alone is decoded whole, as two decodings have to be compared."""
    path = saved(tmp_path, scene(512, 512))
    path.write_bytes(path.read_bytes()[:-2])
    notes: list[str] = []

    image, _ = opened(path, spec(), notes=notes)

    assert isinstance(image, Image.Image)
    assert ["The JPEG lacks the mark of its end; all of its pixels are there."] == notes


def test_limit(tmp_path: Path) -> None:
    """The limit counts the pixels that the picture has, and so much room is asked for: a progressive JPEG needs the
    memory of all, however few are decoded."""
    path = saved(tmp_path, scene(512, 512), progressive=True)
    asked: list[int] = []

    opened(path, spec(), max_pixels=512 * 512, reserve=asked.append)
    with pytest.raises(FluxdropError, match="512 x 512 pixels, over the limit of 262,143"):
        opened(path, spec(), max_pixels=512 * 512 - 1)

    assert [512 * 512] == asked


def test_damaged_exif(tmp_path: Path) -> None:
    """Of damaged EXIF data, it is said once that the picture was not turned."""
    path = saved(tmp_path, scene(512, 512), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    expected: list[str] = []
    opened(path, notes=expected)
    notes: list[str] = []

    image = reduced(path, spec(), notes=notes)

    assert [*expected, f"It was decoded at 1/{image.scale} of its size (fast_jpeg)."] == notes


def test_beyond_the_edge(tmp_path: Path) -> None:
    """What a program left in a JPEG beyond its sides reaches the model's last row and column only, and little of it.

    The blocks of a JPEG have 8 or 16 pixels a side, and what lies beyond the picture may be anything.
    """
    canvas = scene(528, 528)
    white = Image.new("RGB", canvas.size, "white")
    white.paste(canvas.crop((0, 0, 517, 517)), (0, 0))
    path = saved(tmp_path, white, subsampling="4:2:0")
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = (517).to_bytes(2, "big") * 2
    path.write_bytes(data)
    of = spec(32, 32)

    different = differences(path, of)

    assert (517, 517) == reduced(path, of).size
    assert different[:-1, :-1].max() <= LEVELS
    assert different.max() <= 255 // 4


def test_whole_profile_is_kept(tmp_path: Path) -> None:
    """A profile that changes nothing stays with what was decoded, as with all pixels."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(tmp_path, scene(512, 512), icc_profile=profile)

    assert profile == reduced(path, spec()).image.info["icc_profile"]
